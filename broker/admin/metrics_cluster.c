/* broker/admin/metrics_cluster.c: of GET /metrics what a member of a cluster has to tell: what the
 * core did, how the others are, what goes between them. Labels: peer, a node's name; lane. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/num.h"
#include "broker/admin/internal.h"
#include "broker/cluster.h"
#include "broker/session/across.h"

static const char *const lanes[PEERS_LANES] = {[PEERS_CONTROL] = "control", [PEERS_BULK] = "bulk"};

struct told {
    struct cluster *cluster;
    struct cluster_member members[CLUSTER_MEMBERS_MAX]; /* ourselves first */
    uint32_t count;
    struct broker_cluster_status status;
};

/* ---- Lanes ------------------------------------------------------------------------------------
 */

static const struct lane_metric {
    const char *name, *type, *help;
    size_t offset;
} lane_metrics[] = {
#define LANE(field) offsetof(struct peers_lane_stats, field)
    {"messages_sent_total", "counter", "Messages sent to a peer.", LANE(messages_sent)},
    {"messages_received_total", "counter", "Messages received from a peer.",
     LANE(messages_received)},
    {"sent_bytes_total", "counter", "Their bytes, uncompressed.", LANE(bytes_sent)},
    {"received_bytes_total", "counter", "Their bytes, uncompressed.", LANE(bytes_received)},
    {"wire_sent_bytes_total", "counter", "Bytes sent as they went over the network.",
     LANE(wire_bytes_sent)},
    {"connects_total", "counter", "Connections made to a peer.", LANE(connects)},
    {"full_total", "counter", "Messages that waited because a window was full.", LANE(full)},
    {"outstanding_bytes", "gauge", "Sent and not taken yet by the peer.", LANE(outstanding_bytes)},
};

static void add_lanes(const struct told *t, struct chr_buf *out)
{
    struct peers *peers = cluster_peers(t->cluster);
    struct peers_lane_stats stats;
    admin__metric_head(out, "chronos_peer_lane_up", "gauge",
                       "1 while our connection of this lane to a peer stands.");
    for (uint32_t i = 1; i < t->count; i++)
        for (int lane = 0; lane < PEERS_LANES; lane++)
            if (!peers_lane_stats(peers, t->members[i].node, (enum peers_lane)lane, &stats))
                chr_buf_addf(out, "chronos_peer_lane_up{peer=\"%s\",lane=\"%s\"} %d\n",
                             t->members[i].name, lanes[lane], stats.up);
    for (size_t m = 0; m < CHR_COUNT_OF(lane_metrics); m++) {
        const struct lane_metric *metric = &lane_metrics[m];
        char name[80];
        snprintf(name, sizeof name, "chronos_peer_%s", metric->name);
        admin__metric_head(out, name, metric->type, metric->help);
        for (uint32_t i = 1; i < t->count; i++)
            for (int lane = 0; lane < PEERS_LANES; lane++)
                if (!peers_lane_stats(peers, t->members[i].node, (enum peers_lane)lane, &stats))
                    chr_buf_addf(
                        out, "%s{peer=\"%s\",lane=\"%s\"} %" PRIu64 "\n", name, t->members[i].name,
                        lanes[lane],
                        *(const uint64_t *)(const void *)((const char *)&stats + metric->offset));
    }
    admin__metric(out, "counter", "chronos_peer_strangers_total", peers_strangers(peers),
                  "Connections that wanted to be a peer's and were refused.");
}

/* ---- The others -------------------------------------------------------------------------------
 */

static void add_peers(const struct told *t, struct chr_buf *out)
{
    admin__metric_head(out, "chronos_peer_member", "gauge",
                       "2: a peer is a voter, 1: a learner, 0: no member.");
    for (uint32_t i = 1; i < t->count; i++)
        chr_buf_addf(out, "chronos_peer_member{peer=\"%s\"} %d\n", t->members[i].name,
                     t->members[i].voter ? 2 : t->members[i].member);
    admin__metric_head(out, "chronos_peer_lag_entries", "gauge",
                       "Entries of the leader's log that a peer has not on its disk; of the leader "
                       "alone.");
    for (uint32_t i = 1; i < t->count; i++)
        if (t->members[i].lag != UINT64_MAX)
            chr_buf_addf(out, "chronos_peer_lag_entries{peer=\"%s\"} %" PRIu64 "\n",
                         t->members[i].name, t->members[i].lag);
    admin__metric_head(out, "chronos_peer_clock_skew_seconds", "gauge",
                       "A peer's clock less ours.");
    for (uint32_t i = 1; i < t->count; i++) {
        char text[CHR_NUM_TEXT_MAX];
        if (t->members[i].skew_us == INT64_MIN)
            continue;
        chr_format_f64((double)t->members[i].skew_us / 1e6, text);
        chr_buf_addf(out, "chronos_peer_clock_skew_seconds{peer=\"%s\"} %s\n", t->members[i].name,
                     text);
    }
}

