/* broker/commands/check.c: `chronos check`: is everything on disk what it should be?
 *
 * Takes the lock of the data directory, so a running node is never read half way through a write.
 * The log is opened read-only and every record of it is read again; the database is opened as a
 * node would and every value verified. Nothing is repaired. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "broker/commands/commands.h"
#include "broker/commands/compare.h"
#include "broker/config.h"
#include "broker/data_dir.h"
#include "broker/install.h"
#include "broker/options.h"
#include "db/db.h"
#include "db/kv.h"
#include "raft/log.h"

#define READ_BYTES   (8u << 20)
#define READ_ENTRIES 4096

struct check {
    const char *data_dir, *against;
    uint64_t map_bytes;
    bool help, at_any_entry;
    uint64_t findings;
    bool watched; /* stderr is a terminal: how far it is stands in its last line */
    int shown;    /* columns of that line */
    int64_t shown_ms;
};

static chr_err set_help(struct options *options, void *target, const char *value,
                        struct chr_errmsg *msg)
{
    (void)options, (void)value, (void)msg;
    ((struct check *)target)->help = true;
    return CHR_OK;
}

static chr_err set_at_any_entry(struct options *options, void *target, const char *value,
                                struct chr_errmsg *msg)
{
    (void)options, (void)value, (void)msg;
    ((struct check *)target)->at_any_entry = true;
    return CHR_OK;
}

static const struct option table[] = {
    {.kind = OPTION_TEXT,
     .name = "data-dir",
     .offset = offsetof(struct check, data_dir),
     .value = "DIR",
     .help = "data directory of a node that does not run"},
    {.kind = OPTION_TEXT,
     .name = "against",
     .offset = offsetof(struct check, against),
     .value = "DIR",
     .help = "compare with another node's directory instead: checksums of every table, of sessions "
             "and of retained messages"},
    {.kind = OPTION_CUSTOM_FLAG,
     .name = "at-any-entry",
     .offset = offsetof(struct check, at_any_entry),
     .set = set_at_any_entry,
     .help = "with --against: compare what both have, though they are not at the same entry"},
    {.kind = OPTION_BYTES64,
     .name = "map-size",
     .offset = offsetof(struct check, map_bytes),
     .min = 16u << 20,
     .value = "BYTES",
     .help = "address space of the database file"},
    {.kind = OPTION_CUSTOM_FLAG,
     .name = "help",
     .offset = offsetof(struct check, help),
     .set = set_help,
     .help = "this text"},
};

static void set_defaults(struct check *check)
{
    struct broker_config config;
    broker_config_default(&config);
    *check = (struct check){.data_dir = config.data_dir, .map_bytes = config.map_bytes};
}

void check_help(FILE *out)
{
    struct check defaults;
    set_defaults(&defaults);
    fputs("Usage: chronos check [--data-dir DIR]\n"
          "       chronos check [--data-dir DIR] --against DIR [--at-any-entry]\n\n"
          "Verifies every checksum, index and statistic of a data directory. The node must not\n"
          "run. Exit status: 0 clean, 1 findings (one line each), 2 it could not be checked.\n"
          "On a terminal the last line says how far it is.\n\n"
          "With --against nothing is verified, but the rows of two directories are compared by\n"
          "checksums that do not depend on how they are stored: nodes of a cluster have the same\n"
          "ones at the same entry. Exit status: 0 the same, 1 a difference, or not at the same\n"
          "entry, 2 they could not be compared.\n\n",
          out);
    options_help(out, table, CHR_COUNT_OF(table), &defaults);
}

/* -- How far it is ------------------------------------------------------------------------------*/

#define SHOW_EVERY_MS 200

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Takes the line away, so that what is printed next stands in its place. */
static void clear_line(struct check *check)
{
    if (check->shown)
        fprintf(stderr, "\r%*s\r", check->shown, "");
    check->shown = 0;
    fflush(stderr);
}

static void progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
    struct check *check = arg;
    int64_t ms = check->watched ? now_ms() : 0;
    if (!check->watched || ms - check->shown_ms < SHOW_EVERY_MS)
        return;
    char text[96];
    int n = snprintf(text, sizeof text, "%3u %% %.60s",
                     total ? (unsigned)(100.0 * (double)done / (double)total) : 100, what);
    fprintf(stderr, "\r%-*s", check->shown, text);
    check->shown = CHR_MIN(n, (int)sizeof text - 1);
    check->shown_ms = ms;
    fflush(stderr);
}

static void report(void *arg, const char *finding)
{
    struct check *check = arg;
    check->findings++;
    clear_line(check);
    printf("finding: %s\n", finding);
}

static void report_error(struct check *check, const char *part, chr_err err,
                         const struct chr_errmsg *msg)
{
    char text[320];
    snprintf(text, sizeof text, "%s: %s", part, msg->text[0] ? msg->text : chr_strerror(err));
    report(check, text);
}

