/* tests/db/codec/test_codec.c: what the codecs give back is what they were given (C1), at every
 * level of instructions, and they stay inside their bounds whatever they read (C2). */
#include "tests/base/check.h"
#include "tests/base/guard.h"

#include <math.h>

#include "base/bytes.h"
#include "db/codec/codec.h"
#include "db/codec/kernels.h"

#define ROWS DB_VECTOR_ROWS

static struct db_ints *ints;
static int64_t values[ROWS + 64] CHR_ALIGNED(64), back[ROWS + 64] CHR_ALIGNED(64);
static double floats[ROWS + 64] CHR_ALIGNED(64), floats_back[ROWS + 64] CHR_ALIGNED(64);
static uint16_t codes[ROWS + 64] CHR_ALIGNED(64), codes_back[ROWS + 64] CHR_ALIGNED(64);
static uint16_t breaks[ROWS];

static int setup(void **state)
{
    ints = aligned_alloc(64, (sizeof *ints + 63) / 64 * 64);
    return ints == NULL;
}

static int teardown(void **state)
{
    free(ints);
    return 0;
}

/* -- Columns that codecs meet, and some that they had better not
 * ---------------------------------*/

enum {
    P_CONSTANT,
    P_SMALL,
    P_COUNTER,
    P_TIMES,
    P_GAPS,
    P_RANDOM,
    P_EXTREMES,
    P_WIDTH,
    P_RUNS,
    P_SERIES,
    P_ERRORS,
    P_SCALED,
    P_ALTERNATE,
    P_END
};

static uint32_t make_ints(struct chr_random *r, unsigned pattern, uint32_t count,
                          uint32_t *breaks_count)
{
    uint64_t width = chr_random_below(r, 64) + 1, base = chr_random_u64(r);
    uint64_t mask = width == 64 ? UINT64_MAX : (UINT64_C(1) << width) - 1;
    uint64_t v = base, step = chr_random_below(r, 10000000);
    *breaks_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        switch (pattern) {
        case P_CONSTANT:
            v = base;
            break;
        case P_SMALL:
            v = chr_random_below(r, 1000) - 500;
            break;
        case P_COUNTER:
            v += step;
            break;
        case P_TIMES:
            v += 1000000 + chr_random_below(r, 2000) - 1000;
            break;
        case P_GAPS:
            v += chr_random_below(r, 50) ? 1000 : chr_random_below(r, UINT64_C(1) << 40);
            break;
        case P_RANDOM:
            v = chr_random_u64(r);
            break;
        case P_EXTREMES:
            v = (uint64_t[]){0, 1, UINT64_MAX, (uint64_t)INT64_MAX,
                             (uint64_t)INT64_MIN}[chr_random_below(r, 5)];
            break;
        case P_WIDTH:
            v = base + (chr_random_u64(r) & mask);
            break;
        case P_RUNS:
            if (chr_random_below(r, 30) == 0)
                v = chr_random_u64(r) & mask;
            break;
        case P_SERIES:
            if (i && chr_random_below(r, 60) == 0) {
                breaks[(*breaks_count)++] = (uint16_t)i;
                v = base + chr_random_below(r, 100000);
            }
            v += 500 + chr_random_below(r, 3);
            break;
        case P_ERRORS:
            v = chr_random_below(r, 40) ? 200 + chr_random_below(r, 30) : (uint64_t)-99999;
            break;
        case P_SCALED:
            v = base + (step | 3) * chr_random_below(r, 3000);
            break;
        default:
            v = i & 1 ? (uint64_t)INT64_MIN : (uint64_t)INT64_MAX;
        }
        values[i] = (int64_t)v;
    }
    return count;
}

static const uint32_t counts[] = {1,    2,    3,    4,    31,   32,   33,   63,   64,   65,  127,
                                  1000, 1023, 1024, 1025, 1056, 1500, 2016, 2017, 2047, 2048};

