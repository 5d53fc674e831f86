/* tests/broker/auth/test_scram.c: SCRAM-SHA-256 with the vectors of RFC 7677, malformed messages,
 * and the passwords SASLprep leaves alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* cmocka wants those before it */
#include <cmocka.h>

#include "broker/auth/saslprep.h"
#include "broker/auth/scram.h"

/* RFC 7677, 3: user "user", password "pencil" */
#define C_NONCE "rOprNGfwEbeRWgbNEkqO"
#define S_NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define PROOF   "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
static const char first[] = "n,,n=user,r=" C_NONCE;
static const char server_first[] = "r=" C_NONCE S_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
static const char final[] = "c=biws,r=" C_NONCE S_NONCE "," PROOF;
static const char server_final[] = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

static struct password entry_of(const char *plain, chr_slice salt)
{
    struct password p = {.kind = PASSWORD_SCRAM_SHA256, .iterations = 4096};
    memcpy(p.salt, salt.ptr, salt.len);
    p.salt_len = (uint32_t)salt.len;
    assert_int_equal(scram_keys(chr_slice_cstr(plain), salt, 4096, p.hash, p.server_key), CHR_OK);
    return p;
}

static struct password pencil(void)
{
    uint8_t salt[16];
    assert_int_equal(auth_base64_decode(CHR_LIT("W22ZaJ0SNY7soEsUEjb6gQ=="), salt, sizeof salt),
                     16);
    return entry_of("pencil", chr_slice_of(salt, sizeof salt));
}

static void assert_slice(chr_slice s, const char *text)
{
    if (!chr_slice_eq(s, chr_slice_cstr(text)))
        fail_msg("\"%.*s\" is not \"%s\"", CHR_SLICE_ARGS(s), text);
}

/* An exchange that has sent server-first. */
static struct scram *begun(const char *client_first)
{
    struct scram *s;
    const char *fault;
    chr_slice message;
    struct password p = pencil();
    assert_int_equal(scram_new(chr_slice_cstr(client_first), CHR_LIT(S_NONCE), &s, &fault), CHR_OK);
    assert_int_equal(scram_challenge(s, &p, &message), CHR_OK);
    assert_slice(message, server_first);
    return s;
}

static void rfc_7677(void **state)
{
    struct scram *s = begun(first);
    chr_slice message;
    const char *fault;
    assert_slice(scram_user(s), "user");
    assert_int_equal(scram_verify(s, chr_slice_cstr(final), &message, &fault), CHR_OK);
    assert_slice(message, server_final);
    scram_free(s);
    scram_free(NULL);
}

/* The file's form of the same entry. */
static void entry_of_a_file(void **state)
{
    struct password p, same = pencil();
    struct chr_errmsg msg;
    assert_int_equal(password_parse(CHR_LIT("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
                                            "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
                                            "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="),
                                    &p, &msg),
                     CHR_OK);
    assert_memory_equal(p.hash, same.hash, SCRAM_KEY_BYTES);
    assert_memory_equal(p.server_key, same.server_key, SCRAM_KEY_BYTES);
    assert_true(password_verify(&p, CHR_LIT("pencil")));
    password_clear(&p);
}

static void names_are_decoded(void **state)
{
    static const struct {
        const char *message, *user; /* NULL: refused */
    } cases[] = {
        {"n,,n=a=2Cb=3Dc,r=x", "a,b=c"},
        {"y,,n=b\xc3\xa4r,r=x", "b\xc3\xa4r"},
        {"n,a=user,n=user,r=x", "user"},
        {"n,a==2C,n==2C,r=x", ","},
        {"n,,n=user,r=x,e=1,Z=,y", NULL}, /* Z= has no value */
        {"n,,n=user,r=x,e=1,Z=yy", "user"},
        {"", NULL},
        {"n", NULL},
        {"n,", NULL},
        {"n,,", NULL},
        {"x,,n=user,r=x", NULL},
        {"nn,,n=user,r=x", NULL},
        {"p=tls-unique,,n=user,r=x", NULL}, /* channel binding */
        {"n,b=user,n=user,r=x", NULL},
        {"n,a=,n=user,r=x", NULL},
        {"n,a=other,n=user,r=x", NULL}, /* as somebody else */
        {"n,,m=ext,n=user,r=x", NULL},
        {"n,,r=x,n=user", NULL},
        {"n,,n=,r=x", NULL},
        {"n,,n=user", NULL},
        {"n,,n=user,r=", NULL},
        {"n,,n=user,r=a b", NULL},
        {"n,,n=user,r=\xc3\xa4", NULL},
        {"n,,n=a=2cb,r=x", NULL}, /* capitals only */
        {"n,,n=a=2,r=x", NULL},
        {"n,,n=a=,r=x", NULL},
        {"n,,n=\xff,r=x", NULL},
        {"n,,n=user,r=x,", NULL},
        {"n,,n=user,r=x,e", NULL},
        {"n,,n=user,r=x,1=2", NULL},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(cases); i++) {
        struct scram *s = NULL;
        const char *fault = NULL;
        chr_err err = scram_new(chr_slice_cstr(cases[i].message), CHR_LIT(S_NONCE), &s, &fault);
        if (cases[i].user) {
            assert_int_equal(err, CHR_OK);
            assert_slice(scram_user(s), cases[i].user);
        } else if (err != CHR_EINVAL || !fault) {
            fail_msg("accepted: %s", cases[i].message);
        }
        scram_free(s);
    }
}

