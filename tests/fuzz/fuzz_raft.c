/* tests/fuzz/fuzz_raft.c: any sequence of events for one consensus core, with any messages from
 * peers. Whatever they say, no assertion fires, and what the core asks of its log a log can do:
 * indexes follow each other, terms don't fall, what is committed is not taken back.
 *
 * The first bytes are what the disk held, then each byte is an event with what it needs behind it.
 * The caller's side is kept as raft.h asks for: saves are reported in order, what was compacted was
 * applied, snapshots are installed that the log does not have. Numbers in messages are mostly near
 * those that the core has: elsewhere everything is refused at once. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "raft/internal.h"

#define ENTRIES_MAX 1024u
#define SAVES_MAX   1024u

struct input {
    const uint8_t *at, *end;
};

static uint8_t byte(struct input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static struct raft raft;
static struct raft_effects effects;
static int64_t now_us;
/* The log: term and HLC of entries above base; indexes below ENTRIES_MAX. */
static uint64_t terms[ENTRIES_MAX];
static chr_hlc hlcs[ENTRIES_MAX];
static uint64_t last_index, applied;
static bool truncated; /* the HLC of the last entry is not known to the core */
static struct {
    uint64_t sequence, last;
} saves[SAVES_MAX];
static size_t saves_from, saves_to;

/* ---- Values near those that matter ------------------------------------------------------------
 */

static uint64_t number(struct input *in)
{
    uint8_t b = byte(in);
    uint64_t around[] = {0,
                         raft.term,
                         raft.last_index,
                         raft.commit_index,
                         raft.base_index,
                         raft.saved_index,
                         raft.verified,
                         raft.term_start,
                         raft.read_round,
                         raft.last_hlc,
                         raft_term_of(&raft, raft.last_index),
                         RAFT__NUMBER_MAX,
                         UINT64_MAX,
                         (uint64_t)now_us,
                         1,
                         256};
    return around[b % 16] + (uint64_t)(b >> 4) - 4;
}

static void read_members(struct input *in, struct raft_members *members)
{
    *members = (struct raft_members){0};
    uint8_t who = byte(in), voters = byte(in);
    for (uint64_t id = 1; id <= 7; id++)
        if (who >> id & 1) {
            chr_err err =
                raft_members_add(members, (struct raft_member){id, id * 10, voters >> id & 1});
            CHR_ASSERT(!err);
        }
    if (raft_members_voters(members) == 0) {
        (void)raft_members_remove(members, 1);
        chr_err err = raft_members_add(members, (struct raft_member){1, 10, true});
        CHR_ASSERT(!err);
    }
}

/* ---- What the core asks for -------------------------------------------------------------------
 */

static void take_save(void)
{
    for (size_t i = 0; i < effects.save_count; i++) {
        const struct raft_entry *e = &effects.save[i];
        CHR_ASSERT(e->index == last_index + 1 && e->index < ENTRIES_MAX);
        CHR_ASSERT(last_index == raft.base_index || e->term >= terms[last_index]);
        CHR_ASSERT(truncated || last_index == raft.base_index || e->hlc > hlcs[last_index]);
        truncated = false;
        last_index++;
        terms[last_index] = e->term;
        hlcs[last_index] = e->hlc;
    }
    if (effects.save_count) {
        CHR_ASSERT(saves_to < SAVES_MAX);
        saves[saves_to].sequence = effects.save_sequence;
        saves[saves_to++].last = last_index;
    }
}

static void send_appends(struct input *in)
{
    for (uint32_t slot = 0; slot < raft.peers_count; slot++) {
        struct raft_message m;
        uint64_t last;
        if ((effects.append_to >> slot & 1) && raft_next_append(&raft, slot, &m, &last)) {
            CHR_ASSERT(m.index <= last && last <= last_index);
            uint64_t more = byte(in) % 4;
            uint64_t sent = CHR_MIN(last, m.index + more);
            raft_append_sent(&raft, slot, sent, (sent - m.index) * 1000000);
        }
        if ((effects.snapshot_to >> slot & 1) && raft.base_index > 0)
            raft_snapshot_started(&raft, slot, raft.base_index);
    }
}

