/* broker/ingest/ingest.h: from (topic, payload) to rows: step 2 and 3 of the road (design 3).
 *
 *     catalog ──ingest_mappings_compile──▶ mappings            once per mapping version, shared
 *     mappings + topic ──ingest_route_make──▶ route            once per topic and loop, cached
 * there route + payload ──ingest_decode──▶ rows in the decoder   per message, no allocation decoder
 * ──ingest_flush──▶ ROWS operations of an entry    per batch
 *
 * Threads: mappings are immutable and shared by all; a route may be used by any thread that holds
 * it, a decoder by one thread at a time. The SQL worker of RETRY REJECTS and the admin thread of
 * POST /ingest have decoders of their own and take the same road.
 *
 * Invariants
 *   I1  A message is all or nothing over its array elements and its tables (R3): whatever
 *       ingest_decode returns but CHR_OK, the decoder holds exactly the rows it held before.
 *   I2  All rows of a decoder were decoded under one mapping version (R9), the one of the mappings
 *       it uses; the entry they are flushed into carries that version.
 *   I3  Nothing is read past the end of a payload or a topic: both lie in network buffers.
 *   I4  A value that does not fit its column rejects the message. Nothing is cut or guessed, and
 *       nothing is rounded but decimals to the nearest double and times to the microsecond; what
 *       is accepted beyond a column's own form is listed in README.md. */
#ifndef CHR_BROKER_INGEST_INGEST_H
#define CHR_BROKER_INGEST_INGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"
#include "db/catalog.h"
#include "db/op.h"

/* A larger payload is rejected (CHR_ETOOBIG), and so is a message whose rows take more than this:
 * beside a batch of 1 MiB they, or the reject that keeps the payload, still fit an entry. */
#define INGEST_PAYLOAD_BYTES_MAX (5u << 19)
#define INGEST_MESSAGE_BYTES_MAX (5u << 19)
/* Objects and arrays inside each other; more is rejected. */
#define INGEST_JSON_DEPTH_MAX 64

/* -- Mappings: every rule of one catalog, compiled */

/* Immutable, reference-counted; keeps its catalog. Any thread. */
typedef struct ingest_mappings ingest_mappings;

/* Compiles the topic templates of all tables. The catalog is retained, *out has one reference.
 * CHR_ENOMEM. Templates and columns were checked when the table was created. */
CHR_MUST_USE chr_err ingest_mappings_compile(const db_catalog *catalog, ingest_mappings **out);
void ingest_mappings_retain(ingest_mappings *mappings);
void ingest_mappings_release(ingest_mappings *mappings); /* accepts NULL */
/* db_catalog_mapping_version() of its catalog. A loop compares it with db_mapping_version_now()
 * once per turn; when it is older: flush, ingest_decoder_use the new ones, forget all routes. */
uint64_t ingest_mappings_version(const ingest_mappings *mappings);
const db_catalog *ingest_mappings_catalog(const ingest_mappings *mappings); /* borrowed */

/* -- Routes: what one topic means */

/* The tables a topic is mapped to, its captured levels already converted to the columns' types.
 * Immutable; keeps its mappings. */
typedef struct ingest_route ingest_route;

/* topic: a valid topic name, copied as far as needed. *out is NULL when no mapping matches: a plain
 * MQTT message. Each table appears once, by the first of its templates that matches, even when
 * several do. A level that its column cannot take makes a route that rejects every message.
 * CHR_ENOMEM. */
CHR_MUST_USE chr_err ingest_route_make(ingest_mappings *mappings, chr_slice topic,
                                       ingest_route **out);
/* A route to one table without a topic: every column comes from the payload. For POST /ingest:
 * table "readings", DB_PAYLOAD_JSON. CHR_ENOTFOUND: no such table, or a system table. */
CHR_MUST_USE chr_err ingest_route_make_table(ingest_mappings *mappings, chr_slice table,
                                             enum db_payload_format format, ingest_route **out);
void ingest_route_free(ingest_route *route); /* accepts NULL */
/* Its tables in the order they are decoded: of name. Borrowed from the route. */
uint32_t ingest_route_tables_count(const ingest_route *route);
const struct db_table_def *ingest_route_table(const ingest_route *route, uint32_t i);

/* -- Decoder: the open batch of rows */

typedef struct ingest_decoder ingest_decoder; /* from ingest_decoder_new, to ingest_decoder_free */

/* Why a message was refused, for db_entry_add_reject and the Reason String. */
struct ingest_reject {
    uint32_t table_id; /* of the mapping that refused it */
    /* A sentence in proper UTF-8: `column temp: "abc" is not a number (at byte 17)`. Bytes count
     * from 0 at the start of the payload, array elements and lines from 1. */
    struct chr_errmsg reason;
};

/* bytes_max: ingest_decode answers CHR_EFULL rather than let ingest_pending_bytes pass it; only a
 * message that comes to an empty batch may take up to INGEST_MESSAGE_BYTES_MAX. What else goes into
 * the entry has to fit beside them. CHR_ENOMEM. */
CHR_MUST_USE chr_err ingest_decoder_new(size_t bytes_max, ingest_decoder **out);
void ingest_decoder_free(ingest_decoder *decoder); /* accepts NULL; pending rows are lost */
/* From now on rows are decoded by routes of these mappings (retained). Nothing may be pending:
 * flush or discard first (I2). CHR_ENOMEM: the old ones stay in use. */
CHR_MUST_USE chr_err ingest_decoder_use(ingest_decoder *decoder, ingest_mappings *mappings);

/* Decodes one message and adds its rows, none if it is an empty array.
 *   route           of the mappings in use
 *   payload         borrowed until return
 *   received_at_us  arrival: `_received_at`, and the time column of a row that has no time
 *   guard           item of the entry's GUARDS (R5); UINT32_MAX: none
 *   why             out: filled in when the message is rejected, else untouched
 * CHR_EFULL: no room in this batch; flush, then decode again: an empty decoder says so only for
 * lack of the room that ingest_decoder_room gave it.
 * CHR_ENOMEM: likewise nothing was added. Anything else: rejected, see why; the code says what
 * kind (CHR_EMALFORMED, CHR_ETYPE, CHR_ERANGE, CHR_ENOTNULL, CHR_ETOOBIG; CHR_ECONFLICT: the
 * payload contradicts the topic). */
CHR_MUST_USE chr_err ingest_decode(ingest_decoder *decoder, const ingest_route *route,
                                   chr_slice payload, int64_t received_at_us, uint32_t guard,
                                   struct ingest_reject *why);

/* So many bytes may be pending in all: what the entry has left beside its other operations. With
 * less than INGEST_MESSAGE_BYTES_MAX an empty decoder answers CHR_EFULL, too. SIZE_MAX at first. */
void ingest_decoder_room(ingest_decoder *decoder, size_t bytes);

size_t ingest_pending_rows(const ingest_decoder *decoder);
size_t ingest_pending_bytes(const ingest_decoder *decoder); /* about what flush will write */
/* Appends the pending rows to an entry as DB_OP_ROWS operations (DB_ROWS_MERGE) and resets. Call
 * after db_entry_add_guards when rows are guarded. An entry that has no room has bytes.failed set,
 * which db_entry_end reports. */
void ingest_flush(ingest_decoder *decoder, struct db_entry *entry);
/* Forgets the pending rows. */
void ingest_discard(ingest_decoder *decoder);

/* JSON keys of accepted messages that named no column (design 2.3). Decoder's thread. */
uint64_t ingest_unknown_keys(const ingest_decoder *decoder);

#endif
