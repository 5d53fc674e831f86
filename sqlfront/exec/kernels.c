/* sqlfront/exec/kernels.c: the inner loops. Nothing here knows an expression. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3") /* -O2 of gcc 12 leaves loops of unknown length scalar */
#endif
#include "sqlfront/exec/kernels.h"

#include <float.h>
#include <math.h>

#include "db/types.h"
#include "sqlfront/ast.h"

/* -- Selections: branch-free, because a branch that is taken half the time costs more than the
 *    whole loop.
 * ----------------------------------------------------------------------------------*/
#define SELECT_LOOP(COND)                                                                          \
    do {                                                                                           \
        uint32_t k = 0;                                                                            \
        if (sel) {                                                                                 \
            if (valid)                                                                             \
                for (uint32_t j = 0; j < count; j++) {                                             \
                    uint32_t i = sel[j];                                                           \
                    out[k] = (uint16_t)i;                                                          \
                    k += (uint32_t)(COND) & (uint32_t)db_bit_get(valid, i);                        \
                }                                                                                  \
            else                                                                                   \
                for (uint32_t j = 0; j < count; j++) {                                             \
                    uint32_t i = sel[j];                                                           \
                    out[k] = (uint16_t)i;                                                          \
                    k += (uint32_t)(COND);                                                         \
                }                                                                                  \
        } else if (valid) {                                                                        \
            for (uint32_t i = 0; i < count; i++) {                                                 \
                out[k] = (uint16_t)i;                                                              \
                k += (uint32_t)(COND) & (uint32_t)db_bit_get(valid, i);                            \
            }                                                                                      \
        } else {                                                                                   \
            for (uint32_t i = 0; i < count; i++) {                                                 \
                out[k] = (uint16_t)i;                                                              \
                k += (uint32_t)(COND);                                                             \
            }                                                                                      \
        }                                                                                          \
        return k;                                                                                  \
    } while (0)

uint32_t sql__k_select_i64(const int64_t *v, const uint64_t *valid, const uint16_t *sel,
                           uint32_t count, int64_t low, int64_t high, bool inside, uint16_t *out)
{
    uint64_t base = (uint64_t)low, span = (uint64_t)high - (uint64_t)low;
    if (inside)
        SELECT_LOOP((uint64_t)v[i] - base <= span);
    SELECT_LOOP((uint64_t)v[i] - base > span);
}

/* NaN is above every number, so > and >= are the negations of <= and <. */
uint32_t sql__k_select_f64(const double *v, const uint64_t *valid, const uint16_t *sel,
                           uint32_t count, int op, double c, uint16_t *out)
{
    switch (op) {
    case SQL_OP_EQ:
        SELECT_LOOP(v[i] == c);
    case SQL_OP_NE:
        SELECT_LOOP(v[i] != c);
    case SQL_OP_LT:
        SELECT_LOOP(v[i] < c);
    case SQL_OP_LE:
        SELECT_LOOP(v[i] <= c);
    case SQL_OP_GT:
        SELECT_LOOP(!(v[i] <= c));
    default:
        SELECT_LOOP(!(v[i] < c));
    }
}

uint32_t sql__k_select_b8(const uint8_t *v, const uint64_t *valid, const uint16_t *sel,
                          uint32_t count, uint16_t *out)
{
    SELECT_LOOP(v[i]);
}

uint32_t sql__k_select_codes(const uint8_t *pass, const uint16_t *codes, const uint64_t *valid,
                             const uint16_t *sel, uint32_t count, uint16_t *out)
{
    SELECT_LOOP(pass[codes[i]]);
}

/* -- Reductions --------------------------------------------------------------------------------*/

SQL_KERNEL static void sum_dense_i64(const int64_t *v, uint32_t count, int64_t *high, uint64_t *low)
{
    int64_t h = 0;
    uint64_t l = 0;
    for (uint32_t i = 0; i < count; i++) {
        h += (int32_t)((uint64_t)v[i] >> 32);
        l += (uint32_t)v[i];
    }
    *high = h;
    *low = l;
}

void sql__k_sum_i64(const int64_t *v, const uint16_t *sel, uint32_t count, int64_t *high,
                    uint64_t *low)
{
    if (!sel) {
        sum_dense_i64(v, count, high, low);
        return;
    }
    int64_t h = 0;
    uint64_t l = 0;
    for (uint32_t j = 0; j < count; j++) {
        int64_t x = v[sel[j]];
        h += x >> 32;
        l += (uint32_t)x;
    }
    *high = h;
    *low = l;
}

