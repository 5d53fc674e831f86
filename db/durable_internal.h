/* db/durable_internal.h: how what outlives connections (db/durable.h) lies in memory; for db/
 * alone.
 *
 *     session ─▶ queue ─▶ items ─▶ stored message ─▶ body (or only in the store)
 *        │                             ▲
 *        ├─▶ subscriptions ─▶ filter   └── retained tree
 *        └─▶ will
 *
 * The applier changes it under durable.lock held for writing, others read it under the lock. The
 * checkpointer copies what changed at the cut (under apply_lock, so nobody writes) and takes the
 * lock for writing when it lets go of bodies that the store has.
 *
 * A stored message is new, then (at a cut) being saved, then saved. Its body stays in memory until
 * it is saved, and then as long as the cache has room or it is retained. */
#ifndef CHR_DB_DURABLE_INTERNAL_H
#define CHR_DB_DURABLE_INTERNAL_H

#include <pthread.h>

#include "base/filter_tree.h"
#include "base/list.h"
#include "base/topic_tree.h"
#include "db/due.h"
#include "db/durable.h"
#include "db/op_decode.h"
#include "db/store.h"

struct db__session;

/* -- Messages -----------------------------------------------------------------------------------*/

enum db__stored_state { DB__STORED_NEW, DB__STORED_SAVING, DB__STORED_SAVED };

struct db__stored {
    uint64_t id; /* entry index << DB__MESSAGE_ID_SHIFT | number of the operation */
    int64_t expires_us;
    uint32_t bytes; /* for limits */
    uint32_t refs;  /* queue items, and one when retained; 0: gone, kept only while being saved */
    enum db__stored_state state;
    struct db_message *body;         /* a reference; NULL: only in the store */
    struct chr_list node;            /* NEW: durable.unsaved; cached: durable.cached */
    bool cached;                     /* saved, and its body may go when others need the room */
    struct chr_topic_node *retained; /* its place in the retained tree; NULL: not retained */
    struct db__due due;              /* retained: expiry */
};
#define DB__MESSAGE_ID_SHIFT 20 /* an entry of 4 MiB has less than 2^17 operations */
/* What a message costs beside its bytes, for limits. */
#define DB__MESSAGE_OVERHEAD 64u
/* Bodies kept in memory although the store has them. */
#define DB__CACHE_BYTES (4u << 20)

/* -- Queues -------------------------------------------------------------------------------------*/

#define DB__ITEM_RETAIN      0x1
#define DB__ITEM_RECEIVED    0x2
#define DB__BLOCK_ITEMS      64u /* sequences of a record in the store */
#define DB__QUEUE_ITEM_BYTES 32  /* there, without identifiers */

struct db__queue_item {
    uint64_t sequence;
    struct db__stored *message; /* a count of refs; NULL: acknowledged, its place not given back */
    uint8_t qos, flags;
    uint16_t ids_count;
    union {
        uint32_t id;   /* ids_count 1 */
        uint32_t *ids; /* more: owned */
    };
};

struct db__queue {
    struct db__queue_item *items; /* [first, end), sequences rising */
    size_t first, end, capacity;
    uint64_t count, bytes; /* of those with a message */
    uint64_t *dirty;       /* blocks changed since the last cut, perhaps twice */
    size_t dirty_count, dirty_capacity;
};

/* -- Subscriptions ------------------------------------------------------------------------------*/

/* Chained hash of things that carry their hash. */
struct db__hash_node {
    struct db__hash_node *next;
    uint64_t hash;
};
struct db__hash {
    struct db__hash_node **buckets;
    size_t mask, count;
};

struct db__filter;
struct db__group;

struct db__subscription {
    struct db__hash_node hash;             /* durable.subscriptions: by epoch, filter and group */
    struct chr_list of_session, of_filter; /* filter's plain ones, or its group's members */
    struct db__session *session;
    struct db__filter *filter;
    struct db__group *group;  /* NULL: not shared */
    struct db_subscription d; /* filter and group lie in bytes */
    uint32_t number;          /* within the session; of its record */
    bool dirty;
    uint64_t served; /* shared: id of the last message it was given (M4) */
    uint8_t bytes[];
};

struct db__group {
    struct chr_list of_filter, members;
    uint32_t name_len;
    uint8_t name[];
};

struct db__filter {
    uint32_t node; /* of durable.filters */
    struct chr_list plain, groups;
};

/* -- Wills --------------------------------------------------------------------------------------*/

struct db__will {
    struct db__hash_node hash; /* durable.wills: by epoch and generation */
    struct chr_list node;      /* durable.due_wills when due */
    uint64_t epoch;
    uint32_t generation, delay_s, message_expiry_s;
    uint64_t by_node, by_boot;   /* where its connection was; 0: of a node alone, or one that is
                                    down */
    struct db__session *session; /* NULL: due, or its session is no more */
    struct db_message *message;
    struct db__due due;
    bool is_due, dirty;
    uint64_t due_order; /* of becoming due */
};

/* -- All of it ----------------------------------------------------------------------------------*/

struct db__recipient {
    struct db__session *session;
    uint32_t number; /* of the shared subscription; 0: not shared */
    uint8_t qos;
    bool retain;
    struct db__subscription *shared;
    uint32_t ids_count, ids_at; /* into durable.ids */
};

