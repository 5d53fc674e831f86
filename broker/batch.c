/* broker/batch.c: filling, proposing and answering batches. */
#include "broker/batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "broker/config.h"
#include "broker/ingest/ingest.h"
#include "broker/net/loop.h"
#include "broker/node.h"
#include "broker/session/dispatch.h"

/* What one batch's arena may hold: topics named by alias, reasons of rejects. */
#define BATCH_ARENA_BLOCK (16u << 10)
#define BATCH_ARENA_MAX   (1u << 20)

static bool grow(void *array, uint32_t *max, uint32_t count, size_t size, uint32_t first)
{
    if (count < *max)
        return true;
    uint32_t wanted = *max ? *max * 2 : first;
    void *old;
    memcpy(&old, array, sizeof old);
    void *bigger = realloc(old, wanted * size);
    if (!bigger)
        return false;
    memcpy(array, &bigger, sizeof bigger);
    *max = wanted;
    return true;
}

/* ---- Pool -------------------------------------------------------------------------------------
 */

static void batch_done(struct broker_proposal *proposal, chr_err err,
                       const struct db_apply_result *result);

chr_err batches_init(struct broker_loop *loop, uint32_t count)
{
    size_t capacity = 2;
    while (capacity < count)
        capacity *= 2;
    chr_err err = chr_ring_init(&loop->returned, capacity);
    if (err)
        return err;
    loop->batches = calloc(count, sizeof *loop->batches);
    if (!loop->batches)
        return CHR_ENOMEM;
    loop->batches_count = count;
    for (uint32_t i = count; i-- > 0;) {
        struct batch *batch = &loop->batches[i];
        batch->loop = loop;
        batch->proposal.done = batch_done;
        batch->proposal.type = RAFT_ENTRY_DATA;
        db_entry_init(&batch->entry, RAFT_ENTRY_BYTES_MAX);
        chr_arena_init(&batch->arena, BATCH_ARENA_BLOCK, BATCH_ARENA_MAX);
        batch->next_free = loop->batch_free;
        loop->batch_free = batch;
    }
    return CHR_OK;
}

void batches_free(struct broker_loop *loop)
{
    for (uint32_t i = 0; loop->batches && i < loop->batches_count; i++) {
        struct batch *batch = &loop->batches[i];
        for (uint32_t s = 0; s < batch->slabs_count; s++)
            slab_unref(batch->slabs[s]);
        db_entry_free(&batch->entry);
        chr_arena_free(&batch->arena);
        free(batch->runs);
        free(batch->waits);
        free(batch->slabs);
        free(batch->guards);
        free(batch->rejects);
        free(batch->publishes);
        free(batch->results);
        free(batch->guard_bits);
    }
    free(loop->batches);
    loop->batches = NULL;
}

void batch_release(struct batch *batch)
{
    struct broker_loop *loop = batch->loop;
    for (uint32_t i = 0; i < batch->slabs_count; i++)
        slab_unref(batch->slabs[i]);
    batch->slabs_count = batch->runs_count = batch->waits_count = 0;
    batch->rejects_bytes = 0;
    batch->early = false;
    batch->publishes_count = 0;
    batch->publishes_bytes = 0;
    loop->retained_inflight -= batch->retained;
    batch->retained = 0;
    batch->guards_count = batch->rejects_count = batch->results_count = batch->messages = 0;
    chr_arena_reset(&batch->arena);
    if (loop->batch == batch) {
        ingest_discard(loop->decoder);
        loop->batch = NULL;
    }
    batch->next_free = loop->batch_free;
    loop->batch_free = batch;
}

/* ---- Filling ----------------------------------------------------------------------------------
 */

