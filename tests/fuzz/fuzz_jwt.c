/* tests/fuzz/fuzz_jwt.c: JSON Web Tokens.
 *
 * Input: one byte picks what follows. Even: a token as it stands; odd: header and claims as JSON
 * with a zero byte between, which are encoded and signed with the secret, so that what is behind
 * the signature is reached as well. Beyond "no crash": a token that is let in has the signature
 * that an independent computation finds; its user, times and topics are proper; signed with another
 * secret, or a byte of it turned, it is not let in. */
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "broker/auth/jwt.h"
#include "broker/auth/password_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW_S 1000000000
static const char secret[] = "a secret of at least thirty-two bytes.";
static struct jwt_keys *keys, *others, *strict;

static struct jwt_keys *keys_of(const char *text, const char *issuer, const char *audience)
{
    struct jwt_keys *out;
    struct chr_errmsg msg;
    CHR_ASSERT(jwt_keys_new(chr_slice_cstr(text), CHR_LIT(""), issuer, audience, &out, &msg) ==
               CHR_OK);
    return out;
}

static void add_base64url(struct chr_buf *out, chr_slice bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint32_t bits = 0;
    unsigned count = 0;
    for (size_t i = 0; i < bytes.len; i++) {
        bits = bits << 8 | bytes.ptr[i];
        for (count += 8; count >= 6; count -= 6)
            chr_buf_add_u8(out, (uint8_t)digits[bits >> (count - 6) & 63]);
    }
    if (count)
        chr_buf_add_u8(out, (uint8_t)digits[bits << (6 - count) & 63]);
}

static void add_signature(struct chr_buf *out)
{
    uint8_t mac[32];
    CHR_ASSERT(HMAC(EVP_sha256(), secret, sizeof secret - 1, out->ptr, out->len, mac, NULL));
    chr_buf_add_u8(out, '.');
    add_base64url(out, chr_slice_of(mac, sizeof mac));
}

/* What is before the last dot, signed by ourselves, has to be the token. */
static bool is_signed(chr_slice token)
{
    const uint8_t *dot = memrchr(token.ptr, '.', token.len);
    struct chr_buf again;
    chr_buf_init(&again, token.len + 64);
    chr_buf_add(&again, token.ptr, (size_t)(dot - token.ptr));
    add_signature(&again);
    bool same = chr_slice_eq(chr_buf_slice(&again), token);
    chr_buf_free(&again);
    return same;
}

static bool is_accepted(const struct jwt_keys *with, chr_slice token)
{
    struct jwt_claims claims;
    const char *fault = jwt_verify(with, token, NOW_S, &claims);
    if (!fault)
        jwt_claims_clear(&claims);
    return !fault;
}

static void check(chr_slice token)
{
    struct jwt_claims claims;
    const char *fault = jwt_verify(keys, token, NOW_S, &claims);
    if (fault) {
        CHR_ASSERT(!claims.user);
        CHR_ASSERT(!claims.topics);
        CHR_ASSERT(!is_accepted(strict, token)); /* which only asks for more */
        return;
    }
    CHR_ASSERT(jwt_looks_like(token) || token.ptr[0] != 'e');
    CHR_ASSERT(is_signed(token));
    CHR_ASSERT(!password_name_fault(chr_slice_of(claims.user, claims.user_len)));
    CHR_ASSERT(strlen(claims.user) == claims.user_len);
    CHR_ASSERT(claims.expires_s + JWT_LEEWAY_S > NOW_S);
    CHR_ASSERT(!claims.has_role || claims.role < DB_ROLES_END);
    if (claims.topics) {
        struct acl_subject subject = {chr_slice_of(claims.user, claims.user_len), CHR_LIT("c")};
        (void)acl_list_allows(claims.topics, &subject, ACL_WRITE, CHR_LIT("a/b"), NULL);
        (void)acl_list_allows_filter(claims.topics, &subject, CHR_LIT("a/#"), false, NULL);
    }
    jwt_claims_clear(&claims);
    CHR_ASSERT(!is_accepted(others, token));
    uint8_t *turned = malloc(token.len);
    CHR_ASSERT(turned);
    memcpy(turned, token.ptr, token.len);
    turned[token.len / 2] ^= 1;
    CHR_ASSERT(!is_accepted(keys, chr_slice_of(turned, token.len)));
    free(turned);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 8192)
        return 0;
    if (!keys) {
        keys = keys_of(secret, NULL, NULL);
        strict = keys_of(secret, "us", "chronos");
        others = keys_of("another secret of thirty-two bytes", NULL, NULL);
    }
    chr_slice text = chr_slice_of(data + 1, size - 1);
    struct chr_buf token;
    chr_buf_init(&token, 4 * size + 64);
    if (data[0] % 2 == 0) {
        chr_buf_add(&token, text.ptr, text.len);
    } else {
        const uint8_t *zero = text.len ? memchr(text.ptr, 0, text.len) : NULL;
        size_t len = zero ? (size_t)(zero - text.ptr) : text.len;
        add_base64url(&token, chr_slice_of(text.ptr, len));
        chr_buf_add_u8(&token, '.');
        if (zero)
            add_base64url(&token, chr_slice_of(zero + 1, text.len - len - 1));
        add_signature(&token);
    }
    CHR_ASSERT(!token.failed);
    /* Ends where its allocation ends. */
    uint8_t *copy = malloc(token.len ? token.len : 1);
    CHR_ASSERT(copy);
    if (token.len)
        memcpy(copy, token.ptr, token.len);
    check(chr_slice_of(copy, token.len));
    free(copy);
    chr_buf_free(&token);
    return 0;
}
