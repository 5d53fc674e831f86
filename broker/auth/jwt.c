#include "broker/auth/jwt.h"

#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/num.h"
#include "base/utf8.h"
#include "broker/auth/password.h"
#include "broker/auth/password_file.h"
#include "sqlfront/result/json_read.h"

#define SECRET_BYTES_MIN 32u /* RFC 7518, 3.2 */
#define KEY_FILE_MAX     65536u
#define RSA_BITS_MIN     2048
#define TEXT_MAX         4096u /* of a claim */

enum alg { ALG_NONE, ALG_HS256, ALG_RS256, ALG_ES256 };

struct jwt_keys {
    uint8_t *secret;
    size_t secret_len;
    EVP_PKEY *public_key; /* NULL: none */
    enum alg public_alg;
    char *issuer, *audience;
    uint8_t digest[SHA256_DIGEST_LENGTH]; /* of all of it */
};

void jwt_claims_clear(struct jwt_claims *claims)
{
    free(claims->user);
    acl_list_unref(claims->topics);
    *claims = (struct jwt_claims){0};
}

/* ---- Keys ---------------------------------------------------------------------------------------
 */

void jwt_keys_free(struct jwt_keys *keys)
{
    if (!keys)
        return;
    if (keys->secret)
        OPENSSL_cleanse(keys->secret, keys->secret_len);
    free(keys->secret);
    EVP_PKEY_free(keys->public_key);
    free(keys->issuer);
    free(keys->audience);
    free(keys);
}

bool jwt_keys_same(const struct jwt_keys *a, const struct jwt_keys *b)
{
    return a == b || (a && b && memcmp(a->digest, b->digest, sizeof a->digest) == 0);
}

static chr_err read_public_key(struct jwt_keys *keys, chr_slice pem, struct chr_errmsg *msg)
{
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    if (!bio)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    keys->public_key = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
    BIO_free(bio);
    if (!keys->public_key)
        return chr_fail(msg, CHR_EINVAL,
                        "jwt_public_key_file holds no public key in PEM (BEGIN PUBLIC KEY)");
    int kind = EVP_PKEY_base_id(keys->public_key);
    if (kind == EVP_PKEY_RSA) {
        if (EVP_PKEY_bits(keys->public_key) < RSA_BITS_MIN)
            return chr_fail(msg, CHR_EINVAL, "jwt_public_key_file: an RSA key below %d bits",
                            RSA_BITS_MIN);
        keys->public_alg = ALG_RS256;
        return CHR_OK;
    }
    char curve[64] = "";
    size_t len = 0;
    if (kind == EVP_PKEY_EC &&
        EVP_PKEY_get_group_name(keys->public_key, curve, sizeof curve, &len) == 1 &&
        !strcmp(curve, "prime256v1")) {
        keys->public_alg = ALG_ES256;
        return CHR_OK;
    }
    return chr_fail(msg, CHR_EINVAL,
                    "jwt_public_key_file: neither an RSA key (RS256) nor one of P-256 (ES256)");
}

static void take_digest(struct jwt_keys *keys, chr_slice secret, chr_slice pem)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    const chr_slice parts[] = {secret, pem, chr_slice_cstr(keys->issuer),
                               chr_slice_cstr(keys->audience)};
    bool ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
    for (size_t i = 0; ok && i < CHR_COUNT_OF(parts); i++)
        ok = EVP_DigestUpdate(ctx, &parts[i].len, sizeof parts[i].len) &&
             (parts[i].len == 0 || EVP_DigestUpdate(ctx, parts[i].ptr, parts[i].len));
    if (!ok || !EVP_DigestFinal_ex(ctx, keys->digest, NULL))
        memset(keys->digest, 0, sizeof keys->digest);
    EVP_MD_CTX_free(ctx);
}

chr_err jwt_keys_new(chr_slice secret, chr_slice pem, const char *issuer, const char *audience,
                     struct jwt_keys **out, struct chr_errmsg *msg)
{
    *out = NULL;
    struct jwt_keys *keys = calloc(1, sizeof *keys);
    if (!keys)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    chr_err err = CHR_OK;
    if (issuer && !(keys->issuer = chr_slice_dup_cstr(chr_slice_cstr(issuer))))
        err = CHR_ENOMEM;
    if (audience && !(keys->audience = chr_slice_dup_cstr(chr_slice_cstr(audience))))
        err = CHR_ENOMEM;
    if (!err && secret.len) {
        keys->secret = malloc(secret.len);
        err = keys->secret ? CHR_OK : CHR_ENOMEM;
        if (!err)
            memcpy(keys->secret, secret.ptr, secret.len);
        keys->secret_len = secret.len;
    }
    if (err)
        err = chr_fail(msg, err, "out of memory");
    else if (secret.len && secret.len < SECRET_BYTES_MIN)
        err =
            chr_fail(msg, CHR_EINVAL, "jwt_secret_file: a secret below %u bytes", SECRET_BYTES_MIN);
    else if (chr_slice_starts(secret, CHR_LIT("-----BEGIN")))
        err = chr_fail(msg, CHR_EINVAL,
                       "jwt_secret_file holds a key in PEM: that is for jwt_public_key_file");
    if (!err && pem.len)
        err = read_public_key(keys, pem, msg);
    if (err) {
        jwt_keys_free(keys);
        return err;
    }
    take_digest(keys, secret, pem);
    *out = keys;
    return CHR_OK;
}

