/* bench/stalls.h: when did the machine stand still? A virtual machine is stopped for milliseconds
 * when it has used up its share of the host, and every latency across such a stop has it in it.
 *
 * A thread naps half a millisecond at a time and notes the naps that took far longer. It does
 * nothing else, so it is not late for want of a core unless all of them are busy. */
#ifndef CHR_BENCH_STALLS_H
#define CHR_BENCH_STALLS_H

#include <stdbool.h>
#include <stdint.h>

/* A nap that took longer is a stall. */
#define STALL_NS UINT64_C(2500000)

struct stalls;

/* Starts watching; NULL: no thread. */
struct stalls *stalls_watch(void);
/* Ends watching; the questions below are for after it. */
void stalls_stop(struct stalls *stalls);
void stalls_free(struct stalls *stalls);

/* Did the machine stand still between two times of net_now_ns()? */
bool stalls_between(const struct stalls *stalls, uint64_t from_ns, uint64_t to_ns);
uint64_t stalls_count(const struct stalls *stalls);
uint64_t stalls_total_ns(const struct stalls *stalls);

#endif
