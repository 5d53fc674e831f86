/* sqlfront/functions_math.c: functions of numbers. Results outside their type are errors (22003),
 * arguments outside a function's domain too. */
#include <math.h>

#include "base/hash.h"
#include "base/random.h"
#include "sqlfront/exec/kernels.h"
#include "sqlfront/functions.h"

static bool int_overflow(sql_call *c)
{
    return sql__call_fail(c, "22003", "INT is out of range");
}
static bool float_result(sql_call *c, double r, bool finite_in, sql_val *out)
{
    if (isinf(r) && finite_in)
        return sql__call_fail(c, "22003", "FLOAT is out of range");
    out->f = r;
    return true;
}

static bool f_abs_int(sql_call *c, const sql_val *a, sql_val *out)
{
    if (a[0].i == INT64_MIN)
        return int_overflow(c);
    out->i = a[0].i < 0 ? -a[0].i : a[0].i;
    return true;
}
static bool f_sign_int(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->i = (a[0].i > 0) - (a[0].i < 0);
    return true;
}
static bool f_same_int(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->i = a[0].i;
    return true;
}
static bool f_mod_int(sql_call *c, const sql_val *a, sql_val *out)
{
    if (a[1].i == 0)
        return sql__call_fail(c, "22012", "division by zero");
    out->i = a[1].i == -1 ? 0 : a[0].i % a[1].i;
    return true;
}
static bool f_div_int(sql_call *c, const sql_val *a, sql_val *out)
{
    if (a[1].i == 0)
        return sql__call_fail(c, "22012", "division by zero");
    if (a[1].i == -1 && a[0].i == INT64_MIN)
        return int_overflow(c);
    out->i = a[0].i / a[1].i;
    return true;
}
static bool f_gcd(sql_call *c, const sql_val *a, sql_val *out)
{
    uint64_t x = a[0].i < 0 ? 0 - (uint64_t)a[0].i : (uint64_t)a[0].i;
    uint64_t y = a[1].i < 0 ? 0 - (uint64_t)a[1].i : (uint64_t)a[1].i;
    while (y) {
        uint64_t r = x % y;
        x = y;
        y = r;
    }
    if (x > INT64_MAX)
        return int_overflow(c);
    out->i = (int64_t)x;
    return true;
}

#define FLOAT_FN(name, expr)                                                                       \
    static bool name(sql_call *c, const sql_val *a, sql_val *out)                                  \
    {                                                                                              \
        (void)c;                                                                                   \
        double x = a[0].f;                                                                         \
        out->f = (expr);                                                                           \
        return true;                                                                               \
    }
FLOAT_FN(f_abs, fabs(x))
FLOAT_FN(f_ceil, ceil(x))
FLOAT_FN(f_floor, floor(x))
FLOAT_FN(f_trunc, trunc(x))
FLOAT_FN(f_sign, isnan(x) ? x : (double)((x > 0) - (x < 0)))
FLOAT_FN(f_sin, sin(x))
FLOAT_FN(f_cos, cos(x))
FLOAT_FN(f_tan, tan(x))
FLOAT_FN(f_atan, atan(x))
FLOAT_FN(f_tanh, tanh(x))
FLOAT_FN(f_cbrt, cbrt(x))
FLOAT_FN(f_radians, x *(M_PI / 180))
FLOAT_FN(f_degrees, x *(180 / M_PI))
FLOAT_FN(f_round, nearbyint(x)) /* half to even, as PostgreSQL rounds float8 */