chr_err jwt_keys_load(const struct jwt_settings *settings, struct jwt_keys **out,
                      struct chr_errmsg *msg)
{
    *out = NULL;
    if (!settings->secret_file && !settings->public_key_file)
        return CHR_OK;
    struct chr_buf secret = {0}, pem = {0};
    chr_err err = CHR_OK;
    if (settings->secret_file)
        err = auth_read_file(settings->secret_file, KEY_FILE_MAX, &secret, msg);
    if (!err && settings->public_key_file)
        err = auth_read_file(settings->public_key_file, KEY_FILE_MAX, &pem, msg);
    if (!err) {
        while (secret.len &&
               (secret.ptr[secret.len - 1] == '\n' || secret.ptr[secret.len - 1] == '\r'))
            secret.len--;
        if (settings->secret_file && secret.len == 0)
            err = chr_fail(msg, CHR_EINVAL, "jwt_secret_file %s is empty", settings->secret_file);
        else if (settings->public_key_file && pem.len == 0)
            err = chr_fail(msg, CHR_EINVAL, "jwt_public_key_file %s is empty",
                           settings->public_key_file);
        else
            err = jwt_keys_new(chr_buf_slice(&secret), chr_buf_slice(&pem), settings->issuer,
                               settings->audience, out, msg);
    }
    if (secret.ptr)
        OPENSSL_cleanse(secret.ptr, secret.capacity);
    chr_buf_free(&secret);
    chr_buf_free(&pem);
    return err;
}

/* ---- Taking it apart ----------------------------------------------------------------------------
 */

struct parts {
    chr_slice header, claims, signature; /* still encoded */
    chr_slice signed_bytes;              /* header "." claims */
};

static bool split(chr_slice token, struct parts *p)
{
    const uint8_t *first = token.len ? memchr(token.ptr, '.', token.len) : NULL;
    if (!first)
        return false;
    p->header = chr_slice_of(token.ptr, (size_t)(first - token.ptr));
    size_t left = token.len - p->header.len - 1;
    const uint8_t *second = left ? memchr(first + 1, '.', left) : NULL;
    if (!second)
        return false;
    p->claims = chr_slice_of(first + 1, (size_t)(second - first - 1));
    p->signed_bytes = chr_slice_of(token.ptr, (size_t)(second - token.ptr));
    p->signature = chr_slice_of(second + 1, token.len - p->signed_bytes.len - 1);
    return p->header.len && p->claims.len && p->signature.len &&
           !memchr(p->signature.ptr, '.', p->signature.len);
}

bool jwt_looks_like(chr_slice token)
{
    struct parts p;
    /* `{"` is `eyJ`, with whatever white space one likes `ey` or `ew`. */
    return token.len <= JWT_BYTES_MAX && token.len > 2 && token.ptr[0] == 'e' && split(token, &p);
}

static bool text_of(chr_slice value, struct chr_buf *out)
{
    chr_buf_init(out, TEXT_MAX);
    if (value.len < 2 || value.ptr[0] != '"')
        return false;
    json_text(value, out);
    return !out->failed && chr_utf8_valid_mqtt(chr_buf_slice(out));
}

static bool text_is(chr_slice value, const char *wanted)
{
    struct chr_buf text;
    bool same = text_of(value, &text) && chr_slice_eq(chr_buf_slice(&text), chr_slice_cstr(wanted));
    chr_buf_free(&text);
    return same;
}

/* Whole document, an object: one value per wanted name. False: malformed, or a name twice. */
static bool read_members(chr_slice json, const char *const *names, chr_slice *values, size_t count)
{
    if (json.len < 2 || json.ptr[0] != '{' || json.ptr[json.len - 1] != '}' ||
        !chr_utf8_valid(json))
        return false;
    struct json_iter it = json_iter_of(json);
    chr_slice key, value;
    while (json_next(&it, &key, &value)) {
        if (key.len && memchr(key.ptr, '\\', key.len))
            return false; /* nobody needs to escape these names, but to hide one */
        for (size_t i = 0; i < count; i++) {
            if (!chr_slice_eq(key, chr_slice_cstr(names[i])))
                continue;
            if (values[i].ptr)
                return false;
            values[i] = value;
        }
    }
    return it.ok;
}

