/* db/op_decode.c: operations read back strictly. An entry may come from a peer: every length is
 * checked before use, and what is not exactly as op.c writes it is CHR_ECORRUPT. */
#include "db/op_decode.h"

#include <string.h>

#include "base/bytes.h"
#include "base/utf8.h"
#include "db/memory.h"

chr_err db__entry_decode(chr_slice bytes, struct db__entry_view *out)
{
    if (bytes.len < DB__ENTRY_HEAD || bytes.len % 8 || bytes.len > DB_ENTRY_BYTES_MAX)
        return CHR_ECORRUPT;
    if (chr_get_u16le(bytes.ptr) != DB__ENTRY_VERSION)
        return CHR_ECORRUPT;
    out->flags = chr_get_u16le(bytes.ptr + 2);
    out->ops_count = chr_get_u32le(bytes.ptr + 4);
    out->mapping_version = chr_get_u64le(bytes.ptr + 8);
    out->ops = chr_slice_of(bytes.ptr + DB__ENTRY_HEAD, bytes.len - DB__ENTRY_HEAD);
    if (out->flags & ~DB_ENTRY_ATOMIC)
        return CHR_ECORRUPT;
    uint32_t count = 0;
    for (chr_slice rest = out->ops; rest.len; count++) {
        if (rest.len < DB__OP_HEAD)
            return CHR_ECORRUPT;
        uint32_t len = chr_get_u32le(rest.ptr);
        if (len < DB__OP_HEAD || len % 8 || len > rest.len || chr_get_u16le(rest.ptr + 6))
            return CHR_ECORRUPT;
        rest = chr_slice_of(rest.ptr + len, rest.len - len);
    }
    return count == out->ops_count ? CHR_OK : CHR_ECORRUPT;
}

bool db__op_next(chr_slice *ops, struct db__op *op)
{
    if (ops->len == 0)
        return false;
    const uint8_t *p = ops->ptr;
    uint32_t len = chr_get_u32le(p);
    op->type = (enum db_op_type)p[4];
    op->flags = p[5];
    op->table_id = chr_get_u32le(p + 8);
    op->count = chr_get_u32le(p + 12);
    op->body = chr_slice_of(p + DB__OP_HEAD, len - DB__OP_HEAD);
    *ops = chr_slice_of(p + len, ops->len - len);
    return true;
}

/* -- Rows ---------------------------------------------------------------------------------------*/

/* Takes n bytes, padded to 8, off the front. NULL when there are not so many or padding is dirty.
 */
static const uint8_t *take(chr_slice *s, uint64_t n)
{
    uint64_t padded = chr_round_up(n, 8);
    if (padded > s->len)
        return NULL;
    const uint8_t *p = s->ptr;
    for (uint64_t i = n; i < padded; i++)
        if (p[i])
            return NULL;
    *s = chr_slice_of(p + padded, s->len - padded);
    return p;
}

/* A bitmap of `rows` bits without bits beyond. */
static const uint8_t *take_bits(chr_slice *s, uint32_t rows)
{
    const uint8_t *p = take(s, DB_BIT_WORDS(rows) * 8);
    if (p && (rows & 63) && chr_get_u64le(p + (size_t)(rows / 64) * 8) >> (rows & 63))
        return NULL;
    return p;
}

static bool ascii_without_zero(const uint8_t *p, uint32_t len)
{
    uint64_t bad = 0;
    uint32_t i = 0;
    for (; i + 8 <= len; i += 8) {
        uint64_t w = chr_get_u64le(p + i);
        bad |= w | ((w - UINT64_C(0x0101010101010101)) & ~w);
    }
    for (; i < len; i++)
        bad |= p[i] & 0x80 || p[i] == 0 ? UINT64_C(0x80) : 0;
    return (bad & UINT64_C(0x8080808080808080)) == 0;
}

static chr_err check_ends(const struct db__rows_col *c, uint32_t rows)
{
    uint32_t before = 0, falls = 0;
    for (uint32_t r = 0; r < rows; r++) {
        uint32_t end = chr_get_u32le(c->values + (size_t)r * 4);
        falls |= end < before;
        before = end;
    }
    if (falls || before != c->heap_len)
        return CHR_ECORRUPT;
    if (c->type != DB_STRING || ascii_without_zero(c->heap, c->heap_len))
        return CHR_OK;
    before = 0;
    for (uint32_t r = 0; r < rows; r++) {
        uint32_t end = chr_get_u32le(c->values + (size_t)r * 4);
        if (!chr_utf8_valid_mqtt(chr_slice_of(c->heap + before, end - before)))
            return CHR_ECORRUPT;
        before = end;
    }
    return CHR_OK;
}

