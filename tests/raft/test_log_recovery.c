/* tests/raft/test_log_recovery.c: damage → outcome (R16), one row each; then every bit, every
 * length and every sector of a small log. */
#include "tests/raft/log_kit.h"

/* ---- a map of what is on the disk ---- */

struct spot {
    uint64_t segment, offset, length, index, group;
    uint8_t type;
};
struct map {
    struct spot spots[600]; /* in log order */
    size_t count;
    uint64_t segments; /* highest id with records */
};

static void spot_name(const struct spot *spot, char name[RAFT_IO_NAME_MAX])
{
    raft__segment_name(spot->segment, name);
}

static void map_disk(struct kit *kit, struct map *map)
{
    map->count = 0;
    char name[RAFT_IO_NAME_MAX];
    for (uint64_t id = 1;; id++) {
        raft__segment_name(id, name);
        uint64_t bytes = fake_disk_size(&kit->disk, name);
        if (bytes == 0)
            break;
        uint8_t *file = malloc(bytes);
        fake_disk_peek(&kit->disk, name, 0, file, bytes);
        uint32_t seed = raft__seed(KIT_INCARNATION, id);
        struct raft__record r;
        uint64_t off = RAFT__HEADER_BYTES;
        while (off + RAFT__RECORD_BYTES <= bytes &&
               raft__record_peek(seed, (uint32_t)off, bytes, file + off, &r)) {
            assert_true(map->count < CHR_COUNT_OF(map->spots));
            map->spots[map->count++] = (struct spot){.segment = id,
                                                     .offset = off,
                                                     .length = r.length,
                                                     .index = r.index,
                                                     .group = r.group,
                                                     .type = r.type};
            map->segments = id;
            off += raft__record_space(r.length - RAFT__RECORD_BYTES);
        }
        free(file);
    }
}

/* The place of a live entry. */
static const struct spot *spot_of(const struct map *map, uint64_t index)
{
    for (size_t i = 0; i < map->count; i++)
        if (map->spots[i].index == index && raft__is_entry(map->spots[i].type))
            return &map->spots[i];
    fail_msg("no entry %llu", (unsigned long long)index);
    return NULL;
}

static void flip(struct kit *kit, const struct spot *spot, uint64_t at)
{
    char name[RAFT_IO_NAME_MAX];
    spot_name(spot, name);
    fake_disk_flip_bit(&kit->disk, name, spot->offset + at, 5);
}

static void wipe(struct kit *kit, uint64_t segment, uint64_t from, uint64_t len)
{
    char name[RAFT_IO_NAME_MAX];
    raft__segment_name(segment, name);
    uint8_t *zeros = calloc(1, len);
    fake_disk_poke(&kit->disk, name, from, zeros, len);
    free(zeros);
}

/* Cuts a file short, durably. */
static void shorten(struct kit *kit, uint64_t segment, uint64_t bytes)
{
    char name[RAFT_IO_NAME_MAX];
    raft__segment_name(segment, name);
    int handle;
    assert_int_equal(kit->disk.io.open(&kit->disk, name, false, &handle), CHR_OK);
    assert_int_equal(kit->disk.io.truncate(&kit->disk, handle, bytes), CHR_OK);
    assert_int_equal(kit->disk.io.sync(&kit->disk, handle), CHR_OK);
    kit->disk.io.close(&kit->disk, handle);
}

/* ---- the table ---- */

/* The log under test: 40 groups of 3 entries in 16 KiB segments, more than three of them, stopped
 * by a kill (no witness). last: 120, the last group being 118, 119, 120. */
enum { LAST = 120 };

struct row {
    const char *name;
    void (*damage)(struct kit *kit, const struct map *map);
    chr_err err;
    uint64_t last;    /* when it opens */
    bool torn;        /* and torn_bytes is not 0 */
    const char *says; /* part of the message, when it does not */
    bool closed;      /* stopped by raft_log_close instead */
    uint64_t start;   /* start_index, when not 1 */
};

