/* broker/session/inbound.c: what a client's packets refer to: packet ids of QoS 2, topic aliases.
 */
#include <stdlib.h>
#include <string.h>

#include "broker/session/session.h"

#define ID_WORDS (65536 / 64)

chr_err incoming_hold(struct incoming_ids *ids, uint16_t packet_id, bool settled)
{
    if (!ids->held) {
        ids->held = calloc((size_t)2 * ID_WORDS, sizeof *ids->held);
        if (!ids->held)
            return CHR_ENOMEM;
        ids->settled = ids->held + ID_WORDS;
    }
    uint64_t bit = UINT64_C(1) << (packet_id & 63);
    ids->held_count += !(ids->held[packet_id >> 6] & bit);
    ids->held[packet_id >> 6] |= bit;
    if (settled)
        ids->settled[packet_id >> 6] |= bit;
    return CHR_OK;
}

bool incoming_held(const struct incoming_ids *ids, uint16_t packet_id)
{
    return ids->held && (ids->held[packet_id >> 6] >> (packet_id & 63) & 1);
}

bool incoming_settled(const struct incoming_ids *ids, uint16_t packet_id)
{
    return ids->held && (ids->settled[packet_id >> 6] >> (packet_id & 63) & 1);
}

bool incoming_release(struct incoming_ids *ids, uint16_t packet_id)
{
    if (!incoming_held(ids, packet_id))
        return false;
    uint64_t bit = UINT64_C(1) << (packet_id & 63);
    ids->held[packet_id >> 6] &= ~bit;
    ids->settled[packet_id >> 6] &= ~bit;
    ids->held_count--;
    return true;
}

void incoming_clear(struct incoming_ids *ids)
{
    free(ids->held);
    *ids = (struct incoming_ids){0};
}

chr_err aliases_set(struct topic_aliases *aliases, uint16_t alias, chr_slice topic)
{
    if (alias > aliases->count) {
        chr_slice *topics = realloc(aliases->topics, alias * sizeof *topics);
        if (!topics)
            return CHR_ENOMEM;
        memset(topics + aliases->count, 0, (alias - aliases->count) * sizeof *topics);
        aliases->topics = topics;
        aliases->count = alias;
    }
    chr_slice *place = &aliases->topics[alias - 1];
    if (chr_slice_eq(*place, topic))
        return CHR_OK;
    uint8_t *copy = malloc(topic.len);
    if (!copy)
        return CHR_ENOMEM;
    memcpy(copy, topic.ptr, topic.len);
    free((void *)(uintptr_t)place->ptr);
    *place = chr_slice_of(copy, topic.len);
    return CHR_OK;
}

chr_slice aliases_get(const struct topic_aliases *aliases, uint16_t alias)
{
    return alias && alias <= aliases->count ? aliases->topics[alias - 1] : CHR_LIT("");
}

void aliases_clear(struct topic_aliases *aliases)
{
    for (uint32_t i = 0; i < aliases->count; i++)
        free((void *)(uintptr_t)aliases->topics[i].ptr);
    free(aliases->topics);
    *aliases = (struct topic_aliases){0};
}
