/* tests/db/snapshot_kit.h: a snapshot from one store to another, in the middle of something else.
 *
 * The lives of the models move house with it: pinned at some moment, carried over part by part with
 * all that a bad lane does while the sender lives on, opened at the other end. */
#ifndef CHR_TESTS_DB_SNAPSHOT_KIT_H
#define CHR_TESTS_DB_SNAPSHOT_KIT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/random.h"
#include "db/snapshot_format.h"
#include "tests/sim/fake_kv.h"

#define KIT_CLUSTER     0xc1u
#define KIT_INCARNATION 0x10u
#define KIT_TERM        7u

struct transfer {
    db_snapshot *snapshot; /* NULL: none under way */
    fake_kv *to;
    struct db_kv kv;
    db_snapshot_receiver *receiver;
    struct chr_buf part;
    uint64_t puts, reopened, wrong;
};

static inline int kit_spool(void)
{
    int fd = memfd_create("spool", MFD_CLOEXEC);
    CHR_ASSERT(fd >= 0);
    return fd;
}

static inline chr_err kit_describe(void *arg, uint64_t index, struct db_snapshot_origin *origin)
{
    (void)arg;
    *origin = (struct db_snapshot_origin){.cluster = KIT_CLUSTER,
                                          .incarnation = KIT_INCARNATION,
                                          .term = KIT_TERM,
                                          .members_index = index / 2,
                                          .members = CHR_LIT("members")};
    return CHR_OK;
}

static inline void kit_small_limits(struct chr_random *random)
{
    db__snapshot_limits =
        (struct db__snapshot_limits){.part_bytes = 64 + (uint32_t)chr_random_below(random, 6000),
                                     .copy_bytes = 1 + (uint32_t)chr_random_below(random, 3000),
                                     .commit_bytes = 1 + (uint32_t)chr_random_below(random, 9000),
                                     .place_every = 1 + (uint32_t)chr_random_below(random, 9)};
}

/* CHR_ENOTFOUND: there is no checkpoint yet. */
static inline chr_err transfer_begin(struct transfer *t, db *d, uint64_t seed)
{
    struct chr_errmsg msg;
    chr_err err = db_snapshot_begin(d, kit_spool(), kit_describe, NULL, &t->snapshot, &msg);
    if (err)
        return err;
    t->to = fake_kv_new(seed);
    t->kv = fake_kv_seam(t->to);
    chr_buf_init(&t->part, DB_SNAPSHOT_PART_BYTES_MAX);
    CHR_ASSERT(db_snapshot_receiver_begin(&t->kv, &t->receiver, &msg) == CHR_OK);
    return CHR_OK;
}

static inline void transfer_drop_receiver(struct transfer *t)
{
    struct chr_errmsg msg;
    db_snapshot_receiver_end(t->receiver);
    fake_kv_reopen(t->to);
    *fake_kv_faults(t->to) = (struct fake_kv_faults){0};
    CHR_ASSERT(db_snapshot_receiver_begin(&t->kv, &t->receiver, &msg) == CHR_OK);
    t->reopened++;
}

/* What must not be taken: another part, a damaged one. */
static inline void transfer_put_wrong(struct transfer *t, struct chr_random *random)
{
    struct chr_errmsg msg;
    const struct db_snapshot_info *info = db_snapshot_info(t->snapshot);
    uint64_t want = db_snapshot_receiver_next(t->receiver);
    uint64_t number = chr_random_below(random, info->parts);
    CHR_ASSERT(db_snapshot_part(t->snapshot, number, &t->part, &msg) == CHR_OK);
    chr_err err;
    if (number == want || chr_random_below(random, 2)) {
        uint64_t bit = chr_random_below(random, t->part.len * 8);
        t->part.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        err = db_snapshot_receiver_put(t->receiver, chr_buf_slice(&t->part), &msg);
        CHR_ASSERT(err == CHR_ECORRUPT || err == CHR_EMALFORMED);
    } else {
        err = db_snapshot_receiver_put(t->receiver, chr_buf_slice(&t->part), &msg);
        CHR_ASSERT(err == (number < want ? CHR_EEXIST : CHR_ENOTFOUND));
    }
    CHR_ASSERT(db_snapshot_receiver_next(t->receiver) == want);
    t->wrong++;
}

/* Carries over at most `parts`; true: all are there. */
static inline bool transfer_pump(struct transfer *t, struct chr_random *random, uint64_t parts)
{
    struct chr_errmsg msg;
    const struct db_snapshot_info *info = db_snapshot_info(t->snapshot);
    for (; parts && db_snapshot_receiver_next(t->receiver) < info->parts; parts--) {
        struct fake_kv_faults *faults = fake_kv_faults(t->to);
        uint64_t dice = chr_random_below(random, 20), at = fake_kv_commits(t->to) + 1;
        *faults = (struct fake_kv_faults){.crash_at = dice == 0 ? at : 0,
                                          .enospc_at = dice == 1 ? at : 0,
                                          .eio_at = dice == 2 ? at : 0};
        if (dice == 3)
            transfer_put_wrong(t, random);
        uint64_t want = db_snapshot_receiver_next(t->receiver);
        CHR_ASSERT(db_snapshot_part(t->snapshot, want, &t->part, &msg) == CHR_OK);
        chr_err err = db_snapshot_receiver_put(t->receiver, chr_buf_slice(&t->part), &msg);
        t->puts++;
        if (!err)
            CHR_ASSERT(db_snapshot_receiver_next(t->receiver) == want + 1);
        else if (err == CHR_EIO || dice == 4)
            transfer_drop_receiver(t);
        else
            CHR_ASSERT(err == CHR_ENOSPC);
    }
    return db_snapshot_receiver_next(t->receiver) == info->parts;
}

/* All are there: the other store becomes the caller's. */
static inline fake_kv *transfer_finish(struct transfer *t)
{
    struct chr_errmsg msg = {{0}};
    *fake_kv_faults(t->to) = (struct fake_kv_faults){0};
    chr_err err = db_snapshot_receiver_finish(t->receiver, &msg);
    if (err) {
        fprintf(stderr, "finish: %s\n", msg.text);
        abort();
    }
    db_snapshot_receiver_end(t->receiver);
    db_snapshot_end(t->snapshot);
    chr_buf_free(&t->part);
    fake_kv *to = t->to;
    t->snapshot = NULL;
    t->receiver = NULL;
    t->to = NULL;
    return to;
}

/* Breaks it off. */
static inline void transfer_end(struct transfer *t)
{
    if (!t->snapshot)
        return;
    db_snapshot_receiver_end(t->receiver);
    db_snapshot_end(t->snapshot);
    chr_buf_free(&t->part);
    fake_kv_free(t->to);
    t->snapshot = NULL;
}

#endif
