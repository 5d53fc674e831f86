#include "broker/auth/acl.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "proto/mqtt/topic.h"

/* Longest filter after %c and %u were replaced: an MQTT string. */
#define EXPANDED_MAX 65535u

struct rule {
    char *filter; /* owned */
    uint32_t len;
    uint32_t line;
    uint8_t access; /* set; 0: deny */
    bool pattern;   /* holds %c or %u */
};

struct acl_list {
    _Atomic uint32_t refs; /* of those that stand alone */
    struct rule *rules;    /* denials first, else in the order they were added */
    uint32_t count, max;
    uint32_t denials;
};

struct acl_user {
    struct acl_user *next; /* of the bucket */
    uint64_t hash;
    struct acl_list list;
    uint32_t name_len;
    uint8_t name[];
};

struct acl {
    struct acl_list anonymous, patterns;
    struct acl_user **buckets;
    size_t mask, users;
    uint32_t rules;
};

static const char no_rule[] = "no rule allows it",
                  no_rule_shared[] = "no rule allows all of it, which it takes to share it";
static const char denied[] = "a rule denies it";
static const char unsafe[] = "patterns are not for names with + or #";

/* ---- Lists of rules -----------------------------------------------------------------------------
 */

static void list_clear(struct acl_list *list)
{
    for (uint32_t i = 0; i < list->count; i++)
        free(list->rules[i].filter);
    free(list->rules);
    list->rules = NULL;
    list->count = list->max = list->denials = 0;
}

chr_err acl_list_new(struct acl_list **out)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return CHR_ENOMEM;
    atomic_init(&(*out)->refs, 1);
    return CHR_OK;
}

void acl_list_ref(struct acl_list *list)
{
    atomic_fetch_add_explicit(&list->refs, 1, memory_order_relaxed);
}

void acl_list_unref(struct acl_list *list)
{
    if (!list || atomic_fetch_sub_explicit(&list->refs, 1, memory_order_acq_rel) != 1)
        return;
    list_clear(list);
    free(list);
}

/* As a filter, with anything in place of %c and %u. */
static bool filter_ok(chr_slice filter)
{
    return mqtt_topic_filter_valid(filter) && mqtt_topic_levels(filter) <= MQTT_TOPIC_LEVELS_MAX;
}

chr_err acl_list_add(struct acl_list *list, unsigned access, chr_slice filter, bool pattern,
                     uint32_t line)
{
    if (!filter_ok(filter))
        return CHR_EINVAL;
    if (list->count == list->max) {
        uint32_t max = list->max ? list->max * 2 : 4;
        struct rule *bigger = realloc(list->rules, max * sizeof *bigger);
        if (!bigger)
            return CHR_ENOMEM;
        list->rules = bigger;
        list->max = max;
    }
    char *copy = chr_slice_dup_cstr(filter);
    if (!copy)
        return CHR_ENOMEM;
    uint32_t at = access ? list->count : list->denials;
    memmove(list->rules + at + 1, list->rules + at, (list->count - at) * sizeof *list->rules);
    list->rules[at] = (struct rule){.filter = copy,
                                    .len = (uint32_t)filter.len,
                                    .line = line,
                                    .access = (uint8_t)access,
                                    .pattern = pattern};
    list->count++;
    list->denials += access == 0;
    return CHR_OK;
}

/* ---- %c and %u ----------------------------------------------------------------------------------
 */

struct expanded {
    chr_slice filter;
    uint8_t *heap; /* to be freed; NULL: none */
    bool no_memory;
    uint8_t stack[256];
};

static bool has_wildcard_byte(chr_slice name)
{
    return name.len && (memchr(name.ptr, '+', name.len) || memchr(name.ptr, '#', name.len));
}

/* False: it can't match anything (a name is missing or the result too long), or no memory: then a
 * rule that allows allows nothing, and one that denies denies. A name with a wildcard would make a
 * rule on one topic one on many: where that is put in, nothing is allowed either. */
