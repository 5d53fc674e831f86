/* db/chunk_column.c: one column of a chunk, decoded block by block into vectors.
 *
 * Everything read here is foreign (K3). What depends on the whole value (block table, dictionary)
 * is checked once, at open or at the first use; each block is read through a cursor that ends where
 * the table says. Buffers belong to the column and stay from chunk to chunk. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "db/chunk_internal.h"
#include "db/codec/kernels.h"
#include "db/value_crc.h"

struct db_chunk_column {
    uint16_t id;
    enum db_type type;
    uint32_t rows, blocks;
    bool open, uniform;
    chr_slice value;
    uint32_t blocks_begin;
    uint32_t dictionary; /* offset, 0: none */
    const int64_t *hlc;  /* values are entries, to be looked up here from entry_min on */
    uint32_t hlc_count;
    uint64_t entry_min;

    bool dict_ready;
    uint32_t dict_count;
    uint64_t dict_id;
    chr_slice *dict_strings;
    size_t dict_strings_capacity;
    int64_t *dict_numbers;
    size_t dict_numbers_capacity;
    struct chr_buf dict_heap, heap; /* decompressed */

    /* What a vector points to; 64-byte aligned, one allocation each. */
    struct {
        union {
            int64_t i64[DB_VECTOR_ROWS + 8]; /* spreading writes ahead */
            double f64[DB_VECTOR_ROWS];
            uint8_t b8[DB_VECTOR_ROWS];
            chr_slice str[DB_VECTOR_ROWS];
        } data CHR_ALIGNED(64);
        /* Values before NULL rows are put between them; spreading reads ahead. */
        int64_t dense[DB_VECTOR_ROWS + 8] CHR_ALIGNED(64);
        uint16_t codes[DB_VECTOR_ROWS] CHR_ALIGNED(64);
        uint16_t dense_codes[DB_VECTOR_ROWS + 8] CHR_ALIGNED(64);
        uint64_t validity[DB_BIT_WORDS(DB_VECTOR_ROWS)] CHR_ALIGNED(64);
        uint64_t bits[DB_BIT_WORDS(DB_VECTOR_ROWS)] CHR_ALIGNED(64);
        chr_slice dense_strings[DB_VECTOR_ROWS + 8];
    } out;
};

chr_err db_chunk_column_new(db_chunk_column **column)
{
    _Static_assert(sizeof(db_chunk_column) % 64 == 0, "aligned_alloc asks for it");
    db_chunk_column *c = aligned_alloc(64, sizeof *c);
    if (!c)
        return CHR_ENOMEM;
    memset(c, 0,
           offsetof(db_chunk_column, out)); /* memory of a column nobody reads stays unbacked */
    chr_buf_init(&c->dict_heap, DB_CHUNK_UNPACKED_BYTES_MAX);
    chr_buf_init(&c->heap, DB_CHUNK_UNPACKED_BYTES_MAX);
    *column = c;
    return CHR_OK;
}

void db_chunk_column_free(db_chunk_column *c)
{
    if (!c)
        return;
    free(c->dict_strings);
    free(c->dict_numbers);
    chr_buf_free(&c->dict_heap);
    chr_buf_free(&c->heap);
    free(c);
}

/* -- Opening ------------------------------------------------------------------------------------*/

static chr_err check_table(db_chunk_column *c, struct chr_errmsg *msg)
{
    uint32_t stored = c->uniform ? 1 : c->blocks;
    uint64_t before = c->blocks_begin = DB_COLUMN_FIXED_BYTES + 4 * stored;
    if (before > c->value.len)
        return chr_fail(msg, CHR_ECORRUPT, "column %u: %zu bytes for %u blocks", c->id,
                        c->value.len, stored);
    for (uint32_t b = 0; b < stored; b++) {
        uint32_t end = chr_get_u32le(c->value.ptr + DB_COLUMN_FIXED_BYTES + 4 * (size_t)b);
        if (end <= before || end > c->value.len)
            return chr_fail(msg, CHR_ECORRUPT, "column %u: block %u ends at %u, before it %llu",
                            c->id, b, end, (unsigned long long)before);
        before = end;
    }
    if (c->dictionary && (c->dictionary < before || c->dictionary >= c->value.len))
        return chr_fail(msg, CHR_ECORRUPT, "column %u: dictionary at %u of %zu", c->id,
                        c->dictionary, c->value.len);
    return CHR_OK;
}