static enum alg alg_of(chr_slice header)
{
    enum { H_ALG, H_TYP, H_CRIT, H_B64, H_ENC, H_COUNT };
    static const char *const names[H_COUNT] = {"alg", "typ", "crit", "b64", "enc"};
    chr_slice v[H_COUNT] = {{0}};
    if (!read_members(header, names, v, H_COUNT) || !v[H_ALG].ptr || v[H_CRIT].ptr ||
        v[H_B64].ptr || v[H_ENC].ptr)
        return ALG_NONE;
    if (v[H_TYP].ptr && !text_is(v[H_TYP], "JWT") && !text_is(v[H_TYP], "jwt") &&
        !text_is(v[H_TYP], "at+jwt"))
        return ALG_NONE;
    if (text_is(v[H_ALG], "HS256"))
        return ALG_HS256;
    if (text_is(v[H_ALG], "RS256"))
        return ALG_RS256;
    return text_is(v[H_ALG], "ES256") ? ALG_ES256 : ALG_NONE;
}

/* ---- The signature ------------------------------------------------------------------------------
 */

static bool verify_hmac(const struct jwt_keys *keys, chr_slice bytes, chr_slice signature)
{
    uint8_t mac[SHA256_DIGEST_LENGTH];
    bool ok =
        signature.len == sizeof mac &&
        HMAC(EVP_sha256(), keys->secret, (int)keys->secret_len, bytes.ptr, bytes.len, mac, NULL) &&
        auth_equal(mac, signature.ptr, sizeof mac);
    OPENSSL_cleanse(mac, sizeof mac);
    return ok;
}

static bool verify_public(const struct jwt_keys *keys, chr_slice bytes, chr_slice signature)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, keys->public_key) == 1 &&
              EVP_DigestVerify(ctx, signature.ptr, signature.len, bytes.ptr, bytes.len) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}

/* ES256 has r and s side by side, 32 bytes each (RFC 7518, 3.4); openssl wants DER. */
static bool verify_ecdsa(const struct jwt_keys *keys, chr_slice bytes, chr_slice signature)
{
    if (signature.len != 64)
        return false;
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(signature.ptr, 32, NULL), *s = BN_bin2bn(signature.ptr + 32, 32, NULL);
    bool ok = false;
    if (!sig || !r || !s || !ECDSA_SIG_set0(sig, r, s)) {
        BN_free(r);
        BN_free(s);
    } else {
        uint8_t *der = NULL;
        int len = i2d_ECDSA_SIG(sig, &der);
        ok = len > 0 && verify_public(keys, bytes, chr_slice_of(der, (size_t)len));
        OPENSSL_free(der);
    }
    ECDSA_SIG_free(sig);
    return ok;
}

static const char *check_signature(const struct jwt_keys *keys, enum alg alg,
                                   const struct parts *parts)
{
    uint8_t signature[1024];
    int n = auth_base64url_decode(parts->signature, signature, sizeof signature);
    if (n <= 0)
        return "the token's signature is not base64url";
    chr_slice bytes = chr_slice_of(signature, (size_t)n);
    bool ok = false;
    switch (alg) {
    case ALG_HS256:
        if (!keys->secret)
            return "HS256, and jwt_secret_file is not set";
        ok = verify_hmac(keys, parts->signed_bytes, bytes);
        break;
    case ALG_RS256:
    case ALG_ES256:
        if (keys->public_alg != alg)
            return "the token's algorithm is not the one of jwt_public_key_file";
        ok = alg == ALG_RS256 ? verify_public(keys, parts->signed_bytes, bytes)
                              : verify_ecdsa(keys, parts->signed_bytes, bytes);
        break;
    case ALG_NONE:
        return "the token's header is malformed or its algorithm not HS256, RS256 or ES256";
    }
    return ok ? NULL : "the token's signature does not fit";
}

/* ---- Claims -------------------------------------------------------------------------------------
 */

/* NumericDate: seconds, a fraction is allowed. */
static bool seconds_of(chr_slice value, int64_t *out)
{
    bool is_int;
    double f;
    if (!value.len || chr_parse_number(value, &is_int, out, &f) != (int)value.len)
        return false;
    if (!is_int) {
        if (!(f > -1e12 && f < 1e12))
            return false;
        *out = (int64_t)f;
    }
    return *out > -INT64_C(1000000000000) && *out < INT64_C(1000000000000);
}

