/* broker/auth/auth.h: who is asking, and what that user may do.
 *
 *     settings, files ──auth_load──▶ struct auth (immutable) ──auth_swap──▶ authority: the one of
 * now │ CONNECT, HTTP request ──auth_check──▶ worker verifies the password ──▶ struct principal │
 *     publish, subscribe, deliver, SQL ──principal_may…──▶ yes or no ◀──────────┘
 *
 * A `struct auth` is what the files say: users with their password hashes and roles, ACLs, tokens,
 * keys. It never changes and is reference-counted; reading the files again makes a new one, and
 * auth_swap puts it in the place of the old. Connections that are open keep a principal of the old
 * one until the session layer has made them a new one (principal_renew), in their next turn.
 *
 * A principal is one user as one client id: its number, its role, its rules. It is immutable but
 * for its reference count, so any thread may ask it anything.
 *
 * A1  Hashes are made to be slow, so they are verified on the authority's own threads, never on a
 *     loop, with at most AUTH_QUEUE_MAX waiting. A2  A name that nobody has costs what somebody's
 *     does: the password is compared with another user's hash, and the answer is no in any case.
 * A3  Secrets are compared in constant time and wiped from memory after use. A4  Every
 *     principal with rules has an acl_key of its own, so that a verdict may be remembered beside
 *     it; the key 0 means "may publish and read everything", and costs a comparison. */
#ifndef CHR_BROKER_AUTH_AUTH_H
#define CHR_BROKER_AUTH_AUTH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/slice.h"
#include "broker/auth/acl.h"
#include "broker/config.h"
#include "db/grant.h"

#define AUTH_QUEUE_MAX          4096u /* passwords waiting to be verified */
#define AUTH_QUEUE_SHARE        1024u /* of those, of one address or with one user name */
#define AUTH_THREADS            2u
#define AUTH_USER_BYTES_MAX     1024u
#define AUTH_PASSWORD_BYTES_MAX 65535u

/* -- What the files say
 * --------------------------------------------------------------------------*/

struct auth; /* opaque */

/* Reads everything the settings name. config is borrowed until return. The message names file and
 * line. CHR_EINVAL, CHR_EIO, CHR_ENOMEM */
CHR_MUST_USE chr_err auth_load(const struct broker_config *config, struct auth **out,
                               struct chr_errmsg *msg);
void auth_ref(struct auth *auth);
void auth_unref(struct auth *auth); /* accepts NULL */
/* Does anything tell users apart? Without passwords, tokens, keys and ACLs everybody who is let in
 * is an admin: that is a node on a loopback address, or one whose operator said so. */
bool auth_has_users(const struct auth *auth);
bool auth_allows_anonymous(const struct auth *auth);

/* NULL: a certificate may say that this is the user. Else what is wrong with the name: it is one of
 * those that tokens and the node itself have, or none at all. A colon is no fault: devices have
 * their MAC address as a name. */
const char *auth_trusted_name_fault(chr_slice name);

/* -- A user as one client
 * -------------------------------------------------------------------------*/

struct auth_name; /* a user's name and number */

struct principal {
    _Atomic uint32_t refs;
    uint32_t number; /* of the user; the same name has the same one; 0: anonymous (R1) */
    enum db_role role;
    uint64_t acl_key;    /* A4; moves with every principal that is made */
    int64_t expires_us;  /* wall clock: a token's end; INT64_MAX: none */
    chr_slice user;      /* "" anonymous; points into name */
    chr_slice client_id; /* "" over HTTP */
    struct auth *auth;   /* the files it was made from; a reference */
    struct auth_name *name;
    struct authority *authority;
    struct acl_list *claims; /* topics of a token: they stand for the ACL file; NULL: none */
    const char *how;         /* "password", "token", "jwt", …: for logs */
    uint8_t client_bytes[];
};

void principal_ref(struct principal *p);
void principal_unref(struct principal *p); /* accepts NULL */

/* May it? topic: a valid name. why: out, for the audit log; may be NULL. Any thread. */
bool principal_may_publish(const struct principal *p, chr_slice topic, struct acl_reason *why);
bool principal_may_read(const struct principal *p, chr_slice topic, struct acl_reason *why);
/* A filter without `$share/…/`: could anything that it matches be read? What is delivered is
 * checked topic by topic. shared: may all of it? A member of a group that may not read a message it
 * is given would take it from the others. */
bool principal_may_subscribe(const struct principal *p, chr_slice filter, bool shared,
                             struct acl_reason *why);
