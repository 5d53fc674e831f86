#include "broker/options.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/num.h"
#include "base/slice.h"

#define FILE_BYTES_MAX   (1u << 20) /* a config file larger than this is something else */
#define FILE_BYTES_FIRST 8192u      /* doubled until it fits */
#define VALUE_BYTES_MAX  65536
#define NAME_BYTES_MAX   64
_Static_assert(FILE_BYTES_MAX % FILE_BYTES_FIRST == 0, "doubling meets the maximum");

/* Where a value stands, for messages: "--hot-limit", "chronos.conf:3: hot_limit". */
struct place {
    enum option_source source;
    const char *path; /* files */
    unsigned line;
    const char *name; /* as written */
};

void options_init(struct options *options, const struct option *table, size_t count, void *target)
{
    CHR_ASSERT(count <= OPTIONS_MAX);
    *options = (struct options){.table = table, .count = count, .target = target};
    chr_arena_init(&options->arena, 4096, 4u << 20);
}

void options_free(struct options *options)
{
    chr_arena_free(&options->arena);
}

void options_sections(struct options *options, const struct option *table, size_t count,
                      void *default_target, const bool *everything)
{
    CHR_ASSERT(count <= OPTIONS_MAX);
    options->section = (struct option_section){.table = table,
                                               .count = count,
                                               .target = default_target,
                                               .default_target = default_target,
                                               .everything = everything};
}

void options_open_section(struct options *options, void *target)
{
    options->section.target = target;
    options->section.open = target != options->section.default_target;
    memset(options->section.lines, 0, sizeof options->section.lines);
}

/* Each file, each command line and each variable begins outside of all sections. */
static void leave_section(struct options *options)
{
    options_open_section(options, options->section.default_target);
}

static bool in_section(const struct options *options, const struct option *option)
{
    const struct option_section *section = &options->section;
    return section->table && option >= section->table && option < section->table + section->count;
}

/* ---- Names ------------------------------------------------------------------------------------
 */

static char fold(char c)
{
    return c == '_' ? '-' : c;
}

static bool same_name(const char *a, const char *b)
{
    while (*a && fold(*a) == fold(*b))
        a++, b++;
    return *a == *b;
}

/* "auth-opt-*" stands for all that begin so. */
static bool is_pattern_of(const char *pattern, const char *name)
{
    size_t len = strlen(pattern);
    if (!len || pattern[len - 1] != '*')
        return false;
    for (size_t i = 0; i + 1 < len; i++)
        if (!name[i] || fold(pattern[i]) != fold(name[i]))
            return false;
    return true;
}

static bool is_named(const struct option *option, const char *name)
{
    if (option->kind != OPTION_HEADING && is_pattern_of(option->name, name))
        return true;
    return option->kind != OPTION_HEADING &&
           (same_name(option->name, name) || (option->alias && same_name(option->alias, name)));
}

static const struct option *find_in(const struct option *table, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (is_named(&table[i], name))
            return &table[i];
    return NULL;
}

static const struct option *find(const struct options *options, const char *name)
{
    const struct option_section *section = &options->section;
    const struct option *of_section = find_in(section->table, section->count, name);
    if (of_section && of_section->scope == OPTION_IN_SECTIONS &&
        !(section->open && section->everything && *section->everything))
        of_section = NULL;
    if (of_section && section->open)
        return of_section;
    const struct option *option = find_in(options->table, options->count, name);
    return option ? option : of_section;
}

static const struct option *find_letter(const struct options *options, char letter)
{
    for (size_t i = 0; i < options->count; i++)
        if (options->table[i].letter == letter && letter)
            return &options->table[i];
    return NULL;
}

/* Edits from a to b: insert, delete, replace, swap of neighbours (optimal string alignment). Words
 * longer than the table are not compared. */