static void lengths(void **state)
{
    struct chr_buf text;
    struct scram *s;
    const char *fault;
    for (int over = 0; over < 2; over++) {
        chr_buf_init(&text, 1 << 16);
        chr_buf_add_cstr(&text, "n,,n=user,r=");
        for (size_t i = 0; i < SCRAM_NONCE_MAX + (size_t)over; i++)
            chr_buf_add_u8(&text, 'x');
        assert_int_equal(scram_new(chr_buf_slice(&text), CHR_LIT(S_NONCE), &s, &fault),
                         over ? CHR_EINVAL : CHR_OK);
        scram_free(s);
        chr_buf_free(&text);
    }
    chr_buf_init(&text, 1 << 16);
    chr_buf_add_cstr(&text, "n,,n=");
    while (text.len <= SCRAM_MESSAGE_MAX)
        chr_buf_add_u8(&text, 'u');
    chr_buf_add_cstr(&text, ",r=x");
    assert_int_equal(scram_new(chr_buf_slice(&text), CHR_LIT(S_NONCE), &s, &fault), CHR_EINVAL);
    chr_buf_free(&text);
}

static void finals_that_do_not_fit(void **state)
{
    static const struct {
        const char *message;
        chr_err err;
    } cases[] = {
        {"", CHR_EINVAL},
        {"c=biws", CHR_EINVAL},
        {"c=biws,r=" C_NONCE S_NONCE, CHR_EINVAL},
        {"c=biws," PROOF, CHR_EINVAL},
        {"c=eSws,r=" C_NONCE S_NONCE "," PROOF, CHR_EINVAL}, /* y,, */
        {"c=biws,r=" C_NONCE "," PROOF, CHR_EINVAL},         /* the client's nonce alone */
        {"c=biws,r=" C_NONCE S_NONCE "x," PROOF, CHR_EINVAL},
        {"c=biws,r=x" S_NONCE "," PROOF, CHR_EINVAL},
        {"c=biws,r=" C_NONCE S_NONCE ",p=AAAA", CHR_EINVAL},
        {"c=biws,r=" C_NONCE S_NONCE ",p=", CHR_EINVAL},
        {"c=biws,r=" C_NONCE S_NONCE ",bad," PROOF, CHR_EINVAL},
        {"c=biws,r=" C_NONCE S_NONCE "," PROOF ",e=1", CHR_EINVAL}, /* the proof comes last */
        {"c=biws,r=" C_NONCE S_NONCE ",e=1," PROOF, CHR_EACCES},    /* not what was signed */
        {"c=biws,r=" C_NONCE S_NONCE ",p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", CHR_EACCES},
        {"c=biws,r=" C_NONCE S_NONCE ",p=eHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", CHR_EACCES},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(cases); i++) {
        struct scram *s = begun(first);
        chr_slice message;
        const char *fault = NULL;
        chr_err err = scram_verify(s, chr_slice_cstr(cases[i].message), &message, &fault);
        if (err != cases[i].err || !fault)
            fail_msg("%s: %s", cases[i].message, chr_strerror(err));
        scram_free(s);
    }
}

/* RFC 4013, 3, and what nobody should need to know. */
static void saslprep(void **state)
{
    static const struct {
        const char *text;
        bool unchanged;
    } cases[] = {
        {"user", true},
        {"USER", true},
        {"correct horse, battery = staple~", true},
        {"p\xc3\xa4ss", true},              /* precomposed */
        {"\xe5\xaf\x86\xe7\xa0\x81", true}, /* Chinese */
        {"\xd7\xa1\xd7\x95\xd7\x93", true}, /* Hebrew */
        {"\xd7\xa1"
         "1\xd7\x93",
         true},                     /* with a digit inside */
        {"\xf0\x9d\x84\x9e", true}, /* beyond 16 bits: G clef */
        {"I\xc2\xadX", false},      /* soft hyphen: mapped to nothing */
        {"\xc2\xaa", false},        /* NFKC makes it "a" */
        {"\xe2\x85\xa8", false},    /* NFKC makes it "IX" */
        {"\x07", false},            /* control */
        {"\x7f", false},
        {"a\tb", false},
        {"\xd8\xa7"
         "1",
         false}, /* does not end right to left */
        {"\xd7\xa1"
         "a\xd7\x93",
         false},                     /* mixes directions */
        {"pa\xcc\x88ss", false},     /* combining */
        {"a\xc2\xa0", false},        /* a space that is not ASCII */
        {"\xee\x80\x80", false},     /* private use */
        {"\xef\xbf\xbd", false},     /* replacement character */
        {"\xf0\x9f\x98\x80", false}, /* younger than Unicode 3.2 */
        {"\xff", false},
        {"", false},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(cases); i++)
        if (!saslprep_fault(chr_slice_cstr(cases[i].text)) != cases[i].unchanged)
            fail_msg("%zu: \"%s\"", i, cases[i].text);
    struct chr_buf hash;
    chr_buf_init(&hash, PASSWORD_TEXT_MAX);
    assert_int_equal(password_make(PASSWORD_SCRAM_SHA256, CHR_LIT("\xc2\xaa"), 0, &hash),
                     CHR_EINVAL);
    assert_int_equal(password_make(PASSWORD_ARGON2ID, CHR_LIT("\xc2\xaa"), 0, &hash), CHR_OK);
    chr_buf_free(&hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc_7677),
        cmocka_unit_test(entry_of_a_file),
        cmocka_unit_test(names_are_decoded),
        cmocka_unit_test(lengths),
        cmocka_unit_test(finals_that_do_not_fit),
        cmocka_unit_test(saslprep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
