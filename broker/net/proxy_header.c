#include "broker/net/proxy_header.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/err.h"

#define V1_BYTES_MAX 107 /* CRLF included */
#define V2_FIXED     16
#define TLV_CRC32C   0x03

static const uint8_t v2_signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                         0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

static int refuse(struct proxy_header *out, const char *why)
{
    out->why = why;
    return CHR_EMALFORMED;
}

static int more(struct proxy_header *out, size_t missing)
{
    out->missing = missing;
    return 0;
}

/* ---- Version 1: "PROXY TCP4 192.0.2.1 192.0.2.9 51234 1883\r\n" -------------------------------
 */

/* The next word of [*at, end), which one blank ends; NULL: there is none. */
static const char *word(const char **at, const char *end, char *out, size_t size)
{
    size_t len = 0;
    const char *p = *at;
    while (p < end && *p != ' ') {
        if (len + 1 == size)
            return NULL;
        out[len++] = *p++;
    }
    out[len] = 0;
    *at = p < end ? p + 1 : p;
    return len ? out : NULL;
}

static bool port_text(const char *text, unsigned *port)
{
    *port = 0;
    size_t len = strlen(text);
    if (len == 0 || len > 5 || (text[0] == '0' && len > 1))
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        *port = *port * 10 + (unsigned)(*text - '0');
    }
    return *port <= 65535;
}

static int parse_v1(chr_slice in, struct proxy_header *out)
{
    const char *text = (const char *)in.ptr;
    if (memcmp(text, "PROXY ", 6))
        return refuse(out, "no PROXY header");
    const char *newline = memchr(text, '\n', in.len);
    if (!newline) {
        if (in.len >= V1_BYTES_MAX)
            return refuse(out, "the line is too long");
        return more(out, text[in.len - 1] == '\r' ? 1 : 2);
    }
    if (newline + 1 != text + in.len || newline[-1] != '\r')
        return refuse(out, "the line does not end with CRLF");
    const char *at = text + 6, *end = newline - 1;
    if (memchr(text, 0, in.len))
        return refuse(out, "a zero byte");
    char family[8], source[48], target[48], source_port[8], target_port[8];
    if (!word(&at, end, family, sizeof family))
        return refuse(out, "no protocol");
    if (!strcmp(family, "UNKNOWN")) {
        out->known = false;
        return (int)in.len;
    }
    bool v6 = !strcmp(family, "TCP6");
    if (!v6 && strcmp(family, "TCP4"))
        return refuse(out, "unknown protocol");
    uint8_t binary[16];
    unsigned port, port2;
    if (!word(&at, end, source, sizeof source) || !word(&at, end, target, sizeof target) ||
        !word(&at, end, source_port, sizeof source_port) ||
        !word(&at, end, target_port, sizeof target_port) || at != end || end[-1] == ' ')
        return refuse(out, "not the five words of version 1");
    if (inet_pton(v6 ? AF_INET6 : AF_INET, source, binary) != 1 ||
        inet_pton(v6 ? AF_INET6 : AF_INET, target, binary) != 1)
        return refuse(out, "not an address");
    if (!port_text(source_port, &port) || !port_text(target_port, &port2))
        return refuse(out, "not a port");
    out->known = true;
    snprintf(out->address, sizeof out->address, v6 ? "[%s]:%u" : "%s:%u", source, port);
    return (int)in.len;
}

/* ---- Version 2 --------------------------------------------------------------------------------
 */

/* The extensions fill the rest exactly, and their checksum, if there is one, is right. */
static bool extensions_valid(chr_slice in, size_t at)
{
    while (at < in.len) {
        if (in.len - at < 3)
            return false;
        size_t len = chr_get_u16be(in.ptr + at + 1);
        if (len > in.len - at - 3)
            return false;
        if (in.ptr[at] == TLV_CRC32C) {
            static const uint8_t zeros[4];
            if (len != 4)
                return false;
            uint32_t crc = chr_crc32c(0, in.ptr, at + 3);
            crc = chr_crc32c(crc, zeros, 4);
            crc = chr_crc32c(crc, in.ptr + at + 7, in.len - at - 7);
            if (crc != chr_get_u32be(in.ptr + at + 3))
                return false;
        }
        at += 3 + len;
    }
    return true;
}

static int parse_v2(chr_slice in, struct proxy_header *out)
{
    if (in.len < V2_FIXED)
        return more(out, V2_FIXED - in.len);
    uint8_t version_command = in.ptr[12], family = in.ptr[13];
    size_t total = V2_FIXED + (size_t)chr_get_u16be(in.ptr + 14);
    if (version_command >> 4 != 2 || (version_command & 15) > 1)
        return refuse(out, "unknown version or command");
    if (total > PROXY_HEADER_BYTES_MAX)
        return refuse(out, "the header is too long");
    size_t addresses = family == 0x11 ? 12 : family == 0x21 ? 36 : family == 0x31 ? 216 : 0;
    bool local = (version_command & 15) == 0;
    if (!local && family != 0 && !addresses)
        return refuse(out, "unknown address family or protocol");
    if (!local && total < V2_FIXED + addresses)
        return refuse(out, "shorter than its addresses");
    if (in.len < total)
        return more(out, total - in.len);
    if (in.len > total)
        return refuse(out, "bytes behind the header");
    out->known = false;
    if (local) /* its addresses, if any, are to be skipped */
        return (int)total;
    if (!extensions_valid(in, V2_FIXED + addresses))
        return refuse(out, "damaged extensions");
    char text[INET6_ADDRSTRLEN];
    const uint8_t *a = in.ptr + V2_FIXED;
    if (family == 0x11) {
        inet_ntop(AF_INET, a, text, sizeof text);
        snprintf(out->address, sizeof out->address, "%s:%u", text, chr_get_u16be(a + 8));
    } else if (family == 0x21) {
        inet_ntop(AF_INET6, a, text, sizeof text);
        snprintf(out->address, sizeof out->address, "[%s]:%u", text, chr_get_u16be(a + 32));
    } else if (family == 0x31) {
        snprintf(out->address, sizeof out->address, "unix");
    }
    out->known = family != 0;
    return (int)total;
}

int proxy_header_parse(chr_slice in, struct proxy_header *out)
{
    *out = (struct proxy_header){0};
    size_t first = in.len < sizeof v2_signature ? in.len : sizeof v2_signature;
    if (in.len && memcmp(in.ptr, v2_signature, first) &&
        memcmp(in.ptr, "PROXY ", first < 6 ? first : 6))
        return refuse(out, "no PROXY header"); /* as soon as it shows */
    if (in.len < PROXY_HEADER_BYTES_MIN)
        return more(out, PROXY_HEADER_BYTES_MIN - in.len);
    return in.ptr[0] == 'P' ? parse_v1(in, out) : parse_v2(in, out);
}
