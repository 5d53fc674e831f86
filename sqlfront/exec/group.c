/* sqlfront/exec/group.c: the hash table of groups. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3") /* the loops over keys are short and want unrolling */
#endif
#include "sqlfront/exec/group.h"

#include "base/hash.h"

/* Distinct strings of one key column. */
struct intern {
    uint32_t *table; /* id + 1; 0: free */
    uint32_t mask;
    uint32_t count, capacity;
    chr_slice *strings;
    uint32_t *hashes;
    /* Of the dictionary last seen: what each code is; 0: not looked up yet. */
    uint32_t *codes;
    uint32_t codes_capacity;
    uint64_t dict_id;
};

struct sql_groups {
    struct sql_query *q;
    uint32_t pos;
    uint32_t keys_count, width; /* words of a group: keys, then the NULLs */
    enum db_type types[SQL_GROUP_KEYS_MAX];
    uint32_t count, capacity;
    uint64_t *words;
    uint32_t *hashes;
    uint32_t *table;
    uint32_t mask;
    uint64_t seed;
    struct intern *interns; /* [keys_count], used by strings */
    uint64_t *batch;        /* [width][DB_VECTOR_ROWS] */
    /* One string key: group + 1 of each code of the dictionary last seen. */
    uint32_t *code_gids;
    uint32_t code_gids_capacity;
    uint64_t code_gids_dict;
    /* Several keys, one of them strings: groups by string number while the other keys stand still,
     * as devices take turns within one bucket of time. */
    int32_t turn_key; /* -1: no string among the keys */
    uint64_t turn;
    struct turn {
        uint64_t turn; /* in which gid was found */
        uint32_t gid;
    } * turns; /* [id] */
    uint32_t turns_capacity;
};

static bool interned(enum db_type t)
{
    return db_type_is_bytes(t) || t == SQL_TYPE_INTERVAL;
}

struct sql_groups *sql__groups_new(struct sql_query *q, const enum db_type *types, uint32_t count,
                                   uint32_t pos)
{
    if (count > SQL_GROUP_KEYS_MAX) {
        sql__fail(q, "54011", pos, "more than %d columns to group by", SQL_GROUP_KEYS_MAX);
        return NULL;
    }
    struct sql_groups *g = SQL_NEW(q, struct sql_groups);
    if (!g)
        return NULL;
    g->q = q;
    g->pos = pos;
    g->keys_count = count;
    g->width = count + 1;
    if (count)
        memcpy(g->types, types, count * sizeof *types);
    g->seed = chr_hash_seed();
    g->turn_key = -1;
    for (uint32_t k = 0; count > 1 && k < count && g->turn_key < 0; k++)
        if (interned(types[k]))
            g->turn_key = (int32_t)k;
    g->interns = SQL_ARRAY(q, struct intern, count + 1);
    g->batch = SQL_ARRAY(q, uint64_t, g->width * DB_VECTOR_ROWS);
    g->mask = 63;
    g->table = sql__grow(q, NULL, (g->mask + 1) * sizeof *g->table);
    if (!g->interns || !g->batch || !g->table)
        return NULL;
    memset(g->table, 0, (g->mask + 1) * sizeof *g->table);
    return g;
}

uint32_t sql__groups_count(const struct sql_groups *g)
{
    return g->count;
}

/* -- Strings -----------------------------------------------------------------------------------*/

static bool intern_grow(struct sql_groups *g, struct intern *in)
{
    uint32_t size = in->table ? 2 * (in->mask + 1) : 64;
    uint32_t *table = sql__grow(g->q, NULL, size * sizeof *table);
    if (!table)
        return false;
    memset(table, 0, size * sizeof *table);
    for (uint32_t id = 0; id < in->count; id++) {
        uint32_t at = in->hashes[id] & (size - 1);
        while (table[at])
            at = (at + 1) & (size - 1);
        table[at] = id + 1;
    }
    sql__ungrow(g->q, in->table);
    in->table = table;
    in->mask = size - 1;
    return true;
}

static bool intern(struct sql_groups *g, struct intern *in, chr_slice s, uint32_t *id)
{
    if (!in->table || in->count * 2 > in->mask)
        if (!intern_grow(g, in))
            return false;
    uint32_t hash = (uint32_t)chr_hash_slice(s, g->seed);
    uint32_t at = hash & in->mask;
    for (; in->table[at]; at = (at + 1) & in->mask) {
        uint32_t have = in->table[at] - 1;
        if (in->hashes[have] == hash && chr_slice_eq(in->strings[have], s)) {
            *id = have;
            return true;
        }
    }
    if (in->count == in->capacity) {
        uint32_t capacity = in->capacity ? 2 * in->capacity : 64;
        void *strings = sql__grow(g->q, in->strings, capacity * sizeof *in->strings);
        if (strings)
            in->strings = strings;
        void *hashes = sql__grow(g->q, in->hashes, capacity * sizeof *in->hashes);
        if (hashes)
            in->hashes = hashes;
        if (!strings || !hashes)
            return false;
        in->capacity = capacity;
    }
    chr_slice copy = s;
    if (s.len) {
        copy = chr_arena_dup(&g->q->arena, s);
        if (!copy.ptr)
            return sql__fail_memory(g->q);
    }
    in->strings[in->count] = copy;
    in->hashes[in->count] = hash;
    *id = in->count++;
    in->table[at] = *id + 1;
    return true;
}

