/* tests/bridge/test_peer_codec.c: what nodes say to each other, there and back, cut short, changed.
 */
#include "tests/base/check.h"

#include "base/bytes.h"
#include "bridge/call_codec.h"
#include "bridge/peer_codec.h"
#include "bridge/peer_wire.h"
#include "tests/base/guard.h"

static struct peer_hello some_hello(void)
{
    struct peer_hello h = {.node = 0xfedcba9876543210,
                           .incarnation = 77,
                           .boot = 12,
                           .cluster = 99,
                           .format = PEER_FORMAT,
                           .version = "0.1.0",
                           .name = "node1",
                           .address = "127.0.0.1:8000",
                           .peers_hash = UINT64_MAX,
                           .wall_ms = 1700000000000};
    for (uint64_t id = 1; id <= 3; id++)
        assert_int_equal(raft_members_add(&h.founders, (struct raft_member){id, id * 10, id != 2}),
                         CHR_OK);
    h.members = h.founders;
    h.members_index = 1234;
    for (uint32_t i = 0; i < RAFT_MEMBERS_MAX; i++) { /* as long as can be */
        struct peer_contact *p = &h.peers[h.peers_count++];
        memset(p->name, 'a' + (int)i, sizeof p->name - 1);
        memset(p->address, 'A' + (int)i, sizeof p->address - 1);
    }
    return h;
}

static struct chr_buf encoded(const struct peer_hello *h)
{
    struct chr_buf b;
    chr_buf_init(&b, 1 << 20);
    assert_int_equal(peer_hello_encode(h, &b), CHR_OK);
    return b;
}

/* Padding aside. */
static void same_hello(const struct peer_hello *a, const struct peer_hello *b)
{
    struct chr_buf x = encoded(a), y = encoded(b);
    assert_int_equal(x.len, y.len);
    assert_memory_equal(x.ptr, y.ptr, x.len);
    chr_buf_free(&x);
    chr_buf_free(&y);
}

static void hello_there_and_back(void **state)
{
    (void)state;
    struct peer_hello h = some_hello(), back;
    struct chr_buf b = encoded(&h);
    assert_int_equal(peer_hello_decode(guarded(b.ptr, b.len), &back), CHR_OK);
    same_hello(&h, &back);
    assert_string_equal(back.name, "node1");
    assert_int_equal(back.founders.count, 3);
    assert_true(back.node == h.node && back.peers_hash == h.peers_hash);
    for (size_t n = 0; n < b.len; n++)
        if (peer_hello_decode(guarded(b.ptr, n), &back) == CHR_OK)
            assert_true(back.node != 0 && back.format != 0); /* ends between two fields */
    chr_buf_free(&b);

    struct peer_hello empty = {.node = 1, .format = 5}; /* newer, and of no cluster */
    b = encoded(&empty);
    assert_int_equal(peer_hello_decode(guarded(b.ptr, b.len), &back), CHR_OK);
    same_hello(&empty, &back);
    chr_buf_free(&b);
}

static void hello_is_checked(void **state)
{
    (void)state;
    struct peer_hello back,
        bad[] = {some_hello(), some_hello(), some_hello(), some_hello(), some_hello()};
    bad[0].node = 0;
    bad[1].format = 0;
    bad[2].cluster = 0; /* with founders */
    memcpy(bad[3].name, "\xff\xfe", 3);
    memcpy(bad[4].peers[3].address, "\xff\xfe", 3);
    for (size_t i = 0; i < CHR_COUNT_OF(bad); i++) {
        struct chr_buf b = encoded(&bad[i]);
        assert_int_equal(peer_hello_decode(guarded(b.ptr, b.len), &back), CHR_EMALFORMED);
        chr_buf_free(&b);
    }
    /* Text that is too long for its place: field 8 (name), 64 bytes. */
    struct peer_hello h = some_hello();
    struct chr_buf b = encoded(&h);
    uint8_t field[66] = {8 << 3 | 2, 64};
    memset(field + 2, 'x', 64);
    chr_buf_add(&b, field, sizeof field);
    assert_int_equal(peer_hello_decode(guarded(b.ptr, b.len), &back), CHR_EMALFORMED);
    b.len -= sizeof field;
    field[1] = 63;
    chr_buf_add(&b, field, sizeof field - 1);
    assert_int_equal(peer_hello_decode(guarded(b.ptr, b.len), &back), CHR_OK);
    assert_int_equal(strlen(back.name), 63);
    /* Fields nobody knows yet are passed over; a great many are not. */
    static const uint8_t unknown[] = {0x90, 0x0f, 0x01};
    for (int i = 0; i < 20; i++)
        chr_buf_add(&b, unknown, sizeof unknown);
    assert_int_equal(peer_hello_decode(guarded(b.ptr, b.len), &back), CHR_OK);
    for (int i = 0; i < 10000; i++)
        chr_buf_add(&b, unknown, sizeof unknown);
    assert_int_equal(peer_hello_decode(guarded(b.ptr, b.len), &back), CHR_EMALFORMED);
    chr_buf_free(&b);
}

