/* broker/ingest/message.h: one message being decoded, and the decoder it is decoded into.
 *
 *     ingest_decode (decoder.c) ── per table ──▶ ingest__json   (json.c; json_value.c, metrics.c)
 *                                           ├──▶ ingest__csv    (csv.c)
 *                                           └──▶ ingest__scalar (scalar.c)
 *
 * A function that fails sets message->err and the reason, and returns NULL, false or the error; the
 * rows it left behind are undone by ingest_decode (I1). */
#ifndef CHR_BROKER_INGEST_MESSAGE_H
#define CHR_BROKER_INGEST_MESSAGE_H

#include "broker/ingest/internal.h"
#include "broker/ingest/scan.h"

/* Rows of one table in one batch. 65,536 rows of two columns fill a quarter of an entry; a larger
 * batch gains nothing, and a smaller bound would cut long arrays. */
#define INGEST_TABLE_ROWS_MAX 65536

/* A member of `metrics`: its (flattened) name and where its value stands. */
struct ingest_metric {
    const uint8_t *name; /* in the payload; NULL: composed, at names + name_at */
    uint32_t name_at, name_len;
    const uint8_t *value; /* NULL: a later member has the same name */
};

/* A buffer that grows to what a message needs and is given back when that was much. */
struct ingest_bytes {
    uint8_t *ptr;
    size_t capacity;
};

struct ingest_undo {
    uint32_t rows;
    size_t bytes;
};

struct ingest_decoder {
    ingest_mappings *mappings;         /* NULL before the first ingest_decoder_use */
    struct db_rows_builder **builders; /* [tables], NULL until a row comes */
    uint64_t *used;                    /* [tables] flush number of the last row */
    uint32_t *touched;                 /* [touched_count] slots that hold rows, in order */
    struct ingest_undo *undo;          /* [tables] per target of the message */
    uint32_t touched_count;
    uint64_t flushes;
    size_t pending_rows, pending_bytes, bytes_max;
    size_t room; /* ingest_decoder_room */
    uint64_t unknown_keys;
    struct ingest_bytes payload; /* padded copy of the message */
    struct ingest_bytes text;    /* one unescaped string */
    struct ingest_bytes names;   /* composed names of metrics */
    size_t names_len;
    struct ingest_metric *metrics;
    uint32_t metrics_count, metrics_capacity;
};

struct ingest_message {
    ingest_decoder *decoder;
    const uint8_t *begin, *end; /* the padded copy: INGEST_PAD zeros at end */
    bool ascii;
    bool utf8; /* checked */
    int64_t received_at_us;
    uint32_t guard;
    chr_err err;
    struct ingest_reject *why;
    /* of the current target */
    const struct ingest_target *target;
    const struct ingest_plan *plan;
    struct db_rows_builder *rows;
    const char *part; /* what `element` counts: "element", "line" */
    uint32_t element; /* from 1; 0: the message is not in parts */
    bool metrics_seen;
    chr_slice metric; /* being put; empty: none */
    uint64_t unknown_keys;
    /* "a.b" while inside of b of a: what columns are looked up by */
    uint32_t path_len;
    uint8_t path[DB_NAME_BYTES_MAX + 1 + 8];
};

/* Each adds the rows of the message to m->rows. */
CHR_MUST_USE chr_err ingest__json(struct ingest_message *m);
CHR_MUST_USE chr_err ingest__csv(struct ingest_message *m);
CHR_MUST_USE chr_err ingest__scalar(struct ingest_message *m, enum db_payload_format format);

/* Checks the payload's UTF-8 once; false: rejected. */
bool ingest__check_utf8(struct ingest_message *m);
/* Room for len bytes and INGEST_PAD more. False: CHR_ENOMEM in m->err. */
bool ingest__room(struct ingest_message *m, struct ingest_bytes *bytes, size_t len);

/* -- JSON values off the fast road (json_value.c). p is at the value's first byte; they return
 * where it ends, NULL: rejected. depth: of the object or array around it, the outermost is 1. */
const uint8_t *ingest__json_skip(struct ingest_message *m, const uint8_t *p, unsigned depth);
/* Puts it into its column. */
const uint8_t *ingest__json_put(struct ingest_message *m, const struct ingest_key *key,
                                const uint8_t *p, unsigned depth);
/* p: after the opening quote. Returns the closing quote. */
const uint8_t *ingest__json_string(struct ingest_message *m, const uint8_t *p, bool *escaped);
/* raw: between the quotes, checked by ingest__json_string. out: raw.len bytes. CHR_EMALFORMED: half
 * of a surrogate pair. */
CHR_MUST_USE chr_err ingest__json_unescape(chr_slice raw, uint8_t *out, size_t *len);
/* An object below the top, whose keys are parts of longer names. p: after '{'. */
const uint8_t *ingest__json_nested(struct ingest_message *m, const uint8_t *p, unsigned depth);

/* -- `metrics` (metrics.c) */
/* Remembers the members. p: at the value of `metrics`. */
const uint8_t *ingest__metrics_collect(struct ingest_message *m, const uint8_t *p, unsigned depth);
/* One row for each, from the row being built. */
CHR_MUST_USE chr_err ingest__metrics_rows(struct ingest_message *m);

#endif