static void step(struct input *in, struct raft_event event)
{
    event.now_us = now_us;
    event.wall_ms = 1000 + (uint64_t)now_us / 1000;
    event.random = byte(in) * 0x0101010101010101u;
    uint64_t committed = raft.commit_index, term = raft.term;
    (void)raft_step(&raft, &event, &effects);
    if (event.type == RAFT_EVENT_INSTALLED && raft.base_index == event.index) {
        last_index = event.index;
        applied = CHR_MAX(applied, event.index);
        terms[last_index] = event.log_term;
        hlcs[last_index] = event.hlc;
        saves_from = saves_to;
        truncated = false;
    }
    CHR_ASSERT(raft.commit_index >= committed && raft.term >= term);
    if (effects.truncate) {
        CHR_ASSERT(effects.truncate_to >= committed && effects.truncate_to < last_index);
        last_index = effects.truncate_to;
        truncated = true;
    }
    take_save();
    CHR_ASSERT(raft.last_index == last_index && raft.saved_index <= last_index);
    CHR_ASSERT(effects.commit_index <= last_index && effects.commit_index <= raft.saved_index);
    CHR_ASSERT(raft_term_of(&raft, last_index) == terms[last_index] ||
               last_index == raft.base_index);
    applied = CHR_MAX(applied, effects.commit_index);
    send_appends(in);
}

/* ---- Events -----------------------------------------------------------------------------------
 */

static void message(struct input *in)
{
    struct raft_entry entries[4];
    uint8_t members_bytes[4][RAFT_MEMBERS_BYTES_MAX];
    uint8_t who = byte(in), flags = byte(in);
    struct raft_message m = {.type = (enum raft_message_type)(who % 12),
                             .group = flags == 255,
                             .from = 1 + who / 12 % 7,
                             .to = raft.config.self,
                             .granted = flags & 1,
                             .forced = flags & 2};
    m.from_incarnation = m.from * 10 + ((flags & 60) == 60);
    m.term = flags & 64 ? raft.term : number(in);
    m.index = number(in);
    m.log_term = flags & 128 ? raft_term_of(&raft, m.index) : number(in);
    m.commit = number(in);
    m.match = number(in);
    m.last = number(in);
    m.accepted = number(in);
    m.hint_index = number(in);
    m.hint_term = number(in);
    m.sent_us = (int64_t)number(in);
    m.read = number(in);
    m.entries = entries;
    m.entries_count = m.type == RAFT_MESSAGE_APPEND ? byte(in) % 5 : 0;
    for (size_t i = 0; i < m.entries_count; i++) {
        uint8_t kind = byte(in);
        entries[i] = (struct raft_entry){.index = m.index + 1 + i,
                                         .term = kind & 128 ? m.term : number(in),
                                         .hlc = kind & 64 ? raft.last_hlc + 1 + i : number(in),
                                         .type = (enum raft_entry_type)(kind % 6)};
        if (kind & 32)
            entries[i].index = number(in);
        if (entries[i].type == RAFT_ENTRY_CONFIG) {
            struct raft_members members;
            read_members(in, &members);
            size_t len = raft_members_encode(&members, members_bytes[i]);
            members_bytes[i][len - 1] ^= kind & 16;
            entries[i].bytes = chr_slice_of(members_bytes[i], len);
        }
    }
    step(in, (struct raft_event){.type = RAFT_EVENT_MESSAGE, .message = &m});
}

static void install(struct input *in)
{
    struct raft_members members;
    uint64_t index = raft.commit_index + 1 + byte(in) % 8, term = number(in);
    read_members(in, &members);
    if (raft.role == RAFT_LEADER) /* has all that anybody could have a snapshot of */
        return;
    if (index + 16 >= ENTRIES_MAX || term == 0 || term > raft.term ||
        (index <= raft.last_index && raft_term_of(&raft, index) == term))
        return;
    step(in, (struct raft_event){.type = RAFT_EVENT_INSTALLED,
                                 .index = index,
                                 .log_term = term,
                                 .hlc = raft.last_hlc + 1,
                                 .members = &members});
}