static uint64_t some_number(struct chr_random *r)
{
    return chr_random_u64(r) >> chr_random_below(r, 64);
}

static struct raft_message some_message(struct chr_random *r)
{
    return (struct raft_message){
        .type = (enum raft_message_type)chr_random_below(r, RAFT_MESSAGE_READ_REPLY + 1),
        .group = (uint32_t)some_number(r),
        .from = some_number(r) | 1,
        .to = some_number(r) | 1,
        .from_incarnation = some_number(r),
        .term = some_number(r),
        .index = some_number(r) >> 1,
        .log_term = some_number(r),
        .commit = some_number(r),
        .match = some_number(r),
        .last = some_number(r),
        .accepted = some_number(r),
        .hint_index = some_number(r),
        .hint_term = some_number(r),
        .sent_us = (int64_t)some_number(r) * (chr_random_below(r, 2) ? 1 : -1),
        .read = some_number(r),
        .granted = chr_random_below(r, 2),
        .forced = chr_random_below(r, 2),
    };
}

static void same_message(const struct raft_message *a, const struct raft_message *b)
{
#define SAME(field) assert_true(a->field == b->field)
    SAME(type), SAME(group), SAME(from), SAME(to), SAME(from_incarnation), SAME(term);
    SAME(index), SAME(log_term), SAME(commit), SAME(match), SAME(last), SAME(accepted);
    SAME(hint_index), SAME(hint_term), SAME(sent_us), SAME(read), SAME(granted), SAME(forced);
    SAME(entries), SAME(entries_count);
#undef SAME
}

static void raft_messages_there_and_back(void **state)
{
    (void)state;
    struct chr_random r = test_random(11);
    struct chr_buf b;
    chr_buf_init(&b, 4096);
    for (int i = 0; i < 20000; i++) {
        struct raft_message m = some_message(&r), back;
        chr_buf_reset(&b);
        assert_int_equal(peer_raft_encode(&m, &b), CHR_OK);
        assert_int_equal(peer_raft_decode(guarded(b.ptr, b.len), &back), CHR_OK);
        same_message(&m, &back);
        size_t cut = chr_random_below(&r, b.len);
        (void)!peer_raft_decode(guarded(b.ptr, cut), &back);
        b.ptr[cut] ^= (uint8_t)(1u << chr_random_below(&r, 8));
        (void)!peer_raft_decode(guarded(b.ptr, b.len), &back);
    }
    struct raft_message m = some_message(&r), back;
    chr_buf_reset(&b);
    assert_int_equal(peer_raft_encode(&m, &b), CHR_OK);
    uint8_t format[] = {1 << 3, PEER_FORMAT + 1}; /* the last one counts */
    chr_buf_add(&b, format, sizeof format);
    assert_int_equal(peer_raft_decode(guarded(b.ptr, b.len), &back), CHR_EVERSION);
    b.ptr[b.len - 1] = 0;
    assert_int_equal(peer_raft_decode(guarded(b.ptr, b.len), &back), CHR_EMALFORMED);
    chr_buf_free(&b);
    chr_buf_init(&b, 8);
    assert_int_equal(peer_raft_encode(&m, &b), CHR_EFULL);
    assert_int_equal(peer_append_head(&m, &b), CHR_EFULL);
    assert_int_equal(b.len, 0);
    chr_buf_free(&b);
}