static unsigned distance(const char *a, const char *b)
{
    unsigned d[NAME_BYTES_MAX + 1][NAME_BYTES_MAX + 1];
    size_t n = strlen(a), m = strlen(b);
    if (n > NAME_BYTES_MAX || m > NAME_BYTES_MAX)
        return UINT32_MAX;
    for (size_t i = 0; i <= n; i++)
        d[i][0] = (unsigned)i;
    for (size_t j = 0; j <= m; j++)
        d[0][j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        for (size_t j = 1; j <= m; j++) {
            unsigned best = d[i - 1][j - 1] + (fold(a[i - 1]) != fold(b[j - 1]));
            best = CHR_MIN(best, d[i - 1][j] + 1);
            best = CHR_MIN(best, d[i][j - 1] + 1);
            if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) &&
                fold(a[i - 2]) == fold(b[j - 1]))
                best = CHR_MIN(best, d[i - 2][j - 2] + 1);
            d[i][j] = best;
        }
    }
    return d[n][m];
}

/* A third of the word may be wrong, two letters at least: "adress" but not "frobnicate". */
static void consider(const char *word, const char *candidate, unsigned *least, const char **nearest)
{
    size_t len = strlen(word), other = strlen(candidate);
    unsigned allowed = (unsigned)CHR_MAX(len / 3, (size_t)2);
    if (CHR_MAX(len, other) - CHR_MIN(len, other) > allowed)
        return;
    unsigned edits = distance(word, candidate);
    if (edits <= allowed && edits < strlen(candidate) && edits < *least) {
        *least = edits;
        *nearest = candidate;
    }
}

const char *options_nearest(const char *word, const char *const *words)
{
    unsigned least = UINT32_MAX;
    const char *nearest = NULL;
    for (; *words; words++)
        consider(word, *words, &least, &nearest);
    return nearest;
}

static const char *nearest_option(const struct options *options, const char *name, bool flags)
{
    unsigned least = UINT32_MAX;
    const char *nearest = NULL;
    for (size_t i = 0; i < options->count + options->section.count; i++) {
        const struct option *option =
            i < options->count ? &options->table[i] : &options->section.table[i - options->count];
        if (option->kind == OPTION_HEADING || (option->scope == OPTION_FLAG_ONLY && !flags))
            continue;
        consider(name, option->name, &least, &nearest);
        if (option->alias)
            consider(name, option->alias, &least, &nearest);
    }
    return nearest;
}

/* The name as a key of a file is usually written. */
static const char *as_key(const char *name, char out[NAME_BYTES_MAX + 1])
{
    size_t i = 0;
    for (; name[i] && i < NAME_BYTES_MAX; i++)
        out[i] = name[i] == '-' ? '_' : name[i];
    out[i] = 0;
    return out;
}

/* ---- Values -----------------------------------------------------------------------------------
 */

static chr_err bad_number(const char *value, uint64_t min, uint64_t max, struct chr_errmsg *msg)
{
    return chr_fail(msg, CHR_EINVAL, "\"%s\" is not a number from %" PRIu64 " to %" PRIu64, value,
                    min, max);
}

static chr_err parse_bool(const char *value, bool *out, struct chr_errmsg *msg)
{
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};
    for (size_t i = 0; i < CHR_COUNT_OF(yes); i++) {
        if (!strcasecmp(value, yes[i]) || !strcasecmp(value, no[i])) {
            *out = !strcasecmp(value, yes[i]);
            return CHR_OK;
        }
    }
    return chr_fail(msg, CHR_EINVAL, "\"%s\" is neither true nor false", value);
}

static chr_err parse_count(const char *value, uint64_t min, uint64_t max, uint64_t *out,
                           struct chr_errmsg *msg)
{
    chr_slice text = chr_slice_cstr(value);
    int64_t number = 0;
    if (!isdigit((unsigned char)value[0]) || chr_parse_i64(text, &number) != (int)text.len ||
        (uint64_t)number < min || (uint64_t)number > max)
        return bad_number(value, min, max, msg);
    *out = (uint64_t)number;
    return CHR_OK;
}

