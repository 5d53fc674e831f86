/* broker/ingest/decoder.c: the open batch: builders per table, and all or nothing per message.
 *
 * A message is decoded once per table of its route. Before each table the builder's place is noted;
 * when any of them refuses, all go back to their places (I1). Builders stay from batch to batch, so
 * that a steady stream allocates nothing; those of tables that got no row for a while are given
 * back, so that a thousand tables each having had its burst do not add up. */
#include <stdlib.h>

#include "base/assert.h"
#include "base/utf8.h"
#include "broker/ingest/row.h"

/* Every so many flushes, builders unused since the last time are freed. */
#define SWEEP_FLUSHES 256
/* Buffers that one large message made larger than this are given back at the next flush. */
#define KEEP_BYTES   ((size_t)64 << 10)
#define KEEP_METRICS 1024

/* -- Memory */

bool ingest__room(struct ingest_message *m, struct ingest_bytes *bytes, size_t len)
{
    size_t need = len + INGEST_PAD;
    if (CHR_LIKELY(need <= bytes->capacity))
        return true;
    size_t capacity = bytes->capacity ? bytes->capacity : 512;
    while (capacity < need)
        capacity *= 2;
    uint8_t *grown = realloc(bytes->ptr, capacity);
    if (!grown) {
        m->err = CHR_ENOMEM;
        return false;
    }
    /* Keys are compared 8 bytes at a time: what lies behind them is read, if not heeded. */
    memset(grown + bytes->capacity, 0, capacity - bytes->capacity);
    bytes->ptr = grown;
    bytes->capacity = capacity;
    return true;
}

static void trim_bytes(struct ingest_bytes *bytes)
{
    if (bytes->capacity <= KEEP_BYTES)
        return;
    free(bytes->ptr);
    *bytes = (struct ingest_bytes){0};
}

chr_err ingest_decoder_new(size_t bytes_max, ingest_decoder **out)
{
    ingest_decoder *d = calloc(1, sizeof *d);
    if (!d)
        return CHR_ENOMEM;
    d->bytes_max = bytes_max;
    d->room = SIZE_MAX;
    *out = d;
    return CHR_OK;
}

static void free_builder(ingest_decoder *d, uint32_t slot)
{
    if (!d->builders[slot])
        return;
    db_rows_free(d->builders[slot]);
    free(d->builders[slot]);
    d->builders[slot] = NULL;
}

static void free_tables(ingest_decoder *d)
{
    if (!d->mappings)
        return;
    for (uint32_t i = 0; i < d->mappings->tables_count; i++)
        free_builder(d, i);
    free(d->builders);
    free(d->used);
    free(d->touched);
    free(d->undo);
    ingest_mappings_release(d->mappings);
    d->mappings = NULL;
}

void ingest_decoder_free(ingest_decoder *d)
{
    if (!d)
        return;
    free_tables(d);
    free(d->payload.ptr);
    free(d->text.ptr);
    free(d->names.ptr);
    free(d->metrics);
    free(d);
}

chr_err ingest_decoder_use(ingest_decoder *d, ingest_mappings *mappings)
{
    CHR_ASSERT(d->pending_rows == 0); /* keeps I2 */
    size_t count = (size_t)mappings->tables_count + 1;
    struct db_rows_builder **builders = calloc(count, sizeof(struct db_rows_builder *));
    uint64_t *used = calloc(count, sizeof *used);
    uint32_t *touched = calloc(count, sizeof *touched);
    struct ingest_undo *undo = calloc(count, sizeof *undo);
    if (!builders || !used || !touched || !undo) {
        free(builders);
        free(used);
        free(touched);
        free(undo);
        return CHR_ENOMEM;
    }
    ingest_mappings_retain(mappings);
    free_tables(d);
    d->mappings = mappings;
    d->builders = builders;
    d->used = used;
    d->touched = touched;
    d->touched_count = 0;
    d->undo = undo;
    return CHR_OK;
}

