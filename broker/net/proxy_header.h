/* broker/net/proxy_header.h: the line or block that a proxy puts before a connection's own bytes to
 * say whose they are (HAProxy's "The PROXY protocol", versions 1 and 2).
 *
 * What follows the header may be TLS, which another reader takes from the socket: so nobody may
 * read beyond the header, and the parser says how many bytes are safe to read next. Pure. */
#ifndef CHR_BROKER_NET_PROXY_HEADER_H
#define CHR_BROKER_NET_PROXY_HEADER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/slice.h"

/* Fixed part, Unix addresses (the longest), and room for the extensions that proxies send (a
 * certificate's names among them). */
#define PROXY_HEADER_BYTES_MAX 2048
/* Before anything is known: both versions have at least this many bytes. */
#define PROXY_HEADER_BYTES_MIN 12

struct proxy_header {
    bool known; /* else the proxy speaks for itself (a health check): keep the socket's address */
    char address[64]; /* "192.0.2.1:51234", "[2001:db8::1]:51234", "unix" */
    size_t missing;   /* when more is needed: bytes that may be read without leaving the header */
    const char *why;  /* when it is refused */
};

/* Above 0: bytes of the header (all of `in`), *out is filled. 0: more is needed. CHR_EMALFORMED: it
 * is none, or says what we can't use (UDP); out->why. */
int proxy_header_parse(chr_slice in, struct proxy_header *out);

#endif