/* ---- Appends ------------------------------------------------------------------------------------
 */

static void put_entry(struct chr_buf *b, const struct raft_entry *e)
{
    uint8_t head[PEER_ENTRY_HEAD_BYTES];
    peer_entry_head(e, head);
    chr_buf_add(b, head, sizeof head);
    chr_buf_add_slice(b, e->bytes);
    chr_buf_add_slice(b, peer_entry_pad(e->bytes.len));
}

static void put_append(struct chr_buf *b, const struct raft_message *m,
                       const struct raft_entry *entries, size_t count)
{
    chr_buf_reset(b);
    assert_int_equal(peer_append_head(m, b), CHR_OK);
    for (size_t i = 0; i < count; i++)
        put_entry(b, &entries[i]);
    assert_false(b->failed);
}

static struct raft_message an_append(void)
{
    return (struct raft_message){
        .type = RAFT_MESSAGE_APPEND, .from = 1, .to = 2, .term = 7, .index = 41, .log_term = 3};
}

static void appends_there_and_back(void **state)
{
    (void)state;
    struct chr_random r = test_random(12);
    struct raft_message m = an_append(), back;
    uint8_t body[100];
    struct chr_buf b;
    chr_buf_init(&b, 1 << 20);
    for (int round = 0; round < 500; round++) {
        struct raft_entry entries[20], got[20];
        size_t count = chr_random_below(&r, 20), n;
        uint64_t term = 3, hlc = 1000;
        for (size_t i = 0; i < count; i++) {
            term += term < 7 && chr_random_below(&r, 2);
            hlc += 1 + chr_random_below(&r, 9);
            entries[i] = (struct raft_entry){.index = 42 + i,
                                             .term = term,
                                             .hlc = hlc,
                                             .type = 1 + chr_random_below(&r, 4),
                                             .bytes = {body, chr_random_below(&r, 100)}};
        }
        for (size_t i = 0; i < sizeof body; i++)
            body[i] = (uint8_t)chr_random_u64(&r);
        put_append(&b, &m, entries, count);
        assert_int_equal(peer_append_decode(guarded(b.ptr, b.len), &back, got, 20, &n), CHR_OK);
        assert_int_equal(n, count);
        assert_int_equal(back.entries_count, count);
        assert_int_equal(back.index, 41);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(got[i].index, entries[i].index);
            assert_int_equal(got[i].term, entries[i].term);
            assert_int_equal(got[i].hlc, entries[i].hlc);
            assert_int_equal(got[i].type, entries[i].type);
            assert_true(chr_slice_eq(got[i].bytes, entries[i].bytes));
        }
        if (count)
            assert_int_equal(peer_append_decode(guarded(b.ptr, b.len), &back, got, count - 1, &n),
                             CHR_EFULL);
        for (size_t cut = 0; cut < b.len; cut++)
            if (peer_append_decode(guarded(b.ptr, cut), &back, got, 20, &n) == CHR_OK)
                assert_true(n < count); /* between two entries: no way to tell */
    }
    chr_buf_free(&b);
}

