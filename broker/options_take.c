/* broker/options_take.c: what of freshly read settings a running node may take over. */
#include <string.h>

#include "broker/options.h"

static enum option_kind field_kind(const struct option *option)
{
    return option->kind == OPTION_CUSTOM ? option->field : option->kind;
}

/* 0: it has no field that could be compared. */
static size_t field_size(enum option_kind kind)
{
    switch (kind) {
    case OPTION_TEXT:
        return sizeof(const char *);
    case OPTION_BOOL:
        return sizeof(bool);
    case OPTION_U16:
    case OPTION_SECONDS16:
        return sizeof(uint16_t);
    case OPTION_U32:
    case OPTION_BYTES32:
    case OPTION_SECONDS32:
    case OPTION_MS32:
    case OPTION_CHOICE:
        return sizeof(uint32_t);
    case OPTION_BYTES64:
        return sizeof(uint64_t);
    default:
        return 0;
    }
}

static bool same_text(const void *a, const void *b)
{
    const char *text_a, *text_b;
    memcpy(&text_a, a, sizeof text_a);
    memcpy(&text_b, b, sizeof text_b);
    return text_a && text_b ? !strcmp(text_a, text_b) : text_a == text_b;
}

void options_take(const struct option *table, size_t count, void *target, const void *fresh,
                  options_changed_fn *changed, void *ctx)
{
    for (size_t i = 0; i < count; i++) {
        const struct option *option = &table[i];
        enum option_kind kind = field_kind(option);
        size_t size = option->scope == OPTION_FLAG_ONLY ? 0 : field_size(kind);
        if (!size)
            continue;
        void *now = (char *)target + option->offset;
        const void *then = (const char *)fresh + option->offset;
        if (kind == OPTION_TEXT ? same_text(now, then) : !memcmp(now, then, size))
            continue;
        if (option->reload)
            memcpy(now, then, size);
        changed(ctx, option, option->reload);
    }
}