static void check_ints(uint32_t count, uint32_t breaks_count, struct chr_buf *out)
{
    size_t planned;
    chr_buf_reset(out);
    ints->values = values;
    ints->count = count;
    ints->breaks = breaks;
    ints->breaks_count = breaks_count;
    enum db_codec codec = db__ints_plan(ints, &planned);
    db__ints_put(ints, codec, out);
    assert_false(out->failed);
    assert_int_equal(out->len, planned);
    assert_true(out->len <= 1 + 8 * (size_t)count);

    /* At the edge of readable memory, into a buffer that is not one value too long. */
    chr_slice bytes = guarded(out->ptr, out->len);
    struct db_cursor in = db__cursor_of(bytes);
    bool constant;
    enum db_codec read;
    memset(back, 0x5a, sizeof back);
    assert_int_equal(db__ints_decode(&in, count, back, &constant, &read), 0);
    assert_int_equal(read, codec);
    assert_ptr_equal(in.at, in.end);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(back[constant ? 0 : i], values[i]);
    for (uint32_t i = ROWS; i < ROWS + 64; i++)
        assert_int_equal(back[i], 0x5a5a5a5a5a5a5a5a); /* C2 */
}

static void ints_come_back(void **state)
{
    struct chr_random r = test_random(1);
    struct chr_buf out;
    unsigned used[DB_CODECS_END] = {0}, scaled = 0;
    chr_buf_init(&out, 1 << 20);
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned pattern = 0; pattern < P_END; pattern++) {
            uint32_t count = round < CHR_COUNT_OF(counts)
                                 ? counts[round]
                                 : (uint32_t)chr_random_below(&r, ROWS) + 1;
            uint32_t n;
            make_ints(&r, pattern, count, &n);
            check_ints(count, n, &out);
            used[out.ptr[0] == DB_CODEC_SCALED ? out.ptr[17] : out.ptr[0]]++;
            scaled += out.ptr[0] == DB_CODEC_SCALED;
        }
    }
    for (unsigned c = 0; c < DB_CODECS_END; c++)
        assert_true(used[c] > 0); /* each codec was best for something */
    assert_true(scaled > 20);
    chr_buf_free(&out);
}

/* Every codec on every pattern, best or not. */
static void every_codec_comes_back(void **state)
{
    struct chr_random r = test_random(2);
    struct chr_buf out;
    chr_buf_init(&out, 1 << 20);
    for (unsigned round = 0; round < 12; round++) {
        for (unsigned pattern = 0; pattern < P_END; pattern++) {
            uint32_t count =
                round < 4 ? 2048 - round * 512 : (uint32_t)chr_random_below(&r, ROWS) + 1;
            size_t bytes;
            uint32_t n;
            make_ints(&r, pattern, count, &n);
            ints->values = values;
            ints->count = count;
            ints->breaks = breaks;
            ints->breaks_count = n;
            db__ints_plan(ints, &bytes);
            for (unsigned c = 0; c < DB_CODECS_END; c++) {
                if (ints->runs == 1 && c != DB_CODEC_CONSTANT && c != DB_CODEC_RAW)
                    continue; /* not planned: nothing is smaller than constant */
                size_t size = db__codecs[c]->size(ints);
                if (size == SIZE_MAX)
                    continue;
                const int64_t *planned = ints->values; /* scaled or not */
                chr_buf_reset(&out);
                db__codecs[c]->encode(ints, &out);
                assert_int_equal(out.len, size);
                struct db_cursor in = db__cursor_of(guarded(out.ptr, out.len));
                assert_int_equal(db__codecs[c]->decode(&in, count, back), 0);
                assert_ptr_equal(in.at, in.end);
                for (uint32_t i = 0; i < count; i++)
                    assert_int_equal(back[c == DB_CODEC_CONSTANT ? 0 : i], planned[i]);
            }
        }
    }
    chr_buf_free(&out);
}

