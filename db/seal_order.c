/* db/seal_order.c: the order of rows in new chunks: by series, in it by time, then by row id.
 *
 * Series are few against rows: each value of a series column gets a number (which the chunk writer
 * takes over as its dictionary), numbers combine to series, series are sorted, rows are counted
 * into place. Rows of a series nearly always lie in order of time already; where they do not, they
 * are merged from the stretches that are. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/hash.h"
#include "db/seal.h"
#include "db/series_key.h"

#define ARENA_BLOCK_BYTES (256u << 10)
#define REF_ROW           ((1u << DB__SEAL_REF_BITS) - 1)

static void *alloc(struct db__seal_order *o, size_t count, size_t bytes)
{
    return chr_arena_alloc(&o->arena, count ? count * bytes : 1);
}

/* -- Living rows --------------------------------------------------------------------------------*/

static chr_err list_rows(struct db__seal_order *o, const struct db__seal_job *job,
                         const struct db__seal_sources *s)
{
    size_t all = 0;
    for (uint32_t b = 0; b < job->blocks_count; b++)
        all += job->blocks[b].rows;
    o->refs = alloc(o, all, sizeof *o->refs);
    o->times = alloc(o, all, sizeof *o->times);
    if (!o->refs || !o->times)
        return CHR_ENOMEM;
    const struct db__seal_column *time_blocks = s->columns[db__time_column(job->def)];
    uint32_t n = 0;
    for (uint32_t b = 0; b < job->blocks_count; b++) {
        const struct db__seal_column *time = &time_blocks[b];
        const uint64_t *dead = s->dead[b];
        const int64_t *data = time->data;
        for (uint32_t r = 0; r < job->blocks[b].rows; r++) {
            int64_t t = db__seal_valid(time, r) ? data[r] : INT64_MAX;
            o->refs[n] = b << DB__SEAL_REF_BITS | r;
            o->times[n] = t;
            bool expired = t <= job->limit_us && job->limit_us != INT64_MIN;
            n += !(expired || (dead && db_bit_get(dead, r)));
        }
    }
    o->rows = n;
    return CHR_OK;
}

/* -- Values to numbers --------------------------------------------------------------------------*/

static bool dict_grow(struct db__seal_order *o, struct db__seal_dict *dict)
{
    uint32_t slots_count = dict->slots_count ? dict->slots_count * 2 : 256;
    uint32_t *slots = chr_arena_zalloc(&o->arena, slots_count * sizeof *slots);
    chr_slice *values = alloc(o, slots_count / 2, sizeof *values);
    if (!slots || !values)
        return false;
    if (dict->count)
        memcpy(values, dict->values, dict->count * sizeof *values);
    for (uint32_t id = 0; id < dict->count; id++) {
        uint32_t at = (uint32_t)chr_hash_slice(values[id], 0) & (slots_count - 1);
        while (slots[at])
            at = (at + 1) & (slots_count - 1);
        slots[at] = id + 1;
    }
    dict->slots = slots;
    dict->values = values;
    dict->slots_count = slots_count;
    dict->capacity = slots_count / 2;
    return true;
}

/* The number of a value, a new one if need be; UINT32_MAX: out of memory. */
static uint32_t dict_number(struct db__seal_order *o, struct db__seal_dict *dict, chr_slice value)
{
    uint32_t mask = dict->slots_count - 1;
    uint32_t at = (uint32_t)chr_hash_slice(value, 0) & mask;
    for (; dict->slots[at]; at = (at + 1) & mask)
        if (chr_slice_eq(dict->values[dict->slots[at] - 1], value))
            return dict->slots[at] - 1;
    if (dict->count == dict->capacity) {
        if (!dict_grow(o, dict))
            return UINT32_MAX;
        return dict_number(o, dict, value);
    }
    dict->slots[at] = dict->count + 1;
    dict->values[dict->count] = value;
    return dict->count++;
}

