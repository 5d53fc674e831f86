#include "broker/options.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/num.h"
#include "base/slice.h"

#define FILE_BYTES_MAX  (1u << 20) /* a config file larger than this is something else */
#define VALUE_BYTES_MAX 65536
#define NAME_BYTES_MAX  64

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

static bool is_named(const struct option *option, const char *name)
{
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
    unsigned edits = distance(word, candidate);
    unsigned allowed = (unsigned)CHR_MAX(strlen(word) / 3, (size_t)2);
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
    const char *near = nearest_option(options, flag->name + 2, true);
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
        if (!option || option->scope == OPTION_FLAG_ONLY)
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

/* Another option of the file that fills the same field: the same key, or `address` beside
 * `listener`. 0: none. */
static unsigned line_of_rival(const struct options *options, const struct option *option)
{
    if (in_section(options, option))
        return options->section.lines[option - options->section.table];
    if (option->kind == OPTION_SECTION)
        return 0;
    for (size_t i = 0; i < options->count; i++) {
        const struct option *other = &options->table[i];
        if (options->source[i] == OPTION_FROM_FILE && other->kind != OPTION_LATER &&
            other->kind != OPTION_SECTION && (other == option || other->offset == option->offset))
            return options->line[i];
    }
    return 0;
}

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
    unsigned before = line_of_rival(options, option);
    if (before)
        return chr_fail(msg, CHR_EINVAL, "%s:%u: %s sets again what line %u has set", path, number,
                        name, before);
    bool none = !value.len && !equals;
    if (none && takes_value(option) && option->kind != OPTION_LATER)
        return chr_fail(msg, CHR_EINVAL, "%s:%u: %s needs a value: %s", path, number, name,
                        option->value);
    struct place place = {.source = OPTION_FROM_FILE, .path = path, .line = number, .name = name};
    return set_at(options, option, none ? NULL : (const char *)value.ptr, value.len, &place, msg);
}

chr_err options_text(struct options *options, const char *path, chr_slice text,
                     struct chr_errmsg *msg)
{
    static const uint8_t byte_order_mark[] = {0xef, 0xbb, 0xbf};
    chr_slice mark = chr_slice_of(byte_order_mark, sizeof byte_order_mark);
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
    size_t len = 0;
    char *text = malloc(FILE_BYTES_MAX);
    if (!text)
        err = chr_fail(msg, CHR_ENOMEM, "out of memory");
    while (!err && len < FILE_BYTES_MAX) {
        ssize_t n = read(fd, text + len, FILE_BYTES_MAX - len);
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

enum option_source options_source(const struct options *options, const char *name)
{
    const struct option *option = find(options, name);
    CHR_ASSERT(option);
    return options->source[option - options->table];
}
