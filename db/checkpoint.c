/* db/checkpoint.c */
#include "db/checkpoint.h"

#include "db/internal.h"

chr_err db__checkpoint_init(struct db *d)
{
    (void)d;
    return CHR_OK;
}

void db__checkpoint_free(struct db *d)
{
    (void)d;
}

enum db_checkpoint_reason db_checkpoint_due(const db *d, uint64_t log_bytes, int64_t mono_us)
{
    (void)d, (void)log_bytes, (void)mono_us;
    return DB_CHECKPOINT_NONE;
}

chr_err db_checkpoint(db *d, enum db_checkpoint_reason reason,
                      chr_err (*wait_synced)(void *arg, uint64_t index), void *arg, int64_t mono_us,
                      struct chr_errmsg *msg)
{
    (void)d, (void)reason, (void)wait_synced, (void)arg, (void)mono_us;
    return chr_fail(msg, CHR_EUNSUPPORTED, "checkpoints are being written");
}