/* Is anything forbidden to it at all? */
CHR_INLINE bool principal_is_free(const struct principal *p)
{
    return !p || p->acl_key == 0;
}

/* -- What all share
 * -------------------------------------------------------------------------------*/

struct authority; /* opaque; of the node */

/* Takes auth. clock: borrowed. */
CHR_MUST_USE chr_err authority_new(struct auth *auth, const struct chr_clock *clock,
                                   uint32_t backoff_max_s, struct authority **out);
/* Refuses what waits (done() is called for all), joins the workers. Accepts NULL. */
void authority_stop(struct authority *authority);
void authority_free(struct authority *authority); /* when no principal is left; accepts NULL */
/* Any thread. Puts auth (taken) in place of the present one. The caller then has sessions look at
 * their principals (session_auth_changed). */
void auth_swap(struct authority *authority, struct auth *auth);
/* Any thread. A reference to the present one. */
struct auth *auth_now(struct authority *authority);
/* Any thread. Is it the present one? */
bool auth_is_now(struct authority *authority, const struct auth *auth);

/* A token that makes an admin of whoever is in this process, its prompt, or may read the data
 * directory (broker/run_file.h). 64 hex digits, made at the start. */
#define AUTH_OWN_TOKEN_BYTES 65
void authority_own_token(const struct authority *authority, char out[AUTH_OWN_TOKEN_BYTES]);

enum auth_outcome {
    AUTH_OK,        /* principal is set */
    AUTH_PENDING,   /* done() will be called, from a worker */
    AUTH_REFUSED,   /* wrong name or password, expired or bad token: nobody says which */
    AUTH_ANONYMOUS, /* no credentials, and they are needed */
    AUTH_BACKOFF,   /* too many failures lately: not even looked at */
    AUTH_BUSY,      /* too many wait */
    AUTH_NO_MEMORY,
    AUTH_STOPPING,
};

/* One login. Filled by the asker; what slices point at is the asker's as well, until the outcome is
 * known. */
struct auth_request {
    bool has_user, has_password;
    chr_slice user, password;
    chr_slice client_id;
    const char *address;  /* "10.0.0.7:51234" or "10.0.0.7", for back-off and logs */
    bool allow_anonymous; /* here */
    const char *surface;  /* "mqtt", "http": static, for logs */
    /* Worker thread; last touch of the request by the authority. Must not block. */
    void (*done)(struct auth_request *request);
    /* Set by the asker, from any thread, when nobody waits for the outcome any more: it is not
     * verified then, if that has not begun. done() comes nevertheless. */
    _Atomic bool abandoned;

    enum auth_outcome outcome;   /* out, with done() */
    struct principal *principal; /* out: a reference, the asker's, when AUTH_OK */

    struct auth *auth; /* the authority's from here on */
    struct auth_request *next;
    uint16_t address_slot, user_slot;
};

/* Any thread. Anything but AUTH_PENDING is the outcome, and done() is not called. */
enum auth_outcome auth_check(struct authority *authority, struct auth_request *request);

extern const char auth_how_certificate[];

/* A user that somebody else has authenticated: a client certificate. how: borrowed for good.
 * NULL: no memory. */
struct principal *auth_trusted(struct authority *authority, chr_slice user, chr_slice client_id,
                               const char *how);
/* The same user as another client id. NULL: no memory. */
struct principal *principal_as(struct principal *p, chr_slice client_id);
/* The same user and client under the present files. NULL with *gone: the user may no longer be
 * connected (removed, password changed, token revoked, anonymous no longer allowed); NULL without:
 * no memory. */
struct principal *principal_renew(struct principal *old, bool *gone);

struct auth_stats {
    uint64_t logins, failures, backoffs, refused_busy, denials, denials_unlogged;
    uint32_t waiting;
};
void authority_stats(struct authority *authority, struct auth_stats *out); /* any thread */

/* -- What was refused (audit.c)
 * -------------------------------------------------------------------*/

/* One line per denial, at most AUDIT_LINES_PER_SECOND of them; what is beyond is counted, and the
 * count is told with the next line. Any thread.
 *   operation  "publish", "subscribe", "will", "sql", "http"
 *   object     topic, filter, statement or path
 *   why        the rule that decided; NULL: none has to be told */
#define AUDIT_LINES_PER_SECOND 20
void audit_denied(struct authority *authority, const struct principal *p, const char *address,
                  const char *operation, chr_slice object, const struct acl_reason *why);

#endif
