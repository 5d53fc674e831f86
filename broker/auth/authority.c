/* broker/auth/authority.c: logins. What is quick is decided where it is asked; passwords and
 * signatures go to a few threads of their own (A1), which start with the first one. */
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/random.h"
#include "broker/auth/internal.h"

#define NAMES_FIRST 64u

chr_err authority_new(struct auth *auth, const struct chr_clock *clock, uint32_t backoff_max_s,
                      struct authority **out)
{
    struct authority *a = calloc(1, sizeof *a);
    if (a)
        a->names = calloc(NAMES_FIRST, sizeof *a->names);
    if (!a || !a->names) {
        free(a);
        auth_unref(auth);
        return CHR_ENOMEM;
    }
    a->clock = clock;
    a->now = auth;
    a->names_mask = NAMES_FIRST - 1;
    a->backoff.max_us = (int64_t)backoff_max_s * 1000000;
    pthread_mutex_init(&a->lock, NULL);
    pthread_mutex_init(&a->names_lock, NULL);
    pthread_mutex_init(&a->audit_lock, NULL);
    pthread_cond_init(&a->work, NULL);
    uint8_t random[32];
    chr_random_bytes(random, sizeof random);
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(a->own_token + 2 * i, 3, "%02x", random[i]);
    *out = a;
    return CHR_OK;
}

void authority_free(struct authority *a)
{
    if (!a)
        return;
    CHR_ASSERT(a->threads_count == 0);
    CHR_ASSERT(atomic_load(&a->principals) == 0);
    auth_unref(a->now);
    pthread_mutex_destroy(&a->lock);
    pthread_mutex_destroy(&a->names_lock);
    pthread_mutex_destroy(&a->audit_lock);
    pthread_cond_destroy(&a->work);
    free((void *)a->names);
    free(a);
}

struct auth *auth_now(struct authority *a)
{
    pthread_mutex_lock(&a->lock);
    struct auth *auth = a->now;
    auth_ref(auth);
    pthread_mutex_unlock(&a->lock);
    return auth;
}

bool auth_is_now(struct authority *a, const struct auth *auth)
{
    pthread_mutex_lock(&a->lock);
    bool is = a->now == auth;
    pthread_mutex_unlock(&a->lock);
    return is;
}

void authority_own_token(const struct authority *a, char out[AUTH_OWN_TOKEN_BYTES])
{
    memcpy(out, a->own_token, AUTH_OWN_TOKEN_BYTES);
}

void auth_swap(struct authority *a, struct auth *auth)
{
    pthread_mutex_lock(&a->lock);
    struct auth *old = a->now;
    a->now = auth;
    pthread_mutex_unlock(&a->lock);
    auth_unref(old);
}

void authority_stats(struct authority *a, struct auth_stats *out)
{
    *out = (struct auth_stats){
        .logins = atomic_load(&a->logins),
        .failures = atomic_load(&a->failures),
        .backoffs = atomic_load(&a->backoffs),
        .refused_busy = atomic_load(&a->refused_busy),
        .denials = atomic_load(&a->denials),
        .denials_unlogged = atomic_load(&a->denials_unlogged),
    };
    pthread_mutex_lock(&a->lock);
    out->waiting = a->waiting;
    pthread_mutex_unlock(&a->lock);
}

/* ---- Outcomes -----------------------------------------------------------------------------------
 */

enum auth_outcome auth__let_in(struct authority *a, struct auth_request *r, chr_slice user,
                               enum db_role role, struct acl_list *claims, int64_t expires_us,
                               const char *how)
{
    r->principal = principal__new(a, r->auth, user, r->client_id, role, claims, expires_us, how);
    if (!r->principal)
        return AUTH_NO_MEMORY;
    atomic_fetch_add(&a->logins, 1);
    /* Beside a token any name may stand: it was not proven. */
    bool proven = r->has_user && chr_slice_eq(r->user, user);
    pthread_mutex_lock(&a->lock);
    backoff_succeeded(&a->backoff, r->address, proven ? user : CHR_LIT(""));
    pthread_mutex_unlock(&a->lock);
    return AUTH_OK;
}

enum auth_outcome auth__turn_away(struct authority *a, struct auth_request *r, const char *why)
{
    atomic_fetch_add(&a->failures, 1);
    pthread_mutex_lock(&a->lock);
    backoff_failed(&a->backoff, r->address, r->has_user ? r->user : CHR_LIT(""),
                   chr_clock_mono_us(a->clock));
    pthread_mutex_unlock(&a->lock);
    chr_log_notice("auth", "login refused", CHR_KV_C("surface", r->surface),
                   CHR_KV_S("user", r->user), CHR_KV_S("client", r->client_id),
                   CHR_KV_C("address", r->address), CHR_KV_C("reason", why));
    return AUTH_REFUSED;
}

