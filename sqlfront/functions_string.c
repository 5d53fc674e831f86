/* sqlfront/functions_string.c: functions of text. Lengths and positions count characters. */
#include "base/utf8.h"
#include "sqlfront/functions.h"

/* A result longer than this is refused rather than built (repeat, lpad, replace). */
#define TEXT_BYTES_MAX (16u << 20)

static bool too_long(sql_call *c)
{
    return sql__call_fail(c, "54000", "result of %s is longer than 16 MiB", c->e->name);
}

static size_t utf8_size(uint8_t lead)
{
    return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/* Byte offset of character number n (from 0), or the length. */
static size_t offset_of(chr_slice s, size_t n)
{
    size_t i = 0;
    while (n > 0 && i < s.len) {
        i += utf8_size(s.ptr[i]);
        n--;
    }
    return CHR_MIN(i, s.len);
}

size_t sql__rune_put(uint8_t *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xc0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xe0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 63));
        out[2] = (uint8_t)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 63));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 63));
    out[3] = (uint8_t)(0x80 | (c & 63));
    return 4;
}

/* Simple case mapping of the scripts whose case is one to one: enough for names of things, and the
 * same on every machine (no locale). */
uint32_t sql__rune_lower(uint32_t c)
{
    if (c < 0x80)
        return c >= 'A' && c <= 'Z' ? c + 32 : c;
    if ((c >= 0xc0 && c <= 0xde && c != 0xd7) || (c >= 0x391 && c <= 0x3ab && c != 0x3a2) ||
        (c >= 0x410 && c <= 0x42f))
        return c + 32;
    if (c >= 0x400 && c <= 0x40f)
        return c + 80;
    if ((c >= 0x100 && c <= 0x12f) || (c >= 0x132 && c <= 0x137) || (c >= 0x14a && c <= 0x177) ||
        (c >= 0x460 && c <= 0x481) || (c >= 0x48a && c <= 0x4bf) || (c >= 0x4d0 && c <= 0x52f) ||
        (c >= 0x1e00 && c <= 0x1e95) || (c >= 0x1ea0 && c <= 0x1eff))
        return c | 1;
    if (((c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e)) && (c & 1))
        return c + 1;
    return c == 0x178 ? 0xff : c;
}

uint32_t sql__rune_upper(uint32_t c)
{
    if (c < 0x80)
        return c >= 'a' && c <= 'z' ? c - 32 : c;
    if ((c >= 0xe0 && c <= 0xfe && c != 0xf7) || (c >= 0x3b1 && c <= 0x3cb && c != 0x3c2) ||
        (c >= 0x430 && c <= 0x44f))
        return c - 32;
    if (c >= 0x450 && c <= 0x45f)
        return c - 80;
    if ((c >= 0x100 && c <= 0x12f) || (c >= 0x132 && c <= 0x137) || (c >= 0x14a && c <= 0x177) ||
        (c >= 0x460 && c <= 0x481) || (c >= 0x48a && c <= 0x4bf) || (c >= 0x4d0 && c <= 0x52f) ||
        (c >= 0x1e00 && c <= 0x1e95) || (c >= 0x1ea0 && c <= 0x1eff))
        return c & ~1u;
    if (((c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e)) && !(c & 1))
        return c - 1;
    return c == 0xff ? 0x178 : c == 0x3c2 ? 0x3a3 : c;
}