static void appends_are_checked(void **state)
{
    (void)state;
    struct raft_message m = an_append(), back;
    struct raft_entry good[2] = {{.term = 3, .hlc = 10, .type = 2, .bytes = CHR_LIT_INIT("abc")},
                                 {.term = 7, .hlc = 11, .type = 1}};
    struct raft_entry e[2], got[4];
    struct chr_buf b;
    size_t n;
    chr_buf_init(&b, 8 << 20);
#define DECODED()                                                                                  \
    (put_append(&b, &m, e, 2), peer_append_decode(guarded(b.ptr, b.len), &back, got, 4, &n))
#define RESET() memcpy(e, good, sizeof e)
    RESET();
    assert_int_equal(DECODED(), CHR_OK);
    e[0].term = 2; /* below the entry before */
    assert_int_equal(DECODED(), CHR_EMALFORMED);
    RESET();
    e[0].term = 0;
    assert_int_equal(DECODED(), CHR_EMALFORMED);
    RESET();
    e[1].term = 8; /* above the leader's */
    assert_int_equal(DECODED(), CHR_EMALFORMED);
    RESET();
    e[1].hlc = 10;
    assert_int_equal(DECODED(), CHR_EMALFORMED);
    RESET();
    e[1].type = 0;
    assert_int_equal(DECODED(), CHR_EMALFORMED);
    e[1].type = RAFT_ENTRY_TYPE_MAX + 1;
    assert_int_equal(DECODED(), CHR_EVERSION);
    RESET();
    m.type = RAFT_MESSAGE_HEARTBEAT;
    assert_int_equal(DECODED(), CHR_EMALFORMED);
    m = an_append();
    m.index = UINT64_MAX - 1;
    assert_int_equal(DECODED(), CHR_EMALFORMED);
    m = an_append();
    uint8_t *large = calloc(1, RAFT_ENTRY_BYTES_MAX + 1);
    e[0].bytes = chr_slice_of(large, RAFT_ENTRY_BYTES_MAX);
    assert_int_equal(DECODED(), CHR_OK);
    e[0].bytes.len++;
    assert_int_equal(DECODED(), CHR_EMALFORMED);
    free(large);
    /* Zeros are zeros. */
    RESET();
    put_append(&b, &m, e, 1);
    size_t head = 4 + chr_get_u32le(b.ptr);
    for (size_t at = head + 21; at < b.len; at++) {
        if (at >= head + 32 && at < head + 35)
            continue;
        b.ptr[at] = 1;
        assert_int_equal(peer_append_decode(guarded(b.ptr, b.len), &back, got, 4, &n),
                         CHR_EMALFORMED);
        b.ptr[at] = 0;
    }
    chr_put_u32le(b.ptr, UINT32_MAX);
    assert_int_equal(peer_append_decode(guarded(b.ptr, b.len), &back, got, 4, &n), CHR_EMALFORMED);
    chr_buf_free(&b);
}

/* ---- The wire -----------------------------------------------------------------------------------
 */

static void names(void **state)
{
    (void)state;
    char id[PEER_CLIENT_ID_BYTES_MAX], topic[PEER_TOPIC_BYTES_MAX];
    enum peers_lane lane;
    uint64_t node;
    for (int i = 0; i < (int)PEERS_LANES; i++) {
        peer_client_id((enum peers_lane)i, UINT64_MAX - 5, id);
        assert_true(peer_client_id_parse(chr_slice_cstr(id), &lane, &node));
        assert_int_equal(lane, i);
        assert_true(node == UINT64_MAX - 5);
        for (size_t n = 0; n < strlen(id); n++)
            assert_false(peer_client_id_parse(guarded(id, n), &lane, &node));
    }
    static const char *const bad[] = {
        "$chronos-peer-bulk-0000000000000000",  "$chronos-peer-bulk-000000000000000G",
        "$chronos-peer-bulk-000000000000000A",  "$chronos-peer-bulk-00000000000000011",
        "$chronos-peer-other-0000000000000001", "sensor"};
    for (size_t i = 0; i < CHR_COUNT_OF(bad); i++)
        assert_false(peer_client_id_parse(guarded_cstr(bad[i]), &lane, &node));
    peer_topic(UINT64_MAX, PEERS_CONTROL, "a-name-of-16-byt", topic);
    assert_string_equal(topic, "$chronos/peer/ffffffffffffffff/control/a-name-of-16-byt");
}