static void nothing(struct kit *kit, const struct map *map)
{
    (void)kit;
    (void)map;
}
static void body_of_10(struct kit *kit, const struct map *map)
{
    flip(kit, spot_of(map, 10), 60);
}
static void length_of_10(struct kit *kit, const struct map *map)
{
    flip(kit, spot_of(map, 10), 9);
}
static void crc_of_10(struct kit *kit, const struct map *map)
{
    flip(kit, spot_of(map, 10), 0);
}
static void page_of_segment_2(struct kit *kit, const struct map *map)
{
    (void)map;
    wipe(kit, 2, 4096, 4096);
}
static void most_of_segment_2(struct kit *kit, const struct map *map)
{
    (void)map;
    wipe(kit, 2, 128, KIT_SEGMENT - 128);
}
static void all_of_segment_2(struct kit *kit, const struct map *map)
{
    (void)map;
    wipe(kit, 2, 0, KIT_SEGMENT);
}
static void last_of_group_39(struct kit *kit, const struct map *map)
{
    flip(kit, spot_of(map, LAST - 3), 50);
}
static void first_of_last_group(struct kit *kit, const struct map *map)
{
    flip(kit, spot_of(map, LAST - 2), 50);
}
static void middle_of_last_group(struct kit *kit, const struct map *map)
{
    flip(kit, spot_of(map, LAST - 1), 50);
}
static void body_of_last(struct kit *kit, const struct map *map)
{
    flip(kit, spot_of(map, LAST), 50);
}
static void header_of_last(struct kit *kit, const struct map *map)
{
    flip(kit, spot_of(map, LAST), 20);
}
static void last_never_written(struct kit *kit, const struct map *map)
{
    const struct spot *s = spot_of(map, LAST);
    wipe(kit, s->segment, s->offset, s->length);
}
static void witness_itself(struct kit *kit, const struct map *map)
{
    assert_int_equal(map->spots[map->count - 1].type, RAFT__WITNESS);
    flip(kit, &map->spots[map->count - 1], 20);
}
static void header_of_segment_1(struct kit *kit, const struct map *map)
{
    (void)map;
    fake_disk_flip_bit(&kit->disk, "00000000000000000001.seg", 40, 1);
}
static void header_of_segment_2(struct kit *kit, const struct map *map)
{
    (void)map;
    fake_disk_flip_bit(&kit->disk, "00000000000000000002.seg", 100, 1);
}
static void no_segment_1(struct kit *kit, const struct map *map)
{
    (void)map;
    fake_disk_remove(&kit->disk, "00000000000000000001.seg");
}
static void no_segment_2(struct kit *kit, const struct map *map)
{
    (void)map;
    fake_disk_remove(&kit->disk, "00000000000000000002.seg");
}
static void no_last_segment(struct kit *kit, const struct map *map)
{
    char name[RAFT_IO_NAME_MAX];
    raft__segment_name(map->segments, name);
    fake_disk_remove(&kit->disk, name);
}
static void short_segment_2(struct kit *kit, const struct map *map)
{
    (void)map;
    shorten(kit, 2, 5000);
}
static void empty_segment_2(struct kit *kit, const struct map *map)
{
    (void)map;
    shorten(kit, 2, 0);
}
static void short_last_entry(struct kit *kit, const struct map *map)
{
    const struct spot *s = spot_of(map, LAST);
    shorten(kit, s->segment, s->offset + s->length - 1);
}
static void foreign_files(struct kit *kit, const struct map *map)
{
    (void)map;
    fake_disk_poke(&kit->disk, "notes.txt", 0, "hello", 5);
    fake_disk_poke(&kit->disk, "00000000000000000000.seg", 0, "zero", 4);
    fake_disk_poke(&kit->disk, "0000000000000000001.seg", 0, "19 digits", 9);
    fake_disk_poke(&kit->disk, "99999999999999999999.seg", 0, "too large", 9);
    fake_disk_poke(&kit->disk, "prepare.tmp", 0, "left over", 9);
}
static void empty_next(struct kit *kit, const struct map *map)
{
    wipe(kit, map->segments + 1, 0, KIT_SEGMENT);
}
static void small_next(struct kit *kit, const struct map *map)
{
    wipe(kit, map->segments + 1, 0, 100);
}
static void recycled_next(struct kit *kit, const struct map *map)
{
    /* Segment 1 under another name: whole, valid, and of another life. */
    uint8_t file[KIT_SEGMENT];
    char name[RAFT_IO_NAME_MAX];
    fake_disk_peek(&kit->disk, "00000000000000000001.seg", 0, file, sizeof file);
    raft__segment_name(map->segments + 1, name);
    fake_disk_poke(&kit->disk, name, 0, file, sizeof file);
}
static void header_for(struct kit *kit, const struct map *map, uint64_t incarnation, uint64_t group)
{
    struct raft__header h = {.segment = map->segments + 1,
                             .incarnation = incarnation,
                             .segment_bytes = KIT_SEGMENT,
                             .next_index = LAST + 1,
                             .group = group};
    uint8_t bytes[KIT_SEGMENT] = {0};
    char name[RAFT_IO_NAME_MAX];
    raft__header_encode(&h, bytes);
    raft__segment_name(map->segments + 1, name);
    fake_disk_poke(&kit->disk, name, 0, bytes, sizeof bytes);
}
static void foreign_next(struct kit *kit, const struct map *map)
{
    header_for(kit, map, 42, 0);
}
static void later_group_next(struct kit *kit, const struct map *map)
{
    header_for(kit, map, KIT_INCARNATION, raft__pos_of(map->segments + 1, 500));
}
static void newer_version(struct kit *kit, const struct map *map)
{
    (void)map;
    uint8_t head[RAFT__HEADER_BYTES];
    fake_disk_peek(&kit->disk, "00000000000000000002.seg", 0, head, sizeof head);
    chr_put_u32le(head + 12, RAFT__FORMAT_VERSION + 1);
    chr_put_u32le(head + 8, chr_crc32c(0, head + 12, RAFT__HEADER_BYTES - 12));
    fake_disk_poke(&kit->disk, "00000000000000000002.seg", 0, head, sizeof head);
}
/* A valid record that joins the chain behind the last one. */
static void append_record(struct kit *kit, const struct map *map, uint8_t type, uint64_t index,
                          uint64_t group, uint32_t crc_off)
{
    const struct spot *s = &map->spots[map->count - 1];
    char name[RAFT_IO_NAME_MAX];
    spot_name(s, name);
    uint8_t bytes[RAFT__RECORD_BYTES];
    fake_disk_peek(&kit->disk, name, s->offset, bytes, sizeof bytes);
    uint64_t at = chr_round_up(s->offset + s->length, 8);
    struct raft__record r = {.type = type,
                             .prev_crc = chr_get_u32le(bytes) + crc_off,
                             .index = index,
                             .term = 1,
                             .hlc = 1u << 20,
                             .group = group ? group : raft__pos_of(s->segment, at)};
    raft__record_encode(raft__seed(KIT_INCARNATION, s->segment), (uint32_t)at, &r, bytes);
    fake_disk_poke(&kit->disk, name, at, bytes, sizeof bytes);
}
static void newer_record_type(struct kit *kit, const struct map *map)
{
    append_record(kit, map, 200, LAST, 0, 0);
}
static void index_jumps(struct kit *kit, const struct map *map)
{
    append_record(kit, map, RAFT_ENTRY_DATA, LAST + 2, 0, 0);
}
static void group_from_nowhere(struct kit *kit, const struct map *map)
{
    append_record(kit, map, RAFT_ENTRY_DATA, LAST + 1, raft__pos_of(9, 9), 0);
}
static void one_more(struct kit *kit, const struct map *map)
{
    append_record(kit, map, RAFT_ENTRY_DATA, LAST + 1, 0, 0);
}
static void does_not_join(struct kit *kit, const struct map *map)
{
    append_record(kit, map, RAFT_ENTRY_DATA, LAST + 1, 0, 1);
}

