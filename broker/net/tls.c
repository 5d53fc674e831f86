#include "broker/net/tls.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* Of a session ticket: beyond that a client shows its certificate again. */
#define TICKET_SECONDS 7200
/* Received at a time: two records, so that a record costs no system call of its own. */
#define READ_AHEAD_BYTES (32u << 10)

static const char *openssl_reason(void)
{
    unsigned long code = ERR_peek_error(); /* the first is what happened, the others where */
    if (ERR_SYSTEM_ERROR(code))
        return strerror(ERR_GET_REASON(code));
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    return text ? text : "unknown error";
}

/* ---- Context ----------------------------------------------------------------------------------
 */

/* A key with a password would make OpenSSL ask on the terminal. */
static int no_password(char *buffer, int size, int writing, void *ctx)
{
    (void)buffer, (void)size, (void)writing, (void)ctx;
    return -1;
}

/* Clients that ask for a protocol by name (RFC 7301) get it; others are not bothered. */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *in, unsigned in_len, void *ctx)
{
    static const unsigned char mqtt[] = "\x04mqtt", http[] = "\x08http/1.1";
    const struct listener_config *config = ctx;
    const unsigned char *own = config->protocol == LISTENER_WEBSOCKETS ? http : mqtt;
    unsigned own_len = config->protocol == LISTENER_WEBSOCKETS ? sizeof http - 1 : sizeof mqtt - 1;
    (void)ssl;
    unsigned char *chosen = NULL;
    if (SSL_select_next_proto(&chosen, out_len, own, own_len, in, in_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static chr_err file_fault(const char *key, const char *path, struct chr_errmsg *msg)
{
    return chr_fail(msg, CHR_EINVAL, "%s %s: %s", key, path, openssl_reason());
}

static chr_err load_own(SSL_CTX *ctx, const struct listener_config *config, struct chr_errmsg *msg)
{
    if (SSL_CTX_use_certificate_chain_file(ctx, config->certfile) != 1)
        return file_fault("certfile", config->certfile, msg);
    if (SSL_CTX_use_PrivateKey_file(ctx, config->keyfile, SSL_FILETYPE_PEM) != 1)
        return file_fault("keyfile", config->keyfile, msg);
    if (SSL_CTX_check_private_key(ctx) != 1)
        return chr_fail(msg, CHR_EINVAL, "keyfile %s is not the key of certfile %s",
                        config->keyfile, config->certfile);
    return CHR_OK;
}

static chr_err load_authorities(SSL_CTX *ctx, const struct listener_config *config,
                                struct chr_errmsg *msg)
{
    if (config->cafile) {
        if (SSL_CTX_load_verify_file(ctx, config->cafile) != 1)
            return file_fault("cafile", config->cafile, msg);
        /* Clients with several certificates learn which one is wanted. */
        STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(config->cafile);
        if (names)
            SSL_CTX_set_client_CA_list(ctx, names);
    }
    if (config->capath && SSL_CTX_load_verify_dir(ctx, config->capath) != 1)
        return file_fault("capath", config->capath, msg);
    if (config->crlfile) {
        X509_STORE *store = SSL_CTX_get_cert_store(ctx);
        X509_LOOKUP *lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
        if (!lookup || X509_load_crl_file(lookup, config->crlfile, X509_FILETYPE_PEM) < 1)
            return file_fault("crlfile", config->crlfile, msg);
        X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
    }
    return CHR_OK;
}

static chr_err set_rules(SSL_CTX *ctx, const struct listener_config *config, struct chr_errmsg *msg)
{
    static const unsigned char session_context[] = "chronos";
    SSL_CTX_set_min_proto_version(ctx, config->tls_version == LISTENER_TLS_1_3 ? TLS1_3_VERSION
                                                                               : TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE |
                                 SSL_OP_IGNORE_UNEXPECTED_EOF); /* packets say how long they are */
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, READ_AHEAD_BYTES);
    /* Sessions are with the clients (tickets): nothing to keep for eighteen thousand of them. */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(ctx, session_context, sizeof session_context - 1);
    SSL_CTX_set_timeout(ctx, TICKET_SECONDS);
    SSL_CTX_set_num_tickets(ctx, 1);
    SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, (void *)(uintptr_t)config);
    SSL_CTX_set_verify(ctx,
                       config->require_certificate
                           ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
                           : SSL_VERIFY_NONE,
                       NULL);
    if (config->ciphers && SSL_CTX_set_cipher_list(ctx, config->ciphers) != 1)
        return chr_fail(msg, CHR_EINVAL, "ciphers: no known cipher in \"%s\"", config->ciphers);
    if (config->ciphersuites && SSL_CTX_set_ciphersuites(ctx, config->ciphersuites) != 1)
        return chr_fail(msg, CHR_EINVAL, "ciphers_tls1.3: \"%s\" is not a list of cipher suites",
                        config->ciphersuites);
    return CHR_OK;
}

chr_err tls_context_new(const struct listener_config *config, SSL_CTX **out, struct chr_errmsg *msg)
{
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx)
        return chr_fail(msg, CHR_ENOMEM, "TLS: %s", openssl_reason());
    SSL_CTX_set_default_passwd_cb(ctx, no_password);
    chr_err err = set_rules(ctx, config, msg);
    if (!err)
        err = load_own(ctx, config, msg);
    if (!err)
        err = load_authorities(ctx, config, msg);
    ERR_clear_error();
    if (err) {
        SSL_CTX_free(ctx);
        return err;
    }
    *out = ctx;
    return CHR_OK;
}