/* A NULL row holds no string bytes: else they would be reachable by nobody, yet copied for ever. */
static bool null_rows_empty(const struct db__rows_col *c, uint32_t rows)
{
    for (uint32_t r = 0; r < rows; r++) {
        if (db__rows_bit(c->validity, r))
            continue;
        uint32_t begin = r ? chr_get_u32le(c->values + (size_t)(r - 1) * 4) : 0;
        if (chr_get_u32le(c->values + (size_t)r * 4) != begin)
            return false;
    }
    return true;
}

static chr_err decode_column(chr_slice part, uint8_t flags, uint32_t rows, struct db__rows_col *c)
{
    if (flags & ~(DB__ROWS_VALIDITY | DB__ROWS_NAMED))
        return CHR_ECORRUPT;
    if (flags && c->form != DB__ROWS_PLAIN)
        return CHR_ECORRUPT;
    if (flags & DB__ROWS_VALIDITY && !(c->validity = take_bits(&part, rows)))
        return CHR_ECORRUPT;
    if (flags & DB__ROWS_NAMED && !(c->named = take_bits(&part, rows)))
        return CHR_ECORRUPT;
    if (c->form == DB__ROWS_NULL)
        return part.len || c->heap_len ? CHR_ECORRUPT : CHR_OK;
    uint32_t n = c->form == DB__ROWS_CONSTANT ? 1 : rows;
    if (db_type_is_bytes(c->type)) {
        if (c->form == DB__ROWS_PLAIN && !(c->values = take(&part, (uint64_t)rows * 4)))
            return CHR_ECORRUPT;
        if (!(c->heap = take(&part, c->heap_len)) || part.len)
            return CHR_ECORRUPT;
        if (c->form == DB__ROWS_CONSTANT)
            return c->type == DB_BLOB || chr_utf8_valid_mqtt(chr_slice_of(c->heap, c->heap_len))
                       ? CHR_OK
                       : CHR_ECORRUPT;
        if (check_ends(c, rows))
            return CHR_ECORRUPT;
        return !c->validity || null_rows_empty(c, rows) ? CHR_OK : CHR_ECORRUPT;
    }
    if (c->heap_len)
        return CHR_ECORRUPT;
    c->values = take(&part, (uint64_t)n * (c->type == DB_BOOLEAN ? 1 : 8));
    if (!c->values || part.len)
        return CHR_ECORRUPT;
    uint8_t bad = 0;
    for (uint32_t r = 0; c->type == DB_BOOLEAN && r < n; r++)
        bad |= c->values[r] & 0xfe;
    return bad ? CHR_ECORRUPT : CHR_OK;
}

chr_err db__rows_decode(chr_slice body, uint32_t rows, bool guarded, struct chr_arena *arena,
                        struct db__rows *out)
{
    memset(out, 0, sizeof *out);
    if (body.len < DB__ROWS_HEAD || rows == 0 || rows > DB_OP_ROWS_MAX)
        return CHR_ECORRUPT;
    out->mode = (enum db_rows_mode)body.ptr[0];
    out->columns_count = chr_get_u16le(body.ptr + 2);
    out->schema_version = chr_get_u32le(body.ptr + 4);
    out->rows = rows;
    if (out->mode < DB_ROWS_MERGE || out->mode > DB_ROWS_REPLACE || body.ptr[1] ||
        chr_get_u64le(body.ptr + 8) || out->columns_count > DB_COLUMNS_MAX + 1)
        return CHR_ECORRUPT;
    const uint8_t *head = body.ptr + DB__ROWS_HEAD;
    body = chr_slice_of(head, body.len - DB__ROWS_HEAD);
    if (!take(&body, (uint64_t)out->columns_count * DB__ROWS_COLUMN_HEAD))
        return CHR_ECORRUPT;
    out->columns = CHR_ARENA_ARRAY(arena, struct db__rows_col, out->columns_count + 1);
    if (!out->columns)
        db__out_of_memory();
    for (uint16_t i = 0; i < out->columns_count; i++, head += DB__ROWS_COLUMN_HEAD) {
        struct db__rows_col *c = &out->columns[i];
        c->id = chr_get_u16le(head);
        c->type = (enum db_type)head[2];
        c->form = (enum db__rows_form)head[3];
        c->heap_len = chr_get_u32le(head + 12);
        if (c->type == 0 || c->type >= DB_TYPES_END || c->form > DB__ROWS_NULL ||
            chr_get_u32le(head + 4) >> 8)
            return CHR_ECORRUPT;
        if (i && c->id <= out->columns[i - 1].id)
            return CHR_ECORRUPT;
        uint32_t len = chr_get_u32le(head + 8);
        const uint8_t *part = take(&body, len);
        if (!part || len % 8 || decode_column(chr_slice_of(part, len), head[4], rows, c))
            return CHR_ECORRUPT;
    }
    if (guarded && !(out->guards = take(&body, (uint64_t)rows * 4)))
        return CHR_ECORRUPT;
    return body.len ? CHR_ECORRUPT : CHR_OK;
}

