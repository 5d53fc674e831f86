/* broker/auth/auth.c: from settings and files to what is known about users. */
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "broker/auth/internal.h"
#include "broker/auth/password_file.h"

const struct auth_user *auth__find(const struct auth *auth, chr_slice name)
{
    uint64_t hash = chr_hash_slice(name, chr_hash_seed());
    const struct auth_user *u = auth->users_count ? auth->buckets[hash & auth->mask] : NULL;
    while (u && (u->hash != hash || !chr_slice_eq(chr_slice_of(u->name, u->name_len), name)))
        u = u->next;
    return u;
}

enum db_role auth__role_of(const struct auth *auth, chr_slice name)
{
    for (const struct auth_role_setting *r = auth->roles; r; r = r->next)
        if (chr_slice_eq(chr_slice_cstr(r->name), name))
            return r->role;
    return auth->default_role;
}

/* ---- Passwords ----------------------------------------------------------------------------------
 */

struct loading {
    struct auth *auth;
    const char *path;
    struct chr_errmsg *msg;
    size_t list_max;
};

static chr_err add_user(void *arg, chr_slice name, chr_slice hash, uint32_t line)
{
    struct loading *l = arg;
    struct auth *auth = l->auth;
    struct chr_errmsg why = {{0}};
    if (auth__find(auth, name))
        return chr_fail(l->msg, CHR_EINVAL, "%s:%u: user \"%.*s\" is there twice", l->path, line,
                        (int)CHR_MIN(name.len, (size_t)64), (const char *)name.ptr);
    if (auth->users_count == l->list_max) {
        size_t max = l->list_max ? l->list_max * 2 : 64;
        struct auth_user **bigger = realloc((void *)auth->list, max * sizeof *bigger);
        struct auth_user **buckets = calloc(max, sizeof *buckets);
        if (bigger)
            auth->list = bigger;
        if (!bigger || !buckets) {
            free((void *)buckets);
            return chr_fail(l->msg, CHR_ENOMEM, "%s: out of memory", l->path);
        }
        l->list_max = max;
        free((void *)auth->buckets);
        auth->buckets = buckets;
        auth->mask = max - 1;
        for (size_t i = 0; i < auth->users_count; i++) {
            struct auth_user **at = &buckets[auth->list[i]->hash & auth->mask];
            auth->list[i]->next = *at;
            *at = auth->list[i];
        }
    }
    struct auth_user *u = calloc(1, sizeof *u + name.len);
    if (!u)
        return chr_fail(l->msg, CHR_ENOMEM, "%s: out of memory", l->path);
    chr_err err = password_parse(hash, &u->password, &why);
    if (err) {
        free(u);
        return chr_fail(l->msg, err, "%s:%u: user \"%.*s\": %s", l->path, line,
                        (int)CHR_MIN(name.len, (size_t)64), (const char *)name.ptr, why.text);
    }
    SHA256(hash.ptr, hash.len, u->digest);
    u->name_len = (uint32_t)name.len;
    memcpy(u->name, name.ptr, name.len);
    u->hash = chr_hash_slice(name, chr_hash_seed());
    u->next = auth->buckets[u->hash & auth->mask];
    auth->buckets[u->hash & auth->mask] = u;
    auth->list[auth->users_count++] = u;
    return CHR_OK;
}

static chr_err load_passwords(struct auth *auth, const char *path, struct chr_errmsg *msg)
{
    struct chr_buf text;
    chr_err err = auth_read_file(path, PASSWORD_FILE_BYTES_MAX, &text, msg);
    if (err)
        return err;
    struct loading l = {.auth = auth, .path = path, .msg = msg};
    err = password_file_each(chr_buf_slice(&text), path, add_user, &l, msg);
    if (text.ptr)
        OPENSSL_cleanse(text.ptr, text.len);
    chr_buf_free(&text);
    return err;
}