/* Intervals are equal when they are as long; a month has 30 days. */
static chr_slice interval_key(const struct sql_interval *iv, __int128 *space)
{
    *space = sql__interval_us(*iv);
    return chr_slice_of(space, sizeof *space);
}

/* -- Words of a batch --------------------------------------------------------------------------*/

static uint64_t float_word(double v)
{
    if (v == 0)
        v = 0; /* -0.0 is the same group */
    if (v != v)
        return UINT64_C(0x7ff8000000000000);
    uint64_t w;
    memcpy(&w, &v, sizeof w);
    return w;
}

static bool string_words(struct sql_groups *g, uint32_t key, const struct db_vector *v,
                         struct sql_rows rows, uint64_t *words)
{
    struct intern *in = &g->interns[key];
    uint32_t id = 0;
    __int128 space;
    bool interval = g->types[key] == SQL_TYPE_INTERVAL;
    if (v->form == DB_VECTOR_DICT && !interval) {
        if (v->dict_count > in->codes_capacity) {
            void *codes = sql__grow(g->q, in->codes, v->dict_count * sizeof *in->codes);
            if (!codes)
                return false;
            in->codes = codes;
            in->codes_capacity = v->dict_count;
            in->dict_id = 0;
        }
        if (v->dict_id == 0 || v->dict_id != in->dict_id)
            memset(in->codes, 0, v->dict_count * sizeof *in->codes);
        in->dict_id = v->dict_id;
        for (uint32_t j = 0; j < rows.count; j++) {
            uint32_t row = sql__row(rows, j), code = v->codes[row];
            if (!db_vector_valid(v, row)) {
                words[row] = 0;
                continue;
            }
            if (!in->codes[code]) {
                if (!intern(g, in, v->str[code], &id))
                    return false;
                in->codes[code] = id + 1;
            }
            words[row] = in->codes[code] - 1;
        }
        return true;
    }
    chr_slice last = {0};
    bool have_last = false;
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        words[row] = 0;
        if (!db_vector_valid(v, row))
            continue;
        uint32_t at = db_vector_at(v, row);
        chr_slice s = interval ? interval_key(&((const struct sql_interval *)v->data)[at], &space)
                               : v->str[at];
        if (interval || !have_last || !chr_slice_eq(s, last)) {
            if (!intern(g, in, s, &id))
                return false;
            last = s;
            have_last = true;
        }
        words[row] = id;
    }
    return true;
}

static bool key_words(struct sql_groups *g, uint32_t key, const struct db_vector *v,
                      struct sql_rows rows)
{
    uint64_t *words = g->batch + key * DB_VECTOR_ROWS;
    uint64_t *nulls = g->batch + g->keys_count * DB_VECTOR_ROWS;
    if (interned(g->types[key])) {
        if (!string_words(g, key, v, rows, words))
            return false;
    } else {
        for (uint32_t j = 0; j < rows.count; j++) {
            uint32_t row = sql__row(rows, j), at = db_vector_at(v, row);
            words[row] = g->types[key] == DB_FLOAT     ? float_word(v->f64[at])
                         : g->types[key] == DB_BOOLEAN ? v->b8[at]
                                                       : (uint64_t)v->i64[at];
        }
    }
    if (v->validity)
        for (uint32_t j = 0; j < rows.count; j++) {
            uint32_t row = sql__row(rows, j);
            if (!db_vector_valid(v, row)) {
                words[row] = 0;
                nulls[row] |= UINT64_C(1) << key;
            }
        }
    return true;
}

/* -- The table ---------------------------------------------------------------------------------*/

static bool table_grow(struct sql_groups *g)
{
    uint32_t size = 2 * (g->mask + 1);
    if (size == 0)
        return sql__fail_memory(g->q);
    uint32_t *table = sql__grow(g->q, NULL, size * sizeof *table);
    if (!table)
        return false;
    memset(table, 0, size * sizeof *table);
    for (uint32_t i = 0; i < g->count; i++) {
        uint32_t at = g->hashes[i] & (size - 1);
        while (table[at])
            at = (at + 1) & (size - 1);
        table[at] = i + 1;
    }
    sql__ungrow(g->q, g->table);
    g->table = table;
    g->mask = size - 1;
    return true;
}