static bool f_exp(sql_call *c, const sql_val *a, sql_val *out)
{
    return float_result(c, exp(a[0].f), !isinf(a[0].f), out);
}
static bool f_sinh(sql_call *c, const sql_val *a, sql_val *out)
{
    return float_result(c, sinh(a[0].f), !isinf(a[0].f), out);
}
static bool f_cosh(sql_call *c, const sql_val *a, sql_val *out)
{
    return float_result(c, cosh(a[0].f), !isinf(a[0].f), out);
}
static bool f_asin(sql_call *c, const sql_val *a, sql_val *out)
{
    if (a[0].f < -1 || a[0].f > 1)
        return sql__call_fail(c, "22003", "input is out of range");
    out->f = asin(a[0].f);
    return true;
}
static bool f_acos(sql_call *c, const sql_val *a, sql_val *out)
{
    if (a[0].f < -1 || a[0].f > 1)
        return sql__call_fail(c, "22003", "input is out of range");
    out->f = acos(a[0].f);
    return true;
}
static bool f_atan2(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->f = atan2(a[0].f, a[1].f);
    return true;
}
static bool f_sqrt(sql_call *c, const sql_val *a, sql_val *out)
{
    if (a[0].f < 0)
        return sql__call_fail(c, "2201F", "cannot take square root of a negative number");
    out->f = sqrt(a[0].f);
    return true;
}
static bool log_domain(sql_call *c, double x)
{
    if (x == 0)
        return sql__call_fail(c, "2201E", "cannot take logarithm of zero");
    if (x < 0)
        return sql__call_fail(c, "2201E", "cannot take logarithm of a negative number");
    return true;
}
static bool f_ln(sql_call *c, const sql_val *a, sql_val *out)
{
    out->f = log(a[0].f);
    return log_domain(c, a[0].f);
}
static bool f_log10(sql_call *c, const sql_val *a, sql_val *out)
{
    out->f = log10(a[0].f);
    return log_domain(c, a[0].f);
}
static bool f_log2(sql_call *c, const sql_val *a, sql_val *out)
{
    out->f = log2(a[0].f);
    return log_domain(c, a[0].f);
}
static bool f_log_base(sql_call *c, const sql_val *a, sql_val *out)
{
    if (!log_domain(c, a[0].f) || !log_domain(c, a[1].f))
        return false;
    double base = log(a[0].f);
    if (base == 0)
        return sql__call_fail(c, "22012", "division by zero");
    out->f = log(a[1].f) / base;
    return true;
}
static bool f_power(sql_call *c, const sql_val *a, sql_val *out)
{
    double x = a[0].f, y = a[1].f;
    if (x == 0 && y < 0)
        return sql__call_fail(c, "2201F", "zero raised to a negative power is undefined");
    if (x < 0 && isfinite(y) && y != floor(y))
        return sql__call_fail(c, "2201F",
                              "a negative number raised to a non-integer power yields a complex "
                              "result");
    return float_result(c, pow(x, y), !isinf(x) && !isinf(y), out);
}
static bool f_mod(sql_call *c, const sql_val *a, sql_val *out)
{
    if (a[1].f == 0)
        return sql__call_fail(c, "22012", "division by zero");
    out->f = fmod(a[0].f, a[1].f);
    return true;
}
static bool f_div(sql_call *c, const sql_val *a, sql_val *out)
{
    if (a[1].f == 0)
        return sql__call_fail(c, "22012", "division by zero");
    out->f = trunc(a[0].f / a[1].f);
    return true;
}

/* To n decimal places by way of the decimal text, so that 2.675 with two places is what a reader of
 * the shortest form would write (half away from zero), not what its binary digits say. */
static double round_decimal(double x, int64_t places, bool round)
{
    if (!isfinite(x) || places > 300)
        return x;
    char text[CHR_NUM_TEXT_MAX];
    size_t len = chr_format_f64(x, text);
    /* digits and decimal exponent of the shortest form */
    char digits[CHR_NUM_TEXT_MAX];
    int count = 0, point = -1, exponent = 0;
    bool negative = false;
    for (size_t i = 0; i < len; i++) {
        char ch = text[i];
        if (ch == '-' && i == 0) {
            negative = true;
        } else if (ch == '.') {
            point = count;
        } else if (ch == 'e') {
            int64_t e = 0;
            size_t at = i + 1 + (text[i + 1] == '+');
            (void)chr_parse_i64(chr_slice_of(text + at, len - at), &e);
            exponent = (int)e;
            break;
        } else {
            digits[count++] = ch;
        }
    }
    if (point < 0)
        point = count;
    int64_t keep = (int64_t)point + exponent + places; /* digits that stay */
    if (keep >= count)
        return x;
    bool up = round && keep >= 0 && digits[keep] >= '5';
    int n = keep < 0 ? 0 : (int)keep;
    for (int i = n - 1; up && i >= 0; i--) {
        if (digits[i] != '9') {
            digits[i]++;
            up = false;
        } else {
            digits[i] = '0';
        }
    }
    char result[64];
    int at = 0;
    if (negative)
        result[at++] = '-';
    if (up)
        result[at++] = '1';
    for (int i = 0; i < n; i++)
        result[at++] = digits[i];
    if (n == 0 && !up)
        return negative ? -0.0 : 0.0;
    result[at++] = 'e';
    at += (int)chr_format_i64(-places, result + at);
    double r = x;
    (void)chr_parse_f64(chr_slice_of(result, (size_t)at), &r);
    return r;
}
static bool f_round_n(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->f = round_decimal(a[0].f, CHR_MAX(a[1].i, INT64_C(-400)), true);
    return true;
}
static bool f_trunc_n(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->f = round_decimal(a[0].f, CHR_MAX(a[1].i, INT64_C(-400)), false);
    return true;
}

static bool f_pi(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    (void)a;
    out->f = M_PI;
    return true;
}
static bool f_random(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)a;
    struct chr_random random = {c->q->random_state};
    out->f = chr_random_f64(&random);
    c->q->random_state = random.state;
    return true;
}
static bool f_isnan(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->b = a[0].f != a[0].f;
    return true;
}
static bool f_isfinite(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->b = fabs(a[0].f) < INFINITY;
    return true;
}