static chr_err load_acl(struct auth *auth, const char *path, struct chr_errmsg *msg)
{
    struct chr_buf text;
    chr_err err = auth_read_file(path, ACL_FILE_BYTES_MAX, &text, msg);
    if (err)
        return err;
    err = acl_parse(chr_buf_slice(&text), path, &auth->acl, msg);
    chr_buf_free(&text);
    return err;
}

static chr_err set_token(struct auth *auth, unsigned i, const char *text, const char *name,
                         struct chr_errmsg *msg)
{
    if (!text)
        return CHR_OK;
    if (strlen(text) < 16)
        return chr_fail(msg, CHR_EINVAL, "%s is shorter than 16 characters", name);
    auth->tokens[i].set = true;
    SHA256((const uint8_t *)text, strlen(text), auth->tokens[i].digest);
    return CHR_OK;
}

static chr_err copy_roles(struct auth *auth, const struct auth_role_setting *from,
                          struct chr_errmsg *msg)
{
    for (; from; from = from->next) {
        struct auth_role_setting *r = malloc(sizeof *r);
        char *name = r ? chr_slice_dup_cstr(chr_slice_cstr(from->name)) : NULL;
        if (!name) {
            free(r);
            return chr_fail(msg, CHR_ENOMEM, "out of memory");
        }
        *r = (struct auth_role_setting){.name = name, .role = from->role, .next = auth->roles};
        auth->roles = r;
    }
    return CHR_OK;
}

/* ---- All of it ----------------------------------------------------------------------------------
 */

chr_err auth_load(const struct broker_config *config, struct auth **out, struct chr_errmsg *msg)
{
    *out = NULL;
    struct auth *auth = calloc(1, sizeof *auth);
    if (!auth)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    atomic_init(&auth->refs, 1);
    chr_err err = CHR_OK;
    if (config->password_file)
        err = load_passwords(auth, config->password_file, msg);
    if (!err && config->acl_file)
        err = load_acl(auth, config->acl_file, msg);
    if (!err)
        err = set_token(auth, TOKEN_ADMIN, config->auth_token_admin, "auth_token_admin", msg);
    if (!err)
        err = set_token(auth, TOKEN_READONLY, config->auth_token_readonly, "auth_token_readonly",
                        msg);
    struct jwt_settings jwt = {config->jwt_secret_file, config->jwt_public_key_file,
                               config->jwt_issuer, config->jwt_audience};
    if (!err)
        err = jwt_keys_load(&jwt, &auth->jwt, msg);
    if (!err)
        err = copy_roles(auth, config->user_roles, msg);
    if (err) {
        auth_unref(auth);
        return err;
    }
    auth->allow_anonymous = config->allow_anonymous;
    auth->default_role = config->default_role;
    auth->restricts = config->password_file || config->acl_file || config->auth_token_admin ||
                      config->auth_token_readonly || auth->jwt;
    auth->anonymous_role = config->anonymous_role != DB_ROLES_END
                               ? (enum db_role)config->anonymous_role
                           : auth->restricts ? DB_ROLE_DEVICE
                                             : DB_ROLE_ADMIN;
    *out = auth;
    return CHR_OK;
}

void auth_ref(struct auth *auth)
{
    atomic_fetch_add_explicit(&auth->refs, 1, memory_order_relaxed);
}

void auth_unref(struct auth *auth)
{
    if (!auth || atomic_fetch_sub_explicit(&auth->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < auth->users_count; i++) {
        password_clear(&auth->list[i]->password);
        free(auth->list[i]);
    }
    free((void *)auth->list);
    free((void *)auth->buckets);
    acl_free(auth->acl);
    jwt_keys_free(auth->jwt);
    while (auth->roles) {
        const struct auth_role_setting *first = auth->roles;
        auth->roles = first->next;
        free((void *)(uintptr_t)first->name);
        free((void *)(uintptr_t)first);
    }
    OPENSSL_cleanse(auth->tokens, sizeof auth->tokens);
    free(auth);
}

bool auth_has_users(const struct auth *auth)
{
    return auth->restricts;
}

bool auth_allows_anonymous(const struct auth *auth)
{
    return auth->allow_anonymous;
}
