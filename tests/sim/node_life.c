#include "tests/sim/node_life.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/random.h"
#include "db/db.h"
#include "db/op.h"
#include "db/scan.h"
#include "raft/log.h"
#include "raft/raft.h"
#include "tests/sim/fake_clock.h"
#include "tests/sim/fake_disk.h"
#include "tests/sim/fake_kv.h"

#define READINGS_MAX 20000u
#define ENTRIES_MAX  8000u
#define GROUP_MAX    6u
#define WINDOW       8u /* QoS 2 messages in flight */
#define IDS          12u

struct reading {
    uint64_t entry; /* index and ordinal of its row, while it is proposed */
    uint32_t ordinal;
    uint64_t deleted; /* entry that deletes it; 0: none */
};

/* A QoS 2 client: numbers from READINGS_MAX on, one per message. */
struct flight {
    bool used;
    uint16_t id;
    uint32_t number;
    bool stored; /* PUBREC sent: only the release is missing */
};

struct life {
    const struct node_life_options *options;
    struct node_life_report *report;
    struct chr_random random;
    struct fake_disk disk;
    fake_kv *store;
    struct db_kv kv;
    struct fake_clock clock;
    struct raft_log_options log_options;
    struct db_options db_options;

    db *db;
    raft_log *log;
    struct raft raft;
    bool up;

    struct reading *readings; /* by number */
    uint32_t readings_count;
    uint64_t acked_index;

    struct flight flights[WINDOW];
    uint32_t numbers;      /* QoS 2 messages so far */
    uint8_t *number_acked; /* [numbers] */
    uint16_t last_id;
    uint64_t epoch;
    uint32_t generation;
    bool session_open;
};

static bool broken(struct life *l, const char *format, ...) CHR_PRINTF(2, 3);
static bool broken(struct life *l, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!l->report->broken[0])
        vsnprintf(l->report->broken, sizeof l->report->broken, format, args);
    va_end(args);
    return false;
}

static bool chance(struct life *l, uint32_t in_10000)
{
    return chr_random_below(&l->random, 10000) < in_10000;
}

/* ---- Up and down ------------------------------------------------------------------------------
 */

static void tear_down(struct life *l)
{
    fake_disk_off(&l->disk);
    raft_log_close(l->log);
    raft_free(&l->raft);
    db_close(l->db);
    l->log = NULL;
    l->db = NULL;
    l->up = false;
    l->session_open = false;
}

static void power_cut(struct life *l)
{
    l->report->crashes++;
    tear_down(l);
    if (chance(l, 2000))
        fake_disk_kill(&l->disk); /* only the process died */
    else
        fake_disk_crash(&l->disk);
    fake_kv_reopen(l->store);
    l->disk.faults = (struct fake_disk_faults){.sync_lies = l->options->plant_skip_sync};
}

static void apply(struct life *l, const struct raft_entry *entry, struct db_apply_result *result)
{
    *result = (struct db_apply_result){0};
    db_apply(l->db, entry->index, entry->hlc, entry->bytes, result);
}

static bool replay(struct life *l, uint64_t commit)
{
    struct chr_buf buf;
    struct raft_entry entries[64];
    chr_buf_init(&buf, 16u << 20);
    uint64_t next = db_apply_index(l->db) + 1;
    bool ok = true;
    while (ok && next <= commit) {
        size_t count = 0;
        chr_buf_reset(&buf);
        chr_err err = raft_log_read(l->log, next, 1u << 20, &buf, entries, 64, &count);
        if (err || count == 0)
            ok = broken(l, "replay stops at %llu of %llu: %s", (unsigned long long)next,
                        (unsigned long long)commit, chr_strerror(err));
        for (size_t i = 0; ok && i < count; i++) {
            struct db_apply_result result;
            apply(l, &entries[i], &result);
            next = entries[i].index + 1;
        }
    }
    chr_buf_free(&buf);
    return ok;
}