struct db_value db__rows_value(const struct db__rows_col *c, uint32_t row)
{
    struct db_value v = {.type = c->type, .null = !db__rows_valid(c, row)};
    if (v.null)
        return v;
    bool constant = c->form == DB__ROWS_CONSTANT;
    if (db_type_is_bytes(c->type)) {
        uint32_t begin =
            constant || row == 0 ? 0 : chr_get_u32le(c->values + (size_t)(row - 1) * 4);
        uint32_t end = constant ? c->heap_len : chr_get_u32le(c->values + (size_t)row * 4);
        v.bytes = chr_slice_of(c->heap + begin, end - begin);
    } else if (c->type == DB_BOOLEAN) {
        v.boolean = c->values[constant ? 0 : row];
    } else {
        v.i64 = (int64_t)chr_get_u64le(c->values + (constant ? 0 : (size_t)row * 8));
    }
    return v;
}

chr_err db__row_ids_decode(chr_slice *body, uint32_t count, const struct db_row_id **ids,
                           struct chr_arena *arena)
{
    if (count == 0 || (uint64_t)count * DB__ROW_ID_BYTES > body->len)
        return CHR_ECORRUPT;
    struct db_row_id *out = CHR_ARENA_ARRAY(arena, struct db_row_id, count);
    if (!out)
        db__out_of_memory();
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *p = body->ptr + (size_t)i * DB__ROW_ID_BYTES;
        out[i].entry = chr_get_u64le(p);
        out[i].ordinal = chr_get_u32le(p + 8);
        if (chr_get_u32le(p + 12))
            return CHR_ECORRUPT;
    }
    size_t used = (size_t)count * DB__ROW_ID_BYTES;
    *body = chr_slice_of(body->ptr + used, body->len - used);
    *ids = out;
    return CHR_OK;
}

/* -- The small ones -----------------------------------------------------------------------------*/

/* `len` bytes that, padded, are all that is left. */
static bool take_last(chr_slice rest, uint64_t len, chr_slice *out)
{
    const uint8_t *p = take(&rest, len);
    *out = chr_slice_of(p, (size_t)len);
    return p && rest.len == 0;
}

/* Topics and filters: UTF-8, not empty, wildcards where they may be, levels within bounds (4.7). */

static bool levels_proper(chr_slice s, bool wildcards)
{
    if (s.len == 0 || s.len > UINT16_MAX || !chr_utf8_valid_mqtt(s))
        return false;
    uint32_t levels = 1;
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.ptr[i];
        levels += c == '/';
        if (c != '+' && c != '#')
            continue;
        bool alone = (i == 0 || s.ptr[i - 1] == '/') && (i + 1 == s.len || s.ptr[i + 1] == '/');
        if (!wildcards || !alone || (c == '#' && i + 1 != s.len))
            return false;
    }
    return levels <= DB_TOPIC_LEVELS_MAX;
}

bool db__topic_proper(chr_slice topic)
{
    return levels_proper(topic, false);
}

bool db__filter_proper(chr_slice filter)
{
    return levels_proper(filter, true);
}

/* A share name is one level without wildcards [MQTT-4.8.2-1]. */
bool db__group_proper(chr_slice group)
{
    return group.len == 0 || (levels_proper(group, false) && !memchr(group.ptr, '/', group.len));
}

