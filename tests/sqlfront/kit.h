/* tests/sqlfront/kit.h: a database in this process with a SQL session on it: proposing is applying,
 * the clock stands still unless a test moves it. */
#ifndef CHR_TESTS_SQLFRONT_KIT_H
#define CHR_TESTS_SQLFRONT_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/random.h"
#include "db/db.h"
#include "sqlfront/sql.h"

struct kit {
    char dir[64];
    struct db_kv kv;
    db *db;
    uint64_t index;
    int64_t wall_us, mono_us;
    struct chr_clock clock;
    struct sql_host host;
    struct sql_limits limits;
    sql_session *session;
    /* What the next proposals meet instead of the database. */
    chr_err propose_err;
    uint64_t proposals;
};

static int64_t kit__wall(void *ctx)
{
    return ((struct kit *)ctx)->wall_us;
}
static int64_t kit__mono(void *ctx)
{
    return ((struct kit *)ctx)->mono_us;
}

static chr_err kit__propose(void *ctx, chr_slice bytes, struct sql_applied *applied)
{
    struct kit *k = ctx;
    k->proposals++;
    if (k->propose_err)
        return k->propose_err;
    struct db_apply_result result;
    chr_hlc hlc = chr_hlc_next(db_replicated_time(k->db), (uint64_t)(k->wall_us / 1000));
    k->index++;
    db_apply(k->db, k->index, hlc, bytes, &result);
    sql_applied_from(&result, applied);
    applied->index = k->index;
    return CHR_OK;
}

static chr_err kit__synced(void *arg, uint64_t index)
{
    (void)arg;
    (void)index;
    return CHR_OK;
}

static inline void kit_open(struct kit *k, uint32_t chunk_rows)
{
    memset(k, 0, sizeof *k);
    struct chr_errmsg msg = {0};
    struct db_options options;
    db_options_default(&options);
    if (chunk_rows)
        options.chunk_rows_max = chunk_rows;
    strcpy(k->dir, "/tmp/chr_sql_XXXXXX");
    if (!mkdtemp(k->dir))
        abort();
    chr_err err = db_kv_lmdb_open(k->dir, UINT64_C(8) << 30, &k->kv, &msg);
    if (err) {
        fprintf(stderr, "%s\n", msg.text);
        abort();
    }
    if (db_open(&k->kv, &options, &k->db, &msg)) {
        fprintf(stderr, "%s\n", msg.text);
        abort();
    }
    k->wall_us = INT64_C(1733858000) * 1000000; /* 2024-12-10T19:13:20Z */
    k->mono_us = 1000000;
    k->clock = (struct chr_clock){.wall_us = kit__wall, .mono_us = kit__mono, .ctx = k};
    k->host = (struct sql_host){.ctx = k, .propose = kit__propose, .clock = &k->clock};
    sql_limits_default(&k->limits);
    k->session = sql_session_new(k->db, &k->host, &k->limits);
}

static inline void kit_close(struct kit *k)
{
    sql_session_free(k->session);
    db_close(k->db);
    db_kv_lmdb_close(&k->kv);
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", k->dir);
    if (system(command) != 0)
        fprintf(stderr, "%s stays\n", k->dir);
}

/* Everything applied so far leaves the hot rows. */
static inline void kit_checkpoint(struct kit *k)
{
    struct chr_errmsg msg = {0};
    chr_err err = db_checkpoint(k->db, DB_CHECKPOINT_REQUEST, kit__synced, NULL, k->mono_us, &msg);
    if (err) {
        fprintf(stderr, "checkpoint: %s\n", msg.text);
        abort();
    }
}

#endif