/* Each bit of what both sides know matters, and each bit of the MAC. */
static void a_mac_is_good_for_one_thing(void **state)
{
    (void)state;
    struct peer_transcript t = {.connecting = 1, .accepting = 2, .lane = PEERS_BULK};
    struct peer_terms terms = {.window = 1 << 20, .received = 5, .released = 4};
    uint8_t mac[PEER_MAC_BYTES], other[PEER_MAC_BYTES];
    chr_random_bytes(t.connecting_nonce, PEER_NONCE_BYTES);
    chr_random_bytes(t.accepting_nonce, PEER_NONCE_BYTES);
    assert_true(peer_mac(CHR_LIT("secret"), &t, &terms, mac));
    assert_true(peer_mac_right(CHR_LIT("secret"), &t, &terms, mac));
    assert_true(peer_mac(CHR_LIT("secret"), &t, NULL, other)); /* A's is not B's */
    assert_memory_not_equal(mac, other, sizeof mac);
    assert_false(peer_mac_right(CHR_LIT("secret"), &t, &terms, other));
    assert_false(peer_mac_right(CHR_LIT("secre"), &t, &terms, mac));
    assert_false(peer_mac_right(CHR_LIT(""), &t, &terms, mac));
    struct peer_transcript changed[] = {t, t, t, t, t, t};
    changed[0].connecting = 3;
    changed[1].accepting = 3;
    changed[2].lane = PEERS_CONTROL;
    changed[3].connecting_nonce[31] ^= 1;
    changed[4].accepting_nonce[0] ^= 128;
    changed[5].connecting = 2, changed[5].accepting = 1; /* not to be turned round */
    for (size_t i = 0; i < CHR_COUNT_OF(changed); i++)
        assert_false(peer_mac_right(CHR_LIT("secret"), &changed[i], &terms, mac));
    struct peer_terms more[] = {terms, terms, terms};
    more[0].window++;
    more[1].received++;
    more[2].released++;
    for (size_t i = 0; i < CHR_COUNT_OF(more); i++)
        assert_false(peer_mac_right(CHR_LIT("secret"), &t, &more[i], mac));
    for (size_t i = 0; i < 8 * sizeof mac; i++) {
        memcpy(other, mac, sizeof mac);
        other[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_false(peer_mac_right(CHR_LIT("secret"), &t, &terms, other));
    }
}

static void steps_of_the_proof(void **state)
{
    (void)state;
    uint8_t challenge[PEER_CHALLENGE_BYTES], proof[PEER_PROOF_BYTES], accepted[PEER_ACCEPTED_BYTES];
    uint8_t nonce[PEER_NONCE_BYTES] = {1, 2, 3}, back[PEER_NONCE_BYTES], mac[PEER_MAC_BYTES] = {7};
    struct peer_proof p = {.from = 3, .to = 4, .lane = PEERS_BULK, .nonce = {5}, .mac = {6}}, q;
    struct peer_terms terms = {.window = 10, .received = 9, .released = 9}, u;
    peer_challenge_encode(nonce, challenge);
    peer_proof_encode(&p, proof);
    peer_accepted_encode(&terms, mac, accepted);
    assert_int_equal(peer_challenge_decode(guarded(challenge, sizeof challenge), back), CHR_OK);
    assert_memory_equal(nonce, back, sizeof nonce);
    assert_int_equal(peer_proof_decode(guarded(proof, sizeof proof), &q), CHR_OK);
    assert_memory_equal(&p.nonce, &q.nonce, sizeof p.nonce + sizeof p.mac);
    assert_true(q.from == 3 && q.to == 4 && q.lane == PEERS_BULK);
    assert_int_equal(peer_accepted_decode(guarded(accepted, sizeof accepted), &u, back), CHR_OK);
    assert_memory_equal(&terms, &u, sizeof u);
    assert_memory_equal(mac, back, sizeof mac);
    for (size_t n = 0; n < sizeof proof; n++) {
        assert_int_not_equal(peer_proof_decode(guarded(proof, n), &q), CHR_OK);
        if (n < sizeof accepted)
            assert_int_not_equal(peer_accepted_decode(guarded(accepted, n), &u, back), CHR_OK);
        if (n < sizeof challenge)
            assert_int_not_equal(peer_challenge_decode(guarded(challenge, n), back), CHR_OK);
    }
    proof[0] = challenge[0] = accepted[0] = 2;
    assert_int_equal(peer_challenge_decode(guarded(challenge, sizeof challenge), back),
                     CHR_EVERSION);
    assert_int_equal(peer_proof_decode(guarded(proof, sizeof proof), &q), CHR_EVERSION);
    assert_int_equal(peer_accepted_decode(guarded(accepted, sizeof accepted), &u, back),
                     CHR_EVERSION);
    terms.released = 10;
    peer_accepted_encode(&terms, mac, accepted);
    assert_int_equal(peer_accepted_decode(guarded(accepted, sizeof accepted), &u, back),
                     CHR_EMALFORMED);
}

/* ---- Calls --------------------------------------------------------------------------------------
 */

static void calls_there_and_back(void **state)
{
    (void)state;
    struct chr_random r = test_random(13);
    struct chr_buf b, again;
    chr_buf_init(&b, 65536);
    chr_buf_init(&again, 65536);
    struct call call = {.number = 7, .kind = CALL_ADD, .name = "node4", .address = "10.0.0.4:1"};
    struct call back;
    assert_int_equal(call_encode(&call, &b), CHR_OK);
    assert_int_equal(call_decode(guarded(b.ptr, b.len), &back), CHR_OK);
    assert_int_equal(call_encode(&back, &again), CHR_OK);
    assert_int_equal(b.len, again.len);
    assert_memory_equal(b.ptr, again.ptr, b.len);
    chr_buf_reset(&again);
    for (size_t n = 0; n < b.len; n++)
        if (call_decode(guarded(b.ptr, n), &back) == CHR_OK)
            assert_true(back.number == 7);
    call.number = 0;
    chr_buf_reset(&b);
    assert_int_equal(call_encode(&call, &b), CHR_OK);
    assert_int_equal(call_decode(guarded(b.ptr, b.len), &back), CHR_EMALFORMED);

    struct call_reply *reply = calloc(2, sizeof *reply);
    assert_non_null(reply);
    *reply = (struct call_reply){.number = 9, .status = CALL_FAILED, .err = CHR_ESTALE};
    memset(reply->text, 't', sizeof reply->text - 1);
    for (uint32_t i = 0; i < CALL_NODES_MAX; i++) {
        struct call_node *n = &reply->nodes[reply->nodes_count++];
        *n = (struct call_node){.node = some_number(&r),
                                .role = (enum call_role)(i % 5),
                                .voter = i & 1,
                                .progress = true,
                                .match = some_number(&r),
                                .lag = some_number(&r),
                                .skew_ms = -(int64_t)i};
        memset(n->name, 'n', sizeof n->name - 1);
        memset(n->address, 'a', sizeof n->address - 1);
        memset(n->version, 'v', sizeof n->version - 1);
    }
    chr_buf_reset(&b);
    assert_int_equal(call_reply_encode(reply, &b), CHR_OK);
    assert_int_equal(call_reply_decode(guarded(b.ptr, b.len), &reply[1]), CHR_OK);
    assert_int_equal(call_reply_encode(&reply[1], &again), CHR_OK);
    assert_int_equal(b.len, again.len);
    assert_memory_equal(b.ptr, again.ptr, b.len);
    assert_int_equal(reply[1].err, CHR_ESTALE);
    assert_int_equal(reply[1].nodes[31].skew_ms, -31);
    for (int i = 0; i < 2000; i++) { /* damaged: whatever is said, nothing breaks */
        size_t at = chr_random_below(&r, b.len);
        uint8_t bit = (uint8_t)(1u << chr_random_below(&r, 8));
        b.ptr[at] ^= bit;
        (void)!call_reply_decode(guarded(b.ptr, b.len), &reply[1]);
        (void)!call_decode(guarded(b.ptr, b.len), &back);
        b.ptr[at] ^= bit;
        (void)!call_reply_decode(guarded(b.ptr, at), &reply[1]);
    }
    free(reply);
    chr_buf_free(&b);
    chr_buf_free(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_there_and_back),
        cmocka_unit_test(hello_is_checked),
        cmocka_unit_test(raft_messages_there_and_back),
        cmocka_unit_test(appends_there_and_back),
        cmocka_unit_test(appends_are_checked),
        cmocka_unit_test(names),
        cmocka_unit_test(calls_there_and_back),
        cmocka_unit_test(a_mac_is_good_for_one_thing),
        cmocka_unit_test(steps_of_the_proof),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
