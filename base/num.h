/* base/num.h: numbers and text, exactly and without a locale. */
#ifndef CHR_BASE_NUM_H
#define CHR_BASE_NUM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

/* Decoders in the way of the house: above 0 bytes used, below 0 a chr_err (CHR_EMALFORMED: no
 * number here; CHR_ERANGE: does not fit). They read a prefix; callers check that all was used.
 *
 * chr_parse_number reads a JSON number (RFC 8259 section 6: no leading +, no leading zeros, no
 * ".5"). is_int: it had neither fraction nor exponent and fits int64; *i64 is then exact and *f64
 * the nearest. Doubles are correctly rounded whatever the number of digits, and no locale matters.
 * What stops in the middle ("1.", "2e") or begins with a zero too many ("01") is malformed. *i64 is
 * 0 unless is_int. */
int chr_parse_number(chr_slice text, bool *is_int, int64_t *i64, double *f64);
/* Decimal integer with optional sign. */
int chr_parse_i64(chr_slice text, int64_t *out);
/* As SQL and CSV allow: sign, digits, ".5", "5.", exponent, and nan/inf/infinity in any case. */
int chr_parse_f64(chr_slice text, double *out);
/* "64MiB", "64M", "1g", "4096" → bytes; "10s", "5m", "7d", "100ms", "2h", "1w" → microseconds. The
 * whole slice must be the number. All byte units are powers of 1024, in any case; a duration needs
 * its unit, "0" excepted. CHR_EMALFORMED or CHR_ERANGE. */
CHR_MUST_USE chr_err chr_parse_bytes(chr_slice text, uint64_t *bytes);
CHR_MUST_USE chr_err chr_parse_duration_us(chr_slice text, int64_t *us);

/* Room enough for any result below, zero included. */
#define CHR_NUM_TEXT_MAX 32
/* The shortest decimal form that reads back the same: "21.5", "1e+300", "-0", "NaN", "Infinity",
 * "-Infinity". Returns the length; zero-terminated. */
size_t chr_format_f64(double v, char out[CHR_NUM_TEXT_MAX]);
size_t chr_format_i64(int64_t v, char out[CHR_NUM_TEXT_MAX]);
size_t chr_format_u64(uint64_t v, char out[CHR_NUM_TEXT_MAX]);

#endif
