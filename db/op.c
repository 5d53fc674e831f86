/* db/op.c: building an entry, operation by operation. Layouts: db/op_format.h.
 *
 * Nothing here fails before db_entry_end: what does not fit marks the buffer as failed. */
#include "db/op.h"

#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "db/op_format.h"

void db__rows_write_body(const struct db_rows_builder *b, enum db_rows_mode mode,
                         struct chr_buf *out);

void db_entry_init(struct db_entry *entry, size_t max_bytes)
{
    chr_buf_init(&entry->bytes, max_bytes);
    entry->ops_count = 0;
}

void db_entry_free(struct db_entry *entry)
{
    chr_buf_free(&entry->bytes);
    entry->ops_count = 0;
}

void db_entry_begin(struct db_entry *entry, uint16_t flags, uint64_t mapping_version)
{
    chr_buf_reset(&entry->bytes);
    entry->ops_count = 0;
    chr_buf_add_u16le(&entry->bytes, DB__ENTRY_VERSION);
    chr_buf_add_u16le(&entry->bytes, flags);
    chr_buf_add_u32le(&entry->bytes, 0);
    chr_buf_add_u64le(&entry->bytes, mapping_version);
}

chr_err db_entry_end(struct db_entry *entry)
{
    if (entry->bytes.failed)
        return CHR_EFULL;
    chr_put_u32le(entry->bytes.ptr + 4, entry->ops_count);
    return CHR_OK;
}

/* Begins an operation; returns where, for op_end. */
static size_t op_begin(struct db_entry *entry, enum db_op_type type, uint8_t flags,
                       uint32_t table_id, uint32_t count)
{
    struct chr_buf *out = &entry->bytes;
    size_t at = out->len;
    chr_buf_add_u32le(out, 0);
    chr_buf_add_u8(out, (uint8_t)type);
    chr_buf_add_u8(out, flags);
    chr_buf_add_u16le(out, 0);
    chr_buf_add_u32le(out, table_id);
    chr_buf_add_u32le(out, count);
    return at;
}

static void op_end(struct db_entry *entry, size_t at)
{
    struct chr_buf *out = &entry->bytes;
    chr_buf_pad(out, 8);
    if (out->failed)
        return;
    chr_put_u32le(out->ptr + at, (uint32_t)(out->len - at));
    entry->ops_count++;
}

void db_rows_finish(const struct db_rows_builder *b, enum db_rows_mode mode, struct db_entry *entry)
{
    if (b->rows == 0)
        return;
    size_t at = op_begin(entry, DB_OP_ROWS, b->guarded ? DB_OP_GUARDED : 0, b->table->id, b->rows);
    db__rows_write_body(b, mode, &entry->bytes);
    op_end(entry, at);
}

static void add_row_ids(struct chr_buf *out, const struct db_row_id *ids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        chr_buf_add_u64le(out, ids[i].entry);
        chr_buf_add_u32le(out, ids[i].ordinal);
        chr_buf_add_u32le(out, 0);
    }
}

void db_entry_add_delete(struct db_entry *entry, uint32_t table_id, const struct db_row_id *ids,
                         uint32_t count)
{
    if (count == 0)
        return;
    size_t at = op_begin(entry, DB_OP_DELETE, 0, table_id, count);
    add_row_ids(&entry->bytes, ids, count);
    op_end(entry, at);
}

void db_entry_add_update(struct db_entry *entry, const struct db_rows_builder *rows,
                         const struct db_row_id *ids)
{
    CHR_ASSERT(!rows->guarded);
    if (rows->rows == 0)
        return;
    size_t at = op_begin(entry, DB_OP_UPDATE, 0, rows->table->id, rows->rows);
    add_row_ids(&entry->bytes, ids, rows->rows);
    db__rows_write_body(rows, DB_ROWS_INSERT, &entry->bytes);
    op_end(entry, at);
}

