/* db/series_key.h: a series as bytes that compare like its values do, column by column.
 *
 *   per column   0x01 and the value, or 0x02 for NULL (NULLs sort last)
 *     INT, TIMESTAMP   8 bytes big-endian, sign bit flipped
 *     FLOAT            8 bytes, ordered: -inf … -0 = 0 … inf, NaN
 *     BOOLEAN          1 byte
 *     STRING, BLOB     bytes, 0x00 as 0x00 0xff; then 0x00 0x00
 *
 * Chunks are sorted by it and remember those of their first and last row, cut short. */
#ifndef CHR_DB_SERIES_KEY_H
#define CHR_DB_SERIES_KEY_H

#include <stdbool.h>

#include "base/buf.h"
#include "db/types.h"

/* What a chunk's record keeps of its first and last series. */
#define DB__SERIES_CUT 64

void db__series_add(struct chr_buf *out, const struct db_value *value);
/* Is a whole key surely before the first or after the last series of a chunk, given those cut? */
bool db__series_before(chr_slice key, chr_slice first_cut);
bool db__series_after(chr_slice key, chr_slice last_cut);

#endif
