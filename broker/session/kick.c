#include "broker/session/kick.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "broker/net/ask.h"
#include "broker/session/internal.h"

struct kick {
    struct ask ask; /* first */
    struct loop_mail mail;
    bool found;
    size_t len;
    uint8_t client_id[];
};

static void kick_free(struct ask *ask)
{
    free(ask);
}

static void kick(struct broker_loop *loop, struct loop_mail *mail)
{
    struct kick *k = CHR_CONTAINER_OF(mail, struct kick, mail);
    struct broker_loop *owner;
    if (!ask_abandoned(&k->ask)) { /* K3 */
        /* It may have ended since, and come back elsewhere: another client, so to speak. */
        struct session *s =
            registry_claim(loop->node->registry, chr_slice_of(k->client_id, k->len), NULL, &owner);
        if (s && owner == loop && s->conn && s->conn->state == CONN_OPEN) {
            k->found = true;
            chr_log_notice("mqtt", "client kicked", CHR_KV_S("client", s->client_id),
                           CHR_KV_C("address", s->conn->address));
            session_end_connection(s->conn, MQTT_REASON_ADMINISTRATIVE_ACTION,
                                   "the operator ended the connection");
        }
    }
    ask_answered(&k->ask);
}

chr_err kick_client(struct broker_node *node, chr_slice client_id, const struct sql_host_wait *wait)
{
    struct broker_loop *owner = NULL;
    (void)registry_claim(node->registry, client_id, NULL, &owner);
    if (!owner)
        return CHR_ENOTFOUND;
    struct kick *k = calloc(1, sizeof *k + client_id.len);
    if (!k)
        return CHR_ENOMEM;
    ask_init(&k->ask, kick_free);
    k->mail.run = kick;
    k->len = client_id.len;
    if (client_id.len)
        memcpy(k->client_id, client_id.ptr, client_id.len);
    ask_expect(&k->ask);
    loop_post(owner, &k->mail);
    chr_err err = ask_wait(&k->ask, wait, node->clock);
    if (!err && !k->found)
        err = CHR_ENOTFOUND;
    ask_unref(&k->ask);
    return err;
}
