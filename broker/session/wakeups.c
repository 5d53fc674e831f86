#include "broker/session/wakeups.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "broker/session/internal.h"
#include "broker/session/will.h"
#include "db/durable.h"

#define BUCKETS_FIRST 64u

/* A durable session's owner. */
struct owner {
    struct owner *next;
    uint64_t epoch, number;
    struct for_loop *loop;
    struct owner *listed_next;
    bool listed, lost;
};

struct for_loop {
    struct loop_mail mail; /* posted while there is something in the lists */
    bool posted;
    struct broker_loop *loop; /* NULL: not started yet, or ended */
    struct wakeups *wakeups;
    struct owner *listed;
    struct will *wills, *wills_last; /* by will->next */
};

/* Wills that were due when they were looked for, oldest first. */
#define SEEN_MAX 1024u
struct seen {
    struct db_guard wills[SEEN_MAX];
    uint32_t count;
};

struct wakeups {
    pthread_mutex_t lock;
    struct owner **buckets;
    size_t mask, count;
    struct wakeups_cluster cluster; /* self 0: a node alone */
    /* Of wakeups_wills_look: */
    struct seen seen[2];      /* this time and the last */
    _Atomic uint32_t overdue; /* wills it handed over that are not published yet */
    uint32_t loops_count;
    struct for_loop loops[];
};

static void open_letter(struct broker_loop *loop, struct loop_mail *mail);

chr_err wakeups_new(uint32_t loops, const struct wakeups_cluster *cluster, struct wakeups **out)
{
    struct wakeups *w = calloc(1, sizeof *w + loops * sizeof w->loops[0]);
    struct owner **buckets = calloc(BUCKETS_FIRST, sizeof(struct owner *));
    if (!w || !buckets) {
        free(w);
        free((void *)buckets);
        return CHR_ENOMEM;
    }
    pthread_mutex_init(&w->lock, NULL);
    w->buckets = buckets;
    w->mask = BUCKETS_FIRST - 1;
    if (cluster)
        w->cluster = *cluster;
    w->loops_count = loops;
    for (uint32_t i = 0; i < loops; i++) {
        w->loops[i].mail.run = open_letter;
        w->loops[i].wakeups = w;
    }
    *out = w;
    return CHR_OK;
}

void wakeups_free(struct wakeups *w)
{
    if (!w)
        return;
    for (uint32_t i = 0; i < w->loops_count; i++)
        while (w->loops[i].wills) {
            struct will *next = w->loops[i].wills->next;
            will_free_unlisted(w->loops[i].wills);
            w->loops[i].wills = next;
        }
    for (size_t i = 0; i <= w->mask; i++)
        while (w->buckets[i]) {
            struct owner *next = w->buckets[i]->next;
            free(w->buckets[i]);
            w->buckets[i] = next;
        }
    pthread_mutex_destroy(&w->lock);
    free((void *)w->buckets);
    free(w);
}

static struct owner **place(struct wakeups *w, uint64_t epoch)
{
    struct owner **at = &w->buckets[chr_hash_u64(epoch) & w->mask];
    while (*at && (*at)->epoch != epoch)
        at = &(*at)->next;
    return at;
}

/* ---- Applier ----------------------------------------------------------------------------------
 */

static void post(struct for_loop *f)
{
    if (f->posted || !f->loop)
        return;
    f->posted = true;
    loop_post(f->loop, &f->mail);
}

static void wake_locked(struct wakeups *w, uint64_t epoch, bool lost)
{
    struct owner *o = *place(w, epoch);
    if (!o) /* it is not here, or its CONNECT is being answered, and looks by itself */
        return;
    o->lost |= lost;
    if (o->listed)
        return;
    o->listed = true;
    o->listed_next = o->loop->listed;
    o->loop->listed = o;
    post(o->loop);
}

static void will_locked(struct wakeups *w, const struct db_due_will *due, bool overdue)
{
    struct will *will = will_stored(due);
    if (!will) {
        /* It stays due in the log: the next start finds it. */
        chr_log_error("mqtt", "out of memory for a will", CHR_KV_U("epoch", due->epoch));
        return;
    }
    struct owner *o = *place(w, due->epoch);
    will->owner = o ? o->number : 0;
    if (overdue) {
        will->counted = &w->overdue;
        atomic_fetch_add(&w->overdue, 1);
    }
    struct for_loop *f = o ? o->loop : &w->loops[0];
    if (f->wills)
        f->wills_last->next = will;
    else
        f->wills = will;
    f->wills_last = will;
    post(f);
}

/* Is it ours to publish? */
static bool is_ours(const struct wakeups *w, const struct db_due_will *due)
{
    const struct wakeups_cluster *c = &w->cluster;
    if (c->self == 0)
        return true;
    return due->node ? due->node == c->self && due->boot == c->boot : c->leads(c->ctx);
}

void wakeups_applied(struct wakeups *w, const struct db_apply_result *result)
{
    pthread_mutex_lock(&w->lock);
    for (uint32_t i = 0; i < result->woken_count; i++)
        wake_locked(w, result->woken[i], false);
    for (uint32_t i = 0; i < result->lost_count; i++)
        wake_locked(w, result->lost[i].epoch, true);
    for (uint32_t i = 0; i < result->wills_count; i++)
        if (is_ours(w, &result->wills[i]))
            will_locked(w, &result->wills[i], false);
    pthread_mutex_unlock(&w->lock);
}

