/* bench/publisher.c */
#include "bench/publisher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "bench/net.h"

enum { PUBACK = 0x40, PUBREC = 0x50, PUBREL = 0x62, PUBCOMP = 0x70, DISCONNECT = 0xE0 };

int publisher_open(struct publisher *p, struct publisher_run *run, uint32_t index,
                   struct fleet_slice slice, const char *address, const char *client_id)
{
    *p = (struct publisher){.run = run,
                            .slice = slice,
                            .index = index,
                            .quota = UINT64_MAX,
                            .probe = UINT64_MAX,
                            .fd = net_connect(address)};
    struct net_connack connack;
    if (p->fd < 0 || net_mqtt_connect(p->fd, run->mqtt_version, client_id, &connack) != 0)
        return -1;
    if (connack.receive_max < run->window) {
        fprintf(stderr, "the server's Receive Maximum lowers the window to %u\n",
                connack.receive_max);
        run->window = connack.receive_max;
        run->refill = run->refill < run->window ? run->refill : run->window;
    }
    if (run->time_each)
        p->sent_ns = calloc(slice.rows, sizeof *p->sent_ns);
    if (run->qos == 2)
        p->control = malloc((size_t)run->window * 4);
    if ((run->time_each && !p->sent_ns) || (run->qos == 2 && !p->control)) {
        fprintf(stderr, "publisher: out of memory\n");
        return -1;
    }
    return fcntl(p->fd, F_SETFL, O_NONBLOCK);
}