static const struct row rows[] = {
    {"nothing", nothing, 0, LAST, false, NULL, false, 0},
    {"nothing, after a clean close", nothing, 0, LAST, false, NULL, true, 0},
    {"body in the middle", body_of_10, CHR_ECORRUPT, 0, false, "0001.seg offset ", false, 0},
    {"length in the middle", length_of_10, CHR_ECORRUPT, 0, false, "a later group", false, 0},
    {"crc in the middle", crc_of_10, CHR_ECORRUPT, 0, false, "a later group", false, 0},
    {"a lost page", page_of_segment_2, CHR_ECORRUPT, 0, false, "0002.seg offset ", false, 0},
    {"a lost segment's records", most_of_segment_2, CHR_ECORRUPT, 0, false,
     "0002.seg offset 128: bad record", false, 0},
    {"a lost segment's bytes", all_of_segment_2, CHR_ECORRUPT, 0, false, "0001.seg offset ", false,
     0},
    {"last entry of the last but one group", last_of_group_39, CHR_ECORRUPT, 0, false,
     "a later group", false, 0},
    {"first entry of the last group", first_of_last_group, 0, LAST - 3, true, NULL, false, 0},
    {"middle entry of the last group", middle_of_last_group, 0, LAST - 2, true, NULL, false, 0},
    {"body of the last entry", body_of_last, 0, LAST - 1, true, NULL, false, 0},
    {"header of the last entry", header_of_last, 0, LAST - 1, false, NULL, false, 0},
    {"last entry never written", last_never_written, 0, LAST - 1, false, NULL, false, 0},
    {"last group, after a clean close", first_of_last_group, CHR_ECORRUPT, 0, false,
     "a later group", true, 0},
    {"last entry, after a clean close", header_of_last, CHR_ECORRUPT, 0, false, "a later group",
     true, 0},
    {"the witness of a clean close", witness_itself, 0, LAST, false, NULL, true, 0},
    {"header of the oldest segment", header_of_segment_1, CHR_ECORRUPT, 0, false,
     "0001.seg offset 0", false, 0},
    {"header of a middle segment", header_of_segment_2, CHR_ECORRUPT, 0, false, "0001.seg offset ",
     false, 0},
    {"oldest segment gone", no_segment_1, CHR_ECORRUPT, 0, false, "the log begins at entry", false,
     0},
    {"middle segment gone", no_segment_2, CHR_ECORRUPT, 0, false, "0002.seg offset 0: segment is",
     false, 0},
    {"last segment gone, checkpoint knows better", no_last_segment, CHR_ECORRUPT, 0, false,
     "but the checkpoint holds 120", false, LAST + 1},
    {"middle segment cut short", short_segment_2, CHR_ECORRUPT, 0, false, "0002.seg offset ", false,
     0},
    {"middle segment empty", empty_segment_2, CHR_ECORRUPT, 0, false, "0001.seg offset ", false, 0},
    {"file cut short in the last entry", short_last_entry, 0, LAST - 1, false, NULL, false, 0},
    {"files of others", foreign_files, 0, LAST, false, NULL, false, 0},
    {"next segment prepared", empty_next, 0, LAST, false, NULL, false, 0},
    {"next segment half prepared", small_next, 0, LAST, false, NULL, false, 0},
    {"next segment recycled", recycled_next, 0, LAST, false, NULL, false, 0},
    {"next segment of another log", foreign_next, CHR_ECORRUPT, 0, false, "segment of another log",
     false, 0},
    {"next segment of a later group", later_group_next, CHR_ECORRUPT, 0, false, "a later group",
     false, 0},
    {"newer format", newer_version, CHR_EVERSION, 0, false, "newer format", false, 0},
    {"newer record type", newer_record_type, CHR_EVERSION, 0, false, "record type 200", false, 0},
    {"valid record, wrong index", index_jumps, CHR_ECORRUPT, 0, false, "out of order", false, 0},
    {"valid record, wrong group", group_from_nowhere, CHR_ECORRUPT, 0, false, "group number", false,
     0},
    {"valid record that joins", one_more, 0, LAST + 1, false, NULL, false, 0},
    {"valid record that does not join (L3)", does_not_join, 0, LAST, true, NULL, false, 0},
};

