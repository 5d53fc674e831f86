#include "broker/session/elsewhere.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "bridge/peers.h"
#include "broker/cluster.h"
#include "broker/session/internal.h"

/* docs/formats.md, "Between nodes": u64 stamp, u8 flags, zeros; client id. */
#define HEAD_BYTES  16u
#define FLAG_LOGGED 0x1 /* the log knows the new connection */

struct letter {
    struct loop_mail mail;
    uint64_t from;
    chr_hlc stamp;
    bool logged;
    size_t len;
    uint8_t client_id[];
};

static chr_hlc stamp_after(struct broker_node *node, chr_hlc seen, uint64_t unix_ms)
{
    chr_hlc last = atomic_load(&node->connects_hlc), next;
    do {
        next = CHR_MAX(chr_hlc_next(last, unix_ms), seen);
    } while (!atomic_compare_exchange_weak(&node->connects_hlc, &last, next));
    return next;
}

void elsewhere_tell(struct session *s)
{
    struct broker_node *node = s->loop->node;
    uint8_t head[HEAD_BYTES] = {0};
    s->connected_at = stamp_after(node, 0, (uint64_t)(s->loop->now_wall_us / 1000));
    chr_put_u64le(head, s->connected_at);
    head[8] = s->durable ? FLAG_LOGGED : 0;
    chr_slice parts[] = {chr_slice_of(head, sizeof head), s->client_id};
    cluster_tell(node->cluster, PEERS_CONNECTED, parts, CHR_COUNT_OF(parts));
}

/* Loop's thread. */
static void open_letter(struct broker_loop *loop, struct loop_mail *mail)
{
    struct letter *l = CHR_CONTAINER_OF(mail, struct letter, mail);
    struct broker_loop *owner;
    struct session *s =
        registry_claim(loop->node->registry, chr_slice_of(l->client_id, l->len), NULL, &owner);
    bool here = s && owner == loop && s->conn && s->conn->state == CONN_OPEN;
    bool older = here && (s->connected_at < l->stamp ||
                          (s->connected_at == l->stamp && loop->node->dir.node < l->from));
    if (older && !(s->durable && l->logged)) {
        struct conn *conn = s->conn;
        conn->end = CONN_END_SERVER;
        conn->end_code = MQTT_REASON_SESSION_TAKEN_OVER;
        session__log_ended(conn, s);
        session_detach(s, false, false); /* the session may be gone */
        session_end_connection(conn, MQTT_REASON_SESSION_TAKEN_OVER, NULL);
    }
    free(l);
}

void elsewhere_received(struct broker_node *node, const struct peers_message *message)
{
    struct broker_loop *owner = NULL;
    chr_slice bytes = message->bytes;
    if (bytes.len <= HEAD_BYTES)
        return;
    chr_hlc stamp = chr_get_u64le(bytes.ptr);
    chr_slice client_id = chr_slice_of(bytes.ptr + HEAD_BYTES, bytes.len - HEAD_BYTES);
    (void)stamp_after(node, stamp, 0);
    (void)registry_claim(node->registry, client_id, NULL, &owner);
    struct letter *l = owner ? malloc(sizeof *l + client_id.len) : NULL;
    if (!l)
        return;
    *l = (struct letter){.mail.run = open_letter,
                         .from = message->from,
                         .stamp = stamp,
                         .logged = bytes.ptr[8] & FLAG_LOGGED,
                         .len = client_id.len};
    memcpy(l->client_id, client_id.ptr, client_id.len);
    loop_post(owner, &l->mail);
}
