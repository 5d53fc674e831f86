/* broker/session/inbound.c: what a client's packets refer to: packet ids of QoS 2, topic aliases.
 */
#include <stdlib.h>
#include <string.h>

#include "broker/session/session.h"

#define ID_WORDS  (65536 / 64)
#define FEW_FIRST 4u
/* From here on 16 KiB of bits are worth their quicker answer. */
#define FEW_MAX 64u
/* Beside an id in the list: a repeated PUBLISH must not be passed on again. */
#define SETTLED (UINT32_C(1) << 16)

static uint32_t *find_few(const struct incoming_ids *ids, uint16_t packet_id)
{
    for (uint32_t i = 0; ids->few && i < ids->held_count; i++)
        if ((uint16_t)ids->few[i] == packet_id)
            return &ids->few[i];
    return NULL;
}

static uint64_t bit_of(uint16_t packet_id)
{
    return UINT64_C(1) << (packet_id & 63);
}

static bool test_bit(const uint64_t *bits, uint16_t packet_id)
{
    return bits[packet_id >> 6] & bit_of(packet_id);
}

static bool to_bits(struct incoming_ids *ids)
{
    uint64_t *bits = calloc((size_t)2 * ID_WORDS, sizeof *bits);
    if (!bits)
        return false;
    for (uint32_t i = 0; i < ids->held_count; i++) {
        uint16_t id = (uint16_t)ids->few[i];
        bits[id >> 6] |= bit_of(id);
        if (ids->few[i] & SETTLED)
            bits[ID_WORDS + (id >> 6)] |= bit_of(id);
    }
    free(ids->few);
    ids->few = NULL;
    ids->few_max = 0;
    ids->bits = bits;
    return true;
}

/* Room for one more in the list, or bits instead of it. False: no memory. */
static bool make_room(struct incoming_ids *ids)
{
    if (ids->bits || ids->held_count < ids->few_max)
        return true;
    if (ids->held_count == FEW_MAX)
        return to_bits(ids);
    uint32_t max = ids->few_max ? ids->few_max * 2 : FEW_FIRST;
    uint32_t *few = realloc(ids->few, max * sizeof *few);
    if (!few)
        return false;
    ids->few = few;
    ids->few_max = max;
    return true;
}

chr_err incoming_hold(struct incoming_ids *ids, uint16_t packet_id, bool settled)
{
    if (!incoming_held(ids, packet_id)) {
        if (!make_room(ids))
            return CHR_ENOMEM;
        if (ids->bits)
            ids->bits[packet_id >> 6] |= bit_of(packet_id);
        else
            ids->few[ids->held_count] = packet_id;
        ids->held_count++;
    }
    if (settled && ids->bits)
        ids->bits[ID_WORDS + (packet_id >> 6)] |= bit_of(packet_id);
    else if (settled)
        *find_few(ids, packet_id) |= SETTLED;
    return CHR_OK;
}

bool incoming_held(const struct incoming_ids *ids, uint16_t packet_id)
{
    return ids->bits ? test_bit(ids->bits, packet_id) : find_few(ids, packet_id) != NULL;
}

bool incoming_settled(const struct incoming_ids *ids, uint16_t packet_id)
{
    if (ids->bits)
        return test_bit(ids->bits + ID_WORDS, packet_id);
    const uint32_t *found = find_few(ids, packet_id);
    return found && (*found & SETTLED);
}

bool incoming_release(struct incoming_ids *ids, uint16_t packet_id)
{
    if (!incoming_held(ids, packet_id))
        return false;
    if (ids->bits) {
        ids->bits[packet_id >> 6] &= ~bit_of(packet_id);
        ids->bits[ID_WORDS + (packet_id >> 6)] &= ~bit_of(packet_id);
    } else {
        *find_few(ids, packet_id) = ids->few[ids->held_count - 1];
    }
    if (--ids->held_count == 0)
        incoming_clear(ids);
    return true;
}

void incoming_clear(struct incoming_ids *ids)
{
    free(ids->few);
    free(ids->bits);
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