static chr_err parse_bytes(const char *value, uint64_t min, uint64_t max, uint64_t *out,
                           struct chr_errmsg *msg)
{
    if (chr_parse_bytes(chr_slice_cstr(value), out))
        return chr_fail(msg, CHR_EINVAL, "\"%s\" is not a size; write for example 64MiB", value);
    if (*out < min || *out > max)
        return chr_fail(msg, CHR_EINVAL, "%s is not within %" PRIu64 " and %" PRIu64 " bytes",
                        value, min, max);
    return CHR_OK;
}

/* unit_us: what one of the field's units is; a number without unit is taken when `bare`. */
static chr_err parse_time(const char *value, int64_t unit_us, bool bare, uint64_t min, uint64_t max,
                          uint64_t *out, struct chr_errmsg *msg)
{
    chr_slice text = chr_slice_cstr(value);
    int64_t us = 0, number = 0;
    const char *unit = unit_us == 1000 ? "ms" : "s";
    if (bare && text.len && isdigit((unsigned char)value[0]) &&
        chr_parse_i64(text, &number) == (int)text.len) {
        if (number > INT64_MAX / unit_us)
            number = INT64_MAX / unit_us;
        us = number * unit_us;
    } else if (chr_parse_duration_us(text, &us) || us < 0) {
        return chr_fail(msg, CHR_EINVAL, "\"%s\" is not a duration; write for example 30s or 250ms",
                        value);
    }
    if (us % unit_us)
        return chr_fail(msg, CHR_EINVAL, "\"%s\" is not a whole number of %s", value,
                        unit_us == 1000 ? "milliseconds" : "seconds");
    *out = (uint64_t)(us / unit_us);
    if (*out < min || *out > max)
        return chr_fail(msg, CHR_EINVAL, "%s is not within %" PRIu64 "%s and %" PRIu64 "%s", value,
                        min, unit, max, unit);
    return CHR_OK;
}

static chr_err parse_choice(const struct option *option, const char *value, unsigned *out,
                            struct chr_errmsg *msg)
{
    char all[128];
    size_t len = 0;
    for (const struct option_choice *c = option->choices; c->word; c++) {
        if (!strcmp(c->word, value)) {
            *out = c->value;
            return CHR_OK;
        }
        int n = snprintf(all + len, sizeof all - len, "%s%s",
                         c == option->choices ? ""
                         : c[1].word          ? ", "
                                              : " or ",
                         c->word);
        len = CHR_MIN(len + (size_t)CHR_MAX(n, 0), sizeof all - 1);
    }
    return chr_fail(msg, CHR_EINVAL, "\"%s\" is not %s", value, all);
}

static uint64_t max_of(const struct option *option)
{
    if (option->max)
        return option->max;
    switch (option->kind) {
    case OPTION_U16:
    case OPTION_SECONDS16:
        return UINT16_MAX;
    case OPTION_BYTES64:
        return INT64_MAX;
    default:
        return UINT32_MAX;
    }
}