chr_err db_chunk_column_open(db_chunk_column *c, db_chunk_head *head, uint32_t at, chr_slice value,
                             bool verify, struct chr_errmsg *msg)
{
    chr_slice body;
    uint16_t id = db_chunk_head_column(head, at), stored_in = db_chunk_head_stored_in(head, at);
    c->open = false;
    chr_err err = db_value_open(value, DB_CHUNK_COLUMN, DB_CHUNK_VERSION, verify, &body, msg);
    if (err)
        return err;
    if (value.len < DB_COLUMN_FIXED_BYTES)
        return chr_fail(msg, CHR_ECORRUPT, "column %u: %zu bytes", id, value.len);
    const struct db_chunk_info *info = db_chunk_head_info(head);
    c->id = id;
    c->type = db_chunk_head_type(head, at);
    c->rows = info->rows;
    c->blocks = info->blocks;
    c->value = value;
    c->uniform = value.ptr[15] & DB_COLUMN_UNIFORM;
    c->dictionary = chr_get_u32le(value.ptr + 16);
    c->dict_ready = false;
    if (chr_get_u32le(value.ptr + 8) != c->rows || chr_get_u16le(value.ptr + 12) != stored_in ||
        value.ptr[14] != c->type)
        return chr_fail(msg, CHR_ECORRUPT,
                        "column %u of %u rows, type %u: value is of column %u, %u rows, type %u",
                        stored_in, c->rows, c->type, chr_get_u16le(value.ptr + 12),
                        chr_get_u32le(value.ptr + 8), value.ptr[14]);
    err = check_table(c, msg);
    if (err)
        return err;
    c->hlc = NULL;
    if (stored_in != id) {
        c->hlc = db__head_hlc(head, &c->hlc_count, &err, msg);
        c->entry_min = info->entry_min;
    }
    c->open = !err;
    return err;
}

/* -- Dictionary ---------------------------------------------------------------------------------*/

/* New for each opening in the process: a consumer's cache never mistakes one for another. */
static uint64_t next_dict_id(void)
{
    static _Atomic uint64_t last;
    return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

static chr_err reserve_dict(db_chunk_column *c, uint32_t count, struct db_cursor *in)
{
    size_t n = chr_round_up(count, DB_VECTOR_ROWS);
    if (c->dict_numbers_capacity < n) {
        free(c->dict_numbers);
        c->dict_numbers_capacity = 0;
        c->dict_numbers = aligned_alloc(64, n * sizeof *c->dict_numbers);
        if (!c->dict_numbers)
            goto nomem;
        c->dict_numbers_capacity = n;
    }
    if (db_type_is_bytes(c->type) && c->dict_strings_capacity < n) {
        free(c->dict_strings);
        c->dict_strings_capacity = 0;
        c->dict_strings = malloc(n * sizeof *c->dict_strings);
        if (!c->dict_strings)
            goto nomem;
        c->dict_strings_capacity = n;
    }
    return CHR_OK;
nomem:
    db__cursor_bad(in, "no memory for the dictionary");
    return CHR_ENOMEM;
}

static chr_err load_dictionary(db_chunk_column *c, struct db_cursor *in)
{
    uint32_t count = db__cursor_u32(in);
    if (in->why || count == 0 || count > c->rows)
        return db__cursor_bad(in, "a dictionary of no entries, or more than rows");
    chr_err err = reserve_dict(c, count, in);
    if (!err)
        err = db__int_array_get(in, count, c->dict_numbers); /* strings: their lengths */
    if (err)
        return err;
    c->dict_count = count;
    if (!db_type_is_bytes(c->type))
        return CHR_OK;
    chr_slice bytes;
    err = db__bytes_get(in, &c->dict_heap, &bytes);
    if (err)
        return err;
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t len = (uint64_t)c->dict_numbers[i];
        if (len > bytes.len - at)
            return db__cursor_bad(in, "dictionary entries longer than their heap");
        c->dict_strings[i] = chr_slice_of(bytes.ptr + at, (size_t)len);
        at += (size_t)len;
    }
    return at == bytes.len ? CHR_OK : db__cursor_bad(in, "dictionary shorter than its heap");
}

static chr_err need_dictionary(db_chunk_column *c, struct db_cursor *block)
{
    if (c->dict_ready)
        return CHR_OK;
    if (c->dictionary == 0 || c->type == DB_BOOLEAN || c->hlc)
        return db__cursor_bad(block, "a block with codes in a column without dictionary");
    struct db_cursor in =
        db__cursor_of(chr_slice_of(c->value.ptr + c->dictionary, c->value.len - c->dictionary));
    chr_err err = load_dictionary(c, &in);
    if (err) {
        *block = in;
        return err;
    }
    c->dict_id = next_dict_id();
    c->dict_ready = true;
    return CHR_OK;
}

