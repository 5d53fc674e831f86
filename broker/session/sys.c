#include "broker/session/sys.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/session/internal.h"
#include "db/durable.h"

enum rate {
    RATE_RECEIVED,
    RATE_SENT,
    RATE_BYTES_RECEIVED,
    RATE_BYTES_SENT,
    RATE_PUBLISH_RECEIVED,
    RATE_PUBLISH_SENT,
    RATE_PUBLISH_DROPPED,
    RATE_CONNECTIONS,
    RATE_SOCKETS,
    RATES
};
static const char *const rate_names[RATES] = {
    "messages/received", "messages/sent",   "bytes/received", "bytes/sent", "publish/received",
    "publish/sent",      "publish/dropped", "connections",    "sockets",
};
static const unsigned minutes[] = {1, 5, 15};

struct sys {
    uint64_t last[RATES];
    double per_minute[RATES][CHR_COUNT_OF(minutes)];
    bool begun;
    int64_t last_us;
};

struct totals {
    uint64_t connects, sockets, packets_received, packets_sent, bytes_received, bytes_sent,
        publishes_received, publishes_sent, publishes_dropped, publishes_mapped, publishes_rejected,
        publish_bytes_received, publish_bytes_sent;
    uint64_t inflight, parked, connected, expired;
};

chr_err sys_new(struct sys **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? CHR_OK : CHR_ENOMEM;
}

void sys_free(struct sys *sys)
{
    free(sys);
}

#define READ(counter) atomic_load_explicit(&(counter), memory_order_relaxed)

static void sum_up(const struct broker_node *node, struct totals *t)
{
    *t = (struct totals){0};
    for (uint32_t i = 0; i < node->config->loops; i++) {
        struct broker_loop *loop = node->loops[i];
        if (!loop)
            continue;
        const struct loop_counters *c = &loop->counters;
        const struct loop_session_state *state = state_of(loop);
        t->connects += READ(c->connects_accepted) + READ(c->connects_refused);
        t->sockets += READ(c->connections_total);
        t->packets_received += READ(c->packets_received);
        t->packets_sent += READ(c->acks_sent) + READ(c->others_sent);
        t->publish_bytes_received += READ(c->publish_bytes_received);
        t->publish_bytes_sent += READ(c->publish_bytes_sent);
        t->inflight += READ(state->inflight_now);
        t->bytes_received += READ(c->bytes_received);
        t->bytes_sent += READ(c->bytes_sent);
        for (int q = 0; q < 3; q++) {
            t->publishes_received += READ(c->publishes[q]);
            t->publishes_sent += READ(c->publishes_sent[q]);
        }
        t->publishes_dropped += READ(c->publishes_dropped);
        t->publishes_mapped += READ(c->publishes_mapped);
        t->publishes_rejected += READ(c->publishes_rejected);
        t->parked += READ(state->parked_now);
        t->connected += READ(state->connected_now);
        t->expired += READ(state->expired_total);
    }
    t->packets_sent += t->publishes_sent;
}

static void publish(struct broker_loop *loop, const char *name, const char *value)
{
    char topic[128];
    int len = snprintf(topic, sizeof topic, "$SYS/broker/%s", name);
    struct message *m = message_new(chr_slice_of(topic, (size_t)len), CHR_LIT(""),
                                    chr_slice_cstr(value), 0, true, 0);
    if (!m)
        return;
    m->own = true;
    session__deliver_topic(loop, m);
    message_unref(m);
}

static void publish_count(struct broker_loop *loop, const char *name, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, value);
    publish(loop, name, text);
}

/* Resident memory, and the most of it so far. */
static void publish_memory(struct broker_loop *loop)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[128];
    unsigned long kib;
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "VmRSS: %lu", &kib) == 1)
            publish_count(loop, "heap/current", (uint64_t)kib << 10);
        else if (sscanf(line, "VmHWM: %lu", &kib) == 1)
            publish_count(loop, "heap/maximum", (uint64_t)kib << 10);
    }
    if (file)
        fclose(file);
}