static bool expand(const struct rule *rule, const struct acl_subject *subject, struct expanded *e)
{
    e->heap = NULL;
    e->no_memory = false;
    e->filter = chr_slice_of(rule->filter, rule->len);
    if (!rule->pattern)
        return true;
    size_t len = 0;
    for (uint32_t i = 0; i < rule->len; i++) {
        bool name = rule->filter[i] == '%' && i + 1 < rule->len &&
                    (rule->filter[i + 1] == 'c' || rule->filter[i + 1] == 'u');
        if (!name) {
            len++;
            continue;
        }
        chr_slice with = rule->filter[++i] == 'c' ? subject->client_id : subject->user;
        if (with.len == 0)
            return false; /* as Mosquitto: not for who has no name */
        if (rule->access && has_wildcard_byte(with))
            return false;
        len += with.len;
    }
    if (len == 0 || len > EXPANDED_MAX)
        return false;
    uint8_t *at = e->stack;
    if (len > sizeof e->stack) {
        at = e->heap = malloc(len);
        e->no_memory = !at;
        if (!at)
            return false;
    }
    e->filter = chr_slice_of(at, len);
    for (uint32_t i = 0; i < rule->len; i++) {
        bool name = rule->filter[i] == '%' && i + 1 < rule->len;
        chr_slice piece = chr_slice_of(rule->filter + i, 1);
        if (name && rule->filter[i + 1] == 'c')
            piece = subject->client_id, i++;
        else if (name && rule->filter[i + 1] == 'u')
            piece = subject->user, i++;
        if (piece.len)
            memcpy(at, piece.ptr, piece.len);
        at += piece.len;
    }
    return true;
}

/* ---- Verdicts -----------------------------------------------------------------------------------
 */

static void tell(struct acl_reason *why, uint32_t line, const char *text)
{
    if (why)
        *why = (struct acl_reason){line, text};
}

static bool rule_matches(const struct rule *rule, const struct acl_subject *subject,
                         chr_slice topic)
{
    struct expanded e;
    if (!expand(rule, subject, &e))
        return e.no_memory && rule->access == 0;
    bool matches = mqtt_topic_matches(e.filter, topic);
    free(e.heap);
    return matches;
}

enum verdict { VERDICT_NONE, VERDICT_YES, VERDICT_NO };

static enum verdict judge(const struct acl_list *list, const struct acl_subject *subject,
                          unsigned access, chr_slice topic, struct acl_reason *why)
{
    for (uint32_t i = 0; i < list->count; i++) {
        const struct rule *rule = &list->rules[i];
        if (rule->access && !(rule->access & access))
            continue;
        if (!rule_matches(rule, subject, topic))
            continue;
        tell(why, rule->line, rule->access ? "a rule allows it" : denied);
        return rule->access ? VERDICT_YES : VERDICT_NO;
    }
    return VERDICT_NONE;
}

/* Level by level. `#` stands for any rest, also for none at all ("a/#" and "a"). */
static bool overlap(struct mqtt_level_iter a, struct mqtt_level_iter b, bool first)
{
    chr_slice x = {0}, y = {0};
    for (;; first = false) {
        bool has_x = mqtt_level_next(&a, &x), has_y = mqtt_level_next(&b, &y);
        bool all_x = has_x && chr_slice_eq(x, CHR_LIT("#"));
        bool all_y = has_y && chr_slice_eq(y, CHR_LIT("#"));
        /* Wildcards at the start don't match names that start with `$` [MQTT-4.7.2-1]. */
        if (first && ((has_x && x.len && x.ptr[0] == '$') != (has_y && y.len && y.ptr[0] == '$')))
            return false;
        if (all_x || all_y)
            return true;
        if (!has_x || !has_y)
            return !has_x && !has_y;
        bool one_x = chr_slice_eq(x, CHR_LIT("+")), one_y = chr_slice_eq(y, CHR_LIT("+"));
        if (!one_x && !one_y && !chr_slice_eq(x, y))
            return false;
    }
}

bool acl_filters_overlap(chr_slice a, chr_slice b)
{
    return overlap(mqtt_level_iter(a), mqtt_level_iter(b), true);
}

