/* tests/fuzz/fuzz_passwd.c: password files, and the client's messages of SCRAM.
 *
 * Input: one byte picks what the rest is: a password file, base64, or two messages of SCRAM with a
 * zero byte between. Beyond "no crash": an entry that was accepted and costs little is verified and
 * says the same twice; base64 has one text per value; a name in an exchange survives being encoded
 * again; no message but the one a client with the password makes is let in. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "broker/auth/password.h"
#include "broker/auth/password_file.h"
#include "broker/auth/saslprep.h"
#include "broker/auth/scram.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- Files ------------------------------------------------------------------------------------
 */

/* Cheap enough to be tried? Argon2's parameters stand in its text. */
static bool is_cheap(const struct password *p)
{
    unsigned kib, passes, lanes;
    if (p->kind == PASSWORD_ARGON2ID)
        return sscanf(p->argon2, "$argon2id$v=19$m=%u,t=%u,p=%u", &kib, &passes, &lanes) == 3 &&
               kib <= 256 && passes <= 2 && lanes <= 2;
    return p->kind == PASSWORD_SHA512 || p->iterations <= 4096;
}

static chr_err entry(void *arg, chr_slice name, chr_slice hash, uint32_t line)
{
    struct password p;
    struct chr_errmsg msg = {{0}};
    uint32_t *tried = arg;
    CHR_ASSERT(!password_name_fault(name));
    CHR_ASSERT(line > 0);
    chr_err err = password_parse(hash, &p, &msg);
    if (err) {
        CHR_ASSERT(err == CHR_EINVAL);
        CHR_ASSERT(msg.text[0]);
        return CHR_OK;
    }
    if (is_cheap(&p) && (*tried)++ < 2)
        CHR_ASSERT(password_verify(&p, name) == password_verify(&p, name));
    password_clear(&p);
    return CHR_OK;
}

static void check_file(chr_slice text)
{
    struct chr_errmsg msg = {{0}};
    uint32_t tried = 0;
    chr_err err = password_file_each(text, "f", entry, &tried, &msg);
    if (err)
        CHR_ASSERT(strncmp(msg.text, "f:", 2) == 0);
    (void)saslprep_fault(text);
}

/* ---- Base64 -----------------------------------------------------------------------------------
 */

static void check_base64(chr_slice text)
{
    uint8_t *bytes = malloc(text.len + 1);
    CHR_ASSERT(bytes);
    int n = auth_base64_decode(text, bytes, text.len);
    if (n >= 0) {
        struct chr_buf again;
        chr_buf_init(&again, text.len + 8);
        auth_base64_encode(chr_slice_of(bytes, (size_t)n), &again);
        CHR_ASSERT(chr_slice_eq(chr_buf_slice(&again), text));
        chr_buf_free(&again);
        if (n > 0) /* room for less than that is none */
            CHR_ASSERT(auth_base64_decode(text, bytes, (size_t)n - 1) == -1);
    }
    (void)!auth_base64url_decode(text, bytes, text.len);
    free(bytes);
}

/* ---- SCRAM ------------------------------------------------------------------------------------
 */

static struct password pencil; /* of RFC 7677 */

static bool name_survives(const struct scram *s, chr_slice first)
{
    struct chr_buf text;
    chr_slice user = scram_user(s);
    chr_buf_init(&text, 4 * SCRAM_MESSAGE_MAX);
    chr_buf_add_cstr(&text, "n=");
    for (size_t i = 0; i < user.len; i++) {
        if (user.ptr[i] == ',' || user.ptr[i] == '=')
            chr_buf_add_cstr(&text, user.ptr[i] == ',' ? "=2C" : "=3D");
        else
            chr_buf_add_u8(&text, user.ptr[i]);
    }
    chr_buf_add_cstr(&text, ",r=");
    bool found = memmem(first.ptr, first.len, text.ptr, text.len) != NULL;
    chr_buf_free(&text);
    return found;
}

static void check_scram(chr_slice first, chr_slice final)
{
    struct scram *s;
    const char *fault = NULL;
    chr_slice message;
    chr_err err = scram_new(first, CHR_LIT("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"), &s, &fault);
    if (err) {
        CHR_ASSERT(err == CHR_EINVAL);
        CHR_ASSERT(fault);
        CHR_ASSERT(!s);
        return;
    }
    CHR_ASSERT(name_survives(s, first));
    CHR_ASSERT(scram_challenge(s, &pencil, &message) == CHR_OK);
    CHR_ASSERT(chr_slice_starts(message, CHR_LIT("r=")));
    err = scram_verify(s, final, &message, &fault);
    if (err == CHR_OK) /* the example itself: nobody finds another proof */
        CHR_ASSERT(chr_slice_eq(first, CHR_LIT("n,,n=user,r=rOprNGfwEbeRWgbNEkqO")));
    else
        CHR_ASSERT(fault);
    scram_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 16384)
        return 0;
    if (pencil.iterations == 0) {
        struct chr_errmsg msg;
        CHR_ASSERT(password_parse(CHR_LIT("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
                                          "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
                                          "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="),
                                  &pencil, &msg) == CHR_OK);
    }
    uint8_t *copy = malloc(size); /* ends where its allocation ends */
    CHR_ASSERT(copy);
    memcpy(copy, data + 1, size - 1);
    chr_slice text = chr_slice_of(copy, size - 1);
    switch (data[0] % 3) {
    case 0:
        check_file(text);
        break;
    case 1:
        check_base64(text);
        break;
    default: {
        const uint8_t *zero = text.len ? memchr(text.ptr, 0, text.len) : NULL;
        size_t len = zero ? (size_t)(zero - text.ptr) : text.len;
        chr_slice rest = zero ? chr_slice_of(zero + 1, text.len - len - 1) : CHR_LIT("");
        check_scram(chr_slice_of(text.ptr, len), rest);
    }
    }
    free(copy);
    return 0;
}
