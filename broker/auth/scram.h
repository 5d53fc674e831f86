/* broker/auth/scram.h: the server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677). Pure.
 *
 *     client                                   server
 *     n,,n=user,r=NONCE             ─▶  scram_new
 *                                  ◀─   r=NONCEnonce,s=salt,i=4096      scram_challenge
 *     c=biws,r=NONCEnonce,p=proof   ─▶  scram_verify
 *                                  ◀─   v=signature
 *
 * The server holds StoredKey and ServerKey, from which neither password nor proof can be made; the
 * last message proves to the client that the server holds them.
 *
 * There is no channel binding (`p=…` is refused, `y` is fine), no authorization as somebody else
 * (`a=` has to be the user's own name), and no mandatory extension (`m=`); other extensions are
 * passed over, as the standard has it. User names are compared as they are, after `=2C` and `=3D`.
 */
#ifndef CHR_BROKER_AUTH_SCRAM_H
#define CHR_BROKER_AUTH_SCRAM_H

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"
#include "broker/auth/password.h"

#define SCRAM_MESSAGE_MAX 4096u /* of the client's */
#define SCRAM_NONCE_MAX   512u  /* of the client's */
/* Of the server, before base64 (RFC 5802 leaves it open; PostgreSQL has as many). */
#define SCRAM_NONCE_BYTES  18u
#define SCRAM_ANSWER_BYTES 48u /* "v=" and 44 of base64 */

struct scram; /* opaque; one exchange */

/* Reads client-first. nonce: the server's part, printable and without a comma; copied. CHR_EINVAL
 * with *fault (static; for the log), CHR_ENOMEM. */
CHR_MUST_USE chr_err scram_new(chr_slice client_first, chr_slice nonce, struct scram **out,
                               const char **fault);
void scram_free(struct scram *scram); /* accepts NULL; wipes */
/* Who says to be there; lives as long as the exchange. */
chr_slice scram_user(const struct scram *scram);
/* password: a SCRAM entry; copied. *message: server-first, lives as long as the exchange. Once.
 * CHR_ENOMEM */
CHR_MUST_USE chr_err scram_challenge(struct scram *scram, const struct password *password,
                                     chr_slice *message);
/* Reads client-final, after scram_challenge. *message: server-final, as above. CHR_EINVAL with
 * *fault: malformed; CHR_EACCES with *fault: the proof does not fit. */
CHR_MUST_USE chr_err scram_verify(struct scram *scram, chr_slice client_final, chr_slice *message,
                                  const char **fault);

#endif