/* What the estimate promises: sizes on data of known shape. */
static void sizes_are_what_they_should_be(void **state)
{
    struct chr_random r = test_random(3);
    struct chr_buf out;
    size_t bytes;
    chr_buf_init(&out, 1 << 20);
    ints->values = values;
    ints->count = ROWS;
    ints->breaks_count = 0;
    for (uint32_t i = 0; i < ROWS; i++)
        values[i] = 1733000000000000 + (int64_t)i * 10000000; /* every 10 s */
    assert_int_equal(db__ints_plan(ints, &bytes), DB_CODEC_DELTA);
    assert_true(bytes < 32);
    values[1000] += 3; /* one late reading */
    db__ints_plan(ints, &bytes);
    assert_true(bytes < 64);
    for (uint32_t i = 0; i < ROWS; i++)
        values[i] = (int64_t)i * i * 1000; /* an accelerating counter */
    assert_int_equal(db__ints_plan(ints, &bytes), DB_CODEC_DELTA2);
    assert_true(bytes < 48);
    for (uint32_t i = 0; i < ROWS; i++) /* whole milliseconds, in microseconds */
        values[i] =
            1733000000000000 + (int64_t)i * 10000000 + 1000 * (int64_t)chr_random_below(&r, 4);
    assert_int_equal(db__ints_plan(ints, &bytes), DB_CODEC_DELTA);
    assert_in_range(bytes, ROWS * 3 / 8, ROWS * 3 / 8 + 48);
    ints->values = values;
    for (uint32_t i = 0; i < ROWS; i++)
        values[i] = -100 + (int64_t)chr_random_below(&r, 256);
    assert_int_equal(db__ints_plan(ints, &bytes), DB_CODEC_FOR);
    assert_in_range(bytes, ROWS, ROWS + 16);
    for (uint32_t i = 0; i < ROWS; i += 100)
        values[i] = INT64_MIN + i; /* 21 error values must not cost 64 bits for all */
    db__ints_plan(ints, &bytes);
    assert_in_range(bytes, ROWS, ROWS + 16 + 21 * 10);
    for (uint32_t i = 0; i < ROWS; i++)
        values[i] = (int64_t)((uint64_t)(i / 100) * 0x9e3779b97f4a7c15);
    assert_int_equal(db__ints_plan(ints, &bytes), DB_CODEC_RLE);
    assert_true(bytes < 21 * 10 + 32);
    chr_buf_free(&out);
}

static void arrays_come_back(void **state)
{
    struct chr_random r = test_random(4);
    struct chr_buf out;
    size_t most = 10000;
    int64_t *from = malloc(most * 8), *to = aligned_alloc(64, 12288 * 8);
    chr_buf_init(&out, 1 << 20);
    for (unsigned round = 0; round < 20; round++) {
        size_t n = chr_random_below(&r, most) + 1;
        for (size_t i = 0; i < n; i++)
            from[i] = (int64_t)(chr_random_u64(&r) >> chr_random_below(&r, 64));
        chr_buf_reset(&out);
        db__int_array_put(ints, from, n, &out);
        struct db_cursor in = db__cursor_of(guarded(out.ptr, out.len));
        assert_int_equal(db__int_array_get(&in, n, to), 0);
        assert_ptr_equal(in.at, in.end);
        assert_memory_equal(from, to, n * 8);
    }
    chr_buf_free(&out);
    free(from);
    free(to);
}

/* -- Floats -------------------------------------------------------------------------------------*/

static double bits_to_double(uint64_t bits)
{
    double v;
    memcpy(&v, &bits, 8);
    return v;
}

static void make_floats(struct chr_random *r, unsigned pattern, uint32_t count)
{
    int digits = (int)chr_random_below(r, 6);
    double power = pow(10, digits), walk = 20;
    for (uint32_t i = 0; i < count; i++) {
        double decimal = (double)((int64_t)chr_random_below(r, 100000) - 50000) / power;
        switch (pattern) {
        case 0: /* what a sensor prints */
            floats[i] = decimal;
            break;
        case 1: /* any bits at all: NaN payloads, denormals, infinities */
            floats[i] = bits_to_double(chr_random_u64(r));
            break;
        case 2:
            floats[i] = (double[]){
                0.0, -0.0, INFINITY, -INFINITY, 5e-324, 1.7976931348623157e308, 9007199254740993.0,
                -1.0}[chr_random_below(r, 8)];
            break;
        case 3:
            floats[i] = (float)(decimal * 1.1);
            break;
        case 4: /* decimals, the odd NaN */
            floats[i] = chr_random_below(r, 50) ? decimal : bits_to_double(0x7ff8000000000000 + i);
            break;
        case 5:
            floats[i] = 21.5;
            break;
        case 6:
            walk += ((double)chr_random_below(r, 21) - 10) / 100;
            floats[i] = round(walk * 100) / 100;
            break;
        case 7:
            floats[i] = (double)chr_random_u64(r) / 3;
            break;
        case 8:
            floats[i] = bits_to_double(0xfff8dead0000beef);
            break;
        case 9: /* mostly two digits, some with nine */
            floats[i] = chr_random_below(r, 5) ? round(decimal * 100) / 100 : decimal / 1e7;
            break;
        case 10:
            floats[i] = chr_random_below(r, 3) ? 0.0 : -0.0;
            break;
        default: /* beyond 2^51 */
            floats[i] = (double)(chr_random_u64(r) >> 8);
        }
    }
}

