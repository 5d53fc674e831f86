/* bench/net.c */
#include "bench/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "bench/link.h"

uint64_t net_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int net_parse_address(const char *address, struct sockaddr_in *out)
{
    char host[64];
    const char *colon = strrchr(address, ':');
    size_t host_len = colon ? (size_t)(colon - address) : 0;
    if (!colon || host_len >= sizeof host) {
        fprintf(stderr, "%s: expected HOST:PORT\n", address);
        return -1;
    }
    memcpy(host, address, host_len);
    host[host_len] = 0;
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    *out = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (*end || port > 65535 || inet_pton(AF_INET, host, &out->sin_addr) != 1) {
        fprintf(stderr, "%s: expected an IPv4 address and a port\n", address);
        return -1;
    }
    return 0;
}

int net_connect(const char *address)
{
    struct sockaddr_in to;
    if (net_parse_address(address, &to) != 0)
        return -1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0) {
        fprintf(stderr, "%s: %s\n", address, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

int net_listen(const char *address, uint16_t *port)
{
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    if (net_parse_address(address, &at) != 0)
        return -1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 1024) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &len) != 0) {
        fprintf(stderr, "%s: %s\n", address, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    *port = ntohs(at.sin_port);
    return fd;
}

static bool read_exactly(struct link *link, uint8_t *out, size_t len)
{
    while (len > 0) {
        ssize_t n = link_recv(link, out, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        out += n;
        len -= (size_t)n;
    }
    return true;
}

/* Lengths of CONNACK properties [MQTT-3.2.2.3]: bytes of the value; 0: a string of its own length;
 * -1: a pair of strings. */
static int property_bytes(uint8_t id)
{
    switch (id) {
    case 0x24: /* Maximum QoS */
    case 0x25: /* Retain Available */
    case 0x28: /* Wildcard Subscription Available */
    case 0x29: /* Subscription Identifiers Available */
    case 0x2A: /* Shared Subscription Available */
        return 1;
    case 0x21: /* Receive Maximum */
    case 0x22: /* Topic Alias Maximum */
    case 0x13: /* Server Keep Alive */
        return 2;
    case 0x11: /* Session Expiry Interval */
    case 0x27: /* Maximum Packet Size */
        return 4;
    case 0x26: /* User Property */
        return -1;
    default:
        return 0;
    }
}

static void read_connack_properties(const uint8_t *p, size_t len, struct net_connack *out)
{
    const uint8_t *end = p + len;
    while (end - p >= 3) {
        uint8_t id = *p++;
        int bytes = property_bytes(id);
        if (id == 0x21)
            out->receive_max = chr_get_u16be(p);
        for (int strings = bytes > 0 ? 0 : bytes == 0 ? 1 : 2; strings > 0; strings--) {
            if (end - p < 2)
                return;
            p += 2 + chr_get_u16be(p);
        }
        p += bytes > 0 ? bytes : 0;
    }
}

int net_mqtt_connect_link(struct link *link, int mqtt_version, const char *client_id,
                          struct net_connack *out)
{
    uint8_t packet[128], *p = packet;
    size_t id_len = strlen(client_id);
    bool v5 = mqtt_version == 5;
    if (id_len > 64)
        return -1;
    *p++ = 0x10;
    *p++ = (uint8_t)((v5 ? 13u : 12u) + id_len);
    memcpy(p, "\0\4MQTT", 6);
    p += 6;
    *p++ = (uint8_t)mqtt_version;
    *p++ = 0x02; /* clean start */
    *p++ = 0;    /* no keep-alive */
    *p++ = 0;
    if (v5)
        *p++ = 0; /* no properties */
    chr_put_u16be(p, (uint16_t)id_len);
    memcpy(p + 2, client_id, id_len);
    p += 2 + id_len;
    if (link_send(link, packet, (size_t)(p - packet)) != p - packet) {
        perror("CONNECT");
        return -1;
    }

    uint8_t answer[512];
    *out = (struct net_connack){.receive_max = 65535};
    if (!read_exactly(link, answer, 2) || answer[0] != 0x20) {
        fprintf(stderr, "%s: no CONNACK\n", client_id);
        return -1;
    }
    size_t rest = answer[1];
    if (rest >= 128) { /* two bytes of length are the most that a CONNACK here takes */
        uint8_t high;
        if (!read_exactly(link, &high, 1) || high >= 4)
            return -1;
        rest = (rest & 127) | (size_t)high << 7;
    }
    if (rest < 2 || rest > sizeof answer || !read_exactly(link, answer, rest) || answer[1] != 0) {
        fprintf(stderr, "%s: connection refused, code %u\n", client_id, answer[1]);
        return -1;
    }
    if (v5 && rest > 3) {
        bool two = answer[2] & 128;
        size_t len = two ? (answer[2] & 127u) | (size_t)answer[3] << 7 : answer[2];
        size_t at = two ? 4 : 3;
        if (at + len <= rest)
            read_connack_properties(answer + at, len, out);
    }
    return 0;
}

int net_mqtt_connect(int fd, int mqtt_version, const char *client_id, struct net_connack *out)
{
    return net_mqtt_connect_link(&(struct link){.fd = fd}, mqtt_version, client_id, out);
}
