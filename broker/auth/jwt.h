/* broker/auth/jwt.h: JSON Web Tokens (RFC 7519) with HS256, RS256 or ES256. Pure but for openssl.
 *
 *     header {"alg":"RS256","typ":"JWT"}
 *     claims {"sub":"esp-001","exp":1767225600,"role":"device",
 *             "publish":["sensors/%u/#"],"subscribe":["commands/%u"]}
 *
 * Each algorithm has a key of its own kind: a token can't choose how its key is to be read (a
 * public key as the secret of HS256), `none` is no algorithm here, and neither are `crit`, `b64`,
 * nested or encrypted tokens. `sub` and `exp` have to be there; `iss` and `aud` when the settings
 * name them. With `publish` or `subscribe` the token's own topics stand in the place of the ACL
 * file. */
#ifndef CHR_BROKER_AUTH_JWT_H
#define CHR_BROKER_AUTH_JWT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"
#include "broker/auth/acl.h"
#include "db/grant.h"

#define JWT_BYTES_MAX  16384u /* of a token */
#define JWT_TOPICS_MAX 256u
/* Clocks of issuer and node differ by as much. */
#define JWT_LEEWAY_S 10

struct jwt_keys; /* immutable */

struct jwt_settings {
    const char *secret_file;     /* HS256: the bytes of the file, less a newline at its end */
    const char *public_key_file; /* PEM: RSA of 2,048 bits and more, or EC P-256 */
    const char *issuer, *audience;
};
/* NULL in *out: neither file is set. */
CHR_MUST_USE chr_err jwt_keys_load(const struct jwt_settings *settings, struct jwt_keys **out,
                                   struct chr_errmsg *msg);
/* The same from bytes; secret empty, pem empty: none. */
CHR_MUST_USE chr_err jwt_keys_new(chr_slice secret, chr_slice pem, const char *issuer,
                                  const char *audience, struct jwt_keys **out,
                                  struct chr_errmsg *msg);
void jwt_keys_free(struct jwt_keys *keys); /* accepts NULL */
/* Would both accept the same tokens? Either may be NULL. */
bool jwt_keys_same(const struct jwt_keys *a, const struct jwt_keys *b);

struct jwt_claims {
    char *user; /* owned */
    size_t user_len;
    bool has_role;
    enum db_role role;
    int64_t expires_s;
    struct acl_list *topics; /* a reference; NULL: the ACL file decides */
};
void jwt_claims_clear(struct jwt_claims *claims);

/* Three parts of base64url? Cheap. */
bool jwt_looks_like(chr_slice token);
/* NULL: valid, *claims filled. Else what is wrong, static, for the log; nobody else is told. */
const char *jwt_verify(const struct jwt_keys *keys, chr_slice token, int64_t now_s,
                       struct jwt_claims *claims);

#endif
