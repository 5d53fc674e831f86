/* broker/auth/principal.c: one user as one client, and what it may do. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "broker/auth/internal.h"
#include "proto/mqtt/topic.h"

const char auth__how_anonymous[] = "anonymous", auth__how_password[] = "password",
           auth__how_jwt[] = "jwt", auth__how_token_admin[] = "admin token",
           auth__how_token_readonly[] = "readonly token", auth__how_own[] = "own prompt",
           auth_how_certificate[] = "certificate", auth__how_scram[] = "SCRAM-SHA-256";

/* ---- Numbers of names ---------------------------------------------------------------------------
 */

static void grow_names(struct authority *a)
{
    size_t count = (a->names_mask + 1) * 2;
    struct auth_name **buckets = calloc(count, sizeof *buckets);
    if (!buckets)
        return;
    for (size_t i = 0; i <= a->names_mask; i++)
        while (a->names[i]) {
            struct auth_name *n = a->names[i];
            a->names[i] = n->next;
            n->next = buckets[n->hash & (count - 1)];
            buckets[n->hash & (count - 1)] = n;
        }
    free((void *)a->names);
    a->names = buckets;
    a->names_mask = count - 1;
}

/* A number stays with a name while anybody bears it, and is never given to another. */
static struct auth_name *name_take(struct authority *a, chr_slice name)
{
    uint64_t hash = chr_hash_slice(name, chr_hash_seed());
    pthread_mutex_lock(&a->names_lock);
    struct auth_name *n = a->names[hash & a->names_mask];
    while (n && (n->hash != hash || !chr_slice_eq(chr_slice_of(n->bytes, n->len), name)))
        n = n->next;
    if (!n && (n = malloc(sizeof *n + name.len))) {
        if (a->names_count++ > a->names_mask)
            grow_names(a);
        *n = (struct auth_name){.hash = hash, .number = name.len ? ++a->next_number : 0};
        CHR_ASSERT(a->next_number < UINT32_MAX);
        n->len = (uint32_t)name.len;
        if (name.len)
            memcpy(n->bytes, name.ptr, name.len);
        n->next = a->names[hash & a->names_mask];
        a->names[hash & a->names_mask] = n;
    }
    if (n)
        n->refs++;
    pthread_mutex_unlock(&a->names_lock);
    return n;
}

static void name_drop(struct authority *a, struct auth_name *name)
{
    pthread_mutex_lock(&a->names_lock);
    if (--name->refs == 0) {
        struct auth_name **at = &a->names[name->hash & a->names_mask];
        while (*at != name)
            at = &(*at)->next;
        *at = name->next;
        a->names_count--;
        free(name);
    }
    pthread_mutex_unlock(&a->names_lock);
}

/* ---- Lives --------------------------------------------------------------------------------------
 */

struct principal *principal__new(struct authority *a, struct auth *auth, chr_slice user,
                                 chr_slice client_id, enum db_role role, struct acl_list *claims,
                                 int64_t expires_us, const char *how)
{
    struct principal *p = calloc(1, sizeof *p + client_id.len);
    struct auth_name *name = p ? name_take(a, user) : NULL;
    if (!name) {
        free(p);
        return NULL;
    }
    atomic_init(&p->refs, 1);
    p->number = name->number;
    p->role = role;
    p->expires_us = expires_us;
    p->name = name;
    p->user = chr_slice_of(name->bytes, name->len);
    if (client_id.len)
        memcpy(p->client_bytes, client_id.ptr, client_id.len);
    p->client_id = chr_slice_of(p->client_bytes, client_id.len);
    p->auth = auth;
    auth_ref(auth);
    p->authority = a;
    p->how = how;
    p->claims = claims;
    if (claims)
        acl_list_ref(claims);
    bool free_to = role == DB_ROLE_ADMIN || (role == DB_ROLE_READWRITE && !auth->acl && !claims);
    if (!free_to)
        p->acl_key = atomic_fetch_add_explicit(&a->next_acl_key, 1, memory_order_relaxed) + 1;
    atomic_fetch_add_explicit(&a->principals, 1, memory_order_relaxed);
    return p;
}

void principal_ref(struct principal *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
}

void principal_unref(struct principal *p)
{
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    name_drop(p->authority, p->name);
    atomic_fetch_sub_explicit(&p->authority->principals, 1, memory_order_relaxed);
    auth_unref(p->auth);
    acl_list_unref(p->claims);
    free(p);
}

struct principal *auth_trusted(struct authority *a, chr_slice user, chr_slice client_id,
                               const char *how)
{
    struct auth *auth = auth_now(a);
    struct principal *p =
        principal__new(a, auth, user, client_id, auth__role_of(auth, user), NULL, INT64_MAX, how);
    auth_unref(auth);
    return p;
}

