/* base/log.h: leveled, structured log lines.
 *
 *     2024-12-10T19:13:20.512Z info net: client connected client=esp-001 address=10.0.0.7:51234
 *
 * One line per call, written by one write(2), so lines of threads do not mix. Values with spaces or
 * quotes are quoted and escaped: a client id cannot forge a line. Any thread. */
#ifndef CHR_BASE_LOG_H
#define CHR_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

enum chr_log_level {
    CHR_LOG_ERROR,
    CHR_LOG_WARNING,
    CHR_LOG_NOTICE,
    CHR_LOG_INFO,
    CHR_LOG_DEBUG,
};
enum chr_log_format { CHR_LOG_TEXT, CHR_LOG_JSON };

void chr_log_set_level(enum chr_log_level level);
/* Which levels are written, one bit 1 << level each; 0: none. The last of this and
 * chr_log_set_level counts. */
void chr_log_set_levels(unsigned levels);
void chr_log_set_format(enum chr_log_format format);
/* How a line begins. pattern: strftime's, in local time, NULL: ISO 8601 with milliseconds in UTC;
 * it is borrowed for as long as the process logs. JSON lines have their own time in any case. */
void chr_log_set_timestamp(bool on, const char *pattern);
/* Lines also go to fd (-1: not). A descriptor that was set may be written to a little later still:
 * replace what it stands for with dup2, don't close it. */
void chr_log_set_copy(int fd);
/* And to syslog, without their timestamps; openlog() before, by the caller. */
void chr_log_set_syslog(bool on);
/* Lines go to fd (default 2; -1: nowhere). Lines less severe than `screen_level` go to fd_rest
 * instead (-1: the same fd); the prompt of single-node keeps the screen for warnings this way. */
void chr_log_set_output(int fd, enum chr_log_level screen_level, int fd_rest);
bool chr_log_enabled(enum chr_log_level level);
/* "error", "warning", …; CHR_EINVAL for any other word. */
CHR_MUST_USE chr_err chr_log_level_parse(chr_slice word, enum chr_log_level *level);

/* A key and its value: CHR_KV_S("client", slice), CHR_KV_C("path", cstr), CHR_KV_I("fd", int). */
struct chr_log_kv {
    const char *key; /* NULL ends the list */
    enum { CHR_KV_SLICE, CHR_KV_INT, CHR_KV_UINT, CHR_KV_FLOAT } kind;
    chr_slice slice;
    int64_t i64;
    uint64_t u64;
    double f64;
};
#define CHR_KV_S(k, s) ((struct chr_log_kv){.key = (k), .kind = CHR_KV_SLICE, .slice = (s)})
#define CHR_KV_C(k, c) CHR_KV_S(k, chr_slice_cstr(c))
#define CHR_KV_I(k, v) ((struct chr_log_kv){.key = (k), .kind = CHR_KV_INT, .i64 = (int64_t)(v)})
#define CHR_KV_U(k, v) ((struct chr_log_kv){.key = (k), .kind = CHR_KV_UINT, .u64 = (uint64_t)(v)})
#define CHR_KV_F(k, v) ((struct chr_log_kv){.key = (k), .kind = CHR_KV_FLOAT, .f64 = (double)(v)})

void chr_log_write(enum chr_log_level level, const char *part, const char *message,
                   const struct chr_log_kv *pairs, size_t pairs_count);

/* chr_log_info("raft", "torn tail cut", CHR_KV_U("segment", id), CHR_KV_U("offset", off)); */
#define CHR_LOG_AT(level, part, message, ...)                                                      \
    do {                                                                                           \
        if (chr_log_enabled(level)) {                                                              \
            const struct chr_log_kv kvs_[] = {__VA_ARGS__ __VA_OPT__(, ){.key = NULL}};            \
            chr_log_write(level, part, message, kvs_, sizeof kvs_ / sizeof kvs_[0] - 1);           \
        }                                                                                          \
    } while (0)
#define chr_log_error(part, ...)   CHR_LOG_AT(CHR_LOG_ERROR, part, __VA_ARGS__)
#define chr_log_warning(part, ...) CHR_LOG_AT(CHR_LOG_WARNING, part, __VA_ARGS__)
#define chr_log_notice(part, ...)  CHR_LOG_AT(CHR_LOG_NOTICE, part, __VA_ARGS__)
#define chr_log_info(part, ...)    CHR_LOG_AT(CHR_LOG_INFO, part, __VA_ARGS__)
#define chr_log_debug(part, ...)   CHR_LOG_AT(CHR_LOG_DEBUG, part, __VA_ARGS__)

#endif