static chr_err add_table(struct db_entry *entry, enum db_op_type type, uint8_t flags,
                         uint32_t table_id, const struct db_table_def *table)
{
    struct chr_buf *out = &entry->bytes;
    size_t before = out->len, at = op_begin(entry, type, flags, table_id, 1);
    size_t length_at = out->len;
    chr_buf_add_u64le(out, 0);
    size_t begin = out->len;
    chr_err err = out->failed ? CHR_EFULL : db_table_def_encode(table, out);
    if (err) {
        out->len = before; /* as if it had not been asked for */
        return err;
    }
    chr_put_u32le(out->ptr + length_at, (uint32_t)(out->len - begin));
    op_end(entry, at);
    return CHR_OK;
}

chr_err db_entry_add_create_table(struct db_entry *entry, const struct db_table_def *table,
                                  bool if_not_exists)
{
    return add_table(entry, DB_OP_CREATE_TABLE, if_not_exists ? DB_OP_IF_EXISTENCE : 0, 0, table);
}

chr_err db_entry_add_alter_table(struct db_entry *entry, const struct db_table_def *table)
{
    return add_table(entry, DB_OP_ALTER_TABLE, 0, table->id, table);
}

void db_entry_add_drop_table(struct db_entry *entry, uint32_t table_id)
{
    op_end(entry, op_begin(entry, DB_OP_DROP_TABLE, 0, table_id, 1));
}

void db_entry_add_session_open(struct db_entry *entry, const struct db_session_open *open)
{
    struct chr_buf *out = &entry->bytes;
    static const struct db_will none;
    const struct db_will *will = open->will ? open->will : &none;
    size_t at = op_begin(entry, DB_OP_SESSION_OPEN, DB_OP_DURABLE, 0, 1);
    chr_buf_add_u32le(out, open->expiry_s);
    chr_buf_add_u32le(out, open->clean_start);
    chr_buf_add_u32le(out, (uint32_t)open->client_id.len);
    chr_buf_add_u32le(out, 0);
    chr_buf_add_u32le(out, open->queue_messages_max);
    chr_buf_add_u32le(out, open->window);
    chr_buf_add_u64le(out, open->queue_bytes_max);
    chr_buf_add_u64le(out, open->queues_bytes_max);
    chr_buf_add_u8(
        out,
        (uint8_t)((open->drop_oldest ? DB__OPEN_DROP_OLDEST : 0) |
                  (open->will ? DB__OPEN_WILL : 0) | (will->retain ? DB__OPEN_WILL_RETAIN : 0) |
                  (open->has_owner ? DB__OPEN_OWNER : 0) | (open->node ? DB__OPEN_PLACE : 0)));
    chr_buf_add_u8(out, will->qos);
    chr_buf_add_u16le(out, 0);
    chr_buf_add_u32le(out, will->delay_s);
    chr_buf_add_u32le(out, will->message_expiry_s);
    chr_buf_add_u32le(out, (uint32_t)will->topic.len);
    chr_buf_add_u32le(out, (uint32_t)will->properties.len);
    chr_buf_add_u32le(out, (uint32_t)will->payload.len);
    chr_slice owner = open->has_owner ? open->owner : CHR_LIT("");
    chr_buf_add_u32le(out, (uint32_t)owner.len);
    chr_buf_add_u32le(out, 0);
    if (open->node) {
        chr_buf_add_u64le(out, open->node);
        chr_buf_add_u64le(out, open->boot);
    }
    chr_buf_add_slice(out, open->client_id);
    chr_buf_add_slice(out, owner);
    chr_buf_add_slice(out, will->topic);
    chr_buf_add_slice(out, will->properties);
    chr_buf_add_slice(out, will->payload);
    op_end(entry, at);
}