static bool map_case(sql_call *c, chr_slice s, uint32_t (*map)(uint32_t), sql_val *out)
{
    uint8_t *to = sql__call_bytes(c, s.len + 8); /* no mapping above makes a character longer */
    if (!to)
        return false;
    size_t n = 0;
    for (size_t i = 0; i < s.len;) {
        uint32_t rune;
        i += sql__rune_at(s.ptr + i, &rune);
        n += sql__rune_put(to + n, map(rune));
    }
    out->s = chr_slice_of(to, n);
    return true;
}
static bool f_lower(sql_call *c, const sql_val *a, sql_val *out)
{
    return map_case(c, a[0].s, sql__rune_lower, out);
}
static bool f_upper(sql_call *c, const sql_val *a, sql_val *out)
{
    return map_case(c, a[0].s, sql__rune_upper, out);
}
static bool f_initcap(sql_call *c, const sql_val *a, sql_val *out)
{
    chr_slice s = a[0].s;
    uint8_t *to = sql__call_bytes(c, s.len + 8);
    if (!to)
        return false;
    size_t n = 0;
    bool inside = false;
    for (size_t i = 0; i < s.len;) {
        uint32_t r;
        i += sql__rune_at(s.ptr + i, &r);
        bool letter = r >= 0x80 || (r >= '0' && r <= '9') || ((r | 32) >= 'a' && (r | 32) <= 'z');
        n += sql__rune_put(to + n, inside ? sql__rune_lower(r) : sql__rune_upper(r));
        inside = letter;
    }
    out->s = chr_slice_of(to, n);
    return true;
}

static bool f_length(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->i = (int64_t)chr_utf8_length(a[0].s);
    return true;
}
static bool f_octet_length(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->i = (int64_t)a[0].s.len;
    return true;
}

static bool in_set(chr_slice set, const uint8_t *p, size_t size)
{
    for (size_t i = 0; i < set.len; i += utf8_size(set.ptr[i]))
        if (i + size <= set.len && memcmp(set.ptr + i, p, size) == 0)
            return true;
    return false;
}
static chr_slice trim(sql_call *c, const sql_val *a, bool left, bool right)
{
    chr_slice s = a[0].s, set = c->e->args_count > 1 ? a[1].s : CHR_LIT(" ");
    while (left && s.len) {
        size_t size = CHR_MIN(utf8_size(s.ptr[0]), s.len);
        if (!in_set(set, s.ptr, size))
            break;
        s.ptr += size;
        s.len -= size;
    }
    while (right && s.len) {
        size_t at = s.len - 1;
        while (at > 0 && (s.ptr[at] & 0xc0) == 0x80)
            at--;
        if (!in_set(set, s.ptr + at, s.len - at))
            break;
        s.len = at;
    }
    return s;
}
static bool f_btrim(sql_call *c, const sql_val *a, sql_val *out)
{
    out->s = trim(c, a, true, true);
    return true;
}
static bool f_ltrim(sql_call *c, const sql_val *a, sql_val *out)
{
    out->s = trim(c, a, true, false);
    return true;
}
static bool f_rtrim(sql_call *c, const sql_val *a, sql_val *out)
{
    out->s = trim(c, a, false, true);
    return true;
}

/* substr(s, from [, count]): characters from .. from+count-1 that exist; from may be below 1. */
static bool f_substr(sql_call *c, const sql_val *a, sql_val *out)
{
    int64_t from = a[1].i, end = INT64_MAX;
    if (c->e->args_count > 2) {
        if (a[2].i < 0)
            return sql__call_fail(c, "22011", "negative substring length not allowed");
        if (__builtin_add_overflow(from, a[2].i, &end))
            end = INT64_MAX;
    }
    if (from < 1)
        from = 1;
    if (end <= from) {
        out->s = chr_slice_of("", 0);
        return true;
    }
    chr_slice s = a[0].s;
    size_t start = offset_of(s, (size_t)(from - 1));
    s.ptr += start;
    s.len -= start;
    if (end != INT64_MAX)
        s.len = offset_of(s, (size_t)(end - from));
    out->s = s;
    return true;
}

