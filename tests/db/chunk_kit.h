/* tests/db/chunk_kit.h: random tables in the order of the sealer, chunks made of them, and the
 * naive twin that knows every value and counts each statistic row by row. */
#ifndef CHR_TESTS_DB_CHUNK_KIT_H
#define CHR_TESTS_DB_CHUNK_KIT_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/random.h"
#include "db/catalog.h"
#include "db/chunk.h"

#define KIT_COLUMNS_MAX 24
#define KIT_TIME        1 /* id of the time column */

struct kit_column {
    uint16_t id;
    enum db_type type;
    void *data;
    uint64_t *validity;
    chr_slice *dict;
    uint32_t dict_count;
    uint32_t *ids;
};

struct kit_table {
    uint32_t rows, columns_count, runs_count;
    struct kit_column columns[KIT_COLUMNS_MAX];
    uint64_t *entry;
    uint32_t *ordinal;
    int64_t *time_us;
    uint32_t *starts;
    struct db_chunk_column_in in[KIT_COLUMNS_MAX];
    uint8_t *text; /* bytes of all strings */
    size_t text_bytes;
};

struct kit_shape {
    uint32_t rows;
    uint32_t run_rows;      /* average rows of a series; 0: one series */
    uint32_t columns_count; /* beside time and system columns */
    size_t string_bytes;    /* the longest */
    bool foreign_hlc;       /* not a function of the entry */
    bool wild;              /* values from anywhere, else what sensors send */
    bool regular_times;
};

static inline void *kit_alloc(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);
    CHR_ASSERT(p);
    return p;
}

static inline uint64_t kit_bits(struct chr_random *r)
{
    return chr_random_u64(r);
}

static inline void kit_nulls(struct chr_random *r, struct kit_table *t, struct kit_column *c)
{
    unsigned kind = (unsigned)chr_random_below(r, 8);
    if (kind < 3)
        return;
    c->validity = kit_alloc(DB_BIT_WORDS(t->rows) * 8);
    uint64_t one_in = 1 + chr_random_below(r, 20);
    bool now = true;
    for (uint32_t i = 0; i < t->rows; i++) {
        bool valid = false;
        switch (kind) {
        case 3: /* none is NULL, but a bitmap is given */
            valid = true;
            break;
        case 4: /* all are */
            break;
        case 5:
            valid = chr_random_below(r, one_in + 1) != 0;
            break;
        case 6: /* long runs */
            if (chr_random_below(r, 1500) == 0)
                now = !now;
            valid = now;
            break;
        default: /* here and there a value */
            valid = chr_random_below(r, 300) == 0;
        }
        if (valid)
            db_bit_set(c->validity, i);
    }
}

static inline void kit_ints(struct chr_random *r, struct kit_table *t, struct kit_column *c,
                            bool wild)
{
    int64_t *v = c->data = kit_alloc(t->rows * 8);
    unsigned kind = (unsigned)chr_random_below(r, wild ? 8 : 5);
    uint64_t x = chr_random_u64(r) >> 20, step = chr_random_below(r, 1000);
    for (uint32_t i = 0; i < t->rows; i++) {
        switch (kind) {
        case 0:
            x = 7;
            break;
        case 1:
            x = chr_random_below(r, 5000);
            break;
        case 2:
            x += step;
            break;
        case 3: /* few values far apart */
            x = chr_random_below(r, 12) * UINT64_C(0x9e3779b97f4a7c15);
            break;
        case 4:
            if (chr_random_below(r, 100) == 0)
                x = chr_random_below(r, 100000);
            break;
        case 5:
            x = kit_bits(r);
            break;
        case 6:
            x = chr_random_below(r, 2) ? (uint64_t)INT64_MIN : (uint64_t)INT64_MAX;
            break;
        default:
            x += chr_random_below(r, 30) ? 3 : kit_bits(r) >> 10;
        }
        v[i] = (int64_t)x;
    }
}

