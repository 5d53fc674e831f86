/* bench/bench_subscribe.c: one subscriber to everything, beside a load.
 *
 * Prints `subscribed` on stderr when it is, receives until SIGTERM, then until nothing has come for
 * 200 ms, and prints one JSON object.
 *
 *   bench_subscribe HOST:PORT FILTER [QOS 0] [VERSION 5] */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/net.h"
#include "bench/subscriber.h"

static volatile sig_atomic_t ended;

static void on_signal(int signal)
{
    (void)signal;
    ended = 1;
}

int main(int argc, char **argv)
{
    struct subscriber s = {.fd = -1};
    if (argc < 3) {
        fprintf(stderr, "bench_subscribe HOST:PORT FILTER [QOS] [VERSION]\n");
        return 2;
    }
    int qos = argc > 3 ? atoi(argv[3]) : 0;
    int version = argc > 4 && strcmp(argv[4], "311") == 0 ? 4 : 5;
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: poll has to return */
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    if (subscriber_open(&s, argv[1], version, "bench-subscriber", argv[2], qos) != 0)
        return 1;
    fprintf(stderr, "subscribed\n");
    int status = 0;
    for (;;) {
        struct pollfd ready = {.fd = s.fd, .events = POLLIN};
        int n = poll(&ready, 1, ended ? 200 : -1);
        if (n == 0 || (n < 0 && errno != EINTR))
            break;
        if (n > 0 && subscriber_drain(&s) < 0) {
            status = 1;
            break;
        }
    }
    printf("{\"messages\":%" PRIu64 ",\"bytes\":%" PRIu64 "}\n", s.messages, s.bytes);
    subscriber_close(&s);
    return status;
}
