/* tests/broker/ingest/naive.h: the decoder's plain twin for JSON: payload to tree to rows.
 *
 * Written from the rules in broker/ingest/README.md, not from the code: byte by byte, a node per
 * value, strtod for numbers, every conversion by looking at the text. Slow, and right by looking at
 * it. Rows come out as the text of helper.h. */
#ifndef CHR_TESTS_INGEST_NAIVE_H
#define CHR_TESTS_INGEST_NAIVE_H

#include <errno.h>
#include <math.h>

#include "base/utf8.h"
#include "tests/broker/ingest/helper.h"

enum naive_kind {
    NAIVE_NULL,
    NAIVE_TRUE,
    NAIVE_FALSE,
    NAIVE_NUMBER,
    NAIVE_STRING,
    NAIVE_OBJECT,
    NAIVE_ARRAY
};

struct naive_node {
    enum naive_kind kind;
    const char *text; /* as it stands in the payload */
    size_t text_len;
    char *string; /* STRING: unescaped; the key of a member is in `key` */
    size_t string_len;
    bool half_surrogate;
    char *key;
    size_t key_len;
    bool key_bad;
    struct naive_node **children;
    size_t count;
};

struct naive {
    const char *p, *end;
    bool failed;
    struct naive_node *all[1 << 16];
    size_t all_count;
    const struct db_table_def *table;
    const struct ingest_route *route; /* for its captures alone */
    char *cells[64];                  /* NULL: not named */
    struct helper_text rows;
    uint64_t unknown;
};

static inline struct naive_node *naive_new(struct naive *n, enum naive_kind kind)
{
    struct naive_node *node = calloc(1, sizeof *node);
    if (n->all_count == CHR_COUNT_OF(n->all))
        helper_die("too many nodes", "naive");
    n->all[n->all_count++] = node;
    node->kind = kind;
    return node;
}

static inline void naive_clear(struct naive *n)
{
    for (size_t i = 0; i < n->all_count; i++) {
        free(n->all[i]->string);
        free(n->all[i]->key);
        free(n->all[i]->children);
        free(n->all[i]);
    }
    n->all_count = 0;
    n->failed = false;
    n->rows.len = 0;
    n->unknown = 0;
    helper_adds(&n->rows, "");
}

static inline void naive_space(struct naive *n)
{
    while (n->p < n->end && strchr(" \t\r\n", *n->p) && *n->p)
        n->p++;
}

static inline bool naive_take(struct naive *n, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(n->end - n->p) < len || memcmp(n->p, word, len) != 0)
        return false;
    n->p += len;
    return true;
}

static inline void naive_encode(char *out, size_t *len, unsigned c)
{
    if (c < 0x80) {
        out[(*len)++] = (char)c;
    } else if (c < 0x800) {
        out[(*len)++] = (char)(0xc0 + c / 64);
        out[(*len)++] = (char)(0x80 + c % 64);
    } else if (c < 0x10000) {
        out[(*len)++] = (char)(0xe0 + c / 4096);
        out[(*len)++] = (char)(0x80 + c / 64 % 64);
        out[(*len)++] = (char)(0x80 + c % 64);
    } else {
        out[(*len)++] = (char)(0xf0 + c / 262144);
        out[(*len)++] = (char)(0x80 + c / 4096 % 64);
        out[(*len)++] = (char)(0x80 + c / 64 % 64);
        out[(*len)++] = (char)(0x80 + c % 64);
    }
}

static inline int naive_hex(struct naive *n)
{
    int v = 0;
    for (int i = 0; i < 4; i++) {
        if (n->p == n->end || !isxdigit((unsigned char)*n->p))
            return -1;
        char digit[2] = {*n->p++, 0};
        v = v * 16 + (int)strtol(digit, NULL, 16);
    }
    return v;
}

