/* broker/auth/saslprep.h: may a text be a password of SCRAM as it stands? Pure.
 *
 * RFC 5802 has both sides prepare passwords with SASLprep (RFC 4013) before they are hashed, so
 * that what looks the same is the same. Nothing is rewritten here: a text that SASLprep prohibits
 * or would change is refused when the password is set, and then every client computes the same
 * keys, whether it prepares or, as many do, does not. */
#ifndef CHR_BROKER_AUTH_SASLPREP_H
#define CHR_BROKER_AUTH_SASLPREP_H

#include "base/slice.h"

/* NULL: SASLprep leaves it as it is. Else what is wrong with it, static. */
const char *saslprep_fault(chr_slice text);

#endif