/* -- Spreading ----------------------------------------------------------------------------------*/

/* Dense values to their rows. Words of the bitmap with few NULLs are copied in pieces, eight values
 * at a time and on past the end of the piece, which the next one then overwrites; the others go
 * value by value and without branches, because NULLs are often as random as can be. A NULL row
 * holds whatever comes of it. Both arrays have room for eight values more than a block. */
#define PIECES_ONES_MIN 44

static void spread_pieces(const int64_t *from, int64_t *to, uint64_t ones)
{
    while (ones) {
        unsigned begin = (unsigned)__builtin_ctzll(ones);
        uint64_t gone = ~(ones >> begin);
        unsigned n = gone ? (unsigned)__builtin_ctzll(gone) : 64;
        for (unsigned i = 0; i < n; i += 8)
            memcpy(to + begin + i, from + i, 64);
        from += n;
        ones = begin + n < 64 ? ones >> (begin + n) << (begin + n) : 0;
    }
}

static void spread_numbers(const int64_t *from, int64_t *out, const uint64_t *valid, uint32_t rows)
{
    for (uint32_t row = 0; row < rows; row += 64) {
        uint64_t ones = valid[row >> 6];
        unsigned n = (unsigned)__builtin_popcountll(ones);
        if (n >= PIECES_ONES_MIN) {
            spread_pieces(from, out + row, ones);
        } else if (n) {
            const int64_t *next = from;
            for (unsigned i = 0; i < 64; i++) {
                out[row + i] = *next;
                next += (ones >> i) & 1;
            }
        }
        from += n;
    }
}

static void spread_bytes(const uint8_t *from, uint8_t *out, const uint64_t *valid, uint32_t rows)
{
    for (uint32_t i = 0; i < rows; i++) {
        out[i] = *from;
        from += db_bit_get(valid, i);
    }
}

/* Of strings, where a slice that stood there might point to what is gone. */
static void spread_strings(const chr_slice *dense, chr_slice *out, const uint64_t *valid,
                           uint32_t rows)
{
    for (uint32_t i = 0; i < rows; i++)
        out[i] = db_bit_get(valid, i) ? *dense++ : (chr_slice){0};
}

static void spread_codes(const uint16_t *dense, uint16_t *out, const uint64_t *valid, uint32_t rows)
{
    for (uint32_t i = 0, n = 0; i < rows; i++) {
        uint32_t one = db_bit_get(valid, i);
        out[i] = (uint16_t)(dense[n] & (0u - one));
        n += one;
    }
}

/* -- Blocks -------------------------------------------------------------------------------------*/

/* One block on its way from bytes to a vector. */
struct decoding {
    struct db_cursor in;
    uint32_t rows, ones;
    bool nulls; /* some, but not all: out.validity holds them */
    bool constant;
    enum db_mapping mapping;
    enum db_codec codec;
    struct db_vector *vector;
};

static chr_err decode_codes(db_chunk_column *c, struct decoding *d)
{
    chr_err err = need_dictionary(c, &d->in);
    if (err)
        return err;
    uint16_t *codes = d->nulls ? c->out.dense_codes : c->out.codes;
    err = db__codes_decode(&d->in, d->ones, c->dict_count, codes, &d->constant, &d->codec);
    if (err)
        return err;
    bool strings = db_type_is_bytes(c->type);
    if (d->constant) {
        if (strings)
            c->out.data.str[0] = c->dict_strings[codes[0]];
        else
            c->out.data.i64[0] = c->dict_numbers[codes[0]];
        return CHR_OK;
    }
    if (d->nulls) {
        codes[d->ones] = 0;
        spread_codes(codes, c->out.codes, c->out.validity, d->rows);
    }
    struct db_vector *v = d->vector;
    if (strings) {
        v->form = DB_VECTOR_DICT;
        v->str = c->dict_strings;
        v->codes = c->out.codes;
        v->dict_count = c->dict_count;
        v->dict_id = c->dict_id;
        return CHR_OK;
    }
    for (uint32_t i = 0; i < d->rows; i++)
        c->out.data.i64[i] = c->dict_numbers[c->out.codes[i]];
    d->nulls = false; /* spread already */
    return CHR_OK;
}