/* left(s, n), right(s, n): a negative n leaves out that many at the other end. */
static bool f_left(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    chr_slice s = a[0].s;
    int64_t n = a[1].i;
    if (n < 0) {
        int64_t length = (int64_t)chr_utf8_length(s);
        n = n < -length ? 0 : length + n;
    }
    out->s = chr_slice_of(s.ptr, offset_of(s, (size_t)n));
    return true;
}
static bool f_right(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    chr_slice s = a[0].s;
    int64_t length = (int64_t)chr_utf8_length(s), n = a[1].i;
    int64_t skip = n >= 0 ? (n >= length ? 0 : length - n) : (n < -length ? length : -n);
    size_t at = offset_of(s, (size_t)skip);
    out->s = chr_slice_of(s.ptr + at, s.len - at);
    return true;
}

static bool pad(sql_call *c, const sql_val *a, sql_val *out, bool left)
{
    chr_slice s = a[0].s, fill = c->e->args_count > 2 ? a[2].s : CHR_LIT(" ");
    int64_t want = a[1].i < 0 ? 0 : a[1].i, length = (int64_t)chr_utf8_length(s);
    if (want <= length || fill.len == 0) {
        out->s = chr_slice_of(s.ptr, offset_of(s, (size_t)CHR_MIN(want, length)));
        return true;
    }
    int64_t missing = want - length;
    if (missing > (int64_t)(TEXT_BYTES_MAX / 4) || s.len > TEXT_BYTES_MAX)
        return too_long(c);
    uint8_t *to = sql__call_bytes(c, s.len + (size_t)missing * 4);
    if (!to)
        return false;
    size_t n = 0;
    if (!left && s.len) {
        memcpy(to, s.ptr, s.len);
        n = s.len;
    }
    for (size_t at = 0; missing > 0; missing--) {
        size_t size = utf8_size(fill.ptr[at]);
        memcpy(to + n, fill.ptr + at, size);
        n += size;
        at = at + size < fill.len ? at + size : 0;
    }
    if (left && s.len) {
        memcpy(to + n, s.ptr, s.len);
        n += s.len;
    }
    out->s = chr_slice_of(to, n);
    return true;
}
static bool f_lpad(sql_call *c, const sql_val *a, sql_val *out)
{
    return pad(c, a, out, true);
}
static bool f_rpad(sql_call *c, const sql_val *a, sql_val *out)
{
    return pad(c, a, out, false);
}

/* First place of part in s from byte `at`, or s.len + 1. */
static size_t find(chr_slice s, chr_slice part, size_t at)
{
    if (at > s.len || part.len > s.len - at)
        return s.len + 1;
    if (part.len == 0)
        return at;
    const uint8_t *p = memmem(s.ptr + at, s.len - at, part.ptr, part.len);
    return p ? (size_t)(p - s.ptr) : s.len + 1;
}

static bool f_strpos(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    size_t at = find(a[0].s, a[1].s, 0);
    out->i = at > a[0].s.len ? 0 : (int64_t)chr_utf8_length(chr_slice_of(a[0].s.ptr, at)) + 1;
    return true;
}

static bool f_replace(sql_call *c, const sql_val *a, sql_val *out)
{
    chr_slice s = a[0].s, from = a[1].s, to = a[2].s;
    if (from.len == 0) {
        out->s = s;
        return true;
    }
    size_t hits = 0;
    for (size_t at = find(s, from, 0); at <= s.len; at = find(s, from, at + from.len))
        hits++;
    if (hits == 0) {
        out->s = s;
        return true;
    }
    size_t len = s.len - hits * from.len;
    if (to.len && hits > (TEXT_BYTES_MAX - CHR_MIN(len, (size_t)TEXT_BYTES_MAX)) / to.len)
        return too_long(c);
    len += hits * to.len;
    uint8_t *bytes = sql__call_bytes(c, len);
    if (!bytes)
        return false;
    size_t n = 0, done = 0;
    for (size_t at = find(s, from, 0); at <= s.len; at = find(s, from, done)) {
        memcpy(bytes + n, s.ptr + done, at - done);
        n += at - done;
        if (to.len)
            memcpy(bytes + n, to.ptr, to.len);
        n += to.len;
        done = at + from.len;
    }
    memcpy(bytes + n, s.ptr + done, s.len - done);
    out->s = chr_slice_of(bytes, len);
    return true;
}

