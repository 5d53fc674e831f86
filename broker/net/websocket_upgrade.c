/* broker/net/websocket_upgrade.c: the HTTP request that becomes a WebSocket, read strictly: one
 * request without a body, header lines of RFC 9110's form, nothing twice that may be there once. */
#include <arpa/inet.h>
#include <ctype.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/slice.h"
#include "broker/net/websocket.h"

static const char accept_guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* RFC 6455 1.3 */
#define KEY_TEXT_BYTES 24                                                 /* base64 of 16 bytes */

struct request {
    chr_slice host, upgrade, connection, key, version, protocol, origin;
    bool has_body;
    unsigned hosts, keys, versions, origins; /* how often */
    bool asks_upgrade, asks_websocket;       /* over all lines of the name */
    bool offers_mqtt, offers_mqttv31;
};

static int refuse(struct websocket_upgrade *out, const char *status, const char *headers,
                  const char *why)
{
    out->why = why;
    snprintf(out->response, sizeof out->response,
             "HTTP/1.1 %s\r\n%sContent-Type: text/plain\r\nContent-Length: %zu\r\n"
             "Connection: close\r\n\r\n%s\n",
             status, headers, strlen(why) + 1, why);
    return CHR_EPROTO;
}

static int bad_request(struct websocket_upgrade *out, const char *why)
{
    return refuse(out, "400 Bad Request", "", why);
}

