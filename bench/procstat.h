/* bench/procstat.h: what a process used, from /proc. */
#ifndef CHR_BENCH_PROCSTAT_H
#define CHR_BENCH_PROCSTAT_H

#include <stdint.h>
#include <sys/types.h>

struct procstat {
    double user_s, system_s; /* CPU seconds since the process started, all threads */
    uint64_t rss_anon_bytes; /* its own memory; mapped files are the kernel's */
};

/* Returns 0, or -1 when there is no such process. */
int procstat_read(pid_t pid, struct procstat *out);

#endif