/* Eight partial sums: one chain of additions would wait four cycles for each. */
SQL_KERNEL static double sum_dense_f64(const double *v, uint32_t count)
{
    double s[8] = {0};
    uint32_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (uint32_t k = 0; k < 8; k++)
            s[k] += v[i + k];
    for (; i < count; i++)
        s[0] += v[i];
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

double sql__k_sum_f64(const double *v, const uint16_t *sel, uint32_t count)
{
    if (!sel)
        return sum_dense_f64(v, count);
    double a = 0, b = 0, c = 0, d = 0;
    uint32_t j = 0;
    for (; j + 4 <= count; j += 4) {
        a += v[sel[j]];
        b += v[sel[j + 1]];
        c += v[sel[j + 2]];
        d += v[sel[j + 3]];
    }
    for (; j < count; j++)
        a += v[sel[j]];
    return (a + c) + (b + d);
}

SQL_KERNEL static void min_max_dense_i64(const int64_t *v, uint32_t count, int64_t *min,
                                         int64_t *max)
{
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (uint32_t i = 0; i < count; i++) {
        low = v[i] < low ? v[i] : low;
        high = v[i] > high ? v[i] : high;
    }
    *min = low;
    *max = high;
}

void sql__k_min_max_i64(const int64_t *v, const uint16_t *sel, uint32_t count, int64_t *min,
                        int64_t *max)
{
    if (!sel) {
        min_max_dense_i64(v, count, min, max);
        return;
    }
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (uint32_t j = 0; j < count; j++) {
        int64_t x = v[sel[j]];
        low = x < low ? x : low;
        high = x > high ? x : high;
    }
    *min = low;
    *max = high;
}

SQL_KERNEL static bool min_max_dense_f64(const double *v, uint32_t count, double *min, double *max)
{
    double low[4], high[4];
    uint64_t nan = 0;
    for (int k = 0; k < 4; k++) {
        low[k] = INFINITY;
        high[k] = -INFINITY;
    }
    uint32_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (uint32_t k = 0; k < 4; k++) {
            double x = v[i + k];
            nan |= x != x;
            low[k] = x < low[k] ? x : low[k];
            high[k] = x > high[k] ? x : high[k];
        }
    for (; i < count; i++) {
        double x = v[i];
        nan |= x != x;
        low[0] = x < low[0] ? x : low[0];
        high[0] = x > high[0] ? x : high[0];
    }
    for (int k = 1; k < 4; k++) {
        low[0] = low[k] < low[0] ? low[k] : low[0];
        high[0] = high[k] > high[0] ? high[k] : high[0];
    }
    *min = low[0];
    *max = high[0];
    return !nan;
}

bool sql__k_min_max_f64(const double *v, const uint16_t *sel, uint32_t count, double *min,
                        double *max)
{
    if (!sel)
        return min_max_dense_f64(v, count, min, max);
    double low = INFINITY, high = -INFINITY;
    bool nan = false;
    for (uint32_t j = 0; j < count; j++) {
        double x = v[sel[j]];
        nan |= x != x;
        low = x < low ? x : low;
        high = x > high ? x : high;
    }
    *min = low;
    *max = high;
    return !nan;
}

/* -- Groups ------------------------------------------------------------------------------------*/
#define GROUP_LOOP(STATEMENT)                                                                      \
    do {                                                                                           \
        if (sel)                                                                                   \
            for (uint32_t j = 0; j < count; j++) {                                                 \
                uint32_t i = sel[j], g = gids[i];                                                  \
                STATEMENT;                                                                         \
            }                                                                                      \
        else                                                                                       \
            for (uint32_t i = 0; i < count; i++) {                                                 \
                uint32_t g = gids[i];                                                              \
                STATEMENT;                                                                         \
            }                                                                                      \
    } while (0)

void sql__k_group_count(const uint32_t *gids, const uint16_t *sel, uint32_t count,
                        int64_t *restrict counts)
{
    if (sel)
        for (uint32_t j = 0; j < count; j++)
            counts[gids[sel[j]]]++;
    else
        for (uint32_t i = 0; i < count; i++)
            counts[gids[i]]++;
}

void sql__k_group_sum_f64(const double *v, const uint32_t *gids, const uint16_t *sel,
                          uint32_t count, double *restrict sums, int64_t *restrict counts)
{
    GROUP_LOOP(sums[g] += v[i]; counts[g]++);
}

void sql__k_group_sum_i64(const int64_t *v, const uint32_t *gids, const uint16_t *sel,
                          uint32_t count, __int128 *restrict sums, int64_t *restrict counts)
{
    GROUP_LOOP(sums[g] += v[i]; counts[g]++);
}

void sql__k_group_extreme_i64(const int64_t *v, const uint32_t *gids, const uint16_t *sel,
                              uint32_t count, int want, int64_t *restrict values,
                              int64_t *restrict counts)
{
    if (want < 0)
        GROUP_LOOP(if (!counts[g] || v[i] < values[g]) values[g] = v[i]; counts[g]++);
    else
        GROUP_LOOP(if (!counts[g] || v[i] > values[g]) values[g] = v[i]; counts[g]++);
}

/* NaN is above all: it is the least only of NaNs. */
void sql__k_group_extreme_f64(const double *v, const uint32_t *gids, const uint16_t *sel,
                              uint32_t count, int want, double *restrict values,
                              int64_t *restrict counts)
{
    if (want < 0)
        GROUP_LOOP(double x = v[i]; double have = values[g];
                   if (!counts[g] || x < have || (have != have && x == x)) values[g] = x;
                   counts[g]++);
    else
        GROUP_LOOP(double x = v[i]; double have = values[g];
                   if (!counts[g] || x > have || (x != x && have == have)) values[g] = x;
                   counts[g]++);
}

uint32_t sql__k_runs(const uint32_t *gids, const uint16_t *sel, uint32_t count, uint16_t *ends,
                     uint32_t most)
{
    uint32_t runs = 0;
    uint32_t previous = gids[sel ? sel[0] : 0];
    for (uint32_t j = 1; j < count; j++) {
        uint32_t g = gids[sel ? sel[j] : j];
        if (g == previous)
            continue;
        ends[runs++] = (uint16_t)j;
        previous = g;
        if (runs >= most)
            return 0;
    }
    ends[runs++] = (uint16_t)count;
    return runs;
}

SQL_KERNEL static uint32_t count_equal_i64(const int64_t *v, uint32_t count, int64_t x)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < count; i++)
        n += v[i] == x;
    return (uint32_t)n;
}

