#include "bridge/peer_tls.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdbool.h>

static bool expect_name(SSL_CTX *ctx, const char *host)
{
    X509_VERIFY_PARAM *param = SSL_CTX_get0_param(ctx);
    if (X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1)
        return true;
    ERR_clear_error();
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return X509_VERIFY_PARAM_set1_host(param, host, 0) == 1;
}

/* A key with a password would make OpenSSL ask on the terminal. */
static int no_password(char *buffer, int size, int writing, void *ctx)
{
    (void)buffer, (void)size, (void)writing, (void)ctx;
    return -1;
}

static int note_fault(int ok, X509_STORE_CTX *store)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    const char **fault = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    if (!ok && fault)
        *fault = X509_verify_cert_error_string(X509_STORE_CTX_get_error(store));
    return ok;
}

static const char *fill(SSL_CTX *ctx, const char *cafile, const char *certfile, const char *keyfile,
                        const char *host)
{
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, note_fault);
    SSL_CTX_set_default_passwd_cb(ctx, no_password);
    if (SSL_CTX_load_verify_file(ctx, cafile) != 1)
        return "peer-cafile can't be used";
    if (certfile && SSL_CTX_use_certificate_chain_file(ctx, certfile) != 1)
        return "peer-certfile can't be used";
    if (keyfile && SSL_CTX_use_PrivateKey_file(ctx, keyfile, SSL_FILETYPE_PEM) != 1)
        return "peer-keyfile can't be used, or is not the key of peer-certfile";
    return expect_name(ctx, host) ? NULL : "out of memory";
}

SSL_CTX *peer_tls_context(const char *cafile, const char *certfile, const char *keyfile,
                          const char *host, const char **fault, const char **why)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (ctx)
        SSL_CTX_set_app_data(ctx, fault);
    *why = ctx ? fill(ctx, cafile, certfile, keyfile, host) : "out of memory";
    ERR_clear_error();
    if (!*why)
        return ctx;
    SSL_CTX_free(ctx);
    return NULL;
}