/* value: lives as long as the options. */
static chr_err set_field(struct options *options, const struct option *option, const char *value,
                         struct chr_errmsg *msg)
{
    void *target = in_section(options, option) ? options->section.target : options->target;
    void *field = (char *)target + option->offset;
    uint64_t min = option->min, max = max_of(option), number = 0;
    unsigned choice = 0;
    bool on = true;
    chr_err err = CHR_OK;
    switch (option->kind) {
    case OPTION_TEXT:
        if (!*value)
            return chr_fail(msg, CHR_EINVAL, "an empty value");
        memcpy(field, &value, sizeof value);
        return CHR_OK;
    case OPTION_BOOL:
        err = value ? parse_bool(value, &on, msg) : CHR_OK;
        if (!err)
            memcpy(field, &on, sizeof on);
        return err;
    case OPTION_CHOICE:
        err = parse_choice(option, value, &choice, msg);
        if (!err)
            memcpy(field, &choice, sizeof choice);
        return err;
    case OPTION_CUSTOM:
    case OPTION_CUSTOM_FLAG:
    case OPTION_SECTION:
        return option->set(options, target, value, msg);
    case OPTION_U16:
    case OPTION_U32:
        err = parse_count(value, min, max, &number, msg);
        break;
    case OPTION_BYTES32:
    case OPTION_BYTES64:
        err = parse_bytes(value, min, max, &number, msg);
        break;
    case OPTION_SECONDS16:
    case OPTION_SECONDS32:
        err = parse_time(value, 1000000, true, min, max, &number, msg);
        break;
    case OPTION_MS32:
        err = parse_time(value, 1000, false, min, max, &number, msg);
        break;
    case OPTION_NO_MEANING:
        return CHR_OK;
    case OPTION_ONLY:
        if (!strcasecmp(value, option->choices->word))
            return CHR_OK;
        if (!strcmp(option->choices->word, "true") || !strcmp(option->choices->word, "false")) {
            err = parse_bool(value, &on, msg);
            if (err || on == !strcmp(option->choices->word, "true"))
                return err;
        }
        return chr_fail(msg, CHR_EINVAL, "%s", option->help);
    case OPTION_INCLUDE:
        return chr_fail(msg, CHR_EINVAL, "it is for a file");
    case OPTION_HEADING:
    case OPTION_LATER:
        return chr_fail(msg, CHR_EINVAL, "%s", option->help);
    }
    if (err)
        return err;
    if (option->kind == OPTION_BYTES64)
        memcpy(field, &number, sizeof number);
    else if (option->kind == OPTION_U16 || option->kind == OPTION_SECONDS16)
        memcpy(field, &(uint16_t){(uint16_t)number}, sizeof(uint16_t));
    else
        memcpy(field, &(uint32_t){(uint32_t)number}, sizeof(uint32_t));
    return CHR_OK;
}

static bool takes_value(const struct option *option)
{
    return option->kind != OPTION_BOOL && option->kind != OPTION_CUSTOM_FLAG;
}

/* Copies the value, sets the field, remembers the place; a message gets the place in front. */
static chr_err set_at(struct options *options, const struct option *option, const char *value,
                      size_t value_len, const struct place *place, struct chr_errmsg *msg)
{
    struct chr_errmsg why = {{0}};
    const char *copy = NULL;
    chr_err err = CHR_OK;
    if (value && (value_len > VALUE_BYTES_MAX || memchr(value, 0, value_len)))
        err = chr_fail(&why, CHR_EINVAL, "the value is too long or has a zero byte");
    if (!err && value) {
        copy = chr_arena_cstr(&options->arena, chr_slice_of(value, value_len));
        if (!copy)
            err = chr_fail(&why, CHR_ENOMEM, "too many settings");
    }
    options->path_now = place->path;
    options->line_now = place->line;
    if (!err)
        err = set_field(options, option, copy, &why);
    if (!err && in_section(options, option)) {
        options->section.lines[option - options->section.table] = place->line;
        options->section.default_set |= !options->section.open;
        return CHR_OK;
    }
    if (!err) {
        size_t i = (size_t)(option - options->table);
        options->source[i] = place->source;
        options->line[i] = place->line;
        options->path[i] = place->path;
        return CHR_OK;
    }
    if (place->source == OPTION_FROM_FILE)
        return chr_fail(msg, err, "%s:%u: %s: %s", place->path, place->line, place->name, why.text);
    return chr_fail(msg, err, "%s: %s", place->name, why.text);
}

/* ---- Flags ------------------------------------------------------------------------------------
 */

struct flag {
    const struct option *option; /* NULL: not in the table */
    char name[NAME_BYTES_MAX];   /* as written, "--hot-limit" or "-p" */
    const char *value;           /* NULL: none here */
};