static chr_err decode_booleans(db_chunk_column *c, struct decoding *d)
{
    uint32_t ones;
    chr_err err = db__bitmap_get(&d->in, d->ones, c->out.bits, &ones);
    if (err)
        return err;
    d->constant = ones == 0 || ones == d->ones;
    if (d->constant) {
        c->out.data.b8[0] = ones != 0;
        return CHR_OK;
    }
    uint8_t *to = d->nulls ? (uint8_t *)(void *)c->out.dense : c->out.data.b8;
    for (uint32_t w = 0; w < DB_BIT_WORDS(d->ones); w++) {
        uint64_t bits = c->out.bits[w];
        for (unsigned byte = 0; byte < 8; byte++, bits >>= 8) {
            /* Eight bits to eight bytes: a copy of them in each byte, its own bit kept, then made
             * 0 or 1. */
            uint64_t eight = (bits & 0xff) * UINT64_C(0x0101010101010101);
            eight &= UINT64_C(0x8040201008040201);
            eight = ((eight + UINT64_C(0x7f7f7f7f7f7f7f7f)) >> 7) & UINT64_C(0x0101010101010101);
            memcpy(to + (size_t)w * 64 + byte * 8, &eight, 8);
        }
    }
    if (d->nulls) {
        to[d->ones] = 0;
        spread_bytes(to, c->out.data.b8, c->out.validity, d->rows);
    }
    return CHR_OK;
}

static chr_err decode_heap(db_chunk_column *c, struct decoding *d)
{
    chr_slice *to = d->nulls ? c->out.dense_strings : c->out.data.str;
    chr_err err = db__heap_get(&d->in, d->ones, c->out.dense, &c->heap, to);
    if (!err && d->nulls)
        spread_strings(to, c->out.data.str, c->out.validity, d->rows);
    return err;
}

static chr_err look_up_hlc(const db_chunk_column *c, struct decoding *d, int64_t *values)
{
    uint32_t n = d->constant ? 1 : d->rows;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t at = (uint64_t)values[i] - c->entry_min;
        if (at >= c->hlc_count)
            return db__cursor_bad(&d->in, "an entry outside the HLC table");
        values[i] = c->hlc[at];
    }
    return CHR_OK;
}

static chr_err decode_numbers(db_chunk_column *c, struct decoding *d)
{
    chr_err err;
    int64_t *to = d->nulls ? c->out.dense : c->out.data.i64;
    if (c->type == DB_FLOAT)
        err = db__floats_decode(&d->in, d->mapping, d->ones, (double *)(void *)to, &d->constant,
                                &d->codec);
    else if (d->mapping == DB_MAP_PLAIN)
        err = db__ints_decode(&d->in, d->ones, to, &d->constant, &d->codec);
    else
        err = db__cursor_bad(&d->in, "a mapping that integers do not have");
    if (err)
        return err;
    if (d->constant) {
        c->out.data.i64[0] = to[0];
    } else if (d->nulls) {
        spread_numbers(to, c->out.data.i64, c->out.validity, d->rows);
    }
    return c->hlc ? look_up_hlc(c, d, c->out.data.i64) : CHR_OK;
}

/* A constant with NULLs between: a value for each row after all. */
static void fill(db_chunk_column *c, uint32_t rows)
{
    if (db_type_is_bytes(c->type)) {
        for (uint32_t i = 1; i < rows; i++)
            c->out.data.str[i] = c->out.data.str[0];
    } else if (c->type == DB_BOOLEAN) {
        memset(c->out.data.b8, c->out.data.b8[0], rows);
    } else {
        db__kernels()->fill64((uint64_t *)c->out.data.i64, rows, (uint64_t)c->out.data.i64[0]);
    }
}

static chr_err decode_block(db_chunk_column *c, struct decoding *d)
{
    struct db_vector *v = d->vector;
    chr_err err = db__bitmap_get(&d->in, d->rows, c->out.validity, &d->ones);
    if (err)
        return err;
    if (c->hlc && d->ones != d->rows)
        return db__cursor_bad(&d->in, "a row without entry");
    if (d->ones == 0) {
        v->form = DB_VECTOR_CONSTANT;
        v->validity = c->out.validity; /* bit 0 is not set */
        memset(&c->out.data.str[0], 0, sizeof c->out.data.str[0]);
        return CHR_OK;
    }
    d->nulls = d->ones < d->rows;
    bool nulls = d->nulls;
    unsigned mapping = db__cursor_u8(&d->in);
    d->mapping = (enum db_mapping)mapping;
    if (mapping == DB_MAP_DICT)
        err = decode_codes(c, d);
    else if (c->type == DB_BOOLEAN && mapping == DB_MAP_BITMAP)
        err = decode_booleans(c, d);
    else if (db_type_is_bytes(c->type) && mapping == DB_MAP_HEAP)
        err = decode_heap(c, d);
    else if (c->type != DB_BOOLEAN && !db_type_is_bytes(c->type))
        err = decode_numbers(c, d);
    else
        err = db__cursor_bad(&d->in, "a mapping that this type does not have");
    if (err)
        return err;
    if (d->constant && nulls)
        fill(c, d->rows);
    else if (d->constant)
        v->form = DB_VECTOR_CONSTANT;
    v->validity = nulls ? c->out.validity : NULL;
    return CHR_OK;
}

