/* bench/histogram.h: latencies in nanoseconds, to 1.6 %, in fixed memory. */
#ifndef CHR_BENCH_HISTOGRAM_H
#define CHR_BENCH_HISTOGRAM_H

#include <stdint.h>

/* 64 steps per power of two, for all of uint64. */
#define HISTOGRAM_STEPS_LOG2 6
#define HISTOGRAM_SLOTS      ((64 - HISTOGRAM_STEPS_LOG2 + 1) << HISTOGRAM_STEPS_LOG2)

/* Zero-initialised is empty. */
struct histogram {
    uint64_t count;
    uint64_t max_ns; /* exact */
    uint64_t slots[HISTOGRAM_SLOTS];
};

static inline unsigned histogram__slot(uint64_t ns)
{
    if (ns < (1u << HISTOGRAM_STEPS_LOG2))
        return (unsigned)ns;
    unsigned exponent = 63u - (unsigned)__builtin_clzll(ns);
    unsigned shift = exponent - HISTOGRAM_STEPS_LOG2;
    unsigned step = (unsigned)(ns >> shift) & ((1u << HISTOGRAM_STEPS_LOG2) - 1);
    return ((shift + 1) << HISTOGRAM_STEPS_LOG2) + step;
}

static inline void histogram_add(struct histogram *h, uint64_t ns)
{
    h->slots[histogram__slot(ns)]++;
    h->count++;
    if (ns > h->max_ns)
        h->max_ns = ns;
}

/* The value that `fraction` of all do not exceed, rounded up to its slot's end; 0 when empty. */
static inline uint64_t histogram_at(const struct histogram *h, double fraction)
{
    uint64_t rank = (uint64_t)((double)h->count * fraction), seen = 0;
    if (rank >= h->count)
        rank = h->count ? h->count - 1 : 0;
    for (unsigned i = 0; i < HISTOGRAM_SLOTS; i++) {
        seen += h->slots[i];
        if (seen > rank) {
            unsigned shift = i >> HISTOGRAM_STEPS_LOG2;
            uint64_t low = i;
            uint64_t width = 1;
            if (shift > 0) {
                uint64_t step = i & ((1u << HISTOGRAM_STEPS_LOG2) - 1);
                low = ((1ull << HISTOGRAM_STEPS_LOG2) + step) << (shift - 1);
                width = 1ull << (shift - 1);
            }
            uint64_t end = low + width - 1;
            return end < h->max_ns ? end : h->max_ns;
        }
    }
    return h->max_ns;
}

#endif