static void propose(struct input *in)
{
    struct raft_entry entries[4];
    size_t count = byte(in) % 4;
    for (size_t i = 0; i < count; i++)
        entries[i] = (struct raft_entry){.type = RAFT_ENTRY_DATA};
    step(in, (struct raft_event){
                 .type = RAFT_EVENT_PROPOSE, .entries = entries, .entries_count = count});
}

static void one_event(struct input *in)
{
    uint8_t b = byte(in);
    switch (b % 16) {
    case 0:
        now_us += (b >> 4) * 50000;
        step(in, (struct raft_event){.type = RAFT_EVENT_TICK});
        break;
    case 1:
        propose(in);
        break;
    case 2:
    case 3:
        if (saves_from < saves_to) {
            struct raft_event saved = {.type = RAFT_EVENT_SAVED,
                                       .sequence = saves[saves_from].sequence,
                                       .saved_index = saves[saves_from].last};
            saves_from++;
            step(in, saved);
        }
        break;
    case 4:
        step(in, (struct raft_event){.type = RAFT_EVENT_READ, .read_number = 1 + number(in)});
        break;
    case 5:
        step(in, (struct raft_event){.type = RAFT_EVENT_CHANGE,
                                     .change = (enum raft_change_type)((b >> 4) % 3),
                                     .member = {byte(in) % 9, 10, false}});
        break;
    case 6:
        step(in, (struct raft_event){.type = RAFT_EVENT_TRANSFER, .peer = b >> 4});
        break;
    case 7:
        step(in, (struct raft_event){
                     .type = RAFT_EVENT_SNAPSHOT_SENT, .peer = b >> 5, .ok = b >> 4 & 1});
        break;
    case 8:
        install(in);
        break;
    case 9:
        step(in, (struct raft_event){.type = RAFT_EVENT_COMPACTED,
                                     .index = applied - CHR_MIN(applied, b >> 4)});
        break;
    default:
        message(in);
    }
}

static bool start(struct input *in)
{
    struct raft_term_run runs[4];
    uint8_t flags = byte(in);
    struct raft_config config = {.self = 1, .incarnation = 10, .lost_tail = flags & 1};
    struct raft_stored stored = {.base_index = byte(in) % 4, .runs = runs};
    stored.base_term = flags & 2 ? 1 : 0;
    stored.last_index = stored.base_index;
    stored.last_hlc = 100;
    read_members(in, &stored.members);
    stored.members_index = stored.base_index;
    uint64_t term = 1;
    memset(terms, 0, sizeof terms);
    memset(hlcs, 0, sizeof hlcs);
    terms[stored.base_index] = stored.base_term;
    for (size_t i = 0; i < (flags >> 2) % 4u; i++) {
        uint8_t b = byte(in);
        runs[stored.runs_count++] = (struct raft_term_run){stored.last_index + 1, term};
        for (uint8_t k = 0; k <= b % 3; k++) {
            terms[++stored.last_index] = term;
            hlcs[stored.last_index] = 90 + stored.last_index;
        }
        term += 1 + b / 64;
    }
    if (stored.last_index > stored.base_index)
        stored.last_hlc = hlcs[stored.last_index];
    stored.commit_index = stored.base_index;
    stored.hard_state = (struct raft_hard_state){term, flags >> 5 & 3};
    last_index = stored.last_index;
    applied = stored.commit_index;
    truncated = stored.last_index == stored.base_index;
    saves_from = saves_to = 0;
    now_us = 1000000;
    return raft_init(&raft, &config, &stored) == CHR_OK;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    chr_log_set_level(CHR_LOG_ERROR);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, data + size};
    if (start(&in))
        while (in.at < in.end && last_index + 16 < ENTRIES_MAX && saves_to + 1 < SAVES_MAX)
            one_event(&in);
    raft_free(&raft);
    return 0;
}
