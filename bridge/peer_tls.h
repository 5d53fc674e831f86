/* bridge/peer_tls.h: TLS of our connection to a peer. */
#ifndef CHR_BRIDGE_PEER_TLS_H
#define CHR_BRIDGE_PEER_TLS_H

#include <openssl/ssl.h>

/* A context that takes only a certificate of `host`, a name or an address, signed by an authority
 * in cafile; certfile and keyfile (NULL: none) are what we show. The files are read each time, so
 * that a certificate that was replaced is the one shown from the next connection on. When the
 * peer's certificate is refused *fault (NULL: not wanted; it outlives the context) says why; both
 * texts are static. NULL: *why says what is wrong with the files. */
SSL_CTX *peer_tls_context(const char *cafile, const char *certfile, const char *keyfile,
                          const char *host, const char **fault, const char **why);

#endif
