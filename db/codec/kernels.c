/* db/codec/kernels.c: the loops of kernels_body.h at each level of instructions, and the choice.
 *
 * Not target_clones: that goes through an ifunc resolver, which runs before the sanitizers are set
 * up. Not -march=native: a data directory moves between machines, and so does the binary. */
#include "db/codec/kernels.h"

#include <math.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "base/bytes.h"

/* The rest of the program is compiled for size and -O2, where gcc 12 does not vectorize loops whose
 * length it does not know. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

typedef uint64_t unaligned_u64 __attribute__((aligned(1), may_alias));
typedef uint16_t unaligned_u16 __attribute__((aligned(1), may_alias));

#define KERNEL(name)        name##_base
#define KERNEL_NAME         "base"
#define KERNEL_VECTOR_BYTES 16
#define KERNEL_TARGET
#include "db/codec/kernels_body.h"
#undef KERNEL
#undef KERNEL_NAME
#undef KERNEL_TARGET
#undef KERNEL_VECTOR_BYTES

#ifdef __x86_64__
#define KERNEL(name)        name##_avx2
#define KERNEL_NAME         "avx2"
#define KERNEL_VECTOR_BYTES 32
#define KERNEL_TARGET       __attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt")))
#include "db/codec/kernels_body.h"
#undef KERNEL
#undef KERNEL_NAME
#undef KERNEL_TARGET
#undef KERNEL_VECTOR_BYTES

#define KERNEL(name)        name##_avx512
#define KERNEL_NAME         "avx512"
#define KERNEL_VECTOR_BYTES 32
#define KERNEL_TARGET                                                                              \
    __attribute__((                                                                                \
        target("avx2,bmi,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512cd")))
#include "db/codec/kernels_body.h"
#undef KERNEL
#undef KERNEL_NAME
#undef KERNEL_TARGET
#undef KERNEL_VECTOR_BYTES
#endif

const struct db_kernels *db__kernels_at(unsigned i)
{
#ifdef __x86_64__
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
                __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512cd");
    if (i == 1 && avx2)
        return &kernels_avx2;
    if (i == 2 && avx512)
        return &kernels_avx512;
#endif
    return i == 0 ? &kernels_base : NULL;
}

const struct db_kernels *db__kernels(void)
{
    /* Threads that come here at once find the same answer, so relaxed order is enough: what it
     * points to is constant. */
    static _Atomic(const struct db_kernels *) chosen;
    const struct db_kernels *k = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (CHR_UNLIKELY(!k)) {
        for (unsigned i = 0; db__kernels_at(i); i++)
            k = db__kernels_at(i);
        atomic_store_explicit(&chosen, k, memory_order_relaxed);
    }
    return k;
}