static chr_err read_flag(const struct options *options, const char *arg, struct flag *flag,
                         struct chr_errmsg *msg)
{
    *flag = (struct flag){0};
    if (arg[0] != '-' || !arg[1])
        return chr_fail(msg, CHR_EINVAL, "unexpected argument \"%s\"", arg);
    if (arg[1] != '-') {
        snprintf(flag->name, sizeof flag->name, "-%c", arg[1]);
        flag->option = find_letter(options, arg[1]);
        if (!flag->option)
            return chr_fail(msg, CHR_EINVAL, "unknown flag -%c", arg[1]);
        if (arg[2] && !takes_value(flag->option))
            return chr_fail(msg, CHR_EINVAL, "-%c takes no value (\"%s\")", arg[1], arg + 2);
        flag->value = arg[2] ? arg + 2 : NULL;
        return CHR_OK;
    }
    const char *equals = strchr(arg, '=');
    size_t len = equals ? (size_t)(equals - arg) : strlen(arg);
    if (len >= sizeof flag->name)
        return chr_fail(msg, CHR_EINVAL, "unknown flag %.60s...", arg);
    memcpy(flag->name, arg, len);
    flag->name[len] = 0;
    flag->value = equals ? equals + 1 : NULL;
    flag->option = find(options, flag->name + 2);
    if (flag->option)
        return CHR_OK;
    const char *near = msg ? nearest_option(options, flag->name + 2, true) : NULL;
    if (near)
        return chr_fail(msg, CHR_EINVAL, "unknown flag %s; did you mean --%s?", flag->name, near);
    return chr_fail(msg, CHR_EINVAL, "unknown flag %s", flag->name);
}

chr_err options_flags(struct options *options, int argc, char **argv, struct chr_errmsg *msg)
{
    leave_section(options);
    for (int i = 0; i < argc; i++) {
        struct flag flag;
        chr_err err = read_flag(options, argv[i], &flag, msg);
        if (err && i > 0 && argv[i][0] != '-') {
            /* `--enable-ingest true`: say how that is written. */
            struct flag before;
            if (!read_flag(options, argv[i - 1], &before, NULL) && !before.value &&
                before.option->kind == OPTION_BOOL)
                return chr_fail(msg, CHR_EINVAL, "unexpected argument \"%s\"; write %s=%s", argv[i],
                                before.name, argv[i]);
        }
        if (err)
            return err;
        if (!flag.value && takes_value(flag.option)) {
            if (i + 1 == argc && flag.option->kind != OPTION_LATER)
                return chr_fail(msg, CHR_EINVAL, "%s needs a value: %s", flag.name,
                                flag.option->value);
            if (i + 1 < argc)
                flag.value = argv[++i];
        }
        if (flag.value && flag.option->kind == OPTION_CUSTOM_FLAG)
            return chr_fail(msg, CHR_EINVAL, "%s takes no value", flag.name);
        struct place place = {.source = OPTION_FROM_FLAG, .name = flag.name};
        err = set_at(options, flag.option, flag.value, flag.value ? strlen(flag.value) : 0, &place,
                     msg);
        if (err)
            return err;
    }
    return CHR_OK;
}

const char *options_peek(const struct options *options, int argc, char **argv, const char *name)
{
    const char *found = NULL;
    for (int i = 0; i < argc; i++) {
        struct flag flag;
        if (read_flag(options, argv[i], &flag, NULL))
            continue;
        if (!flag.value && takes_value(flag.option) && i + 1 < argc)
            flag.value = argv[++i];
        if (is_named(flag.option, name))
            found = flag.value ? flag.value : "";
    }
    return found;
}

/* ---- Environment ------------------------------------------------------------------------------
 */