/* Values that are no strings count by their 8 bytes, equal ones made the same. */
static uint64_t plain_bits(enum db_type type, const struct db__seal_column *c, uint32_t row)
{
    if (type == DB_BOOLEAN)
        return ((const uint8_t *)c->data)[row];
    uint64_t bits = ((const uint64_t *)c->data)[row];
    if (type == DB_FLOAT) {
        double f;
        memcpy(&f, &bits, sizeof f);
        if (f == 0)
            bits = 0;
        else if (f != f)
            bits = UINT64_C(0x7ff8000000000000);
    }
    return bits;
}

static chr_err number_column(struct db__seal_order *o, enum db_type type,
                             const struct db__seal_column *blocks, struct db__seal_dict *dict)
{
    dict->ids = alloc(o, o->rows, sizeof *dict->ids);
    if (!dict->ids || !dict_grow(o, dict))
        return CHR_ENOMEM;
    bool bytes = db_type_is_bytes(type);
    for (uint32_t i = 0; i < o->rows; i++) {
        const struct db__seal_column *c = &blocks[o->refs[i] >> DB__SEAL_REF_BITS];
        uint32_t row = o->refs[i] & REF_ROW;
        dict->ids[i] = UINT32_MAX;
        if (!db__seal_valid(c, row))
            continue;
        chr_slice value;
        uint64_t bits;
        if (bytes) {
            value = db__seal_bytes(c, row);
        } else {
            bits = plain_bits(type, c, row);
            value = chr_slice_of(&bits, sizeof bits);
        }
        uint32_t before = dict->count;
        dict->ids[i] = dict_number(o, dict, value);
        if (dict->ids[i] == UINT32_MAX)
            return CHR_ENOMEM;
        if (!bytes && dict->count != before) {
            dict->values[before] = chr_arena_dup(&o->arena, value);
            if (!dict->values[before].ptr)
                return CHR_ENOMEM;
        }
    }
    return CHR_OK;
}

/* -- Numbers to series --------------------------------------------------------------------------*/

struct pair {
    uint32_t a, b; /* a: series of the columns before; b: number of this column */
};

struct pairs {
    struct pair *pairs; /* [count] */
    uint32_t *slots;
    uint32_t count, capacity;
};

static bool pairs_grow(struct db__seal_order *o, struct pairs *p)
{
    uint32_t capacity = p->capacity ? p->capacity * 2 : 256;
    struct pair *pairs = alloc(o, capacity, sizeof *pairs);
    uint32_t *slots = chr_arena_zalloc(&o->arena, (size_t)capacity * 2 * sizeof *slots);
    if (!pairs || !slots)
        return false;
    if (p->count)
        memcpy(pairs, p->pairs, p->count * sizeof *pairs);
    for (uint32_t i = 0; i < p->count; i++) {
        uint64_t h = chr_hash_u64((uint64_t)pairs[i].a << 32 | pairs[i].b);
        uint32_t at = (uint32_t)h & (capacity * 2 - 1);
        while (slots[at])
            at = (at + 1) & (capacity * 2 - 1);
        slots[at] = i + 1;
    }
    *p = (struct pairs){pairs, slots, p->count, capacity};
    return true;
}

static uint32_t pair_number(struct db__seal_order *o, struct pairs *p, uint32_t a, uint32_t b)
{
    if (p->count == p->capacity && !pairs_grow(o, p))
        return UINT32_MAX;
    uint32_t mask = p->capacity * 2 - 1;
    uint32_t at = (uint32_t)chr_hash_u64((uint64_t)a << 32 | b) & mask;
    for (; p->slots[at]; at = (at + 1) & mask) {
        const struct pair *q = &p->pairs[p->slots[at] - 1];
        if (q->a == a && q->b == b)
            return p->slots[at] - 1;
    }
    p->slots[at] = p->count + 1;
    p->pairs[p->count] = (struct pair){a, b};
    return p->count++;
}

/* Series of the columns before and a number of this one make a series; `first`: there are none
 * before, so its numbers, and one for NULL, will do. */
