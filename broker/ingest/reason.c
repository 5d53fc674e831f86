/* broker/ingest/reason.c: sentences, cut and cleaned. */
#include "broker/ingest/reason.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/utf8.h"

/* Bytes of a foreign value or name that a reason shows. The parts of a reason add up to less than
 * chr_errmsg holds, so it is never cut in the middle of a character. */
#define EXCERPT_MAX  40
#define EXCERPT_ROOM (EXCERPT_MAX + sizeof "\\xff...")

/* As much as fits, control characters and what is no UTF-8 as \xff. */
static const char *excerpt(char out[EXCERPT_ROOM], chr_slice s)
{
    size_t len = 0, i = 0;
    while (i < s.len) {
        size_t n = 1;
        while (n < 4 && i + n <= s.len && !chr_utf8_valid(chr_slice_of(s.ptr + i, n)))
            n++;
        bool plain = i + n <= s.len && chr_utf8_valid(chr_slice_of(s.ptr + i, n)) &&
                     s.ptr[i] >= 0x20 && s.ptr[i] != 0x7f &&
                     !(s.ptr[i] == 0xc2 && s.ptr[i + 1] < 0xa0);
        if (!plain)
            n = 1;
        if (len + (plain ? n : 4) > EXCERPT_MAX) {
            memcpy(out + len, "...", 3);
            len += 3;
            break;
        }
        if (plain) {
            memcpy(out + len, s.ptr + i, n);
            len += n;
        } else {
            len += (size_t)snprintf(out + len, 5, "\\x%02x", s.ptr[i]);
        }
        i += n;
    }
    out[len] = '\0';
    return out;
}

/* "element 3: metric temp: " */
static size_t prefix(const struct ingest_message *m, char *out, size_t room)
{
    char text[EXCERPT_ROOM];
    size_t len = 0;
    if (m->element)
        len += (size_t)snprintf(out, room, "%s %u: ", m->part, m->element);
    if (m->metric.len)
        len += (size_t)snprintf(out + len, room - len, "metric %s: ", excerpt(text, m->metric));
    return len;
}

static void add_place(struct ingest_message *m, const uint8_t *at)
{
    struct chr_errmsg *r = &m->why->reason;
    size_t len = strlen(r->text);
    if (at)
        snprintf(r->text + len, sizeof r->text - len, " (at byte %zu)", (size_t)(at - m->begin));
}

static chr_err rejected(struct ingest_message *m, chr_err err)
{
    m->why->table_id = m->plan->table->id;
    m->err = err;
    return err;
}

chr_err ingest__fail(struct ingest_message *m, chr_err err, const uint8_t *at, const char *format,
                     ...)
{
    struct chr_errmsg *r = &m->why->reason;
    size_t len = prefix(m, r->text, sizeof r->text);
    va_list args;
    va_start(args, format);
    vsnprintf(r->text + len, sizeof r->text - len, format, args);
    va_end(args);
    add_place(m, at);
    return rejected(m, err);
}

chr_err ingest__fail_json(struct ingest_message *m, const uint8_t *at, const char *what)
{
    if (at >= m->end)
        return ingest__fail(m, CHR_EMALFORMED, m->end, "the JSON ends too early");
    return ingest__fail(m, CHR_EMALFORMED, at, "the JSON is malformed: %s", what);
}

chr_err ingest__fail_value(struct ingest_message *m, chr_err err, uint16_t column, chr_slice value,
                           bool quote, const char *complaint)
{
    char name[EXCERPT_ROOM], text[EXCERPT_ROOM];
    const char *q = quote ? "\"" : "";
    return ingest__fail(m, err, value.ptr, "column %s: %s%s%s %s",
                        excerpt(name, chr_slice_cstr(m->plan->table->columns[column].name)), q,
                        excerpt(text, value), q, complaint);
}

chr_err ingest__fail_captured(struct ingest_message *m, uint16_t column, chr_slice value)
{
    return ingest__fail_value(m, CHR_ECONFLICT, column, value, false, "contradicts the topic");
}

chr_err ingest__fail_store(struct ingest_message *m, chr_err err, const struct chr_errmsg *msg)
{
    m->err = err;
    if (err == CHR_ENOTNULL)
        return ingest__fail(m, err, NULL, "%s", msg->text);
    return err;
}

void ingest__reason_topic(struct chr_errmsg *reason, const char *column, chr_slice level,
                          const char *complaint)
{
    char name[EXCERPT_ROOM], text[EXCERPT_ROOM];
    snprintf(reason->text, sizeof reason->text, "column %s: \"%s\" in the topic %s",
             excerpt(name, chr_slice_cstr(column)), excerpt(text, level), complaint);
}
