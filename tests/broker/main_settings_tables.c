/* tests/broker/main_settings_tables.c: the tables of settings as text, for config_docs.py.
 *
 *     chr_test_settings_tables           a line for each option, fields separated by tabs:
 *         part kind name alias letter scope default values reload mosquitto help
 *     chr_test_settings_tables --try     reads lines `part TAB key value`, and answers each with
 *         `ok TAB key TAB value` or `error TAB sentence`, as if it stood alone in a file
 *
 * part: node, or listener for the options of a listener's block. kind: setting; custom, whose value
 * is not always what its field says; section, include; refused, no effect, only; heading. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/commands/listener_settings.h"
#include "broker/commands/settings.h"

static const char *kind_word(enum option_kind kind)
{
    switch (kind) {
    case OPTION_HEADING:
        return "heading";
    case OPTION_LATER:
        return "refused";
    case OPTION_NO_MEANING:
        return "no effect";
    case OPTION_ONLY:
        return "only";
    case OPTION_SECTION:
        return "section";
    case OPTION_INCLUDE:
        return "include";
    case OPTION_CUSTOM:
        return "custom";
    default:
        return "setting";
    }
}

static const char *scope_word(enum option_scope scope)
{
    return scope == OPTION_FLAG_ONLY         ? "flag"
           : scope == OPTION_NOT_ENVIRONMENT ? "not environment"
           : scope == OPTION_IN_SECTIONS     ? "in listeners"
                                             : "anywhere";
}

static void bytes_text(uint64_t bytes, char *out, size_t size)
{
    static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    while (bytes && bytes % 1024 == 0 && unit < 4) {
        bytes /= 1024;
        unit++;
    }
    snprintf(out, size, "%" PRIu64 "%s", bytes, units[unit]);
}

static void range(const struct option *option, char *out, size_t size)
{
    enum option_kind kind = option->kind;
    bool bytes = kind == OPTION_BYTES32 || kind == OPTION_BYTES64;
    bool u16 = kind == OPTION_U16 || kind == OPTION_SECONDS16;
    const char *unit = kind == OPTION_SECONDS16 || kind == OPTION_SECONDS32 ? "s"
                       : kind == OPTION_MS32                                ? "ms"
                                                                            : "";
    char least[32], most[32];
    uint64_t max = option->max ? option->max : u16 ? UINT16_MAX : 0;
    snprintf(least, sizeof least, "%" PRIu64 "%s", option->min, option->min ? unit : "");
    snprintf(most, sizeof most, "%" PRIu64 "%s", max, unit);
    if (bytes) {
        bytes_text(option->min, least, sizeof least);
        bytes_text(max, most, sizeof most);
    }
    if (max)
        snprintf(out, size, "%s to %s", least, most);
    else
        snprintf(out, size, "from %s", least);
}

static void values(const struct option *option, char *out, size_t size)
{
    switch (option->kind) {
    case OPTION_U16:
    case OPTION_U32:
    case OPTION_BYTES32:
    case OPTION_BYTES64:
    case OPTION_SECONDS16:
    case OPTION_SECONDS32:
    case OPTION_MS32:
        range(option, out, size);
        break;
    case OPTION_BOOL:
        snprintf(out, size, "true, false");
        break;
    case OPTION_CHOICE:
    case OPTION_ONLY:
        out[0] = 0;
        for (const struct option_choice *c = option->choices; c->word; c++)
            snprintf(out + strlen(out), size - strlen(out), "%s%s",
                     c == option->choices ? "" : ", ", c->word);
        break;
    default:
        snprintf(out, size, "%s",
                 !option->value                   ? ""
                 : !strcmp(option->value, "BOOL") ? "true, false"
                                                  : option->value);
        break;
    }
}

/* `standard`, else the field's, else what a sentence of the help says in brackets at its end. That
 * of a bool goes before its field: it may depend on other settings. */
