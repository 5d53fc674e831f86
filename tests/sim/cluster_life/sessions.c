/* tests/sim/cluster_life/sessions.c: QoS 2 clients, each with a session that outlives connections
 * and nodes (R5).
 *
 * A client whose node is gone, or that thinks so, connects to another one and sends again what was
 * not answered: the same packet ids, the same messages. What the first node still has on its way
 * may come to pass or not, and must not come to pass twice. */
#include <stdio.h>

#include "base/assert.h"
#include "tests/sim/cluster_life/world.h"

static bool connected_to(const struct session *s, const struct node *n)
{
    return s->node == n && s->life == n->life;
}

static bool homeless(const struct session *s)
{
    return !s->node || !s->node->serving || s->node->life != s->life;
}

/* ---- Answers: outside -------------------------------------------------------------------------
 */

static void opened(struct op *op, chr_err err, const struct db_apply_result *result)
{
    struct world *w = life__world;
    struct session *s = &w->sessions[op->session];
    if (err)
        return;
    const struct db_op_result *r = &result->ops[1];
    if (s->ever && r->epoch != s->epoch)
        (void)life__broken(w, "H5: session %u is another one", op->session);
    if (s->ever && r->generation <= s->generation)
        return; /* it has connected elsewhere meanwhile */
    s->epoch = r->epoch;
    s->generation = r->generation;
    s->node = op->node;
    s->life = op->life;
    s->ever = true;
}

/* Does the client hear of it? */
static bool heard(const struct op *op)
{
    const struct session *s = &life__world->sessions[op->session];
    return connected_to(s, op->node) && s->life == op->life && s->generation == op->generation;
}

static void stored(struct op *op, chr_err err, const struct db_apply_result *result)
{
    struct world *w = life__world;
    struct session *s = &w->sessions[op->session];
    for (uint32_t i = 0; !err && i < op->messages_count && heard(op); i++) {
        if (result->gone[i / 64] >> (i % 64) & 1)
            continue;
        struct message *m = &w->messages[op->messages[i]];
        if (m->index == 0)
            (void)life__broken(w, "H5: message %llu is answered, and was never stored",
                               (unsigned long long)op->messages[i]);
        m->answered = true;
        for (uint32_t f = 0; f < WINDOW; f++)
            if (s->flights[f].used && s->flights[f].number == op->messages[i])
                s->flights[f].stored = true;
    }
}

static void released(struct op *op, chr_err err, const struct db_apply_result *result)
{
    struct session *s = &life__world->sessions[op->session];
    if (!err && op->messages_count && result->ops[1].err)
        return; /* another connection has the session: no PUBCOMP */
    for (uint32_t i = 0; !err && i < op->messages_count && heard(op); i++)
        for (uint32_t f = 0; f < WINDOW; f++)
            if (s->flights[f].used && s->flights[f].number == op->messages[i])
                s->flights[f].used = false; /* its packet id, too */
}

/* ---- What it sends ----------------------------------------------------------------------------
 */

static struct op *session_op(struct node *n, enum op_kind kind, uint32_t session)
{
    struct op *op = life__op_new(n, kind, LOOPS);
    op->session = session;
    op->generation = life__world->sessions[session].generation;
    op->answered = kind == OP_OPEN ? opened : kind == OP_MESSAGES ? stored : released;
    return op;
}

static bool connect_session(struct node *n, uint32_t at)
{
    struct world *w = life__world;
    char name[16];
    int len = snprintf(name, sizeof name, "client%u", at);
    struct op *op = session_op(n, OP_OPEN, at);
    struct db_session_open open = {.client_id = chr_slice_of(name, (size_t)len),
                                   .expiry_s = UINT32_MAX,
                                   .node = w->alone ? 0 : n->id,
                                   .boot = w->alone ? 0 : n->boot};
    db_entry_add_session_open(&op->entry, &open);
    w->report->sessions++;
    return life__propose_wait(op) && connected_to(&w->sessions[at], n);
}

/* The messages of flights that are wanted: new ones, or those without an answer. */
static void send_messages(struct node *n, uint32_t at, bool again)
{
    struct world *w = life__world;
    struct session *s = &w->sessions[at];
    struct db_guard guards[WINDOW];
    struct op *op = session_op(n, OP_MESSAGES, at);
    for (uint32_t i = 0; i < WINDOW; i++) {
        struct flight *f = &s->flights[i];
        if (again ? !f->used || f->stored : f->used || chance(w, 500))
            continue;
        if (!again) {
            life__leave();
            w->messages = life__grow(w->messages, &w->messages_capacity, w->messages_count + 2,
                                     sizeof *w->messages);
            w->messages[++w->messages_count] = (struct message){0};
            life__enter();
            s->last_id = (uint16_t)(s->last_id % (2 * WINDOW) + 1);
            for (uint32_t j = 0; j < WINDOW; j++) /* round and round, past those in use */
                if (s->flights[j].used && s->flights[j].id == s->last_id) {
                    s->last_id = (uint16_t)(s->last_id % (2 * WINDOW) + 1);
                    j = UINT32_MAX;
                }
            *f = (struct flight){.used = true, .id = s->last_id, .number = w->messages_count};
        } else {
            w->report->resent++;
        }
        guards[op->messages_count] =
            (struct db_guard){.epoch = s->epoch, .generation = s->generation, .packet_id = f->id};
        op->messages[op->messages_count++] = f->number;
    }
    if (op->messages_count)
        db_entry_add_guards(&op->entry, guards, op->messages_count);
    for (uint32_t i = 0; i < op->messages_count; i++)
        life__op_row(op, "sure", op->messages[i], op->number, i);
    (void)life__propose_wait(op);
}

static void release(struct node *n, uint32_t at)
{
    struct world *w = life__world;
    struct session *s = &w->sessions[at];
    struct db_guard guards[WINDOW];
    struct op *op = session_op(n, OP_RELEASE, at);
    for (uint32_t i = 0; i < WINDOW; i++) {
        struct flight *f = &s->flights[i];
        if (!f->used || !f->stored || chance(w, 200))
            continue;
        guards[op->messages_count] =
            (struct db_guard){.epoch = s->epoch, .generation = s->generation, .packet_id = f->id};
        op->messages[op->messages_count++] = f->number;
    }
    if (op->messages_count)
        db_entry_add_release(&op->entry, guards, op->messages_count);
    (void)life__propose_wait(op);
}

void *life__sessions_main(void *arg)
{
    struct node *n = arg;
    struct world *w = life__world;
    while (!n->stopping) {
        life__sleep(2000 + (int64_t)below(w, 60000) * CHR_MAX(w->profile->pace, 1u));
        uint32_t at = (uint32_t)below(w, SESSIONS);
        struct session *s = &w->sessions[at];
        if (n->stopping || w->closing || !life__has_tables(n))
            continue;
        if (homeless(s) || (!connected_to(s, n) && chance(w, w->profile->roams ? 300 : 30))) {
            if (!connect_session(n, at) || n->stopping)
                continue;
            send_messages(n, at, true);
        }
        if (n->stopping || !connected_to(s, n))
            continue;
        if (chance(w, 500))
            send_messages(n, at, false);
        else
            release(n, at);
    }
    return NULL;
}