/* The decoder's mappings are those of the batch that it fills (R9). */
static chr_err use_current_mappings(struct broker_loop *loop)
{
    if (loop->mappings &&
        ingest_mappings_version(loop->mappings) == db_mapping_version_now(loop->node->db))
        return CHR_OK;
    const db_catalog *catalog = db_catalog_acquire(loop->node->db);
    struct ingest_mappings *mappings = NULL;
    chr_err err = ingest_mappings_compile(catalog, &mappings);
    db_catalog_release(catalog);
    if (!err)
        err = ingest_decoder_use(loop->decoder, mappings);
    if (err) {
        ingest_mappings_release(mappings);
        return err;
    }
    ingest_mappings_release(loop->mappings);
    loop->mappings = mappings;
    return CHR_OK;
}

struct batch *batch_open(struct broker_loop *loop)
{
    if (loop->batch)
        return loop->batch;
    struct batch *batch = loop->batch_free;
    if (!batch)
        return NULL;
    if (use_current_mappings(loop) != CHR_OK && !loop->mappings) {
        chr_log_error("ingest", "out of memory for compiled mappings");
        return NULL;
    }
    loop->batch_free = batch->next_free;
    batch->mapping_version = ingest_mappings_version(loop->mappings);
    batch->err = CHR_OK;
    batch->serial = ++loop->batch_serial;
    db_entry_begin(&batch->entry, 0, batch->mapping_version);
    loop->batch = batch;
    return batch;
}

static chr_err keep_slab(struct batch *batch, struct slab *slab)
{
    if (!slab)
        return CHR_OK;
    /* Packets come in slab by slab, so looking at the last few is enough; twice does no harm. */
    if (batch->slabs_count && batch->slabs[batch->slabs_count - 1] == slab)
        return CHR_OK;
    if (!grow(&batch->slabs, &batch->slabs_max, batch->slabs_count, sizeof *batch->slabs, 8))
        return CHR_ENOMEM;
    slab_ref(slab);
    batch->slabs[batch->slabs_count++] = slab;
    return CHR_OK;
}

static bool extends(const struct batch_run *run, const struct batch_message *m)
{
    return run->conn.slot == m->conn.slot && run->conn.generation == m->conn.generation &&
           run->raw.ptr + run->raw.len == m->raw.ptr && run->topic.len == 0 &&
           m->alias_topic.len == 0 && !run->undelivered_reject && !m->rejected &&
           run->early == m->early && run->logged == m->logged && run->across == m->across &&
           (m->guard == UINT32_MAX ? run->guards == 0
                                   : run->guards && run->guard_first + run->guards == m->guard) &&
           (!m->has_ack || run->acks == 0 || run->ack_first + run->acks == m->ack_sequence);
}

chr_err batch_add_message(struct batch *batch, struct slab *slab, const struct batch_message *m)
{
    chr_err err = keep_slab(batch, slab);
    if (err)
        return err;
    struct batch_run *last = batch->runs_count ? &batch->runs[batch->runs_count - 1] : NULL;
    batch->early |= m->early;
    if (last && extends(last, m)) {
        last->raw.len += m->raw.len;
        if (m->has_ack && last->acks++ == 0)
            last->ack_first = m->ack_sequence;
        last->guards += m->guard != UINT32_MAX;
        last->deliver |= m->deliver;
        last->messages++;
        batch->messages++;
        return CHR_OK;
    }
    if (!grow(&batch->runs, &batch->runs_max, batch->runs_count, sizeof *batch->runs, 64))
        return CHR_ENOMEM;
    struct batch_run *run = &batch->runs[batch->runs_count];
    *run = (struct batch_run){
        .conn = m->conn,
        .ack_first = m->ack_sequence,
        .acks = m->has_ack ? 1 : 0,
        .messages = 1,
        .raw = m->raw,
        .version = m->version,
        .early = m->early,
        .logged = m->logged,
        .deliver = m->deliver,
        .across = m->across,
        .undelivered_reject = m->rejected,
        .guard_first = m->guard,
        .guards = m->guard != UINT32_MAX,
    };
    if (m->alias_topic.len) {
        run->topic = chr_arena_dup(&batch->arena, m->alias_topic);
        if (!run->topic.ptr)
            return CHR_ENOMEM;
    }
    batch->runs_count++;
    batch->messages++;
    return CHR_OK;
}