static CHR_NOINLINE struct db_rows_builder *make_builder(ingest_decoder *d, uint32_t slot)
{
    struct db_rows_builder *b = calloc(1, sizeof *b);
    if (b && db_rows_init(b, d->mappings->tables[slot], INGEST_TABLE_ROWS_MAX)) {
        free(b);
        b = NULL;
    }
    d->builders[slot] = b;
    return b;
}

/* -- One message */

bool ingest__check_utf8(struct ingest_message *m)
{
    size_t len = (size_t)(m->end - m->begin);
    if (m->utf8 || chr_utf8_valid(chr_slice_of(m->begin, len)))
        return m->utf8 = true;
    /* Where: the longest valid prefix, character by character. */
    const uint8_t *p = m->begin;
    for (size_t n = 1; p < m->end; p += n) {
        size_t left = (size_t)(m->end - p);
        for (n = 1; n <= 4 && n <= left && !chr_utf8_valid(chr_slice_of(p, n)); n++)
            ;
        if (n > 4 || n > left)
            break;
    }
    ingest__fail(m, CHR_EMALFORMED, p, "the payload is not valid UTF-8");
    return false;
}

static chr_err decode_target(struct ingest_message *m)
{
    if (CHR_UNLIKELY(m->target->refused)) {
        m->why->table_id = m->plan->table->id;
        m->why->reason = *m->target->reason;
        return m->err = m->target->refused;
    }
    switch (m->plan->format) {
    case DB_PAYLOAD_AUTO: {
        const uint8_t *p = m->begin;
        if (CHR_UNLIKELY(*p != '{'))
            p = ingest_space(p);
        if (*p == '{' || *p == '[')
            return ingest__json(m);
        return ingest__scalar(m, DB_PAYLOAD_AUTO);
    }
    case DB_PAYLOAD_JSON:
        return ingest__json(m);
    case DB_PAYLOAD_CSV:
        return ingest__csv(m);
    case DB_PAYLOAD_NUMBER:
    case DB_PAYLOAD_TEXT:
        return ingest__scalar(m, m->plan->format);
    }
    return ingest__fail(m, CHR_EINVAL, NULL, "unknown payload format");
}

/* The first `count` targets go back to where they were. */
static void undo(ingest_decoder *d, const ingest_route *route, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct db_rows_builder *b = d->builders[route->targets[i].plan->slot];
        db_rows_rollback(b, (struct db_rows_mark){d->undo[i].rows});
        b->bytes = d->undo[i].bytes;
    }
}

/* A message that did not fit this batch: the next one, or none. */
static CHR_NOINLINE chr_err no_room(struct ingest_message *m)
{
    if (m->decoder->pending_rows)
        return CHR_EFULL;
    m->element = 0;
    m->metric = chr_slice_of(NULL, 0);
    return ingest__fail(m, CHR_ETOOBIG, NULL,
                        "the rows of the message do not fit into one entry of the log");
}

static void count_rows(ingest_decoder *d, const ingest_route *route)
{
    for (uint32_t i = 0; i < route->targets_count; i++) {
        uint32_t slot = route->targets[i].plan->slot;
        const struct db_rows_builder *b = d->builders[slot];
        if (CHR_UNLIKELY(d->undo[i].rows == 0 && b->rows > 0)) {
            d->touched[d->touched_count++] = slot;
            d->used[slot] = d->flushes;
        }
        d->pending_rows += b->rows - d->undo[i].rows;
        d->pending_bytes += b->bytes - d->undo[i].bytes;
    }
}