/* Saves term and no-op as the committer does when it takes office. */
static bool take_office(struct life *l, const struct raft_log_recovery *recovery)
{
    struct raft_config config = {.self = 1};
    struct raft_term_run runs[256];
    struct raft_stored stored = {
        .hard_state = recovery->hard_state,
        .base_index = raft_log_first(l->log) - 1,
        .base_term = raft_log_term_of(l->log, raft_log_first(l->log) - 1),
        .last_index = raft_log_last(l->log),
        .last_hlc = CHR_MAX(recovery->last_hlc, db_replicated_time(l->db)),
        .commit_index = db_apply_index(l->db),
        .members = {.items = {{1, 0, true}}, .count = 1},
        .runs = runs,
        .runs_count = raft_log_terms(l->log, runs, CHR_COUNT_OF(runs)),
    };
    CHR_ASSERT(stored.runs_count <= CHR_COUNT_OF(runs));
    if (raft_init(&l->raft, &config, &stored))
        return broken(l, "raft_init: checkpoint %llu is ahead of the log %llu",
                      (unsigned long long)db_apply_index(l->db),
                      (unsigned long long)raft_log_last(l->log));
    struct raft_effects effects;
    struct raft_event tick = {.type = RAFT_EVENT_TICK,
                              .wall_ms = (uint64_t)(l->clock.wall_us / 1000)};
    chr_err err = raft_step(&l->raft, &tick, &effects);
    struct chr_errmsg msg;
    if (!err)
        err = raft_log_set_hard_state(l->log, effects.hard_state);
    if (!err)
        err = raft_log_append(l->log, effects.save, effects.save_count);
    if (!err)
        err = raft_log_sync(l->log, &msg);
    if (err)
        return broken(l, "taking office on a sound disk: %s", chr_strerror(err));
    struct raft_event saved = {.type = RAFT_EVENT_SAVED,
                               .sequence = effects.save_sequence,
                               .saved_index = raft_log_last(l->log)};
    err = raft_step(&l->raft, &saved, &effects);
    return !err && replay(l, effects.commit_index);
}

static bool compare_with_model(struct life *l);

static bool power_on(struct life *l)
{
    struct chr_errmsg msg = {{0}};
    struct raft_log_recovery recovery;
    chr_err err = db_open(&l->kv, &l->db_options, &l->db, &msg);
    if (err)
        return broken(l, "db_open: %s: %s", chr_strerror(err), msg.text);
    err = raft_log_open(&l->disk.io, &l->log_options, db_durable_index(l->db) + 1, &l->log,
                        &recovery, &msg);
    if (err)
        return broken(l, "raft_log_open: %s: %s", chr_strerror(err), msg.text);
    l->up = true;
    /* What was proposed beyond the recovered log never happened. */
    uint64_t last = raft_log_last(l->log);
    if (last < l->acked_index)
        return broken(l, "P2: entry %llu was acknowledged, the log ends at %llu",
                      (unsigned long long)l->acked_index, (unsigned long long)last);
    for (uint32_t i = 0; i < l->readings_count; i++) {
        if (l->readings[i].entry > last)
            l->readings[i].entry = 0;
        if (l->readings[i].deleted > last)
            l->readings[i].deleted = 0;
    }
    return take_office(l, &recovery) && compare_with_model(l);
}

/* ---- Comparing --------------------------------------------------------------------------------
 */