static bool add_group(struct sql_groups *g, uint32_t row, uint32_t hash, uint32_t at, uint32_t *gid)
{
    if (g->count == g->capacity) {
        uint32_t capacity = g->capacity ? 2 * g->capacity : 64;
        void *words = sql__grow(g->q, g->words, (size_t)capacity * g->width * sizeof *g->words);
        if (words)
            g->words = words;
        void *hashes = sql__grow(g->q, g->hashes, capacity * sizeof *g->hashes);
        if (hashes)
            g->hashes = hashes;
        if (!words || !hashes)
            return false;
        g->capacity = capacity;
    }
    uint64_t *to = g->words + (size_t)g->count * g->width;
    for (uint32_t k = 0; k < g->width; k++)
        to[k] = g->batch[k * DB_VECTOR_ROWS + row];
    g->hashes[g->count] = hash;
    g->table[at] = g->count + 1;
    *gid = g->count++;
    return g->count * 2 <= g->mask || table_grow(g);
}

static bool lookup(struct sql_groups *g, uint32_t row, uint32_t *gid)
{
    const uint64_t *batch = g->batch + row;
    uint64_t h = g->seed;
    for (uint32_t k = 0; k < g->width; k++)
        h = chr_hash_u64(h ^ batch[k * DB_VECTOR_ROWS]);
    uint32_t hash = (uint32_t)(h >> 16);
    uint32_t at = hash & g->mask;
    for (; g->table[at]; at = (at + 1) & g->mask) {
        uint32_t have = g->table[at] - 1;
        if (g->hashes[have] != hash)
            continue;
        const uint64_t *words = g->words + (size_t)have * g->width;
        uint32_t k = 0;
        while (k < g->width && words[k] == batch[k * DB_VECTOR_ROWS])
            k++;
        if (k == g->width) {
            *gid = have;
            return true;
        }
    }
    return add_group(g, row, hash, at, gid);
}

/* One string key with a dictionary: a group per code, found once. false in *done: not that case. */
static bool find_by_code(struct sql_groups *g, const struct db_vector *v, struct sql_rows rows,
                         uint32_t *gids, bool *done)
{
    *done = g->keys_count == 1 && v->form == DB_VECTOR_DICT && db_type_is_bytes(g->types[0]) &&
            v->dict_count <= UINT16_MAX;
    if (!*done)
        return true;
    uint32_t needed = v->dict_count + 1; /* the last is NULL's */
    if (needed > g->code_gids_capacity) {
        void *p = sql__grow(g->q, g->code_gids, needed * sizeof *g->code_gids);
        if (!p)
            return false;
        g->code_gids = p;
        g->code_gids_capacity = needed;
        g->code_gids_dict = 0;
    }
    if (v->dict_id == 0 || v->dict_id != g->code_gids_dict)
        memset(g->code_gids, 0, needed * sizeof *g->code_gids);
    g->code_gids_dict = v->dict_id;
    uint64_t *words = g->batch, *nulls = g->batch + DB_VECTOR_ROWS;
    uint32_t last = UINT32_MAX, gid = 0;
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        uint32_t code = db_vector_valid(v, row) ? v->codes[row] : v->dict_count;
        if (code != last) {
            gid = g->code_gids[code];
            if (CHR_UNLIKELY(!gid)) {
                uint32_t id = 0;
                bool valid = code < v->dict_count;
                if (valid && !intern(g, &g->interns[0], v->str[code], &id))
                    return false;
                words[row] = id;
                nulls[row] = !valid;
                if (!lookup(g, row, &gid))
                    return false;
                g->code_gids[code] = ++gid;
            }
            last = code;
        }
        gids[row] = gid - 1;
    }
    return true;
}

/* One key of 64 bits, without NULLs: looked up when it changes. */
static bool find_by_number(struct sql_groups *g, const struct db_vector *v, struct sql_rows rows,
                           uint32_t *gids, bool *done)
{
    *done = g->keys_count == 1 && v->form == DB_VECTOR_FLAT && !v->validity &&
            sql__type_is_i64(g->types[0]);
    if (!*done)
        return true;
    uint64_t *words = g->batch, *nulls = g->batch + DB_VECTOR_ROWS;
    const int64_t *values = v->i64;
    uint32_t gid = 0;
    int64_t last = 0;
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        if (values[row] != last || j == 0) {
            last = values[row];
            words[row] = (uint64_t)last;
            nulls[row] = 0;
            if (!lookup(g, row, &gid))
                return false;
        }
        gids[row] = gid;
    }
    return true;
}

