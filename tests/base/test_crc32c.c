/* crc32c.c: the vectors of RFC 3720 B.4, both implementations against a bit-by-bit twin. */
#include "tests/base/check.h"

#include "base/crc32c.h"
#include "tests/base/guard.h"

typedef uint32_t crc_function(uint32_t, const void *, size_t);

static uint32_t bit_by_bit(uint32_t crc, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    crc = ~crc;
    while (len--) {
        crc ^= *p++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return ~crc;
}

static void vectors_of_rfc_3720(crc_function *crc)
{
    uint8_t bytes[48];
    memset(bytes, 0, 32);
    assert_int_equal(crc(0, bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, 32);
    assert_int_equal(crc(0, bytes, 32), 0x62a8ab43);
    for (int i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(crc(0, bytes, 32), 0x46dd794e);
    for (int i = 0; i < 32; i++)
        bytes[i] = (uint8_t)(31 - i);
    assert_int_equal(crc(0, bytes, 32), 0x113fdb5c);
    static const uint8_t read_command[48] = {
        0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00,
        0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18, 0x28, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    };
    assert_int_equal(crc(0, read_command, 48), 0xd9963a56);
    assert_int_equal(crc(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc(0, NULL, 0), 0);
    assert_int_equal(crc(77, NULL, 0), 77);
}

static void vectors(void **state)
{
    vectors_of_rfc_3720(bit_by_bit);
    vectors_of_rfc_3720(chr_crc32c_table);
    vectors_of_rfc_3720(chr_crc32c);
}

/* Every length around the block sizes, ending at a guard page, from any alignment. */
static void lengths_and_alignments(void **state)
{
    struct chr_random random = test_random(4);
    enum { MAX = 8000 };
    static uint8_t bytes[MAX];
    for (int i = 0; i < MAX; i++)
        bytes[i] = (uint8_t)chr_random_u64(&random);
    for (size_t len = 0; len <= MAX; len += len < 900 ? 1 : 1 + chr_random_below(&random, 60)) {
        uint32_t start = (uint32_t)chr_random_u64(&random);
        chr_slice s = guarded(bytes, len);
        uint32_t expected = bit_by_bit(start, s.ptr, len);
        assert_int_equal(chr_crc32c(start, s.ptr, len), expected);
        assert_int_equal(chr_crc32c_table(start, s.ptr, len), expected);
    }
}

static void chaining_equals_the_whole(void **state)
{
    struct chr_random random = test_random(5);
    static uint8_t bytes[20000];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)chr_random_u64(&random);
    uint32_t whole = chr_crc32c(0, bytes, sizeof bytes);
    for (int i = 0; i < 1000; i++) {
        size_t cut = chr_random_below(&random, sizeof bytes + 1);
        uint32_t crc = chr_crc32c(0, bytes, cut);
        assert_int_equal(chr_crc32c(crc, bytes + cut, sizeof bytes - cut), whole);
    }
}

static void one_flipped_bit_shows(void **state)
{
    struct chr_random random = test_random(6);
    static uint8_t bytes[5000];
    uint32_t crc = chr_crc32c(0, bytes, sizeof bytes);
    for (int i = 0; i < 1000; i++) {
        size_t bit = chr_random_below(&random, sizeof bytes * 8);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_not_equal(chr_crc32c(0, bytes, sizeof bytes), crc);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors),
        cmocka_unit_test(lengths_and_alignments),
        cmocka_unit_test(chaining_equals_the_whole),
        cmocka_unit_test(one_flipped_bit_shows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