/* A string after its opening quote. */
static inline char *naive_string(struct naive *n, size_t *len, bool *bad)
{
    char *out = malloc((size_t)(n->end - n->p) + 8);
    *len = 0;
    *bad = false;
    while (n->p < n->end && *n->p != '"') {
        unsigned char c = (unsigned char)*n->p++;
        if (c < 0x20) {
            n->failed = true;
            break;
        }
        if (c != '\\') {
            out[(*len)++] = (char)c;
            continue;
        }
        if (n->p == n->end)
            break;
        c = (unsigned char)*n->p++;
        const char *from = "\"\\/bfnrt", *to = "\"\\/\b\f\n\r\t", *at = c ? strchr(from, c) : NULL;
        if (at) {
            out[(*len)++] = to[at - from];
        } else if (c == 'u') {
            int v = naive_hex(n);
            if (v < 0) {
                n->failed = true;
                break;
            }
            if (v >= 0xd800 && v <= 0xdbff && n->end - n->p >= 6 && n->p[0] == '\\' &&
                n->p[1] == 'u') {
                const char *back = n->p;
                n->p += 2;
                int low = naive_hex(n);
                if (low >= 0xdc00 && low <= 0xdfff) {
                    v = 0x10000 + (v - 0xd800) * 1024 + (low - 0xdc00);
                } else {
                    n->p = back;
                    *bad = true;
                }
            } else if (v >= 0xd800 && v <= 0xdfff) {
                *bad = true;
            }
            naive_encode(out, len, (unsigned)v);
        } else {
            n->failed = true;
            break;
        }
    }
    if (!naive_take(n, "\""))
        n->failed = true;
    return out;
}

static inline bool naive_digits(struct naive *n)
{
    const char *begin = n->p;
    while (n->p < n->end && isdigit((unsigned char)*n->p))
        n->p++;
    return n->p > begin;
}

static inline void naive_number(struct naive *n)
{
    naive_take(n, "-");
    const char *begin = n->p;
    bool good = naive_digits(n) && (*begin != '0' || n->p == begin + 1);
    if (good && naive_take(n, "."))
        good = naive_digits(n);
    if (good && (naive_take(n, "e") || naive_take(n, "E"))) {
        if (!naive_take(n, "+"))
            naive_take(n, "-");
        good = naive_digits(n);
    }
    n->failed |= !good;
}

static inline struct naive_node *naive_value(struct naive *n, unsigned depth)
{
    const char *begin = n->p;
    struct naive_node *node = naive_new(n, NAIVE_NULL);
    if (depth > INGEST_JSON_DEPTH_MAX + 1) {
        n->failed = true;
    } else if (naive_take(n, "null")) {
    } else if (naive_take(n, "true")) {
        node->kind = NAIVE_TRUE;
    } else if (naive_take(n, "false")) {
        node->kind = NAIVE_FALSE;
    } else if (naive_take(n, "\"")) {
        node->kind = NAIVE_STRING;
        node->string = naive_string(n, &node->string_len, &node->half_surrogate);
    } else if (n->p < n->end && (*n->p == '{' || *n->p == '[')) {
        bool object = *n->p++ == '{';
        node->kind = object ? NAIVE_OBJECT : NAIVE_ARRAY;
        if (depth > INGEST_JSON_DEPTH_MAX)
            n->failed = true;
        naive_space(n);
        if (naive_take(n, object ? "}" : "]"))
            goto out;
        while (!n->failed) {
            char *key = NULL;
            size_t key_len = 0;
            bool key_bad = false;
            naive_space(n);
            if (object) {
                if (!naive_take(n, "\"")) {
                    n->failed = true;
                    break;
                }
                key = naive_string(n, &key_len, &key_bad);
                naive_space(n);
                if (!naive_take(n, ":"))
                    n->failed = true;
                naive_space(n);
            }
            if (n->failed) {
                free(key);
                break;
            }
            struct naive_node *child = naive_value(n, depth + 1);
            child->key = key;
            child->key_len = key_len;
            child->key_bad = key_bad;
            node->children = realloc(node->children, (node->count + 1) * sizeof child);
            node->children[node->count++] = child;
            naive_space(n);
            if (naive_take(n, object ? "}" : "]"))
                break;
            if (!naive_take(n, ","))
                n->failed = true;
        }
    } else {
        node->kind = NAIVE_NUMBER;
        naive_number(n);
    }
out:
    node->text = begin;
    node->text_len = (size_t)(n->p - begin);
    return node;
}

