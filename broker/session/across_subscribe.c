/* broker/session/across_subscribe.c: a SUBSCRIBE waits until the peers know its filters, and until
 * this node has applied what was acknowledged before (A2). */
#include <stdlib.h>
#include <string.h>

#include "broker/committer.h"
#include "broker/session/across_internal.h"
#include "broker/session/internal.h"

/* A filter of it; text is group, then filter. */
struct waiting_filter {
    struct waiting_filter *next;
    uint16_t group_len, filter_len;
    bool durable;
    uint8_t text[];
};

struct across_subscribe {
    struct loop_mail mail;
    struct across_subscribe *next;
    struct across *across;
    struct broker_loop *loop;
    struct conn_ref conn;
    struct waiting_filter *filters;
    uint64_t version; /* that the peers are to know */
    int64_t until_us;
    bool posted, ready; /* loop's */
};

struct across_subscribe *across_subscribe_begin(struct conn *conn)
{
    struct across_subscribe *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->across = across_of(conn->loop->node);
    w->loop = conn->loop;
    w->conn = conn->ref;
    conn->subscribe = w;
    return w;
}

chr_err across_subscribe_add(struct across_subscribe *w, chr_slice group, chr_slice filter,
                             bool durable)
{
    struct waiting_filter *f = malloc(sizeof *f + group.len + filter.len);
    if (!f || own_interest_add(w->across->own, group, filter, durable)) {
        free(f);
        return CHR_ENOMEM;
    }
    *f = (struct waiting_filter){.next = w->filters,
                                 .group_len = (uint16_t)group.len,
                                 .filter_len = (uint16_t)filter.len,
                                 .durable = durable};
    if (group.len)
        memcpy(f->text, group.ptr, group.len);
    memcpy(f->text + group.len, filter.ptr, filter.len);
    w->filters = f;
    return CHR_OK;
}

static void subscribe_free(struct across_subscribe *w)
{
    while (w->filters) {
        struct waiting_filter *f = w->filters;
        w->filters = f->next;
        own_interest_remove(w->across->own, chr_slice_of(f->text, f->group_len),
                            chr_slice_of(f->text + f->group_len, f->filter_len), f->durable);
        free(f);
    }
    free(w);
}

static void open_letter(struct broker_loop *loop, struct loop_mail *mail)
{
    struct across_subscribe *w = CHR_CONTAINER_OF(mail, struct across_subscribe, mail);
    struct conn *conn = loop_conn(loop, w->conn);
    if (!conn || conn->subscribe != w) {
        subscribe_free(w); /* it is gone */
        return;
    }
    w->ready = true;
    conn_resume(conn, CONN_PAUSE_PEERS);
}

void across_subscribe_wait(struct across_subscribe *w)
{
    struct across *a = w->across;
    struct conn *conn = loop_conn(w->loop, w->conn);
    w->version = own_interest_version(a->own);
    w->until_us = w->loop->now_mono_us + ACROSS_SUBSCRIBE_US_MAX;
    w->mail.run = open_letter;
    w->posted = true;
    conn_pause(conn, CONN_PAUSE_PEERS);
    pthread_mutex_lock(&a->waits_lock);
    if (a->fresh_last)
        a->fresh_last->next = w;
    else
        a->fresh = w;
    a->fresh_last = w;
    pthread_mutex_unlock(&a->waits_lock);
    chr_wake_signal(&a->wake);
}

bool across_subscribe_ready(const struct across_subscribe *w)
{
    return w->ready;
}

void across_subscribe_end(struct conn *conn)
{
    struct across_subscribe *w = conn->subscribe;
    conn->subscribe = NULL;
    if (w && (w->ready || !w->posted))
        subscribe_free(w); /* else its letter does it */
}

/* ---- The thread -------------------------------------------------------------------------------
 */

/* Blocks until this node has what was acknowledged before, or nobody waits for it any longer. While
 * nobody leads it is not known what that is. */
static void catch_up(struct across *a, int64_t until_us)
{
    broker_committer *committer = a->node->committer;
    int64_t left_us = until_us - chr_clock_mono_us(a->node->clock);
    if (left_us > 0 && broker_committer_leader(committer))
        (void)!broker_committer_read_barrier(committer, (uint32_t)(left_us / 1000) + 1);
}

static void take_fresh(struct across *a)
{
    pthread_mutex_lock(&a->waits_lock);
    struct across_subscribe *fresh = a->fresh;
    a->fresh = a->fresh_last = NULL;
    pthread_mutex_unlock(&a->waits_lock);
    int64_t until_us = INT64_MIN;
    struct across_subscribe **end = &a->waits;
    while (*end)
        end = &(*end)->next;
    *end = fresh;
    for (struct across_subscribe *w = fresh; w; w = w->next)
        until_us = CHR_MAX(until_us, w->until_us);
    if (fresh)
        catch_up(a, until_us);
}

int64_t across__subscribes_turn(struct across *a)
{
    take_fresh(a);
    if (!a->waits)
        return INT64_MAX;
    int64_t now_us = chr_clock_mono_us(a->node->clock), next_us = INT64_MAX;
    pthread_mutex_lock(&a->lock);
    struct across_subscribe **at = &a->waits, *ready = NULL, **ready_end = &ready;
    while (*at) {
        struct across_subscribe *w = *at;
        if (now_us < w->until_us && !across__filters_known(a, w->version)) {
            next_us = CHR_MIN(next_us, w->until_us);
            at = &w->next;
            continue;
        }
        *at = w->next;
        w->next = NULL;
        *ready_end = w;
        ready_end = &w->next;
    }
    pthread_mutex_unlock(&a->lock);
    while (ready) {
        struct across_subscribe *w = ready;
        ready = w->next;
        loop_post(w->loop, &w->mail);
    }
    return next_us;
}

static void free_list(struct across_subscribe *w)
{
    while (w) {
        struct across_subscribe *next = w->next;
        subscribe_free(w);
        w = next;
    }
}

void across__subscribes_free(struct across *a)
{
    free_list(a->waits);
    free_list(a->fresh);
    a->waits = a->fresh = a->fresh_last = NULL;
}