/* translate(s, from, to): characters of from become those of to at the same place, or go. */
static bool f_translate(sql_call *c, const sql_val *a, sql_val *out)
{
    chr_slice s = a[0].s, from = a[1].s, to = a[2].s;
    uint8_t *bytes = sql__call_bytes(c, s.len * 4);
    if (!bytes)
        return false;
    size_t n = 0, steps = 0;
    for (size_t i = 0; i < s.len;) {
        size_t size = utf8_size(s.ptr[i]), index = 0, f = 0;
        bool hit = false;
        steps += from.len;
        if (steps > 0xfffff) {
            steps = 0;
            if (!sql__check(c->q))
                return false;
        }
        while (f < from.len && !hit) {
            size_t fs = utf8_size(from.ptr[f]);
            hit = fs == size && memcmp(from.ptr + f, s.ptr + i, size) == 0;
            f += fs;
            index += !hit;
        }
        if (!hit) {
            memcpy(bytes + n, s.ptr + i, size);
            n += size;
        } else {
            size_t at = offset_of(to, index);
            if (at < to.len) {
                size_t ts = utf8_size(to.ptr[at]);
                memcpy(bytes + n, to.ptr + at, ts);
                n += ts;
            }
        }
        i += size;
    }
    out->s = chr_slice_of(bytes, n);
    return true;
}

static bool f_repeat(sql_call *c, const sql_val *a, sql_val *out)
{
    chr_slice s = a[0].s;
    if (a[1].i <= 0 || s.len == 0) {
        out->s = chr_slice_of("", 0);
        return true;
    }
    if ((uint64_t)a[1].i > TEXT_BYTES_MAX / s.len)
        return too_long(c);
    size_t times = (size_t)a[1].i;
    uint8_t *bytes = sql__call_bytes(c, s.len * times);
    if (!bytes)
        return false;
    for (size_t i = 0; i < times; i++)
        memcpy(bytes + i * s.len, s.ptr, s.len);
    out->s = chr_slice_of(bytes, s.len * times);
    return true;
}

static bool f_reverse(sql_call *c, const sql_val *a, sql_val *out)
{
    chr_slice s = a[0].s;
    uint8_t *bytes = sql__call_bytes(c, s.len);
    if (!bytes)
        return false;
    for (size_t i = 0; i < s.len;) {
        size_t size = utf8_size(s.ptr[i]);
        memcpy(bytes + s.len - i - size, s.ptr + i, size);
        i += size;
    }
    out->s = chr_slice_of(bytes, s.len);
    return true;
}

static bool f_starts_with(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->b = chr_slice_starts(a[0].s, a[1].s);
    return true;
}
static bool f_ends_with(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    chr_slice s = a[0].s, t = a[1].s;
    out->b = s.len >= t.len && (t.len == 0 || memcmp(s.ptr + s.len - t.len, t.ptr, t.len) == 0);
    return true;
}
static bool f_contains(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->b = find(a[0].s, a[1].s, 0) <= a[0].s.len;
    return true;
}

/* split_part(s, separator, n): the n-th field from 1, from the end when negative. */
static bool f_split_part(sql_call *c, const sql_val *a, sql_val *out)
{
    chr_slice s = a[0].s, sep = a[1].s;
    int64_t n = a[2].i;
    if (n == 0)
        return sql__call_fail(c, "22023", "field position must not be zero");
    if (sep.len == 0) {
        out->s = n == 1 || n == -1 ? s : chr_slice_of("", 0);
        return true;
    }
    if (n < 0) {
        int64_t fields = 1;
        for (size_t at = find(s, sep, 0); at <= s.len; at = find(s, sep, at + sep.len))
            fields++;
        if (n < -fields) {
            out->s = chr_slice_of("", 0);
            return true;
        }
        n += fields + 1;
    }
    size_t start = 0;
    for (;;) {
        size_t at = find(s, sep, start), end = CHR_MIN(at, s.len);
        if (--n == 0) {
            out->s = chr_slice_of(s.ptr + start, end - start);
            return true;
        }
        if (at > s.len) {
            out->s = chr_slice_of("", 0);
            return true;
        }
        start = at + sep.len;
    }
}