static void run_row(const struct row *row)
{
    struct kit kit;
    kit_init(&kit);
    kit_open(&kit);
    for (int i = 0; i < LAST / 3; i++)
        kit_group(&kit, 3);
    if (row->closed)
        kit_close(&kit);
    else
        kit_die(&kit, false);
    static struct map map;
    map_disk(&kit, &map);
    assert_true(map.segments >= 3);
    row->damage(&kit, &map);
    if (row->start)
        kit.start = row->start;

    uint64_t hash = fake_disk_hash(&kit.disk);
    chr_err err = kit_try_open(&kit);
    if (err != row->err)
        fail_msg("%s: %s (%s), expected %s", row->name, chr_errname(err), kit.msg.text,
                 chr_errname(row->err));
    if (err) {
        if (!strstr(kit.msg.text, row->says))
            fail_msg("%s: says '%s', not '%s'", row->name, kit.msg.text, row->says);
        if (err == CHR_ECORRUPT && !strstr(kit.msg.text, "restore this node"))
            fail_msg("%s: no remedy in '%s'", row->name, kit.msg.text);
        if (fake_disk_hash(&kit.disk) != hash)
            fail_msg("%s: refused, but the disk was changed", row->name);
        kit_free(&kit);
        return;
    }
    if (raft_log_last(kit.log) != row->last)
        fail_msg("%s: last is %llu, expected %llu", row->name,
                 (unsigned long long)raft_log_last(kit.log), (unsigned long long)row->last);
    if ((kit.recovery.torn_bytes > 0) != row->torn)
        fail_msg("%s: torn bytes %llu", row->name, (unsigned long long)kit.recovery.torn_bytes);
    /* What open made of it stands: also after power fails, and with more behind it. */
    uint64_t more = row->last + 40;
    if (row->last <= LAST) {
        kit_verify(&kit);
        kit.hlc += 100; /* not the bytes that were cut */
        while (raft_log_last(kit.log) < more)
            kit_group(&kit, 4);
        kit_verify(&kit);
        kit_die(&kit, true);
        kit_open(&kit);
        assert_int_equal(raft_log_last(kit.log), more);
        assert_int_equal(kit.recovery.torn_bytes, 0);
        kit_verify(&kit);
        assert_false(fake_disk_exists(&kit.disk, "prepare.tmp"));
    }
    kit_free(&kit);
}

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < CHR_COUNT_OF(rows); i++)
        run_row(&rows[i]);
    print_message("%zu kinds of damage\n", CHR_COUNT_OF(rows));
}