chr_err options_environment(struct options *options, char *const *environment,
                            struct chr_errmsg *msg)
{
    static const char prefix[] = "CHRONOS_";
    for (; *environment; environment++) {
        const char *equals = strchr(*environment, '=');
        if (!equals || strncmp(*environment, prefix, sizeof prefix - 1))
            continue;
        char variable[NAME_BYTES_MAX + sizeof prefix], name[NAME_BYTES_MAX];
        size_t len = (size_t)(equals - *environment);
        if (len >= sizeof name)
            continue;
        memcpy(variable, *environment, len);
        variable[len] = 0;
        /* Upper case only: CHRONOS_hot_limit is not ours. */
        size_t n = 0;
        bool upper = true;
        for (const char *p = variable + sizeof prefix - 1; *p; p++) {
            upper &= !islower((unsigned char)*p);
            name[n++] = (char)tolower((unsigned char)*p);
        }
        name[n] = 0;
        leave_section(options);
        const struct option *option = upper ? find(options, name) : NULL;
        if (!option || option->scope == OPTION_FLAG_ONLY || option->scope == OPTION_NOT_ENVIRONMENT)
            continue;
        struct place place = {.source = OPTION_FROM_ENVIRONMENT, .name = variable};
        chr_err err = set_at(options, option, equals + 1, strlen(equals + 1), &place, msg);
        if (err)
            return err;
    }
    return CHR_OK;
}

