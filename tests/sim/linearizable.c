#include "tests/sim/linearizable.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/compiler.h"
#include "base/hash.h"

/* ---- Models -----------------------------------------------------------------------------------
 */

static bool does_register(struct linearizable_state *state, const struct linearizable_op *op)
{
    if (op->kind == LINEARIZABLE_READ)
        return op->unknown || op->result == state->words[0];
    state->words[0] = op->argument;
    return true;
}

static bool does_set(struct linearizable_state *state, const struct linearizable_op *op)
{
    uint64_t *word = &state->words[op->argument / 64 % LINEARIZABLE_STATE_WORDS];
    uint64_t bit = 1ull << (op->argument % 64);
    uint64_t count = 0;
    switch (op->kind) {
    case LINEARIZABLE_ADD:
        *word |= bit;
        return true;
    case LINEARIZABLE_HAS:
        return op->unknown || op->result == ((*word & bit) != 0);
    default:
        for (size_t i = 0; i < LINEARIZABLE_STATE_WORDS; i++)
            count += (uint64_t)__builtin_popcountll(state->words[i]);
        return op->unknown || op->result == count;
    }
}

uint64_t linearizable_list_hash(uint64_t hash_before, uint64_t item)
{
    return chr_hash_u64(hash_before * 1000003 + chr_hash_u64(item));
}

/* words: how many, their hash. */
static bool does_list(struct linearizable_state *state, const struct linearizable_op *op)
{
    if (op->kind == LINEARIZABLE_SEEN)
        return op->unknown || (op->argument == state->words[0] && op->result == state->words[1]);
    if (!op->unknown && op->result != state->words[0])
        return false;
    state->words[0]++;
    state->words[1] = linearizable_list_hash(state->words[1], op->argument);
    return true;
}

const struct linearizable_model linearizable_register = {does_register, 1u << LINEARIZABLE_READ};
const struct linearizable_model linearizable_set = {does_set, 1u << LINEARIZABLE_HAS |
                                                                  1u << LINEARIZABLE_COUNT};
const struct linearizable_model linearizable_list = {does_list, 1u << LINEARIZABLE_SEEN};

/* ---- Search -----------------------------------------------------------------------------------
 *
 * Events, invocations and responses, are a list by time; an operation that is taken leaves it. What
 * was invoked before the first response in the list may be next. */

struct event {
    int64_t at;
    size_t op;
    bool response;
};

struct place { /* on the way through the search */
    struct linearizable_state state;
    size_t choices_from, choices_next; /* what is to be tried here: choices[from, to) … */
    size_t choices_to;
    size_t taken; /* … and which of it led to the next place: an operation */
};

struct choice {
    size_t op;
    bool helps; /* a read waits for it */
    int64_t returned;
};

struct search {
    const struct linearizable_model *model;
    const struct linearizable_op *ops;
    size_t count, words; /* of ops; of a bitmap of them */
    struct event *events;
    size_t *next, *prev;                 /* by event + 1; 0: the ends of the list */
    size_t *invocation_of, *response_of; /* by op: its events */
    uint64_t *taken_bits;                /* the operations taken */
    struct place *places;                /* a stack */
    size_t places_count;
    struct choice *choices; /* a stack, too */
    size_t choices_count, choices_capacity;
    size_t answers_left; /* operations with an outcome that are not taken */
    uint64_t work_left;
    /* Pairs that were tried: (bitmap, state), each `words` + LINEARIZABLE_STATE_WORDS words. */
    uint64_t *tried;
    size_t tried_count, tried_capacity;
    uint32_t *slots; /* hash table of numbers in tried, + 1 */
    size_t slots_count;
};

static int by_time(const void *a, const void *b)
{
    const struct event *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    if (x->response != y->response)
        return x->response ? 1 : -1;
    return x->op < y->op ? -1 : x->op > y->op;
}

static void *must(void *at)
{
    CHR_ASSERT(at);
    return at;
}

