/* sqlfront/functions_like.c: LIKE and ILIKE.
 *
 * % is any run of characters, _ one of them, the escape (backslash, or ESCAPE 'c') takes the next
 * literally. A pattern without _ and escapes whose only % stand at its ends is a comparison; any
 * other is matched with one place to go back to (the last %), so the time is at most text ×
 * pattern.
 */
#include <strings.h>

#include "sqlfront/functions.h"

enum like_kind { LIKE_EQUAL, LIKE_PREFIX, LIKE_SUFFIX, LIKE_CONTAINS, LIKE_GENERAL };

struct like {
    enum like_kind kind;
    chr_slice part; /* less the % */
};

bool sql__like_prepare(struct sql_query *q, struct sql_expr *e)
{
    const struct sql_expr *pattern = e->args[1];
    if (e->op != SQL_OP_LIKE || e->args_count != 2 || !sql__is_const(pattern) ||
        pattern->value.null)
        return true;
    chr_slice p = pattern->value.v.s;
    struct like *like = SQL_NEW(q, struct like);
    if (!like)
        return false;
    e->state = like;
    bool first = p.len && p.ptr[0] == '%';
    chr_slice part = first ? chr_slice_of(p.ptr + 1, p.len - 1) : p;
    bool last = part.len && part.ptr[part.len - 1] == '%';
    if (last)
        part.len--;
    like->part = part;
    like->kind = first && last ? LIKE_CONTAINS
                 : first       ? LIKE_SUFFIX
                 : last        ? LIKE_PREFIX
                               : LIKE_EQUAL;
    for (size_t i = 0; i < part.len; i++)
        if (part.ptr[i] == '%' || part.ptr[i] == '_' || part.ptr[i] == '\\')
            like->kind = LIKE_GENERAL;
    if (first && p.len == 1)
        like->kind = LIKE_PREFIX;
    return true;
}

chr_slice sql__like_prefix(const struct sql_expr *e)
{
    const struct like *like = e->state;
    if (!like || (like->kind != LIKE_PREFIX && like->kind != LIKE_EQUAL))
        return (chr_slice){0};
    return like->part;
}

static bool same(uint32_t a, uint32_t b, bool fold)
{
    return a == b || (fold && sql__rune_lower(a) == sql__rune_lower(b));
}

/* escape: a code point, 0 for none. */
static bool matches(sql_call *c, chr_slice s, chr_slice p, uint32_t escape, bool fold, uint8_t *out)
{
    size_t si = 0, pi = 0, star_p = SIZE_MAX, star_s = 0, steps = 0;
    for (;;) {
        if ((++steps & 0xfffff) == 0 && !sql__check(c->q)) /* a long text and a mean pattern */
            return false;
        uint32_t want = 0;
        size_t size = 0;
        bool literal = false;
        if (pi < p.len) {
            size = sql__rune_at(p.ptr + pi, &want);
            if (escape && want == escape) {
                if (pi + size >= p.len)
                    return sql__call_fail(c, "22025",
                                          "LIKE pattern must not end with the escape character");
                size += sql__rune_at(p.ptr + pi + size, &want);
                literal = true;
            }
            if (!literal && want == '%') {
                pi += size;
                star_p = pi;
                star_s = si;
                continue;
            }
        }
        if (si < s.len && pi < p.len) {
            uint32_t have;
            size_t have_size = sql__rune_at(s.ptr + si, &have);
            if ((!literal && want == '_') || same(have, want, fold)) {
                si += have_size;
                pi += size;
                continue;
            }
        } else if (si >= s.len) {
            *out = pi >= p.len;
            return true; /* text used up: only % could follow, and those were passed over above */
        }
        if (star_p == SIZE_MAX) {
            *out = 0;
            return true;
        }
        uint32_t skipped;
        star_s += sql__rune_at(s.ptr + star_s, &skipped);
        si = star_s;
        pi = star_p;
    }
}

bool sql__like(sql_call *c, const sql_val *a, sql_val *out)
{
    const struct like *like = c->e->state;
    chr_slice s = a[0].s;
    if (like && like->kind != LIKE_GENERAL) {
        chr_slice part = like->part;
        switch (like->kind) {
        case LIKE_EQUAL:
            out->b = chr_slice_eq(s, part);
            break;
        case LIKE_PREFIX:
            out->b = chr_slice_starts(s, part);
            break;
        case LIKE_SUFFIX:
            out->b = s.len >= part.len &&
                     (part.len == 0 || memcmp(s.ptr + s.len - part.len, part.ptr, part.len) == 0);
            break;
        default:
            out->b = part.len == 0 ||
                     (s.len >= part.len && memmem(s.ptr, s.len, part.ptr, part.len) != NULL);
        }
        return true;
    }
    uint32_t escape = '\\';
    if (c->e->args_count > 2) {
        escape = 0;
        if (a[2].s.len && sql__rune_at(a[2].s.ptr, &escape) != a[2].s.len)
            return sql__call_fail(c, "22019", "ESCAPE takes one character");
    }
    return matches(c, s, a[1].s, escape, c->e->op == SQL_OP_ILIKE, &out->b);
}