static void floats_come_back(void **state)
{
    struct chr_random r = test_random(5);
    struct chr_buf out;
    unsigned mappings[DB_MAPS_END] = {0};
    chr_buf_init(&out, 1 << 20);
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned pattern = 0; pattern < 12; pattern++) {
            uint32_t count = round < CHR_COUNT_OF(counts)
                                 ? counts[round]
                                 : (uint32_t)chr_random_below(&r, ROWS) + 1;
            make_floats(&r, pattern, count);
            chr_buf_reset(&out);
            ints->breaks_count = 0;
            db__floats_encode(ints, floats, count, &out);
            assert_false(out.failed);
            assert_true(out.len <= 2 + 8 * (size_t)count);
            struct db_cursor in = db__cursor_of(guarded(out.ptr, out.len));
            bool constant;
            enum db_codec codec;
            unsigned mapping = db__cursor_u8(&in);
            memset(floats_back, 0x5a, sizeof floats_back);
            assert_int_equal(db__floats_decode(&in, (enum db_mapping)mapping, count, floats_back,
                                               &constant, &codec),
                             0);
            assert_ptr_equal(in.at, in.end);
            mappings[mapping]++;
            for (uint32_t i = 0; i < count; i++) /* by bits: -0.0 is not 0.0 (K1) */
                assert_memory_equal(&floats_back[constant ? 0 : i], &floats[i], 8);
        }
    }
    assert_true(mappings[DB_MAP_PLAIN] && mappings[DB_MAP_DECIMAL] && mappings[DB_MAP_FLOAT32]);
    chr_buf_free(&out);
}

static void decimals_are_small(void **state)
{
    struct chr_random r = test_random(6);
    struct chr_buf out;
    chr_buf_init(&out, 1 << 20);
    for (int digits = 0; digits <= 6; digits++) {
        double power = pow(10, digits);
        for (uint32_t i = 0; i < ROWS; i++)
            floats[i] = (double)chr_random_below(&r, 1000) / power;
        chr_buf_reset(&out);
        ints->breaks_count = 0;
        db__floats_encode(ints, floats, ROWS, &out);
        assert_int_equal(out.ptr[0], DB_MAP_DECIMAL);
        assert_true(out.len <= ROWS * 10 / 8 + 32); /* 10 bits each */
    }
    chr_buf_free(&out);
}

/* -- Codes, bitmaps, heaps ----------------------------------------------------------------------*/

static void codes_come_back(void **state)
{
    struct chr_random r = test_random(7);
    struct chr_buf out;
    chr_buf_init(&out, 1 << 20);
    for (unsigned round = 0; round < 300; round++) {
        uint32_t count =
            round < CHR_COUNT_OF(counts) ? counts[round] : (uint32_t)chr_random_below(&r, ROWS) + 1;
        uint32_t dict = (uint32_t)chr_random_below(&r, UINT64_C(1) << (1 + round % 16)) + 1;
        uint32_t run = 1 + (uint32_t)chr_random_below(&r, round % 3 ? 1 : 100), top = 0;
        for (uint32_t i = 0; i < count; i++) {
            codes[i] = i % run ? codes[i - 1] : (uint16_t)chr_random_below(&r, dict);
            top = CHR_MAX(top, codes[i]);
        }
        chr_buf_reset(&out);
        db__codes_encode(ints, codes, count, &out);
        bool constant;
        enum db_codec codec;
        struct db_cursor in = db__cursor_of(guarded(out.ptr, out.len));
        assert_int_equal(db__codes_decode(&in, count, top + 1, codes_back, &constant, &codec), 0);
        assert_ptr_equal(in.at, in.end);
        for (uint32_t i = 0; i < count; i++)
            assert_int_equal(codes_back[constant ? 0 : i], codes[i]);
        if (top > 0) { /* a code the dictionary does not have */
            in = db__cursor_of(guarded(out.ptr, out.len));
            assert_int_equal(db__codes_decode(&in, count, top, codes_back, &constant, &codec),
                             CHR_ECORRUPT);
        }
    }
    chr_buf_free(&out);
}

