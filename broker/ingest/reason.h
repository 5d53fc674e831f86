/* broker/ingest/reason.h: the sentences of rejects.
 *
 *     element 3: column temp: "abc" is not a number (at byte 17)
 *
 * Whatever a payload holds, a reason is proper UTF-8 of at most 255 bytes without control
 * characters: it goes into Reason Strings, logs and chronos_rejects. All of these set m->err and
 * return it. */
#ifndef CHR_BROKER_INGEST_REASON_H
#define CHR_BROKER_INGEST_REASON_H

#include "broker/ingest/message.h"

/* `the JSON is malformed: <what> (at byte …)`, or `the JSON ends too early`. */
CHR_NOINLINE chr_err ingest__fail_json(struct ingest_message *m, const uint8_t *at,
                                       const char *what);
/* `column <name>: <value> <complaint> (at byte …)`; value as it stands in the payload, in quotes
 * if quote. */
CHR_NOINLINE chr_err ingest__fail_value(struct ingest_message *m, chr_err err, uint16_t column,
                                        chr_slice value, bool quote, const char *complaint);
/* `column <name>: <value> contradicts the topic (at byte …)` */
CHR_NOINLINE chr_err ingest__fail_captured(struct ingest_message *m, uint16_t column,
                                           chr_slice value);
/* A sentence of its own; at: NULL, or where. */
CHR_NOINLINE CHR_PRINTF(4, 5) chr_err
    ingest__fail(struct ingest_message *m, chr_err err, const uint8_t *at, const char *format, ...);
/* What db_rows_put_bytes or db_rows_end said: CHR_EFULL and CHR_ENOMEM are no rejects. */
CHR_NOINLINE chr_err ingest__fail_store(struct ingest_message *m, chr_err err,
                                        const struct chr_errmsg *msg);
/* `column <name>: "<level>" in the topic <complaint>` */
void ingest__reason_topic(struct chr_errmsg *reason, const char *column, chr_slice level,
                          const char *complaint);

#endif
