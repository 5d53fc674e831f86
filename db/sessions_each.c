/* db/sessions_each.c: what the broker asks at start: which sessions outlived the last life. */
#include "db/internal.h"

void db_sessions_each(const db *state,
                      void (*each)(void *arg, chr_slice client_id, uint64_t epoch,
                                   uint32_t generation, uint32_t expiry_s, bool connected),
                      void *arg)
{
    const struct db__sessions *ss = &state->sessions;
    for (size_t i = 0; i < ss->capacity; i++) {
        const struct db__session *s = ss->by_id[i];
        if (s)
            each(arg, s->client_id, s->epoch, s->generation, s->expiry_s, s->connected);
    }
}
