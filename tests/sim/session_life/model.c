/* What clients published, and what has to become of it. */
#include <string.h>

#include "db/durable.h"
#include "tests/sim/session_life/world.h"

const char *const life_filters[FILTERS] = {"t/#", "sensors/#"};

/* ---- Messages ---------------------------------------------------------------------------------
 */

uint32_t model_message(struct client *c, uint8_t topic, uint8_t qos)
{
    struct world *w = c->w;
    if (w->messages_count == MESSAGES_MAX)
        return 0;
    uint32_t number = w->messages_count++;
    w->messages[number] = (struct life_message){
        .client = (uint8_t)c->i, .topic = topic, .qos = qos, .mapped = topic < 2};
    w->report->messages++;
    return number;
}

size_t model_topic(const struct world *w, uint32_t number, char *out, size_t room)
{
    const struct life_message *m = &w->messages[number];
    return (size_t)snprintf(out, room, "%s/%c%u%c", m->mapped ? "sensors" : "t",
                            m->is_will ? 'w' : 'p', m->client, 'a' + m->topic);
}

size_t model_payload(const struct world *w, uint32_t number, char *out, size_t room)
{
    if (w->messages[number].mapped)
        return (size_t)snprintf(out, room, "{\"reading_id\":\"~%05u\",\"metrics\":{\"t\":1}}",
                                number);
    return (size_t)snprintf(out, room, "~%05u", number);
}

/* From `from` on; *next: where to look on. */
static uint32_t find_number(chr_slice bytes, size_t from, size_t *next)
{
    for (size_t i = from; i + 6 <= bytes.len; i++) {
        const uint8_t *at = memchr(bytes.ptr + i, '~', bytes.len - i - 5);
        if (!at)
            break;
        uint32_t number = 0;
        i = (size_t)(at - bytes.ptr);
        bool digits = true;
        for (int d = 1; d <= 5; d++) {
            digits = digits && at[d] >= '0' && at[d] <= '9';
            number = number * 10 + (uint32_t)(at[d] - '0');
        }
        *next = i + 6;
        if (digits)
            return number;
    }
    return 0;
}

uint32_t model_number(chr_slice bytes)
{
    size_t next;
    return find_number(bytes, 0, &next);
}

bool model_matches(const struct world *w, uint32_t filter, const struct life_message *m)
{
    (void)w;
    return m->mapped == (filter == 1);
}

/* ---- What subscribers must get ----------------------------------------------------------------
 */

static const struct filter *filter_for(const struct world *w, uint32_t sub,
                                       const struct life_message *m)
{
    for (uint32_t f = 0; f < FILTERS; f++)
        if (model_matches(w, f, m))
            return &w->subs[sub]->filters[f];
    return NULL;
}

bool model_of_group(const struct world *w, const struct life_message *m)
{
    return w->shared && model_matches(w, 0, m);
}

uint32_t model_got(const struct world *w, const struct life_message *m)
{
    uint32_t got = 0;
    for (uint32_t s = 0; s < w->subs_count; s++)
        got += m->to[s].got;
    return got;
}

/* Are all of the group there, for good? */
static bool group_is_there(const struct world *w, uint64_t applied)
{
    for (uint32_t s = 0; s < w->subs_count; s++) {
        const struct filter *f = &w->subs[s]->filters[0];
        if (f->state != FILTER_ON || applied < f->known || w->subs[s]->expiry_s != UINT32_MAX)
            return false;
    }
    return true;
}

/* What a publish to a node that has applied so much is to subscribers. */
static enum need need_of(const struct world *w, const struct filter *f,
                         const struct life_message *m, uint64_t applied)
{
    if (model_of_group(w, m) || applied < f->known || f->state == FILTER_UNSURE)
        return MAY;
    return f->state == FILTER_ON ? MUST : MUST_NOT;
}

void model_sent(struct client *c, uint32_t number)
{
    struct world *w = c->w;
    struct life_message *m = &w->messages[number];
    for (uint32_t s = 0; s < w->subs_count && m->qos; s++) {
        enum need now = need_of(w, filter_for(w, s, m), m, w->nodes[c->node].applied);
        enum need *need = &m->to[s].need;
        /* Of QoS 2 no other copy is taken, should the first have come. */
        bool again = m->sends > 0 && (now != MUST || m->qos == 2);
        *need = !again || *need == now ? now : MAY;
    }
    m->grouped = (m->sends == 0 || m->qos == 1 || m->grouped) && model_of_group(w, m) &&
                 group_is_there(w, w->nodes[c->node].applied);
    w->report->resent += m->sends > 0;
    m->sends++;
}

