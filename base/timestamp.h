/* base/timestamp.h: microseconds since 1970 UTC and ISO 8601 text; proleptic Gregorian calendar,
 * years 0001 to 9999. */
#ifndef CHR_BASE_TIMESTAMP_H
#define CHR_BASE_TIMESTAMP_H

#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

#define CHR_TIMESTAMP_TEXT_MAX 32
#define CHR_US_PER_S           INT64_C(1000000)
#define CHR_US_PER_DAY         (INT64_C(86400) * CHR_US_PER_S)

struct chr_civil {
    int year;        /* 1..9999 */
    int month;       /* 1..12 */
    int day;         /* 1..31 */
    int hour;        /* 0..23 */
    int minute;      /* 0..59 */
    int second;      /* 0..59 */
    int microsecond; /* 0..999999 */
    int weekday;     /* 0 Sunday .. 6; output only */
    int yearday;     /* 1..366; output only */
};

/* "2024-12-10", "2024-12-10T19:13:20.5Z", "2024-12-10 19:13:20+02:00", "20241210T191320Z"; UTC
 * unless it says otherwise. Digits past microseconds are truncated. The whole slice must be the
 * timestamp: CHR_EMALFORMED, or CHR_ERANGE for the 30th of February. */
CHR_MUST_USE chr_err chr_timestamp_parse(chr_slice text, int64_t *us);
/* "2024-12-10T19:13:20.5Z", trailing zeros dropped. Returns the length; zero-terminated. Values
 * outside years 1..9999 are written as microseconds followed by "us". */
size_t chr_timestamp_format(int64_t us, char out[CHR_TIMESTAMP_TEXT_MAX]);
/* A number for a TIMESTAMP: seconds below 1e11 in magnitude, milliseconds below 1e14, microseconds
 * below 1e17, else nanoseconds (design 2.3). CHR_ERANGE for NaN, infinities and what does not fit.
 */
CHR_MUST_USE chr_err chr_timestamp_from_f64(double number, int64_t *us);
CHR_MUST_USE chr_err chr_timestamp_from_i64(int64_t number, int64_t *us);
void chr_civil_from_us(int64_t us, struct chr_civil *out);
CHR_MUST_USE chr_err chr_civil_to_us(const struct chr_civil *civil, int64_t *us);

#endif