/* ---- Files ------------------------------------------------------------------------------------
 */

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static chr_slice trim(chr_slice s)
{
    while (s.len && is_blank(s.ptr[0]))
        s.ptr++, s.len--;
    while (s.len && is_blank(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

/* Where the files have set the field that option fills: the same key, or `address` beside
 * `listener`. Line 0: nowhere. */
static struct place rival_of(const struct options *options, const struct option *option)
{
    if (option->repeats || option->kind == OPTION_SECTION || option->kind == OPTION_INCLUDE ||
        option->kind == OPTION_NO_MEANING || option->kind == OPTION_LATER)
        return (struct place){0};
    if (in_section(options, option))
        return (struct place){.path = options->path_now,
                              .line = options->section.lines[option - options->section.table]};
    for (size_t i = 0; i < options->count; i++) {
        const struct option *other = &options->table[i];
        bool filled = other->kind != OPTION_LATER && other->kind != OPTION_SECTION &&
                      other->kind != OPTION_NO_MEANING && other->kind != OPTION_ONLY &&
                      other->kind != OPTION_INCLUDE && option->kind != OPTION_ONLY;
        if (options->source[i] == OPTION_FROM_FILE &&
            (other == option || (filled && other->offset == option->offset)))
            return (struct place){.path = options->path[i], .line = options->line[i]};
    }
    return (struct place){0};
}

static chr_err include_dir(struct options *options, const struct place *place, const char *dir,
                           struct chr_errmsg *msg);

static chr_err read_line(struct options *options, const char *path, unsigned number, chr_slice line,
                         struct chr_errmsg *msg)
{
    line = trim(line);
    if (!line.len || line.ptr[0] == '#')
        return CHR_OK;
    size_t len = 0;
    while (len < line.len && !is_blank(line.ptr[len]) && line.ptr[len] != '=')
        len++;
    char name[NAME_BYTES_MAX];
    if (!len || len >= sizeof name || memchr(line.ptr, 0, line.len))
        return chr_fail(msg, CHR_EINVAL, "%s:%u: this is not a setting; write `key value`", path,
                        number);
    memcpy(name, line.ptr, len);
    name[len] = 0;
    chr_slice value = trim(chr_slice_of(line.ptr + len, line.len - len));
    bool equals = value.len && value.ptr[0] == '=';
    if (equals)
        value = trim(chr_slice_of(value.ptr + 1, value.len - 1));

    const struct option *option = find(options, name);
    if (!option || option->scope == OPTION_FLAG_ONLY) {
        char key[NAME_BYTES_MAX + 1];
        const char *near = option ? NULL : nearest_option(options, name, false);
        if (option)
            return chr_fail(msg, CHR_EINVAL, "%s:%u: %s is a flag only", path, number, name);
        if (near)
            return chr_fail(msg, CHR_EINVAL, "%s:%u: unknown key %s; did you mean %s?", path,
                            number, name, as_key(near, key));
        return chr_fail(msg, CHR_EINVAL, "%s:%u: unknown key %s", path, number, name);
    }
    struct place before = rival_of(options, option);
    if (before.line && before.path && strcmp(before.path, path))
        return chr_fail(msg, CHR_EINVAL, "%s:%u: %s sets again what %s:%u has set", path, number,
                        name, before.path, before.line);
    if (before.line)
        return chr_fail(msg, CHR_EINVAL, "%s:%u: %s sets again what line %u has set", path, number,
                        name, before.line);
    bool none = !value.len && !equals;
    bool may_be_bare = option->kind == OPTION_LATER || option->kind == OPTION_NO_MEANING;
    if ((none || (option->kind == OPTION_INCLUDE && !value.len)) && takes_value(option) &&
        !may_be_bare)
        return chr_fail(msg, CHR_EINVAL, "%s:%u: %s needs a value: %s", path, number, name,
                        option->value);
    struct place place = {.source = OPTION_FROM_FILE, .path = path, .line = number, .name = name};
    if (option->kind == OPTION_INCLUDE) {
        char dir[PATH_MAX];
        if (value.len >= sizeof dir)
            return chr_fail(msg, CHR_EINVAL, "%s:%u: %s: the path is too long", path, number, name);
        memcpy(dir, value.ptr, value.len);
        dir[value.len] = 0;
        return include_dir(options, &place, dir, msg);
    }
    return set_at(options, option, none ? NULL : (const char *)value.ptr, value.len, &place, msg);
}

chr_err options_text(struct options *options, const char *path, chr_slice text,
                     struct chr_errmsg *msg)
{
    static const uint8_t byte_order_mark[] = {0xef, 0xbb, 0xbf};
    chr_slice mark = chr_slice_of(byte_order_mark, sizeof byte_order_mark);
    path = chr_arena_cstr(&options->arena, chr_slice_cstr(path));
    if (!path)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    if (!options->included)
        leave_section(options);
    if (chr_slice_starts(text, mark))
        text = chr_slice_of(text.ptr + mark.len, text.len - mark.len);
    for (unsigned number = 1; text.len; number++) {
        const uint8_t *end = memchr(text.ptr, '\n', text.len);
        size_t len = end ? (size_t)(end - text.ptr) : text.len;
        chr_err err = read_line(options, path, number, chr_slice_of(text.ptr, len), msg);
        if (err)
            return err;
        size_t used = end ? len + 1 : len;
        text = chr_slice_of(text.ptr + used, text.len - used);
    }
    return CHR_OK;
}

chr_err options_file(struct options *options, const char *path, struct chr_errmsg *msg)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return chr_fail(msg, CHR_EINVAL, "can't open config file %s: %s", path, strerror(errno));
    chr_err err = CHR_OK;
    size_t len = 0, room = 0;
    char *text = NULL;
    for (;;) {
        if (len == room) {
            if (room == FILE_BYTES_MAX)
                break;
            room = room ? room * 2 : FILE_BYTES_FIRST;
            char *larger = realloc(text, room);
            if (!larger) {
                err = chr_fail(msg, CHR_ENOMEM, "out of memory");
                break;
            }
            text = larger;
        }
        ssize_t n = read(fd, text + len, room - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            err = chr_fail(msg, CHR_EINVAL, "can't read config file %s: %s", path, strerror(errno));
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    if (!err && len == FILE_BYTES_MAX)
        err = chr_fail(msg, CHR_EINVAL, "%s is too large for a config file", path);
    if (!err)
        err = options_text(options, path, chr_slice_of(text, len), msg);
    free(text);
    close(fd);
    return err;
}

/* ---- include_dir ------------------------------------------------------------------------------
 *
 * As mosquitto.conf(5) has it: in the main file only, every *.conf of the directory, upper case
 * before lower case. A file may go on in a listener's block that the main file has opened. */

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_conf(const char *name)
{
    size_t len = strlen(name);
    return len > 5 && name[0] != '.' && !strcmp(name + len - 5, ".conf");
}

static void free_names(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
}

/* Full paths of the *.conf in dir; *count is right on failure, too. */
static chr_err list_conf(const struct place *place, const char *dir, char **names, size_t max,
                         size_t *count, struct chr_errmsg *msg)
{
    *count = 0;
    DIR *d = opendir(dir);
    if (!d)
        return chr_fail(msg, CHR_EINVAL, "%s:%u: %s: can't open directory %s: %s", place->path,
                        place->line, place->name, dir, strerror(errno));
    chr_err err = CHR_OK;
    size_t dir_len = strlen(dir);
    const char *slash = dir_len && dir[dir_len - 1] == '/' ? "" : "/";
    errno = 0;
    for (struct dirent *e; !err && (e = readdir(d)); errno = 0) {
        if (!is_conf(e->d_name))
            continue;
        if (*count == max)
            err = chr_fail(msg, CHR_EINVAL, "%s:%u: %s: more than %d files", place->path,
                           place->line, place->name, OPTIONS_FILES_MAX);
        else if (asprintf(&names[*count], "%s%s%s", dir, slash, e->d_name) < 0)
            err = chr_fail(msg, CHR_ENOMEM, "out of memory");
        else
            ++*count;
    }
    if (!err && errno)
        err = chr_fail(msg, CHR_EINVAL, "%s:%u: %s: can't read directory %s: %s", place->path,
                       place->line, place->name, dir, strerror(errno));
    closedir(d);
    return err;
}

static chr_err include_dir(struct options *options, const struct place *place, const char *dir,
                           struct chr_errmsg *msg)
{
    if (options->included)
        return chr_fail(msg, CHR_EINVAL,
                        "%s:%u: %s: only the main file may include, this one is included itself",
                        place->path, place->line, place->name);
    struct stat main_file, file;
    bool know_main = stat(place->path, &main_file) == 0;
    char *names[OPTIONS_FILES_MAX];
    size_t count = 0;
    chr_err err = list_conf(place, dir, names, OPTIONS_FILES_MAX - options->files, &count, msg);
    qsort(names, count, sizeof names[0], by_bytes);
    options->included = true;
    for (size_t i = 0; !err && i < count; i++) {
        options->files++;
        if (know_main && stat(names[i], &file) == 0 && file.st_dev == main_file.st_dev &&
            file.st_ino == main_file.st_ino)
            err = chr_fail(msg, CHR_EINVAL,
                           "%s:%u: %s: the directory holds this very file; it has to be elsewhere",
                           place->path, place->line, place->name);
        else
            err = options_file(options, names[i], msg);
    }
    options->included = false;
    free_names(names, count);
    return err;
}

const char *options_place(const struct options *options, const char *name, char *out, size_t size)
{
    const struct option *option = find_in(options->table, options->count, name);
    size_t i = option ? (size_t)(option - options->table) : 0;
    char key[NAME_BYTES_MAX + 1];
    out[0] = 0;
    if (!option)
        return out;
    if (options->source[i] == OPTION_FROM_FILE)
        snprintf(out, size, "%s:%u: %s: ", options->path[i], options->line[i],
                 as_key(option->name, key));
    else if (options->source[i] == OPTION_FROM_FLAG)
        snprintf(out, size, "--%s: ", option->name);
    else if (options->source[i] == OPTION_FROM_ENVIRONMENT) {
        as_key(option->name, key);
        for (char *p = key; *p; p++)
            *p = (char)toupper((unsigned char)*p);
        snprintf(out, size, "CHRONOS_%s: ", key);
    }
    return out;
}

enum option_source options_source(const struct options *options, const char *name)
{
    const struct option *option = find(options, name);
    CHR_ASSERT(option);
    return options->source[option - options->table];
}
