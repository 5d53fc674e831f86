/* tests/e2e/foreign/line.h: how the client programs talk to the tests that drive them.
 *
 * One line is a command or an event: a word, then fields `key=value`, apart by blanks. In values
 * each byte that is not a letter, a digit or one of `-_./` is written as %XX. A key may come
 * several times. Commands come on stdin, events go to stdout; `n` is the number of the command that
 * an event answers. Lists inside a value are apart by commas, their parts escaped on their own.
 *
 *   connect port version id clean keepalive session rmax mps amax rri rpi user pw up
 *           will will.payload will.qos will.retain will.delay will.expiry will.up    ▶ connack |
 * refused subscribe n f=FILTER,QOS,NOLOCAL,RAP,HANDLING… id up                  ▶ suback n codes
 *   unsubscribe n f…                                                      ▶ unsuback n codes
 *   publish n topic payload qos retain + properties                       ▶ puback n reason
 *   disconnect reason session                                             ▶ closed
 *                                 ▶ message …, ▶ disconnected reason (the server's word), ▶ closed
 *
 * Properties: expiry format ctype rtopic cdata up=NAME,VALUE alias sub (only of events). */
#ifndef CHR_TESTS_FOREIGN_LINE_H
#define CHR_TESTS_FOREIGN_LINE_H

#include <ctype.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELDS_MAX 64

struct field {
    char *key;
    char *value; /* decoded, zero-terminated behind len */
    size_t len;
};

struct line {
    char *text; /* of getline */
    size_t size;
    char *word;
    struct field fields[FIELDS_MAX];
    int count;
};

/* In place. */
static inline size_t line_decode(char *s)
{
    char *out = s;
    for (char *in = s; *in; in++) {
        unsigned byte = 0;
        if (*in == '%' && sscanf(in + 1, "%2x", &byte) == 1) {
            *out++ = (char)byte;
            in += 2;
        } else {
            *out++ = *in;
        }
    }
    *out = 0;
    return (size_t)(out - s);
}

/* False: no more. Values of `f`, `up` and `will.up` are lists and stay encoded. */
static inline bool line_read(struct line *line)
{
    if (getline(&line->text, &line->size, stdin) < 0)
        return false;
    char *save = NULL;
    line->word = strtok_r(line->text, " \n", &save);
    line->count = 0;
    for (char *token; (token = strtok_r(NULL, " \n", &save)) && line->count < FIELDS_MAX;) {
        char *equals = strchr(token, '=');
        if (!equals)
            continue;
        *equals = 0;
        struct field *f = &line->fields[line->count++];
        f->key = token;
        f->value = equals + 1;
        bool list = !strcmp(token, "f") || !strcmp(token, "up") || !strcmp(token, "will.up");
        f->len = list ? strlen(f->value) : line_decode(f->value);
    }
    return line->word != NULL;
}

static inline const struct field *line_field(const struct line *line, const char *key)
{
    for (int i = 0; i < line->count; i++)
        if (!strcmp(line->fields[i].key, key))
            return &line->fields[i];
    return NULL;
}

static inline const char *line_text(const struct line *line, const char *key)
{
    const struct field *f = line_field(line, key);
    return f ? f->value : NULL;
}

static inline long line_number(const struct line *line, const char *key, long otherwise)
{
    const struct field *f = line_field(line, key);
    return f ? strtol(f->value, NULL, 10) : otherwise;
}

/* Parts of a list, decoded in place; returns how many. */
static inline int line_split(char *value, char **parts, int max)
{
    int n = 0;
    char *save = NULL;
    for (char *part = value; part && n < max; part = save) {
        save = strchr(part, ',');
        if (save)
            *save++ = 0;
        line_decode(part);
        parts[n++] = part;
    }
    return n;
}

/* ---- Events: built whole, written under a lock, from any thread --------------------------------
 */

struct event {
    char *text;
    size_t len;
    FILE *f;
};

static inline void event_value(struct event *e, const void *bytes, size_t len)
{
    const unsigned char *at = bytes;
    for (size_t i = 0; i < len; i++)
        if (isalnum(at[i]) || strchr("-_./", at[i] ? at[i] : ' '))
            putc(at[i], e->f);
        else
            fprintf(e->f, "%%%02x", at[i]);
}

static inline void event_begin(struct event *e, const char *word)
{
    e->f = open_memstream(&e->text, &e->len); /* which keeps the two pointers */
    if (!e->f)
        abort();
    fputs(word, e->f);
}

static inline void event_bytes(struct event *e, const char *key, const void *bytes, size_t len)
{
    fprintf(e->f, " %s=", key);
    event_value(e, bytes, len);
}

static inline void event_number(struct event *e, const char *key, long value)
{
    fprintf(e->f, " %s=%ld", key, value);
}

static inline void event_pair(struct event *e, const char *key, const void *name, size_t name_len,
                              const void *value, size_t value_len)
{
    event_bytes(e, key, name, name_len);
    putc(',', e->f);
    event_value(e, value, value_len);
}

static inline void event_end(struct event *e)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    putc('\n', e->f);
    fclose(e->f);
    pthread_mutex_lock(&lock);
    fwrite(e->text, 1, e->len, stdout);
    fflush(stdout);
    pthread_mutex_unlock(&lock);
    free(e->text);
}

static inline void event_error(const char *what, const char *why)
{
    struct event e;
    event_begin(&e, "error");
    event_bytes(&e, "what", what, strlen(what));
    event_bytes(&e, "why", why, strlen(why));
    event_end(&e);
}

#endif
