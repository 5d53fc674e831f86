#include "tests/sim/raft_shrink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/compiler.h"

bool raft_shrink_try(const struct raft_cluster_options *options,
                     char broken[sizeof((struct raft_cluster_report){0}).broken])
{
    int ends[2];
    int failed = pipe(ends);
    CHR_ASSERT(!failed);
    fflush(NULL);
    pid_t child = fork();
    CHR_ASSERT(child >= 0);
    if (child == 0) {
        static struct raft_cluster_report report;
        bool ok = raft_cluster_run(options, &report);
        bool said = write(ends[1], report.broken, sizeof report.broken) == sizeof report.broken;
        fflush(stdout);
        _exit(ok && said ? 0 : 1);
    }
    close(ends[1]);
    size_t len = sizeof((struct raft_cluster_report){0}).broken;
    memset(broken, 0, len);
    ssize_t got = read(ends[0], broken, len - 1);
    close(ends[0]);
    int status = 0;
    pid_t ended = waitpid(child, &status, 0);
    CHR_ASSERT(ended == child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    if (got <= 0 || !broken[0])
        snprintf(broken, len, "it crashed");
    return false;
}

static bool fails(const struct raft_cluster_options *options, uint32_t *tries)
{
    char broken[sizeof((struct raft_cluster_report){0}).broken];
    ++*tries;
    return !raft_shrink_try(options, broken);
}

/* By halves, quarters, eighths … of what is left; stops at one step in 64. */
static void fewer_steps(struct raft_cluster_options *options, uint32_t *tries)
{
    for (uint32_t part = options->steps / 2; part > options->steps / 64;
         part = CHR_MIN(part, options->steps / 2)) {
        struct raft_cluster_options less = *options;
        less.steps -= part;
        if (fails(&less, tries))
            *options = less;
        else
            part /= 2;
    }
}

static void fewer_faults(struct raft_cluster_options *options, uint32_t *tries)
{
    for (uint32_t kind = 0; kind < RAFT_CLUSTER_FAULTS; kind++) {
        struct raft_cluster_options less = *options;
        less.without |= 1u << kind;
        if (less.without != options->without && fails(&less, tries))
            *options = less;
    }
}

static void fewer_voters(struct raft_cluster_options *options, uint32_t *tries)
{
    for (uint32_t voters = 1; voters < 5 && !options->voters; voters += 2) {
        struct raft_cluster_options less = *options;
        less.voters = voters;
        if (fails(&less, tries))
            *options = less;
    }
}

uint32_t raft_shrink(struct raft_cluster_options *options)
{
    uint32_t tries = 0;
    options->verbose = false;
    fewer_steps(options, &tries);
    fewer_voters(options, &tries);
    fewer_faults(options, &tries);
    fewer_steps(options, &tries);
    fewer_faults(options, &tries);
    return tries;
}

void raft_shrink_command(const struct raft_cluster_options *options, char *out, size_t out_bytes)
{
    size_t len = 0;
    len += (size_t)snprintf(out, out_bytes, "CHR_SEED=%llu CHR_STEPS=%u",
                            (unsigned long long)options->seed, options->steps);
    if (options->voters)
        len += (size_t)snprintf(out + len, out_bytes - len, " CHR_VOTERS=%u", options->voters);
    const char *between = " CHR_WITHOUT=";
    for (uint32_t kind = 0; kind < RAFT_CLUSTER_FAULTS; kind++) {
        if (!(options->without >> kind & 1))
            continue;
        len += (size_t)snprintf(out + len, out_bytes - len, "%s%s", between,
                                raft_cluster_fault_names[kind]);
        between = ",";
    }
    CHR_ASSERT(len < out_bytes);
}

bool raft_shrink_without(const char *list, uint32_t *without)
{
    *without = 0;
    while (*list) {
        size_t len = strcspn(list, ",");
        uint32_t kind = 0;
        while (kind < RAFT_CLUSTER_FAULTS && (strlen(raft_cluster_fault_names[kind]) != len ||
                                              memcmp(raft_cluster_fault_names[kind], list, len)))
            kind++;
        if (kind == RAFT_CLUSTER_FAULTS)
            return false;
        *without |= 1u << kind;
        list += len + (list[len] == ',');
    }
    return true;
}
