/* bench/procstat.c */
#include "bench/procstat.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

int procstat_read(pid_t pid, struct procstat *out)
{
    char path[64], line[1024];
    *out = (struct procstat){0};
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return -1;
    char *got = fgets(line, sizeof line, f);
    fclose(f);
    /* The second field is the name in parentheses, which may hold anything. */
    char *after = got ? strrchr(line, ')') : NULL;
    unsigned long long user, system;
    if (!after || sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
                         &system) != 2)
        return -1;
    double hz = (double)sysconf(_SC_CLK_TCK);
    out->user_s = (double)user / hz;
    out->system_s = (double)system / hz;

    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    f = fopen(path, "re");
    if (!f)
        return -1;
    unsigned long long kib;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "RssAnon: %llu kB", &kib) == 1)
            out->rss_anon_bytes = kib * 1024;
    fclose(f);
    return 0;
}