static chr_err number_pairs(struct db__seal_order *o, struct pairs *p, bool first,
                            const struct db__seal_dict *dict, uint32_t *numbers)
{
    for (uint32_t id = 0; first && id < dict->count; id++)
        if (pair_number(o, p, 0, id) == UINT32_MAX)
            return CHR_ENOMEM;
    for (uint32_t i = 0; i < o->rows; i++) {
        uint32_t id = dict->ids[i];
        numbers[i] = first && id != UINT32_MAX ? id : pair_number(o, p, numbers[i], id);
        if (numbers[i] == UINT32_MAX)
            return CHR_ENOMEM;
    }
    return CHR_OK;
}

struct series {
    chr_slice key;
    uint32_t number;
};

static int series_cmp(const void *a, const void *b)
{
    return chr_slice_cmp(((const struct series *)a)->key, ((const struct series *)b)->key);
}

static chr_err add_key_part(struct db__seal_order *o, const struct db__seal_dict *dict,
                            enum db_type type, uint32_t id, chr_slice before, chr_slice *key)
{
    struct chr_buf buf;
    struct db_value v = {.type = type, .null = id == UINT32_MAX};
    chr_buf_init(&buf, SIZE_MAX);
    chr_buf_add_slice(&buf, before);
    if (!v.null) {
        if (db_type_is_bytes(type))
            v.bytes = dict->values[id];
        else if (type == DB_BOOLEAN)
            v.boolean = chr_get_u64le(dict->values[id].ptr) != 0;
        else
            v.i64 = (int64_t)chr_get_u64le(dict->values[id].ptr);
    }
    db__series_add(&buf, &v);
    *key = chr_arena_dup(&o->arena, chr_buf_slice(&buf));
    bool failed = buf.failed || !key->ptr;
    chr_buf_free(&buf);
    return failed ? CHR_ENOMEM : CHR_OK;
}

/* numbers[i]: series of living row i, in order of appearance; list: their keys. */
static chr_err number_series(struct db__seal_order *o, const struct db__seal_job *job,
                             const struct db__seal_sources *s, uint32_t *numbers,
                             struct series **list)
{
    const struct db_table_def *def = job->def;
    uint32_t count = 1;
    struct series *series = alloc(o, 1, sizeof *series);
    o->dicts = CHR_ARENA_ARRAY(&o->arena, struct db__seal_dict, def->series_count + 1);
    if (!series || !o->dicts)
        return CHR_ENOMEM;
    series[0] = (struct series){0};
    memset(numbers, 0, o->rows * sizeof *numbers);
    o->dict_count = def->series_count;
    for (uint16_t k = 0; k < def->series_count; k++) {
        uint16_t column = def->series_columns[k];
        enum db_type type = def->columns[column].type;
        chr_err err = number_column(o, type, s->columns[column], &o->dicts[k]);
        if (err)
            return err;
        struct pairs pairs = {0};
        err = number_pairs(o, &pairs, k == 0, &o->dicts[k], numbers);
        if (err)
            return err;
        struct series *next = alloc(o, pairs.count, sizeof *next);
        if (!next)
            return CHR_ENOMEM;
        for (uint32_t i = 0; i < pairs.count; i++) {
            err = add_key_part(o, &o->dicts[k], type, pairs.pairs[i].b,
                               series[pairs.pairs[i].a].key, &next[i].key);
            if (err)
                return err;
        }
        series = next;
        count = pairs.count;
    }
    for (uint32_t i = 0; i < count; i++)
        series[i].number = i;
    o->series = count;
    *list = series;
    return CHR_OK;
}

/* -- Times --------------------------------------------------------------------------------------*/

struct by_time {
    const struct db__seal_order *o;
    const struct db__seal_sources *s;
    bool ids_rise; /* rows that come later have higher ids: hot rows alone, or after one tail */
};

static bool after(const struct by_time *t, uint32_t a, uint32_t b)
{
    int64_t ta = t->o->times[a], tb = t->o->times[b];
    if (ta != tb)
        return ta > tb;
    if (t->ids_rise)
        return a > b;
    chr_hlc hlc;
    uint32_t ra = t->o->refs[a], rb = t->o->refs[b];
    struct db_row_id x = db__seal_row_id(t->s, ra >> DB__SEAL_REF_BITS, ra & REF_ROW, &hlc);
    struct db_row_id y = db__seal_row_id(t->s, rb >> DB__SEAL_REF_BITS, rb & REF_ROW, &hlc);
    return x.entry != y.entry ? x.entry > y.entry : x.ordinal > y.ordinal;
}

