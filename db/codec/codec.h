/* db/codec/codec.h: how the values of one block of one column become few bytes.
 *
 * Two choices are made per block, and each combination works:
 *
 *     values ──mapping──▶ integers (or codes) ──codec──▶ bytes
 *
 *     mapping  plain      INT, TIMESTAMP as they are; FLOAT by its bits
 *              decimal    FLOAT = integer / 10^e, exactly; the others are exceptions
 *              float32    FLOAT that a 32-bit float holds exactly, by those bits
 *              dict       place of the value in the column's dictionary (strings; few values)
 *     codec    raw        64 bits each
 *              constant   one
 *              for        frame of reference: base + bit-packed difference, outliers patched
 *              delta      differences to the row before, bit-packed, then summed
 *              delta2     differences of those differences (regular times, counters)
 *              rle        runs: values and where they end
 *              (scaled)   one of these, of values divided by what they have in common: times in
 *                         whole milliseconds, readings in steps of the converter
 *
 * NULL rows are left out before anything else (their bitmap comes first), so codecs see a dense
 * array of 1 to DB_VECTOR_ROWS integers. BOOLEANs are a bitmap; strings without a dictionary are
 * lengths (integers) and a heap of bytes, LZ4 where that helps.
 *
 * A further codec (Chimp128 for floats that are no decimals) is one more number below and one more
 * struct db_codec_ops in ints.c. Numbers and layouts are stored: never change them, add.
 *
 * Speed: what a block is like is learnt in two passes that vectorize (min, max, deltas, runs); the
 * sizes of all codecs follow from that, and only the smallest is carried out.
 *
 * Invariants
 *   C1  decode(encode(x)) == x, bit for bit, for any 64-bit integers (arithmetic wraps).
 *   C2  Decoders write at most DB_VECTOR_ROWS values to `out`, whatever the bytes say, and read
 *       nothing outside the cursor.
 *   C3  How many rows decode is the caller's to say, never the bytes'. */
#ifndef CHR_DB_CODEC_H
#define CHR_DB_CODEC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/slice.h"
#include "db/types.h"

/* Stored: never renumber. */
enum db_codec {
    DB_CODEC_RAW = 0,
    DB_CODEC_CONSTANT = 1,
    DB_CODEC_FOR = 2,
    DB_CODEC_DELTA = 3,
    DB_CODEC_DELTA2 = 4,
    DB_CODEC_RLE = 5,
    /* Chimp128 will be 7. */
};
#define DB_CODECS_END 6
/* In the place of a codec's number: all values are base + scale * what follows. */
#define DB_CODEC_SCALED 6

/* Stored: never renumber. */
enum db_mapping {
    DB_MAP_PLAIN = 0,
    DB_MAP_DECIMAL = 1,
    DB_MAP_FLOAT32 = 2,
    DB_MAP_DICT = 3,
    DB_MAP_BITMAP = 4, /* BOOLEAN */
    DB_MAP_HEAP = 5,   /* STRING, BLOB without dictionary */
};
#define DB_MAPS_END 6

/* -- Reading foreign bytes ----------------------------------------------------------------------*/

/* A place in bytes that nobody vouches for. The first failure sets `why` and leaves `at` there. */
struct db_cursor {
    const uint8_t *at;
    const uint8_t *end; /* exclusive */
    const char *why;    /* static; NULL: fine so far */
};

CHR_INLINE struct db_cursor db__cursor_of(chr_slice s)
{
    return (struct db_cursor){.at = s.ptr, .end = s.ptr + s.len, .why = NULL};
}
CHR_INLINE size_t db__cursor_left(const struct db_cursor *c)
{
    return (size_t)(c->end - c->at);
}
CHR_INLINE chr_err db__cursor_bad(struct db_cursor *c, const char *why)
{
    if (!c->why)
        c->why = why;
    return CHR_ECORRUPT;
}
/* The next n bytes, or NULL (why is set). */
CHR_INLINE const uint8_t *db__cursor_take(struct db_cursor *c, size_t n)
{
    if (CHR_UNLIKELY(c->why || n > db__cursor_left(c))) {
        db__cursor_bad(c, "ends too early");
        return NULL;
    }
    const uint8_t *p = c->at;
    c->at += n;
    return p;
}
/* 0 once the cursor has failed: check `why` after a group of them. */
uint8_t db__cursor_u8(struct db_cursor *c);
uint16_t db__cursor_u16(struct db_cursor *c);
uint32_t db__cursor_u32(struct db_cursor *c);
uint64_t db__cursor_u64(struct db_cursor *c);

