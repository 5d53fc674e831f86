/* base/log.c: one line, one write.
 *
 * A line is made in a buffer on the stack. What foreign bytes may do there is bounded twice: a
 * value is cut at VALUE_MAX bytes, and a pair that does not fit the line is left out as a whole, so
 * the line (and its JSON) is always complete. */
#include "base/log.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/num.h"
#include "base/timestamp.h"
#include "base/utf8.h"

#define LINE_MAX_BYTES 8192
/* Kept free for what ends a line: truncated=true, brace, newline. */
#define LINE_RESERVE 32
#define VALUE_MAX    1024

#define UP_TO(level) ((2u << (level)) - 1)

static _Atomic unsigned log_levels = UP_TO(CHR_LOG_INFO);
static _Atomic int log_format = CHR_LOG_TEXT;
static _Atomic int log_fd = STDERR_FILENO;
static _Atomic int log_fd_rest = -1;
static _Atomic int log_fd_copy = -1;
static _Atomic bool log_syslog;
static _Atomic bool log_timestamp = true;
/* Borrowed and never changed: a writer may still use the one before. */
static _Atomic(const char *) log_pattern;
static _Atomic int log_screen_level = CHR_LOG_DEBUG;

static const char *const level_names[] = {
    [CHR_LOG_ERROR] = "error", [CHR_LOG_WARNING] = "warning", [CHR_LOG_NOTICE] = "notice",
    [CHR_LOG_INFO] = "info",   [CHR_LOG_DEBUG] = "debug",
};

void chr_log_set_level(enum chr_log_level level)
{
    chr_log_set_levels(UP_TO(level));
}

void chr_log_set_levels(unsigned levels)
{
    atomic_store_explicit(&log_levels, levels, memory_order_relaxed);
}

void chr_log_set_timestamp(bool on, const char *pattern)
{
    atomic_store_explicit(&log_pattern, pattern, memory_order_release);
    atomic_store_explicit(&log_timestamp, on, memory_order_relaxed);
}

void chr_log_set_copy(int fd)
{
    atomic_store_explicit(&log_fd_copy, fd, memory_order_relaxed);
}

void chr_log_set_syslog(bool on)
{
    atomic_store_explicit(&log_syslog, on, memory_order_relaxed);
}

void chr_log_set_format(enum chr_log_format format)
{
    atomic_store_explicit(&log_format, format, memory_order_relaxed);
}

void chr_log_set_output(int fd, enum chr_log_level screen_level, int fd_rest)
{
    atomic_store_explicit(&log_fd, fd, memory_order_relaxed);
    atomic_store_explicit(&log_screen_level, screen_level, memory_order_relaxed);
    atomic_store_explicit(&log_fd_rest, fd_rest, memory_order_relaxed);
}

bool chr_log_enabled(enum chr_log_level level)
{
    return atomic_load_explicit(&log_levels, memory_order_relaxed) >> level & 1;
}

chr_err chr_log_level_parse(chr_slice word, enum chr_log_level *level)
{
    for (size_t i = 0; i < CHR_COUNT_OF(level_names); i++) {
        if (chr_slice_eq(word, chr_slice_cstr(level_names[i]))) {
            *level = (enum chr_log_level)i;
            return CHR_OK;
        }
    }
    return CHR_EINVAL;
}

struct line {
    size_t len;
    size_t message_at; /* behind the timestamp; 0 in JSON */
    bool full;         /* something did not fit; it and what followed in its pair is missing */
    char bytes[LINE_MAX_BYTES];
};

static void put(struct line *line, const char *bytes, size_t len)
{
    if (line->full || len > LINE_MAX_BYTES - LINE_RESERVE - line->len) {
        line->full = true;
        return;
    }
    memcpy(line->bytes + line->len, bytes, len);
    line->len += len;
}

static void put_cstr(struct line *line, const char *cstr)
{
    put(line, cstr, strlen(cstr));
}

/* Bytes of the well-formed character at p, 0 when there is none. */
static size_t character_len(const uint8_t *p, size_t left)
{
    size_t len = *p < 0x80 ? 1 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;
    return len <= left && chr_utf8_valid(chr_slice_of(p, len)) ? len : 0;
}

static uint32_t code_point(const uint8_t *p, size_t len)
{
    static const uint8_t lead_mask[5] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t c = p[0] & lead_mask[len];
    for (size_t i = 1; i < len; i++)
        c = c << 6 | (p[i] & 0x3f);
    return c;
}