/* A decimal written out without exponent; false: more than a thousand digits. */
static inline bool naive_expand(const char *text, char out[4096])
{
    char digits[2048];
    size_t count = 0;
    long point = 0, exponent = 0;
    bool seen = false;
    const char *p = text + (*text == '-' || *text == '+');
    for (; *p && *p != 'e' && *p != 'E'; p++) {
        if (*p == '.') {
            seen = true;
            continue;
        }
        if (count < sizeof digits)
            digits[count++] = *p;
        point += !seen;
    }
    if (*p)
        exponent = strtol(p + 1, NULL, 10);
    point += exponent;
    bool zero = true;
    for (size_t i = 0; i < count; i++)
        zero &= digits[i] == '0';
    if (zero) {
        strcpy(out, "0");
        return true;
    }
    if (point > 1000 || point < -1000)
        return false;
    size_t len = 0;
    if (*text == '-')
        out[len++] = '-';
    for (long i = point < 0 ? point : 0; i < (long)count || i < point; i++) {
        if (i == point)
            out[len++] = '.';
        out[len++] = i >= 0 && i < (long)count ? digits[i] : '0';
    }
    out[len] = '\0';
    return true;
}

static inline bool naive_is_decimal(const char *s, bool lenient)
{
    const char *p = s;
    if (*p == '-' || (lenient && *p == '+'))
        p++;
    size_t before = strspn(p, "0123456789"), after = 0;
    p += before;
    if (*p == '.') {
        after = strspn(p + 1, "0123456789");
        p += 1 + after;
    }
    if (before + after == 0)
        return false;
    if (*p == 'e' || *p == 'E') {
        p++;
        p += *p == '+' || *p == '-';
        size_t digits = strspn(p, "0123456789");
        if (digits == 0)
            return false;
        p += digits;
    }
    return *p == '\0';
}

/* The text of the cell a value makes in a column of that type; NULL: does not fit. */
static inline char *naive_cell(enum db_type type, const char *bytes, size_t bytes_len)
{
    struct helper_text t = {0};
    helper_adds(&t, "");
    if (type == DB_STRING) {
        if (memchr(bytes, 0, bytes_len))
            goto no;
        helper_add_string(&t, chr_slice_of(bytes, bytes_len));
        return t.ptr;
    }
    char byte[8];
    if (type == DB_BLOB) {
        helper_adds(&t, "0x");
        if (bytes_len >= 2 && bytes[0] == '\\' && bytes[1] == 'x') {
            if (bytes_len % 2)
                goto no;
            for (size_t i = 2; i < bytes_len; i++) {
                if (!isxdigit((unsigned char)bytes[i]))
                    goto no;
                char lower = (char)tolower((unsigned char)bytes[i]);
                helper_add(&t, &lower, 1);
            }
            return t.ptr;
        }
        for (size_t i = 0; i < bytes_len; i++) {
            snprintf(byte, sizeof byte, "%02x", (unsigned char)bytes[i]);
            helper_adds(&t, byte);
        }
        return t.ptr;
    }
    while (bytes_len && strchr(" \t\r\n", bytes[0]) && bytes[0]) {
        bytes++;
        bytes_len--;
    }
    while (bytes_len && strchr(" \t\r\n", bytes[bytes_len - 1]) && bytes[bytes_len - 1])
        bytes_len--;
    if (memchr(bytes, 0, bytes_len) || bytes_len > 2000)
        goto no;
    char s[2048], plain[4096], number[64];
    memcpy(s, bytes, bytes_len);
    s[bytes_len] = '\0';
    switch (type) {
    case DB_INT: {
        if (!naive_is_decimal(s, true) || !naive_expand(s, plain))
            goto no;
        char *point = strchr(plain, '.');
        if (point && point[1 + strspn(point + 1, "0")] != '\0')
            goto no;
        if (point)
            *point = '\0';
        errno = 0;
        long long v = strtoll(plain, NULL, 10);
        if (errno)
            goto no;
        chr_format_i64(v, number);
        helper_adds(&t, number);
        return t.ptr;
    }
    case DB_FLOAT: {
        char lower[2048];
        for (size_t i = 0; i <= bytes_len; i++)
            lower[i] = (char)tolower((unsigned char)s[i]);
        const char *word = lower + (lower[0] == '-' || lower[0] == '+');
        double v;
        if (naive_is_decimal(s, true)) {
            v = strtod(s, NULL);
            if (isinf(v))
                goto no;
        } else if (strcmp(word, "nan") == 0) {
            v = NAN;
        } else if (strcmp(word, "inf") == 0 || strcmp(word, "infinity") == 0) {
            v = lower[0] == '-' ? -INFINITY : INFINITY;
        } else {
            goto no;
        }
        chr_format_f64(v, number);
        helper_adds(&t, number);
        return t.ptr;
    }
    case DB_BOOLEAN: {
        static const char *const yes[] = {"true", "t", "yes", "y", "on", "1"};
        static const char *const no[] = {"false", "f", "no", "n", "off", "0"};
        for (int i = 0; i < 6; i++) {
            if (strcasecmp(s, yes[i]) == 0 || strcasecmp(s, no[i]) == 0) {
                helper_adds(&t, strcasecmp(s, yes[i]) == 0 ? "true" : "false");
                return t.ptr;
            }
        }
        goto no;
    }
    default: {
        int64_t us, i64;
        char *end;
        errno = 0;
        i64 = strtoll(s, &end, 10);
        bool integer = naive_is_decimal(s, true) && *end == '\0' && !errno;
        if (integer                     ? chr_timestamp_from_i64(i64, &us)
            : naive_is_decimal(s, true) ? chr_timestamp_from_f64(strtod(s, NULL), &us)
                                        : chr_timestamp_parse(chr_slice_cstr(s), &us))
            goto no;
        if (us == HELPER_ARRIVAL)
            strcpy(number, "arrival");
        else
            chr_timestamp_format(us, number);
        helper_adds(&t, number);
        return t.ptr;
    }
    }
no:
    free(t.ptr);
    return NULL;
}

