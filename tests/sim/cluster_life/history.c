/* tests/sim/cluster_life/history.c: what the cluster has agreed on. The first node that applies an
 * entry says what it is and what came of it; all others must say the same. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "broker/committer_internal.h"
#include "tests/sim/cluster_life/world.h"

/* So many indexes have a checksum of all tables taken, on every node that applies them. */
#define DIGEST_EVERY 48u

void __real_db_apply_from(db *d, uint64_t index, chr_hlc hlc, const struct db_origin *origin,
                          chr_slice bytes, struct db_apply_result *result);
void __wrap_db_apply_from(db *d, uint64_t index, chr_hlc hlc, const struct db_origin *origin,
                          chr_slice bytes, struct db_apply_result *result);

void __real_committer__forward_unsure(struct broker_committer *c, struct broker_proposal *proposal,
                                      uint64_t index, uint64_t term);
void __wrap_committer__forward_unsure(struct broker_committer *c, struct broker_proposal *proposal,
                                      uint64_t index, uint64_t term);

/* ---- What leaders lose ------------------------------------------------------------------------
 */

void __wrap_committer__forward_unsure(struct broker_committer *c, struct broker_proposal *proposal,
                                      uint64_t index, uint64_t term)
{
    life__world->report->unsure++;
    CHR_CONTAINER_OF(proposal, struct op, proposal)->unsure_at = index;
    life__lost_its_own(life__world, CHR_CONTAINER_OF(proposal, struct op, proposal)->node);
    __real_committer__forward_unsure(c, proposal, index, term);
}

/* ---- Leaders ----------------------------------------------------------------------------------
 */

void life__leader_changed(void *ctx, uint64_t term, uint64_t leader)
{
    struct node *n = ctx;
    struct world *w = life__world;
    if (leader == 0)
        return;
    life__leave();
    size_t count = w->leaders_count;
    w->leaders = life__grow(w->leaders, &w->leaders_count, term + 1, sizeof *w->leaders);
    if (w->leaders_count > count)
        memset(w->leaders + count, 0, (w->leaders_count - count) * sizeof *w->leaders);
    if (w->leaders[term] && w->leaders[term] != leader)
        (void)life__broken(w, "H1: in term %llu both %llu and %llu lead", (unsigned long long)term,
                           (unsigned long long)w->leaders[term], (unsigned long long)leader);
    if (!w->leaders[term] && leader == n->id)
        life__elected(w, n);
    w->leaders[term] = leader;
    life__enter();
}

/* ---- What entries do --------------------------------------------------------------------------
 */

static uint64_t mix(uint64_t hash, uint64_t value)
{
    return chr_hash_u64(hash ^ chr_hash_u64(value));
}

uint64_t life__result_hash(const struct db_apply_result *r)
{
    uint64_t hash = mix((uint64_t)r->origin, (uint64_t)(int64_t)r->err);
    for (uint32_t i = 0; i < r->ops_count; i++) {
        hash = mix(hash, (uint64_t)(int64_t)r->ops[i].err);
        hash = mix(hash, r->ops[i].rows);
        hash = mix(hash, r->ops[i].epoch);
        hash = mix(hash, r->ops[i].generation);
    }
    for (uint32_t i = 0; i < r->guards_count; i++) {
        hash = mix(hash, r->duplicates[i / 64] >> (i % 64) & 1);
        hash = mix(hash, r->gone[i / 64] >> (i % 64) & 1);
    }
    return hash;
}

static bool in_order(struct world *w, const struct op *op)
{
    struct loop *loop = &op->node->loops[op->loop];
    if (op->loop == LOOPS || op->life < loop->last_life)
        return true;
    bool ok = op->life > loop->last_life || op->place > loop->last;
    loop->last_life = op->life;
    loop->last = op->place;
    return ok ||
           life__broken(w, "H4: proposal %llu of a loop of node %llu is applied after a later one",
                        (unsigned long long)op->number, (unsigned long long)op->node->id);
}

static bool store_messages(struct world *w, const struct op *op, uint64_t index,
                           const struct db_apply_result *r)
{
    for (uint32_t i = 0; i < op->messages_count && i < r->guards_count; i++) {
        struct message *m = &w->messages[op->messages[i]];
        if ((r->duplicates[i / 64] | r->gone[i / 64]) >> (i % 64) & 1)
            continue;
        if (m->index)
            return life__broken(w, "H5: message %llu is stored at %llu and at %llu",
                                (unsigned long long)op->messages[i], (unsigned long long)m->index,
                                (unsigned long long)index);
        m->index = index;
    }
    return true;
}

/* The row of another one, which must be where the model has it, or be gone. */
static bool change_row(struct world *w, const struct op *op, uint64_t index,
                       const struct db_op_result *r)
{
    struct op *other = w->ops[op->key];
    if (r->err)
        return true;
    if (other->deleted)
        return life__broken(w, "H6: row %llu was deleted at %llu, and is changed at %llu",
                            (unsigned long long)op->key, (unsigned long long)other->deleted,
                            (unsigned long long)index);
    if (op->kind == OP_DELETE) {
        other->deleted = index;
    } else {
        other->updated = index;
        other->value = op->number;
        other->row = (struct db_row_id){.entry = index, .ordinal = 1};
    }
    return true;
}