/* What would move a terminal's cursor, begin a new line for some reader, or turn the direction of
 * the text around: C0, DEL, C1, the separators and the bidirectional controls. */
static bool is_control(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x061c || c == 0x200e || c == 0x200f ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

static char *put_hex(char *at, uint32_t value, int width)
{
    for (int shift = (width - 1) * 4; shift >= 0; shift -= 4)
        *at++ = "0123456789abcdef"[value >> shift & 15];
    return at;
}

/* The characters of s, escaped so that they stay within one line and one pair of quotes. `quotes`
 * false is for the message of a text line, where quotes are harmless. */
static void put_escaped(struct line *line, chr_slice s, bool json, bool quotes)
{
    const uint8_t *p = s.ptr;
    size_t left = CHR_MIN(s.len, (size_t)VALUE_MAX);
    bool cut = s.len > left;
    while (left) {
        char escape[16], *at = escape;
        size_t len = character_len(p, left);
        if (len == 0) {
            if (cut && left < 4)
                break; /* the cut went through a character */
            /* JSON has no bytes, only characters: U+FFFD stands for what is none. */
            at = (char *)memcpy(at, json ? "\\ufffd" : "\\x", json ? 6 : 2) + (json ? 6 : 2);
            if (!json)
                at = put_hex(at, *p, 2);
            put(line, escape, (size_t)(at - escape));
            p++;
            left--;
            continue;
        }
        uint32_t c = code_point(p, len);
        if (c == '\n' || c == '\r' || c == '\t') {
            *at++ = '\\';
            *at++ = c == '\n' ? 'n' : c == '\r' ? 'r' : 't';
        } else if ((c == '"' || c == '\\') && quotes) {
            *at++ = '\\';
            *at++ = (char)c;
        } else if (is_control(c)) {
            *at++ = '\\';
            *at++ = 'u';
            at = put_hex(at, c, 4);
        }
        if (at != escape)
            put(line, escape, (size_t)(at - escape));
        else
            put(line, (const char *)p, len);
        p += len;
        left -= len;
    }
    if (cut)
        put_cstr(line, "...");
}

static bool is_bare(chr_slice s)
{
    if (s.len == 0 || s.len > VALUE_MAX)
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] <= ' ' || s.ptr[i] >= 0x7f || strchr("\"\\=", s.ptr[i]))
            return false;
    return true;
}

static void put_quoted(struct line *line, chr_slice s, bool json)
{
    put(line, "\"", 1);
    put_escaped(line, s, json, true);
    put(line, "\"", 1);
}

static void put_value(struct line *line, const struct chr_log_kv *pair, bool json)
{
    char text[CHR_NUM_TEXT_MAX];
    size_t len;
    switch (pair->kind) {
    case CHR_KV_SLICE:
        if (!json && is_bare(pair->slice))
            put(line, (const char *)pair->slice.ptr, pair->slice.len);
        else
            put_quoted(line, pair->slice, json);
        return;
    case CHR_KV_INT:
        len = chr_format_i64(pair->i64, text);
        break;
    case CHR_KV_UINT:
        len = chr_format_u64(pair->u64, text);
        break;
    default:
        len = chr_format_f64(pair->f64, text);
        if (json && !isfinite(pair->f64)) {
            put_quoted(line, chr_slice_of(text, len), json);
            return;
        }
        break;
    }
    put(line, text, len);
}

static void put_time(struct line *line)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct chr_civil c;
    chr_civil_from_us((int64_t)now.tv_sec * CHR_US_PER_S, &c);
    unsigned ms = (unsigned)(now.tv_nsec / 1000000);
    /* Always three digits after the point, so that columns stand under each other. */
    char text[] = "0000-00-00T00:00:00.000Z";
    const struct {
        unsigned at, width, value;
    } fields[] = {
        {0, 4, (unsigned)c.year},
        {5, 2, (unsigned)c.month},
        {8, 2, (unsigned)c.day},
        {11, 2, (unsigned)c.hour},
        {14, 2, (unsigned)c.minute},
        {17, 2, (unsigned)c.second},
        {20, 3, ms},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(fields); i++) {
        unsigned value = fields[i].value;
        for (unsigned k = fields[i].width; k-- > 0; value /= 10)
            text[fields[i].at + k] = (char)('0' + value % 10);
    }
    put(line, text, sizeof text - 1);
}

