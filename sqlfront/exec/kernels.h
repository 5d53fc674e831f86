/* sqlfront/exec/kernels.h: the inner loops: plain functions over restrict pointers and a count.
 *
 * Compiled for the wide vectors of newer processors beside the baseline and chosen at start
 * (target_clones), because one binary goes to every gateway. */
#ifndef CHR_SQLFRONT_KERNELS_H
#define CHR_SQLFRONT_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SQL_NO_CLONES
#endif
#endif
#if !defined(__x86_64__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SQL_NO_CLONES
#endif
#ifdef SQL_NO_CLONES /* resolvers run before a sanitizer is ready */
#define SQL_KERNEL
#else
#define SQL_KERNEL __attribute__((target_clones("avx2", "default"))) /* static functions only */
#endif

/* Rows whose value is within [low, high] (and whose bit is set, when valid is given), appended to
 * out; returns how many. sel NULL: rows 0 .. count-1. out may be sel. */
uint32_t sql__k_select_i64(const int64_t *v, const uint64_t *valid, const uint16_t *sel,
                           uint32_t count, int64_t low, int64_t high, bool inside, uint16_t *out);
/* op: enum sql_op EQ .. GE; c is not NaN. */
uint32_t sql__k_select_f64(const double *v, const uint64_t *valid, const uint16_t *sel,
                           uint32_t count, int op, double c, uint16_t *out);
uint32_t sql__k_select_b8(const uint8_t *v, const uint64_t *valid, const uint16_t *sel,
                          uint32_t count, uint16_t *out);
/* Through a dictionary: rows whose entry passes. */
uint32_t sql__k_select_codes(const uint8_t *pass, const uint16_t *codes, const uint64_t *valid,
                             const uint16_t *sel, uint32_t count, uint16_t *out);

/* Sums of the selected rows. Integers in two halves, so that 2,048 of any size fit and the loop
 * vectorizes: sum = high * 2^32 + low. */
void sql__k_sum_i64(const int64_t *v, const uint16_t *sel, uint32_t count, int64_t *high,
                    uint64_t *low);
double sql__k_sum_f64(const double *v, const uint16_t *sel, uint32_t count);
void sql__k_min_max_i64(const int64_t *v, const uint16_t *sel, uint32_t count, int64_t *min,
                        int64_t *max);
/* False when a NaN is among them: the caller goes row by row. */
bool sql__k_min_max_f64(const double *v, const uint16_t *sel, uint32_t count, double *min,
                        double *max);

/* Into the group of each row: sums and counts. gids by row. */
void sql__k_group_count(const uint32_t *gids, const uint16_t *sel, uint32_t count,
                        int64_t *restrict counts);
void sql__k_group_sum_f64(const double *v, const uint32_t *gids, const uint16_t *sel,
                          uint32_t count, double *restrict sums, int64_t *restrict counts);
void sql__k_group_sum_i64(const int64_t *v, const uint32_t *gids, const uint16_t *sel,
                          uint32_t count, __int128 *restrict sums, int64_t *restrict counts);
/* want: below 0 the least, above 0 the greatest. */
void sql__k_group_extreme_i64(const int64_t *v, const uint32_t *gids, const uint16_t *sel,
                              uint32_t count, int want, int64_t *restrict values,
                              int64_t *restrict counts);
void sql__k_group_extreme_f64(const double *v, const uint32_t *gids, const uint16_t *sel,
                              uint32_t count, int want, double *restrict values,
                              int64_t *restrict counts);
/* Ends of the runs of rows of one group, counted in selected rows; returns how many runs there are,
 * 0 when there are more than `most` (at least 1). */
uint32_t sql__k_runs(const uint32_t *gids, const uint16_t *sel, uint32_t count, uint16_t *ends,
                     uint32_t most);

/* The row of the least (or greatest) value; *tie: another one has the same. count >= 1. */
uint32_t sql__k_extreme_row(const int64_t *v, const uint16_t *sel, uint32_t count, bool least,
                            bool *tie);

/* out[i] = a[i] op b[i], i < n. A step of 0 makes a side constant. true: some row overflowed. */
bool sql__k_add_i64(const int64_t *a, const int64_t *b, int step_a, int step_b, uint32_t n,
                    int64_t *restrict out);
bool sql__k_sub_i64(const int64_t *a, const int64_t *b, int step_a, int step_b, uint32_t n,
                    int64_t *restrict out);
bool sql__k_mul_i64(const int64_t *a, const int64_t *b, int step_a, int step_b, uint32_t n,
                    int64_t *restrict out);
/* op: SQL_OP_ADD .. DIV. true: some result is not finite or some divisor 0: look closer. */
bool sql__k_arith_f64(int op, const double *a, const double *b, int step_a, int step_b, uint32_t n,
                      double *restrict out);
void sql__k_i64_to_f64(const int64_t *restrict a, uint32_t n, double *restrict out);
/* out[i] = a[i] op b[i] as 0 or 1; op EQ .. GE. */
void sql__k_compare_i64(int op, const int64_t *a, const int64_t *b, int step_a, int step_b,
                        uint32_t n, uint8_t *restrict out);
void sql__k_compare_f64(int op, const double *a, const double *b, int step_a, int step_b,
                        uint32_t n, uint8_t *restrict out);

#endif
