/* db/recover.c: from the store back into memory. */
#include "db/recover.h"

#include "db/internal.h"

static void open_tables(struct db *d)
{
    for (size_t i = 0; i < db_catalog_tables_count(d->catalog); i++)
        db__table_insert(d, db__table_new(db_catalog_table_at(d->catalog, i), NULL));
}

chr_err db__recover(struct db *d, struct chr_errmsg *msg)
{
    (void)msg;
    d->catalog = db__catalog_builtin();
    if (!d->catalog)
        return CHR_ENOMEM;
    open_tables(d);
    db__publish(d, 0, 0, db__version_new(d));
    return CHR_OK;
}