static void add_deliveries(const struct broker_node *node, const struct told *t,
                           struct chr_buf *out)
{
    struct across_stats stats;
    struct across *across = across_of(node);
    admin__metric_head(out, "chronos_peer_filters", "gauge",
                       "Filters of a peer's subscribers, as far as it has told them.");
    for (uint32_t i = 1; across && i < t->count; i++)
        if (!across_stats(across, t->members[i].node, &stats))
            chr_buf_addf(out, "chronos_peer_filters{peer=\"%s\"} %" PRIu64 "\n", t->members[i].name,
                         stats.filters);
    admin__metric_head(out, "chronos_peer_delivery_queued_bytes", "gauge",
                       "Messages for a peer's subscribers that it has not taken yet.");
    for (uint32_t i = 1; across && i < t->count; i++)
        if (!across_stats(across, t->members[i].node, &stats))
            chr_buf_addf(out, "chronos_peer_delivery_queued_bytes{peer=\"%s\"} %" PRIu64 "\n",
                         t->members[i].name, stats.queued_bytes);
}

static void add_snapshots(const struct told *t, struct chr_buf *out)
{
    struct snapshots_stats s;
    cluster_snapshots_stats(t->cluster, &s);
    admin__metric(out, "counter", "chronos_snapshots_sent_total", s.sent,
                  "Snapshots sent to nodes that were too far behind.");
    admin__metric(out, "counter", "chronos_snapshots_received_total", s.received,
                  "Snapshots received since the start.");
    admin__metric(out, "counter", "chronos_snapshot_sent_bytes_total", s.sent_bytes,
                  "Their bytes.");
    admin__metric(out, "counter", "chronos_snapshot_received_bytes_total", s.received_bytes,
                  "Their bytes.");
    admin__metric(out, "gauge", "chronos_snapshot_sending_part", s.sending_part,
                  "Parts sent of the one that is under way.");
    admin__metric(out, "gauge", "chronos_snapshot_sending_parts", s.sending_parts,
                  "Parts it has; 0: none is under way.");
    admin__metric(out, "gauge", "chronos_snapshot_receiving_part", s.receiving_part,
                  "Parts received of the one that comes.");
    admin__metric(out, "gauge", "chronos_snapshot_receiving_parts", s.receiving_parts,
                  "Parts it has; 0: none has come.");
}

static void add_core(const struct told *t, const struct broker_committer_stats *c,
                     struct chr_buf *out)
{
    admin__metric(out, "gauge", "chronos_quorum", t->status.quorum,
                  "1 when a majority answers this leader, or this node hears a leader.");
    admin__metric(out, "gauge", "chronos_member", (uint64_t)cluster_place(t->cluster),
                  "2: this node is a voter, 1: a learner, 0: no member, 3: removed.");
    admin__metric(out, "gauge", "chronos_commit_index", t->status.commit_index,
                  "Index of the last entry known to be committed.");
    admin__metric(out, "counter", "chronos_elections_total", c->elections,
                  "Elections that this node began.");
    admin__metric(out, "counter", "chronos_elections_won_total", c->elections_won,
                  "Elections that it won.");
    admin__metric(out, "counter", "chronos_forwarded_total", c->forwarded,
                  "Entries that this node forwarded to the leader.");
    admin__metric(out, "counter", "chronos_forwarded_again_total", c->forwarded_again,
                  "Entries forwarded once more, because no answer came.");
    admin__metric_head(out, "chronos_reads_total", "counter",
                       "Linearizable reads, by what made them so.");
    chr_buf_addf(out,
                 "chronos_reads_total{by=\"lease\"} %" PRIu64
                 "\nchronos_reads_total{by=\"round\"} %" PRIu64
                 "\nchronos_reads_total{by=\"leader\"} %" PRIu64 "\n",
                 c->reads_lease, c->reads_round, c->reads_asked);
}

void admin__metrics_cluster(const struct broker_node *node, const struct broker_committer_stats *c,
                            struct chr_buf *out)
{
    struct told *t = calloc(1, sizeof *t);
    if (!t)
        return;
    t->cluster = node->cluster;
    t->count = cluster_members(node->cluster, t->members, &t->status);
    add_core(t, c, out);
    add_peers(t, out);
    add_lanes(t, out);
    add_deliveries(node, t, out);
    add_snapshots(t, out);
    free(t);
}
