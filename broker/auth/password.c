#include "broker/auth/password.h"

#include <argon2.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "base/random.h"
#include "broker/auth/saslprep.h"

#define PBKDF2_ITERATIONS 101u /* Mosquitto's; every connect of a fleet pays for it */
#define ARGON2_KIB        47104u
#define ARGON2_PASSES     1u

/* ---- Base64 -------------------------------------------------------------------------------------
 */

static int digit_of(uint8_t c, bool url)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == (url ? '-' : '+'))
        return 62;
    return c == (url ? '_' : '/') ? 63 : -1;
}

static int decode(chr_slice text, uint8_t *out, size_t capacity, bool url)
{
    size_t len = text.len, n = 0;
    if (!url) {
        if (len % 4)
            return -1;
        if (len && text.ptr[len - 1] == '=')
            len--;
        if (len && text.ptr[len - 1] == '=')
            len--;
    }
    if (len % 4 == 1 || len / 4 * 3 + len % 4 > capacity + 1)
        return -1;
    uint32_t bits = 0;
    for (size_t i = 0; i < len; i++) {
        int d = digit_of(text.ptr[i], url);
        if (d < 0)
            return -1;
        bits = bits << 6 | (uint32_t)d;
        if (i % 4 == 0)
            continue;
        if (n == capacity)
            return -1;
        out[n++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
    }
    /* What is left over has to be zero: one text per value. */
    if (len % 4 && (bits & (len % 4 == 2 ? 0xfu : 0x3u)))
        return -1;
    return (int)n;
}

int auth_base64_decode(chr_slice text, uint8_t *out, size_t capacity)
{
    return decode(text, out, capacity, false);
}

int auth_base64url_decode(chr_slice text, uint8_t *out, size_t capacity)
{
    return decode(text, out, capacity, true);
}

void auth_base64_encode(chr_slice bytes, struct chr_buf *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < bytes.len; i += 3) {
        size_t n = CHR_MIN(bytes.len - i, (size_t)3);
        uint32_t bits = (uint32_t)bytes.ptr[i] << 16;
        if (n > 1)
            bits |= (uint32_t)bytes.ptr[i + 1] << 8;
        if (n > 2)
            bits |= bytes.ptr[i + 2];
        const char four[4] = {digits[bits >> 18], digits[bits >> 12 & 63],
                              n > 1 ? digits[bits >> 6 & 63] : '=',
                              n > 2 ? digits[bits & 63] : '='};
        chr_buf_add(out, four, 4);
    }
}

bool auth_equal(const void *a, const void *b, size_t len)
{
    return CRYPTO_memcmp(a, b, len) == 0;
}

/* ---- Deriving -----------------------------------------------------------------------------------
 */

static bool hash_sha512(chr_slice plain, const struct password *p, uint8_t out[64])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha512(), NULL) &&
              EVP_DigestUpdate(ctx, plain.ptr, plain.len) &&
              EVP_DigestUpdate(ctx, p->salt, p->salt_len) && EVP_DigestFinal_ex(ctx, out, NULL);
    EVP_MD_CTX_free(ctx);
    return ok;
}

static bool hash_pbkdf2(chr_slice plain, const struct password *p, uint8_t out[64])
{
    return PKCS5_PBKDF2_HMAC((const char *)plain.ptr, (int)plain.len, p->salt, (int)p->salt_len,
                             (int)p->iterations, EVP_sha512(), 64, out) == 1;
}

chr_err scram_keys(chr_slice plain, chr_slice salt, uint32_t iterations,
                   uint8_t stored_key[SCRAM_KEY_BYTES], uint8_t server_key[SCRAM_KEY_BYTES])
{
    uint8_t salted[SCRAM_KEY_BYTES], client_key[SCRAM_KEY_BYTES];
    bool ok = PKCS5_PBKDF2_HMAC((const char *)plain.ptr, (int)plain.len, salt.ptr, (int)salt.len,
                                (int)iterations, EVP_sha256(), SCRAM_KEY_BYTES, salted) == 1 &&
              HMAC(EVP_sha256(), salted, sizeof salted, (const uint8_t *)"Client Key", 10,
                   client_key, NULL) &&
              SHA256(client_key, sizeof client_key, stored_key) &&
              HMAC(EVP_sha256(), salted, sizeof salted, (const uint8_t *)"Server Key", 10,
                   server_key, NULL);
    OPENSSL_cleanse(salted, sizeof salted);
    OPENSSL_cleanse(client_key, sizeof client_key);
    return ok ? CHR_OK : CHR_ENOMEM;
}

