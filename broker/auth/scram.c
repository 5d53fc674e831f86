#include "broker/auth/scram.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/utf8.h"

struct scram {
    struct chr_buf gs2;          /* header of client-first: comes back in c= */
    struct chr_buf user;         /* decoded */
    struct chr_buf nonce;        /* the client's, then ours behind it */
    struct chr_buf auth_message; /* client-first-bare "," server-first "," … */
    size_t server_first_at;      /* in auth_message */
    uint8_t stored_key[SCRAM_KEY_BYTES], server_key[SCRAM_KEY_BYTES];
    char answer[SCRAM_ANSWER_BYTES];
};

void scram_free(struct scram *s)
{
    if (!s)
        return;
    chr_buf_free(&s->gs2);
    chr_buf_free(&s->user);
    chr_buf_free(&s->nonce);
    chr_buf_free(&s->auth_message);
    OPENSSL_cleanse(s, sizeof *s);
    free(s);
}

chr_slice scram_user(const struct scram *s)
{
    return chr_buf_slice(&s->user);
}

/* ---- Reading ------------------------------------------------------------------------------------
 */

/* The part before the next comma; *text goes on behind it. *more: there was one. */
static chr_slice part(chr_slice *text, bool *more)
{
    const uint8_t *comma = text->len ? memchr(text->ptr, ',', text->len) : NULL;
    chr_slice out = *text;
    *more = comma != NULL;
    if (comma) {
        out.len = (size_t)(comma - text->ptr);
        text->ptr = comma + 1;
        text->len -= out.len + 1;
    } else {
        *text = chr_slice_of(text->ptr + text->len, 0);
    }
    return out;
}

/* "x=value"; false: another name, or nothing behind it. */
static bool attribute(chr_slice text, char name, chr_slice *value)
{
    if (text.len < 3 || text.ptr[0] != (uint8_t)name || text.ptr[1] != '=')
        return false;
    *value = chr_slice_of(text.ptr + 2, text.len - 2);
    return true;
}

static bool is_extension(chr_slice text)
{
    bool alpha = text.len >= 3 && ((text.ptr[0] >= 'a' && text.ptr[0] <= 'z') ||
                                   (text.ptr[0] >= 'A' && text.ptr[0] <= 'Z'));
    return alpha && text.ptr[1] == '=';
}

static bool is_printable(chr_slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] < 0x21 || text.ptr[i] > 0x7e || text.ptr[i] == ',')
            return false;
    return true;
}

/* saslname: `=2C` is a comma, `=3D` an equals sign; no other `=`. */
static bool decode_name(chr_slice text, struct chr_buf *out)
{
    chr_buf_init(out, SCRAM_MESSAGE_MAX);
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];
        if (c == '=') {
            chr_slice three = chr_slice_of(text.ptr + i, CHR_MIN(text.len - i, (size_t)3));
            if (chr_slice_eq(three, CHR_LIT("=2C")))
                c = ',';
            else if (!chr_slice_eq(three, CHR_LIT("=3D")))
                return false;
            i += 2;
        }
        chr_buf_add_u8(out, c);
    }
    return true;
}

/* n,, or y,a=name, */
static const char *read_gs2(struct scram *s, chr_slice *text, chr_slice *authzid)
{
    const uint8_t *start = text->ptr;
    bool more, more_too;
    chr_slice flag = part(text, &more);
    if (chr_slice_starts(flag, CHR_LIT("p=")))
        return "channel binding is not offered";
    chr_slice name = part(text, &more_too);
    if (!more || !more_too || flag.len != 1 || (flag.ptr[0] != 'n' && flag.ptr[0] != 'y'))
        return "the message does not begin with n,, or y,,";
    *authzid = CHR_LIT("");
    if (name.len && !attribute(name, 'a', authzid))
        return "the authorization identity is malformed";
    chr_buf_init(&s->gs2, SCRAM_MESSAGE_MAX);
    chr_buf_add(&s->gs2, start, (size_t)(text->ptr - start));
    return NULL;
}

static const char *read_first(struct scram *s, chr_slice text, chr_slice server_nonce)
{
    bool more;
    chr_slice authzid, name, nonce;
    if (text.len > SCRAM_MESSAGE_MAX)
        return "the message is longer than 4 KiB";
    if (!chr_utf8_valid_mqtt(text))
        return "the message is not UTF-8";
    const char *fault = read_gs2(s, &text, &authzid);
    if (fault)
        return fault;
    chr_buf_init(&s->auth_message, 4 * SCRAM_MESSAGE_MAX);
    chr_buf_add(&s->auth_message, text.ptr, text.len);
    chr_slice first = part(&text, &more);
    if (chr_slice_starts(first, CHR_LIT("m=")))
        return "mandatory extensions are not offered";
    if (!attribute(first, 'n', &name) || !decode_name(name, &s->user))
        return "the user name is missing or malformed";
    if (!more || !attribute(part(&text, &more), 'r', &nonce) || !is_printable(nonce) ||
        nonce.len > SCRAM_NONCE_MAX)
        return "the nonce is missing, malformed or too long";
    while (more)
        if (!is_extension(part(&text, &more)))
            return "an extension is malformed";
    if (authzid.len && !chr_slice_eq(authzid, name))
        return "nobody may act as somebody else";
    chr_buf_init(&s->nonce, SCRAM_MESSAGE_MAX);
    chr_buf_add(&s->nonce, nonce.ptr, nonce.len);
    chr_buf_add(&s->nonce, server_nonce.ptr, server_nonce.len);
    return NULL;
}

