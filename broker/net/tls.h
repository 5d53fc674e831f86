/* broker/net/tls.h: what OpenSSL does for us: a listener's certificates and rules as an SSL_CTX,
 * and the bytes of one connection over a non-blocking socket.
 *
 * An SSL_CTX is shared: making a connection's SSL takes a reference, so a context that a reload
 * replaced lives as long as its connections. An SSL belongs to its connection's loop. */
#ifndef CHR_BROKER_NET_TLS_H
#define CHR_BROKER_NET_TLS_H

#include <openssl/ssl.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "broker/config.h"

/* Reads the files. The message names the file and what is wrong with it. */
CHR_MUST_USE chr_err tls_context_new(const struct listener_config *config, SSL_CTX **out,
                                     struct chr_errmsg *msg);
/* The same, for a look only. */
CHR_MUST_USE chr_err tls_context_check(const struct listener_config *config,
                                       struct chr_errmsg *msg);

enum tls_result { TLS_DONE, TLS_WANTS_READ, TLS_WANTS_WRITE, TLS_ENDED, TLS_FAILED };

/* Each makes no more than one attempt; *why (of TLS_FAILED) is static or OpenSSL's own text. */
enum tls_result tls_accept(SSL *ssl, const char **why);
/* Fills as much of n as there is; *got may be above 0 with any result. */
enum tls_result tls_read(SSL *ssl, uint8_t *bytes, size_t n, size_t *got, const char **why);
enum tls_result tls_write(SSL *ssl, const uint8_t *bytes, size_t n, size_t *sent, const char **why);

/* The user name that the listener takes from a verified certificate; malloc'd, UTF-8. NULL: there
 * is no certificate, or no such name in it, or out of memory. */
char *tls_user_name(SSL *ssl, const struct listener_config *config);

#endif