uint32_t batch_add_guard(struct batch *batch, const struct db_guard *guard)
{
    if (!grow(&batch->guards, &batch->guards_max, batch->guards_count, sizeof *batch->guards, 64))
        return UINT32_MAX;
    batch->guards[batch->guards_count] = *guard;
    return batch->guards_count++;
}

/* A rejected payload above this is not kept; its reason says so. */
#define REJECT_PAYLOAD_MAX (512u << 10)
/* With this much of rejects a batch is full: one more of them, or the rows of one largest message,
 * still fit the entry. */
#define REJECTS_BYTES_FULL (512u << 10)
#define REJECT_HEAD        48u
_Static_assert(REJECTS_BYTES_FULL + REJECT_PAYLOAD_MAX + INGEST_PAYLOAD_BYTES_MAX <
                   DB_ENTRY_BYTES_MAX,
               "rejects beside rows fit an entry");

chr_err batch_add_reject(struct batch *batch, const struct db_reject *reject)
{
    if (!grow(&batch->rejects, &batch->rejects_max, batch->rejects_count, sizeof *batch->rejects,
              16))
        return CHR_ENOMEM;
    struct db_reject *kept = &batch->rejects[batch->rejects_count];
    *kept = *reject;
    if (reject->payload.len > REJECT_PAYLOAD_MAX) {
        kept->payload = CHR_LIT("");
        char *reason = chr_arena_printf(&batch->arena, "%.*s (payload of %zu bytes not kept)",
                                        CHR_SLICE_ARGS(reject->reason), reject->payload.len);
        kept->reason = chr_slice_cstr(reason);
    } else {
        kept->reason = chr_arena_dup(&batch->arena, reject->reason);
    }
    kept->topic = chr_arena_dup(&batch->arena, reject->topic);
    if ((reject->reason.len && !kept->reason.ptr) || (reject->topic.len && !kept->topic.ptr))
        return CHR_ENOMEM;
    batch->rejects_count++;
    batch->rejects_bytes +=
        (uint32_t)(REJECT_HEAD + kept->payload.len + kept->topic.len + kept->reason.len);
    return CHR_OK;
}

chr_err batch_wait_next_op(struct batch *batch, struct conn *conn,
                           void (*answered)(struct conn *, void *, const struct db_op_result *),
                           void *arg)
{
    if (!grow(&batch->waits, &batch->waits_max, batch->waits_count, sizeof *batch->waits, 16))
        return CHR_ENOMEM;
    batch->waits[batch->waits_count++] =
        (struct batch_wait){.conn = conn ? conn->ref : CONN_REF_NONE,
                            .op = batch->entry.ops_count,
                            .answered = answered,
                            .arg = arg};
    return CHR_OK;
}

chr_err batch_add_publish(struct batch *batch, const struct db_publish *publish)
{
    if (!grow(&batch->publishes, &batch->publishes_max, batch->publishes_count,
              sizeof *batch->publishes, 16))
        return CHR_ENOMEM;
    struct db_publish *kept = &batch->publishes[batch->publishes_count];
    *kept = *publish;
    kept->topic = chr_arena_dup(&batch->arena, publish->topic);
    kept->properties = chr_arena_dup(&batch->arena, publish->properties);
    if (!kept->topic.ptr || (publish->properties.len && !kept->properties.ptr))
        return CHR_ENOMEM;
    batch->publishes_count++;
    if (publish->retain) {
        batch->retained++;
        batch->loop->retained_inflight++;
    }
    batch->publishes_bytes +=
        batch_publish_bytes(publish->topic, publish->properties, publish->payload);
    return CHR_OK;
}