chr_err tls_context_check(const struct listener_config *config, struct chr_errmsg *msg)
{
    SSL_CTX *ctx = NULL;
    chr_err err = tls_context_new(config, &ctx, msg);
    SSL_CTX_free(ctx);
    return err;
}

/* ---- Bytes ------------------------------------------------------------------------------------
 */

static enum tls_result result_of(SSL *ssl, int outcome, const char **why)
{
    int saved = errno;
    switch (SSL_get_error(ssl, outcome)) {
    case SSL_ERROR_NONE:
        return TLS_DONE;
    case SSL_ERROR_WANT_READ:
        return TLS_WANTS_READ;
    case SSL_ERROR_WANT_WRITE:
        return TLS_WANTS_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        return TLS_ENDED;
    case SSL_ERROR_SYSCALL:
        if (saved == 0 || saved == ECONNRESET || saved == EPIPE)
            return TLS_ENDED;
        *why = strerror(saved);
        return TLS_FAILED;
    default:
        *why = openssl_reason();
        /* A client certificate that was refused: what was wrong with it says more. */
        if (SSL_get_verify_result(ssl) != X509_V_OK)
            *why = X509_verify_cert_error_string(SSL_get_verify_result(ssl));
        return TLS_FAILED;
    }
}

enum tls_result tls_accept(SSL *ssl, const char **why)
{
    ERR_clear_error();
    errno = 0;
    int outcome = SSL_accept(ssl);
    return outcome == 1 ? TLS_DONE : result_of(ssl, outcome, why);
}

enum tls_result tls_read(SSL *ssl, uint8_t *bytes, size_t n, size_t *got, const char **why)
{
    *got = 0;
    while (*got < n) {
        size_t some = 0;
        ERR_clear_error();
        errno = 0;
        int outcome = SSL_read_ex(ssl, bytes + *got, n - *got, &some);
        if (outcome != 1)
            return result_of(ssl, outcome, why);
        *got += some;
    }
    return TLS_DONE;
}

enum tls_result tls_write(SSL *ssl, const uint8_t *bytes, size_t n, size_t *sent, const char **why)
{
    *sent = 0;
    ERR_clear_error();
    errno = 0;
    int outcome = SSL_write_ex(ssl, bytes, n, sent);
    return outcome == 1 ? TLS_DONE : result_of(ssl, outcome, why);
}

/* ---- Names ------------------------------------------------------------------------------------
 */

static char *copy_text(const uint8_t *text, size_t len)
{
    if (len == 0 || len > 65535 || !chr_utf8_valid_mqtt(chr_slice_of(text, len)))
        return NULL;
    char *copy = malloc(len + 1);
    if (copy) {
        memcpy(copy, text, len);
        copy[len] = 0;
    }
    return copy;
}

static char *common_name(X509_NAME *subject)
{
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0)
        return NULL;
    unsigned char *utf8 = NULL;
    int len =
        ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (len < 0)
        return NULL;
    char *name = copy_text(utf8, (size_t)len); /* none with a zero byte inside */
    OPENSSL_free(utf8);
    return name;
}

static char *whole_subject(X509_NAME *subject)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *name = NULL;
    /* RFC 2253, but letters beyond ASCII as they are. */
    if (bio && X509_NAME_print_ex(bio, subject, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) >= 0) {
        char *text = NULL;
        long len = BIO_get_mem_data(bio, &text);
        if (len > 0)
            name = copy_text((const uint8_t *)text, (size_t)len);
    }
    BIO_free(bio);
    return name;
}

char *tls_user_name(SSL *ssl, const struct listener_config *config)
{
    if (!config->use_identity_as_username && !config->use_subject_as_username)
        return NULL;
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    if (!certificate || SSL_get_verify_result(ssl) != X509_V_OK)
        return NULL;
    X509_NAME *subject = X509_get_subject_name(certificate);
    return config->use_identity_as_username ? common_name(subject) : whole_subject(subject);
}
