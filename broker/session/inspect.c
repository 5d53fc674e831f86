#include "broker/session/inspect.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "broker/auth/auth.h"
#include "broker/net/ask.h"
#include "broker/session/internal.h"

struct letter {
    struct loop_mail mail;
    struct inspection *inspection;
    uint64_t cursor;
    struct session_info *first;
    uint32_t count;
    chr_err err;
};

struct inspection {
    struct ask ask; /* first */
    bool connected_only;
    uint64_t bytes_max;
    _Atomic uint64_t bytes; /* of what all letters hold */
    uint32_t letters_count;
    struct letter letters[];
};

static void free_list(struct session_info *info)
{
    while (info) {
        struct session_info *next = info->next;
        free(info);
        info = next;
    }
}

static void inspection_free(struct ask *ask)
{
    struct inspection *in = (struct inspection *)ask;
    for (uint32_t i = 0; i < in->letters_count; i++)
        free_list(in->letters[i].first);
    free(in);
}

/* ---- Loop -------------------------------------------------------------------------------------
 */

uint64_t inspect_next_bucket(uint64_t cursor, uint64_t mask)
{
    /* Adds one to the bucket's number read from its highest bit down. */
    for (uint64_t bit = (mask + 1) >> 1; bit; bit >>= 1) {
        cursor ^= bit;
        if (cursor & bit)
            return cursor & mask;
    }
    return 0;
}

static void describe_conn(struct session_info *info, const struct session *s)
{
    const struct broker_loop *loop = s->loop;
    const struct conn *c = s->conn;
    info->connected = true;
    info->listener = c->listener;
    info->version = c->version;
    info->clean_start = c->clean_start;
    info->keep_alive_s = c->keep_alive_s;
    info->connected_us = loop->now_wall_us - (loop->now_mono_us - c->opened_us);
    info->messages_received = c->messages_received;
    info->messages_sent = c->messages_sent;
    info->bytes_received = c->bytes_received;
    info->bytes_sent = c->bytes_sent;
    memcpy(info->address, c->address, sizeof info->address);
}

static struct session_info *describe(const struct session *s)
{
    const struct broker_loop *loop = s->loop;
    chr_slice user = s->principal ? s->principal->user : CHR_LIT("");
    struct session_info *info = calloc(1, sizeof *info + s->client_id.len + user.len);
    if (!info)
        return NULL;
    if (user.len) {
        memcpy(info->bytes + s->client_id.len, user.ptr, user.len);
        info->user = chr_slice_of(info->bytes + s->client_id.len, user.len);
    }
    info->number = s->number;
    info->epoch = s->durable ? s->epoch : 0;
    info->expiry_s = s->expiry_s;
    info->expires_us = INT64_MAX;
    info->subscriptions = s->subscriptions_count;
    info->inflight = s->inflight_open + s->stored.open;
    info->stored_inflight = s->stored.open;
    info->queued = outgoing_count(&s->queue);
    info->queued_bytes = s->queue_bytes;
    info->dropped = s->dropped;
    if (s->client_id.len)
        memcpy(info->bytes, s->client_id.ptr, s->client_id.len);
    info->client_id = chr_slice_of(info->bytes, s->client_id.len);
    if (s->conn)
        describe_conn(info, s);
    else if (s->expires_mono_us != INT64_MAX)
        info->expires_us = loop->now_wall_us + (s->expires_mono_us - loop->now_mono_us);
    return info;
}

static bool wanted(const struct inspection *in, const struct session *s)
{
    if (s->conn)
        return true;
    return !in->connected_only && s->present && !s->ended;
}

static chr_err take(struct letter *letter, const struct session *s)
{
    struct inspection *in = letter->inspection;
    size_t bytes = sizeof(struct session_info) + s->client_id.len +
                   (s->principal ? s->principal->user.len : 0);
    if (atomic_fetch_add_explicit(&in->bytes, bytes, memory_order_relaxed) + bytes > in->bytes_max)
        return CHR_ENOMEM;
    struct session_info *info = describe(s);
    if (!info)
        return CHR_ENOMEM;
    info->next = letter->first;
    letter->first = info;
    letter->count++;
    return CHR_OK;
}