static bool join(sql_call *c, const sql_val *a, uint32_t first, chr_slice separator, sql_val *out)
{
    size_t len = 0;
    uint32_t parts = 0;
    for (uint32_t i = first; i < c->e->args_count; i++)
        if (!c->nulls[i]) {
            len += a[i].s.len + separator.len;
            parts++;
        }
    if (len > TEXT_BYTES_MAX)
        return too_long(c);
    uint8_t *bytes = sql__call_bytes(c, len);
    if (!bytes)
        return false;
    size_t n = 0;
    bool started = false;
    for (uint32_t i = first; i < c->e->args_count; i++) {
        if (c->nulls[i])
            continue;
        if (started && separator.len) {
            memcpy(bytes + n, separator.ptr, separator.len);
            n += separator.len;
        }
        started = true;
        if (a[i].s.len)
            memcpy(bytes + n, a[i].s.ptr, a[i].s.len);
        n += a[i].s.len;
    }
    (void)parts;
    out->s = chr_slice_of(bytes, n);
    return true;
}
static bool f_concat(sql_call *c, const sql_val *a, sql_val *out)
{
    return join(c, a, 0, chr_slice_of("", 0), out);
}
static bool f_concat_ws(sql_call *c, const sql_val *a, sql_val *out)
{
    if (c->nulls[0]) {
        c->null = true;
        return true;
    }
    return join(c, a, 1, a[0].s, out);
}
static bool f_concat_op(sql_call *c, const sql_val *a, sql_val *out)
{
    size_t len = a[0].s.len + a[1].s.len;
    if (len > TEXT_BYTES_MAX)
        return too_long(c);
    uint8_t *bytes = sql__call_bytes(c, len);
    if (!bytes)
        return false;
    if (a[0].s.len)
        memcpy(bytes, a[0].s.ptr, a[0].s.len);
    if (a[1].s.len)
        memcpy(bytes + a[0].s.len, a[1].s.ptr, a[1].s.len);
    out->s = chr_slice_of(bytes, len);
    return true;
}

static bool f_ascii(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    uint32_t rune = 0;
    if (a[0].s.len)
        (void)sql__rune_at(a[0].s.ptr, &rune);
    out->i = rune;
    return true;
}
static bool f_chr(sql_call *c, const sql_val *a, sql_val *out)
{
    if (a[0].i <= 0 || a[0].i > 0x10ffff || (a[0].i >= 0xd800 && a[0].i < 0xe000))
        return sql__call_fail(c, "54000", "there is no character of this number");
    uint8_t *bytes = sql__call_bytes(c, 4);
    if (!bytes)
        return false;
    out->s = chr_slice_of(bytes, sql__rune_put(bytes, (uint32_t)a[0].i));
    return true;
}
static bool f_to_hex(sql_call *c, const sql_val *a, sql_val *out)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t *bytes = sql__call_bytes(c, 16);
    if (!bytes)
        return false;
    uint64_t v = (uint64_t)a[0].i;
    size_t at = 16;
    do {
        bytes[--at] = (uint8_t)digits[v & 15];
        v >>= 4;
    } while (v);
    out->s = chr_slice_of(bytes + at, 16 - at);
    return true;
}

