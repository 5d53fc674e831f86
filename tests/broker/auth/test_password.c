/* tests/broker/auth/test_password.c: hashes that mosquitto_passwd, the argon2 tool and we have
 * made; base64; back-off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* cmocka wants those before it */
#include <cmocka.h>

#include "broker/auth/backoff.h"
#include "broker/auth/password.h"

static bool verifies(const char *hash, const char *plain)
{
    struct password p;
    struct chr_errmsg msg = {{0}};
    if (password_parse(chr_slice_cstr(hash), &p, &msg))
        fail_msg("%s", msg.text);
    bool same = password_verify(&p, chr_slice_cstr(plain));
    password_clear(&p);
    return same;
}

static void of_other_tools(void **state)
{
    /* mosquitto_passwd 2.0.11 and argon2 0~20171227 */
    static const struct {
        const char *hash, *plain;
    } known[] = {
        {"$7$101$SKK/jB8XSlix/bgR$lLnG10+YEWpiiyytrGoNb/mgBykf0/"
         "CBrg7Dk8DEkjie4qV7YZOGEiaDjEcGl4zHo4mNDfcTvGmtWk3O6YnzTw==",
         "secret1"},
        {"$6$xLJQW3aqdKj+7lS2$1azTxHkcBiz3CwEfuMD5hofjAoodOKb9L6Smjs1SSqs7Edh2nwPnNvlbcmW+"
         "7clQiqYTYRmcS3V0g2T3AUC5yg==",
         "secret2"},
        {"$argon2id$v=19$m=4096,t=3,p=1$c29tZXNhbHQxNmJ5dGVzIQ$"
         "ekHkdeVO9tohVyMloUvODZFbl69WVS3xLx4zaBLBfQU",
         "password"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        assert_true(verifies(known[i].hash, known[i].plain));
        assert_false(verifies(known[i].hash, "wrong"));
        assert_false(verifies(known[i].hash, ""));
    }
}

static void of_our_own(void **state)
{
    static const enum password_kind kinds[] = {PASSWORD_SHA512, PASSWORD_PBKDF2_SHA512,
                                               PASSWORD_ARGON2ID, PASSWORD_SCRAM_SHA256};
    for (size_t i = 0; i < 4; i++) {
        struct chr_buf hash;
        chr_buf_init(&hash, PASSWORD_TEXT_MAX);
        assert_int_equal(password_make(kinds[i], CHR_LIT("p\xc3\xa4ss"), 0, &hash), CHR_OK);
        chr_buf_add_u8(&hash, 0);
        assert_true(verifies((const char *)hash.ptr, "p\xc3\xa4ss"));
        assert_false(verifies((const char *)hash.ptr, "pass"));
        chr_buf_free(&hash);
    }
}

static void malformed(void **state)
{
    static const char *const bad[] = {
        "",
        "plain",
        "$6$",
        "$6$abcd",
        "$6$abcd$short",
        "$7$0$AAAA$AAAA",
        "$7$99999999$AAAA$AAAA",
        "$7$-1$AAAA$AAAA",
        "$argon2id$v=18$m=4096,t=3,p=1$c29tZXNhbHQxNmJ5dGVzIQ$AAAAAAAA",
        "$argon2id$v=19$m=99999999,t=3,p=1$c29tZXNhbHQxNmJ5dGVzIQ$AAAAAAAA",
        "$argon2id$v=19$m=4096",
        "$argon2id$",
        "SCRAM-SHA-256$10:AAAA$AAAA:AAAA",
        "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA",
        "SCRAM-SHA-256$4096",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct password p;
        struct chr_errmsg msg = {{0}};
        assert_int_equal(password_parse(chr_slice_cstr(bad[i]), &p, &msg), CHR_EINVAL);
        assert_true(msg.text[0]);
    }
}

/* RFC 7677, 3: the keys behind its example. */
static void scram_example(void **state)
{
    uint8_t salt[32], stored[SCRAM_KEY_BYTES], server[SCRAM_KEY_BYTES], wanted[SCRAM_KEY_BYTES];
    int n = auth_base64_decode(CHR_LIT("W22ZaJ0SNY7soEsUEjb6gQ=="), salt, sizeof salt);
    assert_int_equal(n, 16);
    assert_int_equal(scram_keys(CHR_LIT("pencil"), chr_slice_of(salt, 16), 4096, stored, server),
                     CHR_OK);
    assert_int_equal(auth_base64_decode(CHR_LIT("WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="),
                                        wanted, sizeof wanted),
                     32);
    assert_memory_equal(stored, wanted, 32);
}

static void base64(void **state)
{
    uint8_t out[8];
    assert_int_equal(auth_base64_decode(CHR_LIT("QUI="), out, 8), 2);
    assert_memory_equal(out, "AB", 2);
    assert_int_equal(auth_base64_decode(CHR_LIT("QUJ="), out, 8), -1); /* bits left over */
    assert_int_equal(auth_base64_decode(CHR_LIT("QUI"), out, 8), -1);  /* no padding */
    assert_int_equal(auth_base64_decode(CHR_LIT("Q U="), out, 8), -1);
    assert_int_equal(auth_base64_decode(CHR_LIT("QUJDREVGR0hJSktM"), out, 8), -1); /* no room */
    assert_int_equal(auth_base64url_decode(CHR_LIT("_-8"), out, 8), 2);
    assert_int_equal(auth_base64url_decode(CHR_LIT("_-8="), out, 8), -1);
}

static void waits(void **state)
{
    struct backoff *b = calloc(1, sizeof *b);
    b->max_us = 2000000;
    int64_t now_us = 1000;
    for (unsigned i = 0; i < BACKOFF_FREE; i++)
        backoff_failed(b, "10.0.0.1:5000", CHR_LIT("u"), now_us);
    assert_int_equal(backoff_left(b, "10.0.0.1:5001", CHR_LIT("u"), now_us), 0);
    backoff_failed(b, "10.0.0.1:6000", CHR_LIT("u"), now_us);
    assert_int_equal(backoff_left(b, "10.0.0.1:7000", CHR_LIT("v"), now_us), BACKOFF_FIRST_US);
    assert_int_equal(backoff_left(b, "10.0.0.2:7000", CHR_LIT("u"), now_us), BACKOFF_FIRST_US);
    assert_int_equal(backoff_left(b, "10.0.0.2:7000", CHR_LIT("v"), now_us), 0);
    for (int i = 0; i < 50; i++)
        backoff_failed(b, "10.0.0.1:6000", CHR_LIT("u"), now_us);
    assert_int_equal(backoff_left(b, "10.0.0.1:1", CHR_LIT(""), now_us), 2000000);
    assert_int_equal(backoff_left(b, "10.0.0.1:1", CHR_LIT(""), now_us + 2000000), 0);
    backoff_failed(b, "10.0.0.1:6000", CHR_LIT("u"), now_us + BACKOFF_FORGET_US + 1);
    assert_int_equal(backoff_left(b, "10.0.0.1:1", CHR_LIT("u"), now_us + BACKOFF_FORGET_US + 1),
                     0);
    free(b);
}

static void addresses_that_are_one(void **state)
{
    static const struct {
        const char *a, *b;
        bool same;
    } pairs[] = {
        {"10.0.0.1:1", "10.0.0.1:2", true},
        {"10.0.0.1:1", "10.0.0.1", true},
        {"10.0.0.1:1", "10.0.0.2:1", false},
        {"[2001:db8:0:1::1]:1", "[2001:db8:0:1:ffff::2]:2", true},
        {"[2001:db8:0:1::1]:1", "2001:db8:0:1::7", true},
        {"[2001:db8:0:1::1]:1", "[2001:db8:0:2::1]:1", false},
        {"[fe80::1%eth0]:1", "[fe80::2%eth0]:1", true},
        {"[::ffff:10.0.0.1]:1", "10.0.0.1:9", true},
        {"[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.2]:1", false},
        {"[::ffff:10.0.0.1]:1", "[::1]:1", false},
        {"", NULL, true},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if ((backoff_address(pairs[i].a) == backoff_address(pairs[i].b)) != pairs[i].same)
            fail_msg("%s", pairs[i].a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_other_tools),
        cmocka_unit_test(of_our_own),
        cmocka_unit_test(malformed),
        cmocka_unit_test(scram_example),
        cmocka_unit_test(base64),
        cmocka_unit_test(waits),
        cmocka_unit_test(addresses_that_are_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
