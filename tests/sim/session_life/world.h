/* tests/sim/session_life/world.h: what the files of the simulator share (tests/sim/session_life.h).
 *
 *     run.c ─ steps ─▶ faults.c, nodes.c (life and death), log.c (commit, apply, duties of the
 *                      leader), lanes.c (between nodes), client.c
 *     client.c ─ bytes ─▶ publisher.c, subscriber.c, listener.c, wills.c ─▶ model.c ◀─ tables at
 *                         the end */
#ifndef CHR_TESTS_SIM_SESSION_LIFE_WORLD_H
#define CHR_TESTS_SIM_SESSION_LIFE_WORLD_H

#include "base/hlc.h"
#include "base/random.h"
#include "bridge/peers.h"
#include "proto/mqtt/decode.h"
#include "proto/mqtt/encode.h"
#include "tests/sim/session_life.h"
#include "tests/sim/session_node/session_node.h"

#define NODES_MAX    3u
#define CLIENTS_MAX  9u
#define SUBS_MAX     3u
#define MESSAGES_MAX 8000u
#define FLIGHTS_MAX  6u
#define IDS          8u /* packet ids of a publisher: they come round soon */
#define TOPICS       4u /* of a publisher: two of a table, two plain */
#define RECEIVE_MAX  5u

struct world;

/* ---- Nodes and the log ------------------------------------------------------------------------
 */

struct life_node {
    struct session_node base; /* base.node.committer, cluster and peers point to this */
    struct world *w;
    uint32_t i;
    bool up, dying;
    int64_t paused_until_us, up_at_us;
    int64_t skew_us; /* of its wall clock */
    uint64_t boot, applied;
    struct chr_list proposals[SESSION_NODE_LOOPS]; /* not in the log */
    int64_t across_tick_us;
};

struct life_entry {
    chr_hlc hlc;
    uint8_t *bytes;
    size_t len;
    uint32_t node;
    uint64_t boot;
    struct broker_proposal
        *proposal; /* of a process that lives and has not applied it; else NULL */
};

/* What a dead process had proposed: it may still come. */
struct orphan {
    struct orphan *next;
    size_t len;
    uint8_t bytes[];
};

struct letter {
    struct letter *next;
    uint8_t kind;
    size_t len;
    uint8_t bytes[];
};
struct lane {
    struct letter *first, *last;
};

/* ---- The model --------------------------------------------------------------------------------
 */

enum need { MAY, MUST, MUST_NOT };
enum will_state {
    WILL_SENT,  /* in a CONNECT that was not answered */
    WILL_ARMED, /* its connection is there */
    WILL_LOST,  /* the connection was lost: at once, or after the delay */
    WILL_LEFT,  /* its client took leave, and that is in the log */
    WILL_OPEN,  /* either way */
    WILL_BACK   /* its client was back in time */
};

struct life_message {
    uint8_t client, qos, topic;
    bool is_will, mapped, retain;
    bool grouped;  /* when it was sent the share group had all its members */
    bool answered; /* PUBACK or PUBREC came */
    uint32_t seq, sends;
    uint64_t committed; /* the first entry that has it; 0: none */
    uint32_t expiry_s;  /* 0: none */
    uint32_t rows;
    uint32_t published;             /* as messages that took effect */
    int64_t committed_us, again_us; /* the first and the last time, by the log's time */
    struct {
        enum need need;
        uint32_t got; /* as the client counts */
        uint16_t id;  /* of its first PUBLISH */
    } to[SUBS_MAX];
    enum will_state will;
    uint32_t will_delay_s;
    int64_t will_lost_us; /* by the log's time */
    int64_t will_left_us; /* its client took leave; 0: it did not */
};

/* ---- Clients ----------------------------------------------------------------------------------
 */

enum client_state { DOWN, CONNECTING, OPEN, LEAVING };

/* SENT: PUBLISH, until PUBACK or PUBREC; RECEIVED: PUBREC came, PUBREL is owed; RELEASED: it went.
 */
enum flight_state { FREE, SENT, RECEIVED, RELEASED };
struct flight {
    enum flight_state state;
    uint32_t number;
    uint16_t id;
};

struct owed {
    uint8_t type;
    uint16_t id;
};

/* A filter of a subscriber. */
enum filter_state { FILTER_OFF, FILTER_ON, FILTER_UNSURE };
struct filter {
    enum filter_state state;
    uint16_t asked; /* packet id of a SUBSCRIBE or UNSUBSCRIBE on its way; 0: none */
    bool wanted;
    uint64_t known; /* its state is in the log up to here */
};
#define FILTERS 2u
extern const char *const life_filters[FILTERS];

/* SUBSCRIBER: durable. LISTENER: its session ends with its connection. */
enum client_kind { PUBLISHER, SUBSCRIBER, LISTENER };