static bool out_of_memory(const struct scram *s)
{
    return s->gs2.failed || s->user.failed || s->nonce.failed || s->auth_message.failed;
}

chr_err scram_new(chr_slice client_first, chr_slice nonce, struct scram **out, const char **fault)
{
    struct scram *s = calloc(1, sizeof *s);
    *out = NULL;
    *fault = s ? read_first(s, client_first, nonce) : NULL;
    if (!s || *fault || out_of_memory(s)) {
        scram_free(s);
        return *fault ? CHR_EINVAL : CHR_ENOMEM;
    }
    *out = s;
    return CHR_OK;
}

/* ---- Answering ----------------------------------------------------------------------------------
 */

chr_err scram_challenge(struct scram *s, const struct password *password, chr_slice *message)
{
    struct chr_buf *m = &s->auth_message;
    CHR_ASSERT(password->kind == PASSWORD_SCRAM_SHA256);
    CHR_ASSERT(s->server_first_at == 0);
    memcpy(s->stored_key, password->hash, SCRAM_KEY_BYTES);
    memcpy(s->server_key, password->server_key, SCRAM_KEY_BYTES);
    chr_buf_add_u8(m, ',');
    s->server_first_at = m->len;
    chr_buf_add_cstr(m, "r=");
    chr_buf_add(m, s->nonce.ptr, s->nonce.len);
    chr_buf_add_cstr(m, ",s=");
    auth_base64_encode(chr_slice_of(password->salt, password->salt_len), m);
    chr_buf_addf(m, ",i=%u", password->iterations);
    if (m->failed)
        return CHR_ENOMEM;
    *message = chr_slice_of(m->ptr + s->server_first_at, m->len - s->server_first_at);
    return CHR_OK;
}

/* c=…,r=…[,extensions],p=…: what comes before the proof, and the proof. */
static const char *read_final(const struct scram *s, chr_slice text, chr_slice *without_proof,
                              uint8_t proof[SCRAM_KEY_BYTES])
{
    uint8_t header[SCRAM_MESSAGE_MAX];
    chr_slice whole = text, value, last;
    bool more;
    if (text.len > SCRAM_MESSAGE_MAX)
        return "the message is longer than 4 KiB";
    if (!chr_utf8_valid_mqtt(text))
        return "the message is not UTF-8";
    if (!attribute(part(&text, &more), 'c', &value) || !more)
        return "c= is missing";
    int n = auth_base64_decode(value, header, sizeof header);
    if (n < 0 || !chr_slice_eq(chr_slice_of(header, (size_t)n), chr_buf_slice(&s->gs2)))
        return "c= is not what the exchange began with";
    if (!attribute(part(&text, &more), 'r', &value) || !more)
        return "r= is missing";
    if (!chr_slice_eq(value, chr_buf_slice(&s->nonce)))
        return "the nonce is not the one of this exchange";
    for (;;) {
        last = part(&text, &more);
        if (!more)
            break;
        if (!is_extension(last))
            return "an extension is malformed";
    }
    if (!attribute(last, 'p', &value) ||
        auth_base64_decode(value, proof, SCRAM_KEY_BYTES) != (int)SCRAM_KEY_BYTES)
        return "the proof is missing or malformed";
    *without_proof = chr_slice_of(whole.ptr, (size_t)(last.ptr - whole.ptr) - 1);
    return NULL;
}

static bool sign(const uint8_t key[SCRAM_KEY_BYTES], chr_slice message,
                 uint8_t out[SCRAM_KEY_BYTES])
{
    return HMAC(EVP_sha256(), key, SCRAM_KEY_BYTES, message.ptr, message.len, out, NULL) != NULL;
}

chr_err scram_verify(struct scram *s, chr_slice client_final, chr_slice *message,
                     const char **fault)
{
    uint8_t proof[SCRAM_KEY_BYTES], signature[SCRAM_KEY_BYTES], stored[SCRAM_KEY_BYTES];
    chr_slice without_proof;
    struct chr_buf *m = &s->auth_message;
    CHR_ASSERT(s->server_first_at > 0);
    *fault = read_final(s, client_final, &without_proof, proof);
    if (*fault)
        return CHR_EINVAL;
    chr_buf_add_u8(m, ',');
    chr_buf_add(m, without_proof.ptr, without_proof.len);
    if (m->failed || !sign(s->stored_key, chr_buf_slice(m), signature))
        return CHR_ENOMEM;
    /* ClientProof = ClientKey XOR ClientSignature; StoredKey = H(ClientKey) */
    for (size_t i = 0; i < SCRAM_KEY_BYTES; i++)
        proof[i] ^= signature[i];
    SHA256(proof, SCRAM_KEY_BYTES, stored);
    bool same = auth_equal(stored, s->stored_key, SCRAM_KEY_BYTES);
    OPENSSL_cleanse(proof, sizeof proof);
    if (!same) {
        *fault = "wrong password";
        return CHR_EACCES;
    }
    if (!sign(s->server_key, chr_buf_slice(m), signature))
        return CHR_ENOMEM;
    struct chr_buf text;
    chr_buf_init(&text, sizeof s->answer);
    chr_buf_add_cstr(&text, "v=");
    auth_base64_encode(chr_slice_of(signature, sizeof signature), &text);
    bool failed = text.failed;
    size_t len = text.len;
    if (!failed)
        memcpy(s->answer, text.ptr, len);
    chr_buf_free(&text);
    if (failed)
        return CHR_ENOMEM;
    *message = chr_slice_of(s->answer, len);
    return CHR_OK;
}
