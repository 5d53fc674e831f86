/* tests/fuzz/fuzz_acl.c: ACL files, and who may do what by them.
 *
 * Input: user, client id and topic, each up to a zero byte, then the file. Beyond "no crash": the
 * verdict on a topic is that of a plain twin which reads the file line by line and knows nothing of
 * lists and orders; a topic taken as a filter is judged like the topic; what covers overlaps. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/utf8.h"
#include "broker/auth/acl.h"
#include "proto/mqtt/topic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- The twin: zero-terminated strings, one rule at a time ------------------------------------
 */

static bool matches_rest(const char *filter, const char *topic)
{
    for (;;) {
        size_t f = strcspn(filter, "/"), t = strcspn(topic, "/");
        if (f == 1 && filter[0] == '#')
            return true;
        bool plus = f == 1 && filter[0] == '+';
        if (!plus && (f != t || memcmp(filter, topic, f) != 0))
            return false;
        if (!filter[f] || !topic[t]) {
            bool rest_is_any = !topic[t] && strcmp(filter + f, "/#") == 0;
            return (!filter[f] && !topic[t]) || rest_is_any;
        }
        filter += f + 1;
        topic += t + 1;
    }
}

static bool twin_matches(const char *filter, const char *topic)
{
    if (topic[0] == '$' && (filter[0] == '+' || filter[0] == '#'))
        return false;
    return matches_rest(filter, topic);
}

/* NULL: can't match anything. */
static char *replaced(const char *pattern, const char *user, const char *client)
{
    char *out = calloc(1, strlen(pattern) * (strlen(user) + strlen(client) + 2) + 1);
    CHR_ASSERT(out);
    for (const char *at = pattern; *at; at++) {
        if (at[0] == '%' && (at[1] == 'u' || at[1] == 'c')) {
            if (!*(at[1] == 'u' ? user : client)) {
                free(out);
                return NULL;
            }
            strcat(out, *++at == 'u' ? user : client);
        } else {
            strncat(out, at, 1);
        }
    }
    if (!*out || strlen(out) > 65535) {
        free(out);
        return NULL;
    }
    return out;
}

struct seen {
    bool own_yes, own_no, pattern_yes, pattern_no;
};

static void look_at(struct seen *seen, char *line, bool *mine, const char *user, const char *client,
                    unsigned access, const char *topic)
{
    line += strspn(line, " \t");
    size_t len = strlen(line);
    while (len && strchr(" \t\r", line[len - 1]))
        line[--len] = 0;
    if (!*line || *line == '#')
        return;
    size_t key = strcspn(line, " \t");
    const char *rest = line + key + strspn(line + key, " \t");
    if (key == 4) {
        *mine = strcmp(rest, user) == 0;
        return;
    }
    bool pattern = key == 7;
    unsigned granted = ACL_READ | ACL_WRITE;
    size_t first = strcspn(rest, " \t");
    if (rest[first]) {
        granted = rest[0] == 'd' ? 0 : rest[0] == 'w' ? ACL_WRITE : ACL_READ;
        if (first == 9)
            granted = ACL_READ | ACL_WRITE;
        rest += first + strspn(rest + first, " \t");
    }
    if ((!pattern && !*mine) || (granted && !(granted & access)))
        return;
    char *filter = pattern ? replaced(rest, user, client) : strdup(rest);
    if (filter && twin_matches(filter, topic))
        *(pattern   ? granted ? &seen->pattern_yes : &seen->pattern_no
          : granted ? &seen->own_yes
                    : &seen->own_no) = true;
    free(filter);
}

static bool twin_allows(const char *text, const char *user, const char *client, unsigned access,
                        const char *topic)
{
    struct seen seen = {0};
    bool mine = !*user;
    char *copy = strdup(text), *line = copy;
    CHR_ASSERT(copy);
    while (line) {
        char *end = strchr(line, '\n');
        if (end)
            *end = 0;
        look_at(&seen, line, &mine, user, client, access, topic);
        line = end ? end + 1 : NULL;
    }
    free(copy);
    if (seen.own_no || seen.own_yes)
        return !seen.own_no;
    return !strpbrk(user, "+#") && !strpbrk(client, "+#") && !seen.pattern_no && seen.pattern_yes;
}

/* ---- The target -------------------------------------------------------------------------------
 */

static char *take(const uint8_t **data, size_t *size)
{
    const uint8_t *end = *size ? memchr(*data, 0, *size) : NULL;
    size_t len = end ? (size_t)(end - *data) : *size;
    char *out = calloc(1, len + 1);
    CHR_ASSERT(out);
    if (len)
        memcpy(out, *data, len);
    *data += len + (end != NULL);
    *size -= len + (end != NULL);
    return out;
}

static void check(const struct acl *acl, const char *text, const char *user, const char *client,
                  const char *topic)
{
    struct acl_subject subject = {chr_slice_cstr(user), chr_slice_cstr(client)};
    chr_slice name = chr_slice_cstr(topic);
    struct acl_reason why = {0};
    if (mqtt_topic_filter_valid(name)) {
        bool granted = acl_allows_filter(acl, &subject, name, false, &why);
        CHR_ASSERT(why.text);
        bool shared = acl_allows_filter(acl, &subject, name, true, &why);
        CHR_ASSERT(!shared || granted);
        if (mqtt_topic_name_valid(name))
            CHR_ASSERT(granted == acl_allows(acl, &subject, ACL_READ, name, &why) &&
                       granted == shared);
        CHR_ASSERT(acl_filter_covers(name, name));
        CHR_ASSERT(acl_filters_overlap(name, name));
    }
    if (!mqtt_topic_name_valid(name))
        return;
    for (unsigned access = ACL_READ; access <= ACL_WRITE; access++) {
        bool allowed = acl_allows(acl, &subject, access, name, &why);
        CHR_ASSERT(why.text);
        CHR_ASSERT(!allowed || why.line);
        CHR_ASSERT(allowed == twin_allows(text, user, client, access, topic));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 16384)
        return 0;
    char *user = take(&data, &size), *client = take(&data, &size), *topic = take(&data, &size);
    /* The file ends where its allocation ends. */
    uint8_t *file = malloc(size ? size : 1);
    CHR_ASSERT(file);
    if (size)
        memcpy(file, data, size);
    struct acl *acl = NULL;
    struct chr_errmsg msg = {{0}};
    chr_err err = acl_parse(chr_slice_of(file, size), "f", &acl, &msg);
    CHR_ASSERT((err == CHR_OK) == (acl != NULL));
    if (err) {
        CHR_ASSERT(err == CHR_EINVAL);
        CHR_ASSERT(strncmp(msg.text, "f:", 2) == 0);
    } else {
        char *text = take(&data, &size); /* no zero byte in it: such a line is refused */
        if (size == 0)
            check(acl, text, user, client, topic);
        free(text);
    }
    acl_free(acl);
    free(file);
    free(user);
    free(client);
    free(topic);
    return 0;
}
