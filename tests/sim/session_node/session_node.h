/* tests/sim/session_node/session_node.h: loops, sessions and database of a node, in one thread.
 *
 * The shipped objects above a store in memory. session_node.c compiles loop.c in, without its
 * threads and without sleeping: its turns are called. In place of the query pool requests wait
 * until they are answered. Time stands until it is moved.
 *
 * Who links this says what becomes of proposals: it defines broker_propose_from_loop and the others
 * of broker/committer.h that sessions call (tests/fuzz/session_node.h: they are applied in order;
 * tests/sim/session_life: they go into a log that several nodes share). The linker finds those
 * before the library's; several nodes are told apart by node.committer, which is whatever the
 * definer likes.
 *
 *     config ─▶ open (database) ─▶ [entries are applied] ─▶ start (sessions, loops) ─▶ turns ─▶
 *     stop (loops) ─▶ close (database); the store stays, and another open finds what it has */
#ifndef CHR_TESTS_SIM_SESSION_NODE_H
#define CHR_TESTS_SIM_SESSION_NODE_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/list.h"
#include "broker/config.h"
#include "broker/net/listener.h"
#include "broker/node.h"
#include "tests/sim/fake_clock.h"
#include "tests/sim/fake_kv.h"

#define REQUIRE(cond)                                                                              \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define SESSION_NODE_LOOPS 2

struct session_node {
    struct broker_config config;
    struct fake_clock clock;
    fake_kv *fake; /* made by config, freed by whoever is done with the node */
    struct broker_node node;
    struct broker_loop *loops[SESSION_NODE_LOOPS];
    struct listener listener;
    struct chr_list queries; /* query_request.link */
};

/* Forgets everything; small limits, a store, the clock. */
void session_node_config(struct session_node *n);
/* node.committer, and in a cluster node.cluster, node.peers and node.dir, are set in between. */
void session_node_open(struct session_node *n);
void session_node_start(struct session_node *n);
/* Each loop once. */
void session_node_turn(struct session_node *n);
/* From now on the loops stop; what they proposed has to be answered before session_node_stop. */
void session_node_stopping(struct session_node *n);
void session_node_stop(struct session_node *n);
void session_node_close(struct session_node *n);
/* A connection, as if accepted. fd is taken. */
void session_node_adopt(struct session_node *n, unsigned loop, int fd);
/* The oldest request; parts: how many parts its answer has, 0: an error. False: there is none. */
bool session_node_answer_query(struct session_node *n, uint32_t parts);

#endif