bool password_verify(const struct password *p, chr_slice plain)
{
    uint8_t out[64], unused[SCRAM_KEY_BYTES];
    bool same = false;
    if (plain.len > INT32_MAX)
        return false;
    switch (p->kind) {
    case PASSWORD_SHA512:
        same = hash_sha512(plain, p, out) && auth_equal(out, p->hash, 64);
        break;
    case PASSWORD_PBKDF2_SHA512:
        same = hash_pbkdf2(plain, p, out) && auth_equal(out, p->hash, 64);
        break;
    case PASSWORD_ARGON2ID:
        return argon2id_verify(p->argon2, plain.ptr, plain.len) == ARGON2_OK;
    case PASSWORD_SCRAM_SHA256:
        same = scram_keys(plain, chr_slice_of(p->salt, p->salt_len), p->iterations, out, unused) ==
                   CHR_OK &&
               auth_equal(out, p->hash, SCRAM_KEY_BYTES);
        break;
    }
    OPENSSL_cleanse(out, sizeof out);
    return same;
}

/* ---- Reading ------------------------------------------------------------------------------------
 */

void password_clear(struct password *password)
{
    free(password->argon2);
    OPENSSL_cleanse(password, sizeof *password);
}

/* Up to the next `end`, or all of it when there is none and `last`. */
static bool part(chr_slice *text, char end, bool last, chr_slice *out)
{
    const uint8_t *at = text->len ? memchr(text->ptr, end, text->len) : NULL;
    if (last) {
        *out = *text;
        return !at;
    }
    if (!at)
        return false;
    *out = chr_slice_of(text->ptr, (size_t)(at - text->ptr));
    text->len -= out->len + 1;
    text->ptr = at + 1;
    return true;
}

static bool read_number(chr_slice text, uint32_t least, uint32_t most, uint32_t *out)
{
    int64_t n = 0;
    if (text.len == 0 || text.len > 10 || text.ptr[0] < '0' || text.ptr[0] > '9' ||
        chr_parse_i64(text, &n) != (int)text.len || n < least || n > most)
        return false;
    *out = (uint32_t)n;
    return true;
}

static bool read_salt(chr_slice text, struct password *p)
{
    int n = auth_base64_decode(text, p->salt, sizeof p->salt);
    p->salt_len = n > 0 ? (uint32_t)n : 0;
    return n > 0;
}

static const char *parse_mosquitto(chr_slice text, struct password *p)
{
    chr_slice salt, hash, iterations;
    bool pbkdf2 = p->kind == PASSWORD_PBKDF2_SHA512;
    text.ptr += 3;
    text.len -= 3;
    if (pbkdf2 && !part(&text, '$', false, &iterations))
        return "a hash of type $7$ has the form $7$iterations$salt$hash";
    if (!part(&text, '$', false, &salt) || !part(&text, '$', true, &hash))
        return pbkdf2 ? "a hash of type $7$ has the form $7$iterations$salt$hash"
                      : "a hash of type $6$ has the form $6$salt$hash";
    if (pbkdf2 && !read_number(iterations, 1, PASSWORD_ITERATIONS_MAX, &p->iterations))
        return "the number of iterations is not from 1 to 10000000";
    if (!read_salt(salt, p))
        return "the salt is not base64 of 1 to 64 bytes";
    if (auth_base64_decode(hash, p->hash, sizeof p->hash) != 64)
        return "the hash is not base64 of 64 bytes";
    return NULL;
}

static const char *parse_scram(chr_slice text, struct password *p)
{
    static const char form[] =
        "a SCRAM entry has the form SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey";
    chr_slice iterations, salt, stored, server;
    text.ptr += 14;
    text.len -= 14;
    if (!part(&text, ':', false, &iterations) || !part(&text, '$', false, &salt) ||
        !part(&text, ':', false, &stored) || !part(&text, ':', true, &server))
        return form;
    if (!read_number(iterations, PASSWORD_SCRAM_ITERATIONS, PASSWORD_ITERATIONS_MAX,
                     &p->iterations))
        return "the number of iterations is not from 4096 to 10000000";
    if (!read_salt(salt, p))
        return "the salt is not base64 of 1 to 64 bytes";
    if (auth_base64_decode(stored, p->hash, SCRAM_KEY_BYTES) != (int)SCRAM_KEY_BYTES ||
        auth_base64_decode(server, p->server_key, SCRAM_KEY_BYTES) != (int)SCRAM_KEY_BYTES)
        return "a key is not base64 of 32 bytes";
    return NULL;
}

/* "$argon2id$v=19$m=47104,t=1,p=1$salt$hash": libargon2 decodes it at each use; what it costs is
 * looked at here. */
static const char *parse_argon2(chr_slice text, struct password *p)
{
    chr_slice version, m, t, lanes, salt, hash;
    uint32_t kib, passes, threads;
    text.ptr += 10;
    text.len -= 10;
    if (!part(&text, '$', false, &version) || !part(&text, ',', false, &m) ||
        !part(&text, ',', false, &t) || !part(&text, '$', false, &lanes) ||
        !part(&text, '$', false, &salt) || !part(&text, '$', true, &hash) || m.len < 3 ||
        t.len < 3 || lanes.len < 3 || memcmp(m.ptr, "m=", 2) || memcmp(t.ptr, "t=", 2) ||
        memcmp(lanes.ptr, "p=", 2))
        return "an argon2id hash has the form $argon2id$v=19$m=KIB,t=PASSES,p=LANES$salt$hash";
    if (!chr_slice_eq(version, CHR_LIT("v=19")))
        return "the version of argon2 is not 19";
    m.ptr += 2, m.len -= 2, t.ptr += 2, t.len -= 2, lanes.ptr += 2, lanes.len -= 2;
    if (!read_number(m, 8, PASSWORD_ARGON2_KIB_MAX, &kib) || !read_number(t, 1, 1000, &passes) ||
        !read_number(lanes, 1, 64, &threads))
        return "argon2 with more than 1 GiB, 1000 passes or 64 lanes, or less than 8 KiB";
    if (salt.len < 11 || hash.len < 6)
        return "the salt or hash of argon2 is too short";
    p->argon2 = NULL;
    return NULL;
}