/* May whoever was let in under `old` stay? *role: under the files of now. */
static bool still_welcome(const struct principal *old, const struct auth *now, enum db_role *role)
{
    if (old->how == auth__how_anonymous) {
        *role = now->anonymous_role; /* whether they may come in is the listener's to say */
        return true;
    }
    if (old->how == auth_how_certificate) {
        *role = auth__role_of(now, old->user); /* its password, if it has one, is not asked for */
        return true;
    }
    if (old->how == auth__how_own) {
        *role = old->role;
        return true;
    }
    if (old->how == auth__how_token_admin || old->how == auth__how_token_readonly) {
        unsigned i = old->how == auth__how_token_admin ? TOKEN_ADMIN : TOKEN_READONLY;
        *role = old->role;
        return now->tokens[i].set && memcmp(now->tokens[i].digest, old->auth->tokens[i].digest,
                                            SHA256_DIGEST_LENGTH) == 0;
    }
    *role = auth__role_of(now, old->user);
    if (old->how == auth__how_jwt) {
        *role = old->role; /* the token's, or what the settings said when it came */
        return jwt_keys_same(old->auth->jwt, now->jwt);
    }
    const struct auth_user *before = auth__find(old->auth, old->user);
    if (!before)
        return true; /* a certificate's: the listener's business */
    const struct auth_user *after = auth__find(now, old->user);
    return after && memcmp(before->digest, after->digest, sizeof after->digest) == 0;
}

struct principal *principal_as(struct principal *p, chr_slice client_id)
{
    return principal__new(p->authority, p->auth, p->user, client_id, p->role, p->claims,
                          p->expires_us, p->how);
}

struct principal *principal_renew(struct principal *old, bool *gone)
{
    struct authority *a = old->authority;
    struct auth *auth = auth_now(a);
    enum db_role role;
    struct principal *p = NULL;
    *gone = !still_welcome(old, auth, &role);
    if (!*gone)
        p = principal__new(a, auth, old->user, old->client_id, role, old->claims, old->expires_us,
                           old->how);
    auth_unref(auth);
    return p;
}

/* ---- What it may do -----------------------------------------------------------------------------
 */

static void tell(struct acl_reason *why, const char *text)
{
    if (why)
        *why = (struct acl_reason){0, text};
}

bool principal_may_publish(const struct principal *p, chr_slice topic, struct acl_reason *why)
{
    if (principal_is_free(p))
        return true;
    if (p->role == DB_ROLE_READONLY) {
        tell(why, "the role readonly does not publish");
        return false;
    }
    struct acl_subject subject = {p->user, p->client_id};
    if (p->claims)
        return acl_list_allows(p->claims, &subject, ACL_WRITE, topic, why);
    return !p->auth->acl || acl_allows(p->auth->acl, &subject, ACL_WRITE, topic, why);
}

static bool under(chr_slice topic, chr_slice prefix)
{
    return chr_slice_starts(topic, prefix) &&
           (topic.len == prefix.len || topic.ptr[prefix.len] == '/');
}

/* Answers are told apart by user (R1), not by rules. */
static bool is_result(chr_slice topic)
{
    return chr_slice_starts(topic, CHR_LIT("$chronos/result/"));
}

/* Rejects hold other people's payloads: without rules they are not for devices. */
static bool may_without_rules(const struct principal *p, chr_slice topic, struct acl_reason *why)
{
    if (p->role != DB_ROLE_DEVICE || !under(topic, CHR_LIT("$chronos/reject")))
        return true;
    tell(why, "the role device does not read rejects");
    return false;
}

bool principal_may_read(const struct principal *p, chr_slice topic, struct acl_reason *why)
{
    if (principal_is_free(p) || is_result(topic))
        return true;
    struct acl_subject subject = {p->user, p->client_id};
    if (p->claims)
        return acl_list_allows(p->claims, &subject, ACL_READ, topic, why);
    if (p->auth->acl)
        return acl_allows(p->auth->acl, &subject, ACL_READ, topic, why);
    return may_without_rules(p, topic, why);
}

bool principal_may_subscribe(const struct principal *p, chr_slice filter, bool shared,
                             struct acl_reason *why)
{
    if (principal_is_free(p) || is_result(filter))
        return true;
    struct acl_subject subject = {p->user, p->client_id};
    if (p->claims)
        return acl_list_allows_filter(p->claims, &subject, filter, shared, why);
    if (p->auth->acl)
        return acl_allows_filter(p->auth->acl, &subject, filter, shared, why);
    return may_without_rules(p, filter, why);
}