void db_entry_add_session_close(struct db_entry *entry, const struct db_session_close *close)
{
    struct chr_buf *out = &entry->bytes;
    size_t at = op_begin(entry, DB_OP_SESSION_CLOSE, 0, 0, 1);
    chr_buf_add_u64le(out, close->epoch);
    chr_buf_add_u32le(out, close->generation);
    chr_buf_add_u32le(out, close->expiry_s);
    chr_buf_add_u32le(out, (uint32_t)close->client_id.len);
    chr_buf_add_u32le(out,
                      DB__CLOSE_SENT | (close->will == DB_WILL_KEEP ? DB__CLOSE_WILL_KEEP : 0u));
    chr_buf_add_u64le(out, close->sent);
    chr_buf_add_slice(out, close->client_id);
    op_end(entry, at);
}

void db_entry_add_node_down(struct db_entry *entry, uint64_t node, uint64_t boot)
{
    size_t at = op_begin(entry, DB_OP_NODE_DOWN, 0, 0, 1);
    chr_buf_add_u64le(&entry->bytes, node);
    chr_buf_add_u64le(&entry->bytes, boot);
    op_end(entry, at);
}

static void add_guards(struct db_entry *entry, enum db_op_type type, const struct db_guard *items,
                       uint32_t count)
{
    if (count == 0)
        return;
    struct chr_buf *out = &entry->bytes;
    size_t at = op_begin(entry, type, 0, 0, count);
    for (uint32_t i = 0; i < count; i++) {
        chr_buf_add_u64le(out, items[i].epoch);
        chr_buf_add_u32le(out, items[i].generation);
        chr_buf_add_u16le(out, items[i].packet_id);
        chr_buf_add_u16le(out, 0);
    }
    op_end(entry, at);
}

void db_entry_add_guards(struct db_entry *entry, const struct db_guard *items, uint32_t count)
{
    add_guards(entry, DB_OP_GUARDS, items, count);
}

void db_entry_add_release(struct db_entry *entry, const struct db_guard *items, uint32_t count)
{
    add_guards(entry, DB_OP_RELEASE, items, count);
}

void db_entry_add_reject(struct db_entry *entry, const struct db_reject *reject)
{
    struct chr_buf *out = &entry->bytes;
    size_t at = op_begin(entry, DB_OP_REJECT, reject->guard == UINT32_MAX ? 0 : DB_OP_GUARDED,
                         reject->table_id, 1);
    chr_buf_add_u64le(out, (uint64_t)reject->received_at_us);
    chr_buf_add_u32le(out, reject->guard);
    chr_buf_add_u32le(out, (uint32_t)reject->topic.len);
    chr_buf_add_u32le(out, (uint32_t)reject->payload.len);
    chr_buf_add_u32le(out, (uint32_t)reject->reason.len);
    chr_buf_add_slice(out, reject->topic);
    chr_buf_add_slice(out, reject->payload);
    chr_buf_add_slice(out, reject->reason);
    op_end(entry, at);
}

void db_entry_add_grant(struct db_entry *entry, uint32_t table_id, const struct db_grant *grant,
                        bool revoke)
{
    struct chr_buf *out = &entry->bytes;
    size_t at = op_begin(entry, DB_OP_GRANT, 0, table_id, 1);
    chr_buf_add_u8(out, (uint8_t)grant->kind);
    chr_buf_add_u8(out, grant->privileges);
    chr_buf_add_u8(out, revoke);
    chr_buf_add_u8(out, 0);
    chr_buf_add_u32le(out, (uint32_t)strlen(grant->name));
    chr_buf_add_cstr(out, grant->name);
    op_end(entry, at);
}

void db_entry_add_request_key(struct db_entry *entry, chr_slice user, chr_slice key)
{
    struct chr_buf *out = &entry->bytes;
    size_t at = op_begin(entry, DB_OP_REQUEST_KEY, 0, 0, 1);
    chr_buf_add_u32le(out, (uint32_t)user.len);
    chr_buf_add_u32le(out, (uint32_t)key.len);
    chr_buf_add_slice(out, user);
    chr_buf_add_slice(out, key);
    op_end(entry, at);
}