static bool is_token(uint8_t c)
{
    return isalnum(c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static chr_slice trim(chr_slice s)
{
    while (s.len && (s.ptr[0] == ' ' || s.ptr[0] == '\t'))
        s.ptr++, s.len--;
    while (s.len && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

static bool same_word(chr_slice s, const char *word)
{
    return s.len == strlen(word) && !strncasecmp((const char *)s.ptr, word, s.len);
}

static bool same_exactly(chr_slice s, const char *word)
{
    return s.len == strlen(word) && !memcmp(s.ptr, word, s.len);
}

/* Is the word in a list separated by commas? */
static bool in_list(chr_slice list, const char *word, bool exactly)
{
    while (list.len) {
        const uint8_t *comma = memchr(list.ptr, ',', list.len);
        size_t len = comma ? (size_t)(comma - list.ptr) : list.len;
        chr_slice item = trim(chr_slice_of(list.ptr, len));
        if (exactly ? same_exactly(item, word) : same_word(item, word))
            return true;
        size_t used = comma ? len + 1 : len;
        list = chr_slice_of(list.ptr + used, list.len - used);
    }
    return false;
}

/* "GET /path HTTP/1.1"; minor versions above are as good. NULL: fine. */
static const char *check_request_line(chr_slice line, const char **status)
{
    *status = "400 Bad Request";
    const uint8_t *blank = memchr(line.ptr, ' ', line.len);
    if (!blank)
        return "not an HTTP request";
    if (!same_exactly(chr_slice_of(line.ptr, (size_t)(blank - line.ptr)), "GET")) {
        *status = "405 Method Not Allowed";
        return "only GET upgrades to a WebSocket";
    }
    chr_slice rest = chr_slice_of(blank + 1, line.len - (size_t)(blank + 1 - line.ptr));
    blank = memchr(rest.ptr, ' ', rest.len);
    if (!blank || rest.ptr[0] != '/')
        return "not an HTTP request";
    for (const uint8_t *p = rest.ptr; p < blank; p++)
        if (*p <= ' ' || *p >= 127)
            return "a byte that may not be in a path";
    chr_slice version = chr_slice_of(blank + 1, rest.len - (size_t)(blank + 1 - rest.ptr));
    if (!same_exactly(version, "HTTP/1.1")) {
        *status = "505 HTTP Version Not Supported";
        return "only HTTP/1.1 upgrades to a WebSocket";
    }
    return NULL;
}

static const char *take_header(struct request *r, chr_slice line)
{
    const uint8_t *colon = memchr(line.ptr, ':', line.len);
    if (!colon || colon == line.ptr)
        return "a header line without a name";
    chr_slice name = chr_slice_of(line.ptr, (size_t)(colon - line.ptr));
    for (size_t i = 0; i < name.len; i++)
        if (!is_token(name.ptr[i]))
            return "a header name with a byte that may not be in one";
    chr_slice value = trim(chr_slice_of(colon + 1, line.len - name.len - 1));
    for (size_t i = 0; i < value.len; i++)
        if ((value.ptr[i] < ' ' && value.ptr[i] != '\t') || value.ptr[i] == 127)
            return "a header value with a control character";
    if (same_word(name, "host")) {
        r->hosts++;
        r->host = value;
    } else if (same_word(name, "upgrade")) {
        r->asks_websocket |= in_list(value, "websocket", false);
    } else if (same_word(name, "connection")) {
        r->asks_upgrade |= in_list(value, "upgrade", false);
    } else if (same_word(name, "sec-websocket-key")) {
        r->keys++;
        r->key = value;
    } else if (same_word(name, "sec-websocket-version")) {
        r->versions++;
        r->version = value;
    } else if (same_word(name, "sec-websocket-protocol")) {
        r->offers_mqtt |= in_list(value, "mqtt", true);
        r->offers_mqttv31 |= in_list(value, "mqttv3.1", true);
    } else if (same_word(name, "origin")) {
        r->origins++;
        r->origin = value;
    } else if (same_word(name, "transfer-encoding") ||
               (same_word(name, "content-length") && !same_exactly(value, "0"))) {
        r->has_body = true;
    }
    return NULL;
}

/* Sixteen bytes in base64, as a browser makes them; what they are is nobody's business. */
static bool key_valid(chr_slice key)
{
    uint8_t raw[KEY_TEXT_BYTES];
    if (key.len != KEY_TEXT_BYTES || memcmp(key.ptr + key.len - 2, "==", 2) ||
        memchr(key.ptr, '=', key.len) != key.ptr + key.len - 2)
        return false;
    return EVP_DecodeBlock(raw, key.ptr, (int)key.len) == 18;
}

static int accept_request(const struct request *r, size_t used, struct websocket_upgrade *out)
{
    uint8_t text[KEY_TEXT_BYTES + sizeof accept_guid], digest[EVP_MAX_MD_SIZE], encoded[32];
    unsigned digest_len = 0;
    memcpy(text, r->key.ptr, KEY_TEXT_BYTES);
    memcpy(text + KEY_TEXT_BYTES, accept_guid, sizeof accept_guid - 1);
    if (!EVP_Digest(text, KEY_TEXT_BYTES + sizeof accept_guid - 1, digest, &digest_len, EVP_sha1(),
                    NULL))
        return refuse(out, "500 Internal Server Error", "", "no SHA-1");
    EVP_EncodeBlock(encoded, digest, (int)digest_len);
    snprintf(out->response, sizeof out->response,
             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
             (char *)encoded, r->offers_mqtt ? "mqtt" : "mqttv3.1"); /* [MQTT-6.0.0-4] */
    return (int)used;
}

/* "127.0.0.1:8083" → "127.0.0.1", "[::1]:8083" → "[::1]". */
static chr_slice without_port(chr_slice authority)
{
    const uint8_t *end = authority.len && authority.ptr[0] == '['
                             ? memchr(authority.ptr, ']', authority.len)
                             : memchr(authority.ptr, ':', authority.len);
    if (end)
        authority.len = (size_t)(end - authority.ptr) + (*end == ']');
    return authority;
}

/* What no name server can point elsewhere. */
static bool is_address(chr_slice host)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr any;
    bool ipv6 = host.len > 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']';
    if (ipv6)
        host = chr_slice_of(host.ptr + 1, host.len - 2);
    if (host.len == 0 || host.len >= sizeof text)
        return false;
    memcpy(text, host.ptr, host.len);
    text[host.len] = 0;
    return inet_pton(ipv6 ? AF_INET6 : AF_INET, text, &any) == 1 ||
           (!ipv6 && same_word(host, "localhost"));
}

/* Programs say no Origin; browsers always do. */
static bool is_own_page(const struct request *r)
{
    const uint8_t *scheme = r->origin.len ? memmem(r->origin.ptr, r->origin.len, "://", 3) : NULL;
    if (r->origins != 1 || !scheme)
        return false;
    size_t before = (size_t)(scheme - r->origin.ptr) + 3;
    chr_slice from = without_port(chr_slice_of(r->origin.ptr + before, r->origin.len - before));
    chr_slice to = without_port(r->host);
    return from.len == to.len && is_address(to) &&
           !strncasecmp((const char *)from.ptr, (const char *)to.ptr, to.len);
}

static bool origin_allowed(const struct request *r, const char *origin)
{
    if (!origin)
        return r->origins == 0 || is_own_page(r);
    return !strcmp(origin, "*") || (r->origins == 1 && same_word(r->origin, origin));
}

static int judge(const struct request *r, const char *origin, size_t used,
                 struct websocket_upgrade *out)
{
    if (r->has_body)
        return bad_request(out, "a request with a body");
    if (r->hosts != 1)
        return bad_request(out, "not one Host header");
    if (!r->asks_websocket || !r->asks_upgrade)
        return refuse(out, "426 Upgrade Required", "Upgrade: websocket\r\n",
                      "this port speaks MQTT over WebSocket");
    if (r->versions != 1 || !same_exactly(r->version, "13"))
        return refuse(out, "426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n",
                      "Sec-WebSocket-Version is not 13");
    if (r->keys != 1 || !key_valid(r->key))
        return bad_request(out, "Sec-WebSocket-Key is not 16 bytes in base64");
    if (!origin_allowed(r, origin))
        return refuse(out, "403 Forbidden", "",
                      origin ? "this Origin may not connect"
                             : "a page of another Origin may not connect (websockets_origin)");
    if (!r->offers_mqtt && !r->offers_mqttv31) /* [MQTT-6.0.0-3] */
        return bad_request(out, "Sec-WebSocket-Protocol does not offer mqtt");
    return accept_request(r, used, out);
}

int websocket_upgrade(chr_slice in, size_t bytes_max, const char *origin,
                      struct websocket_upgrade *out)
{
    *out = (struct websocket_upgrade){.why = NULL};
    /* An MQTT or TLS client at the wrong port hears of it at once. */
    size_t first = in.len < 4 ? in.len : 4;
    if (first && memcmp(in.ptr, "GET ", first) && !isupper(in.ptr[0]))
        return bad_request(out, "not an HTTP request");
    size_t looked = in.len < bytes_max ? in.len : bytes_max;
    const uint8_t *end = looked >= 4 ? memmem(in.ptr, looked, "\r\n\r\n", 4) : NULL;
    if (!end) {
        if (in.len >= bytes_max)
            return refuse(out, "431 Request Header Fields Too Large", "",
                          "the request is too large (websockets_headers_size)");
        return 0;
    }
    size_t used = (size_t)(end - in.ptr) + 4;
    struct request r = {.has_body = false};
    chr_slice rest = chr_slice_of(in.ptr, used - 2); /* each line with its CRLF */
    for (bool request_line = true; rest.len; request_line = false) {
        const uint8_t *newline = memchr(rest.ptr, '\n', rest.len);
        if (!newline || newline == rest.ptr || newline[-1] != '\r')
            return bad_request(out, "a line that does not end with CRLF");
        size_t len = (size_t)(newline - rest.ptr) + 1;
        chr_slice line = chr_slice_of(rest.ptr, len - 2);
        const char *status = "400 Bad Request";
        const char *why = memchr(line.ptr, '\r', line.len) ? "a bare CR"
                          : request_line                   ? check_request_line(line, &status)
                                                           : take_header(&r, line);
        if (why)
            return refuse(out, status, "", why);
        rest = chr_slice_of(rest.ptr + len, rest.len - len);
    }
    return judge(&r, origin, used, out);
}