/* How often each number is in the table: plain readings by seq, QoS 2 messages by value. */
static bool count_rows(struct life *l, uint8_t *seq_seen, uint8_t *number_seen)
{
    db_read *read = NULL;
    db_scan *scan = NULL;
    db_reader *reader = NULL;
    struct chr_errmsg msg = {{0}};
    bool ok = db_read_begin(l->db, &read) == CHR_OK;
    const struct db_table_def *table =
        ok ? db_catalog_find(db_read_catalog(read), CHR_LIT("readings")) : NULL;
    uint16_t columns[2];
    if (table) {
        columns[0] = (uint16_t)db_table_column(table, CHR_LIT("seq"));
        columns[1] = (uint16_t)db_table_column(table, CHR_LIT("device_id"));
    }
    ok = ok && table && db_scan_open(read, table, columns, 2, NULL, 0, &scan) == CHR_OK &&
         db_reader_open(scan, &reader) == CHR_OK;
    struct db_morsel morsel;
    int more = 0;
    while (ok && (more = db_reader_next_morsel(reader, &morsel, &msg)) > 0) {
        struct db_batch batch;
        int rows = 0;
        while (ok && (rows = db_reader_next_batch(reader, &batch, &msg)) > 0) {
            chr_err err = CHR_OK;
            struct db_vector *seq = db_reader_column(reader, 0, &err, &msg);
            struct db_vector *device = seq ? db_reader_column(reader, 1, &err, &msg) : NULL;
            ok = device != NULL;
            for (uint32_t i = 0; ok && i < batch.sel_count; i++) {
                uint32_t row = batch.sel ? batch.sel[i] : i;
                int64_t n = seq->i64[db_vector_at(seq, row)];
                chr_slice who = device->str[db_vector_at(device, row)];
                bool plain = who.len && who.ptr[0] == 'd';
                ok = n >= 0 && n < READINGS_MAX;
                uint8_t *seen = plain ? seq_seen : number_seen;
                if (ok && seen[n] < 255)
                    seen[n]++;
            }
        }
        ok = ok && rows == 0;
    }
    ok = ok && more == 0;
    db_reader_close(reader);
    db_scan_close(scan);
    db_read_end(read);
    return ok || broken(l, "scan: %s", msg.text);
}

static bool compare_with_model(struct life *l)
{
    uint8_t *seen = calloc(2, READINGS_MAX);
    if (!seen)
        return broken(l, "no memory");
    bool ok = count_rows(l, seen, seen + READINGS_MAX);
    uint8_t *numbers = seen + READINGS_MAX;
    for (uint32_t i = 0; ok && i < l->readings_count; i++) {
        const struct reading *r = &l->readings[i];
        uint8_t want = r->entry && !r->deleted;
        if (seen[i] != want)
            ok = broken(l, "P1: reading %u of entry %llu is there %u times, not %u (at %llu)", i,
                        (unsigned long long)r->entry, seen[i], want,
                        (unsigned long long)db_apply_index(l->db));
    }
    for (uint32_t i = 0; ok && i < l->numbers; i++) {
        if (numbers[i] > 1)
            ok = broken(l, "P3: QoS 2 message %u is there %u times", i, numbers[i]);
        if (l->number_acked[i] && numbers[i] != 1)
            ok = broken(l, "P3: acknowledged QoS 2 message %u is there %u times", i, numbers[i]);
    }
    free(seen);
    return ok;
}

/* ---- Building entries -------------------------------------------------------------------------
 */

static bool add_row(struct db_rows_builder *rows, const struct db_table_def *t, uint32_t number,
                    const char *device, int64_t ts_us)
{
    struct chr_errmsg msg;
    db_rows_put_i64(rows, (uint16_t)db_table_column(t, CHR_LIT("seq")), number);
    if (db_rows_put_bytes(rows, (uint16_t)db_table_column(t, CHR_LIT("device_id")),
                          chr_slice_cstr(device)))
        return false;
    db_rows_put_i64(rows, (uint16_t)db_table_column(t, CHR_LIT("ts")), ts_us);
    db_rows_put_f64(rows, (uint16_t)db_table_column(t, CHR_LIT("value")), (double)number / 4);
    return db_rows_end(rows, ts_us, &msg) == CHR_OK;
}