chr_err db__session_open_decode(const struct db__op *op, struct db_session_open *out,
                                struct db_will *will)
{
    chr_slice body = op->body;
    const uint8_t *p = take(&body, 16);
    *out = (struct db_session_open){0};
    if (!p || chr_get_u32le(p + 4) > 1 || chr_get_u32le(p + 12) ||
        chr_get_u32le(p + 8) > DB__CLIENT_ID_MAX)
        return CHR_ECORRUPT;
    uint32_t id_len = chr_get_u32le(p + 8);
    out->expiry_s = chr_get_u32le(p);
    out->clean_start = chr_get_u32le(p + 4) != 0;
    if (!(op->flags & DB_OP_DURABLE)) /* as written by versions before queues */
        return take_last(body, id_len, &out->client_id) ? CHR_OK : CHR_ECORRUPT;
    if (!(p = take(&body, DB__OPEN_DURABLE)))
        return CHR_ECORRUPT;
    out->queue_messages_max = chr_get_u32le(p);
    out->window = chr_get_u32le(p + 4);
    out->queue_bytes_max = chr_get_u64le(p + 8);
    out->queues_bytes_max = chr_get_u64le(p + 16);
    uint8_t flags = p[24];
    out->drop_oldest = flags & DB__OPEN_DROP_OLDEST;
    *will = (struct db_will){.qos = p[25],
                             .retain = flags & DB__OPEN_WILL_RETAIN,
                             .delay_s = chr_get_u32le(p + 28),
                             .message_expiry_s = chr_get_u32le(p + 32)};
    uint64_t topic = chr_get_u32le(p + 36), properties = chr_get_u32le(p + 40);
    uint64_t payload = chr_get_u32le(p + 44), owner = chr_get_u32le(p + 48);
    chr_slice all;
    if (flags & ~(DB__OPEN_DROP_OLDEST | DB__OPEN_WILL | DB__OPEN_WILL_RETAIN | DB__OPEN_OWNER |
                  DB__OPEN_PLACE) ||
        p[25] > 2 || chr_get_u16le(p + 26) || chr_get_u32le(p + 52) || owner > DB__OWNER_MAX ||
        (owner && !(flags & DB__OPEN_OWNER)))
        return CHR_ECORRUPT;
    const uint8_t *place = flags & DB__OPEN_PLACE ? take(&body, DB__OPEN_NODE) : NULL;
    if (place) {
        out->node = chr_get_u64le(place);
        out->boot = chr_get_u64le(place + 8);
    }
    if (((flags & DB__OPEN_PLACE) && !out->node) ||
        !take_last(body, id_len + owner + topic + properties + payload, &all))
        return CHR_ECORRUPT;
    out->client_id = chr_slice_of(all.ptr, id_len);
    out->has_owner = flags & DB__OPEN_OWNER;
    out->owner = chr_slice_of(all.ptr + id_len, (size_t)owner);
    const uint8_t *behind = all.ptr + id_len + owner;
    if (!(flags & DB__OPEN_WILL))
        return topic + properties + payload + will->qos + will->delay_s + will->message_expiry_s ||
                       will->retain
                   ? CHR_ECORRUPT
                   : CHR_OK;
    out->will = will;
    will->topic = chr_slice_of(behind, topic);
    will->properties = chr_slice_of(behind + topic, properties);
    will->payload = chr_slice_of(behind + topic + properties, payload);
    return db__topic_proper(will->topic) ? CHR_OK : CHR_ECORRUPT;
}

chr_err db__session_close_decode(chr_slice body, struct db_session_close *out)
{
    const uint8_t *p = take(&body, 24);
    if (!p || chr_get_u32le(p + 16) > DB__CLIENT_ID_MAX)
        return CHR_ECORRUPT;
    out->epoch = chr_get_u64le(p);
    out->generation = chr_get_u32le(p + 8);
    out->expiry_s = chr_get_u32le(p + 12);
    uint32_t id_len = chr_get_u32le(p + 16), flags = chr_get_u32le(p + 20);
    if (flags > (DB__CLOSE_WILL_KEEP | DB__CLOSE_SENT))
        return CHR_ECORRUPT;
    out->will = flags & DB__CLOSE_WILL_KEEP ? DB_WILL_KEEP : DB_WILL_DROP;
    out->sent = 0;
    if (flags & DB__CLOSE_SENT) {
        if (!(p = take(&body, 8)))
            return CHR_ECORRUPT;
        out->sent = chr_get_u64le(p);
    }
    return take_last(body, id_len, &out->client_id) ? CHR_OK : CHR_ECORRUPT;
}

