/* base/num_units.c: sizes and durations as people write them in a configuration. */
#include <stdbool.h>

#include "base/num.h"

/* In any case, whatever the locale; units are letters. */
static bool is_word(const uint8_t *p, size_t len, const char *word)
{
    for (size_t i = 0; i < len; i++)
        if ((p[i] | 0x20) != (uint8_t)word[i])
            return false;
    return word[len] == '\0';
}

struct unit {
    const char *name;
    uint64_t factor;
};

/* Digits, then one of the units; all of text. */
static chr_err parse_with_unit(chr_slice text, const struct unit *units, size_t units_count,
                               uint64_t max, uint64_t *out)
{
    const uint8_t *p = text.ptr, *end = p + text.len;
    uint64_t v = 0;
    bool over = false;
    for (; p < end && *p >= '0' && *p <= '9'; p++)
        over |= __builtin_mul_overflow(v, 10u, &v) ||
                __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v);
    if (p == text.ptr)
        return CHR_EMALFORMED;
    for (size_t i = 0; i < units_count; i++) {
        if (!is_word(p, (size_t)(end - p), units[i].name))
            continue;
        if (over || __builtin_mul_overflow(v, units[i].factor, &v) || v > max)
            return CHR_ERANGE;
        *out = v;
        return CHR_OK;
    }
    return CHR_EMALFORMED;
}

chr_err chr_parse_bytes(chr_slice text, uint64_t *bytes)
{
    static const struct unit units[] = {
        {"", 1},
        {"b", 1},
        {"k", 1u << 10},
        {"kb", 1u << 10},
        {"kib", 1u << 10},
        {"m", 1u << 20},
        {"mb", 1u << 20},
        {"mib", 1u << 20},
        {"g", 1u << 30},
        {"gb", 1u << 30},
        {"gib", 1u << 30},
        {"t", UINT64_C(1) << 40},
        {"tb", UINT64_C(1) << 40},
        {"tib", UINT64_C(1) << 40},
    };
    return parse_with_unit(text, units, CHR_COUNT_OF(units), UINT64_MAX, bytes);
}

chr_err chr_parse_duration_us(chr_slice text, int64_t *us)
{
    static const struct unit units[] = {
        {"us", 1},
        {"ms", 1000},
        {"s", 1000000},
        {"m", UINT64_C(60) * 1000000},
        {"h", UINT64_C(3600) * 1000000},
        {"d", UINT64_C(86400) * 1000000},
        {"w", UINT64_C(604800) * 1000000},
    };
    if (chr_slice_eq(text, CHR_LIT("0"))) {
        *us = 0;
        return CHR_OK;
    }
    uint64_t v;
    chr_err err = parse_with_unit(text, units, CHR_COUNT_OF(units), INT64_MAX, &v);
    if (err == CHR_OK)
        *us = (int64_t)v;
    return err;
}