static void visit(struct broker_loop *loop, struct loop_mail *mail)
{
    struct letter *letter = CHR_CONTAINER_OF(mail, struct letter, mail);
    struct inspection *in = letter->inspection;
    if (!ask_abandoned(&in->ask)) { /* K3 */
        const struct loop_session_state *state = state_of(loop);
        uint32_t seen = 0;
        do {
            const struct session *s = state->by_number[letter->cursor & state->by_number_mask];
            for (; s && !letter->err; s = s->number_next, seen++)
                if (wanted(in, s))
                    letter->err = take(letter, s);
            letter->cursor = inspect_next_bucket(letter->cursor, state->by_number_mask);
            seen++; /* an empty bucket costs something as well */
        } while (letter->cursor && !letter->err && seen < INSPECT_PER_TURN);
        if (letter->cursor && !letter->err) {
            loop_post(loop, mail);
            return;
        }
    }
    ask_answered(&in->ask);
}

/* ---- Worker -----------------------------------------------------------------------------------
 */

/* The newest session of each client: places of all, by a table of their client ids. */
static chr_err newest(struct inspection *in, struct session_info ***out, uint32_t *out_count)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < in->letters_count; i++)
        count += in->letters[i].count;
    size_t buckets = 16;
    while (buckets < 2 * (size_t)count)
        buckets *= 2;
    struct session_info **table = calloc(buckets, sizeof(struct session_info *));
    if (!table)
        return CHR_ENOMEM;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < in->letters_count; i++)
        for (struct session_info *info = in->letters[i].first; info; info = info->next) {
            size_t at = chr_hash_slice(info->client_id, chr_hash_seed()) & (buckets - 1);
            while (table[at] && !chr_slice_eq(table[at]->client_id, info->client_id))
                at = (at + 1) & (buckets - 1);
            kept += !table[at];
            if (!table[at] || table[at]->number < info->number)
                table[at] = info;
        }
    uint32_t n = 0;
    for (size_t at = 0; at < buckets; at++)
        if (table[at])
            table[n++] = table[at];
    CHR_ASSERT(n == kept);
    *out = table;
    *out_count = n;
    return CHR_OK;
}

static chr_err gather(struct broker_node *node, struct inspection *in,
                      const struct sql_host_wait *wait)
{
    for (uint32_t i = 0; i < in->letters_count; i++) {
        in->letters[i].mail.run = visit;
        in->letters[i].inspection = in;
        ask_expect(&in->ask);
        loop_post(node->loops[i], &in->letters[i].mail);
    }
    chr_err err = ask_wait(&in->ask, wait, node->clock);
    for (uint32_t i = 0; i < in->letters_count && !err; i++)
        err = in->letters[i].err;
    return err;
}

chr_err inspect_sessions(struct broker_node *node, bool connected_only, uint64_t bytes_max,
                         const struct sql_host_wait *wait,
                         chr_err (*each)(void *arg, const struct session_info *info), void *arg)
{
    uint32_t loops = node->loops_count;
    struct inspection *in = calloc(1, sizeof *in + loops * sizeof(struct letter));
    if (!in)
        return CHR_ENOMEM;
    ask_init(&in->ask, inspection_free);
    in->connected_only = connected_only;
    in->bytes_max = bytes_max;
    in->letters_count = loops;
    chr_err err = gather(node, in, wait);
    struct session_info **all = NULL;
    uint32_t count = 0;
    if (!err)
        err = newest(in, &all, &count);
    for (uint32_t i = 0; i < count && !err; i++)
        err = each(arg, all[i]);
    free((void *)all);
    ask_unref(&in->ask);
    return err;
}
