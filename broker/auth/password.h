/* broker/auth/password.h: hashes of passwords as files hold them. Pure; slow on purpose.
 *
 *   $6$<salt>$<hash>                     SHA-512 over password and salt      (Mosquitto before 1.6)
 *   $7$<iterations>$<salt>$<hash>        PBKDF2-HMAC-SHA-512                 (Mosquitto 1.6 to 2.0)
 *   $argon2id$v=19$m=…,t=…,p=…$…$…       Argon2id, KiB, passes, lanes        (Mosquitto 2.1)
 *   SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>   RFC 5803, as PostgreSQL has it
 *
 * Salts, hashes and keys are base64. The last one serves SCRAM and plain passwords alike. */
#ifndef CHR_BROKER_AUTH_PASSWORD_H
#define CHR_BROKER_AUTH_PASSWORD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"

#define PASSWORD_SALT_MAX       64u
#define PASSWORD_TEXT_MAX       512u
#define PASSWORD_ITERATIONS_MAX 10000000u
#define PASSWORD_ARGON2_KIB_MAX (1u << 20) /* 1 GiB */
#define SCRAM_KEY_BYTES         32u
/* Of what we make. */
#define PASSWORD_MADE_SALT_BYTES  12u   /* as mosquitto_passwd */
#define PASSWORD_SCRAM_ITERATIONS 4096u /* the least RFC 7677 asks for */

enum password_kind {
    PASSWORD_SHA512,
    PASSWORD_PBKDF2_SHA512,
    PASSWORD_ARGON2ID,
    PASSWORD_SCRAM_SHA256,
};

struct password {
    enum password_kind kind;
    uint32_t iterations; /* PBKDF2, SCRAM */
    uint32_t salt_len;
    uint8_t salt[PASSWORD_SALT_MAX];
    uint8_t hash[64];                    /* SHA-512, PBKDF2; StoredKey of SCRAM in its first 32 */
    uint8_t server_key[SCRAM_KEY_BYTES]; /* SCRAM */
    char *argon2;                        /* the whole string; owned */
};

/* CHR_EINVAL with what is wrong (never with the hash), CHR_ENOMEM. */
CHR_MUST_USE chr_err password_parse(chr_slice text, struct password *out, struct chr_errmsg *msg);
void password_clear(struct password *password);
/* Constant time in the comparison. Out of memory is "no". */
bool password_verify(const struct password *password, chr_slice plain);
/* A hash with a fresh salt, as Mosquitto makes it by default (101 iterations for PBKDF2; Argon2id
 * with 46 MiB, one pass; SCRAM with 4,096 iterations). iterations 0: the default. CHR_EINVAL: not a
 * password for SCRAM (saslprep.h says why). */
CHR_MUST_USE chr_err password_make(enum password_kind kind, chr_slice plain, uint32_t iterations,
                                   struct chr_buf *out);

/* -- Building blocks that SCRAM shares
 * ------------------------------------------------------------*/

/* Strict base64 with padding, no white space. Returns bytes written; -1: malformed or too long. */
int auth_base64_decode(chr_slice text, uint8_t *out, size_t capacity);
/* As base64 without padding and with `-` and `_` (RFC 4648, 5), as JWT has it. */
int auth_base64url_decode(chr_slice text, uint8_t *out, size_t capacity);
void auth_base64_encode(chr_slice bytes, struct chr_buf *out);
bool auth_equal(const void *a, const void *b, size_t len); /* constant time */
/* SaltedPassword → ClientKey, StoredKey, ServerKey (RFC 5802, 3). */
CHR_MUST_USE chr_err scram_keys(chr_slice plain, chr_slice salt, uint32_t iterations,
                                uint8_t stored_key[SCRAM_KEY_BYTES],
                                uint8_t server_key[SCRAM_KEY_BYTES]);

#endif