bool acl_filter_covers(chr_slice outer, chr_slice inner)
{
    struct mqtt_level_iter a = mqtt_level_iter(outer), b = mqtt_level_iter(inner);
    chr_slice x = {0}, y = {0};
    for (bool first = true;; first = false) {
        bool has_x = mqtt_level_next(&a, &x), has_y = mqtt_level_next(&b, &y);
        if (first && ((has_x && x.len && x.ptr[0] == '$') != (has_y && y.len && y.ptr[0] == '$')))
            return false;
        if (has_x && chr_slice_eq(x, CHR_LIT("#")))
            return true;
        if (!has_x || !has_y)
            return !has_x && !has_y;
        if (chr_slice_eq(y, CHR_LIT("#")))
            return false;
        if (!chr_slice_eq(x, CHR_LIT("+")) && !chr_slice_eq(x, y))
            return false;
    }
}

/* A shared subscription takes messages away from the other members, so nothing of its filter may be
 * closed to this one: one rule has to cover it, and no denial may touch it. */
static enum verdict judge_shared(const struct acl_list *list, const struct acl_subject *subject,
                                 chr_slice filter, struct acl_reason *why)
{
    enum verdict verdict = VERDICT_NONE;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct rule *rule = &list->rules[i];
        struct expanded e;
        if (rule->access && (!(rule->access & ACL_READ) || verdict == VERDICT_YES))
            continue;
        if (!expand(rule, subject, &e)) {
            if (e.no_memory && rule->access == 0)
                return VERDICT_NO;
            continue;
        }
        bool hit = rule->access ? acl_filter_covers(e.filter, filter)
                                : acl_filters_overlap(e.filter, filter);
        free(e.heap);
        if (!hit)
            continue;
        tell(why, rule->line,
             rule->access ? "a rule allows it" : "a denial touches the filter, and it is shared");
        if (!rule->access)
            return VERDICT_NO;
        verdict = VERDICT_YES;
    }
    return verdict;
}

/* A filter is refused by a denial that covers it and granted by a rule that touches it. */
static enum verdict judge_filter(const struct acl_list *list, const struct acl_subject *subject,
                                 chr_slice filter, struct acl_reason *why)
{
    for (uint32_t i = 0; i < list->count; i++) {
        const struct rule *rule = &list->rules[i];
        struct expanded e;
        if (rule->access && !(rule->access & ACL_READ))
            continue;
        if (!expand(rule, subject, &e)) {
            if (e.no_memory && rule->access == 0)
                return VERDICT_NO;
            continue;
        }
        bool hit = rule->access ? acl_filters_overlap(e.filter, filter)
                                : acl_filter_covers(e.filter, filter);
        free(e.heap);
        if (!hit)
            continue;
        tell(why, rule->line, rule->access ? "a rule allows it" : denied);
        return rule->access ? VERDICT_YES : VERDICT_NO;
    }
    return VERDICT_NONE;
}

bool acl_list_allows(const struct acl_list *list, const struct acl_subject *subject,
                     unsigned access, chr_slice topic, struct acl_reason *why)
{
    tell(why, 0, no_rule);
    return judge(list, subject, access, topic, why) == VERDICT_YES;
}

bool acl_list_allows_filter(const struct acl_list *list, const struct acl_subject *subject,
                            chr_slice filter, bool shared, struct acl_reason *why)
{
    tell(why, 0, shared ? no_rule_shared : no_rule);
    return (shared ? judge_shared : judge_filter)(list, subject, filter, why) == VERDICT_YES;
}

static const struct acl_list *list_of(const struct acl *acl, chr_slice user)
{
    if (user.len == 0)
        return &acl->anonymous;
    uint64_t hash = chr_hash_slice(user, chr_hash_seed());
    for (const struct acl_user *u = acl->buckets[hash & acl->mask]; u; u = u->next)
        if (u->hash == hash && chr_slice_eq(chr_slice_of(u->name, u->name_len), user))
            return &u->list;
    return NULL;
}