static inline void kit_floats(struct chr_random *r, struct kit_table *t, struct kit_column *c,
                              bool wild)
{
    double *v = c->data = kit_alloc(t->rows * 8);
    unsigned kind = (unsigned)chr_random_below(r, wild ? 8 : 5);
    double power = pow(10, (double)chr_random_below(r, 4)), walk = 20;
    uint64_t odd[9];
    for (unsigned i = 0; i < 9; i++)
        odd[i] = kit_bits(r);
    for (uint32_t i = 0; i < t->rows; i++) {
        uint64_t bits;
        switch (kind) {
        case 0:
            v[i] = (double)chr_random_below(r, 5000) / power - 10;
            v[i] = round(v[i] * power) / power;
            break;
        case 1:
            walk += (double)chr_random_below(r, 11) / 10 - 0.5;
            v[i] = round(walk * 10) / 10;
            break;
        case 2:
            v[i] = 1013.25;
            break;
        case 3: /* few values that are no decimals */
            memcpy(&v[i], &odd[chr_random_below(r, 9)], 8);
            break;
        case 4:
            v[i] = (float)((double)chr_random_below(r, 1000) / 7);
            break;
        case 5:
            bits = kit_bits(r);
            memcpy(&v[i], &bits, 8);
            break;
        case 6:
            v[i] = (double[]){0.0, -0.0, INFINITY, -INFINITY, NAN, 1e300}[chr_random_below(r, 6)];
            break;
        default:
            v[i] = chr_random_below(r, 60) ? (double)chr_random_below(r, 900) / 10 : (double)NAN;
        }
    }
}

static inline void kit_bools(struct chr_random *r, struct kit_table *t, struct kit_column *c)
{
    uint8_t *v = c->data = kit_alloc(t->rows);
    uint64_t flip = (uint64_t[]){2, 500, 1000000}[chr_random_below(r, 3)];
    uint8_t now = (uint8_t)chr_random_below(r, 2);
    for (uint32_t i = 0; i < t->rows; i++) {
        if (chr_random_below(r, flip) == 0)
            now ^= 1;
        v[i] = now;
    }
}

static inline chr_slice kit_text(struct chr_random *r, struct kit_table *t, size_t longest)
{
    size_t len = chr_random_below(r, CHR_MIN(longest, (size_t)24) + 1);
    if (longest > 24 && chr_random_below(r, 1000) == 0)
        len = chr_random_below(r, longest + 1);
    return chr_slice_of(t->text + chr_random_below(r, t->text_bytes - len), len);
}

static inline void kit_strings(struct chr_random *r, struct kit_table *t, struct kit_column *c,
                               const struct kit_shape *shape)
{
    unsigned kind = (unsigned)chr_random_below(r, 5);
    uint32_t distinct = kind == 0 ? 1 : (uint32_t)chr_random_below(r, kind == 1 ? 20 : 3000) + 1;
    if (kind <= 2) { /* with a dictionary that holds more than is used */
        chr_slice *dict = c->dict = kit_alloc(distinct * sizeof(chr_slice));
        uint8_t *numbers = c->data = kit_alloc(distinct * 16);
        for (uint32_t i = 0; i < distinct; i++) {
            uint8_t *p = numbers + (size_t)i * 16;
            snprintf((char *)p, 16, "dev-%06u", i);
            dict[i] = chr_slice_of(p, i == 0 ? 0 : 10); /* the empty string among them */
        }
        c->dict_count = distinct;
        c->ids = kit_alloc(t->rows * sizeof(uint32_t));
        uint32_t id = 0, run = 0;
        for (uint32_t i = 0; i < t->rows; i++) {
            if (kind == 2 && run < t->runs_count && t->starts[run] == i) /* a series column */
                id = run++ % distinct;
            else if (kind != 2)
                id = (uint32_t)chr_random_below(r, distinct);
            c->ids[i] = id;
        }
        return;
    }
    chr_slice *v = c->data = kit_alloc(t->rows * sizeof *v);
    for (uint32_t i = 0; i < t->rows; i++)
        v[i] =
            kind == 3 && i > 10 ? v[chr_random_below(r, 10)] : kit_text(r, t, shape->string_bytes);
}