static void add_filters(struct db_entry *entry, enum db_op_type type, uint64_t epoch,
                        uint32_t generation, const struct db_subscription *items, uint32_t count)
{
    if (count == 0)
        return;
    struct chr_buf *out = &entry->bytes;
    bool all = type == DB_OP_SUBSCRIBE;
    size_t at = op_begin(entry, type, 0, 0, count);
    chr_buf_add_u64le(out, epoch);
    chr_buf_add_u32le(out, generation);
    chr_buf_add_u32le(out, 0);
    for (uint32_t i = 0; i < count; i++) {
        const struct db_subscription *s = &items[i];
        chr_buf_add_u32le(out, (uint32_t)s->filter.len);
        chr_buf_add_u32le(out, (uint32_t)s->group.len);
        chr_buf_add_u32le(out, all ? s->id : 0);
        chr_buf_add_u8(out, all ? s->qos : 0);
        chr_buf_add_u8(
            out, (uint8_t)(all ? (s->no_local ? 1 : 0) | (s->retain_as_published ? 2 : 0) : 0));
        chr_buf_add_u8(out, all ? s->retain_handling : 0);
        chr_buf_add_u8(out, 0);
    }
    for (uint32_t i = 0; i < count; i++) {
        chr_buf_add_slice(out, items[i].filter);
        chr_buf_add_slice(out, items[i].group);
    }
    op_end(entry, at);
}

void db_entry_add_subscribe(struct db_entry *entry, uint64_t epoch, uint32_t generation,
                            const struct db_subscription *items, uint32_t count)
{
    add_filters(entry, DB_OP_SUBSCRIBE, epoch, generation, items, count);
}

void db_entry_add_unsubscribe(struct db_entry *entry, uint64_t epoch, uint32_t generation,
                              const struct db_subscription *items, uint32_t count)
{
    add_filters(entry, DB_OP_UNSUBSCRIBE, epoch, generation, items, count);
}

void db_entry_add_message(struct db_entry *entry, const struct db_publish *publish)
{
    struct chr_buf *out = &entry->bytes;
    size_t at =
        op_begin(entry, DB_OP_MESSAGE, publish->guard == UINT32_MAX ? 0 : DB_OP_GUARDED, 0, 1);
    chr_buf_add_u64le(out, publish->publisher);
    chr_buf_add_u32le(out, publish->expiry_s);
    chr_buf_add_u32le(out, publish->guard);
    chr_buf_add_u8(out, publish->qos);
    chr_buf_add_u8(out, publish->retain);
    chr_buf_add_u16le(out, 0);
    chr_buf_add_u32le(out, (uint32_t)publish->topic.len);
    chr_buf_add_u32le(out, (uint32_t)publish->properties.len);
    chr_buf_add_u32le(out, (uint32_t)publish->payload.len);
    chr_buf_add_slice(out, publish->topic);
    chr_buf_add_slice(out, publish->properties);
    chr_buf_add_slice(out, publish->payload);
    op_end(entry, at);
}

static void add_ranges(struct chr_buf *out, const struct db_sequence_range *ranges, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        chr_buf_add_u64le(out, ranges[i].first);
        chr_buf_add_u64le(out, ranges[i].last);
    }
}

void db_entry_add_queue_ack(struct db_entry *entry, uint64_t epoch, uint32_t generation,
                            const struct db_sequence_range *done, uint32_t done_count,
                            const struct db_sequence_range *received, uint32_t received_count)
{
    if (done_count + received_count == 0)
        return;
    struct chr_buf *out = &entry->bytes;
    size_t at = op_begin(entry, DB_OP_QUEUE_ACK, 0, 0, done_count + received_count);
    chr_buf_add_u64le(out, epoch);
    chr_buf_add_u32le(out, generation);
    chr_buf_add_u32le(out, done_count);
    add_ranges(out, done, done_count);
    add_ranges(out, received, received_count);
    op_end(entry, at);
}
