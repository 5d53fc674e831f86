/* broker/ingest/keys.c: the table from JSON keys to columns.
 *
 * A key is hashed by one multiplication of its first and last 8 bytes. The multiplier is chosen
 * here, among some random ones, as the one that makes the fewest keys collide; with the few columns
 * a table has that is none at all. Keys that name no column mostly hit an empty slot: the table is
 * at most half full. Collisions that a payload brings about end in a few steps, as the table never
 * grows. */
#include "broker/ingest/keys.h"

#include <string.h>

#include "base/random.h"

#define MULTIPLIERS_TRIED 64
/* Key bytes are compared 8 at a time. */
#define NAME_PAD 8

const struct ingest_key *ingest__key_find_folded(const struct ingest_keys *keys, const uint8_t *key,
                                                 size_t len)
{
    const struct ingest_key *found = ingest_key_find(keys, key, len);
    if (found || len > DB_NAME_BYTES_MAX)
        return found;
    uint8_t folded[DB_NAME_BYTES_MAX + NAME_PAD] = {0};
    bool changed = false;
    for (size_t i = 0; i < len; i++) {
        bool upper = key[i] >= 'A' && key[i] <= 'Z';
        folded[i] = (uint8_t)(upper ? key[i] | 0x20 : key[i]);
        changed |= upper;
    }
    return changed ? ingest_key_find(keys, folded, len) : NULL;
}

struct key_list {
    struct ingest_key *keys;
    uint32_t count;
};

static struct ingest_key *list_find(const struct key_list *list, const char *name, size_t len)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (list->keys[i].len == len && memcmp(list->keys[i].name, name, len) == 0)
            return &list->keys[i];
    return NULL;
}

static chr_err list_add(struct chr_arena *arena, struct key_list *list, const char *name,
                        size_t len, uint8_t kind, uint16_t column)
{
    uint8_t *copy = chr_arena_zalloc(arena, len + NAME_PAD);
    if (!copy)
        return CHR_ENOMEM;
    memcpy(copy, name, len);
    struct ingest_key *k = &list->keys[list->count++];
    *k = (struct ingest_key){.name = copy, .len = (uint8_t)len, .kind = kind, .column = column};
    ingest_key_words(copy, len, &k->first, &k->last);
    return CHR_OK;
}

/* "a.b.c" makes "a" and "a.b" keys to descend at. */
static chr_err add_prefixes(struct chr_arena *arena, struct key_list *list, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 1; i + 1 < len; i++) {
        if (name[i] != '.')
            continue;
        struct ingest_key *k = list_find(list, name, i);
        if (k) {
            k->prefix = true;
        } else {
            chr_err err = list_add(arena, list, name, i, INGEST_KEY_PREFIX, 0);
            if (err)
                return err;
            list->keys[list->count - 1].prefix = true;
        }
    }
    return CHR_OK;
}

static uint32_t fill(struct ingest_keys *keys, const struct key_list *list)
{
    uint32_t collisions = 0;
    memset(keys->slots, 0, ((size_t)keys->mask + 1) * sizeof *keys->slots);
    for (uint32_t i = 0; i < list->count; i++) {
        const struct ingest_key *k = &list->keys[i];
        uint32_t at = ingest_key_slot(keys, k->first, k->last, k->len);
        for (; keys->slots[at].len; at = (at + 1) & keys->mask)
            collisions++;
        keys->slots[at] = *k;
    }
    return collisions;
}

/* Leaves the table filled with the best multiplier. */
static void choose_multiplier(struct ingest_keys *keys, const struct key_list *list)
{
    struct chr_random random = {.state = 1};
    uint64_t best = 0;
    uint32_t fewest = UINT32_MAX;
    /* For many columns no multiplier is perfect and each trial costs: a few will do. */
    unsigned tries = list->count > 64 ? 4 : MULTIPLIERS_TRIED;
    for (unsigned i = 0; i < tries && fewest > 0; i++) {
        keys->multiplier = chr_random_u64(&random) | 1;
        uint32_t collisions = fill(keys, list);
        if (collisions < fewest) {
            fewest = collisions;
            best = keys->multiplier;
        }
    }
    if (keys->multiplier != best) {
        keys->multiplier = best;
        fill(keys, list);
    }
}

chr_err ingest__keys_compile(struct chr_arena *arena, const struct db_table_def *table,
                             const uint64_t *captured, bool unpivot, struct ingest_keys *keys)
{
    uint32_t most = 1; /* `metrics` */
    for (uint16_t i = 0; i < table->columns_count; i++) {
        most++;
        for (const char *c = table->columns[i].name; *c; c++)
            most += *c == '.';
    }
    struct key_list list = {.keys = CHR_ARENA_ARRAY(arena, struct ingest_key, most)};
    if (!list.keys)
        return CHR_ENOMEM;
    for (uint16_t i = 0; i < table->columns_count; i++) {
        const struct db_column_def *c = &table->columns[i];
        uint8_t kind = db_bit_get(captured, i) ? INGEST_KEY_CAPTURED : (uint8_t)c->type;
        chr_err err = list_add(arena, &list, c->name, strlen(c->name), kind, i);
        if (err)
            return err;
    }
    for (uint16_t i = 0; i < table->columns_count; i++) {
        chr_err err = add_prefixes(arena, &list, table->columns[i].name);
        if (err)
            return err;
    }
    if (unpivot) {
        chr_err err = list_add(arena, &list, "metrics", 7, INGEST_KEY_METRICS, 0);
        if (err)
            return err;
    }
    uint32_t size = 8, bits = 3;
    for (; size < list.count * 2; size *= 2)
        bits++;
    keys->mask = size - 1;
    keys->shift = 64 - bits;
    keys->slots = CHR_ARENA_ARRAY(arena, struct ingest_key, size);
    if (!keys->slots)
        return CHR_ENOMEM;
    choose_multiplier(keys, &list);
    return CHR_OK;
}
