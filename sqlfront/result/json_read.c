#include "sqlfront/result/json_read.h"

#define DEPTH_MAX 512

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static chr_slice after(chr_slice s, size_t n)
{
    return chr_slice_of(s.ptr + n, s.len - n);
}

static chr_slice skip_space(chr_slice s)
{
    while (s.len && is_space(*s.ptr))
        s = after(s, 1);
    return s;
}

/* Bytes of the string at s, quotes included; 0: it does not end. */
static size_t string_len(chr_slice s)
{
    for (size_t i = 1; i < s.len; i++) {
        if (s.ptr[i] == '\\')
            i++;
        else if (s.ptr[i] == '"')
            return i + 1;
    }
    return 0;
}

/* Bytes of the value at s, 0: it does not end. Brackets of both kinds are counted as one: a
 * document of ours has them in pairs. */
static size_t value_len(chr_slice s)
{
    size_t depth = 0;
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.ptr[i];
        if (c == '"') {
            size_t len = string_len(after(s, i));
            if (!len)
                return 0;
            i += len - 1;
            if (!depth)
                return i + 1;
        } else if (c == '{' || c == '[') {
            if (++depth > DEPTH_MAX)
                return 0;
        } else if (c == '}' || c == ']') {
            if (!depth)
                return i;
            if (!--depth)
                return i + 1;
        } else if (!depth && (c == ',' || is_space(c))) {
            return i;
        }
    }
    return depth ? 0 : s.len;
}

struct json_iter json_iter_of(chr_slice value)
{
    value = skip_space(value);
    bool object = value.len && *value.ptr == '{';
    bool array = value.len && *value.ptr == '[';
    if (!object && !array)
        return (struct json_iter){.ok = true};
    return (struct json_iter){.rest = skip_space(after(value, 1)), .object = object, .ok = true};
}

bool json_next(struct json_iter *iter, chr_slice *key, chr_slice *value)
{
    chr_slice s = skip_space(iter->rest);
    *key = (chr_slice){0};
    iter->ok = s.len > 0;
    if (!s.len || *s.ptr == '}' || *s.ptr == ']') {
        iter->rest = (chr_slice){0};
        return false;
    }
    iter->ok = false;
    if (*s.ptr == ',')
        s = skip_space(after(s, 1));
    if (iter->object) {
        size_t len = s.len && *s.ptr == '"' ? string_len(s) : 0;
        if (!len)
            return false;
        *key = chr_slice_of(s.ptr + 1, len - 2);
        s = skip_space(after(s, len));
        if (!s.len || *s.ptr != ':')
            return false;
        s = skip_space(after(s, 1));
    }
    size_t len = value_len(s);
    if (!len)
        return false;
    *value = chr_slice_of(s.ptr, len);
    iter->rest = skip_space(after(s, len));
    iter->ok = true;
    return true;
}

bool json_member(chr_slice object, const char *key, chr_slice *value)
{
    struct json_iter iter = json_iter_of(object);
    chr_slice found;
    if (!iter.object)
        return false;
    for (chr_slice v; json_next(&iter, &found, &v);) {
        if (chr_slice_eq(found, chr_slice_cstr(key))) {
            *value = v;
            return true;
        }
    }
    return false;
}

/* Four hexadecimal digits; -1: there are not four. */
static int32_t hex4(chr_slice s)
{
    int32_t v = 0;
    if (s.len < 4)
        return -1;
    for (size_t i = 0; i < 4; i++) {
        uint8_t c = s.ptr[i];
        int digit = c >= '0' && c <= '9'                     ? c - '0'
                    : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                             : -1;
        if (digit < 0)
            return -1;
        v = v << 4 | digit;
    }
    return v;
}

static void add_character(struct chr_buf *out, uint32_t c)
{
    if (c < 0x80) {
        chr_buf_add_u8(out, (uint8_t)c);
    } else if (c < 0x800) {
        chr_buf_add_u8(out, (uint8_t)(0xc0 | c >> 6));
        chr_buf_add_u8(out, (uint8_t)(0x80 | (c & 0x3f)));
    } else if (c < 0x10000) {
        chr_buf_add_u8(out, (uint8_t)(0xe0 | c >> 12));
        chr_buf_add_u8(out, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
        chr_buf_add_u8(out, (uint8_t)(0x80 | (c & 0x3f)));
    } else {
        chr_buf_add_u8(out, (uint8_t)(0xf0 | c >> 18));
        chr_buf_add_u8(out, (uint8_t)(0x80 | (c >> 12 & 0x3f)));
        chr_buf_add_u8(out, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
        chr_buf_add_u8(out, (uint8_t)(0x80 | (c & 0x3f)));
    }
}

/* s begins behind "\u". Returns the bytes used. A surrogate by itself stands for nothing: U+FFFD.
 */
static size_t add_escape(struct chr_buf *out, chr_slice s)
{
    int32_t high = hex4(s);
    if (high < 0)
        return 0;
    uint32_t c = (uint32_t)high;
    size_t used = 4;
    if (c >= 0xd800 && c < 0xdc00 && s.len >= 10 && s.ptr[4] == '\\' && s.ptr[5] == 'u') {
        int32_t low = hex4(after(s, 6));
        if (low >= 0xdc00 && low < 0xe000) {
            c = 0x10000 + ((c - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
            used = 10;
        }
    }
    add_character(out, c >= 0xd800 && c < 0xe000 ? 0xfffd : c);
    return used;
}

void json_text(chr_slice value, struct chr_buf *out)
{
    if (value.len < 2 || *value.ptr != '"') {
        chr_buf_add_slice(out, value);
        return;
    }
    chr_slice s = chr_slice_of(value.ptr + 1, value.len - 2);
    while (s.len) {
        size_t plain = 0;
        while (plain < s.len && s.ptr[plain] != '\\')
            plain++;
        chr_buf_add(out, s.ptr, plain);
        s = after(s, plain);
        if (s.len < 2)
            return;
        uint8_t c = s.ptr[1];
        s = after(s, 2);
        switch (c) {
        case 'n':
            chr_buf_add_u8(out, '\n');
            break;
        case 't':
            chr_buf_add_u8(out, '\t');
            break;
        case 'r':
            chr_buf_add_u8(out, '\r');
            break;
        case 'b':
            chr_buf_add_u8(out, '\b');
            break;
        case 'f':
            chr_buf_add_u8(out, '\f');
            break;
        case 'u':
            s = after(s, add_escape(out, s));
            break;
        default:
            chr_buf_add_u8(out, c);
        }
    }
}
