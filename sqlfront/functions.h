/* sqlfront/functions.h: the scalar functions, by name and types of arguments. */
#ifndef CHR_SQLFRONT_FUNCTIONS_H
#define CHR_SQLFRONT_FUNCTIONS_H

#include "sqlfront/expr.h"

#define SQL_FN_ARGS_MAX 6

enum {
    SQL_FN_NULLS = 1,    /* looks at NULL arguments itself; without it NULL in is NULL out */
    SQL_FN_VOLATILE = 2, /* differs from call to call */
    SQL_FN_VARIADIC = 4, /* the last type repeats */
    SQL_FN_ANY = 8,      /* arguments of any type, given as text */
};

struct sql_function {
    const char *name;
    enum db_type ret;
    uint8_t args_min, args_count; /* optional arguments may be left out */
    uint8_t flags;
    enum db_type args[SQL_FN_ARGS_MAX];
    sql_row_fn row_fn;
    sql_vec_fn vec_fn;
    /* Prepares e->state from constant arguments; may be NULL. */
    bool (*prepare)(struct sql_query *q, struct sql_expr *e);
};

/* Sorted by nothing; a few hundred at most, looked up once per call in a text. */
struct sql_function_list {
    const struct sql_function *functions;
    size_t count;
};
extern const struct sql_function_list sql__string_functions, sql__math_functions,
    sql__time_functions;

/* All overloads of a name: calls visit for each until it returns false. */
void sql__functions_named(chr_slice name, bool (*visit)(void *ctx, const struct sql_function *f),
                          void *ctx);
/* A name like it, or NULL. */
const char *sql__function_nearest(chr_slice name);

/* LIKE (functions_like.c): e has args text, pattern [, escape]; e->op says LIKE or ILIKE. */
bool sql__like_prepare(struct sql_query *q, struct sql_expr *e);
bool sql__like(sql_call *c, const sql_val *a, sql_val *out);
/* What every text that matches begins with, as far as it was prepared; else empty. */
chr_slice sql__like_prefix(const struct sql_expr *e);
/* Lower or upper case of one code point: ASCII, Latin, Greek, Cyrillic. */
uint32_t sql__rune_lower(uint32_t rune);
uint32_t sql__rune_upper(uint32_t rune);
/* Decodes the code point at p (valid UTF-8); returns its bytes. */
CHR_INLINE size_t sql__rune_at(const uint8_t *p, uint32_t *rune)
{
    if (p[0] < 0x80) {
        *rune = p[0];
        return 1;
    }
    if (p[0] < 0xe0) {
        *rune = (uint32_t)(p[0] & 31) << 6 | (p[1] & 63u);
        return 2;
    }
    if (p[0] < 0xf0) {
        *rune = (uint32_t)(p[0] & 15) << 12 | (uint32_t)(p[1] & 63) << 6 | (p[2] & 63u);
        return 3;
    }
    *rune = (uint32_t)(p[0] & 7) << 18 | (uint32_t)(p[1] & 63) << 12 | (uint32_t)(p[2] & 63) << 6 |
            (p[3] & 63u);
    return 4;
}
size_t sql__rune_put(uint8_t *out, uint32_t rune);

#endif