/* Exponential averages per minute over 1, 5 and 15 minutes, as Mosquitto makes them. */
static void publish_rates(struct sys *sys, struct broker_loop *loop, const struct totals *t)
{
    const uint64_t now[RATES] = {
        t->packets_received,  t->packets_sent,       t->bytes_received,
        t->bytes_sent,        t->publishes_received, t->publishes_sent,
        t->publishes_dropped, t->connects,           t->sockets,
    };
    double seconds = (double)(loop->now_mono_us - sys->last_us) / 1e6;
    for (int r = 0; r < RATES; r++) {
        double rate =
            sys->begun && seconds > 0 ? (double)(now[r] - sys->last[r]) * 60 / seconds : 0;
        for (size_t m = 0; m < CHR_COUNT_OF(minutes); m++) {
            double weight = seconds / (60.0 * minutes[m]);
            if (weight > 1 || !sys->begun)
                weight = 1;
            sys->per_minute[r][m] += weight * (rate - sys->per_minute[r][m]);
            char name[80], value[32];
            snprintf(name, sizeof name, "load/%s/%umin", rate_names[r], minutes[m]);
            snprintf(value, sizeof value, "%.2f", sys->per_minute[r][m]);
            publish(loop, name, value);
        }
        sys->last[r] = now[r];
    }
    sys->begun = true;
    sys->last_us = loop->now_mono_us;
}

void sys_refresh(struct sys *sys, struct broker_loop *loop)
{
    struct broker_node *node = loop->node;
    struct totals t;
    sum_up(node, &t);
    struct retained_stats retained;
    retained_stats(node->retained, &retained);
    struct db_durable_stats stored = {0}; /* retained and queued messages of the log */
    if (node->db)
        db_durable_stats(node->db, &stored);
    char uptime[40];
    snprintf(uptime, sizeof uptime, "%" PRId64 " seconds",
             (loop->now_mono_us - node->started_mono_us) / 1000000);
    publish(loop, "version", "chronos version " CHRONOS_VERSION);
    publish(loop, "uptime", uptime);
    publish_count(loop, "clients/total", t.connected + t.parked);
    publish_count(loop, "clients/connected", t.connected);
    publish_count(loop, "clients/active", t.connected);
    publish_count(loop, "clients/disconnected", t.parked);
    publish_count(loop, "clients/inactive", t.parked);
    publish_count(loop, "clients/maximum", READ(node->clients_max));
    publish_count(loop, "clients/expired", t.expired);
    publish_count(loop, "messages/received", t.packets_received);
    publish_count(loop, "messages/sent", t.packets_sent);
    publish_count(loop, "messages/inflight", t.inflight);
    publish_count(loop, "messages/stored", retained.count + stored.messages);
    publish_count(loop, "store/messages/count", retained.count + stored.messages);
    publish_count(loop, "store/messages/bytes", retained.bytes + stored.message_bytes);
    publish_count(loop, "retained messages/count", retained.count + stored.retained_count);
    publish_count(loop, "subscriptions/count", subscriptions_count(node->subscriptions));
    publish_count(loop, "shared_subscriptions/count",
                  subscriptions_shared_count(node->subscriptions));
    publish_count(loop, "bytes/received", t.bytes_received);
    publish_count(loop, "bytes/sent", t.bytes_sent);
    publish_count(loop, "publish/bytes/received", t.publish_bytes_received);
    publish_count(loop, "publish/bytes/sent", t.publish_bytes_sent);
    publish_count(loop, "publish/messages/received", t.publishes_received);
    publish_count(loop, "publish/messages/sent", t.publishes_sent);
    publish_count(loop, "publish/messages/dropped", t.publishes_dropped);
    publish_count(loop, "publish/messages/mapped", t.publishes_mapped);
    publish_count(loop, "publish/messages/rejected", t.publishes_rejected);
    publish_memory(loop);
    publish_rates(sys, loop, &t);
}
