/* broker/session/stale.c: batches that were decoded under mappings that no longer stood when their
 * turn to be applied came (R9), and the care that nothing is lost, doubled or overtaken by it.
 *
 * When a loop notices that the mappings have changed it passes its open batch on, takes the new
 * mappings and lets no publish in until every batch decoded under older ones has come back (the
 * fence). Those that come back stale leave their contents here; they are decoded again, in order,
 * into batches under the mappings of now, with the places in the ack rings they had. So messages
 * keep their order, and a change of the catalog costs one round trip to the log. */
#include <stdlib.h>

#include "base/assert.h"
#include "broker/session/publish.h"

/* What a stale batch held; taken out of it, so that the batch itself can be used again. */
struct stale {
    struct stale *next;
    struct batch_run *runs;
    uint32_t runs_count;
    struct slab **slabs;
    uint32_t slabs_count;
    struct db_guard *guards;
    struct chr_arena arena; /* of topics named by alias */
    /* how far it has been decoded again */
    uint32_t run, acks, guards_used;
    size_t offset;
};

bool session__stale_waits(const struct broker_loop *loop)
{
    return state_of(loop)->stale_first != NULL;
}

/* ---- Mappings of now --------------------------------------------------------------------------
 */

static bool older_batches_out(const struct broker_loop *loop, uint64_t version)
{
    for (uint32_t i = 0; i < loop->batches_count; i++) {
        const struct batch *b = &loop->batches[i];
        if (b != loop->batch && b->messages && b->mapping_version != version)
            return true;
    }
    return false;
}

struct batch *session__batch(struct broker_loop *loop)
{
    if (loop->batch)
        return loop->batch;
    struct loop_session_state *state = state_of(loop);
    struct batch *batch = batch_open(loop);
    if (!batch)
        return NULL;
    if (batch->mapping_version != state->routes.mappings_version) {
        routes_clear(&state->routes);
        state->routes.mappings_version = batch->mapping_version;
        state->routes_generation++;
        state->fenced = older_batches_out(loop, batch->mapping_version);
    }
    return batch;
}

static void pass_on(struct batch *batch)
{
    if (batch->messages || batch->waits_count || batch->entry.ops_count || batch->rejects_count)
        batch_propose(batch);
    else
        batch_release(batch);
}

bool session__current(struct broker_loop *loop)
{
    struct loop_session_state *state = state_of(loop);
    uint64_t version = db_mapping_version_now(loop->node->db);
    bool same = loop->mappings && state->routes.mappings_version == version;
    if (CHR_LIKELY(same && !state->fenced && !state->stale_first))
        return true;
    if (!same) {
        if (loop->batch)
            pass_on(loop->batch);
        if (!session__batch(loop))
            return false;
    }
    session__stale_continue(loop);
    if (state->stale_first)
        return false;
    if (state->fenced)
        state->fenced = older_batches_out(loop, state->routes.mappings_version);
    return !state->fenced;
}

/* ---- Decoding again ---------------------------------------------------------------------------
 */

static void stale_free(struct stale *stale)
{
    for (uint32_t i = 0; i < stale->slabs_count; i++)
        slab_unref(stale->slabs[i]);
    free((void *)stale->slabs);
    free(stale->runs);
    free(stale->guards);
    chr_arena_free(&stale->arena);
    free(stale);
}

/* Which of its slabs a packet lies in. */
static struct slab *slab_of(const struct stale *stale, const uint8_t *at)
{
    for (uint32_t i = 0; i < stale->slabs_count; i++) {
        struct slab *slab = stale->slabs[i];
        if (at >= slab->bytes && at < slab->bytes + slab->capacity)
            return slab;
    }
    chr_assert_failed("a run lies in a slab of its batch", __FILE__, __LINE__);
}