static void find_block(const db_chunk_column *c, uint32_t block, struct decoding *d)
{
    CHR_ASSERT(c->open && block < c->blocks);
    uint32_t stored = c->uniform ? 0 : block;
    const uint8_t *table = c->value.ptr + DB_COLUMN_FIXED_BYTES;
    uint32_t begin = stored ? chr_get_u32le(table + 4 * ((size_t)stored - 1)) : c->blocks_begin;
    uint32_t end = chr_get_u32le(table + 4 * (size_t)stored);
    d->in = db__cursor_of(chr_slice_of(c->value.ptr + begin, end - begin));
    d->rows = CHR_MIN(c->rows - block * DB_VECTOR_ROWS, (uint32_t)DB_VECTOR_ROWS);
}

chr_err db_chunk_column_decode(db_chunk_column *c, uint32_t block, struct db_vector *vector,
                               struct chr_errmsg *msg)
{
    struct decoding d = {.vector = vector};
    find_block(c, block, &d);
    *vector = (struct db_vector){
        .type = c->type, .form = DB_VECTOR_FLAT, .count = d.rows, .data = &c->out.data};
    chr_err err = decode_block(c, &d);
    if (err)
        return chr_fail(msg, err, "column %u, block %u, offset %zu of %zu: %s", c->id, block,
                        (size_t)(d.in.at - c->value.ptr), c->value.len, d.in.why);
    return CHR_OK;
}

const char *db_chunk_column_codec(const db_chunk_column *c, uint32_t block)
{
#define NAMES(prefix)                                                                              \
    {                                                                                              \
        prefix "raw", prefix "constant", prefix "for", prefix "delta", prefix "delta2",            \
            prefix "rle"                                                                           \
    }
    static const char *const names[DB_MAPS_END][2][DB_CODECS_END] = {
        [DB_MAP_PLAIN] = {NAMES(""), NAMES("scaled/")},
        [DB_MAP_DECIMAL] = {NAMES("decimal/"), NAMES("decimal/scaled/")},
        [DB_MAP_FLOAT32] = {NAMES("float32/"), NAMES("float32/scaled/")},
        [DB_MAP_DICT] = {{NULL, "dict/constant", "dict/for", NULL, NULL, "dict/rle"}},
    };
#undef NAMES
    struct decoding d = {0};
    uint64_t bits[DB_BIT_WORDS(DB_VECTOR_ROWS)];
    find_block(c, block, &d);
    if (db__bitmap_get(&d.in, d.rows, bits, &d.ones))
        return "damaged";
    if (d.ones == 0)
        return "null";
    unsigned mapping = db__cursor_u8(&d.in);
    if (mapping == DB_MAP_BITMAP)
        return "bitmap";
    if (mapping == DB_MAP_HEAP)
        return "heap";
    if (mapping == DB_MAP_DECIMAL) {
        db__cursor_u8(&d.in);
        db__cursor_take(&d.in, (size_t)db__cursor_u16(&d.in) * 10);
    }
    unsigned codec = db__cursor_u8(&d.in);
    bool scaled = codec == DB_CODEC_SCALED;
    if (scaled) {
        db__cursor_take(&d.in, 16);
        codec = db__cursor_u8(&d.in);
    }
    if (d.in.why || mapping >= DB_MAPS_END || codec >= DB_CODECS_END ||
        !names[mapping][scaled][codec])
        return "damaged";
    return names[mapping][scaled][codec];
}

chr_err db_chunk_row_ids(db_chunk_column *entry, db_chunk_column *ordinal, uint32_t block,
                         struct db_row_id *out, struct chr_errmsg *msg)
{
    struct db_vector e, o;
    chr_err err = db_chunk_column_decode(entry, block, &e, msg);
    if (!err)
        err = db_chunk_column_decode(ordinal, block, &o, msg);
    if (err)
        return err;
    if (e.type != DB_INT || o.type != DB_INT || e.validity || o.validity || e.count != o.count)
        return chr_fail(msg, CHR_ECORRUPT, "columns %u and %u, block %u: row ids that are NULL",
                        entry->id, ordinal->id, block);
    for (uint32_t i = 0; i < e.count; i++) {
        out[i].entry = (uint64_t)e.i64[db_vector_at(&e, i)];
        out[i].ordinal = (uint32_t)o.i64[db_vector_at(&o, i)];
    }
    return CHR_OK;
}
