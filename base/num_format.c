/* base/num_format.c: writing numbers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

/* At most 20 digits and a zero at out. */
static size_t write_u64(uint64_t v, char *out)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                                "25262728293031323334353637383940414243444546474849"
                                "50515253545556575859606162636465666768697071727374"
                                "75767778798081828384858687888990919293949596979899";
    char text[20], *at = text + sizeof text;
    while (v >= 100) {
        at -= 2;
        memcpy(at, pairs + v % 100 * 2, 2);
        v /= 100;
    }
    if (v >= 10) {
        at -= 2;
        memcpy(at, pairs + v * 2, 2);
    } else {
        *--at = (char)('0' + v);
    }
    size_t len = (size_t)(text + sizeof text - at);
    memcpy(out, at, len);
    out[len] = '\0';
    return len;
}

size_t chr_format_u64(uint64_t v, char out[CHR_NUM_TEXT_MAX])
{
    return write_u64(v, out);
}

size_t chr_format_i64(int64_t v, char out[CHR_NUM_TEXT_MAX])
{
    if (v >= 0)
        return write_u64((uint64_t)v, out);
    out[0] = '-';
    return 1 + write_u64(-(uint64_t)v, out + 1);
}

/* The shortest digits (no zeros at either end) with v = 0.d1d2d3... * 10^point; v > 0, finite. */
static int shortest_digits(double v, char digits[20], int *point)
{
    char text[40];
    int precision = 15;
    /* Doubles of normal size need 15 to 17 digits before zeros are dropped; a denormal's last bit
     * is so coarse that fewer must be tried. */
    if (v < 0x1p-1022)
        precision = 1;
    for (;; precision++) {
        snprintf(text, sizeof text, "%.*e", precision - 1, v);
        if (precision == 17 || strtod(text, NULL) == v)
            break;
    }
    int count = 0;
    const char *p = text;
    for (; *p != 'e'; p++)
        if (*p >= '0' && *p <= '9') /* the point may be the locale's */
            digits[count++] = *p;
    *point = atoi(p + 1) + 1;
    while (count > 1 && digits[count - 1] == '0')
        count--;
    return count;
}

size_t chr_format_f64(double v, char out[CHR_NUM_TEXT_MAX])
{
    char *at = out;
    if (v != v) {
        memcpy(out, "NaN", 4);
        return 3;
    }
    if (__builtin_signbit(v)) {
        *at++ = '-';
        v = -v;
    }
    if (v > 0x1.fffffffffffffp1023) {
        memcpy(at, "Infinity", 9);
        return (size_t)(at - out) + 8;
    }
    if (v == 0) {
        memcpy(at, "0", 2);
        return (size_t)(at - out) + 1;
    }
    char digits[20];
    int point;
    int count = shortest_digits(v, digits, &point);
    /* The layout of JavaScript's Number::toString. */
    if (point > 21 || point < -5) {
        *at++ = digits[0];
        if (count > 1) {
            *at++ = '.';
            memcpy(at, digits + 1, (size_t)count - 1);
            at += count - 1;
        }
        *at++ = 'e';
        *at++ = point > 0 ? '+' : '-';
        at += write_u64((uint64_t)abs(point - 1), at);
        return (size_t)(at - out);
    }
    if (point <= 0) {
        memcpy(at, "0.00000", (size_t)(2 - point));
        at += 2 - point;
        memcpy(at, digits, (size_t)count);
        at += count;
    } else if (count <= point) {
        memcpy(at, digits, (size_t)count);
        memset(at + count, '0', (size_t)(point - count));
        at += point;
    } else {
        memcpy(at, digits, (size_t)point);
        at[point] = '.';
        memcpy(at + point + 1, digits + point, (size_t)(count - point));
        at += count + 1;
    }
    *at = '\0';
    return (size_t)(at - out);
}
