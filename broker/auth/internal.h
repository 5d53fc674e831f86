/* broker/auth/internal.h: what the files of auth/ share. */
#ifndef CHR_BROKER_AUTH_INTERNAL_H
#define CHR_BROKER_AUTH_INTERNAL_H

#include <openssl/sha.h>
#include <pthread.h>

#include "broker/auth/auth.h"
#include "broker/auth/backoff.h"
#include "broker/auth/jwt.h"
#include "broker/auth/password.h"

struct auth_user {
    struct auth_user *next; /* of the bucket */
    uint64_t hash;
    struct password password;
    uint8_t digest[SHA256_DIGEST_LENGTH]; /* of the password's text: has it changed? */
    uint32_t name_len;
    uint8_t name[];
};

struct auth_token {
    bool set;
    uint8_t digest[SHA256_DIGEST_LENGTH];
};
enum { TOKEN_ADMIN, TOKEN_READONLY, TOKENS };

struct auth {
    _Atomic uint32_t refs;
    struct auth_user **buckets;
    size_t mask, users_count;
    struct auth_user **list; /* [users_count]: decoys (A2) */
    struct acl *acl;         /* NULL: no file */
    struct jwt_keys *jwt;    /* NULL: none */
    struct auth_token tokens[TOKENS];
    const struct auth_role_setting *roles; /* owned copies */
    enum db_role default_role, anonymous_role;
    bool allow_anonymous;
    bool restricts; /* auth_has_users */
};

struct auth_name {
    struct auth_name *next; /* of the bucket */
    uint64_t hash;
    uint32_t refs; /* under names_lock */
    uint32_t number;
    uint32_t len;
    uint8_t bytes[];
};

struct authority {
    const struct chr_clock *clock;
    pthread_mutex_t lock; /* now, queue, back-off */
    pthread_cond_t work;
    struct auth *now;
    struct auth_request *first, *last;
    uint32_t waiting, idle, threads_count;
    /* Of those who wait, by hash of address (IPv6: /64) and of user; two may share a count. */
    uint16_t waiting_of_address[AUTH_QUEUE_MAX], waiting_of_user[AUTH_QUEUE_MAX];
    pthread_t threads[AUTH_THREADS];
    bool stopping;
    struct backoff backoff;
    char own_token[AUTH_OWN_TOKEN_BYTES];

    pthread_mutex_t names_lock;
    struct auth_name **names; /* buckets */
    size_t names_mask, names_count;
    uint32_t next_number;
    _Atomic uint64_t next_acl_key;
    _Atomic uint32_t principals;

    pthread_mutex_t audit_lock;
    int64_t audit_second;
    uint32_t audit_lines;
    uint64_t audit_skipped; /* since the last line */

    _Atomic uint64_t logins, failures, backoffs, refused_busy, denials, denials_unlogged;
};

const struct auth_user *auth__find(const struct auth *auth, chr_slice name);
enum db_role auth__role_of(const struct auth *auth, chr_slice name);
/* What a principal is made of. user empty: anonymous. claims: a reference is added. NULL: no
 * memory. */
struct principal *principal__new(struct authority *a, struct auth *auth, chr_slice user,
                                 chr_slice client_id, enum db_role role, struct acl_list *claims,
                                 int64_t expires_us, const char *how);
/* The ends of a login (authority.c): r->auth is held; user, address, … of r are for back-off and
 * logs. AUTH_OK, AUTH_NO_MEMORY */
enum auth_outcome auth__let_in(struct authority *a, struct auth_request *r, chr_slice user,
                               enum db_role role, struct acl_list *claims, int64_t expires_us,
                               const char *how);
/* AUTH_REFUSED. why: static, for the log */
enum auth_outcome auth__turn_away(struct authority *a, struct auth_request *r, const char *why);
/* Has it to wait? Then that was counted. */
bool auth__in_backoff(struct authority *a, const struct auth_request *r);
extern const char auth__how_anonymous[], auth__how_password[], auth__how_jwt[],
    auth__how_token_admin[], auth__how_token_readonly[], auth__how_own[], auth__how_scram[];

#endif