#define S DB_STRING
static const struct sql_function functions[] = {
    {"lower", S, 1, 1, 0, {S}, f_lower, NULL, NULL},
    {"upper", S, 1, 1, 0, {S}, f_upper, NULL, NULL},
    {"initcap", S, 1, 1, 0, {S}, f_initcap, NULL, NULL},
    {"length", DB_INT, 1, 1, 0, {S}, f_length, NULL, NULL},
    {"length", DB_INT, 1, 1, 0, {DB_BLOB}, f_octet_length, NULL, NULL},
    {"char_length", DB_INT, 1, 1, 0, {S}, f_length, NULL, NULL},
    {"character_length", DB_INT, 1, 1, 0, {S}, f_length, NULL, NULL},
    {"octet_length", DB_INT, 1, 1, 0, {S}, f_octet_length, NULL, NULL},
    {"octet_length", DB_INT, 1, 1, 0, {DB_BLOB}, f_octet_length, NULL, NULL},
    {"btrim", S, 1, 2, 0, {S, S}, f_btrim, NULL, NULL},
    {"trim", S, 1, 2, 0, {S, S}, f_btrim, NULL, NULL},
    {"ltrim", S, 1, 2, 0, {S, S}, f_ltrim, NULL, NULL},
    {"rtrim", S, 1, 2, 0, {S, S}, f_rtrim, NULL, NULL},
    {"substr", S, 2, 3, 0, {S, DB_INT, DB_INT}, f_substr, NULL, NULL},
    {"substring", S, 2, 3, 0, {S, DB_INT, DB_INT}, f_substr, NULL, NULL},
    {"left", S, 2, 2, 0, {S, DB_INT}, f_left, NULL, NULL},
    {"right", S, 2, 2, 0, {S, DB_INT}, f_right, NULL, NULL},
    {"lpad", S, 2, 3, 0, {S, DB_INT, S}, f_lpad, NULL, NULL},
    {"rpad", S, 2, 3, 0, {S, DB_INT, S}, f_rpad, NULL, NULL},
    {"strpos", DB_INT, 2, 2, 0, {S, S}, f_strpos, NULL, NULL},
    {"replace", S, 3, 3, 0, {S, S, S}, f_replace, NULL, NULL},
    {"translate", S, 3, 3, 0, {S, S, S}, f_translate, NULL, NULL},
    {"repeat", S, 2, 2, 0, {S, DB_INT}, f_repeat, NULL, NULL},
    {"reverse", S, 1, 1, 0, {S}, f_reverse, NULL, NULL},
    {"starts_with", DB_BOOLEAN, 2, 2, 0, {S, S}, f_starts_with, NULL, NULL},
    {"ends_with", DB_BOOLEAN, 2, 2, 0, {S, S}, f_ends_with, NULL, NULL},
    {"contains", DB_BOOLEAN, 2, 2, 0, {S, S}, f_contains, NULL, NULL},
    {"split_part", S, 3, 3, 0, {S, S, DB_INT}, f_split_part, NULL, NULL},
    {"concat", S, 1, 1, SQL_FN_NULLS | SQL_FN_VARIADIC | SQL_FN_ANY, {S}, f_concat, NULL, NULL},
    {"concat_ws",
     S,
     1,
     2,
     SQL_FN_NULLS | SQL_FN_VARIADIC | SQL_FN_ANY,
     {S, S},
     f_concat_ws,
     NULL,
     NULL},
    {"||", S, 2, 2, SQL_FN_ANY, {S, S}, f_concat_op, NULL, NULL},
    {"||", DB_BLOB, 2, 2, 0, {DB_BLOB, DB_BLOB}, f_concat_op, NULL, NULL},
    {"ascii", DB_INT, 1, 1, 0, {S}, f_ascii, NULL, NULL},
    {"chr", S, 1, 1, 0, {DB_INT}, f_chr, NULL, NULL},
    {"to_hex", S, 1, 1, 0, {DB_INT}, f_to_hex, NULL, NULL},
};
const struct sql_function_list sql__string_functions = {functions, CHR_COUNT_OF(functions)};