static bool reserve_turns(struct sql_groups *g, uint32_t ids)
{
    if (ids <= g->turns_capacity)
        return true;
    uint32_t capacity = g->turns_capacity ? g->turns_capacity : 256;
    while (capacity < ids)
        capacity *= 2;
    void *turns = sql__grow(g->q, g->turns, capacity * sizeof *g->turns);
    if (!turns)
        return false;
    g->turns = turns;
    memset(g->turns + g->turns_capacity, 0, (capacity - g->turns_capacity) * sizeof *g->turns);
    g->turns_capacity = capacity;
    return true;
}

static bool find_by_turns(struct sql_groups *g, struct sql_rows rows, uint32_t *gids)
{
    uint32_t t = (uint32_t)g->turn_key, others_count = 0;
    const uint64_t *ids = g->batch + t * DB_VECTOR_ROWS, *others[SQL_GROUP_KEYS_MAX];
    if (!reserve_turns(g, g->interns[t].count + 1))
        return false;
    for (uint32_t k = 0; k < g->width; k++)
        if (k != t)
            others[others_count++] = g->batch + k * DB_VECTOR_ROWS;
    g->turn++; /* the row before the first is not known any more */
    uint32_t previous = sql__row(rows, 0);
    uint32_t gid = 0;
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        uint64_t differs = (others[0][row] ^ others[0][previous]) |
                           (others[1][row] ^ others[1][previous]); /* a key and the NULLs */
        for (uint32_t k = 2; k < others_count; k++)
            differs |= others[k][row] ^ others[k][previous];
        uint64_t id = ids[row];
        if (j == 0 || differs || id != ids[previous]) {
            g->turn += differs != 0;
            struct turn *turn = &g->turns[id];
            if (turn->turn != g->turn) {
                if (!lookup(g, row, &turn->gid))
                    return false;
                turn->turn = g->turn;
            }
            gid = turn->gid;
        }
        gids[row] = gid;
        previous = row;
    }
    return true;
}

bool sql__groups_find(struct sql_groups *g, const struct db_vector *const *keys,
                      struct sql_rows rows, uint32_t *gids)
{
    if (rows.count == 0)
        return true;
    bool done = false;
    if (g->keys_count == 1) {
        if (!find_by_code(g, keys[0], rows, gids, &done) || done)
            return !g->q->failed;
        if (!find_by_number(g, keys[0], rows, gids, &done) || done)
            return !g->q->failed;
    }
    uint64_t *nulls = g->batch + g->keys_count * DB_VECTOR_ROWS;
    for (uint32_t j = 0; j < rows.count; j++)
        nulls[sql__row(rows, j)] = 0;
    for (uint32_t k = 0; k < g->keys_count; k++)
        if (!key_words(g, k, keys[k], rows))
            return false;
    if (g->turn_key >= 0)
        return find_by_turns(g, rows, gids);
    uint32_t previous = 0, gid = 0;
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        /* Rows of a series come together: most often the group is that of the row before. */
        bool same = j > 0;
        for (uint32_t k = 0; same && k < g->width; k++)
            same = g->batch[k * DB_VECTOR_ROWS + row] == g->batch[k * DB_VECTOR_ROWS + previous];
        if (!same && !lookup(g, row, &gid))
            return false;
        gids[row] = gid;
        previous = row;
    }
    return true;
}

void sql__groups_key(const struct sql_groups *g, uint32_t key, uint32_t from, uint32_t n,
                     void *data, uint64_t *validity)
{
    memset(validity, 0xff, DB_BIT_WORDS(n) * sizeof *validity);
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t *words = g->words + (size_t)(from + i) * g->width;
        uint64_t w = words[key];
        if (words[g->keys_count] >> key & 1)
            db_bit_clear(validity, i);
        switch ((int)g->types[key]) {
        case DB_STRING:
        case DB_BLOB:
            ((chr_slice *)data)[i] =
                validity && db_bit_get(validity, i) ? g->interns[key].strings[w] : (chr_slice){0};
            break;
        case DB_TYPES_END: {
            struct sql_interval iv = {0};
            if (db_bit_get(validity, i)) {
                __int128 us;
                memcpy(&us, g->interns[key].strings[w].ptr, sizeof us);
                iv.days = (int32_t)(us / INT64_C(86400000000));
                iv.us = (int64_t)(us % INT64_C(86400000000));
            }
            ((struct sql_interval *)data)[i] = iv;
            break;
        }
        case DB_BOOLEAN:
            ((uint8_t *)data)[i] = (uint8_t)w;
            break;
        default: /* the bits of an INT, TIMESTAMP or FLOAT */
            ((uint64_t *)data)[i] = w;
        }
    }
}
