/* broker/net/conn_partial.c: the sum of packets that have not arrived whole.
 *
 * A client may begin a packet of max_packet_size and take its time; a fleet of them must not take
 * all memory. So before more than PARTIAL_FREE_BYTES of one packet are kept, its whole size is
 * reserved from the loop's share of max_partial_bytes. Who finds no room is not read, and so takes
 * none, until somebody else's packet is complete; whoever has a reservation can always be received
 * to the end, so there is no deadlock. One who holds a reservation that others wait for, and sends
 * nothing for PARTIAL_IDLE_US or isn't done after PARTIAL_US_MAX, is let go. */
#include "base/assert.h"
#include "broker/config.h"
#include "broker/net/listener.h"
#include "broker/net/loop.h"
#include "broker/node.h"
#include "proto/mqtt/decode.h"

/* Of each connection, without asking: 18,000 of them hold 144 MiB at worst. */
#define PARTIAL_FREE_BYTES 8192u
#define PARTIAL_IDLE_US    INT64_C(10000000)
#define PARTIAL_US_MAX     INT64_C(60000000)

bool conn_partial_reserve(struct conn *conn)
{
    struct broker_loop *loop = conn->loop;
    struct mqtt_frame frame;
    if (conn->partial_bytes || conn->in.len == 0 || loop->partial_bytes_max == 0)
        return true;
    if (mqtt_frame(chr_buf_slice(&conn->in),
                   listener_max_packet_size(conn->listener, loop->node->config), &frame) != 0 ||
        frame.packet_bytes <= PARTIAL_FREE_BYTES)
        return true;
    if (loop->partial_bytes + frame.packet_bytes > loop->partial_bytes_max && loop->partial_bytes) {
        limit_hit(loop, LIMIT_PARTIAL, CHR_LIT(""), conn->address);
        conn_pause(conn, CONN_PAUSE_PARTIAL);
        chr_list_remove(&conn->wait_link);
        chr_list_push_back(&loop->partial_waiting, &conn->wait_link);
        return false;
    }
    conn->partial_bytes = (uint32_t)frame.packet_bytes;
    conn->partial_since_us = loop->now_mono_us;
    loop->partial_bytes += conn->partial_bytes;
    return true;
}

void conn_partial_release(struct conn *conn)
{
    struct broker_loop *loop = conn->loop;
    if (conn->partial_bytes == 0)
        return;
    CHR_ASSERT(loop->partial_bytes >= conn->partial_bytes);
    loop->partial_bytes -= conn->partial_bytes;
    conn->partial_bytes = 0;
    /* All of them try again, oldest first; those that still find no room queue up in that order. */
    struct chr_list round;
    chr_list_take(&round, &loop->partial_waiting);
    while (!chr_list_empty(&round)) {
        struct conn *waiting = CHR_CONTAINER_OF(round.next, struct conn, wait_link);
        chr_list_remove(&waiting->wait_link);
        if (!loop->partial_bytes_max || loop->partial_bytes < loop->partial_bytes_max)
            conn_resume(waiting, CONN_PAUSE_PARTIAL);
        else
            chr_list_push_back(&loop->partial_waiting, &waiting->wait_link);
    }
}

void conn_partial_count(struct conn *conn)
{
    struct broker_loop *loop = conn->loop;
    loop->held_bytes += conn->in.len - conn->held_bytes;
    conn->held_bytes = conn->in.len;
    if (conn->in.len == 0)
        conn_partial_release(conn);
}

bool conn_partial_stuck(const struct conn *conn)
{
    const struct broker_loop *loop = conn->loop;
    if (conn->partial_bytes == 0 || chr_list_empty(&loop->partial_waiting))
        return false;
    /* While we don't read it, it can't send; but a client that holds room by not reading what it is
     * sent has no more time than others. */
    return (!conn->paused && loop->now_mono_us - conn->last_receive_us > PARTIAL_IDLE_US) ||
           ((conn->paused & ~(unsigned)(CONN_PAUSE_OUTPUT | CONN_PAUSE_RATE)) == 0 &&
            loop->now_mono_us - conn->partial_since_us > PARTIAL_US_MAX);
}
