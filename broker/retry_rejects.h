/* broker/retry_rejects.h: RETRY REJECTS FOR table: kept messages once more through the mappings. */
#ifndef CHR_BROKER_RETRY_REJECTS_H
#define CHR_BROKER_RETRY_REJECTS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/err.h"
#include "db/catalog.h"

struct broker_node;

/* Query worker's thread; blocks. Decodes each reject of the table with the mappings of now; what
 * fits is stored and its reject removed, in one entry (all or nothing); what still does not fit
 * stays. *retried: stored now; *failed: still rejects. */
CHR_MUST_USE chr_err retry_rejects(struct broker_node *node, const struct db_table_def *table,
                                   const atomic_bool *cancel, uint64_t *retried, uint64_t *failed,
                                   struct chr_errmsg *msg);

#endif