struct client {
    struct world *w;
    enum client_kind kind;
    uint32_t i, sub; /* sub: number among the subscribers; SUBS_MAX: none of them */
    char id[8];
    enum mqtt_version version;
    uint32_t expiry_s; /* UINT32_MAX: never */
    enum client_state state;
    int fd;
    uint32_t node;
    uint64_t boot;
    int64_t since_us;   /* when it began to connect */
    bool known;         /* it was told that it has a session */
    int64_t lost_us;    /* when it knew last that its session lived, by the log's time */
    uint64_t epoch;     /* as the log had it when CONNECT was sent */
    uint64_t own_epoch; /* and when it was answered */
    uint32_t generation, own_generation, closed_generation;
    uint32_t left_will; /* number of the will of a connection that was taken leave of; 0: none */
    uint32_t left_node, left_generation;
    uint64_t left_boot;
    uint32_t will; /* number of its message; 0: none */
    uint8_t in[1 << 14];
    size_t in_len;
    /* Publisher */
    struct flight flights[FLIGHTS_MAX]; /* in the order of sending */
    uint32_t flights_count, window;
    uint16_t last_id;
    uint32_t seq[TOPICS][3];
    /* Subscriber */
    uint8_t qos;
    uint16_t receive_max;
    uint32_t unanswered; /* PUBLISHes of this connection */
    struct owed owed[64];
    uint32_t owed_count;
    bool *received; /* [65536], packet ids between PUBREC and PUBCOMP */
    bool *counted;  /* [65536], of this connection: in unanswered */
    struct filter filters[FILTERS];
    uint32_t last_seen[CLIENTS_MAX][TOPICS][3];
    /* Listener */
    uint8_t *heard;         /* [MESSAGES_MAX], on this connection */
    uint32_t since_message; /* those from this number on came after its SUBACK; 0: there was none */
    int64_t closed_us;      /* when the log was seen to have its session closed, by its time; 0: it
                               was not */
    bool over;              /* by the log's time it had expired before CONNECT was sent */
    int64_t connected_us;   /* by its node's state of the log, at CONNECT */
};

struct world {
    const struct session_life_options *options;
    struct session_life_report *report;
    struct chr_random random;
    int64_t now_us; /* since the beginning */
    uint32_t nodes_count, clients_count, subs_count;
    struct life_node nodes[NODES_MAX];
    uint32_t leader; /* NODES_MAX: none */
    int64_t leads_since_us, wills_us, down_us;
    struct life_entry *entries; /* [entries_count]; index - 1 */
    uint64_t entries_count, entries_max;
    chr_hlc hlc;
    struct orphan *orphans, *orphans_last;
    struct session_node oracle; /* a database that applies every entry at once */
    struct lane lanes[NODES_MAX][NODES_MAX][PEERS_LANES];
    bool linked[NODES_MAX][NODES_MAX];
    struct client clients[CLIENTS_MAX];
    struct {
        int fd;
        int64_t until_us;
    } half_open[64]; /* connections that their clients have given up, and nodes have not */
    uint32_t half_open_count;
    struct client *subs[SUBS_MAX];
    struct life_message *messages; /* [messages_count]; 0 is none */
    uint32_t messages_count;
    bool healing; /* no more faults, nothing new */
    /* How nasty it is, in 10,000 per step */
    uint32_t kill, blackout, pause, lose, jump, lag, hold;
    bool shared;      /* plain topics: the durable subscribers are a share group there */
    bool hours_apart; /* clocks; then node 0 alone leads: what expires by its clock expires */
};

/* ---- run.c ------------------------------------------------------------------------------------
 */

void life_broken(struct world *w, const char *format, ...) CHR_PRINTF(2, 3);
void life_say(const struct world *w, const char *format, ...) CHR_PRINTF(2, 3);
bool life_chance(struct world *w, uint32_t in_10000);
uint32_t life_below(struct world *w, uint32_t bound);
void life_digest(struct world *w, uint64_t value);

/* ---- nodes.c ----------------------------------------------------------------------------------
 */

void life_start(struct life_node *n);
/* As by kill -9: connections, proposals and memory are gone. */
void life_kill(struct life_node *n);
void life_checkpoint(struct life_node *n);
bool life_runs(const struct life_node *n); /* up, and not paused */
void life_set_clocks(struct world *w);
uint64_t life_number(uint32_t i);

/* ---- log.c ------------------------------------------------------------------------------------
 */

