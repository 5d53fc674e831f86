/* broker/options_help.c: a table of options as text, defaults included, 80 columns where it fits.
 */
#include <inttypes.h>
#include <string.h>

#include "broker/options.h"

#define HELP_COLUMN 34
#define HELP_WIDTH  88

static void format_bytes(uint64_t bytes, char *out, size_t size)
{
    static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    while (bytes && bytes % 1024 == 0 && unit < 4) {
        bytes /= 1024;
        unit++;
    }
    snprintf(out, size, "%" PRIu64 "%s", bytes, units[unit]);
}

void options_value(const struct option *option, const void *target, char *out, size_t size)
{
    const char *field = (const char *)target + option->offset;
    bool on;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;
    const char *text;
    enum option_kind kind = option->kind == OPTION_CUSTOM ? option->field : option->kind;
    out[0] = 0;
    switch (kind) {
    case OPTION_BOOL:
        memcpy(&on, field, sizeof on);
        snprintf(out, size, "%s", on ? "true" : "false");
        break;
    case OPTION_TEXT:
        memcpy(&text, field, sizeof text);
        snprintf(out, size, "%s", text ? text : "");
        break;
    case OPTION_U16:
    case OPTION_SECONDS16:
        memcpy(&u16, field, sizeof u16);
        snprintf(out, size, "%u%s", u16, kind == OPTION_U16 ? "" : "s");
        break;
    case OPTION_U32:
    case OPTION_SECONDS32:
    case OPTION_MS32:
        memcpy(&u32, field, sizeof u32);
        if (u32 != UINT32_MAX)
            snprintf(out, size, "%" PRIu32 "%s", u32,
                     kind == OPTION_U32         ? ""
                     : kind == OPTION_SECONDS32 ? "s"
                     : u32                      ? "ms"
                                                : "");
        break;
    case OPTION_BYTES32:
        memcpy(&u32, field, sizeof u32);
        format_bytes(u32, out, size);
        break;
    case OPTION_BYTES64:
        memcpy(&u64, field, sizeof u64);
        format_bytes(u64, out, size);
        break;
    case OPTION_CHOICE:
        memcpy(&u32, field, sizeof u32);
        for (const struct option_choice *c = option->choices; c->word; c++)
            if (c->value == u32)
                snprintf(out, size, "%s", c->word);
        break;
    default:
        break;
    }
}

/* Words of `text` from column `at` on, continued under HELP_COLUMN. */
static void wrap(FILE *out, const char *text, size_t at)
{
    while (*text) {
        size_t len = strcspn(text, " ");
        if (at > HELP_COLUMN && at + 1 + len > HELP_WIDTH) {
            fprintf(out, "\n%*s", HELP_COLUMN, "");
            at = HELP_COLUMN;
        }
        if (at > HELP_COLUMN)
            at += (size_t)fprintf(out, " ");
        fprintf(out, "%.*s", (int)len, text);
        at += len;
        text += len;
        while (*text == ' ')
            text++;
    }
    fputc('\n', out);
}

void options_help(FILE *out, const struct option *table, size_t count, const void *defaults)
{
    for (size_t i = 0; i < count; i++) {
        const struct option *option = &table[i];
        if (option->kind == OPTION_HEADING) {
            fprintf(out, "\n%s\n", option->help);
            continue;
        }
        if (option->kind == OPTION_LATER || option->kind == OPTION_NO_MEANING ||
            option->kind == OPTION_ONLY)
            continue;
        char left[96], standard[128], text[512];
        char letter[8] = "    ";
        if (option->letter)
            snprintf(letter, sizeof letter, "-%c, ", option->letter);
        int at = snprintf(left, sizeof left, "  %s--%s%s%s", letter, option->name,
                          option->value ? " " : "", option->value ? option->value : "");
        if (at >= HELP_COLUMN)
            fprintf(out, "%s\n%*s", left, HELP_COLUMN, "");
        else
            fprintf(out, "%-*s", HELP_COLUMN, left);
        standard[0] = 0;
        if (option->kind != OPTION_BOOL && option->kind != OPTION_CUSTOM)
            options_value(option, defaults, standard, sizeof standard);
        snprintf(text, sizeof text, standard[0] ? "%s (%s)" : "%s", option->help, standard);
        wrap(out, text, HELP_COLUMN);
    }
}