static inline void kit_rows(struct chr_random *r, struct kit_table *t,
                            const struct kit_shape *shape)
{
    t->entry = kit_alloc(t->rows * 8);
    t->ordinal = kit_alloc(t->rows * 4);
    t->time_us = kit_alloc(t->rows * 8);
    t->starts = kit_alloc(t->rows * 4);
    int64_t start = 1733000000000000 + (int64_t)chr_random_below(r, 1000000000), time = start;
    uint64_t entry = 0, first = 1 + chr_random_below(r, 100000);
    uint32_t ordinal = 0;
    for (uint32_t i = 0; i < t->rows; i++) {
        if (i == 0 || (shape->run_rows && chr_random_below(r, shape->run_rows) == 0)) {
            t->starts[t->runs_count++] = i;
            time = start + (int64_t)chr_random_below(r, 1000000);
            entry = first;
            ordinal = (uint32_t)chr_random_below(r, 100);
        }
        time += shape->regular_times ? 1000000 : (int64_t)chr_random_below(r, 3) * 500;
        if (chr_random_below(r, 3) == 0) {
            entry += 1 + chr_random_below(r, 3);
            ordinal = 0;
        }
        ordinal += 1 + (uint32_t)chr_random_below(r, 4);
        t->time_us[i] = time;
        t->entry[i] = entry;
        t->ordinal[i] = ordinal;
    }
}

static inline void kit_finish(struct kit_table *t)
{
    for (uint32_t c = 0; c < t->columns_count; c++) {
        const struct kit_column *from = &t->columns[c];
        t->in[c] = (struct db_chunk_column_in){.id = from->id,
                                               .type = from->type,
                                               .validity = from->validity,
                                               .data = from->dict ? NULL : from->data,
                                               .dict = from->dict,
                                               .dict_count = from->dict_count,
                                               .ids = from->ids};
    }
}

static inline struct kit_table *kit_table_new(struct chr_random *r, const struct kit_shape *shape)
{
    struct kit_table *t = kit_alloc(sizeof *t);
    t->rows = shape->rows;
    t->text_bytes = shape->string_bytes + 4096;
    t->text = kit_alloc(t->text_bytes);
    for (size_t i = 0; i < t->text_bytes; i++)
        t->text[i] = shape->wild ? (uint8_t)chr_random_u64(r) : (uint8_t)('a' + i * i % 23);
    kit_rows(r, t, shape);

    struct kit_column *c = &t->columns[t->columns_count++];
    *c = (struct kit_column){.id = KIT_TIME, .type = DB_TIMESTAMP};
    c->data = kit_alloc(t->rows * 8);
    memcpy(c->data, t->time_us, t->rows * 8);
    for (uint32_t i = 0; i < shape->columns_count; i++) {
        c = &t->columns[t->columns_count++];
        c->id = (uint16_t)(KIT_TIME + 1 + i * 3);
        c->type = (enum db_type)(1 + chr_random_below(r, DB_TYPES_END - 1));
        if (c->type == DB_FLOAT)
            kit_floats(r, t, c, shape->wild);
        else if (c->type == DB_BOOLEAN)
            kit_bools(r, t, c);
        else if (db_type_is_bytes(c->type))
            kit_strings(r, t, c, shape);
        else
            kit_ints(r, t, c, shape->wild);
        kit_nulls(r, t, c);
    }
    int64_t *hlc = kit_alloc(t->rows * 8), *received = kit_alloc(t->rows * 8);
    for (uint32_t i = 0; i < t->rows; i++) {
        received[i] = t->time_us[i] + 1000 + (int64_t)chr_random_below(r, 50);
        hlc[i] = (int64_t)((t->entry[i] + 1733000000000) << 16);
        if (shape->foreign_hlc)
            hlc[i] += (int64_t)chr_random_below(r, 9);
    }
    t->columns[t->columns_count++] =
        (struct kit_column){.id = DB_COLUMN_RECEIVED_AT, .type = DB_TIMESTAMP, .data = received};
    t->columns[t->columns_count++] =
        (struct kit_column){.id = DB_COLUMN_HLC, .type = DB_INT, .data = hlc};
    kit_finish(t);
    return t;
}