chr_err ingest_decode(ingest_decoder *d, const ingest_route *route, chr_slice payload,
                      int64_t received_at_us, uint32_t guard, struct ingest_reject *why)
{
    CHR_ASSERT(route->mappings == d->mappings); /* keeps I2 */
    struct ingest_message m;
    m.decoder = d;
    m.received_at_us = received_at_us;
    m.guard = guard;
    m.err = CHR_OK;
    m.why = why;
    m.utf8 = false;
    m.element = 0;
    m.metric = chr_slice_of(NULL, 0);
    m.unknown_keys = 0;
    m.path_len = 0;
    m.plan = route->targets[0].plan;
    if (CHR_UNLIKELY(payload.len > INGEST_PAYLOAD_BYTES_MAX)) {
        m.begin = payload.ptr;
        return ingest__fail(&m, CHR_ETOOBIG, NULL, "the payload has %zu bytes, more than %u",
                            payload.len, INGEST_PAYLOAD_BYTES_MAX);
    }
    if (CHR_UNLIKELY(!ingest__room(&m, &d->payload, payload.len)))
        return CHR_ENOMEM;
    m.begin = d->payload.ptr;
    m.end = m.begin + payload.len;
    m.ascii = ingest_copy_padded(d->payload.ptr, payload.ptr, payload.len);

    size_t bytes = d->pending_bytes, bytes_max = d->bytes_max;
    if (CHR_UNLIKELY(d->pending_rows == 0 && bytes_max < INGEST_MESSAGE_BYTES_MAX))
        bytes_max = INGEST_MESSAGE_BYTES_MAX;
    for (uint32_t i = 0; i < route->targets_count; i++) {
        m.target = &route->targets[i];
        m.plan = m.target->plan;
        m.rows = d->builders[m.plan->slot];
        if (CHR_UNLIKELY(!m.rows)) {
            m.rows = make_builder(d, m.plan->slot);
            if (!m.rows) {
                undo(d, route, i);
                return CHR_ENOMEM;
            }
        }
        d->undo[i] = (struct ingest_undo){.rows = m.rows->rows, .bytes = m.rows->bytes};
        chr_err err = decode_target(&m);
        bytes += m.rows->bytes - d->undo[i].bytes;
        if (CHR_UNLIKELY(err || bytes > bytes_max || bytes > d->room)) {
            if (!err && bytes <= bytes_max)
                err = CHR_EFULL;
            else if (!err || err == CHR_EFULL)
                err = no_room(&m);
            undo(d, route, i + 1);
            return err;
        }
    }
    count_rows(d, route);
    d->unknown_keys += m.unknown_keys;
    return CHR_OK;
}

/* -- The batch */

void ingest_decoder_room(ingest_decoder *d, size_t bytes)
{
    d->room = bytes;
}

size_t ingest_pending_rows(const ingest_decoder *d)
{
    return d->pending_rows;
}

size_t ingest_pending_bytes(const ingest_decoder *d)
{
    return d->pending_bytes;
}

uint64_t ingest_unknown_keys(const ingest_decoder *d)
{
    return d->unknown_keys;
}

static void sweep(ingest_decoder *d)
{
    for (uint32_t i = 0; i < d->mappings->tables_count; i++)
        if (d->flushes - d->used[i] > SWEEP_FLUSHES)
            free_builder(d, i);
}

void ingest_discard(ingest_decoder *d)
{
    for (uint32_t i = 0; i < d->touched_count; i++)
        db_rows_reset(d->builders[d->touched[i]]);
    d->touched_count = 0;
    d->pending_rows = d->pending_bytes = 0;
    trim_bytes(&d->payload);
    trim_bytes(&d->text);
    trim_bytes(&d->names);
    if (d->metrics_capacity > KEEP_METRICS) {
        free(d->metrics);
        d->metrics = NULL;
        d->metrics_count = d->metrics_capacity = 0;
    }
    if (++d->flushes % SWEEP_FLUSHES == 0 && d->mappings)
        sweep(d);
}

void ingest_flush(ingest_decoder *d, struct db_entry *entry)
{
    for (uint32_t i = 0; i < d->touched_count; i++)
        db_rows_finish(d->builders[d->touched[i]], DB_ROWS_MERGE, entry);
    ingest_discard(d);
}