/* -- Integers -----------------------------------------------------------------------------------*/

/* Where bit-packing puts the border between outliers and the rest. */
struct db_packed_plan {
    uint64_t base;
    unsigned width;   /* bits of (value - base); 0: all values are base */
    uint32_t patches; /* values whose difference needs more */
    size_t bytes;     /* what db__packed_put will append */
};

/* One block of integers on its way out: the values, what was learnt of them, and scratch. */
struct db_ints {
    const int64_t *values; /* [count] */
    uint32_t count;        /* 1 .. DB_VECTOR_ROWS */
    /* Rows where a new series begins, rising, each >= 1: the step there says nothing about the
     * steps around it, so the delta codecs keep it apart. */
    const uint16_t *breaks;
    uint32_t breaks_count;

    /* Set by planning: values is then `scaled`, (value - base) / scale. 0: not scaled. */
    uint64_t scale, base;
    int64_t min, max;
    uint32_t runs; /* 1 + places where a value differs from the one before */
    struct db_packed_plan plan[DB_CODECS_END];
    struct db_packed_plan jumps_plan;

    uint64_t deltas[DB_VECTOR_ROWS] CHR_ALIGNED(64);  /* [0] and breaks: made to fit in */
    uint64_t deltas2[DB_VECTOR_ROWS] CHR_ALIGNED(64); /* [0], [1]: likewise */
    uint64_t scratch[DB_VECTOR_ROWS] CHR_ALIGNED(64);
    uint64_t jumps[DB_VECTOR_ROWS]; /* what is lost at breaks */
    int64_t scaled[DB_VECTOR_ROWS] CHR_ALIGNED(64);
};

struct db_codec_ops {
    const char *name;
    /* Bytes that encode will append, from the profile; SIZE_MAX when it cannot. */
    size_t (*size)(struct db_ints *ints);
    void (*encode)(struct db_ints *ints, struct chr_buf *out);
    /* out: [DB_VECTOR_ROWS], 64-byte aligned; all of it may be written over. */
    chr_err (*decode)(struct db_cursor *in, uint32_t count, int64_t *out);
    /* A codec must be smaller than another by the difference of these, in percent, to be preferred:
     * decode speed as the tie-break. */
    unsigned handicap;
};
extern const struct db_codec_ops *const db__codecs[DB_CODECS_END];
extern const struct db_codec_ops db__codec_raw, db__codec_constant; /* plain.c */
extern const struct db_codec_ops db__codec_for;                     /* frame.c */
extern const struct db_codec_ops db__codec_delta, db__codec_delta2; /* delta.c */
extern const struct db_codec_ops db__codec_rle;                     /* rle.c */

/* Fills in the profile of values, count and breaks, and says which codec is best and how many bytes
 * it takes with its leading number. */
enum db_codec db__ints_plan(struct db_ints *ints, size_t *bytes);
/* Appends codec number and stream, after db__ints_plan. */
void db__ints_put(struct db_ints *ints, enum db_codec codec, struct chr_buf *out);
/* Both at once. */
void db__ints_encode(struct db_ints *ints, const int64_t *values, uint32_t count,
                     struct chr_buf *out);
/* Reads what db__ints_put wrote. *constant: only out[0] was written, it stands for all. *codec: the
 * one under the scale, if there is one. */
chr_err db__ints_decode(struct db_cursor *in, uint32_t count, int64_t *out, bool *constant,
                        enum db_codec *codec);

/* Arrays of any length (heads, dictionaries, statistics): blocks of DB_VECTOR_ROWS one after the
 * other, read as a whole. */
void db__int_array_put(struct db_ints *ints, const int64_t *values, size_t count,
                       struct chr_buf *out);
