/* hash.c: lengths, spread, collisions of the keys we have (topics, ids, integers). */
#include "tests/base/check.h"

#include "base/hash.h"
#include "tests/base/guard.h"

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static size_t duplicates(uint64_t *values, size_t count)
{
    size_t found = 0;
    qsort(values, count, sizeof *values, compare_u64);
    for (size_t i = 1; i < count; i++)
        found += values[i] == values[i - 1];
    return found;
}

static void every_length_reads_its_own_bytes_only(void **state)
{
    uint8_t bytes[300];
    memset(bytes, 0x5a, sizeof bytes);
    uint64_t hashes[301];
    for (size_t len = 0; len <= 300; len++) {
        chr_slice s = guarded(bytes, len);
        hashes[len] = chr_hash_slice(s, 9);
        assert_int_equal(chr_hash_bytes(bytes, len, 9), hashes[len]);
        /* Every single byte counts. */
        for (size_t i = 0; i < len; i++) {
            bytes[i] ^= 1;
            assert_int_not_equal(chr_hash_bytes(bytes, len, 9), hashes[len]);
            bytes[i] ^= 1;
        }
    }
    assert_int_equal(duplicates(hashes, 301), 0);
    assert_int_equal(chr_hash_bytes(NULL, 0, 9), chr_hash_bytes("", 0, 9));
}

static void topics_do_not_collide(void **state)
{
    enum { COUNT = 500000 };
    uint64_t *hashes = malloc(COUNT * sizeof *hashes), *low = malloc(COUNT * sizeof *low);
    for (int i = 0; i < COUNT; i++) {
        char topic[64];
        int len = snprintf(topic, sizeof topic, "plant/%d/line/%d/temp", i / 100, i % 100);
        hashes[i] = chr_hash_bytes(topic, (size_t)len, 1);
        low[i] = hashes[i] & 0xffffffff;
    }
    assert_int_equal(duplicates(hashes, COUNT), 0);
    /* The low half alone collides as random numbers do: COUNT^2 / 2^33 = 29 times. */
    size_t found = duplicates(low, COUNT);
    assert_in_range(found, 5, 70);
    free(hashes);
    free(low);
}

/* A flipped input bit flips each output bit half of the time. */
static void bits_avalanche(void **state)
{
    struct chr_random random = test_random(7);
    static const size_t lengths[] = {3, 8, 12, 16, 24, 64, 100};
    for (size_t l = 0; l < CHR_COUNT_OF(lengths); l++) {
        size_t len = lengths[l];
        for (size_t bit = 0; bit < len * 8; bit += 7) {
            uint32_t flips[64] = {0};
            enum { ROUNDS = 1000 };
            for (int i = 0; i < ROUNDS; i++) {
                uint8_t key[100];
                for (size_t k = 0; k < len; k++)
                    key[k] = (uint8_t)chr_random_u64(&random);
                uint64_t before = chr_hash_bytes(key, len, 3);
                key[bit / 8] ^= (uint8_t)(1 << bit % 8);
                uint64_t changed = before ^ chr_hash_bytes(key, len, 3);
                for (int k = 0; k < 64; k++)
                    flips[k] += changed >> k & 1;
            }
            /* 500 +- 6 standard deviations of 15.8 */
            for (int k = 0; k < 64; k++)
                assert_in_range(flips[k], 405, 595);
        }
    }
}

static void seeds_matter(void **state)
{
    enum { COUNT = 10000 };
    static uint64_t hashes[COUNT];
    for (uint64_t seed = 0; seed < COUNT; seed++)
        hashes[seed] = chr_hash_bytes("esp-001", 7, seed);
    assert_int_equal(duplicates(hashes, COUNT), 0);
    assert_int_not_equal(chr_hash_seed(), 0);
    assert_int_equal(chr_hash_seed(), chr_hash_seed());
}

static void integers_do_not_collide(void **state)
{
    enum { COUNT = 200000 };
    uint64_t *hashes = malloc(COUNT * sizeof *hashes);
    for (uint64_t i = 0; i < COUNT; i++)
        hashes[i] = chr_hash_u64(i % 2 ? i << 32 : i);
    assert_int_equal(duplicates(hashes, COUNT), 0);
    free(hashes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length_reads_its_own_bytes_only),
        cmocka_unit_test(topics_do_not_collide),
        cmocka_unit_test(bits_avalanche),
        cmocka_unit_test(seeds_matter),
        cmocka_unit_test(integers_do_not_collide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
