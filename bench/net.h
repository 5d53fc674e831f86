/* bench/net.h: loopback sockets and the first two packets of an MQTT connection. */
#ifndef CHR_BENCH_NET_H
#define CHR_BENCH_NET_H

#include <stddef.h>
#include <stdint.h>

/* CLOCK_MONOTONIC. */
uint64_t net_now_ns(void);

struct sockaddr_in;
/* Returns 0, or -1 with a message on stderr. */
int net_parse_address(const char *address, struct sockaddr_in *out);

/* "127.0.0.1:1883". Return a blocking socket with TCP_NODELAY, or -1 with a message on stderr. */
int net_connect(const char *address);
/* Port 0 picks a free one; *port tells which. Non-blocking. */
int net_listen(const char *address, uint16_t *port);

struct link; /* link.h */

struct net_connack {
    uint16_t receive_max; /* 65535 unless an MQTT 5 server says less */
};
/* CONNECT with a clean start and no keep-alive, then waits for the CONNACK. mqtt_version 4 or 5.
 * Returns 0, or -1 with a message on stderr. */
int net_mqtt_connect(int fd, int mqtt_version, const char *client_id, struct net_connack *out);
/* The same over a link. */
int net_mqtt_connect_link(struct link *link, int mqtt_version, const char *client_id,
                          struct net_connack *out);

#endif