/* All but the rows. */
static size_t other_bytes(const struct batch *batch)
{
    return batch->entry.bytes.len + batch->rejects_bytes + batch->publishes_bytes +
           batch->guards_count * sizeof(struct db_guard);
}

static size_t entry_bytes(const struct batch *batch)
{
    return other_bytes(batch) + ingest_pending_bytes(batch->loop->decoder);
}

/* What is counted above is near enough to what is written that this much covers it. */
#define ENTRY_BYTES_FULL (DB_ENTRY_BYTES_MAX - (64u << 10))

bool batch_room(const struct batch *batch, size_t bytes)
{
    return entry_bytes(batch) + bytes <= ENTRY_BYTES_FULL;
}

size_t batch_rows_room(const struct batch *batch, size_t bytes)
{
    size_t others = other_bytes(batch) + bytes;
    return others < ENTRY_BYTES_FULL ? ENTRY_BYTES_FULL - others : 0;
}

bool batch_empty(const struct batch *batch)
{
    return batch->messages == 0 && batch->entry.ops_count == 0 && batch->rejects_count == 0 &&
           batch->waits_count == 0;
}

bool batch_full(const struct batch *batch)
{
    const struct broker_config *config = batch->loop->node->config;
    const struct ingest_decoder *decoder = batch->loop->decoder;
    return ingest_pending_rows(decoder) >= config->batch_rows_max ||
           batch->messages >= config->batch_rows_max ||
           entry_bytes(batch) >= config->batch_bytes_max ||
           batch->rejects_bytes >= REJECTS_BYTES_FULL ||
           batch->arena.used_bytes > BATCH_ARENA_MAX / 2;
}

/* ---- To the log and back ----------------------------------------------------------------------
 */

/* Messages of class memory are acknowledged as the batch goes to the log, their places in the ack
 * ring keeping the order (R6). From then on nobody waits for those runs: when the batch is decoded
 * again (R9) or is not applied, they have no acknowledgement left to change. */
static void acknowledge_early(struct batch *batch)
{
    for (uint32_t i = 0; i < batch->runs_count; i++) {
        struct batch_run *run = &batch->runs[i];
        if (!run->early || run->acks == 0)
            continue;
        struct conn *conn = loop_conn(batch->loop, run->conn);
        if (conn)
            conn_ack_done(conn, run->ack_first, run->acks, 0);
        run->acks = 0;
    }
}

void batch_propose(struct batch *batch)
{
    struct broker_loop *loop = batch->loop;
    CHR_ASSERT(loop->batch == batch);
    if (batch->guards_count)
        db_entry_add_guards(&batch->entry, batch->guards, batch->guards_count);
    for (uint32_t i = 0; i < batch->rejects_count; i++)
        db_entry_add_reject(&batch->entry, &batch->rejects[i]);
    for (uint32_t i = 0; i < batch->publishes_count; i++)
        db_entry_add_message(&batch->entry, &batch->publishes[i]);
    ingest_flush(loop->decoder, &batch->entry);
    chr_err err = db_entry_end(&batch->entry);
    /* Whatever is added has looked at batch_room or batch_rows_room, or is small. */
    CHR_ASSERT(err == CHR_OK);
    batch->proposal.bytes = chr_buf_slice(&batch->entry.bytes);
    loop->batch = NULL;
    loop->batches_inflight++;
    LOOP_COUNT(loop, batches, 1);
    if (batch->early) /* now, while the batch is still ours */
        acknowledge_early(batch);
    broker_propose_from_loop(loop->node->committer, loop->number, &batch->proposal);
    broker_committer_kick(loop->node->committer);
}

