/* broker/reload.h: new settings for a running node, all or nothing.
 *
 * SIGHUP ▶ commands/settings_reload.c reads file, environment and flags afresh, checks them as at a
 * start, and keeps what can't change while the node runs ▶ node_reload(): every part that keeps
 * something of its own (users and ACLs, certificates, the log file) prepares it from the new
 * settings; when all could, node->config is swapped and all commit; when one could not, all abort
 * and the old settings stay as they were. No client is dropped by it.
 *
 * Threads. Only one thread reloads, the one that waits for signals; parts register before it does.
 * Every other thread reads `node->config`, an atomic pointer to a broker_config that is never
 * written again after it was published and is freed by nobody before node_free:
 *   L1 a reader that loaded the pointer, however long ago, reads memory that does not change;
 *   L2 the pointer is published with release order after the last write (and read with acquire
 *      order or stronger), so a reader sees the whole snapshot;
 *   L3 two loads may give two snapshots: whoever needs two fields that belong together loads the
 *      pointer once: `const struct broker_config *config = node->config;`.
 * What was promised to a client when it connected (Maximum Packet Size, Receive Maximum, Topic
 * Alias Maximum) is kept per connection, and new values are for those who come later.
 *
 * A part that shares what it prepared with other threads needs its own argument of this kind.
 */
#ifndef CHR_BROKER_RELOAD_H
#define CHR_BROKER_RELOAD_H

#include "base/err.h"
#include "broker/config.h"

struct broker_node;

struct reload_part {
    const char *name; /* for log lines: "users" */
    void *ctx;
    /* Makes from next what commit will put in place; nothing changes yet. Anything may fail, with a
     * sentence that names the file (and line) that is wrong. Read files again even when their names
     * are the same: that is what SIGHUP is for. next lives as long as the node. */
    chr_err (*prepare)(void *ctx, const struct broker_config *next, void **prepared,
                       struct chr_errmsg *msg);
    /* Puts it in place; can't fail. node->config is `next` already. */
    void (*commit)(void *ctx, void *prepared);
    /* Gives up what was prepared. */
    void (*abort)(void *ctx, void *prepared);
};

#define RELOAD_PARTS_MAX 8

/* At the start of the node, before its threads. The part is copied, ctx is borrowed until the last
 * node_reload. */
void node_reload_register(struct broker_node *node, const struct reload_part *part);

/* The reloading thread. On success next is what node->config points to, and is borrowed until
 * node_free; it may be what it points to already, when only files beside it have changed. On an
 * error nothing has changed, and msg says which part refused and why. */
CHR_MUST_USE chr_err node_reload(struct broker_node *node, const struct broker_config *next,
                                 struct chr_errmsg *msg);

#endif