static void search_start(struct search *s)
{
    size_t events_count = 2 * s->count;
    s->words = (s->count + 63) / 64;
    s->events = must(calloc(events_count + 1, sizeof *s->events));
    s->next = must(calloc(events_count + 2, sizeof *s->next));
    s->prev = must(calloc(events_count + 2, sizeof *s->prev));
    s->invocation_of = must(calloc(s->count + 1, sizeof *s->invocation_of));
    s->response_of = must(calloc(s->count + 1, sizeof *s->response_of));
    s->taken_bits = must(calloc(s->words + 1, sizeof *s->taken_bits));
    s->places = must(calloc(s->count + 1, sizeof *s->places));
    s->slots_count = 1024;
    s->slots = must(calloc(s->slots_count, sizeof *s->slots));
    for (size_t i = 0; i < s->count; i++) {
        const struct linearizable_op *op = &s->ops[i];
        CHR_ASSERT(op->unknown || op->invoked <= op->returned);
        s->events[2 * i] = (struct event){op->invoked, i, false};
        s->events[2 * i + 1] = (struct event){op->unknown ? INT64_MAX : op->returned, i, true};
        s->answers_left += !op->unknown;
    }
    qsort(s->events, events_count, sizeof *s->events, by_time);
    for (size_t e = 0; e < events_count; e++)
        (s->events[e].response ? s->response_of : s->invocation_of)[s->events[e].op] = e;
    for (size_t i = 0; i <= events_count; i++) {
        s->next[i] = i == events_count ? 0 : i + 1;
        s->prev[i] = i == 0 ? events_count : i - 1;
    }
}

static void search_end(struct search *s)
{
    free(s->events);
    free(s->next);
    free(s->prev);
    free(s->invocation_of);
    free(s->response_of);
    free(s->taken_bits);
    free(s->places);
    free(s->choices);
    free(s->tried);
    free(s->slots);
}

static uint64_t *tried_at(const struct search *s, size_t i)
{
    return s->tried + i * (s->words + LINEARIZABLE_STATE_WORDS);
}

static void slots_put(struct search *s, size_t i)
{
    size_t bytes = (s->words + LINEARIZABLE_STATE_WORDS) * sizeof *s->tried;
    size_t at = chr_hash_bytes(tried_at(s, i), bytes, 0) & (s->slots_count - 1);
    while (s->slots[at])
        at = (at + 1) & (s->slots_count - 1);
    s->slots[at] = (uint32_t)i + 1;
}

/* False: it was tried before. */
static bool first_time(struct search *s, const struct linearizable_state *state)
{
    size_t key_words = s->words + LINEARIZABLE_STATE_WORDS;
    if ((s->tried_count + 1) * key_words > s->tried_capacity) {
        s->tried_capacity = CHR_MAX(2 * s->tried_capacity, 256 * key_words);
        s->tried = must(realloc(s->tried, s->tried_capacity * sizeof *s->tried));
    }
    uint64_t *key = tried_at(s, s->tried_count);
    memcpy(key, s->taken_bits, s->words * sizeof *key);
    memcpy(key + s->words, state->words, sizeof state->words);
    size_t at = chr_hash_bytes(key, key_words * sizeof *key, 0) & (s->slots_count - 1);
    for (; s->slots[at]; at = (at + 1) & (s->slots_count - 1))
        if (memcmp(tried_at(s, s->slots[at] - 1), key, key_words * sizeof *key) == 0)
            return false;
    s->slots[at] = (uint32_t)++s->tried_count;
    if (2 * s->tried_count > s->slots_count) {
        free(s->slots);
        s->slots_count *= 2;
        s->slots = must(calloc(s->slots_count, sizeof *s->slots));
        for (size_t i = 0; i < s->tried_count; i++)
            slots_put(s, i);
    }
    return true;
}

static void unlink_event(struct search *s, size_t event)
{
    size_t i = event + 1;
    s->next[s->prev[i]] = s->next[i];
    s->prev[s->next[i]] = s->prev[i];
}

static void relink_event(struct search *s, size_t event)
{
    size_t i = event + 1;
    s->next[s->prev[i]] = i;
    s->prev[s->next[i]] = i;
}

static bool does(struct search *s, struct linearizable_state *state, size_t op)
{
    s->work_left -= s->work_left > 0;
    return s->model->does(state, &s->ops[op]);
}

static bool is_read(const struct search *s, size_t op)
{
    return s->model->reads >> s->ops[op].kind & 1;
}