bool auth__in_backoff(struct authority *a, const struct auth_request *r)
{
    pthread_mutex_lock(&a->lock);
    int64_t wait_us = backoff_left(&a->backoff, r->address, r->has_user ? r->user : CHR_LIT(""),
                                   chr_clock_mono_us(a->clock));
    pthread_mutex_unlock(&a->lock);
    if (wait_us)
        atomic_fetch_add(&a->backoffs, 1);
    return wait_us > 0;
}

static enum auth_outcome check_token(struct authority *a, struct auth_request *r)
{
    static const struct {
        enum db_role role;
        const char *how;
        const char *user;
    } tokens[TOKENS] = {
        {DB_ROLE_ADMIN, auth__how_token_admin, "token:admin"},
        {DB_ROLE_READONLY, auth__how_token_readonly, "token:readonly"},
    };
    uint8_t digest[SHA256_DIGEST_LENGTH];
    if (r->password.len == AUTH_OWN_TOKEN_BYTES - 1 &&
        CRYPTO_memcmp(r->password.ptr, a->own_token, r->password.len) == 0)
        return auth__let_in(a, r, CHR_LIT("chronos:prompt"), DB_ROLE_ADMIN, NULL, INT64_MAX,
                            auth__how_own);
    if (!r->auth->tokens[TOKEN_ADMIN].set && !r->auth->tokens[TOKEN_READONLY].set)
        return AUTH_REFUSED;
    SHA256(r->password.ptr, r->password.len, digest);
    int found = -1;
    for (int i = TOKENS - 1; i >= 0; i--) /* both, always (A3) */
        if (r->auth->tokens[i].set &&
            CRYPTO_memcmp(digest, r->auth->tokens[i].digest, sizeof digest) == 0)
            found = i;
    if (found < 0)
        return AUTH_REFUSED;
    /* A name with a colon can't be in a password file. */
    return auth__let_in(a, r, chr_slice_cstr(tokens[found].user), tokens[found].role, NULL,
                        INT64_MAX, tokens[found].how);
}

/* ---- Workers ------------------------------------------------------------------------------------
 */

static enum auth_outcome verify_jwt(struct authority *a, struct auth_request *r)
{
    struct jwt_claims claims;
    const char *fault =
        jwt_verify(r->auth->jwt, r->password, chr_clock_wall_us(a->clock) / 1000000, &claims);
    if (fault)
        return auth__turn_away(a, r, fault);
    chr_slice user = chr_slice_of(claims.user, claims.user_len);
    enum auth_outcome outcome =
        auth__let_in(a, r, user, claims.has_role ? claims.role : auth__role_of(r->auth, user),
                     claims.topics, (claims.expires_s + JWT_LEEWAY_S) * 1000000, auth__how_jwt);
    jwt_claims_clear(&claims);
    return outcome;
}

static enum auth_outcome verify_password(struct authority *a, struct auth_request *r)
{
    const struct auth_user *user = auth__find(r->auth, r->user);
    const struct auth_user *compared = user;
    if (!user) { /* A2 */
        uint64_t hash = chr_hash_slice(r->user, chr_hash_seed());
        compared = r->auth->list[hash % r->auth->users_count];
    }
    bool same = password_verify(&compared->password, r->password);
    if (!user || !same)
        return auth__turn_away(a, r, user ? "wrong password" : "no such user");
    return auth__let_in(a, r, r->user, auth__role_of(r->auth, r->user), NULL, INT64_MAX,
                        auth__how_password);
}

static bool is_jwt(const struct auth_request *r)
{
    return r->auth->jwt && jwt_looks_like(r->password);
}

static void finish(struct auth_request *r, enum auth_outcome outcome)
{
    auth_unref(r->auth);
    r->auth = NULL;
    r->outcome = outcome;
    r->done(r);
}

/* Caller locks. By how much the count of those who wait changes. */
static void count_waiting(struct authority *a, const struct auth_request *r, int by)
{
    a->waiting = (uint32_t)((int)a->waiting + by);
    uint16_t *address = &a->waiting_of_address[r->address_slot];
    uint16_t *user = &a->waiting_of_user[r->user_slot];
    *address = (uint16_t)(*address + by);
    *user = (uint16_t)(*user + by);
}

/* What was asked a while ago: nobody may wait for it any more, and those before it may have shown
 * that it has to wait. */
static enum auth_outcome verify(struct authority *a, struct auth_request *r)
{
    if (atomic_load_explicit(&r->abandoned, memory_order_relaxed))
        return AUTH_REFUSED;
    if (auth__in_backoff(a, r))
        return AUTH_BACKOFF;
    return is_jwt(r) ? verify_jwt(a, r) : verify_password(a, r);
}