/* out: [count rounded up to DB_VECTOR_ROWS], 64-byte aligned. */
chr_err db__int_array_get(struct db_cursor *in, size_t count, int64_t *out);

/* -- Bit-packing (packed.c) ---------------------------------------------------------------------*/

/* How to pack values [count] of the given minimum and maximum (as signed numbers). */
void db__packed_plan(const uint64_t *values, uint32_t count, int64_t min, int64_t max,
                     struct db_packed_plan *plan);
/* scratch: [DB_VECTOR_ROWS]; may be values itself when they are not needed any more. */
void db__packed_put(const uint64_t *values, uint32_t count, const struct db_packed_plan *plan,
                    uint64_t *scratch, struct chr_buf *out);
chr_err db__packed_get(struct db_cursor *in, uint32_t count, uint64_t *out);
/* Bare bits: count values of width bits in db__bits_bytes; no base, no patches. */
size_t db__bits_bytes(uint32_t count, unsigned width);
void db__bits_put(uint64_t *values, uint32_t count, unsigned width, struct chr_buf *out);
chr_err db__bits_get(struct db_cursor *in, uint32_t count, unsigned width, uint64_t base,
                     uint64_t *out);

/* -- Floats (decimal.c) -------------------------------------------------------------------------*/

/* Appends mapping, its parameters and the integer stream of values [count]. */
void db__floats_encode(struct db_ints *ints, const double *values, uint32_t count,
                       struct chr_buf *out);
/* Reads what follows a mapping byte; mapping is plain, decimal or float32. */
chr_err db__floats_decode(struct db_cursor *in, enum db_mapping mapping, uint32_t count,
                          double *out, bool *constant, enum db_codec *codec);

/* -- Dictionary codes (codes.c) -----------------------------------------------------------------*/

/* codes [count], each < dict_count <= 65,536. */
void db__codes_encode(struct db_ints *ints, const uint16_t *codes, uint32_t count,
                      struct chr_buf *out);
/* out: [DB_VECTOR_ROWS], 64-byte aligned; each checked to be < dict_count. */
chr_err db__codes_decode(struct db_cursor *in, uint32_t count, uint32_t dict_count, uint16_t *out,
                         bool *constant, enum db_codec *codec);

/* -- Bitmaps (bitmap.c) -------------------------------------------------------------------------*/

enum db_bitmap_form {
    DB_BITMAP_ZEROS = 0,
    DB_BITMAP_ONES = 1,
    DB_BITMAP_RAW = 2,
    DB_BITMAP_RUNS = 3
};
/* bits [DB_BIT_WORDS(count)]; what is past count is ignored. count: 1 .. DB_VECTOR_ROWS. */
void db__bitmap_put(const uint64_t *bits, uint32_t count, struct chr_buf *out);
/* bits: [DB_BIT_WORDS(DB_VECTOR_ROWS)], zero past count. *ones: how many are set. */
chr_err db__bitmap_get(struct db_cursor *in, uint32_t count, uint64_t *bits, uint32_t *ones);

/* -- Heaps of bytes (heap.c) --------------------------------------------------------------------*/

/* Bytes alone, and where they are on the way back: in the cursor's bytes or in `unpacked`
 * (decompressed there, replacing what it held). *try_lz4: whether compressing is worth a try;
 * updated by how it went. */
void db__bytes_put(chr_slice plain, bool *try_lz4, struct chr_buf *out);
chr_err db__bytes_get(struct db_cursor *in, struct chr_buf *unpacked, chr_slice *bytes);
/* Lengths and bytes of strings [count <= DB_VECTOR_ROWS]. */
void db__heap_put(struct db_ints *ints, const chr_slice *strings, uint32_t count, bool *try_lz4,
                  struct chr_buf *scratch, struct chr_buf *out);
/* out: [DB_VECTOR_ROWS]; slices point to where db__bytes_get says. lengths: [DB_VECTOR_ROWS],
 * 64-byte aligned scratch. */
chr_err db__heap_get(struct db_cursor *in, uint32_t count, int64_t *lengths,
                     struct chr_buf *unpacked, chr_slice *out);

#endif