/* Reads every entry that the log holds; raft_log_read verifies its checksum once more. */
static chr_err read_log(struct check *check, raft_log *log, uint64_t first, uint64_t last,
                        uint64_t *entries_read)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 2 * READ_BYTES);
    struct raft_entry *entries = calloc(READ_ENTRIES, sizeof *entries);
    chr_err err = entries ? CHR_OK : CHR_ENOMEM;
    for (uint64_t index = first; !err && index && index <= last;) {
        size_t count = 0;
        err = raft_log_read(log, index, READ_BYTES, &buf, entries, READ_ENTRIES, &count);
        if (!err && (count == 0 || entries[0].index != index))
            err = CHR_ECORRUPT;
        index += count;
        *entries_read += count;
        progress(check, "log", index - first, last - first + 1);
    }
    clear_line(check);
    free(entries);
    chr_buf_free(&buf);
    return err;
}

static void check_log(struct check *check, const char *path, uint64_t durable_index)
{
    struct chr_errmsg msg = {{0}};
    struct raft_io io;
    chr_err err = raft_io_posix_open(path, &io, &msg);
    if (err) {
        report_error(check, "log", err, &msg);
        return;
    }
    raft_log *log = NULL;
    struct raft_log_recovery recovery = {0};
    struct raft_log_options options = {.read_only = true};
    err = raft_log_open(&io, &options, durable_index + 1, &log, &recovery, &msg);
    if (!err) {
        uint64_t entries = 0;
        err = read_log(check, log, recovery.first_index, recovery.last_index, &entries);
        printf("log: %" PRIu64 " segments, entries %" PRIu64 " to %" PRIu64 ", %" PRIu64 " read\n",
               recovery.segments, recovery.first_index, recovery.last_index, entries);
        if (recovery.torn_bytes)
            printf("log: a torn tail of %" PRIu64 " bytes in segment %" PRIu64 " at offset %" PRIu64
                   " (never acknowledged; the next start cuts it)\n",
                   recovery.torn_bytes, recovery.torn_segment, recovery.torn_offset);
    }
    if (err)
        report_error(check, "log", err, &msg);
    raft_log_close(log);
    raft_io_posix_close(&io);
}

static bool check_db(struct check *check, const char *path, uint64_t *durable_index)
{
    struct chr_errmsg msg = {{0}};
    struct db_kv kv;
    chr_err err = db_kv_lmdb_open(path, check->map_bytes, &kv, &msg);
    if (err) {
        report_error(check, "db", err, &msg);
        return false;
    }
    struct db_options options;
    db_options_default(&options);
    db *database = NULL;
    err = db_open(&kv, &options, &database, &msg);
    if (!err) {
        uint64_t findings = 0;
        err = db_check_watched(database, report, progress, check, &findings);
        clear_line(check);
        struct db_stats stats;
        db_stats(database, &stats);
        *durable_index = db_durable_index(database);
        printf("db: %" PRIu64 " chunks with %" PRIu64 " rows, %" PRIu64
               " rows in tails, checkpoint at entry %" PRIu64 "\n",
               stats.chunks, stats.chunk_rows, stats.tail_rows, *durable_index);
        /* A check that reports nothing and fails could not finish. */
        if (err && !findings)
            report_error(check, "db", err, &msg);
    } else {
        report_error(check, "db", err, &msg);
    }
    bool opened = database != NULL;
    db_close(database);
    db_kv_lmdb_close(&kv);
    return opened;
}

static int run(struct check *check)
{
    struct chr_errmsg msg = {{0}};
    struct data_dir dir;
    char meta[4096];
    /* Nothing is made in a directory that is not a node's already, not even a lock file. */
    int n = snprintf(meta, sizeof meta, "%s/node.meta", check->data_dir);
    if (n < 0 || (size_t)n >= sizeof meta || access(meta, R_OK)) {
        complain(NULL, "%s is not a Chronos data directory that can be read: node.meta: %s",
                 check->data_dir, strerror(errno));
        return EXIT_USAGE;
    }
    if (data_dir_open(check->data_dir, false, &dir, &msg)) {
        complain(NULL, "%s", msg.text);
        return EXIT_USAGE;
    }
    if (install_waits(check->data_dir)) {
        complain(NULL, "%s: a snapshot waits to be installed; start the node first",
                 check->data_dir);
        data_dir_close(&dir);
        return EXIT_USAGE;
    }
    uint64_t durable_index = 0;
    check->watched = isatty(STDERR_FILENO);
    if (check_db(check, dir.db_path, &durable_index))
        check_log(check, dir.log_path, durable_index);
    data_dir_close(&dir);
    printf("%s: %" PRIu64 " finding%s\n", check->findings ? "damaged" : "clean", check->findings,
           check->findings == 1 ? "" : "s");
    return check->findings ? EXIT_FAILED : EXIT_DONE;
}

int command_check(int argc, char **argv)
{
    struct check check;
    set_defaults(&check);
    struct options options;
    options_init(&options, table, CHR_COUNT_OF(table), &check);
    struct chr_errmsg msg = {{0}};
    int status = EXIT_USAGE;
    if (options_flags(&options, argc, argv, &msg)) {
        complain("check", "%s", msg.text);
    } else if (check.help) {
        check_help(stdout);
        status = EXIT_DONE;
    } else if (check.against) {
        status = compare(check.data_dir, check.against, check.map_bytes, check.at_any_entry);
    } else if (check.at_any_entry) {
        complain("check", "--at-any-entry: goes with --against");
    } else {
        status = run(&check);
    }
    options_free(&options);
    return status;
}