/* The invocations before the first response, one after the other; 0: no more. */
static size_t next_candidate(const struct search *s, size_t i)
{
    i = s->next[i];
    return i == 0 || s->events[i - 1].response ? 0 : i;
}

static bool lets_a_read_happen(struct search *s, const struct linearizable_state *after)
{
    for (size_t i = next_candidate(s, 0); i; i = next_candidate(s, i)) {
        size_t op = s->events[i - 1].op;
        struct linearizable_state same = *after;
        if (is_read(s, op) && !s->ops[op].unknown && does(s, &same, op))
            return true;
    }
    return false;
}

static int by_hope(const void *a, const void *b)
{
    const struct choice *x = a, *y = b;
    if (x->helps != y->helps)
        return x->helps ? -1 : 1;
    if (x->returned != y->returned)
        return x->returned < y->returned ? -1 : 1;
    return x->op < y->op ? -1 : x->op > y->op;
}

static void choose(struct search *s, size_t op, bool helps)
{
    if (s->choices_count == s->choices_capacity) {
        s->choices_capacity = 2 * s->choices_capacity + 64;
        s->choices = must(realloc(s->choices, s->choices_capacity * sizeof *s->choices));
    }
    int64_t returned = s->ops[op].unknown ? INT64_MAX : s->ops[op].returned;
    s->choices[s->choices_count++] = (struct choice){op, helps, returned};
}

static void find_choices(struct search *s, const struct linearizable_state *state)
{
    size_t from = s->choices_count;
    for (size_t i = next_candidate(s, 0); i; i = next_candidate(s, i)) {
        size_t op = s->events[i - 1].op;
        struct linearizable_state after = *state;
        if (!does(s, &after, op))
            continue;
        if (is_read(s, op)) {
            s->choices_count = from;
            choose(s, op, true);
            return;
        }
        choose(s, op, lets_a_read_happen(s, &after));
    }
    if (s->choices_count > from)
        qsort(s->choices + from, s->choices_count - from, sizeof *s->choices, by_hope);
}

static void enter(struct search *s, struct linearizable_state state)
{
    struct place *p = &s->places[s->places_count++];
    p->state = state;
    p->choices_from = p->choices_next = s->choices_count;
    find_choices(s, &state);
    p->choices_to = s->choices_count;
}

static void toggle(struct search *s, size_t op)
{
    s->taken_bits[op / 64] ^= 1ull << (op % 64);
}

/* The next choice here leads to a new place, or was tried from elsewhere. */
static void go_on(struct search *s, struct place *p)
{
    size_t op = s->choices[p->choices_next++].op;
    struct linearizable_state after = p->state;
    bool possible = does(s, &after, op);
    CHR_ASSERT(possible);
    toggle(s, op);
    if (!first_time(s, &after)) {
        toggle(s, op);
        return;
    }
    p->taken = op;
    s->answers_left -= !s->ops[op].unknown;
    unlink_event(s, s->invocation_of[op]);
    unlink_event(s, s->response_of[op]);
    enter(s, after);
}

/* False: from the start there was no other way. */
static bool go_back(struct search *s)
{
    s->choices_count = s->places[--s->places_count].choices_from;
    if (s->places_count == 0)
        return false;
    size_t op = s->places[s->places_count - 1].taken;
    relink_event(s, s->response_of[op]);
    relink_event(s, s->invocation_of[op]);
    toggle(s, op);
    s->answers_left += !s->ops[op].unknown;
    return true;
}

enum linearizable_answer linearizable_check(const struct linearizable_model *model,
                                            const struct linearizable_op *ops, size_t count,
                                            uint64_t work_max)
{
    struct search s = {.model = model, .ops = ops, .count = count, .work_left = work_max};
    enum linearizable_answer answer = LINEARIZABLE_YES;
    search_start(&s);
    enter(&s, (struct linearizable_state){{0}});
    while (s.answers_left > 0 && answer == LINEARIZABLE_YES) {
        struct place *p = &s.places[s.places_count - 1];
        if (s.work_left == 0)
            answer = LINEARIZABLE_GAVE_UP;
        else if (p->choices_next < p->choices_to)
            go_on(&s, p);
        else if (!go_back(&s))
            answer = LINEARIZABLE_NO;
    }
    search_end(&s);
    return answer;
}