static void *worker_main(void *arg)
{
    struct authority *a = arg;
    pthread_setname_np(pthread_self(), "auth");
    pthread_mutex_lock(&a->lock);
    while (!a->stopping) {
        struct auth_request *r = a->first;
        if (!r) {
            a->idle++;
            pthread_cond_wait(&a->work, &a->lock);
            a->idle--;
            continue;
        }
        a->first = r->next;
        if (!a->first)
            a->last = NULL;
        count_waiting(a, r, -1);
        pthread_mutex_unlock(&a->lock);
        finish(r, verify(a, r));
        pthread_mutex_lock(&a->lock);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

static enum auth_outcome enqueue(struct authority *a, struct auth_request *r)
{
    enum auth_outcome outcome = AUTH_PENDING;
    r->address_slot = (uint16_t)((backoff_address(r->address) >> 1) % AUTH_QUEUE_MAX);
    r->user_slot =
        (uint16_t)((backoff_user(r->has_user ? r->user : CHR_LIT("")) >> 1) % AUTH_QUEUE_MAX);
    pthread_mutex_lock(&a->lock);
    if (a->stopping) {
        outcome = AUTH_STOPPING;
    } else if (a->waiting >= AUTH_QUEUE_MAX ||
               a->waiting_of_address[r->address_slot] >= AUTH_QUEUE_SHARE ||
               a->waiting_of_user[r->user_slot] >= AUTH_QUEUE_SHARE) {
        outcome = AUTH_BUSY;
    } else {
        if (!a->idle && a->threads_count < AUTH_THREADS &&
            pthread_create(&a->threads[a->threads_count], NULL, worker_main, a) == 0)
            a->threads_count++;
        if (a->threads_count == 0)
            outcome = AUTH_NO_MEMORY;
    }
    if (outcome == AUTH_PENDING) {
        r->next = NULL;
        if (a->last)
            a->last->next = r;
        else
            a->first = r;
        a->last = r;
        count_waiting(a, r, 1);
        pthread_cond_signal(&a->work);
    }
    pthread_mutex_unlock(&a->lock);
    if (outcome == AUTH_BUSY)
        atomic_fetch_add(&a->refused_busy, 1);
    return outcome;
}

void authority_stop(struct authority *a)
{
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    a->stopping = true;
    struct auth_request *r = a->first;
    a->first = a->last = NULL;
    a->waiting = 0;
    memset(a->waiting_of_address, 0, sizeof a->waiting_of_address);
    memset(a->waiting_of_user, 0, sizeof a->waiting_of_user);
    pthread_cond_broadcast(&a->work);
    uint32_t threads = a->threads_count;
    pthread_mutex_unlock(&a->lock);
    while (r) {
        struct auth_request *next = r->next;
        finish(r, AUTH_STOPPING);
        r = next;
    }
    for (uint32_t i = 0; i < threads; i++)
        pthread_join(a->threads[i], NULL);
    a->threads_count = 0;
}

/* ---- Asking -------------------------------------------------------------------------------------
 */

/* With r->auth held. AUTH_PENDING: it is in the queue and may be gone already. */
static enum auth_outcome decide(struct authority *a, struct auth_request *r)
{
    const struct auth *auth = r->auth;
    bool anonymous = r->allow_anonymous;
    /* Without anything to compare with, a name is as good as none. */
    bool can_compare = auth->users_count || auth->jwt || auth->tokens[TOKEN_ADMIN].set ||
                       auth->tokens[TOKEN_READONLY].set;
    if ((!r->has_user && !r->has_password) || (anonymous && !can_compare)) {
        if (!anonymous)
            return AUTH_ANONYMOUS;
        r->principal = principal__new(a, r->auth, CHR_LIT(""), r->client_id, auth->anonymous_role,
                                      NULL, INT64_MAX, auth__how_anonymous);
        return r->principal ? AUTH_OK : AUTH_NO_MEMORY;
    }
    if (auth__in_backoff(a, r))
        return AUTH_BACKOFF;
    if (!r->has_password || r->password.len > AUTH_PASSWORD_BYTES_MAX)
        return auth__turn_away(a, r, "no password");
    enum auth_outcome outcome = check_token(a, r);
    if (outcome != AUTH_REFUSED)
        return outcome;
    if (!is_jwt(r) && (!auth->users_count || !r->has_user || r->user.len == 0 ||
                       r->user.len > AUTH_USER_BYTES_MAX))
        return auth__turn_away(a, r, auth->users_count ? "no such user or token" : "no such token");
    return enqueue(a, r);
}

enum auth_outcome auth_check(struct authority *a, struct auth_request *r)
{
    struct auth *auth = auth_now(a);
    r->auth = auth;
    r->principal = NULL;
    auth_ref(auth); /* ours: the request may be gone when decide() returns */
    enum auth_outcome outcome = decide(a, r);
    if (outcome != AUTH_PENDING) {
        r->auth = NULL;
        r->outcome = outcome;
        auth_unref(auth);
    }
    auth_unref(auth);
    return outcome;
}