#define F DB_FLOAT
#define I DB_INT
static const struct sql_function functions[] = {
    {"abs", I, 1, 1, 0, {I}, f_abs_int, NULL, NULL},
    {"abs", F, 1, 1, 0, {F}, f_abs, NULL, NULL},
    {"sign", I, 1, 1, 0, {I}, f_sign_int, NULL, NULL},
    {"sign", F, 1, 1, 0, {F}, f_sign, NULL, NULL},
    {"ceil", I, 1, 1, 0, {I}, f_same_int, NULL, NULL},
    {"ceil", F, 1, 1, 0, {F}, f_ceil, NULL, NULL},
    {"ceiling", I, 1, 1, 0, {I}, f_same_int, NULL, NULL},
    {"ceiling", F, 1, 1, 0, {F}, f_ceil, NULL, NULL},
    {"floor", I, 1, 1, 0, {I}, f_same_int, NULL, NULL},
    {"floor", F, 1, 1, 0, {F}, f_floor, NULL, NULL},
    {"trunc", I, 1, 1, 0, {I}, f_same_int, NULL, NULL},
    {"trunc", F, 1, 1, 0, {F}, f_trunc, NULL, NULL},
    {"trunc", F, 2, 2, 0, {F, I}, f_trunc_n, NULL, NULL},
    {"round", I, 1, 1, 0, {I}, f_same_int, NULL, NULL},
    {"round", F, 1, 1, 0, {F}, f_round, NULL, NULL},
    {"round", F, 2, 2, 0, {F, I}, f_round_n, NULL, NULL},
    {"mod", I, 2, 2, 0, {I, I}, f_mod_int, NULL, NULL},
    {"mod", F, 2, 2, 0, {F, F}, f_mod, NULL, NULL},
    {"div", I, 2, 2, 0, {I, I}, f_div_int, NULL, NULL},
    {"div", F, 2, 2, 0, {F, F}, f_div, NULL, NULL},
    {"gcd", I, 2, 2, 0, {I, I}, f_gcd, NULL, NULL},
    {"sqrt", F, 1, 1, 0, {F}, f_sqrt, NULL, NULL},
    {"cbrt", F, 1, 1, 0, {F}, f_cbrt, NULL, NULL},
    {"power", F, 2, 2, 0, {F, F}, f_power, NULL, NULL},
    {"pow", F, 2, 2, 0, {F, F}, f_power, NULL, NULL},
    {"exp", F, 1, 1, 0, {F}, f_exp, NULL, NULL},
    {"ln", F, 1, 1, 0, {F}, f_ln, NULL, NULL},
    {"log", F, 1, 1, 0, {F}, f_log10, NULL, NULL},
    {"log", F, 2, 2, 0, {F, F}, f_log_base, NULL, NULL},
    {"log10", F, 1, 1, 0, {F}, f_log10, NULL, NULL},
    {"log2", F, 1, 1, 0, {F}, f_log2, NULL, NULL},
    {"sin", F, 1, 1, 0, {F}, f_sin, NULL, NULL},
    {"cos", F, 1, 1, 0, {F}, f_cos, NULL, NULL},
    {"tan", F, 1, 1, 0, {F}, f_tan, NULL, NULL},
    {"asin", F, 1, 1, 0, {F}, f_asin, NULL, NULL},
    {"acos", F, 1, 1, 0, {F}, f_acos, NULL, NULL},
    {"atan", F, 1, 1, 0, {F}, f_atan, NULL, NULL},
    {"atan2", F, 2, 2, 0, {F, F}, f_atan2, NULL, NULL},
    {"sinh", F, 1, 1, 0, {F}, f_sinh, NULL, NULL},
    {"cosh", F, 1, 1, 0, {F}, f_cosh, NULL, NULL},
    {"tanh", F, 1, 1, 0, {F}, f_tanh, NULL, NULL},
    {"radians", F, 1, 1, 0, {F}, f_radians, NULL, NULL},
    {"degrees", F, 1, 1, 0, {F}, f_degrees, NULL, NULL},
    {"pi", F, 0, 0, 0, {0}, f_pi, NULL, NULL},
    {"random", F, 0, 0, SQL_FN_VOLATILE, {0}, f_random, NULL, NULL},
    {"isnan", DB_BOOLEAN, 1, 1, 0, {F}, f_isnan, NULL, NULL},
    {"isfinite", DB_BOOLEAN, 1, 1, 0, {F}, f_isfinite, NULL, NULL},
};
const struct sql_function_list sql__math_functions = {functions, CHR_COUNT_OF(functions)};
