#include "broker/auth/exchange.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/random.h"
#include "broker/auth/internal.h"
#include "broker/auth/scram.h"

struct exchange {
    struct authority *authority;
    struct scram *scram;
    bool known;                           /* there was an entry for the user */
    uint8_t digest[SHA256_DIGEST_LENGTH]; /* of it */
};

void exchange_free(struct exchange *e)
{
    if (!e)
        return;
    scram_free(e->scram);
    free(e);
}

bool exchange_offered(struct authority *authority)
{
    struct auth *auth = auth_now(authority);
    bool offered = auth->users_count > 0;
    auth_unref(auth);
    return offered;
}

/* ---- Entries, and what stands in for one
 * ---------------------------------------------------------
 */

static const struct auth_user *scram_user_of(const struct auth *auth, chr_slice name)
{
    const struct auth_user *u = auth__find(auth, name);
    return u && u->password.kind == PASSWORD_SCRAM_SHA256 ? u : NULL;
}

/* The cost and the salt's length are those of the file's first SCRAM entry, so that one is not told
 * from the other by them. */
static bool make_decoy(const struct auth *auth, chr_slice name, struct password *out)
{
    uint8_t mac[EVP_MAX_MD_SIZE];
    const struct password *model = NULL;
    for (size_t i = 0; i < auth->users_count && !model; i++)
        if (auth->list[i]->password.kind == PASSWORD_SCRAM_SHA256)
            model = &auth->list[i]->password;
    *out = (struct password){
        .kind = PASSWORD_SCRAM_SHA256,
        .iterations = model ? model->iterations : PASSWORD_SCRAM_ITERATIONS,
        .salt_len = model ? model->salt_len : PASSWORD_MADE_SALT_BYTES,
    };
    _Static_assert(PASSWORD_SALT_MAX <= SHA512_DIGEST_LENGTH, "one HMAC makes a salt");
    if (!HMAC(EVP_sha512(), auth->list[0]->digest, sizeof auth->list[0]->digest, name.ptr, name.len,
              mac, NULL))
        return false;
    memcpy(out->salt, mac, out->salt_len);
    chr_random_bytes(out->hash, SCRAM_KEY_BYTES); /* nobody knows what hashes to it */
    chr_random_bytes(out->server_key, SCRAM_KEY_BYTES);
    return true;
}

static chr_err challenge(struct exchange *e, const struct auth *auth, chr_slice *answer)
{
    chr_slice name = scram_user(e->scram);
    const struct auth_user *u = scram_user_of(auth, name);
    struct password decoy;
    if (!make_decoy(auth, name, &decoy)) /* made in any case: the same time for both */
        return CHR_ENOMEM;
    e->known = u != NULL;
    if (u)
        memcpy(e->digest, u->digest, sizeof e->digest);
    chr_err err = scram_challenge(e->scram, u ? &u->password : &decoy, answer);
    password_clear(&decoy);
    return err;
}

/* ---- Both ends ----------------------------------------------------------------------------------
 */

static struct auth_request request_of(const struct exchange *e,
                                      const struct exchange_client *client)
{
    chr_slice user = e && e->scram ? scram_user(e->scram) : CHR_LIT("");
    return (struct auth_request){.has_user = user.len > 0,
                                 .user = user,
                                 .client_id = client->client_id,
                                 .address = client->address,
                                 .surface = "mqtt, SCRAM-SHA-256"};
}

static chr_slice make_nonce(struct chr_buf *text)
{
    uint8_t random[SCRAM_NONCE_BYTES];
    chr_random_bytes(random, sizeof random);
    chr_buf_init(text, 2 * sizeof random);
    auth_base64_encode(chr_slice_of(random, sizeof random), text);
    return chr_buf_slice(text);
}

enum auth_outcome exchange_begin(struct authority *a, const struct exchange_client *client,
                                 chr_slice client_first, struct exchange **out, chr_slice *answer)
{
    *out = NULL;
    struct exchange *e = calloc(1, sizeof *e);
    if (!e)
        return AUTH_NO_MEMORY;
    e->authority = a;
    struct chr_buf nonce;
    const char *fault = NULL;
    chr_slice ours = make_nonce(&nonce);
    chr_err err = nonce.failed ? CHR_ENOMEM : scram_new(client_first, ours, &e->scram, &fault);
    chr_buf_free(&nonce);
    struct auth *auth = auth_now(a);
    struct auth_request request = request_of(e, client);
    enum auth_outcome outcome = AUTH_OK;
    if (err == CHR_ENOMEM)
        outcome = AUTH_NO_MEMORY;
    else if (auth__in_backoff(a, &request))
        outcome = AUTH_BACKOFF;
    else if (err)
        outcome = auth__turn_away(a, &request, fault);
    else if (auth->users_count == 0) /* the file went away meanwhile */
        outcome = auth__turn_away(a, &request, "there are no users");
    else if (challenge(e, auth, answer))
        outcome = AUTH_NO_MEMORY;
    auth_unref(auth);
    if (outcome != AUTH_OK)
        exchange_free(e);
    else
        *out = e;
    return outcome;
}

enum auth_outcome exchange_finish(struct exchange *e, const struct exchange_client *client,
                                  chr_slice client_final, chr_slice *answer,
                                  struct principal **principal)
{
    struct authority *a = e->authority;
    struct auth_request request = request_of(e, client);
    const char *fault = NULL;
    *principal = NULL;
    if (auth__in_backoff(a, &request))
        return AUTH_BACKOFF;
    chr_err err = scram_verify(e->scram, client_final, answer, &fault);
    if (err == CHR_ENOMEM)
        return AUTH_NO_MEMORY;
    struct auth *auth = auth_now(a);
    const struct auth_user *u = scram_user_of(auth, scram_user(e->scram));
    enum auth_outcome outcome;
    if (!e->known)
        outcome = auth__turn_away(
            a, &request,
            auth__find(auth, request.user)
                ? "the user has no SCRAM-SHA-256 entry (chronos passwd -H scram makes one)"
                : "no such user");
    else if (err)
        outcome = auth__turn_away(a, &request, fault);
    else if (!u || memcmp(u->digest, e->digest, sizeof e->digest))
        outcome = auth__turn_away(a, &request, "the password was changed meanwhile");
    else {
        request.auth = auth;
        outcome = auth__let_in(a, &request, request.user, auth__role_of(auth, request.user), NULL,
                               INT64_MAX, auth__how_scram);
        *principal = request.principal;
    }
    auth_unref(auth);
    return outcome;
}
