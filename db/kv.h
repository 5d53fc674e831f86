/* db/kv.h: an ordered key-value store with atomic commits, the seam under db (R15).
 *
 * The real one is LMDB (kv_lmdb.c), which does its own I/O; the simulator has one that can crash
 * between commits (tests/sim/fake_kv.c). One writer at a time; readers see the last commit.
 *
 * R10: a read transaction lives for one morsel, never for a query: an old reader keeps LMDB from
 * reusing pages and the file would grow without bound. LMDB has no page checksums: every value of
 * ours carries one (db/value_crc.h), which the layer above checks. */
#ifndef CHR_DB_KV_H
#define CHR_DB_KV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

#define DB_KV_KEY_MAX 511
/* Parts of chunks are at most 256 KiB, unless a single row is larger (db/chunk.h, K2). */
#define DB_KV_VALUE_MAX (20u << 20)

typedef struct db_kv_txn db_kv_txn;
typedef struct db_kv_cursor db_kv_cursor;

struct db_kv {
    /* A write transaction waits for the other one to end. Read transactions never wait. */
    /* A write transaction belongs to the thread that began it, a read transaction to whoever has
     * it. */
    chr_err (*begin)(void *ctx, bool write, db_kv_txn **txn);
    /* Slices returned point into the store: valid until the transaction ends or (write) the next
     * put. CHR_ENOTFOUND. */
    chr_err (*get)(void *ctx, db_kv_txn *txn, chr_slice key, chr_slice *value);
    /* Copied. CHR_EINVAL: no key, or one beyond DB_KV_KEY_MAX; CHR_ETOOBIG; CHR_ENOSPC and others:
     * the transaction can only be aborted. */
    chr_err (*put)(void *ctx, db_kv_txn *txn, chr_slice key, chr_slice value);
    chr_err (*del)(void *ctx, db_kv_txn *txn, chr_slice key); /* absent is no error */
    /* Visits keys >= from in byte order while they start with prefix. */
    chr_err (*cursor_open)(void *ctx, db_kv_txn *txn, chr_slice prefix, chr_slice from,
                           db_kv_cursor **cursor);
    /* CHR_ENOTFOUND at the end. Slices as those of get. */
    chr_err (*cursor_next)(void *ctx, db_kv_cursor *cursor, chr_slice *key, chr_slice *value);
    void (*cursor_close)(void *ctx, db_kv_cursor *cursor); /* before its transaction ends */
    /* Atomic and durable: after it returns the changes survive a power loss. A write transaction is
     * ended whatever is returned; CHR_ENOSPC: nothing changed, try again when there is room. */
    chr_err (*commit)(void *ctx, db_kv_txn *txn);
    void (*abort)(void *ctx, db_kv_txn *txn); /* ends a read transaction too */
    /* Bytes of the file and bytes of it in use. */
    chr_err (*usage)(void *ctx, uint64_t *file_bytes, uint64_t *used_bytes);
    void *ctx;
};

/* Address space, not memory and not disk: mapped once, so that the file never needs remapping under
 * readers. */
#define DB_KV_MAP_BYTES_DEFAULT (UINT64_C(1) << 40)

/* LMDB in `dir` (created when absent). map_bytes: address space reserved once; 0: the default. Less
 * is taken where the system gives less (ulimit -v, sanitizers), which is logged.
 * A process has a directory open once (CHR_EBUSY): closing it twice would drop the file locks of
 * the other. A child after fork() must neither use nor close it: begin answers CHR_EINVAL there,
 * close does nothing. After a commit failed with CHR_EIO it may have happened or not, and
 * writing goes on only after close and open (CHR_EDOUBT); so does reading where it was a meta page
 * that could not be written.
 * CHR_EVERSION, CHR_ECORRUPT (not ours, damaged), CHR_EACCES, CHR_ENOSPC, CHR_EIO; msg names the
 * file. */
CHR_MUST_USE chr_err db_kv_lmdb_open(const char *dir, uint64_t map_bytes, struct db_kv *kv,
                                     struct chr_errmsg *msg);
/* All transactions must have ended. Accepts a zeroed kv. */
void db_kv_lmdb_close(struct db_kv *kv);

#endif