/* Merges the stretches that are in order, pair by pair, until one is left. */
static void merge_stretches(const struct by_time *t, uint32_t *rows, uint32_t count,
                            uint32_t *spare)
{
    uint32_t *from = rows, *to = spare;
    for (uint32_t stretches = 3; stretches > 2;) {
        stretches = 0;
        for (uint32_t a = 0, out = 0; a < count;) {
            uint32_t b = a + 1, c;
            while (b < count && !after(t, from[b - 1], from[b]))
                b++;
            for (c = CHR_MIN(b + 1, count); c < count && !after(t, from[c - 1], from[c]);)
                c++;
            stretches += b < count ? 2 : 1;
            uint32_t i = a, j = b;
            while (i < b && j < c)
                to[out++] = after(t, from[i], from[j]) ? from[j++] : from[i++];
            while (i < b)
                to[out++] = from[i++];
            while (j < c)
                to[out++] = from[j++];
            a = c;
        }
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != rows)
        memcpy(rows, from, count * sizeof *rows);
}

static chr_err order_times(struct db__seal_order *o, const struct by_time *t)
{
    uint32_t *spare = NULL;
    for (uint32_t s = 0; s < o->series; s++) {
        uint32_t begin = o->starts[s], end = s + 1 < o->series ? o->starts[s + 1] : o->rows;
        uint32_t i = begin + 1;
        while (i < end && !after(t, o->order[i - 1], o->order[i]))
            i++;
        if (i >= end)
            continue;
        if (!spare && !(spare = alloc(o, o->rows, sizeof *spare)))
            return CHR_ENOMEM;
        merge_stretches(t, o->order + begin, end - begin, spare);
    }
    return CHR_OK;
}

/* -- All of it ----------------------------------------------------------------------------------*/

chr_err db__seal_sort(struct db__seal_order *o, const struct db__seal_job *job,
                      const struct db__seal_sources *s)
{
    memset(o, 0, sizeof *o);
    chr_arena_init(&o->arena, ARENA_BLOCK_BYTES, 0);
    chr_err err = list_rows(o, job, s);
    uint32_t *numbers = err ? NULL : alloc(o, o->rows, sizeof *numbers);
    struct series *series = NULL;
    if (err || !numbers)
        return CHR_ENOMEM;
    err = number_series(o, job, s, numbers, &series);
    if (err)
        return err;
    qsort(series, o->series, sizeof *series, series_cmp);
    uint32_t *rank = alloc(o, o->series, sizeof *rank);
    o->keys = alloc(o, o->series, sizeof *o->keys);
    o->starts = chr_arena_zalloc(&o->arena, ((size_t)o->series + 1) * sizeof *o->starts);
    o->order = alloc(o, o->rows, sizeof *o->order);
    if (!rank || !o->keys || !o->starts || !o->order)
        return CHR_ENOMEM;
    for (uint32_t i = 0; i < o->series; i++) {
        rank[series[i].number] = i;
        o->keys[i] = series[i].key;
    }
    /* starts[s + 1] counts series s, then becomes where its next row goes, then the start of the
     * series after it. */
    for (uint32_t i = 0; i < o->rows; i++)
        o->starts[rank[numbers[i]]]++;
    for (uint32_t k = 0, at = 0; k < o->series; k++) {
        uint32_t count = o->starts[k];
        o->starts[k] = at;
        at += count;
    }
    for (uint32_t i = 0; i < o->rows; i++)
        o->order[o->starts[rank[numbers[i]]]++] = i;
    for (uint32_t k = o->series; k-- > 0;)
        o->starts[k] = k ? o->starts[k - 1] : 0;
    /* Hot rows are in order of id; chunks are not, and one before hot rows would be listed after
     * them (blocks of sets come first). */
    struct by_time t = {.o = o, .s = s, .ids_rise = job->sources_count == 0};
    return order_times(o, &t);
}

void db__seal_order_free(struct db__seal_order *o)
{
    chr_arena_free(&o->arena);
}