/* ---- a last group over a border ---- */

/* Groups of 3 until one has crossed into a new segment; stopped by a kill. The last index. */
static uint64_t build_border(struct kit *kit, struct map *map)
{
    kit_init(kit);
    kit_open(kit);
    for (;;) {
        kit_group(kit, 3);
        map_disk(kit, map);
        uint64_t last = raft_log_last(kit->log);
        if (spot_of(map, last)->segment == 3 && spot_of(map, last - 2)->segment == 2) {
            kit_die(kit, false);
            return last;
        }
    }
}

static void test_border(void **state)
{
    (void)state;
    /* Which parts of the last group are lost: entries by bit, 8: the new segment's header. */
    for (unsigned lost = 0; lost < 16; lost++) {
        struct kit kit;
        static struct map map;
        uint64_t last = build_border(&kit, &map), expected = last;
        for (unsigned e = 3; e-- > 0;)
            if (lost & 1u << e) {
                wipe(&kit, spot_of(&map, last - 2 + e)->segment,
                     spot_of(&map, last - 2 + e)->offset, spot_of(&map, last - 2 + e)->length);
                expected = last - 3 + e;
            }
        if (lost & 8) {
            wipe(&kit, 3, 0, RAFT__HEADER_BYTES);
            for (unsigned e = 0; e < 3; e++)
                if (spot_of(&map, last - 2 + e)->segment == 3 && last - 3 + e < expected)
                    expected = last - 3 + e;
        }
        kit_open(&kit);
        if (raft_log_last(kit.log) != expected)
            fail_msg("lost %x: last %llu, expected %llu", lost,
                     (unsigned long long)raft_log_last(kit.log), (unsigned long long)expected);
        kit_verify(&kit);
        /* Nothing of the torn group stays in the segment that it had opened. */
        char name[RAFT_IO_NAME_MAX];
        raft__segment_name(3, name);
        if (spot_of(&map, expected)->segment == 2 && fake_disk_exists(&kit.disk, name)) {
            static uint8_t file[KIT_SEGMENT];
            struct raft__record r;
            fake_disk_peek(&kit.disk, name, 0, file, sizeof file);
            for (uint32_t at = RAFT__HEADER_BYTES; at + RAFT__RECORD_BYTES <= sizeof file; at += 8)
                if (raft__record_peek(raft__seed(KIT_INCARNATION, 3), at, sizeof file, file + at,
                                      &r))
                    assert_int_equal(r.type, RAFT__WITNESS); /* open's own (L6) */
        }
        kit.hlc += 1000;
        for (int i = 0; i < 30; i++)
            kit_group(&kit, 2);
        kit_die(&kit, true);
        kit_open(&kit);
        assert_int_equal(raft_log_last(kit.log), expected + 60);
        kit_verify(&kit);
        kit_free(&kit);
    }
}

