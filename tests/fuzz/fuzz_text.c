/* tests/fuzz/fuzz_text.c: the readers of text in base/: numbers, timestamps, units, UTF-8.
 *
 * Input: any bytes. Each reader gets a copy that ends where its allocation ends, so that ASan sees
 * one byte too far; what was read must survive being written and read again. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/num.h"
#include "base/timestamp.h"
#include "base/utf8.h"

static void check_f64(double v)
{
    char text[CHR_NUM_TEXT_MAX];
    size_t len = chr_format_f64(v, text);
    double back;
    CHR_ASSERT(chr_parse_f64(chr_slice_of(text, len), &back) == (int)len);
    CHR_ASSERT(isnan(v) ? isnan(back) : memcmp(&v, &back, sizeof v) == 0);
}

/* strtod on a zero-terminated copy must use as much and find the same. */
static void check_with_strtod(chr_slice text, int used, double v)
{
    char *copy = malloc((size_t)used + 1);
    CHR_ASSERT(copy);
    memcpy(copy, text.ptr, (size_t)used);
    copy[used] = '\0';
    char *end;
    double twin = strtod(copy, &end);
    CHR_ASSERT(end == copy + used);
    CHR_ASSERT(isnan(v) ? isnan(twin) : memcmp(&v, &twin, sizeof v) == 0);
    free(copy);
}

static void check_numbers(chr_slice text)
{
    bool is_int;
    int64_t i64;
    double f64, sql;
    int used = chr_parse_number(text, &is_int, &i64, &f64);
    CHR_ASSERT(used != 0);
    CHR_ASSERT(used <= (int)text.len);
    if (used > 0) {
        check_with_strtod(text, used, f64);
        check_f64(f64);
        if (is_int) {
            int64_t back;
            CHR_ASSERT(chr_parse_i64(text, &back) >= used);
            CHR_ASSERT(chr_parse_i64(chr_slice_of(text.ptr, (size_t)used), &back) == used);
            CHR_ASSERT(back == i64);
        }
    }
    used = chr_parse_f64(text, &sql);
    CHR_ASSERT(used != 0);
    if (used > 0) {
        check_with_strtod(text, used, sql);
        check_f64(sql);
    }
}

static void check_timestamps(chr_slice text)
{
    int64_t us;
    if (chr_timestamp_parse(text, &us) == CHR_OK) {
        char out[CHR_TIMESTAMP_TEXT_MAX];
        size_t len = chr_timestamp_format(us, out);
        int64_t back;
        CHR_ASSERT(chr_timestamp_parse(chr_slice_of(out, len), &back) == CHR_OK);
        CHR_ASSERT(back == us);
    }
    if (text.len >= 8) {
        int64_t number;
        double f64;
        struct chr_civil civil;
        memcpy(&number, text.ptr, 8);
        memcpy(&f64, text.ptr, 8);
        chr_civil_from_us(number, &civil);
        check_f64(f64);
        if (chr_timestamp_from_i64(number, &us) == CHR_OK) {
            int64_t back;
            chr_civil_from_us(us, &civil);
            CHR_ASSERT(chr_civil_to_us(&civil, &back) == CHR_OK);
            CHR_ASSERT(back == us);
        }
        if (chr_timestamp_from_f64(f64, &us) == CHR_OK)
            chr_civil_from_us(us, &civil);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    CHR_ASSERT(copy);
    if (size)
        memcpy(copy, data, size);
    chr_slice text = chr_slice_of(copy, size);
    check_numbers(text);
    check_timestamps(text);
    uint64_t bytes;
    int64_t us;
    if (chr_parse_duration_us(text, &us) == CHR_OK)
        CHR_ASSERT(us >= 0);
    (void)!chr_parse_bytes(text, &bytes);
    if (chr_utf8_valid_mqtt(text))
        CHR_ASSERT(chr_utf8_valid(text));
    if (chr_utf8_valid(text))
        CHR_ASSERT(chr_utf8_length(text) <= text.len);
    free(copy);
    return 0;
}