static void default_text(const struct option *option, const void *defaults, char *out, size_t size)
{
    size_t len = option->help ? strlen(option->help) : 0;
    const char *open = len && option->help[len - 1] == ')' ? strrchr(option->help, '(') : NULL;
    options_value(option, defaults, out, size);
    if (option->standard)
        snprintf(out, size, "%s", option->standard);
    else if (open && (!out[0] || option->kind == OPTION_CUSTOM || option->kind == OPTION_BOOL))
        snprintf(out, size, "%.*s", (int)(len - (size_t)(open - option->help) - 2), open + 1);
}

static void print_table(const char *part, const struct option *table, size_t count,
                        const void *defaults)
{
    for (size_t i = 0; i < count; i++) {
        const struct option *option = &table[i];
        char standard[512] = "", allowed[512] = "";
        values(option, allowed, sizeof allowed);
        if (!strcmp(kind_word(option->kind), "setting") || option->kind == OPTION_CUSTOM)
            default_text(option, defaults, standard, sizeof standard);
        printf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", part, kind_word(option->kind),
               option->name, option->alias ? option->alias : "",
               option->letter ? (char[]){option->letter, 0} : "", scope_word(option->scope),
               standard, allowed, option->reload ? "yes" : "no",
               option->mosquitto ? option->mosquitto : "", option->help ? option->help : "");
    }
}

static const struct option *find_option(const struct option *table, size_t count, const char *line)
{
    char name[128];
    size_t len = strcspn(line, " \t=\n");
    snprintf(name, sizeof name, "%.*s", (int)len, line);
    for (char *p = name; *p; p++)
        if (*p == '_')
            *p = '-';
    for (size_t i = 0; i < count; i++)
        if (!strcmp(table[i].name, name) || (table[i].alias && !strcmp(table[i].alias, name)))
            return &table[i];
    return NULL;
}

static void try_line(const char *part, const char *line)
{
    static struct settings settings;
    struct chr_errmsg msg = {{0}};
    size_t node_count, listener_count;
    const struct option *node = settings_table(&node_count);
    const struct option *of_listener = listener_table(&listener_count);
    bool in_block = !strcmp(part, "listener");
    char text[4096], value[1024] = "";
    memset(&settings, 0, sizeof settings);
    broker_config_default(&settings.config);
    options_init(&settings.options, node, node_count, &settings);
    listeners_begin(&settings);
    snprintf(text, sizeof text, "%s%s\n",
             in_block ? "per_listener_settings true\nlistener 1884 127.0.0.1\n" : "", line);
    chr_err err = options_text(&settings.options, "file", chr_slice_cstr(text), &msg);
    const struct option *option = in_block ? find_option(of_listener, listener_count, line) : NULL;
    const void *target = &settings.config.listeners[1];
    if (!option) {
        option = find_option(node, node_count, line);
        target = &settings;
    }
    if (!err && option)
        options_value(option, target, value, sizeof value);
    if (err)
        printf("error\t%s\n", msg.text);
    else
        printf("ok\t%s\t%s\n", option ? option->name : "", value);
    settings_free(&settings);
}

int main(int argc, char **argv)
{
    static struct settings defaults;
    broker_config_default(&defaults.config);
    defaults.sync_interval_s = 5;
    char line[4096];
    if (argc == 2 && !strcmp(argv[1], "--try")) {
        while (fgets(line, sizeof line, stdin)) {
            char *tab = strchr(line, '\t');
            if (!tab)
                return EXIT_FAILURE;
            *tab = 0;
            tab[1 + strcspn(tab + 1, "\n")] = 0;
            try_line(line, tab + 1);
            fflush(stdout);
        }
        return EXIT_SUCCESS;
    }
    size_t count;
    const struct option *table = settings_table(&count);
    print_table("node", table, count, &defaults);
    table = listener_table(&count);
    struct listener_config listener;
    listener_config_default(&listener);
    print_table("listener", table, count, &listener);
    return EXIT_SUCCESS;
}