static inline void kit_table_free(struct kit_table *t)
{
    for (uint32_t c = 0; c < t->columns_count; c++) {
        free(t->columns[c].data);
        free(t->columns[c].validity);
        free(t->columns[c].dict);
        free(t->columns[c].ids);
    }
    free(t->entry);
    free(t->ordinal);
    free(t->time_us);
    free(t->starts);
    free(t->text);
    free(t);
}

static inline struct db_chunk_input kit_input(const struct kit_table *t)
{
    return (struct db_chunk_input){.table_id = 7,
                                   .schema_version = 3,
                                   .rows = t->rows,
                                   .rows_max = DB_CHUNK_ROWS_MAX,
                                   .entry = t->entry,
                                   .ordinal = t->ordinal,
                                   .time_us = t->time_us,
                                   .run_starts = t->starts,
                                   .runs_count = t->runs_count,
                                   .columns = t->in,
                                   .columns_count = t->columns_count};
}

static inline bool kit_is_null(const struct kit_column *c, uint32_t row)
{
    return c->validity && !db_bit_get(c->validity, row);
}

static inline struct db_value kit_value(const struct kit_column *c, uint32_t row)
{
    struct db_value v = {.type = c->type, .null = kit_is_null(c, row)};
    if (v.null)
        return v;
    if (c->dict)
        v.bytes = c->dict[c->ids[row]];
    else if (db_type_is_bytes(c->type))
        v.bytes = ((const chr_slice *)c->data)[row];
    else if (c->type == DB_FLOAT)
        v.f64 = ((const double *)c->data)[row];
    else if (c->type == DB_BOOLEAN)
        v.boolean = ((const uint8_t *)c->data)[row];
    else
        v.i64 = ((const int64_t *)c->data)[row];
    return v;
}

/* -- A chunk, kept ------------------------------------------------------------------------------*/

/* Copies of the parts of one chunk. */
struct kit_chunk {
    uint32_t parts_count;
    struct db_chunk_part *parts;
};

static inline struct kit_chunk kit_keep(const struct db_chunk_output *out)
{
    struct kit_chunk k = {.parts_count = out->parts_count};
    k.parts = kit_alloc(out->parts_count * sizeof *k.parts);
    for (uint32_t i = 0; i < out->parts_count; i++) {
        k.parts[i] = out->parts[i];
        uint8_t *copy = kit_alloc(out->parts[i].value.len);
        memcpy(copy, out->parts[i].value.ptr, out->parts[i].value.len);
        k.parts[i].value.ptr = copy;
    }
    return k;
}

static inline void kit_drop(struct kit_chunk *k)
{
    for (uint32_t i = 0; i < k->parts_count; i++)
        free((void *)(uintptr_t)k->parts[i].value.ptr);
    free(k->parts);
}

static inline chr_slice kit_part(const struct kit_chunk *k, enum db_chunk_part_kind kind,
                                 uint16_t column)
{
    for (uint32_t i = 0; i < k->parts_count; i++) {
        if (k->parts[i].kind == kind && k->parts[i].column == column)
            return k->parts[i].value;
    }
    return (chr_slice){0};
}

/* For db_chunk_check: arg of both is a struct kit_check. */
struct kit_check {
    const struct kit_chunk *chunk;
    unsigned findings;
    char first[512];
};

static inline chr_err kit_get(void *arg, enum db_chunk_part_kind kind, uint16_t column,
                              chr_slice *value)
{
    struct kit_check *c = arg;
    *value = kit_part(c->chunk, kind, column);
    return value->ptr ? CHR_OK : CHR_ENOTFOUND;
}

static inline void kit_report(void *arg, const char *finding)
{
    struct kit_check *c = arg;
    if (c->findings++ == 0)
        snprintf(c->first, sizeof c->first, "%s", finding);
}

#endif