static bool takes_effect(struct world *w, struct op *op, uint64_t index,
                         const struct db_apply_result *r)
{
    if (op->index)
        return life__broken(w, "H3: proposal %llu is applied at %llu and at %llu",
                            (unsigned long long)op->number, (unsigned long long)op->index,
                            (unsigned long long)index);
    if (op->state == OP_REFUSED)
        return life__broken(w, "H3: proposal %llu was refused, and is applied at %llu",
                            (unsigned long long)op->number, (unsigned long long)index);
    op->index = index;
    op->value = op->number;
    op->row = (struct db_row_id){.entry = index, .ordinal = 0};
    if (r->err || r->ops_count == 0 || r->ops[0].err)
        return life__broken(w, "proposal %llu at %llu: %s", (unsigned long long)op->number,
                            (unsigned long long)index,
                            chr_strerror(r->err || !r->ops_count ? r->err : r->ops[0].err));
    if (!in_order(w, op))
        return false;
    switch (op->kind) {
    case OP_MESSAGES:
        return store_messages(w, op, index, r);
    case OP_DELETE:
    case OP_UPDATE:
        return change_row(w, op, index, &r->ops[1]);
    case OP_CLAIM:
        if ((w->claims[op->key] == 0) != (r->ops[1].err == CHR_OK))
            return life__broken(w, "R4: claim %llu of name %llu at %llu: %s",
                                (unsigned long long)op->number, (unsigned long long)op->key,
                                (unsigned long long)index, chr_strerror(r->ops[1].err));
        if (!w->claims[op->key])
            w->claims[op->key] = op->number;
        return true;
    default:
        return true;
    }
}

/* ---- At each entry ----------------------------------------------------------------------------
 */

static bool first_to_apply(struct world *w, struct node *n, const struct entry *e, uint64_t index,
                           const struct db_apply_result *r)
{
    w->history =
        life__grow(w->history, &w->history_capacity, w->history_count + 1, sizeof *w->history);
    w->history[w->history_count++] = *e;
    w->report->entries++;
    w->report->repeated += e->verdict == DB_ORIGIN_REPEATED;
    w->report->gaps += e->verdict == DB_ORIGIN_GAP;
    life__applied_first(w, n);
    return !e->op || e->verdict != DB_ORIGIN_NEW || takes_effect(w, e->op, index, r);
}

static bool same_as_others(struct world *w, const struct node *n, const struct entry *e,
                           uint64_t index)
{
    const struct entry *agreed = &w->history[index - 1];
    if (e->hash != agreed->hash || e->hlc != agreed->hlc)
        return life__broken(w, "H2: node %llu applies another entry at %llu than others did",
                            (unsigned long long)n->id, (unsigned long long)index);
    if (e->result != agreed->result)
        return life__broken(w, "H2: entry %llu comes to something else on node %llu",
                            (unsigned long long)index, (unsigned long long)n->id);
    return true;
}

static bool check_digest(struct world *w, struct node *n, uint64_t index)
{
    if (index % DIGEST_EVERY)
        return true;
    uint64_t digest = life__digest(n) | 1;
    struct entry *e = &w->history[index - 1];
    w->report->digests++;
    if (e->digest && e->digest != digest)
        return life__broken(w, "H7: the database of node %llu at %llu is not that of others",
                            (unsigned long long)n->id, (unsigned long long)index);
    e->digest = digest;
    return true;
}

void __wrap_db_apply_from(db *d, uint64_t index, chr_hlc hlc, const struct db_origin *origin,
                          chr_slice bytes, struct db_apply_result *result)
{
    struct node *n = life__node();
    struct world *w = life__world;
    if (n && n->applies_late) {
        n->applies_late = false;
        life__sleep(50000 + (int64_t)below(w, 400000));
    }
    __real_db_apply_from(d, index, hlc, origin, bytes, result);
    if (!n)
        return;
    if (n->log && db_durable_index(d) > raft_log_durable(n->log))
        (void)life__broken(w, "H9: node %llu has a checkpoint of %llu, its log is durable to %llu",
                           (unsigned long long)n->id, (unsigned long long)db_durable_index(d),
                           (unsigned long long)raft_log_durable(n->log));
    life__leave();
    struct entry e = {.hash = chr_hash_bytes(bytes.ptr, bytes.len, origin ? origin->sequence : 0),
                      .hlc = hlc,
                      .op = bytes.len ? life__op_of(w, bytes) : NULL,
                      .verdict = result->origin,
                      .result = life__result_hash(result)};
    bool ok = true;
    if (index > w->history_count + 1)
        ok = life__broken(w, "H2: node %llu applies %llu, and nobody the one before it",
                          (unsigned long long)n->id, (unsigned long long)index);
    else if (index == w->history_count + 1)
        ok = first_to_apply(w, n, &e, index, result);
    else
        ok = same_as_others(w, n, &e, index);
    life__enter();
    if (ok)
        (void)check_digest(w, n, index);
}

/* ---- At each answer ---------------------------------------------------------------------------
 */

void life__check_answer(struct op *op, const struct db_apply_result *result)
{
    struct world *w = life__world;
    uint64_t index = op->proposal.index;
    if (op->index == 0 || op->index != index) {
        (void)life__broken(w, "H3: proposal %llu was answered as of %llu, and is applied at %llu",
                           (unsigned long long)op->number, (unsigned long long)index,
                           (unsigned long long)op->index);
        return;
    }
    const struct entry *e = &w->history[index - 1];
    if (e->op != op || e->hlc != op->proposal.hlc || e->result != life__result_hash(result))
        (void)life__broken(w, "H3: proposal %llu was answered with another result than it had",
                           (unsigned long long)op->number);
    w->acknowledged = CHR_MAX(w->acknowledged, index);
    life__acknowledged(w, op->node);
    w->report->sure_after_all += op->unsure_at == index;
    if (op->kind == OP_WRITE)
        life__write_ends(w, op);
}