static void bitmaps_come_back(void **state)
{
    struct chr_random r = test_random(8);
    struct chr_buf out;
    uint64_t bits[32], read[32];
    unsigned forms[4] = {0};
    chr_buf_init(&out, 1 << 20);
    for (unsigned round = 0; round < 400; round++) {
        uint32_t count =
            round < CHR_COUNT_OF(counts) ? counts[round] : (uint32_t)chr_random_below(&r, ROWS) + 1;
        uint64_t one_in = 1 + chr_random_below(&r, 4), flip = 1 + chr_random_below(&r, 400);
        bool now = round & 1;
        for (uint32_t i = 0; i < ROWS; i++) {
            if (round % 3 == 0)
                now = chr_random_below(&r, one_in) == 0;
            else if (round % 3 == 1 && chr_random_below(&r, flip) == 0)
                now = !now;
            now ? db_bit_set(bits, i) : db_bit_clear(bits, i); /* junk past count too */
        }
        chr_buf_reset(&out);
        db__bitmap_put(bits, count, &out);
        forms[out.ptr[0]]++;
        struct db_cursor in = db__cursor_of(guarded(out.ptr, out.len));
        uint32_t ones, counted = 0;
        assert_int_equal(db__bitmap_get(&in, count, read, &ones), 0);
        assert_ptr_equal(in.at, in.end);
        for (uint32_t i = 0; i < ROWS; i++) {
            bool want = i < count && db_bit_get(bits, i);
            assert_int_equal(db_bit_get(read, i), want);
            counted += want;
        }
        assert_int_equal(ones, counted);
    }
    for (unsigned f = 0; f < 4; f++)
        assert_true(forms[f] > 0);
    chr_buf_free(&out);
}

static void heaps_come_back(void **state)
{
    struct chr_random r = test_random(9);
    struct chr_buf out, scratch, unpacked;
    static uint8_t text[1 << 20];
    static chr_slice strings[ROWS], read[ROWS];
    bool try_lz4 = true, packed = false, plain = false;
    chr_buf_init(&out, 4 << 20);
    chr_buf_init(&scratch, 4 << 20);
    chr_buf_init(&unpacked, 4 << 20);
    for (unsigned round = 0; round < 60; round++) {
        uint32_t count = (uint32_t)chr_random_below(&r, ROWS) + 1;
        bool words = round & 1;
        for (size_t i = 0; i < sizeof text; i++)
            text[i] =
                words ? (uint8_t) "sensor reading failed: "[i % 23] : (uint8_t)chr_random_u64(&r);
        size_t longest = round % 5 == 0 ? 65536 : 60;
        for (uint32_t i = 0; i < count; i++) {
            size_t len = chr_random_below(&r, round % 7 == 3 ? 1 : i % 100 ? 40 : longest + 1);
            strings[i] = chr_slice_of(text + chr_random_below(&r, sizeof text - len), len);
        }
        chr_buf_reset(&out);
        try_lz4 = true;
        db__heap_put(ints, strings, count, &try_lz4, &scratch, &out);
        assert_false(out.failed);
        struct db_cursor in = db__cursor_of(guarded(out.ptr, out.len));
        assert_int_equal(db__heap_get(&in, count, back, &unpacked, read), 0);
        assert_ptr_equal(in.at, in.end);
        for (uint32_t i = 0; i < count; i++)
            assert_true(chr_slice_eq(strings[i], read[i]));
        bool inside = read[count - 1].ptr >= in.end - out.len && read[count - 1].ptr <= in.end;
        packed |= !inside;
        plain |= inside;
    }
    assert_true(packed && plain);
    chr_buf_free(&out);
    chr_buf_free(&scratch);
    chr_buf_free(&unpacked);
}

/* -- Kernels ------------------------------------------------------------------------------------*/