/* Are the patterns for this client? */
static bool patterns_apply(const struct acl *acl, const struct acl_subject *subject,
                           struct acl_reason *why)
{
    if (acl->patterns.count == 0)
        return false;
    if (!has_wildcard_byte(subject->user) && !has_wildcard_byte(subject->client_id))
        return true;
    tell(why, 0, unsafe);
    return false;
}

bool acl_allows(const struct acl *acl, const struct acl_subject *subject, unsigned access,
                chr_slice topic, struct acl_reason *why)
{
    tell(why, 0, no_rule);
    const struct acl_list *own = list_of(acl, subject->user);
    enum verdict v = own ? judge(own, subject, access, topic, why) : VERDICT_NONE;
    if (v == VERDICT_NONE && patterns_apply(acl, subject, why))
        v = judge(&acl->patterns, subject, access, topic, why);
    return v == VERDICT_YES;
}

bool acl_allows_filter(const struct acl *acl, const struct acl_subject *subject, chr_slice filter,
                       bool shared, struct acl_reason *why)
{
    enum verdict (*ask)(const struct acl_list *, const struct acl_subject *, chr_slice,
                        struct acl_reason *) = shared ? judge_shared : judge_filter;
    tell(why, 0, shared ? no_rule_shared : no_rule);
    const struct acl_list *own = list_of(acl, subject->user);
    enum verdict v = own ? ask(own, subject, filter, why) : VERDICT_NONE;
    if (v == VERDICT_NONE && patterns_apply(acl, subject, why))
        v = ask(&acl->patterns, subject, filter, why);
    return v == VERDICT_YES;
}

/* ---- The file -----------------------------------------------------------------------------------
 */

static void grow(struct acl *acl)
{
    size_t count = (acl->mask + 1) * 2;
    struct acl_user **buckets = calloc(count, sizeof *buckets);
    if (!buckets)
        return;
    for (size_t i = 0; i <= acl->mask; i++)
        while (acl->buckets[i]) {
            struct acl_user *u = acl->buckets[i];
            acl->buckets[i] = u->next;
            u->next = buckets[u->hash & (count - 1)];
            buckets[u->hash & (count - 1)] = u;
        }
    free((void *)acl->buckets);
    acl->buckets = buckets;
    acl->mask = count - 1;
}

static struct acl_list *user_list(struct acl *acl, chr_slice name)
{
    const struct acl_list *known = list_of(acl, name);
    if (known)
        return (struct acl_list *)(uintptr_t)known;
    struct acl_user *u = calloc(1, sizeof *u + name.len);
    if (!u)
        return NULL;
    if (acl->users++ > acl->mask)
        grow(acl);
    u->hash = chr_hash_slice(name, chr_hash_seed());
    u->name_len = (uint32_t)name.len;
    memcpy(u->name, name.ptr, name.len);
    u->next = acl->buckets[u->hash & acl->mask];
    acl->buckets[u->hash & acl->mask] = u;
    return &u->list;
}

void acl_free(struct acl *acl)
{
    if (!acl)
        return;
    list_clear(&acl->anonymous);
    list_clear(&acl->patterns);
    for (size_t i = 0; acl->buckets && i <= acl->mask; i++)
        while (acl->buckets[i]) {
            struct acl_user *u = acl->buckets[i];
            acl->buckets[i] = u->next;
            list_clear(&u->list);
            free(u);
        }
    free((void *)acl->buckets);
    free(acl);
}

uint32_t acl_rules_count(const struct acl *acl)
{
    return acl->rules;
}

