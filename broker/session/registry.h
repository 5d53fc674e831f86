/* broker/session/registry.h: client id → session, and so the loop that owns it.
 *
 * Shared by all loops under one lock, which is taken at CONNECT and when a session ends, never per
 * message. A loop may touch no session but its own: of others it learns the loop only. */
#ifndef CHR_BROKER_SESSION_REGISTRY_H
#define CHR_BROKER_SESSION_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

struct broker_loop;
struct db_session_info; /* db/durable.h */
struct registry;
struct session;

CHR_MUST_USE chr_err registry_new(struct registry **out);
void registry_free(struct registry *registry); /* accepts NULL; must be empty */
/* The session of this client id, whichever loop it lives on, or after session (of the calling loop)
 * was entered under it. Returns the one that is there then; only its loop may look into it.
 * *owner: its loop, read under the lock. session NULL: only looks; NULL when there is none. */
struct session *registry_claim(struct registry *registry, chr_slice client_id,
                               struct session *session, struct broker_loop **owner);
void registry_remove(struct registry *registry, struct session *session);
/* One more session that outlives its connection is on its way to the log, unless with the `lasting`
 * ones that it has there are `most` (0: no limit): false. Until the loop has heard of the log's
 * answer a session may be counted twice, and not those on their way from other nodes. Any thread.
 */
bool registry_reserve(struct registry *registry, uint64_t lasting, uint32_t most);
void registry_unreserve(struct registry *registry);
uint32_t registry_reserved(const struct registry *registry);
size_t registry_count(struct registry *registry);
/* A number no session had before. */
uint64_t registry_next_number(struct registry *registry);

/* Sessions found in the database at start, waiting for their loop to start: client id, epoch and so
 * on. Main thread fills, each loop takes its own. */
struct recovered_session {
    struct recovered_session *next;
    uint64_t epoch;
    uint32_t generation;
    uint32_t expiry_s;
    uint64_t sent;  /* the highest sequence that may have been sent */
    bool connected; /* when the node stopped: its expiry has yet to begin */
    uint32_t client_len;
    uint8_t client_id[];
};
CHR_MUST_USE chr_err registry_recovered(struct registry *registry,
                                        const struct db_session_info *info);
/* Those of loop `number` of `loops`; the caller frees the list. */
struct recovered_session *registry_take_recovered(struct registry *registry, uint32_t number,
                                                  uint32_t loops);

#endif
