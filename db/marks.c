/* db/marks.c: deletion marks of chunks. */
#include "db/marks.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "db/memory.h"
#include "db/types.h"

#define RECENT_FIRST 16

struct recent {
    uint64_t index;
    uint32_t row;
};

struct db__marks_state {
    _Atomic uint32_t refs;
    _Atomic uint32_t count; /* of recent, published */
    uint32_t capacity;
    uint32_t folded;  /* bits set in the bitmap */
    uint64_t *bitmap; /* [DB_BIT_WORDS(rows)] behind the recent ones */
    struct recent recent[];
};

static struct db__marks_state *state_new(uint32_t rows, uint32_t capacity)
{
    size_t recent = capacity * sizeof(struct recent);
    struct db__marks_state *s =
        db__must_calloc(1, sizeof *s + recent + DB_BIT_WORDS(rows) * sizeof(uint64_t));
    s->refs = 1;
    s->capacity = capacity;
    s->bitmap = (uint64_t *)(void *)(s->recent + capacity);
    return s;
}

static void state_release(struct db__marks_state *s)
{
    if (s && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1)
        free(s);
}

static struct db__marks_state *state_acquire(struct db__marks *marks)
{
    pthread_mutex_lock(&marks->lock);
    struct db__marks_state *s = marks->state;
    if (s)
        atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&marks->lock);
    return s;
}

static void state_replace(struct db__marks *marks, struct db__marks_state *next)
{
    pthread_mutex_lock(&marks->lock);
    struct db__marks_state *old = marks->state;
    marks->state = next;
    pthread_mutex_unlock(&marks->lock);
    state_release(old);
}

void db__marks_init(struct db__marks *marks, uint32_t rows)
{
    memset(marks, 0, sizeof *marks);
    pthread_mutex_init(&marks->lock, NULL);
    marks->rows = rows;
}

void db__marks_free(struct db__marks *marks)
{
    state_release(marks->state);
    free(marks->now);
    pthread_mutex_destroy(&marks->lock);
}

/* More room, by folding what may be folded and by doubling where that is not enough. */
static struct db__marks_state *make_room(struct db__marks *marks, uint64_t fold_index)
{
    struct db__marks_state *s = marks->state;
    uint32_t fold = 0, published = s ? atomic_load_explicit(&s->count, memory_order_relaxed) : 0;
    while (fold < published && s->recent[fold].index <= fold_index)
        fold++;
    uint32_t keep = marks->written - fold, capacity = RECENT_FIRST;
    while (capacity < keep * 2)
        capacity *= 2;
    struct db__marks_state *next = state_new(marks->rows, capacity);
    if (s) {
        memcpy(next->bitmap, s->bitmap, DB_BIT_WORDS(marks->rows) * sizeof(uint64_t));
        for (uint32_t i = 0; i < fold; i++)
            db_bit_set(next->bitmap, s->recent[i].row);
        next->folded = s->folded + fold;
        memcpy(next->recent, s->recent + fold, keep * sizeof(struct recent));
        next->count = published - fold;
    }
    marks->written = keep;
    state_replace(marks, next);
    return next;
}

void db__marks_add(struct db__marks *marks, uint32_t row, uint64_t index, uint64_t fold_index)
{
    CHR_ASSERT(row < marks->rows);
    struct db__marks_state *s = marks->state;
    /* Folding is left to the first mark of an entry: later ones may have to be undone. */
    if (!s || marks->written == s->capacity)
        s = make_room(marks, marks->dirty ? 0 : fold_index);
    s->recent[marks->written++] = (struct recent){.index = index, .row = row};
    if (!marks->now)
        marks->now = db__must_calloc(DB_BIT_WORDS(marks->rows), sizeof(uint64_t));
    CHR_ASSERT(!db_bit_get(marks->now, row));
    db_bit_set(marks->now, row);
    marks->count++;
    marks->dirty = true;
}

void db__marks_undo(struct db__marks *marks)
{
    struct db__marks_state *s = marks->state;
    CHR_ASSERT(marks->written > atomic_load_explicit(&s->count, memory_order_relaxed));
    db_bit_clear(marks->now, s->recent[--marks->written].row);
    marks->count--;
}

void db__marks_publish(struct db__marks *marks)
{
    marks->dirty = false;
    if (marks->state)
        atomic_store_explicit(&marks->state->count, marks->written, memory_order_release);
}

bool db__marks_has(const struct db__marks *marks, uint32_t row)
{
    return marks->now && db_bit_get(marks->now, row);
}

uint32_t db__marks_at(struct db__marks *marks, uint64_t index, uint64_t *bitmap)
{
    struct db__marks_state *s = state_acquire(marks);
    if (!s)
        return 0;
    uint32_t count = atomic_load_explicit(&s->count, memory_order_acquire);
    while (count && s->recent[count - 1].index > index)
        count--;
    if (s->folded + count) {
        memcpy(bitmap, s->bitmap, DB_BIT_WORDS(marks->rows) * sizeof(uint64_t));
        for (uint32_t i = 0; i < count; i++)
            db_bit_set(bitmap, s->recent[i].row);
    }
    count += s->folded;
    state_release(s);
    return count;
}

uint32_t db__marks_count_at(struct db__marks *marks, uint64_t index)
{
    struct db__marks_state *s = state_acquire(marks);
    if (!s)
        return 0;
    uint32_t count = atomic_load_explicit(&s->count, memory_order_acquire);
    while (count && s->recent[count - 1].index > index)
        count--;
    count += s->folded;
    state_release(s);
    return count;
}

void db__marks_each_after(const struct db__marks *marks, uint64_t after,
                          void (*visit)(void *arg, uint32_t row, uint64_t index), void *arg)
{
    const struct db__marks_state *s = marks->state;
    for (uint32_t i = 0; s && i < marks->written; i++)
        if (s->recent[i].index > after)
            visit(arg, s->recent[i].row, s->recent[i].index);
}

bool db__marks_load(struct db__marks *marks, const uint8_t *bitmap, size_t bytes)
{
    size_t words = DB_BIT_WORDS(marks->rows);
    if (bytes != words * sizeof(uint64_t))
        return false;
    struct db__marks_state *s = state_new(marks->rows, RECENT_FIRST);
    for (size_t i = 0; i < words; i++) {
        s->bitmap[i] = chr_get_u64le(bitmap + i * 8);
        s->folded += (uint32_t)__builtin_popcountll(s->bitmap[i]);
    }
    bool beyond = marks->rows & 63 && s->bitmap[words - 1] >> (marks->rows & 63);
    if (beyond) {
        state_release(s);
        return false;
    }
    marks->now = db__must_calloc(words, sizeof(uint64_t));
    memcpy(marks->now, s->bitmap, words * sizeof(uint64_t));
    marks->count = s->folded;
    state_replace(marks, s);
    return true;
}