chr_err db__node_down_decode(const struct db__op *op, uint64_t *node, uint64_t *boot)
{
    if (op->flags || op->table_id || op->count != 1 || op->body.len != 16)
        return CHR_ECORRUPT;
    *node = chr_get_u64le(op->body.ptr);
    *boot = chr_get_u64le(op->body.ptr + 8);
    return CHR_OK;
}

chr_err db__filters_decode(const struct db__op *op, struct chr_arena *arena,
                           struct db__filters *out)
{
    chr_slice body = op->body;
    const uint8_t *p = take(&body, 16);
    bool all = op->type == DB_OP_SUBSCRIBE;
    if (!p || chr_get_u32le(p + 12) || op->count == 0)
        return CHR_ECORRUPT;
    out->epoch = chr_get_u64le(p);
    out->generation = chr_get_u32le(p + 8);
    const uint8_t *head = take(&body, (uint64_t)op->count * DB__FILTER_HEAD);
    if (!head)
        return CHR_ECORRUPT;
    out->items = CHR_ARENA_ARRAY(arena, struct db_subscription, op->count);
    if (!out->items)
        db__out_of_memory();
    uint64_t used = 0;
    for (uint32_t i = 0; i < op->count; i++, head += DB__FILTER_HEAD) {
        struct db_subscription *s = &out->items[i];
        uint64_t filter = chr_get_u32le(head), group = chr_get_u32le(head + 4);
        if (used + filter + group > body.len)
            return CHR_ECORRUPT;
        s->filter = chr_slice_of(body.ptr + used, filter);
        s->group = chr_slice_of(body.ptr + used + filter, group);
        used += filter + group;
        s->id = chr_get_u32le(head + 8);
        s->qos = head[12];
        s->no_local = head[13] & 1;
        s->retain_as_published = head[13] & 2;
        s->retain_handling = head[14];
        if (s->id > DB_SUBSCRIPTION_ID_MAX || s->qos > 2 || head[13] > 3 || head[14] > 2 ||
            head[15] || (!all && (s->id || s->qos || head[13] || head[14])) ||
            !db__filter_proper(s->filter) || !db__group_proper(s->group))
            return CHR_ECORRUPT;
    }
    chr_slice rest;
    return take_last(body, used, &rest) ? CHR_OK : CHR_ECORRUPT;
}

chr_err db__message_decode(const struct db__op *op, struct db_publish *out)
{
    chr_slice body = op->body;
    const uint8_t *p = take(&body, DB__MESSAGE_HEAD);
    if (!p || op->count != 1)
        return CHR_ECORRUPT;
    uint64_t topic = chr_get_u32le(p + 20), properties = chr_get_u32le(p + 24);
    uint64_t payload = chr_get_u32le(p + 28);
    *out = (struct db_publish){.publisher = chr_get_u64le(p),
                               .expiry_s = chr_get_u32le(p + 8),
                               .guard = chr_get_u32le(p + 12),
                               .qos = p[16],
                               .retain = p[17] != 0};
    chr_slice all;
    if (p[16] > 2 || p[17] > 1 || chr_get_u16le(p + 18) ||
        !take_last(body, topic + properties + payload, &all))
        return CHR_ECORRUPT;
    out->topic = chr_slice_of(all.ptr, topic);
    out->properties = chr_slice_of(all.ptr + topic, properties);
    out->payload = chr_slice_of(all.ptr + topic + properties, payload);
    if (((op->flags & DB_OP_GUARDED) != 0) != (out->guard != UINT32_MAX))
        return CHR_ECORRUPT;
    return db__topic_proper(out->topic) ? CHR_OK : CHR_ECORRUPT;
}

chr_err db__queue_ack_decode(const struct db__op *op, struct db__queue_ack *out)
{
    chr_slice body = op->body;
    const uint8_t *p = take(&body, 16);
    if (!p || op->count == 0 || (uint64_t)op->count * DB__RANGE_BYTES != body.len)
        return CHR_ECORRUPT;
    out->epoch = chr_get_u64le(p);
    out->generation = chr_get_u32le(p + 8);
    out->done_count = chr_get_u32le(p + 12);
    out->ranges = body.ptr;
    if (out->done_count > op->count)
        return CHR_ECORRUPT;
    for (uint32_t i = 0; i < op->count; i++) {
        struct db_sequence_range r = db__range_get(out, i);
        if (r.first == 0 || r.first > r.last)
            return CHR_ECORRUPT;
    }
    return CHR_OK;
}