/* The next message of the run. False: no batch free. */
static bool redo_message(struct broker_loop *loop, struct stale *stale, const struct batch_run *run)
{
    chr_slice rest = chr_slice_of(run->raw.ptr + stale->offset, run->raw.len - stale->offset);
    struct mqtt_frame frame;
    struct mqtt_publish publish;
    struct mqtt_fault fault;
    int n = mqtt_frame(rest, 0, &frame);
    CHR_ASSERT(n > 0); /* it was decoded before */
    chr_err err = mqtt_decode_publish(&frame, run->version, &publish, &fault);
    CHR_ASSERT(err == CHR_OK);
    struct conn *conn = loop_conn(loop, run->conn);
    struct inbound in = {
        .conn = conn,
        .ref = run->conn,
        .slab = slab_of(stale, rest.ptr),
        .raw = chr_slice_of(rest.ptr, (size_t)n),
        .topic = run->topic.len ? run->topic : publish.topic,
        .alias_topic = run->topic,
        .payload = publish.payload,
        .version = run->version,
        .qos = publish.qos,
        .retain = publish.retain,
        .packet_id = publish.packet_id,
        .moved = true,
    };
    bool has_ack = run->acks && publish.qos;
    if (has_ack) {
        in.ack_kind = publish.qos == 1 ? MQTT_PUBACK : MQTT_PUBREC;
        in.ack_taken = true;
        in.ack_sequence = run->ack_first + stale->acks;
        if (conn && run->undelivered_reject) /* perhaps it fits now */
            conn_ack_set_reason(conn, in.ack_sequence, MQTT_REASON_SUCCESS, CHR_LIT(""));
    }
    if (run->guards) {
        in.guarded = true;
        in.guard = stale->guards[run->guard_first + stale->guards_used];
    } else if (run->undelivered_reject && publish.qos == 2 && conn && conn->session &&
               conn->session->durable) {
        in.guarded = true; /* a reject of 5.0 had none */
        in.guard =
            (struct db_guard){conn->session->epoch, conn->session->generation, publish.packet_id};
    }
    struct route *route = NULL;
    enum into_batch outcome = session__into_batch(&in, route, true);
    if (outcome == INTO_BATCH_AGAIN || outcome == INTO_BATCH_NO_MEMORY)
        return false;
    if (conn && conn->session)
        conn->session->plain_in_log = true;
    stale->offset += (size_t)n;
    stale->acks += has_ack;
    stale->guards_used += run->guards != 0;
    return true;
}

void session__stale_continue(struct broker_loop *loop)
{
    struct loop_session_state *state = state_of(loop);
    while (state->stale_first) {
        struct stale *stale = state->stale_first;
        while (stale->run < stale->runs_count) {
            const struct batch_run *run = &stale->runs[stale->run];
            if (stale->offset == run->raw.len) {
                stale->run++;
                stale->offset = 0;
                stale->acks = stale->guards_used = 0;
            } else if (!redo_message(loop, stale, run)) {
                return;
            }
        }
        state->stale_first = stale->next;
        if (!state->stale_first)
            state->stale_last = NULL;
        stale_free(stale);
    }
}

void session__stale_free(struct broker_loop *loop)
{
    struct loop_session_state *state = state_of(loop);
    while (state->stale_first) {
        struct stale *next = state->stale_first->next;
        stale_free(state->stale_first);
        state->stale_first = next;
    }
}

void session_batch_stale(struct broker_loop *loop, struct batch *batch)
{
    static const struct db_op_result again = {.err = CHR_ESTALE};
    struct loop_session_state *state = state_of(loop);
    /* Handlers may put themselves at the front of their queue, so the last one goes first. */
    for (uint32_t i = batch->waits_count; i-- > 0;)
        batch->waits[i].answered(loop_conn(loop, batch->waits[i].conn), batch->waits[i].arg,
                                 &again);
    if (batch->runs_count) {
        struct stale *stale = calloc(1, sizeof *stale);
        CHR_ASSERT(stale); /* or accepted messages would be lost */
        *stale = (struct stale){
            .runs = batch->runs,
            .runs_count = batch->runs_count,
            .slabs = batch->slabs,
            .slabs_count = batch->slabs_count,
            .guards = batch->guards,
            .arena = batch->arena,
        };
        batch->runs = NULL;
        batch->runs_count = batch->runs_max = 0;
        batch->slabs = NULL;
        batch->slabs_count = batch->slabs_max = 0;
        batch->guards = NULL;
        batch->guards_count = batch->guards_max = 0;
        chr_arena_init(&batch->arena, stale->arena.block_bytes, stale->arena.limit_bytes);
        if (state->stale_last)
            state->stale_last->next = stale;
        else
            state->stale_first = stale;
        state->stale_last = stale;
    }
    if (!chr_list_empty(&state->log_ops)) /* they stood before the messages */
        session__log_ops_continue(loop);
    session__stale_continue(loop);
}