static bool audience_has(chr_slice value, const char *wanted)
{
    if (value.len && value.ptr[0] == '"')
        return text_is(value, wanted);
    if (!value.len || value.ptr[0] != '[')
        return false;
    struct json_iter it = json_iter_of(value);
    chr_slice key, item;
    bool found = false;
    while (json_next(&it, &key, &item))
        found |= text_is(item, wanted);
    return it.ok && found;
}

static const char *add_topics(struct acl_list *list, chr_slice value, unsigned access)
{
    if (!value.ptr)
        return NULL;
    if (value.ptr[0] != '[')
        return "publish and subscribe have to be arrays of topic filters";
    struct json_iter it = json_iter_of(value);
    chr_slice key, item;
    uint32_t count = 0;
    while (json_next(&it, &key, &item)) {
        struct chr_buf text;
        bool ok = text_of(item, &text) && ++count <= JWT_TOPICS_MAX &&
                  acl_list_add(list, access, chr_buf_slice(&text), true, 0) == CHR_OK;
        chr_buf_free(&text);
        if (!ok)
            return "publish or subscribe holds something that is no topic filter, or too many";
    }
    return it.ok ? NULL : "publish or subscribe is malformed";
}

static const char *read_claims(const struct jwt_keys *keys, chr_slice json, int64_t now_s,
                               struct jwt_claims *claims)
{
    enum { C_SUB, C_EXP, C_NBF, C_ISS, C_AUD, C_ROLE, C_PUBLISH, C_SUBSCRIBE, C_COUNT };
    static const char *const names[C_COUNT] = {"sub", "exp",  "nbf",     "iss",
                                               "aud", "role", "publish", "subscribe"};
    chr_slice v[C_COUNT] = {{0}};
    int64_t not_before_s = 0;
    if (!read_members(json, names, v, C_COUNT))
        return "the token's claims are malformed";
    if (!seconds_of(v[C_EXP], &claims->expires_s))
        return "the token has no exp";
    if (claims->expires_s + JWT_LEEWAY_S <= now_s)
        return "the token has expired";
    if (v[C_NBF].ptr && !seconds_of(v[C_NBF], &not_before_s))
        return "the token's nbf is malformed";
    if (v[C_NBF].ptr && not_before_s - JWT_LEEWAY_S > now_s)
        return "the token is not valid yet";
    if (keys->issuer && !text_is(v[C_ISS], keys->issuer))
        return "the token's iss is not jwt_issuer";
    if (keys->audience && !audience_has(v[C_AUD], keys->audience))
        return "the token's aud is not jwt_audience";
    struct chr_buf text;
    bool named = text_of(v[C_SUB], &text) && !password_name_fault(chr_buf_slice(&text));
    claims->user = named ? chr_slice_dup_cstr(chr_buf_slice(&text)) : NULL;
    claims->user_len = text.len;
    chr_buf_free(&text);
    if (!claims->user)
        return "the token has no sub, or it is no name of a user";
    if (v[C_ROLE].ptr) {
        claims->has_role =
            text_of(v[C_ROLE], &text) && db_role_parse(chr_buf_slice(&text), &claims->role);
        chr_buf_free(&text);
        if (!claims->has_role)
            return "the token's role is not admin, readwrite, readonly or device";
    }
    if (!v[C_PUBLISH].ptr && !v[C_SUBSCRIBE].ptr)
        return NULL;
    if (acl_list_new(&claims->topics))
        return "out of memory";
    const char *fault = add_topics(claims->topics, v[C_PUBLISH], ACL_WRITE);
    return fault ? fault : add_topics(claims->topics, v[C_SUBSCRIBE], ACL_READ);
}

const char *jwt_verify(const struct jwt_keys *keys, chr_slice token, int64_t now_s,
                       struct jwt_claims *claims)
{
    *claims = (struct jwt_claims){0};
    struct parts parts;
    if (token.len > JWT_BYTES_MAX || !split(token, &parts))
        return "the token has not three parts, or is longer than 16 KiB";
    uint8_t *bytes = malloc(token.len);
    if (!bytes)
        return "out of memory";
    const char *fault = "the token's header is not base64url";
    int n = auth_base64url_decode(parts.header, bytes, token.len);
    if (n > 0)
        fault = check_signature(keys, alg_of(chr_slice_of(bytes, (size_t)n)), &parts);
    if (!fault) { /* what nobody has signed is not looked at */
        n = auth_base64url_decode(parts.claims, bytes, token.len);
        fault = n > 0 ? read_claims(keys, chr_slice_of(bytes, (size_t)n), now_s, claims)
                      : "the token's claims are not base64url";
    }
    free(bytes);
    if (fault)
        jwt_claims_clear(claims);
    return fault;
}