/* All levels give the same bits as the plain one, which is checked against arithmetic. */
static void levels_agree(void **state)
{
    struct chr_random r = test_random(10);
    static uint8_t words[ROWS * 8 + 64], words2[ROWS * 8 + 64];
    static uint64_t in[ROWS] CHR_ALIGNED(64), out[ROWS] CHR_ALIGNED(64), out2[ROWS] CHR_ALIGNED(64);
    const struct db_kernels *base = db__kernels_at(0);
    for (unsigned level = 0; db__kernels_at(level); level++) {
        const struct db_kernels *k = db__kernels_at(level);
        print_message("level %s\n", k->name);
        for (unsigned width = 1; width <= 64; width++) {
            uint64_t mask = width == 64 ? UINT64_MAX : (UINT64_C(1) << width) - 1;
            uint64_t plus = chr_random_u64(&r);
            for (uint32_t i = 0; i < ROWS; i++)
                in[i] = chr_random_u64(&r) & mask;
            memset(words, 0xee, sizeof words);
            memset(words2, 0xee, sizeof words2);
            k->pack64(in, width, 64, words);
            base->pack64(in, width, 64, words2);
            assert_memory_equal(words, words2, sizeof words);
            /* Each value where the layout says. */
            for (uint32_t i = 0; i < ROWS; i++) {
                uint64_t v = 0;
                for (unsigned b = 0; b < width; b++) {
                    unsigned bit = i / DB_LANES64 * width + b;
                    size_t word = (size_t)(bit / 64) * DB_LANES64 + i % DB_LANES64;
                    v |= (uint64_t)((words[word * 8 + bit % 64 / 8] >> (bit % 8)) & 1) << b;
                }
                assert_int_equal(v, in[i]);
            }
            k->unpack64(words, width, 64, plus, out);
            for (uint32_t i = 0; i < ROWS; i++)
                assert_int_equal(out[i], in[i] + plus);
            if (width <= 56) {
                k->unpack_seq(words, width, 1000, plus, out);
                base->unpack_seq(words, width, 1000, plus, out2);
                assert_memory_equal(out, out2, 8000);
            }
        }
        for (unsigned width = 1; width <= 16; width++) {
            for (uint32_t i = 0; i < ROWS; i++)
                codes[i] = (uint16_t)(chr_random_u64(&r) & ((1u << width) - 1));
            k->pack16(codes, width, 16, words);
            base->pack16(codes, width, 16, words2);
            assert_memory_equal(words, words2, width * 256);
            k->unpack16(words, width, 16, codes_back);
            assert_memory_equal(codes, codes_back, ROWS * 2);
            assert_int_equal(k->max16(codes, 1999), base->max16(codes, 1999));
            assert_int_equal(k->changes16(codes, 2048), base->changes16(codes, 2048));
        }
        for (unsigned round = 0; round < 50; round++) {
            uint32_t n = (uint32_t)chr_random_below(&r, ROWS) + 1;
            int64_t min, max, min2, max2;
            double sum, low, high, sum2, low2, high2;
            __int128 total, total2 = 0;
            uint32_t histogram[65] = {0}, histogram2[65] = {0}, nans = 0;
            make_floats(&r, round % 12, n);
            for (uint32_t i = 0; i < n; i++)
                in[i] = chr_random_u64(&r) >> (round & 63);
            k->minmax((const int64_t *)in, n, &min, &max);
            k->stats_i64((const int64_t *)in, n, &total, &min2, &max2);
            assert_true(min == min2 && max == max2);
            min2 = INT64_MAX, max2 = INT64_MIN;
            for (uint32_t i = 0; i < n; i++) {
                min2 = CHR_MIN(min2, (int64_t)in[i]);
                max2 = CHR_MAX(max2, (int64_t)in[i]);
                total2 += (int64_t)in[i];
            }
            assert_true(min == min2 && max == max2 && total == total2);
            int64_t from = (int64_t)in[n / 2], least = INT64_MAX;
            for (uint32_t i = 0; i < n; i++)
                least = (int64_t)in[i] >= from ? CHR_MIN(least, (int64_t)in[i]) : least;
            assert_int_equal(k->min_from((const int64_t *)in, n, from), least);
            assert_int_equal(k->deltas(in, n, out), base->deltas(in, n, out2));
            assert_memory_equal(out, out2, n * 8);
            assert_int_equal(k->residuals(in, n, 77, 20, out),
                             base->residuals(in, n, 77, 20, out2));
            assert_memory_equal(out, out2, n * 8);
            k->bit_histogram(in, n, 5, histogram);
            base->bit_histogram(in, n, 5, histogram2);
            assert_memory_equal(histogram, histogram2, sizeof histogram);
            uint64_t odd = chr_random_u64(&r) >> (1 + chr_random_below(&r, 60)) | 1, inverse = odd;
            unsigned shift = (unsigned)chr_random_below(&r, 3);
            for (unsigned i = 0; i < 5; i++)
                inverse *= 2 - odd * inverse;
            uint32_t whole = 0;
            for (uint32_t i = 0; i < n; i++) {
                uint64_t divisor = odd << shift;
                out2[i] = i % 3 ? chr_random_u64(&r) % (UINT64_MAX / divisor) * divisor : in[i];
                whole += out2[i] % divisor == 0;
                out2[i] += 123;
            }
            assert_int_equal(k->divide(out2, n, 123, odd << shift, inverse, shift, out), n - whole);
            for (uint32_t i = 0; i < n; i++) {
                if ((out2[i] - 123) % (odd << shift) == 0)
                    assert_int_equal(out[i], (out2[i] - 123) / (odd << shift));
            }
            memcpy(out, in, n * 8);
            k->scale_up(out, n, 17, odd);
            for (uint32_t i = 0; i < n; i++)
                assert_int_equal(out[i], 17 + in[i] * odd);
            memcpy(out, in, n * 8);
            k->sum_up(out, n, 9);
            uint64_t v = 9;
            for (uint32_t i = 0; i < n; i++)
                assert_int_equal(out[i], v += in[i]);
            memcpy(out, in, n * 8);
            k->sum_up2(out, n, 9, 4);
            v = 9;
            uint64_t d = 4;
            for (uint32_t i = 0; i < n; i++) {
                d += in[i];
                assert_int_equal(out[i], v += d);
            }

            uint32_t found = k->stats_f64(floats, n, &sum, &low, &high);
            base->stats_f64(floats, n, &sum2, &low2, &high2);
            assert_true(memcmp(&sum, &sum2, 8) == 0 || (isnan(sum) && isnan(sum2)));
            assert_true(low == low2 && high == high2);
            low2 = INFINITY, high2 = -INFINITY;
            for (uint32_t i = 0; i < n; i++) {
                nans += isnan(floats[i]) != 0;
                low2 = floats[i] < low2 ? floats[i] : low2;
                high2 = floats[i] > high2 ? floats[i] : high2;
            }
            assert_true(found == nans && low == low2 && high == high2);
            for (int e = 0; e < 6; e++) {
                assert_int_equal(k->decimal_encode(floats, n, pow(10, e), values),
                                 base->decimal_encode(floats, n, pow(10, e), back));
                assert_memory_equal(values, back, n * 8);
                memcpy(floats_back, values, n * 8);
                memcpy(out2, values, n * 8);
                k->decimal_decode(floats_back, n, pow(10, e));
                base->decimal_decode((double *)(void *)out2, n, pow(10, e));
                assert_memory_equal(floats_back, out2, n * 8);
            }
            assert_int_equal(k->float32_encode(floats, n, values),
                             base->float32_encode(floats, n, back));
            memcpy(floats_back, values, n * 8);
            memcpy(out2, values, n * 8);
            k->float32_decode(floats_back, n);
            base->float32_decode((double *)(void *)out2, n);
            assert_memory_equal(floats_back, out2, n * 8);
        }
    }
}