static void build_readings(struct life *l, const struct db_table_def *t, struct db_entry *entry,
                           uint64_t index, uint32_t *ordinal)
{
    uint32_t count = 1 + (uint32_t)chr_random_below(&l->random, chance(l, 500) ? 200 : 6);
    if (l->readings_count + count > READINGS_MAX)
        return;
    struct db_rows_builder rows;
    if (db_rows_init(&rows, t, 256))
        return;
    for (uint32_t i = 0; i < count; i++) {
        char device[16];
        snprintf(device, sizeof device, "d%u", (unsigned)chr_random_below(&l->random, 7));
        uint32_t number = l->readings_count++;
        l->readings[number] = (struct reading){.entry = index, .ordinal = (*ordinal)++};
        add_row(&rows, t, number, device, l->clock.wall_us);
    }
    db_rows_finish(&rows, DB_ROWS_MERGE, entry);
    db_rows_free(&rows);
    l->report->readings += count;
}

static void build_deletes(struct life *l, const struct db_table_def *t, struct db_entry *entry,
                          uint64_t index)
{
    struct db_row_id ids[4];
    uint32_t count = 0, wanted = 1 + (uint32_t)chr_random_below(&l->random, 4);
    for (uint32_t tries = 0; tries < 20 && count < wanted && l->readings_count; tries++) {
        struct reading *r = &l->readings[chr_random_below(&l->random, l->readings_count)];
        /* Only what is applied: an executor deletes what it has read. */
        if (!r->entry || r->deleted || r->entry > l->raft.commit_index)
            continue;
        r->deleted = index;
        ids[count++] = (struct db_row_id){.entry = r->entry, .ordinal = r->ordinal};
    }
    if (count)
        db_entry_add_delete(entry, t->id, ids, count);
}

/* New messages of the QoS 2 client, and those that a lost connection left unanswered. */
static uint32_t build_qos2(struct life *l, const struct db_table_def *t, struct db_entry *entry,
                           bool resend, uint32_t *sent)
{
    struct db_guard guards[WINDOW];
    struct db_rows_builder rows;
    uint32_t count = 0;
    if (db_rows_init(&rows, t, WINDOW))
        return 0;
    for (uint32_t i = 0; i < WINDOW; i++) {
        struct flight *f = &l->flights[i];
        if (resend ? (!f->used || f->stored) : f->used)
            continue;
        if (!resend) {
            if (l->numbers == READINGS_MAX || chance(l, 5000))
                continue;
            *f = (struct flight){.used = true, .number = l->numbers++};
            bool taken;
            do { /* packet ids run round, past those still in use */
                f->id = l->last_id = (uint16_t)(l->last_id % IDS + 1);
                taken = false;
                for (uint32_t j = 0; j < WINDOW; j++)
                    taken |= j != i && l->flights[j].used && l->flights[j].id == f->id;
            } while (taken);
        } else {
            l->report->resent++;
        }
        guards[count] =
            (struct db_guard){.epoch = l->epoch, .generation = l->generation, .packet_id = f->id};
        if (!l->options->plant_forget_guard)
            db_rows_guard(&rows, count);
        add_row(&rows, t, f->number, "q2", l->clock.wall_us);
        sent[count++] = i;
    }
    if (count) {
        if (!l->options->plant_forget_guard)
            db_entry_add_guards(entry, guards, count);
        db_rows_finish(&rows, DB_ROWS_MERGE, entry);
    }
    db_rows_free(&rows);
    return count;
}

/* ---- Proposing, saving, applying --------------------------------------------------------------
 */