struct look {
    struct wakeups *w;
    struct seen *now;
    const struct seen *last;
    uint32_t at; /* in last */
};

static bool same_will(const struct db_guard *a, const struct db_due_will *b)
{
    return a->epoch == b->epoch && a->generation == b->generation;
}

/* Both are in the order in which they became due, less those that were taken. */
static void look_at(void *arg, const struct db_due_will *due)
{
    struct look *l = arg;
    if (l->now->count == SEEN_MAX)
        return;
    l->now->wills[l->now->count++] = (struct db_guard){due->epoch, due->generation, 0};
    uint32_t at = l->at;
    while (at < l->last->count && !same_will(&l->last->wills[at], due))
        at++;
    if (at == l->last->count)
        return;
    l->at = at + 1;
    pthread_mutex_lock(&l->w->lock);
    will_locked(l->w, due, true);
    pthread_mutex_unlock(&l->w->lock);
}

void wakeups_wills_look(struct wakeups *w, db *d, bool again)
{
    if (again && atomic_load(&w->overdue))
        return; /* the log does not take them now */
    struct look l = {.w = w, .now = &w->seen[0], .last = &w->seen[1]};
    w->seen[1] = w->seen[0];
    if (!again)
        w->seen[1].count = 0;
    w->seen[0].count = 0;
    db_wills_read(d, look_at, &l);
}

void wakeups_will(struct wakeups *w, const struct db_due_will *will)
{
    pthread_mutex_lock(&w->lock);
    will_locked(w, will, false);
    pthread_mutex_unlock(&w->lock);
}

/* ---- Loops ------------------------------------------------------------------------------------
 */

/* Numbers of sessions taken at a time. */
#define TAKE 64u

static void open_letter(struct broker_loop *loop, struct loop_mail *mail)
{
    struct for_loop *f = CHR_CONTAINER_OF(mail, struct for_loop, mail);
    struct wakeups *w = f->wakeups;
    uint64_t numbers[TAKE];
    bool lost[TAKE];
    uint32_t count;
    do {
        pthread_mutex_lock(&w->lock);
        for (count = 0; count < TAKE && f->listed; count++) {
            struct owner *o = f->listed;
            f->listed = o->listed_next;
            o->listed = false;
            numbers[count] = o->number;
            lost[count] = o->lost;
            o->lost = false;
        }
        struct will *wills = f->wills;
        f->wills = f->wills_last = NULL;
        f->posted = count == TAKE; /* there may be more, and we are at it */
        pthread_mutex_unlock(&w->lock);
        wills_take(loop, wills);
        for (uint32_t i = 0; i < count; i++) {
            struct session *s = session__by_number(loop, numbers[i]);
            if (s && lost[i] && session__check_lost(s))
                continue;
            if (s)
                session_stored_more(s);
        }
    } while (count == TAKE);
}

void wakeups_loop_start(struct wakeups *w, struct broker_loop *loop)
{
    if (!w)
        return;
    struct for_loop *f = &w->loops[loop->number];
    pthread_mutex_lock(&w->lock);
    f->loop = loop;
    if (f->listed || f->wills)
        post(f);
    pthread_mutex_unlock(&w->lock);
}

void wakeups_loop_end(struct wakeups *w, struct broker_loop *loop)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->loops[loop->number].loop = NULL;
    pthread_mutex_unlock(&w->lock);
}

static void grow(struct wakeups *w)
{
    size_t count = (w->mask + 1) * 2;
    struct owner **buckets = calloc(count, sizeof(struct owner *));
    if (!buckets)
        return; /* longer chains */
    for (size_t i = 0; i <= w->mask; i++)
        while (w->buckets[i]) {
            struct owner *o = w->buckets[i];
            w->buckets[i] = o->next;
            struct owner **head = &buckets[chr_hash_u64(o->epoch) & (count - 1)];
            o->next = *head;
            *head = o;
        }
    free((void *)w->buckets);
    w->buckets = buckets;
    w->mask = count - 1;
}

chr_err wakeups_add(struct wakeups *w, const struct session *s)
{
    struct owner *o = calloc(1, sizeof *o);
    if (!o)
        return CHR_ENOMEM;
    *o = (struct owner){.epoch = s->epoch, .number = s->number, .loop = &w->loops[s->loop->number]};
    pthread_mutex_lock(&w->lock);
    if (w->count++ > w->mask)
        grow(w);
    struct owner **at = place(w, s->epoch);
    CHR_ASSERT(!*at);
    *at = o;
    pthread_mutex_unlock(&w->lock);
    return CHR_OK;
}

void wakeups_remove(struct wakeups *w, const struct session *s)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    struct owner **at = place(w, s->epoch);
    struct owner *o = *at;
    if (o) {
        *at = o->next;
        w->count--;
        struct owner **listed = &o->loop->listed;
        while (o->listed && *listed != o)
            listed = &(*listed)->listed_next;
        if (o->listed)
            *listed = o->listed_next;
        free(o);
    }
    pthread_mutex_unlock(&w->lock);
}