struct db__durable {
    pthread_rwlock_t lock;
    bool locked; /* by the applier, for the entry it applies */
    struct chr_filter_tree filters;
    struct chr_topic_tree retained;
    struct db__hash subscriptions, wills;
    struct db__dues dues;
    struct chr_list unsaved, cached;
    uint64_t cached_bytes;
    struct chr_list due_wills;
    uint64_t next_due_order;
    struct db__store_key *gone; /* records that are no more since the last cut; never made again */
    size_t gone_count, gone_capacity;
    struct db__recipient *recipients; /* of the message being applied */
    size_t recipients_count, recipients_capacity;
    uint32_t (*ids)[2]; /* subscription identifiers collected: id, and the next's place + 1 */
    size_t ids_count, ids_capacity;
    uint64_t stamp; /* of the message being matched */
    /* Of the entry: */
    uint64_t *woken;
    size_t woken_count, woken_capacity;
    struct db_due_will *due; /* a reference each */
    size_t due_count, due_capacity;
    struct db_lost_session *lost;
    size_t lost_count, lost_capacity;
    _Atomic uint64_t subscriptions_version;
    struct db_durable_stats stats; /* under the lock */
};

CHR_MUST_USE chr_err db__durable_init(struct db *d);
void db__durable_free(struct db *d);
/* Applier: begins and ends to write within an entry. */
void db__durable_write(struct db *d);
void db__durable_entry_begin(struct db *d);
void db__durable_entry_end(struct db *d, struct db_apply_result *result);
/* What is due at apply.now_us happens. */
void db__durable_expire(struct db *d);
int64_t db__durable_due(const struct db *d);
void db__gone(struct db *d, struct db__store_key key);

/* message.c */
struct db_message *db__message_new(chr_slice topic, chr_slice properties, chr_slice payload,
                                   uint8_t qos, bool retain, int64_t expires_us,
                                   uint64_t publisher); /* NULL: no memory */
void db__message_encode(const struct db_message *message, struct chr_buf *out);
CHR_MUST_USE chr_err db__message_open(chr_slice body, struct db_message **out);
/* One that the store has, without a body and without refs. */
struct db__stored *db__stored_known(struct db *d, uint64_t id, uint32_t bytes, int64_t expires_us);
/* SAVED: from now on its body may be let go. */
void db__stored_cache(struct db *d, struct db__stored *stored);
/* The body of a stored message from the store. */
CHR_MUST_USE chr_err db__message_load(struct db *d, uint64_t id, struct db_message **out);
struct db__stored *db__stored_new(struct db *d, uint64_t id, struct db_message *body); /* taken */
void db__stored_unref(struct db *d, struct db__stored *stored);
void db__stored_free(struct db__stored *stored);
uint32_t db__message_bytes(const struct db_message *message); /* for limits */
int64_t db__time_after(int64_t now_us, uint32_t seconds);     /* UINT32_MAX: INT64_MAX */

/* hash of hash nodes */
void db__hash_put(struct db__hash *hash, struct db__hash_node *node);
void db__hash_remove(struct db__hash *hash, struct db__hash_node *node);
struct db__hash_node *db__hash_first(const struct db__hash *hash, uint64_t key);

/* queue.c */
void db__queue_free(struct db__queue *queue);
void db__queue_drop_all(struct db *d, struct db__session *session); /* the session ends */
/* ids: those of the recipient. Respects the session's limits. */
void db__queue_append(struct db *d, struct db__session *session, struct db__stored *message,
                      uint8_t qos, bool retain, const uint32_t *ids, uint32_t ids_count);
bool db__queue_has_room(const struct db *d, const struct db__session *session, uint32_t bytes);
void db__queue_sweep(struct db *d, struct db__session *session);
void db__queue_touch(struct db__queue *queue, uint64_t sequence);
void db__apply_queue_ack(struct db *d, const struct db__op *op, struct db_op_result *result);
/* Recovery: at the end; takes the item. */
void db__queue_load(struct db__queue *queue, const struct db__queue_item *item);
size_t db__queue_find(const struct db__queue *queue, uint64_t sequence); /* first not below */

/* subscription.c */
void db__apply_subscribe(struct db *d, const struct db__op *op, struct db_op_result *result);
void db__apply_unsubscribe(struct db *d, const struct db__op *op, struct db_op_result *result);
struct db__subscription *db__subscription_find(const struct db *d,
                                               const struct db__session *session, chr_slice filter,
                                               chr_slice group);
struct db__subscription *db__subscription_add(struct db *d, struct db__session *session,
                                              const struct db_subscription *item, uint32_t number);
void db__subscription_remove(struct db *d, struct db__subscription *subscription);
/* Calls visit for each filter a topic matches. */
void db__filters_match(const struct db *d, chr_slice topic,
                       void (*visit)(void *arg, struct db__filter *filter), void *arg);

/* retained.c */
void db__retained_set(struct db *d, struct db__stored *stored, chr_slice topic);
bool db__retained_has(const struct db *d, chr_slice topic);
void db__retained_clear(struct db *d, chr_slice topic);
void db__retained_drop(struct db *d, struct db__stored *stored);
/* Under the lock. each: false stops. */
void db__retained_match(const struct db *d, chr_slice filter,
                        bool (*each)(void *arg, struct db__stored *stored), void *arg);

/* publish.c: MESSAGE at apply */
void db__apply_message(struct db *d, const struct db__op *op, struct db_op_result *result);

/* will.c */
struct db__will *db__will_find(const struct db *d, uint64_t epoch, uint32_t generation);
void db__will_set(struct db *d, struct db__session *session, const struct db_will *will);
void db__will_drop(struct db *d, struct db__will *will);
void db__will_due(struct db *d, struct db__will *will);
void db__will_link(struct db *d, struct db__will *will); /* recovery: into hash, heap and lists */
/* A GUARDS item: false: it is not there (any more). */
bool db__will_take(struct db *d, uint64_t epoch, uint32_t generation);

#endif