/* One entry through the whole road. False: the node is down (or something broke: see report). */
static bool commit_entries(struct life *l, struct raft_entry *entries, size_t count,
                           struct db_apply_result *last_result)
{
    struct raft_effects effects;
    struct raft_event propose = {.type = RAFT_EVENT_PROPOSE,
                                 .wall_ms = (uint64_t)(l->clock.wall_us / 1000),
                                 .entries = entries,
                                 .entries_count = count};
    if (raft_step(&l->raft, &propose, &effects))
        return broken(l, "the leader refused a proposal");
    chr_err err = raft_log_append(l->log, entries, count);
    if (err)
        return broken(l, "append: %s", chr_strerror(err));
    l->report->entries += count;
    if (l->options->plant_acknowledge_early)
        l->acked_index = entries[count - 1].index;
    if (chance(l, 150)) {
        power_cut(l);
        return false;
    }
    struct chr_errmsg msg;
    for (uint32_t tries = 0;; tries++) {
        err = raft_log_sync(l->log, &msg);
        if (err != CHR_ENOSPC)
            break;
        l->report->full++;
        l->disk.faults.capacity = 0; /* somebody made room */
        if (tries > 3)
            l->disk.faults.write_enospc = 0;
        if (chance(l, 1000)) {
            power_cut(l);
            return false;
        }
    }
    if (err) { /* R16: in doubt; the process ends without another acknowledgement */
        l->report->sync_failures++;
        power_cut(l);
        return false;
    }
    if (chance(l, 100)) {
        power_cut(l);
        return false;
    }
    struct raft_event saved = {.type = RAFT_EVENT_SAVED,
                               .sequence = effects.save_sequence,
                               .saved_index = raft_log_synced(l->log)};
    if (raft_step(&l->raft, &saved, &effects))
        return broken(l, "saved");
    for (size_t i = 0; i < count && entries[i].index <= effects.commit_index; i++) {
        apply(l, &entries[i], last_result);
        if (last_result->err)
            return broken(l, "apply of %llu: %s", (unsigned long long)entries[i].index,
                          chr_strerror(last_result->err));
        for (uint32_t op = 0; op < last_result->ops_count; op++)
            if (last_result->ops[op].err)
                return broken(l, "apply of %llu, operation %u: %s",
                              (unsigned long long)entries[i].index, op,
                              chr_strerror(last_result->ops[op].err));
    }
    l->acked_index = effects.commit_index;
    return true;
}

static const struct db_table_def *readings_table(const db_catalog *catalog)
{
    return db_catalog_find(catalog, CHR_LIT("readings"));
}

static bool end_entry(struct life *l, struct db_entry *entry)
{
    return db_entry_end(entry) == CHR_OK || broken(l, "entry too large");
}

static bool step_group(struct life *l)
{
    struct db_entry entries[GROUP_MAX];
    struct raft_entry proposals[GROUP_MAX];
    size_t count = 1 + chr_random_below(&l->random, GROUP_MAX);
    const db_catalog *catalog = db_catalog_acquire(l->db);
    const struct db_table_def *t = readings_table(catalog);
    bool ok = true;
    for (size_t i = 0; i < count; i++) {
        uint64_t index = l->raft.last_index + 1 + i;
        uint32_t ordinal = 0;
        db_entry_init(&entries[i], DB_ENTRY_BYTES_MAX);
        db_entry_begin(&entries[i], 0, 0);
        build_readings(l, t, &entries[i], index, &ordinal);
        if (chance(l, 2000))
            build_deletes(l, t, &entries[i], index);
        ok = ok && end_entry(l, &entries[i]);
        proposals[i] =
            (struct raft_entry){.type = RAFT_ENTRY_DATA, .bytes = chr_buf_slice(&entries[i].bytes)};
    }
    struct db_apply_result result;
    ok = ok && commit_entries(l, proposals, count, &result);
    for (size_t i = 0; i < count; i++)
        db_entry_free(&entries[i]);
    db_catalog_release(catalog);
    return ok;
}

/* One entry of its own; the caller looks at the result. */
static bool commit_one(struct life *l, struct db_entry *entry, struct db_apply_result *result)
{
    struct raft_entry proposal = {.type = RAFT_ENTRY_DATA};
    if (!end_entry(l, entry))
        return false;
    proposal.bytes = chr_buf_slice(&entry->bytes);
    return commit_entries(l, &proposal, 1, result);
}