/* What the operator's pattern makes of now; a pattern that makes nothing, or too much, is left out.
 */
static void put_local_time(struct line *line, const char *pattern)
{
    time_t now = time(NULL);
    struct tm tm;
    char text[256];
    if (!localtime_r(&now, &tm))
        return;
    size_t len = strftime(text, sizeof text, pattern, &tm);
    put_escaped(line, chr_slice_of(text, len), false, false);
}

static void put_head(struct line *line, enum chr_log_level level, const char *part,
                     const char *message, bool json)
{
    if (json) {
        put_cstr(line, "{\"time\":\"");
        put_time(line);
        put_cstr(line, "\",\"level\":\"");
        put_cstr(line, level_names[level]);
        put_cstr(line, "\",\"part\":");
        put_quoted(line, chr_slice_cstr(part), true);
        put_cstr(line, ",\"message\":");
        put_quoted(line, chr_slice_cstr(message), true);
    } else {
        if (atomic_load_explicit(&log_timestamp, memory_order_relaxed)) {
            const char *pattern = atomic_load_explicit(&log_pattern, memory_order_acquire);
            if (pattern)
                put_local_time(line, pattern);
            else
                put_time(line);
            put_cstr(line, " ");
        }
        line->message_at = line->len;
        put_cstr(line, level_names[level]);
        put_cstr(line, " ");
        put_escaped(line, chr_slice_cstr(part), false, false);
        put_cstr(line, ": ");
        put_escaped(line, chr_slice_cstr(message), false, false);
    }
}

static void put_pair(struct line *line, const struct chr_log_kv *pair, bool json)
{
    if (json) {
        put_cstr(line, ",");
        put_quoted(line, chr_slice_cstr(pair->key), true);
        put_cstr(line, ":");
    } else {
        put_cstr(line, " ");
        put_escaped(line, chr_slice_cstr(pair->key), false, false);
        put_cstr(line, "=");
    }
    put_value(line, pair, json);
}

/* Into the reserve, so it always fits. */
static void put_end(struct line *line, bool truncated, bool json)
{
    const char *note = !truncated ? "" : json ? ",\"truncated\":true" : " truncated=true";
    size_t len = strlen(note);
    memcpy(line->bytes + line->len, note, len);
    line->len += len;
    if (json)
        line->bytes[line->len++] = '}';
    line->bytes[line->len++] = '\n';
}

static void write_line(int fd, const char *bytes, size_t len)
{
    /* The first write takes it all, except into a full pipe or disk; then the rest follows as long
     * as something moves. A log that cannot be written is dropped: nobody is left to tell. */
    while (len) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        bytes += n;
        len -= (size_t)n;
    }
}

void chr_log_write(enum chr_log_level level, const char *part, const char *message,
                   const struct chr_log_kv *pairs, size_t pairs_count)
{
    int saved_errno = errno;
    bool json = atomic_load_explicit(&log_format, memory_order_relaxed) == CHR_LOG_JSON;
    struct line line;
    line.len = line.message_at = 0;
    line.full = false;
    put_head(&line, level, part, message, json);
    bool truncated = false;
    for (size_t i = 0; i < pairs_count && pairs[i].key; i++) {
        size_t before = line.len;
        put_pair(&line, &pairs[i], json);
        if (line.full) {
            line.len = before;
            line.full = false;
            truncated = true;
        }
    }
    put_end(&line, truncated, json);

    int fd = atomic_load_explicit(&log_fd, memory_order_relaxed);
    int fd_rest = atomic_load_explicit(&log_fd_rest, memory_order_relaxed);
    if (fd_rest >= 0 && (int)level > atomic_load_explicit(&log_screen_level, memory_order_relaxed))
        fd = fd_rest;
    int fd_copy = atomic_load_explicit(&log_fd_copy, memory_order_relaxed);
    if (fd >= 0)
        write_line(fd, line.bytes, line.len);
    if (fd_copy >= 0)
        write_line(fd_copy, line.bytes, line.len);
    if (atomic_load_explicit(&log_syslog, memory_order_relaxed)) {
        static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG};
        syslog(priorities[level], "%.*s", (int)(line.len - line.message_at - 1),
               line.bytes + line.message_at);
    }
    errno = saved_errno;
}