uint32_t sql__k_extreme_row(const int64_t *v, const uint16_t *sel, uint32_t count, bool least,
                            bool *tie)
{
    int64_t min, max;
    sql__k_min_max_i64(v, sel, count, &min, &max);
    int64_t x = least ? min : max;
    uint32_t j = least ? 0 : count - 1; /* times mostly rise: found at once */
    if (!sel) {
        *tie = count_equal_i64(v, count, x) > 1;
        while (v[j] != x)
            j += least ? 1u : UINT32_MAX;
        return j;
    }
    uint32_t equal = 0;
    for (uint32_t k = 0; k < count; k++)
        equal += v[sel[k]] == x;
    *tie = equal > 1;
    while (v[sel[j]] != x)
        j += least ? 1u : UINT32_MAX;
    return sel[j];
}

/* -- Arithmetic and comparisons ----------------------------------------------------------------*/
#define BINARY_LOOP(T, STATEMENT)                                                                  \
    do {                                                                                           \
        if (step_a && step_b)                                                                      \
            for (uint32_t i = 0; i < n; i++) {                                                     \
                T x = a[i], y = b[i];                                                              \
                STATEMENT;                                                                         \
            }                                                                                      \
        else if (step_a) {                                                                         \
            const T y = b[0];                                                                      \
            for (uint32_t i = 0; i < n; i++) {                                                     \
                T x = a[i];                                                                        \
                STATEMENT;                                                                         \
            }                                                                                      \
        } else if (step_b) {                                                                       \
            const T x = a[0];                                                                      \
            for (uint32_t i = 0; i < n; i++) {                                                     \
                T y = b[i];                                                                        \
                STATEMENT;                                                                         \
            }                                                                                      \
        } else {                                                                                   \
            const T x = a[0], y = b[0];                                                            \
            for (uint32_t i = 0; i < n; i++) {                                                     \
                STATEMENT;                                                                         \
            }                                                                                      \
        }                                                                                          \
    } while (0)

/* Two's complement: a sum overflowed if its sign differs from that of both sides. */
SQL_KERNEL static bool add_i64(const int64_t *a, const int64_t *b, int step_a, int step_b,
                               uint32_t n, int64_t *restrict out)
{
    uint64_t bad = 0;
    BINARY_LOOP(int64_t, uint64_t r = (uint64_t)x + (uint64_t)y;
                bad |= ((uint64_t)x ^ r) & ((uint64_t)y ^ r); out[i] = (int64_t)r);
    return bad >> 63;
}

SQL_KERNEL static bool sub_i64(const int64_t *a, const int64_t *b, int step_a, int step_b,
                               uint32_t n, int64_t *restrict out)
{
    uint64_t bad = 0;
    BINARY_LOOP(int64_t, uint64_t r = (uint64_t)x - (uint64_t)y;
                bad |= ((uint64_t)x ^ (uint64_t)y) & ((uint64_t)x ^ r); out[i] = (int64_t)r);
    return bad >> 63;
}

