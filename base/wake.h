/* base/wake.h: how one thread tells another that there is something to do.
 *
 * A chr_wake is a futex word: the sleeper announces that it will sleep, looks at its queues once
 * more, then sleeps; a waker pays a system call only when somebody sleeps. No wake-up is lost: the
 * waker publishes its work, then touches `sleepers`; the sleeper touches `sleepers`, then looks at
 * the queues again; so at least one of them sees the other.
 *
 *     uint32_t ticket = chr_wake_prepare(w);
 *     if (queue is empty) chr_wake_wait(w, ticket, timeout_us); else chr_wake_cancel(w);
 *
 * Every prepare is followed by one wait or one cancel.
 */
#ifndef CHR_BASE_WAKE_H
#define CHR_BASE_WAKE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct chr_wake {
    _Atomic uint32_t sequence; /* bumped by each signal that found a sleeper */
    _Atomic uint32_t sleepers;
};

void chr_wake_init(struct chr_wake *wake);
uint32_t chr_wake_prepare(struct chr_wake *wake);
void chr_wake_cancel(struct chr_wake *wake);
/* Sleeps until signalled or timeout_us (-1: for ever) has passed. May return early: re-check. */
void chr_wake_wait(struct chr_wake *wake, uint32_t ticket, int64_t timeout_us);
/* Any thread. Wakes all sleepers. */
void chr_wake_signal(struct chr_wake *wake);

#endif