/* One more group behind it, and the same losses are damage. */
static void test_border_proven(void **state)
{
    (void)state;
    for (unsigned lost = 1; lost < 16; lost++) {
        struct kit kit;
        static struct map map;
        uint64_t last = build_border(&kit, &map);
        kit_open(&kit);
        kit_group(&kit, 1);
        kit_die(&kit, false);
        for (unsigned e = 3; e-- > 0;)
            if (lost & 1u << e)
                wipe(&kit, spot_of(&map, last - 2 + e)->segment,
                     spot_of(&map, last - 2 + e)->offset, spot_of(&map, last - 2 + e)->length);
        if (lost & 8)
            wipe(&kit, 3, 0, RAFT__HEADER_BYTES);
        uint64_t hash = fake_disk_hash(&kit.disk);
        assert_int_equal(kit_try_open(&kit), CHR_ECORRUPT);
        assert_int_equal(fake_disk_hash(&kit.disk), hash);
        kit_free(&kit);
    }
}

/* ---- what was cut stays cut ---- */

/* Entries a, b, c, or b, c alone, in one group; b torn. Then b again, byte for byte, as a leader
 * would resend it: c's old record would join on to it. c lies in another page than b, so writing b
 * does not touch it. */
static void test_no_resurrection(void **state)
{
    (void)state;
    for (unsigned variant = 0; variant < 4; variant++) {
        struct kit kit;
        static struct map map;
        static uint8_t big[8192];
        memset(big, 'b', sizeof big);
        kit_init(&kit);
        kit_open(&kit);
        kit_group(&kit, 5);
        map_disk(&kit, &map);
        const struct spot *s = spot_of(&map, 5);
        uint64_t b = chr_round_up(s->offset + s->length, 8) + raft__record_space(100);
        uint64_t b_bytes = 8192 - (b + RAFT__RECORD_BYTES) % 4096;
        struct raft_entry e[3];
        for (unsigned i = 0; i < 3; i++)
            e[i] = (struct raft_entry){.index = 6 + i,
                                       .term = 1,
                                       .hlc = 1000 + i,
                                       .type = RAFT_ENTRY_DATA,
                                       .bytes = chr_slice_of(big, i == 1 ? b_bytes : 100)};
        if (variant & 1) { /* a in a group of its own */
            assert_int_equal(raft_log_append(kit.log, e, 1), CHR_OK);
            kit_sync(&kit);
            assert_int_equal(raft_log_append(kit.log, e + 1, 2), CHR_OK);
        } else {
            assert_int_equal(raft_log_append(kit.log, e, 3), CHR_OK);
        }
        kit_sync(&kit);
        kit_die(&kit, false);
        map_disk(&kit, &map);
        flip(&kit, spot_of(&map, 7), 100);
        kit_open(&kit);
        assert_int_equal(raft_log_last(kit.log), 6);
        assert_true(kit.recovery.torn_bytes > b_bytes);
        assert_int_equal(raft_log_append(kit.log, e + 1, 1), CHR_OK);
        kit_sync(&kit);
        kit_die(&kit, variant & 2);
        kit_open(&kit);
        assert_int_equal(raft_log_last(kit.log), 7);
        assert_int_equal(kit.recovery.torn_bytes, 0);
        kit_free(&kit);
    }
}