void model_unsure(struct world *w, uint32_t sub, uint32_t filter)
{
    for (uint32_t i = 1; i < w->messages_count; i++) {
        struct life_message *m = &w->messages[i];
        bool copies = m->qos == 1 && m->sends > 1;
        bool settled = m->is_will ? m->committed != 0 : m->answered && !copies;
        if (!settled && model_matches(w, filter, m))
            m->to[sub].need = MAY;
    }
}

void model_forgotten(struct world *w, uint32_t sub)
{
    for (uint32_t i = 1; i < w->messages_count; i++)
        if (w->messages[i].to[sub].need == MUST)
            w->messages[i].to[sub].need = MAY;
}

/* ---- The log ----------------------------------------------------------------------------------
 */

static void took_effect(void *arg, const struct db_publish *publish)
{
    struct world *w = arg;
    uint32_t number = model_number(publish->payload);
    if (number == 0 || number >= w->messages_count)
        return;
    struct life_message *m = &w->messages[number];
    m->published++;
    if (m->qos == 2 && m->published > 1)
        life_broken(w, "S2: QoS 2 message %u was published twice", number);
    if (!m->is_will)
        return;
    if (m->published > 1)
        life_broken(w, "S4: will %u was published twice", number);
    w->report->wills++;
    m->committed = w->entries_count;
    m->committed_us = log_time_us(w);
    for (uint32_t s = 0; s < w->subs_count && m->qos; s++)
        m->to[s].need = need_of(w, filter_for(w, s, m), m, w->entries_count);
}

void model_committed(struct world *w, uint64_t index, chr_slice bytes,
                     const struct db_apply_result *result)
{
    size_t at = 0;
    for (uint32_t number; (number = find_number(bytes, at, &at)) != 0;) {
        if (number >= w->messages_count)
            continue;
        struct life_message *m = &w->messages[number];
        if (m->is_will) /* it is in the entry of its CONNECT, too */
            continue;
        m->again_us = log_time_us(w);
        if (!m->committed)
            m->committed_us = m->again_us;
        m->committed = m->committed ? m->committed : index;
    }
    if (bytes.len)
        db_entry_messages(bytes, result, took_effect, w);
}

void model_seen(struct client *c, uint32_t number)
{
    const struct life_message *m = &c->w->messages[number];
    if (m->mapped && !m->is_will && !m->committed)
        life_broken(c->w, "S1: reading %u came to %s, and could still vanish", number, c->id);
}

/* ---- At the end -------------------------------------------------------------------------------
 */

static void check_rows(struct world *w, uint32_t number)
{
    const struct life_message *m = &w->messages[number];
    uint32_t most = m->qos == 2 ? 1 : m->sends;
    if (!m->mapped || m->is_will)
        return;
    if (m->rows > most)
        life_broken(w, "S2: message %u (QoS %u, sent %u times) is in the table %u times", number,
                    m->qos, m->sends, m->rows);
    if (m->answered && m->rows == 0)
        life_broken(w, "S2: message %u (QoS %u) was answered and is not in the table", number,
                    m->qos);
}

static bool expired(const struct world *w, const struct life_message *m)
{
    return m->expiry_s && m->committed_us + (int64_t)m->expiry_s * 1000000 <= log_time_us(w);
}

static void check_delivered(struct world *w, uint32_t number)
{
    const struct life_message *m = &w->messages[number];
    if (m->grouped && m->answered && model_got(w, m) == 0 && !expired(w, m))
        life_broken(w, "S3: message %u (QoS %u) came to nobody of the group", number, m->qos);
    for (uint32_t s = 0; s < w->subs_count; s++) {
        bool due = m->is_will ? m->published > 0 : m->answered;
        if (m->to[s].need == MUST && due && m->to[s].got == 0 && !expired(w, m))
            life_broken(w, "S3: message %u (QoS %u, entry %llu) did not come to subscriber %u",
                        number, m->qos, (unsigned long long)m->committed, s);
    }
}

/* The last one of a topic is retained; a copy of one at QoS 1 may have come behind it. */
static void check_retained(struct world *w, const struct client *c)
{
    char topic[32];
    uint32_t last = 0;
    for (uint32_t i = 1; i < w->messages_count; i++)
        if (w->messages[i].retain && w->messages[i].client == c->i)
            last = i;
    if (!last)
        return;
    size_t len = model_topic(w, last, topic, sizeof topic);
    uint32_t found = compare_retained(w, w->nodes[0].base.node.db, chr_slice_of(topic, len));
    const struct life_message *m = &w->messages[found];
    if (found != last && (!found || !m->retain || m->qos == 2 || m->sends == 1))
        life_broken(w, "message %u is retained for %s, and should be %u", found, topic, last);
}

void model_check(struct world *w)
{
    for (uint32_t i = 0; i < w->clients_count; i++)
        check_retained(w, &w->clients[i]);
    for (uint32_t i = 1; i < w->messages_count; i++) {
        check_rows(w, i);
        check_delivered(w, i);
    }
    wills_check(w);
}