struct db *log_oracle(const struct world *w);
/* By the stamp of the last entry. */
int64_t log_time_us(const struct world *w);
bool log_majority(const struct world *w);
/* One proposal of the node's becomes an entry. False: it has none. */
bool log_commit(struct life_node *n);
bool log_commit_orphan(struct world *w);
void log_apply(struct life_node *n, uint64_t most);
/* What a leader sees to: ticks (R13), wills nobody published, nodes that are no more (C4). */
void log_duties(struct world *w);
void log_elect(struct world *w);
/* Proposals of a process that ends: some may be on their way, nobody hears of any. */
void log_forget(struct life_node *n);
void log_free(struct world *w);

/* ---- lanes.c ----------------------------------------------------------------------------------
 */

void lanes_link(struct world *w);
void lanes_cut(struct world *w, uint32_t a, uint32_t b);
bool lanes_deliver(struct world *w, uint32_t from, uint32_t to, uint32_t most);
/* The turn of across's own thread. */
void lanes_turn(struct life_node *n);
void lanes_started(struct life_node *n);

/* ---- client.c ---------------------------------------------------------------------------------
 */

void client_init(struct world *w, uint32_t i, enum client_kind kind);
void client_connect(struct client *c);
void client_read(struct client *c);
/* The connection is lost; some of what was on its way to the client still comes, perhaps not all.
 */
void client_lose(struct client *c, bool all_comes);
void client_leave(struct client *c); /* DISCONNECT */
/* Whole, or a part of it and the connection is lost. False: lost. */
bool client_send(struct client *c, const uint8_t *bytes, size_t len);
void client_step(struct client *c);
bool client_session_ended(const struct client *c);
/* It connects anew while a node still has its old connection. */
void client_desert(struct client *c);
void clients_close_half_open(struct world *w, bool all);
void client_free(struct client *c);
/* An acknowledgement, some time. */
void client_owe(struct client *c, uint8_t type, uint16_t id);
void client_answer(struct client *c); /* the first that is owed */

/* ---- publisher.c, subscriber.c, listener.c, wills.c
 * -------------------------------------------------------
 */

void publisher_step(struct client *c);
void publisher_resume(struct client *c, bool present);
void publisher_ack(struct client *c, uint8_t type, const struct mqtt_ack *ack);
bool publisher_idle(const struct client *c);

void subscriber_step(struct client *c);
void subscriber_resume(struct client *c, bool present);
void subscriber_publish(struct client *c, const struct mqtt_publish *publish);
void subscriber_pubrel(struct client *c, const struct mqtt_ack *ack);
void subscriber_suback(struct client *c, uint16_t packet_id, uint8_t code, bool subscribed);
bool subscriber_idle(const struct client *c);

void listener_resume(struct client *c);
void listener_publish(struct client *c, const struct mqtt_publish *publish);
void listener_suback(struct client *c, const struct mqtt_suback *suback);
void listener_check(struct client *c);

/* The will of the next connection; 0: none. */
uint32_t will_make(struct client *c);
void will_connected(struct client *c);
void will_lost(struct client *c);
void will_left(struct client *c);
/* Its client is back, before the connection that had it was known to be gone or after. */
void will_back(struct client *c);
/* Once a step: is what its client said on leaving in the log? */
void will_settle(struct client *c);
void wills_check(struct world *w);

/* ---- model.c ----------------------------------------------------------------------------------
 */

/* 0: there are enough. */
uint32_t model_message(struct client *c, uint8_t topic, uint8_t qos);
size_t model_topic(const struct world *w, uint32_t number, char *out, size_t room);
size_t model_payload(const struct world *w, uint32_t number, char *out, size_t room);
/* The number of a payload; 0: none. */
uint32_t model_number(chr_slice bytes);
void model_sent(struct client *c, uint32_t number);
void model_committed(struct world *w, uint64_t index, chr_slice bytes,
                     const struct db_apply_result *result);
bool model_matches(const struct world *w, uint32_t filter, const struct life_message *m);
/* A filter is about to change: what is not in the log yet may go either way. */
void model_unsure(struct world *w, uint32_t sub, uint32_t filter);
/* Is it for one of the group, whoever that is? How often did any of them get it? */
bool model_of_group(const struct world *w, const struct life_message *m);
uint32_t model_got(const struct world *w, const struct life_message *m);
/* A message came to a client. */
void model_seen(struct client *c, uint32_t number);
/* The session of this subscriber is gone. */
void model_forgotten(struct world *w, uint32_t sub);
void model_check(struct world *w);

/* ---- compare.c --------------------------------------------------------------------------------
 */

/* Rows of readings: how often each message is there. False: it can't be read. */
bool compare_count_rows(struct world *w, struct db *db, uint32_t *rows);
/* The number of the message retained for a topic; 0: none. */
uint32_t compare_retained(struct world *w, struct db *db, chr_slice topic);
/* A digest of what a database has of tables and sessions. */
uint64_t compare_digest(struct world *w, struct db *db);

#endif