/* Applier thread. */
static void keep_guard_bits(struct batch *batch, const struct db_apply_result *result)
{
    uint32_t words = (batch->guards_count + 63) / 64;
    CHR_ASSERT(result->guards_count == batch->guards_count);
    if (batch->guard_words_max < 2 * words) {
        free(batch->guard_bits);
        batch->guard_bits = malloc(2 * words * sizeof *batch->guard_bits);
        CHR_ASSERT(batch->guard_bits); /* without them QoS 2 can't be answered */
        batch->guard_words_max = 2 * words;
    }
    memcpy(batch->guard_bits, result->duplicates, words * sizeof *batch->guard_bits);
    memcpy(batch->guard_bits + words, result->gone, words * sizeof *batch->guard_bits);
}

/* Applier thread. */
static void batch_done(struct broker_proposal *proposal, chr_err err,
                       const struct db_apply_result *result)
{
    struct batch *batch = CHR_CONTAINER_OF(proposal, struct batch, proposal);
    struct broker_loop *loop = batch->loop;
    batch->err = err ? err : result->err;
    batch->results_count = 0;
    if (!batch->err && batch->waits_count) {
        while (batch->results_max < result->ops_count &&
               grow(&batch->results, &batch->results_max, batch->results_max,
                    sizeof *batch->results, 64)) {
        }
        CHR_ASSERT(batch->results_max >= result->ops_count);
        memcpy(batch->results, result->ops, result->ops_count * sizeof *result->ops);
        for (uint32_t i = 0; i < result->ops_count; i++)
            batch->results[i].detail = (chr_slice){0}; /* dies with the apply */
        batch->results_count = result->ops_count;
    }
    if (!batch->err && batch->guards_count)
        keep_guard_bits(batch, result);
    bool pushed = chr_ring_push(&loop->returned, batch);
    CHR_ASSERT(pushed); /* the ring holds as many as there are batches */
    loop_wake(loop);
}

static void answer_waits(struct batch *batch)
{
    static const struct db_op_result closed = {.err = CHR_ECLOSED};
    for (uint32_t i = 0; i < batch->waits_count; i++) {
        struct batch_wait *wait = &batch->waits[i];
        const struct db_op_result *result =
            wait->op < batch->results_count ? &batch->results[wait->op] : &closed;
        wait->answered(loop_conn(batch->loop, wait->conn), wait->arg, result);
    }
}

static bool run_gone(const struct batch *batch, const struct batch_run *run)
{
    for (uint32_t i = 0; i < run->guards; i++)
        if (batch_guard_gone(batch, run->guard_first + i))
            return true;
    return false;
}

static void answer_runs(struct batch *batch)
{
    for (uint32_t i = 0; i < batch->runs_count; i++) {
        const struct batch_run *run = &batch->runs[i];
        struct conn *conn = loop_conn(batch->loop, run->conn);
        if (conn)
            conn->batch_inflight -= run->messages;
        if (run->guards && run_gone(batch, run)) {
            /* A newer connection of the session, or its end, came first: nothing was stored for
             * this one and nothing may be acknowledged (R5). */
            if (conn)
                session_is_history(conn);
            continue;
        }
        if (run->deliver && !run->undelivered_reject)
            session_run_answered(batch->loop, batch, run);
        if (conn)
            conn_ack_done(conn, run->ack_first, run->acks, 0);
    }
    if (batch->rejects_count)
        session_rejects_answered(batch->loop, batch);
}

void batch_answer(struct batch *batch)
{
    struct broker_loop *loop = batch->loop;
    loop->batches_inflight--;
    loop->batch_answered = batch->serial;
    if (batch->err == CHR_ESTALE) {
        LOOP_COUNT(loop, publishes_stale, batch->messages);
        session_batch_stale(loop, batch);
    } else if (batch->err) {
        /* Not applied: no acknowledgement. Nothing more can be acknowledged behind these in order,
         * so their connections end, and clients resend elsewhere or later. */
        answer_waits(batch);
        for (uint32_t i = 0; i < batch->runs_count; i++) {
            struct conn *conn = loop_conn(loop, batch->runs[i].conn);
            if (conn)
                conn_close(conn);
        }
    } else {
        answer_waits(batch);
        answer_runs(batch);
    }
    batch_release(batch);
}
