/* broker/ingest/convert.h: from text to a value of a column's type.
 *
 * Used for everything that is not on the fast road of json.c: captured topic levels, JSON strings
 * for columns that are none, CSV fields, bare payloads. So 21.5 means the same wherever it stands.
 *
 *   INT        "21", "-7", "+7", "21.0", "1e3": a whole number, exactly; blanks around it
 *   FLOAT      what SQL takes: "21.5", ".5", "5.", "1e-3", "nan", "-inf", "infinity"; blanks
 *   BOOLEAN    what PostgreSQL takes: true/t/yes/y/on/1 and false/f/no/n/off/0 in any case; blanks
 *   TIMESTAMP  a number (design 2.3: s, ms, us or ns by magnitude), else ISO 8601; blanks
 *   STRING     the text, proper UTF-8 without U+0000
 *   BLOB       "\x00ff" is hexadecimal, all else its bytes */
#ifndef CHR_BROKER_INGEST_CONVERT_H
#define CHR_BROKER_INGEST_CONVERT_H

#include "base/err.h"
#include "base/slice.h"
#include "db/types.h"

/* On failure *complaint is what a reason says after the value: "is not a number". Static.
 *   text  valid UTF-8 when it is for a STRING
 *   hex   room for text.len / 2 bytes, for a BLOB; may be text.ptr itself
 * out->bytes points into text or hex. CHR_ETYPE, CHR_ERANGE. */
CHR_MUST_USE chr_err ingest__convert_text(enum db_type type, chr_slice text, uint8_t *hex,
                                          struct db_value *out, const char **complaint);

/* A JSON number as it was written. For STRING its text. */
CHR_MUST_USE chr_err ingest__convert_number(enum db_type type, chr_slice number,
                                            struct db_value *out, const char **complaint);

bool ingest__values_equal(const struct db_value *a, const struct db_value *b);

#endif
