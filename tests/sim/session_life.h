/* tests/sim/session_life.h: MQTT sessions over kills, hops and late commits, driven by a seed.
 *
 * One to three nodes with the shipped loops, sessions and databases (tests/sim/session_node), in
 * one thread. What is between them is ideal: one log, an ordered list of entries that each node
 * applies at its own pace. A proposal becomes an entry at once, later, or never; when its node is
 * killed nobody is told which. Clients speak real MQTT bytes over socket pairs, 3.1.1 and 5.0; they
 * lose their connections at any byte, come back to any node and repeat what the standard says.
 *
 * What must hold, by what the clients saw alone:
 *   S1  PUBACK, PUBREC: the message is in an entry of the log by then. PUBCOMP: the log has
 *       forgotten the packet id by then. PUBREL: the log has noted PUBREC by then (R5, R8).
 *       CONNACK of a durable session, SUBACK, UNSUBACK: their operations are in the log by then,
 *       and so is a reading that comes to anybody
 *   S2  a reading at QoS 2 is in the table once when it was answered, never twice; one at QoS 1 at
 *       least once when it was answered, and no more often than it was sent
 *   S3  a durable subscriber gets what was published after its SUBACK: at QoS 2 once, as a client
 *       counts that goes by packet ids between PUBREC and PUBCOMP; at QoS 1 at least once; in the
 *       order of each publisher and topic; the same message under the same packet id, marked DUP,
 *       and no more at a time than its Receive Maximum. Another subscriber hears each reading of
 *       QoS 2 once at most, and everything while nothing but connections is lost
 *       Of a share group one member gets each
 *   S4  a will is published once when its connection was lost, never when its client took leave or
 *       came back before the delay had passed
 *   S5  sessions and messages expire by the time of the log, whatever the clocks of nodes say
 *   S6  healed: all handshakes complete, all queues empty, and all nodes have what the log says, as
 *       chronos check --against compares them */
#ifndef CHR_TESTS_SIM_SESSION_LIFE_H
#define CHR_TESTS_SIM_SESSION_LIFE_H

#include <stdbool.h>
#include <stdint.h>

struct session_life_options {
    uint64_t seed;
    uint32_t nodes; /* 1 to 3; 0: by the seed */
    uint32_t steps; /* before everything is healed */
    bool verbose;   /* every event to stdout */
};

struct session_life_report {
    uint64_t steps, entries, messages, resent, answered, delivered, repeated;
    uint64_t kills, blackouts, hops, connections, takeovers, wills, expired, checkpoints;
    uint64_t digest;  /* of everything clients saw: equal for equal seeds */
    char broken[240]; /* what was, "" when nothing was */
};

/* False: something is broken. */
bool session_life_run(const struct session_life_options *options,
                      struct session_life_report *report);

#endif