struct db_sequence_range db__range_get(const struct db__queue_ack *ack, uint32_t i)
{
    const uint8_t *p = ack->ranges + (size_t)i * DB__RANGE_BYTES;
    return (struct db_sequence_range){.first = chr_get_u64le(p), .last = chr_get_u64le(p + 8)};
}

chr_err db__guards_check(chr_slice body, uint32_t count, bool wills)
{
    if (count == 0 || (uint64_t)count * DB__GUARD_BYTES != body.len)
        return CHR_ECORRUPT;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *p = body.ptr + (size_t)i * DB__GUARD_BYTES;
        if ((chr_get_u16le(p + 12) == 0 && !wills) || chr_get_u16le(p + 14))
            return CHR_ECORRUPT; /* no packet has id 0: MQTT 2.2.1 */
    }
    return CHR_OK;
}

struct db_guard db__guards_get(chr_slice body, uint32_t i)
{
    const uint8_t *p = body.ptr + (size_t)i * DB__GUARD_BYTES;
    return (struct db_guard){.epoch = chr_get_u64le(p),
                             .generation = chr_get_u32le(p + 8),
                             .packet_id = chr_get_u16le(p + 12)};
}

chr_err db__reject_decode(const struct db__op *op, struct db_reject *out)
{
    chr_slice body = op->body;
    const uint8_t *p = take(&body, 24);
    if (!p || op->count != 1)
        return CHR_ECORRUPT;
    uint64_t topic = chr_get_u32le(p + 12), payload = chr_get_u32le(p + 16);
    uint64_t reason = chr_get_u32le(p + 20);
    chr_slice all;
    if (!take_last(body, topic + payload + reason, &all))
        return CHR_ECORRUPT;
    out->table_id = op->table_id;
    out->received_at_us = (int64_t)chr_get_u64le(p);
    out->guard = chr_get_u32le(p + 8);
    out->topic = chr_slice_of(all.ptr, topic);
    out->payload = chr_slice_of(all.ptr + topic, payload);
    out->reason = chr_slice_of(all.ptr + topic + payload, reason);
    if (((op->flags & DB_OP_GUARDED) != 0) != (out->guard != UINT32_MAX))
        return CHR_ECORRUPT;
    return chr_utf8_valid_mqtt(out->topic) && chr_utf8_valid_mqtt(out->reason) ? CHR_OK
                                                                               : CHR_ECORRUPT;
}

chr_err db__request_key_decode(chr_slice body, chr_slice *user, chr_slice *key)
{
    const uint8_t *p = take(&body, 8);
    if (!p)
        return CHR_ECORRUPT;
    uint64_t user_len = chr_get_u32le(p), key_len = chr_get_u32le(p + 4);
    if (user_len > DB__REQUEST_PART_MAX || key_len > DB__REQUEST_PART_MAX)
        return CHR_ECORRUPT;
    chr_slice all;
    if (!take_last(body, user_len + key_len, &all))
        return CHR_ECORRUPT;
    *user = chr_slice_of(all.ptr, user_len);
    *key = chr_slice_of(all.ptr + user_len, key_len);
    return CHR_OK;
}

chr_err db__grant_decode(chr_slice body, struct db_grant *grant, bool *revoke)
{
    const uint8_t *p = take(&body, 8);
    chr_slice name;
    if (!p || p[0] > DB_GRANTEE_PUBLIC || p[1] == 0 || p[1] > DB_PRIVILEGES_ALL || p[2] > 1 ||
        p[3] || chr_get_u32le(p + 4) > DB_GRANTEE_BYTES_MAX ||
        !take_last(body, chr_get_u32le(p + 4), &name) ||
        (name.len && memchr(name.ptr, 0, name.len)))
        return CHR_ECORRUPT;
    *grant = (struct db_grant){.kind = (enum db_grantee_kind)p[0], .privileges = p[1]};
    *revoke = p[2];
    if (name.len)
        memcpy(grant->name, name.ptr, name.len);
    return CHR_OK;
}

chr_err db__table_decode(chr_slice body, chr_slice *def)
{
    const uint8_t *p = take(&body, 8);
    if (!p || chr_get_u32le(p + 4))
        return CHR_ECORRUPT;
    return take_last(body, chr_get_u32le(p), def) ? CHR_OK : CHR_ECORRUPT;
}