/* -- Foreign bytes ------------------------------------------------------------------------------*/

/* Any bytes at all to every decoder: an error or values, nothing outside the bounds. Guard pages
 * stop reads too far; what lies behind `out` shows writes too far. */
static void junk_does_no_harm(void **state)
{
    struct chr_random r = test_random(11);
    struct chr_buf unpacked;
    uint64_t bits[32];
    static chr_slice strings[ROWS];
    uint8_t junk[600];
    unsigned good = 0;
    chr_buf_init(&unpacked, 1 << 20);
    for (unsigned round = 0; round < 60000; round++) {
        size_t len = chr_random_below(&r, sizeof junk);
        uint32_t count = (uint32_t)chr_random_below(&r, ROWS) + 1, ones;
        for (size_t i = 0; i < len; i++)
            junk[i] = (uint8_t)(chr_random_u64(&r) >> (8 * (round & 7)));
        if (len > 4 && round & 1) {
            junk[0] = (uint8_t)chr_random_below(&r, DB_CODECS_END);
            junk[1] = (uint8_t)chr_random_below(&r, 3);
            junk[2] = junk[3] = 0;
        }
        chr_slice bytes = guarded(junk, len);
        struct db_cursor in = db__cursor_of(bytes);
        bool constant;
        enum db_codec codec;
        memset(back + ROWS, 0x5a, 64);
        good += db__ints_decode(&in, count, back, &constant, &codec) == 0;
        in = db__cursor_of(bytes);
        db__floats_decode(&in, (enum db_mapping)(round % 4), count, floats_back, &constant, &codec);
        in = db__cursor_of(bytes);
        if (db__codes_decode(&in, count, 50, codes_back, &constant, &codec) == 0)
            for (uint32_t i = 0; i < (constant ? 1 : count); i++)
                assert_true(codes_back[i] < 50);
        in = db__cursor_of(bytes);
        db__bitmap_get(&in, count, bits, &ones);
        in = db__cursor_of(bytes);
        db__heap_get(&in, count, back, &unpacked, strings);
        in = db__cursor_of(bytes);
        db__bits_get(&in, count, round % 70, 3, (uint64_t *)back);
        for (unsigned i = 0; i < 8; i++)
            assert_int_equal(back[ROWS + i], 0x5a5a5a5a5a5a5a5a);
    }
    assert_true(good >
                100); /* the test reaches the ends of decoders, not only their first checks */
    chr_buf_free(&unpacked);
}