bool sql__k_mul_i64(const int64_t *a, const int64_t *b, int step_a, int step_b, uint32_t n,
                    int64_t *restrict out)
{
    bool bad = false;
    BINARY_LOOP(int64_t, int64_t r; bad |= __builtin_mul_overflow(x, y, &r); out[i] = r);
    return bad;
}

SQL_KERNEL static bool arith_f64(int op, const double *a, const double *b, int step_a, int step_b,
                                 uint32_t n, double *restrict out)
{
    uint64_t bad = 0; /* not finite: overflow, or an input that was so already */
    switch (op) {
    case SQL_OP_ADD:
        BINARY_LOOP(double, double r = x + y; bad |= !(fabs(r) <= DBL_MAX); out[i] = r);
        break;
    case SQL_OP_SUB:
        BINARY_LOOP(double, double r = x - y; bad |= !(fabs(r) <= DBL_MAX); out[i] = r);
        break;
    case SQL_OP_MUL:
        BINARY_LOOP(double, double r = x * y; bad |= !(fabs(r) <= DBL_MAX); out[i] = r);
        break;
    default:
        BINARY_LOOP(double, double r = x / y; bad |= !(fabs(r) <= DBL_MAX); out[i] = r);
    }
    return bad != 0;
}

SQL_KERNEL static void i64_to_f64(const int64_t *restrict a, uint32_t n, double *restrict out)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = (double)a[i];
}

SQL_KERNEL static void compare_i64(int op, const int64_t *a, const int64_t *b, int step_a,
                                   int step_b, uint32_t n, uint8_t *restrict out)
{
    switch (op) {
    case SQL_OP_EQ:
        BINARY_LOOP(int64_t, out[i] = x == y);
        break;
    case SQL_OP_NE:
        BINARY_LOOP(int64_t, out[i] = x != y);
        break;
    case SQL_OP_LT:
        BINARY_LOOP(int64_t, out[i] = x < y);
        break;
    case SQL_OP_LE:
        BINARY_LOOP(int64_t, out[i] = x <= y);
        break;
    case SQL_OP_GT:
        BINARY_LOOP(int64_t, out[i] = x > y);
        break;
    default:
        BINARY_LOOP(int64_t, out[i] = x >= y);
    }
}

/* With NaN equal to itself and above all else. */
SQL_KERNEL static void compare_f64(int op, const double *a, const double *b, int step_a, int step_b,
                                   uint32_t n, uint8_t *restrict out)
{
    switch (op) {
    case SQL_OP_EQ:
        BINARY_LOOP(double, out[i] = (uint8_t)((x == y) | ((x != x) & (y != y))));
        break;
    case SQL_OP_NE:
        BINARY_LOOP(double, out[i] = (uint8_t)(!((x == y) | ((x != x) & (y != y)))));
        break;
    case SQL_OP_LT:
        BINARY_LOOP(double, out[i] = (uint8_t)((x < y) | ((x == x) & (y != y))));
        break;
    case SQL_OP_LE:
        BINARY_LOOP(double, out[i] = (uint8_t)((x <= y) | (y != y)));
        break;
    case SQL_OP_GT:
        BINARY_LOOP(double, out[i] = (uint8_t)((x > y) | ((x != x) & (y == y))));
        break;
    default:
        BINARY_LOOP(double, out[i] = (uint8_t)((x >= y) | (x != x)));
    }
}

/* Cloned functions are static: clang and gcc do not agree on the names of others. */
bool sql__k_add_i64(const int64_t *a, const int64_t *b, int step_a, int step_b, uint32_t n,
                    int64_t *restrict out)
{
    return add_i64(a, b, step_a, step_b, n, out);
}
bool sql__k_sub_i64(const int64_t *a, const int64_t *b, int step_a, int step_b, uint32_t n,
                    int64_t *restrict out)
{
    return sub_i64(a, b, step_a, step_b, n, out);
}
bool sql__k_arith_f64(int op, const double *a, const double *b, int step_a, int step_b, uint32_t n,
                      double *restrict out)
{
    return arith_f64(op, a, b, step_a, step_b, n, out);
}
void sql__k_i64_to_f64(const int64_t *restrict a, uint32_t n, double *restrict out)
{
    i64_to_f64(a, n, out);
}
void sql__k_compare_i64(int op, const int64_t *a, const int64_t *b, int step_a, int step_b,
                        uint32_t n, uint8_t *restrict out)
{
    compare_i64(op, a, b, step_a, step_b, n, out);
}
void sql__k_compare_f64(int op, const double *a, const double *b, int step_a, int step_b,
                        uint32_t n, uint8_t *restrict out)
{
    compare_f64(op, a, b, step_a, step_b, n, out);
}