chr_err password_parse(chr_slice text, struct password *out, struct chr_errmsg *msg)
{
    *out = (struct password){0};
    const char *what = NULL;
    if (text.len > PASSWORD_TEXT_MAX || (text.len && memchr(text.ptr, 0, text.len))) {
        what = "the hash is too long";
    } else if (chr_slice_starts(text, CHR_LIT("$6$"))) {
        out->kind = PASSWORD_SHA512;
        what = parse_mosquitto(text, out);
    } else if (chr_slice_starts(text, CHR_LIT("$7$"))) {
        out->kind = PASSWORD_PBKDF2_SHA512;
        what = parse_mosquitto(text, out);
    } else if (chr_slice_starts(text, CHR_LIT("SCRAM-SHA-256$"))) {
        out->kind = PASSWORD_SCRAM_SHA256;
        what = parse_scram(text, out);
    } else if (chr_slice_starts(text, CHR_LIT("$argon2id$"))) {
        out->kind = PASSWORD_ARGON2ID;
        what = parse_argon2(text, out);
        if (!what) {
            out->argon2 = chr_slice_dup_cstr(text);
            if (!out->argon2)
                return chr_fail(msg, CHR_ENOMEM, "out of memory");
        }
    } else {
        what = "the password is not hashed with $6$, $7$, $argon2id$ or SCRAM-SHA-256; "
               "`chronos passwd` or mosquitto_passwd make such a file";
    }
    if (what) {
        password_clear(out);
        return chr_fail(msg, CHR_EINVAL, "%s", what);
    }
    return CHR_OK;
}

/* ---- Making -------------------------------------------------------------------------------------
 */

static chr_err make_argon2(chr_slice plain, uint32_t passes, struct chr_buf *out)
{
    uint8_t salt[16];
    char text[PASSWORD_TEXT_MAX];
    chr_random_bytes(salt, sizeof salt);
    int rc = argon2id_hash_encoded(passes ? passes : ARGON2_PASSES, ARGON2_KIB, 1, plain.ptr,
                                   plain.len, salt, sizeof salt, 32, text, sizeof text);
    if (rc != ARGON2_OK)
        return CHR_ENOMEM;
    chr_buf_add_cstr(out, text);
    return out->failed ? CHR_ENOMEM : CHR_OK;
}

chr_err password_make(enum password_kind kind, chr_slice plain, uint32_t iterations,
                      struct chr_buf *out)
{
    struct password p = {.kind = kind, .salt_len = PASSWORD_MADE_SALT_BYTES};
    if (plain.len > INT32_MAX)
        return CHR_ETOOBIG;
    if (kind == PASSWORD_SCRAM_SHA256 && saslprep_fault(plain))
        return CHR_EINVAL;
    if (kind == PASSWORD_ARGON2ID)
        return make_argon2(plain, iterations, out);
    chr_random_bytes(p.salt, p.salt_len);
    chr_slice salt = chr_slice_of(p.salt, p.salt_len);
    chr_err err = CHR_OK;
    switch (kind) {
    case PASSWORD_SHA512:
        err = hash_sha512(plain, &p, p.hash) ? CHR_OK : CHR_ENOMEM;
        chr_buf_add_cstr(out, "$6$");
        break;
    case PASSWORD_PBKDF2_SHA512:
        p.iterations = iterations ? iterations : PBKDF2_ITERATIONS;
        err = hash_pbkdf2(plain, &p, p.hash) ? CHR_OK : CHR_ENOMEM;
        chr_buf_addf(out, "$7$%u$", p.iterations);
        break;
    default:
        p.iterations = iterations ? iterations : PASSWORD_SCRAM_ITERATIONS;
        err = scram_keys(plain, salt, p.iterations, p.hash, p.server_key);
        chr_buf_addf(out, "SCRAM-SHA-256$%u:", p.iterations);
        break;
    }
    auth_base64_encode(salt, out);
    chr_buf_add_u8(out, '$');
    auth_base64_encode(chr_slice_of(p.hash, kind == PASSWORD_SCRAM_SHA256 ? SCRAM_KEY_BYTES : 64),
                       out);
    if (kind == PASSWORD_SCRAM_SHA256) {
        chr_buf_add_u8(out, ':');
        auth_base64_encode(chr_slice_of(p.server_key, SCRAM_KEY_BYTES), out);
    }
    password_clear(&p);
    return err ? err : out->failed ? CHR_ENOMEM : CHR_OK;
}
