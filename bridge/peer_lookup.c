#include "bridge/peer_lookup.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A name with more addresses than a node has networks is not a node's. */
#define ADDRESSES_MAX 8u

/* Two own it: who asked, and the thread. The thread writes, then sets `done`; the other reads only
 * after it has seen that. */
struct link_lookup {
    _Atomic int owners;
    _Atomic bool done;
    char host[256];
    unsigned count, next;
    char addresses[ADDRESSES_MAX][INET6_ADDRSTRLEN + 16]; /* and a scope */
};

bool peer_address_literal(const char *host)
{
    uint8_t address[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

void peer_lookup_forget(struct link_lookup *lookup)
{
    if (lookup && atomic_fetch_sub(&lookup->owners, 1) == 1)
        free(lookup);
}

static void *look_up(void *arg)
{
    struct link_lookup *l = arg;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    if (getaddrinfo(l->host, NULL, &hints, &list) == 0) {
        for (const struct addrinfo *i = list; i && l->count < ADDRESSES_MAX; i = i->ai_next)
            if (getnameinfo(i->ai_addr, i->ai_addrlen, l->addresses[l->count],
                            sizeof l->addresses[0], NULL, 0, NI_NUMERICHOST) == 0)
                l->count++;
        freeaddrinfo(list);
    }
    atomic_store(&l->done, true);
    peer_lookup_forget(l);
    return NULL;
}

struct link_lookup *peer_lookup_begin(const char *host)
{
    struct link_lookup *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    snprintf(l->host, sizeof l->host, "%s", host);
    atomic_init(&l->owners, 2);
    pthread_t thread;
    if (pthread_create(&thread, NULL, look_up, l)) {
        free(l);
        return NULL;
    }
    pthread_detach(thread);
    return l;
}

bool peer_lookup_pending(const struct link_lookup *lookup)
{
    return !atomic_load(&lookup->done);
}

const char *peer_lookup_next(struct link_lookup *lookup)
{
    return lookup->next < lookup->count ? lookup->addresses[lookup->next++] : NULL;
}