/* A payload that holds the image of a record of some later group proves nothing. */
static void test_image_in_payload(void **state)
{
    (void)state;
    struct kit kit;
    static struct map map;
    kit_init(&kit);
    kit_open(&kit);
    kit_group(&kit, 5);
    uint8_t image[400] = {0};
    for (unsigned at = 0; at + 64 < sizeof image; at += 64) {
        struct raft__record r = {.type = RAFT_ENTRY_DATA, .index = 99, .term = 1, .hlc = 9999};
        r.group = raft__pos_of(7, 7);
        raft__record_encode(raft__seed(KIT_INCARNATION, 1), 8192 + at, &r, image + at);
    }
    struct raft_entry e[2] = {
        {.index = 6, .term = 1, .hlc = 1000, .type = RAFT_ENTRY_DATA, .bytes = CHR_LIT("torn")},
        {.index = 7, .term = 1, .hlc = 1001, .type = RAFT_ENTRY_DATA}};
    e[1].bytes = chr_slice_of(image, sizeof image);
    assert_int_equal(raft_log_append(kit.log, e, 2), CHR_OK);
    kit_sync(&kit);
    kit_die(&kit, false);
    map_disk(&kit, &map);
    flip(&kit, spot_of(&map, 6), 49);
    flip(&kit, spot_of(&map, 7), 20); /* so that the scan walks through its payload */
    kit_open(&kit);
    assert_int_equal(raft_log_last(kit.log), 5);
    kit_free(&kit);
}

/* ---- every bit, every length, every sector ---- */

/* A log of a few small groups in small segments, 12 entries; last group: 11, 12 (after a kill). */
static void build_small(struct kit *kit, bool closed)
{
    kit_init(kit);
    kit->options.segment_bytes = kit->options.first_segment_bytes = 4096;
    kit_open(kit);
    kit_group(kit, 2);
    assert_int_equal(raft_log_set_hard_state(kit->log, (struct raft_hard_state){2, 1}), CHR_OK);
    for (int i = 0; i < 4; i++)
        kit_group(kit, 2);
    assert_int_equal(raft_log_truncate_suffix(kit->log, 9), CHR_OK);
    kit_group(kit, 1);
    kit_group(kit, 2);
    if (closed)
        kit_close(kit);
    else
        kit_die(kit, false);
}

/* What must come of damage to bytes [from, to) of a segment, by the rule of R16 told once more, in
 * other words: the log up to the first damaged thing, unless something of a later group is whole
 * behind it. UINT64_MAX: refuse. Headers are spots too, of type 0. */
static uint64_t oracle(const struct map *map, uint64_t segment, uint64_t from, uint64_t to)
{
    uint64_t last = 0, end = 0;
    for (size_t i = 0; i < map->count; i++) {
        const struct spot *s = &map->spots[i];
        bool hit = s->segment == segment && s->offset < to && s->offset + s->length > from;
        if (!hit) {
            if (s->type && s->type != RAFT__HARD_STATE && s->type != RAFT__WITNESS)
                last = s->index;
            end = raft__pos_of(s->segment, chr_round_up(s->offset + s->length, 8));
            continue;
        }
        if (i == 0)
            return UINT64_MAX;
        for (size_t j = i + 1; j < map->count; j++) {
            const struct spot *t = &map->spots[j];
            bool whole = t->segment != segment || t->offset >= to || t->offset + t->length <= from;
            if (whole && t->group > end)
                return UINT64_MAX;
        }
        return last;
    }
    return last;
}