static inline char *naive_cell_of(enum db_type type, const struct naive_node *v)
{
    switch (v->kind) {
    case NAIVE_NULL:
        return strdup("null");
    case NAIVE_STRING:
        return v->half_surrogate ? NULL : naive_cell(type, v->string, v->string_len);
    case NAIVE_NUMBER:
        return type == DB_BLOB ? NULL : naive_cell(type, v->text, v->text_len);
    case NAIVE_TRUE:
    case NAIVE_FALSE:
        if (type != DB_STRING && type != DB_BOOLEAN)
            return NULL;
        return strdup(v->kind == NAIVE_TRUE ? "true" : "false");
    default:
        return type == DB_STRING ? naive_cell(type, v->text, v->text_len) : NULL;
    }
}

static inline int naive_column(const struct naive *n, const char *name, bool prefix)
{
    for (int fold = 0; fold < 2; fold++) {
        char folded[512];
        snprintf(folded, sizeof folded, "%s", name);
        for (char *c = folded; *c && fold; c++)
            if (*c >= 'A' && *c <= 'Z')
                *c = (char)(*c + 32);
        size_t len = strlen(folded);
        for (int i = 0; i < n->table->columns_count; i++) {
            const char *column = n->table->columns[i].name;
            if (prefix ? strncmp(column, folded, len) == 0 && column[len] == '.' && column[len + 1]
                       : strcmp(column, folded) == 0)
                return i;
        }
    }
    return -1;
}

static inline const struct ingest_capture *naive_captured(const struct naive *n, int column)
{
    const struct ingest_target *t = &n->route->targets[0];
    for (uint32_t i = 0; i < t->captures_count; i++)
        if (t->captures[i].column == column)
            return &t->captures[i];
    return NULL;
}

static inline char *naive_capture_cell(const struct ingest_capture *c)
{
    if (c->value.type == DB_INT) {
        char number[CHR_NUM_TEXT_MAX];
        chr_format_i64(c->value.i64, number);
        return strdup(number);
    }
    return naive_cell(c->value.type, (const char *)c->value.bytes.ptr, c->value.bytes.len);
}

