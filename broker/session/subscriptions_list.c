/* broker/session/subscriptions_list.c: all that one session, or the node, has subscribed to. */
#include <stdlib.h>
#include <string.h>

#include "broker/session/session.h"
#include "broker/session/subscriptions_internal.h"

/* The filter of a subscription after `$share/<group>/`, in memory to be freed unless it is stack.
 * NULL: no memory. */
static uint8_t *filter_text(const struct subscriptions *subs, const struct subscription *s,
                            uint8_t *stack, size_t stack_size, size_t *prefix, size_t *len)
{
    const struct share_group *g = s->group ? subscriptions__group(subs, s->group) : NULL;
    *prefix = g ? 8 + g->name_len : 0; /* "$share/" name "/" */
    *len = *prefix + chr_filter_tree_text(&subs->tree, s->node, NULL);
    uint8_t *text = *len <= stack_size ? stack : malloc(*len);
    if (!text)
        return NULL;
    if (g) {
        memcpy(text, "$share/", 7);
        memcpy(text + 7, g->name, g->name_len);
        text[*prefix - 1] = '/';
    }
    (void)chr_filter_tree_text(&subs->tree, s->node, text + *prefix);
    return text;
}

void subscriptions_each(struct subscriptions *subs, const struct session *session,
                        void (*each)(void *arg, const struct subscription_options *options,
                                     chr_slice filter),
                        void *arg)
{
    uint8_t stack[256];
    size_t prefix, len;
    pthread_rwlock_rdlock(&subs->lock);
    for (uint32_t n = session->subscriptions; n;
         n = subscriptions__record(subs, n)->next_of_session) {
        const struct subscription *s = subscriptions__record(subs, n);
        struct subscription_options options = subscriptions__options(s);
        uint8_t *text = filter_text(subs, s, stack, sizeof stack, &prefix, &len);
        if (!text)
            break;
        each(arg, &options, chr_slice_of(text, len));
        if (text != stack)
            free(text);
    }
    pthread_rwlock_unlock(&subs->lock);
}

/* The cursor is the number of a record, which it keeps for its life. */
chr_err subscriptions_scan(struct subscriptions *subs, uint64_t *cursor, uint32_t count,
                           void (*each)(void *arg, const struct subscription_options *options,
                                        chr_slice client_id, chr_slice group, chr_slice filter),
                           void *arg)
{
    uint8_t stack[256];
    size_t prefix, len;
    chr_err err = CHR_OK;
    pthread_rwlock_rdlock(&subs->lock);
    uint64_t n = *cursor ? *cursor : 1, end = CHR_MIN(n + count, subs->records.next);
    for (; n < end && !err; n++) {
        const struct subscription *s = subscriptions__record(subs, (uint32_t)n);
        if (!s->node)
            continue;
        struct subscription_options options = subscriptions__options(s);
        chr_slice group = {0};
        if (s->group)
            group = chr_slice_of(subscriptions__group(subs, s->group)->name,
                                 subscriptions__group(subs, s->group)->name_len);
        uint8_t *text = filter_text(subs, s, stack, sizeof stack, &prefix, &len);
        if (!text) {
            err = CHR_ENOMEM;
            break;
        }
        each(arg, &options, s->session->client_id, group,
             chr_slice_of(text + prefix, len - prefix));
        if (text != stack)
            free(text);
    }
    *cursor = n < subs->records.next ? n : 0;
    pthread_rwlock_unlock(&subs->lock);
    return err;
}