static void map_with_headers(struct kit *kit, struct map *map)
{
    static struct map records;
    map_disk(kit, &records);
    map->count = 0;
    for (size_t i = 0; i < records.count; i++) {
        uint64_t id = records.spots[i].segment;
        if (i == 0 || records.spots[i - 1].segment != id) {
            char name[RAFT_IO_NAME_MAX];
            uint8_t bytes[RAFT__HEADER_BYTES];
            struct raft__header h;
            raft__segment_name(id, name);
            fake_disk_peek(&kit->disk, name, 0, bytes, sizeof bytes);
            assert_int_equal(raft__header_decode(bytes, &h), CHR_OK);
            map->spots[map->count++] =
                (struct spot){.segment = id, .length = RAFT__HEADER_BYTES, .group = h.group};
        }
        map->spots[map->count++] = records.spots[i];
    }
}

static bool check_damaged(const struct kit *whole, const struct map *map, size_t file, char what,
                          uint64_t from, uint64_t to, unsigned bit)
{
    struct kit kit = *whole;
    const char *name = whole->disk.seen.items[file].name;
    uint64_t segment = strtoull(name, NULL, 10), size = fake_disk_size(&whole->disk, name);
    fake_disk_clone(&kit.disk, &whole->disk);
    if (what == 'b')
        fake_disk_flip_bit(&kit.disk, name, from, bit);
    else if (what == 'l')
        shorten(&kit, segment, from);
    else
        wipe(&kit, segment, from, CHR_MIN(to, size) - from);

    uint64_t expected = oracle(map, segment, from, to), hash = fake_disk_hash(&kit.disk);
    chr_err err = kit_try_open(&kit);
    if (err != (expected == UINT64_MAX ? CHR_ECORRUPT : CHR_OK))
        fail_msg("%c %s [%llu, %llu): %s %s, expected %lld", what, name, (unsigned long long)from,
                 (unsigned long long)to, chr_errname(err), kit.msg.text, (long long)expected);
    if (err) {
        assert_int_equal(fake_disk_hash(&kit.disk), hash);
    } else {
        if (raft_log_last(kit.log) != expected)
            fail_msg("%c %s [%llu, %llu): last %llu, expected %llu", what, name,
                     (unsigned long long)from, (unsigned long long)to,
                     (unsigned long long)raft_log_last(kit.log), (unsigned long long)expected);
        kit_verify(&kit);
    }
    kit_free(&kit);
    return err == CHR_OK;
}

static void test_every_bit(void **state)
{
    (void)state;
    for (int closed = 0; closed < 2; closed++) {
        struct kit kit;
        static struct map map;
        build_small(&kit, closed);
        map_with_headers(&kit, &map);
        unsigned refused = 0, opened = 0;
        for (size_t f = 0; f < kit.disk.seen.count; f++) {
            uint64_t bits = 8 * fake_disk_size(&kit.disk, kit.disk.seen.items[f].name);
            for (uint64_t bit = 0; bit < bits; bit += 3) {
                if (check_damaged(&kit, &map, f, 'b', bit / 8, bit / 8 + 1, bit % 8))
                    opened++;
                else
                    refused++;
            }
        }
        print_message("%s: %u flips refused, %u harmless or in the last group\n",
                      closed ? "closed" : "killed", refused, opened);
        assert_true(refused > 5000);
        assert_true(opened > 100);
        kit_free(&kit);
    }
}

static void test_every_length_and_sector(void **state)
{
    (void)state;
    for (int closed = 0; closed < 2; closed++) {
        struct kit kit;
        static struct map map;
        build_small(&kit, closed);
        map_with_headers(&kit, &map);
        for (size_t f = 0; f < kit.disk.seen.count; f++) {
            uint64_t size = fake_disk_size(&kit.disk, kit.disk.seen.items[f].name);
            for (uint64_t bytes = 0; bytes < size; bytes += 7)
                check_damaged(&kit, &map, f, 'l', bytes, UINT64_MAX, 0);
            for (uint64_t at = 0; at < size; at += FAKE_DISK_SECTOR / 2)
                check_damaged(&kit, &map, f, 's', at, at + FAKE_DISK_SECTOR, 0);
        }
        kit_free(&kit);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_border),
        cmocka_unit_test(test_border_proven),
        cmocka_unit_test(test_no_resurrection),
        cmocka_unit_test(test_image_in_payload),
        cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_every_length_and_sector),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