void publisher_close(struct publisher *p)
{
    static const uint8_t disconnect[2] = {DISCONNECT, 0};
    if (p->fd >= 0) {
        if (send(p->fd, disconnect, 2, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EPIPE &&
            errno != ECONNRESET)
            perror("DISCONNECT");
        close(p->fd);
    }
    free(p->sent_ns);
    free(p->control);
    p->fd = -1;
}

/* 1: all out; 0: the socket is full; -1: broken. */
static int send_bytes(struct publisher *p, const uint8_t *bytes, uint32_t len, uint32_t *sent)
{
    ssize_t n = send(p->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    *sent = 0;
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return 0;
        fprintf(stderr, "connection %u: send: %s\n", p->index, strerror(errno));
        return -1;
    }
    *sent = (uint32_t)n;
    return *sent == len;
}

/* Sends the slice's bytes from bytes_pos to queue_pos, in two pieces when that wraps. */
static int flush_packets(struct publisher *p)
{
    while (p->unsent) {
        uint32_t goal = p->slice.starts[p->queue_pos];
        uint32_t end = goal > p->bytes_pos ? goal : p->slice.starts[p->slice.rows];
        uint32_t sent;
        int all = send_bytes(p, p->slice.packets + p->bytes_pos, end - p->bytes_pos, &sent);
        p->bytes_pos += sent;
        if (all <= 0) {
            p->blocked = all == 0;
            return all;
        }
        if (p->bytes_pos == p->slice.starts[p->slice.rows])
            p->bytes_pos = 0;
        p->unsent = p->bytes_pos != goal;
    }
    return 1;
}

/* PUBRELs go between whole packets, hence after flush_packets. */
static int flush_control(struct publisher *p)
{
    if (p->control_len == p->control_pos)
        return 1;
    uint32_t sent;
    int all = send_bytes(p, p->control + p->control_pos, p->control_len - p->control_pos, &sent);
    p->control_pos += sent;
    if (p->control_pos == p->control_len)
        p->control_pos = p->control_len = 0;
    p->blocked = all == 0;
    return all;
}

/* How many messages may be queued now. */
static uint32_t allowance(const struct publisher *p, uint64_t now_ns)
{
    const struct publisher_run *run = p->run;
    uint64_t free_slots = run->window - (p->queued - p->acked);
    uint64_t left = p->quota - p->queued;
    if (run->interval_ns > 0) {
        double turns = (double)(now_ns - run->start_ns) / run->interval_ns - p->index;
        uint64_t due = turns < 0 ? 0 : 1 + (uint64_t)(turns / run->connections);
        uint64_t owed = due > p->queued ? due - p->queued : 0;
        left = owed < left ? owed : left;
    } else if (free_slots < run->refill && free_slots < left) {
        return 0; /* a fuller send is worth the wait */
    }
    return (uint32_t)(left < free_slots ? left : free_slots);
}

static uint64_t due_ns(const struct publisher *p, uint64_t number)
{
    double turn = (double)number * p->run->connections + p->index;
    return p->run->start_ns + (uint64_t)(turn * p->run->interval_ns);
}

/* Stamps `count` more messages and moves the end of what is to be sent. */
static void queue(struct publisher *p, uint32_t count, uint64_t now_ns)
{
    struct publisher_run *run = p->run;
    uint32_t rows = p->slice.rows;
    if (run->time_each) {
        for (uint32_t i = 0; i < count; i++)
            p->sent_ns[(p->queue_pos + i) % rows] = now_ns;
    } else if (p->probe == UINT64_MAX) {
        p->probe = p->queued + count - 1;
        p->probe_ns = now_ns;
    }
    while (count > 0) {
        uint32_t run_len = rows - p->queue_pos < count ? rows - p->queue_pos : count;
        uint32_t lap = run->first_lap + (uint32_t)(p->queued / rows);
        if (lap > 0)
            fleet_stamp(&p->slice, p->queue_pos, run_len, lap);
        p->queued += run_len;
        p->queue_pos = p->queue_pos + run_len == rows ? 0 : p->queue_pos + run_len;
        p->unsent = true;
        count -= run_len;
    }
}

int publisher_pump(struct publisher *p, uint64_t now_ns)
{
    if (p->blocked)
        return 0;
    int more = flush_packets(p);
    if (more > 0)
        more = flush_control(p);
    if (more <= 0)
        return more;
    uint32_t count = allowance(p, now_ns);
    if (count == 0)
        return 0;
    queue(p, count, now_ns);
    if (p->run->qos == 0) { /* nothing comes back: what the socket took counts */
        p->acked = p->queued;
        p->ack_pos = p->queue_pos;
    }
    return flush_packets(p) < 0 ? -1 : 0;
}

static int wrong(const struct publisher *p, const char *what, uint32_t id)
{
    fprintf(stderr, "connection %u: %s %u; expected %u (%llu of %llu published are acknowledged)\n",
            p->index, what, id, p->ack_pos + 1, (unsigned long long)p->acked,
            (unsigned long long)p->queued);
    return -1;
}

/* Message number p->acked is acknowledged. */
static inline void count_ack(struct publisher *p)
{
    p->ack_pos = p->ack_pos + 1 == p->slice.rows ? 0 : p->ack_pos + 1;
    p->acked++;
}

static void time_acks(struct publisher *p, uint64_t first, uint64_t now_ns)
{
    struct publisher_run *run = p->run;
    if (run->time_each) {
        for (uint64_t n = first; n < p->acked; n++) {
            uint64_t sent_ns = p->sent_ns[n % p->slice.rows];
            histogram_add(&run->sent, now_ns - sent_ns);
            if (run->samples_count < run->samples_max)
                run->samples[run->samples_count++] = (struct publisher_sample){sent_ns, now_ns};
            uint64_t due = due_ns(p, n);
            histogram_add(&run->due, now_ns > due ? now_ns - due : 0);
        }
    } else if (p->probe != UINT64_MAX && p->probe < p->acked) {
        histogram_add(&run->sent, now_ns - p->probe_ns);
        p->probe = UINT64_MAX;
    }
}

/* A PUBACK or PUBCOMP, or a PUBREC that refuses: the end of one message. */
static int finish(struct publisher *p, uint32_t id, uint8_t reason)
{
    if (id != p->ack_pos + 1 || p->acked == p->queued)
        return wrong(p, "acknowledgement twice, out of order or never published:", id);
    if (reason >= 0x80) {
        p->refused++;
        p->refused_reason = reason;
    }
    count_ack(p);
    return 0;
}

/* Any whole packet that the fast loop left. body: after the fixed header. */
static int take_packet(struct publisher *p, uint8_t type, const uint8_t *body, size_t len)
{
    uint32_t id = len >= 2 ? chr_get_u16be(body) : 0;
    uint8_t reason = len >= 3 ? body[2] : 0;
    if (type == PUBACK && p->run->qos == 1 && len >= 2)
        return finish(p, id, reason);
    if (type == PUBCOMP && p->run->qos == 2 && len >= 2 && p->acked < p->received)
        return finish(p, id, reason);
    if (type == PUBREC && p->run->qos == 2 && len >= 2) {
        if (id != p->receive_pos + 1 || p->received == p->queued)
            return wrong(p, "PUBREC twice, out of order or never published:", id);
        p->receive_pos = p->receive_pos + 1 == p->slice.rows ? 0 : p->receive_pos + 1;
        p->received++;
        if (reason >= 0x80)
            return finish(p, id, reason);
        if (p->control_pos > 0) {
            memmove(p->control, p->control + p->control_pos, p->control_len - p->control_pos);
            p->control_len -= p->control_pos;
            p->control_pos = 0;
        }
        uint8_t *out = p->control + p->control_len;
        out[0] = PUBREL;
        out[1] = 2;
        chr_put_u16be(out + 2, (uint16_t)id);
        p->control_len += 4; /* P1: one for each of the window */
        return 0;
    }
    if (type == DISCONNECT)
        return wrong(p, "server disconnects, reason", len ? body[0] : 0);
    return wrong(p, "unexpected packet of type", type);
}

/* The common case: PUBACKs of four bytes, in order. Returns how many bytes are done with. */
static size_t take_plain_pubacks(struct publisher *p, const uint8_t *in, size_t len)
{
    size_t most = len / 4;
    uint64_t open = p->queued - p->acked;
    if (open < most)
        most = (size_t)open;
    uint32_t pos = p->ack_pos, rows = p->slice.rows;
    size_t n = 0;
    while (n < most && chr_get_u32be(in + 4 * n) == (0x40020000u | (pos + 1))) {
        pos = pos + 1 == rows ? 0 : pos + 1;
        n++;
    }
    p->ack_pos = pos;
    p->acked += n;
    return 4 * n;
}

/* Takes whole packets; returns the bytes used, or -1. */
static int64_t take_packets(struct publisher *p, const uint8_t *in, size_t len)
{
    size_t used = 0;
    while (len - used >= 2) {
        if (p->run->qos == 1) {
            used += take_plain_pubacks(p, in + used, len - used);
            if (len - used < 2)
                break;
        }
        size_t body = in[used + 1], header = 2;
        if (body >= 128) {
            if (len - used < 3)
                break;
            if (in[used + 2] >= 128)
                return wrong(p, "packet too long, type", in[used]);
            body = (body & 127) | (size_t)in[used + 2] << 7;
            header = 3;
        }
        if (len - used < header + body)
            break;
        if (take_packet(p, in[used], in + used + header, body) != 0)
            return -1;
        used += header + body;
    }
    return (int64_t)used;
}

int64_t publisher_drain(struct publisher *p)
{
    uint8_t *in = p->run->inbox;
    size_t kept = p->rest_len;
    memcpy(in, p->rest, kept);
    ssize_t n = recv(p->fd, in + kept, PUBLISHER_INBOX - kept, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        fprintf(stderr, "connection %u: %s\n", p->index,
                n == 0 ? "closed by the server" : strerror(errno));
        return -1;
    }
    size_t len = kept + (size_t)n;
    uint64_t first = p->acked;
    int64_t used = take_packets(p, in, len);
    if (used < 0)
        return -1;
    p->rest_len = (uint32_t)(len - (size_t)used);
    if (p->rest_len > PUBLISHER_REST)
        return wrong(p, "packet too long, type", in[used]);
    memcpy(p->rest, in + used, p->rest_len);
    if (p->run->time_each || p->probe < p->acked)
        time_acks(p, first, net_now_ns());
    return (int64_t)(p->acked - first);
}
