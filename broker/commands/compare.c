#include "broker/commands/compare.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "broker/commands/commands.h"
#include "broker/commands/offline.h"
#include "db/digest.h"

struct side {
    const char *path;
    struct offline offline;
    db_read *read;
};

static int complain_about(const char *path, chr_err err, const struct chr_errmsg *msg)
{
    if (strstr(msg->text, path))
        complain(NULL, "%s", msg->text);
    else
        complain(NULL, "%s: %s", path, msg->text[0] ? msg->text : chr_strerror(err));
    return EXIT_USAGE;
}

/* Brings `behind` up to `ahead`: entries of one log up to one and the same entry are the same (log
 * matching, thesis 3.5), and what the other has applied is committed. */
static chr_err catch_up(struct side *behind, const struct side *ahead, struct chr_errmsg *msg)
{
    uint64_t index = db_apply_index(ahead->offline.db);
    uint64_t term = raft_log_term_of(ahead->offline.log, index);
    if (term == 0 || index > raft_log_last(behind->offline.log) ||
        raft_log_term_of(behind->offline.log, index) != term)
        return CHR_OK; /* it can't be */
    return offline_apply(&behind->offline, index, msg);
}

/* -- One line each ------------------------------------------------------------------------------*/

/* Prints it; false: they differ. there: NULL: it has none. */
static bool line(const char *name, const char *what, const struct db_digest *here,
                 const struct db_digest *there)
{
    static const char *const none = "none";
    char left[64], right[64];
    const struct db_digest *sides[] = {here, there};
    char *texts[] = {left, right};
    for (int i = 0; i < 2; i++) {
        if (sides[i])
            snprintf(texts[i], sizeof left, "%" PRIu64 " %s, %016" PRIx64, sides[i]->count, what,
                     sides[i]->sum);
        else
            snprintf(texts[i], sizeof left, "%s", none);
    }
    bool same = here && there && here->count == there->count && here->sum == there->sum;
    if (same)
        printf("same       %s: %s\n", name, left);
    else
        printf("different  %s: %s here, %s there\n", name, left, right);
    return same;
}

static chr_err digest_of(struct side *side, const struct db_table_def *def,
                         struct db_digest *digest, struct chr_errmsg *msg)
{
    return db_digest_table(side->read, def, digest, msg);
}

/* Tables of `here` and those that `there` alone has. Below 0 a chr_err of *bad, else how many
 * differ. */
static int compare_tables(struct side *here, struct side *there, struct side **bad,
                          struct chr_errmsg *msg)
{
    const db_catalog *ours = db_read_catalog(here->read), *theirs = db_read_catalog(there->read);
    struct db_digest a, b;
    int different = 0;
    for (size_t i = 0; i < db_catalog_tables_count(ours); i++) {
        const struct db_table_def *def = db_catalog_table_at(ours, i);
        const struct db_table_def *other = db_catalog_find_id(theirs, def->id);
        chr_err err = digest_of(*bad = here, def, &a, msg);
        if (!err && other)
            err = digest_of(*bad = there, other, &b, msg);
        if (err)
            return err;
        different += !line(def->name, "rows", &a, other ? &b : NULL);
        if (other && strcmp(other->name, def->name)) {
            printf("different  %s: it is called %s there\n", def->name, other->name);
            different++;
        }
    }
    for (size_t i = 0; i < db_catalog_tables_count(theirs); i++) {
        const struct db_table_def *def = db_catalog_table_at(theirs, i);
        if (db_catalog_find_id(ours, def->id))
            continue;
        chr_err err = digest_of(*bad = there, def, &b, msg);
        if (err)
            return err;
        different += !line(def->name, "rows", NULL, &b);
    }
    return different;
}

static int compare_state(struct side *here, struct side *there, struct side **bad,
                         struct chr_errmsg *msg)
{
    struct db_digest a, b;
    int different = compare_tables(here, there, bad, msg);
    if (different < 0)
        return different;
    chr_err err = db_digest_sessions((*bad = here)->offline.db, &a, msg);
    if (!err)
        err = db_digest_sessions((*bad = there)->offline.db, &b, msg);
    if (err)
        return err;
    different += !line("sessions", "sessions", &a, &b);
    db_digest_retained(here->offline.db, &a);
    db_digest_retained(there->offline.db, &b);
    return different + !line("retained messages", "messages", &a, &b);
}

/* -- All of it ----------------------------------------------------------------------------------*/

static int compare_open(struct side *here, struct side *there, bool at_any_entry)
{
    struct chr_errmsg msg = {{0}};
    struct side *bad = here;
    uint64_t a = db_apply_index(here->offline.db), b = db_apply_index(there->offline.db);
    chr_err err = CHR_OK;
    if (a < b)
        err = catch_up(here, there, &msg);
    else if (b < a)
        err = catch_up(bad = there, here, &msg);
    if (err)
        return complain_about(bad->path, err, &msg);
    a = db_apply_index(here->offline.db);
    b = db_apply_index(there->offline.db);
    printf("here       %s, at entry %" PRIu64 "\nthere      %s, at entry %" PRIu64 "\n", here->path,
           a, there->path, b);
    if (a != b && !at_any_entry) {
        printf(
            "not compared: they are not at the same entry. Start and stop the one that is behind "
            "as a\nmember of its cluster, or compare what both have with --at-any-entry.\n");
        return EXIT_FAILED;
    }
    if (db_read_begin(here->offline.db, &here->read) ||
        db_read_begin(there->offline.db, &there->read))
        return complain_about(here->path, CHR_ENOMEM, &msg);
    int different = compare_state(here, there, &bad, &msg);
    if (different < 0)
        return complain_about(bad->path, different, &msg);
    if (different)
        printf("%d difference%s%s\n", different, different == 1 ? "" : "s",
               a != b ? ", as is to be expected of different entries" : "");
    else
        printf("the same state\n");
    return different ? EXIT_FAILED : EXIT_DONE;
}

int compare(const char *here, const char *there, uint64_t map_bytes, bool at_any_entry)
{
    struct side sides[2] = {{.path = here}, {.path = there}};
    struct chr_errmsg msg = {{0}};
    int status = EXIT_USAGE, opened = 0;
    chr_err err = CHR_OK;
    while (opened < 2 && !err) {
        err = offline_open(&sides[opened].offline, sides[opened].path, map_bytes, false, &msg);
        opened++;
    }
    if (err)
        (void)complain_about(sides[opened - 1].path, err, &msg);
    else
        status = compare_open(&sides[0], &sides[1], at_any_entry);
    for (int i = 0; i < opened; i++) {
        db_read_end(sides[i].read);
        offline_close(&sides[i].offline);
    }
    return status;
}