/* What was encoded, cut short anywhere and with any byte changed. */
static void damage_does_no_harm(void **state)
{
    struct chr_random r = test_random(12);
    struct chr_buf out;
    chr_buf_init(&out, 1 << 20);
    for (unsigned pattern = 0; pattern < P_END; pattern++) {
        uint32_t n, count = pattern & 1 ? 2048 : 300;
        bool constant;
        enum db_codec codec;
        make_ints(&r, pattern, count, &n);
        check_ints(count, n, &out);
        for (size_t cut = 0; cut < out.len; cut += 1 + out.len / 300) {
            struct db_cursor in = db__cursor_of(guarded(out.ptr, cut));
            assert_int_equal(db__ints_decode(&in, count, back, &constant, &codec), CHR_ECORRUPT);
        }
        for (unsigned change = 0; change < 500; change++) {
            size_t at = chr_random_below(&r, change & 1 ? CHR_MIN(out.len, (size_t)32) : out.len);
            uint8_t was = out.ptr[at];
            out.ptr[at] = (uint8_t)chr_random_u64(&r);
            struct db_cursor in = db__cursor_of(guarded(out.ptr, out.len));
            db__ints_decode(&in, count, back, &constant, &codec);
            out.ptr[at] = was;
        }
    }
    chr_buf_free(&out);
}

/* Lengths that wrap around to the right sum. */
static void lengths_that_wrap_are_refused(void **state)
{
    struct chr_buf out, unpacked;
    static chr_slice strings[ROWS];
    bool try_lz4 = false;
    chr_buf_init(&out, 1 << 20);
    chr_buf_init(&unpacked, 1 << 20);
    values[0] = 3;
    values[1] = INT64_MIN;
    values[2] = INT64_MIN;
    values[3] = 7;
    db__ints_encode(ints, values, 4, &out);
    db__bytes_put(CHR_LIT("0123456789"), &try_lz4, &out);
    struct db_cursor in = db__cursor_of(chr_buf_slice(&out));
    assert_int_equal(db__heap_get(&in, 4, back, &unpacked, strings), CHR_ECORRUPT);
    assert_string_equal(in.why, "strings longer than their heap");
    chr_buf_free(&out);
    chr_buf_free(&unpacked);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ints_come_back),
        cmocka_unit_test(every_codec_comes_back),
        cmocka_unit_test(sizes_are_what_they_should_be),
        cmocka_unit_test(arrays_come_back),
        cmocka_unit_test(floats_come_back),
        cmocka_unit_test(decimals_are_small),
        cmocka_unit_test(codes_come_back),
        cmocka_unit_test(bitmaps_come_back),
        cmocka_unit_test(heaps_come_back),
        cmocka_unit_test(levels_agree),
        cmocka_unit_test(junk_does_no_harm),
        cmocka_unit_test(damage_does_no_harm),
        cmocka_unit_test(lengths_that_wrap_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