static bool step_connect(struct life *l)
{
    struct db_entry entry;
    struct db_apply_result result;
    db_entry_init(&entry, 4096);
    db_entry_begin(&entry, 0, 0);
    struct db_session_open open = {.client_id = CHR_LIT("q2"), .expiry_s = UINT32_MAX};
    db_entry_add_session_open(&entry, &open);
    bool ok = commit_one(l, &entry, &result);
    if (ok) {
        if (l->epoch && result.ops[0].epoch != l->epoch)
            ok = broken(l, "P3: the session's epoch changed");
        if (result.ops[0].generation <= l->generation)
            ok = broken(l, "P3: the generation did not rise");
        l->epoch = result.ops[0].epoch;
        l->generation = result.ops[0].generation;
        l->session_open = true;
    }
    db_entry_free(&entry);
    return ok;
}

static bool step_qos2(struct life *l, bool resend)
{
    struct db_entry entry;
    struct db_apply_result result;
    uint32_t sent[WINDOW], count;
    const db_catalog *catalog = db_catalog_acquire(l->db);
    db_entry_init(&entry, DB_ENTRY_BYTES_MAX);
    db_entry_begin(&entry, 0, 0);
    count = build_qos2(l, readings_table(catalog), &entry, resend, sent);
    bool ok = count == 0 || commit_one(l, &entry, &result);
    for (uint32_t i = 0; ok && i < count; i++) { /* PUBREC */
        l->flights[sent[i]].stored = true;
        l->number_acked[l->flights[sent[i]].number] = 1;
    }
    db_entry_free(&entry);
    db_catalog_release(catalog);
    return ok;
}

static bool step_release(struct life *l)
{
    struct db_guard items[WINDOW];
    uint32_t slots[WINDOW], count = 0;
    for (uint32_t i = 0; i < WINDOW; i++) {
        if (!l->flights[i].used || !l->flights[i].stored || chance(l, 3000))
            continue;
        slots[count] = i;
        items[count++] = (struct db_guard){
            .epoch = l->epoch, .generation = l->generation, .packet_id = l->flights[i].id};
    }
    if (count == 0)
        return true;
    struct db_entry entry;
    struct db_apply_result result;
    db_entry_init(&entry, 4096);
    db_entry_begin(&entry, 0, 0);
    db_entry_add_release(&entry, items, count);
    bool ok = commit_one(l, &entry, &result);
    for (uint32_t i = 0; ok && i < count; i++) /* PUBCOMP: the id may be used again */
        l->flights[slots[i]].used = false;
    db_entry_free(&entry);
    return ok;
}

/* ---- Checkpoints ------------------------------------------------------------------------------
 */

static chr_err wait_synced(void *arg, uint64_t index)
{
    struct life *l = arg;
    if (raft_log_durable(l->log) < index)
        return CHR_ECLOSED;
    return CHR_OK;
}

static bool step_checkpoint(struct life *l)
{
    struct chr_errmsg msg = {{0}};
    struct fake_kv_faults *faults = fake_kv_faults(l->store);
    if (chance(l, 2500)) {
        uint64_t at = fake_kv_commits(l->store) + 1 + chr_random_below(&l->random, 5);
        switch (chr_random_below(&l->random, 3)) {
        case 0:
            faults->enospc_at = at;
            break;
        case 1:
            faults->eio_at = at;
            break;
        default:
            faults->crash_at = at;
            break;
        }
    }
    chr_err err =
        db_checkpoint(l->db, DB_CHECKPOINT_REQUEST, wait_synced, l, l->clock.mono_us, &msg);
    faults->enospc_at = faults->eio_at = faults->crash_at = 0;
    if (err == CHR_ENOSPC)
        return true; /* nothing changed; tried again later */
    if (err == CHR_EIO || err == CHR_EDOUBT || fake_kv_crashed(l->store)) {
        power_cut(l);
        return false;
    }
    if (err)
        return broken(l, "checkpoint: %s: %s", chr_strerror(err), msg.text);
    l->report->checkpoints++;
    if (db_durable_index(l->db) > raft_log_durable(l->log))
        return broken(l, "P4: checkpoint at %llu, log durable to %llu",
                      (unsigned long long)db_durable_index(l->db),
                      (unsigned long long)raft_log_durable(l->log));
    if (chance(l, 500)) {
        power_cut(l);
        return false;
    }
    chr_err cut = raft_log_cut_prefix(l->log, db_durable_index(l->db));
    if (cut == CHR_EDOUBT) {
        power_cut(l);
        return false;
    }
    return true;
}