static inline void naive_object(struct naive *n, const struct naive_node *object, const char *path)
{
    for (size_t i = 0; i < object->count && !n->failed; i++) {
        const struct naive_node *v = object->children[i];
        char name[512];
        bool known = !v->key_bad && v->key_len < 200 && !memchr(v->key, 0, v->key_len);
        if (known)
            snprintf(name, sizeof name, "%s%s%.*s", path, *path ? "." : "", (int)v->key_len,
                     v->key);
        int column = known ? naive_column(n, name, false) : -1;
        bool prefix = known && naive_column(n, name, true) >= 0;
        if (column < 0 && !prefix) {
            n->unknown++;
            continue;
        }
        if (prefix && v->kind == NAIVE_OBJECT) {
            if (column >= 0 && n->table->columns[column].type == DB_STRING &&
                !naive_captured(n, column)) {
                free(n->cells[column]);
                n->cells[column] = naive_cell_of(DB_STRING, v);
            }
            naive_object(n, v, name);
            continue;
        }
        if (column < 0) {
            n->unknown += v->kind != NAIVE_NULL;
            continue;
        }
        const struct ingest_capture *c = naive_captured(n, column);
        if (v->kind == NAIVE_NULL && (c || column == n->table->time_column))
            continue;
        char *cell = naive_cell_of(n->table->columns[column].type, v);
        if (!cell) {
            n->failed = true;
        } else if (c) {
            char *said = naive_capture_cell(c);
            n->failed |= strcmp(said, cell) != 0;
            free(said);
            free(cell);
        } else {
            free(n->cells[column]);
            n->cells[column] = cell;
        }
    }
}

static inline void naive_row(struct naive *n, const struct naive_node *object)
{
    memset(n->cells, 0, sizeof n->cells);
    naive_object(n, object, "");
    for (int i = 0; i < n->table->columns_count; i++)
        if (naive_captured(n, i))
            n->cells[i] = naive_capture_cell(naive_captured(n, i));
    int time = n->table->time_column;
    if (time >= 0 && !n->cells[time])
        n->cells[time] = strdup("arrival");
    helper_adds(&n->rows, n->table->name);
    for (int i = 0; i < n->table->columns_count; i++) {
        if (n->table->columns[i].not_null && (!n->cells[i] || strcmp(n->cells[i], "null") == 0))
            n->failed = true;
        if (n->cells[i]) {
            helper_adds(&n->rows, " ");
            helper_adds(&n->rows, n->table->columns[i].name);
            helper_adds(&n->rows, "=");
            helper_adds(&n->rows, n->cells[i]);
        }
        free(n->cells[i]);
    }
    helper_adds(&n->rows, "\n");
}

/* Rows in n->rows; false: to be rejected. */
static inline bool naive_decode(struct naive *n, const struct db_table_def *table,
                                const struct ingest_route *route, chr_slice payload)
{
    naive_clear(n);
    n->table = table;
    n->route = route;
    n->p = (const char *)payload.ptr;
    n->end = n->p + payload.len;
    if (!chr_utf8_valid(payload))
        return false;
    naive_space(n);
    bool newline = true;
    if (n->p == n->end || (*n->p != '{' && *n->p != '['))
        return false;
    if (*n->p == '[') {
        struct naive_node *array = naive_value(n, 1);
        for (size_t i = 0; i < array->count && !n->failed; i++) {
            if (array->children[i]->kind != NAIVE_OBJECT)
                return false;
            naive_row(n, array->children[i]);
        }
        naive_space(n);
        return !n->failed && n->p == n->end;
    }
    while (!n->failed && newline && n->p < n->end && *n->p == '{') {
        struct naive_node *object = naive_value(n, 1);
        if (!n->failed)
            naive_row(n, object);
        const char *before = n->p;
        naive_space(n);
        newline = memchr(before, '\n', (size_t)(n->p - before)) != NULL;
    }
    return !n->failed && n->p == n->end;
}

#endif