static chr_slice trim(chr_slice s)
{
    while (s.len && (s.ptr[0] == ' ' || s.ptr[0] == '\t'))
        s.ptr++, s.len--;
    while (s.len &&
           (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t' || s.ptr[s.len - 1] == '\r'))
        s.len--;
    return s;
}

/* The first word; *rest is what follows, trimmed. */
static chr_slice word(chr_slice s, chr_slice *rest)
{
    size_t n = 0;
    while (n < s.len && s.ptr[n] != ' ' && s.ptr[n] != '\t')
        n++;
    *rest = trim(chr_slice_of(s.ptr + n, s.len - n));
    return chr_slice_of(s.ptr, n);
}

struct reading {
    struct acl *acl;
    struct acl_list *current; /* of the last `user`, or the anonymous one */
    const char *path;
    uint32_t line;
    struct chr_errmsg *msg;
};

static chr_err wrong(const struct reading *r, const char *what, chr_slice value)
{
    return chr_fail(r->msg, CHR_EINVAL, "%s:%u: %s \"%.*s\"", r->path, r->line, what,
                    (int)CHR_MIN(value.len, (size_t)100), (const char *)value.ptr);
}

static chr_err read_rule(struct reading *r, chr_slice rest, bool pattern)
{
    static const struct {
        const char *word;
        unsigned access;
    } accesses[] = {
        {"read", ACL_READ}, {"write", ACL_WRITE}, {"readwrite", ACL_READ | ACL_WRITE}, {"deny", 0}};
    unsigned access = ACL_READ | ACL_WRITE;
    chr_slice filter = rest, after;
    chr_slice first = word(rest, &after);
    if (after.len) { /* a topic alone may be called "read" */
        size_t i = 0;
        while (i < CHR_COUNT_OF(accesses) && !chr_slice_eq(first, chr_slice_cstr(accesses[i].word)))
            i++;
        if (i == CHR_COUNT_OF(accesses))
            return wrong(r, "expected read, write, readwrite or deny before a topic, not", first);
        access = accesses[i].access;
        filter = after;
    }
    if (filter.len == 0)
        return wrong(r, "a topic is missing after",
                     pattern ? CHR_LIT("pattern") : CHR_LIT("topic"));
    chr_err err =
        acl_list_add(pattern ? &r->acl->patterns : r->current, access, filter, pattern, r->line);
    if (err == CHR_EINVAL)
        return wrong(r, "not a valid topic filter:", filter);
    if (err)
        return chr_fail(r->msg, err, "%s:%u: out of memory", r->path, r->line);
    r->acl->rules++;
    return CHR_OK;
}

static chr_err read_line(struct reading *r, chr_slice line)
{
    line = trim(line);
    if (line.len == 0 || line.ptr[0] == '#')
        return CHR_OK;
    if (line.len > ACL_LINE_BYTES_MAX)
        return wrong(r, "the line is too long:", line);
    if (memchr(line.ptr, 0, line.len))
        return wrong(r, "a zero byte in the line", CHR_LIT(""));
    chr_slice rest;
    chr_slice key = word(line, &rest);
    if (chr_slice_eq(key, CHR_LIT("topic")))
        return read_rule(r, rest, false);
    if (chr_slice_eq(key, CHR_LIT("pattern")))
        return read_rule(r, rest, true);
    if (!chr_slice_eq(key, CHR_LIT("user")))
        return wrong(r, "a line begins with user, topic or pattern, not with", key);
    if (rest.len == 0)
        return wrong(r, "a name is missing after", key);
    r->current = user_list(r->acl, rest);
    return r->current ? CHR_OK : chr_fail(r->msg, CHR_ENOMEM, "%s: out of memory", r->path);
}

chr_err acl_parse(chr_slice text, const char *path, struct acl **out, struct chr_errmsg *msg)
{
    *out = NULL;
    struct acl *acl = calloc(1, sizeof *acl);
    if (acl)
        acl->buckets = calloc(64, sizeof *acl->buckets);
    if (!acl || !acl->buckets) {
        acl_free(acl);
        return chr_fail(msg, CHR_ENOMEM, "%s: out of memory", path);
    }
    acl->mask = 63;
    struct reading r = {.acl = acl, .current = &acl->anonymous, .path = path, .msg = msg};
    chr_err err = CHR_OK;
    while (text.len && !err) {
        const uint8_t *end = memchr(text.ptr, '\n', text.len);
        size_t len = end ? (size_t)(end - text.ptr) : text.len;
        r.line++;
        err = read_line(&r, chr_slice_of(text.ptr, len));
        len += end != NULL;
        text.ptr += len;
        text.len -= len;
    }
    if (err) {
        acl_free(acl);
        return err;
    }
    *out = acl;
    return CHR_OK;
}