/* ---- A life -----------------------------------------------------------------------------------
 */

static void new_weather(struct life *l)
{
    struct fake_disk_faults *f = &l->disk.faults;
    *f = (struct fake_disk_faults){.sync_lies = l->options->plant_skip_sync};
    if (chance(l, 3000))
        f->write_enospc = 300;
    if (chance(l, 2000))
        f->sync_eio = 200;
    if (chance(l, 1000))
        f->write_eio = 100;
    if (chance(l, 5000))
        f->garbage = 3000;
    if (chance(l, 1500))
        f->capacity = fake_disk_used(&l->disk) + chr_random_below(&l->random, 65536);
}

static bool step(struct life *l)
{
    fake_clock_advance(&l->clock, (int64_t)chr_random_below(&l->random, 50000));
    if (chance(l, 100)) /* wall clocks jump */
        l->clock.wall_us += (int64_t)chr_random_below(&l->random, 20000000) - 10000000;
    if (!l->session_open) {
        if (!step_connect(l))
            return false;
        return step_qos2(l, true);
    }
    uint64_t dice = chr_random_below(&l->random, 100);
    if (dice < 50)
        return step_group(l);
    if (dice < 70)
        return step_qos2(l, false);
    if (dice < 85)
        return step_release(l);
    if (dice < 92)
        return step_checkpoint(l);
    if (dice < 96) {
        new_weather(l);
        return true;
    }
    if (dice < 98)
        return compare_with_model(l);
    power_cut(l);
    return false;
}

static bool live(struct life *l, uint32_t steps)
{
    for (uint32_t i = 0; i < steps && l->raft.last_index + 2 * GROUP_MAX < ENTRIES_MAX; i++) {
        if (!l->up && !power_on(l))
            return false;
        if (!step(l) && l->report->broken[0])
            return false;
    }
    if (l->up)
        power_cut(l);
    return power_on(l);
}

bool node_life_run(const struct node_life_options *options, struct node_life_report *report)
{
    struct life *l = calloc(1, sizeof *l);
    *report = (struct node_life_report){0};
    if (!l)
        return false;
    l->options = options;
    l->report = report;
    l->random.state = options->seed;
    fake_disk_open(&l->disk, chr_random_u64(&l->random));
    l->store = fake_kv_new(chr_random_u64(&l->random));
    fake_kv_faults(l->store)->no_poison = chance(l, 9000);
    l->kv = fake_kv_seam(l->store);
    fake_clock_init(&l->clock, 1700000000000000, 1000000);
    l->disk.faults.sync_lies = options->plant_skip_sync;
    l->log_options = (struct raft_log_options){.segment_bytes = 65536,
                                               .first_segment_bytes = 16384,
                                               .recycle_max = 2,
                                               .incarnation = 1,
                                               .clock = &l->clock.clock};
    db_options_default(&l->db_options);
    l->db_options.chunk_rows_max = 64;
    l->db_options.hot_limit_bytes = 1u << 20;
    l->readings = calloc(READINGS_MAX, sizeof *l->readings);
    l->number_acked = calloc(READINGS_MAX, 1);
    bool ok = l->readings && l->number_acked && live(l, options->steps);
    if (l->up)
        tear_down(l);
    raft_log_close(l->log);
    raft_free(&l->raft);
    db_close(l->db);
    fake_kv_free(l->store);
    fake_disk_close(&l->disk);
    free(l->readings);
    free(l->number_acked);
    free(l);
    return ok;
}
