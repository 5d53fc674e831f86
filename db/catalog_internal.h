/* db/catalog_internal.h: how db/ makes catalogs.
 *
 * A catalog is never changed: db__catalog_with and _without make the next one, which shares the
 * definitions that stayed. Both need the applier's thread only for the version numbers' sake. */
#ifndef CHR_DB_CATALOG_INTERNAL_H
#define CHR_DB_CATALOG_INTERNAL_H

#include "db/catalog.h"

#define DB__TABLE_ID_READINGS 1
#define DB__TABLE_ID_REJECTS  2
#define DB__TABLE_ID_FIRST    16 /* of CREATE TABLE; below it is room for built-in tables */

/* A malloc'd copy, one block; NULL when out of memory. */
struct db_table_def *db__table_def_copy(const struct db_table_def *from);

/* An empty catalog; NULL when out of memory. The caller holds one reference. */
db_catalog *db__catalog_new(uint64_t version, uint64_t mapping_version);
/* A catalog like `from` with `def` (taken, even on failure) in place of the definition of the same
 * id, or added. Both versions as given. NULL when out of memory. */
db_catalog *db__catalog_with(const db_catalog *from, struct db_table_def *def, uint64_t version,
                             uint64_t mapping_version);
db_catalog *db__catalog_without(const db_catalog *from, uint32_t id, uint64_t version,
                                uint64_t mapping_version);
/* The tables an empty database begins with: `readings` and `chronos_rejects` (design 2.2, 2.3).
 * NULL when out of memory. */
db_catalog *db__catalog_builtin(void);

#endif
