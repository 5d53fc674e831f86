/* base/wake.c: the futex behind chr_wake.
 *
 * Why nothing is lost. prepare and signal both do a read-modify-write on `sleepers`, so one comes
 * before the other in its modification order. Signal second: it sees the sleeper and bumps
 * `sequence`; either the sleeper's ticket is older, and the kernel refuses to sleep on it, or the
 * sleeper read the bump and with it the work published before. Signal first: prepare reads what
 * signal wrote, and so the sleeper's second look at the queue sees the work. A plain load in signal
 * would not do: it may pass the store that published the work. */
#include "base/wake.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/compiler.h"

_Static_assert(sizeof(_Atomic uint32_t) == 4 && ATOMIC_INT_LOCK_FREE == 2,
               "the kernel reads the futex word as four plain bytes");

void chr_wake_init(struct chr_wake *wake)
{
    atomic_init(&wake->sequence, 0);
    atomic_init(&wake->sleepers, 0);
}

uint32_t chr_wake_prepare(struct chr_wake *wake)
{
    atomic_fetch_add(&wake->sleepers, 1);
    return atomic_load(&wake->sequence);
}

void chr_wake_cancel(struct chr_wake *wake)
{
    atomic_fetch_sub(&wake->sleepers, 1);
}

void chr_wake_wait(struct chr_wake *wake, uint32_t ticket, int64_t timeout_us)
{
    int saved_errno = errno;
    struct timespec timeout;
    if (timeout_us > 0) {
        timeout.tv_sec = timeout_us / 1000000;
        timeout.tv_nsec = timeout_us % 1000000 * 1000;
    }
    if (timeout_us != 0)
        syscall(SYS_futex, &wake->sequence, FUTEX_WAIT_PRIVATE, ticket,
                timeout_us < 0 ? NULL : &timeout, NULL, 0);
    atomic_fetch_sub(&wake->sleepers, 1);
    errno = saved_errno;
}

void chr_wake_signal(struct chr_wake *wake)
{
    if (CHR_LIKELY(atomic_fetch_add(&wake->sleepers, 0) == 0))
        return;
    int saved_errno = errno;
    atomic_fetch_add(&wake->sequence, 1);
    syscall(SYS_futex, &wake->sequence, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    errno = saved_errno;
}
