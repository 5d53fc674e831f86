#include "db/due.h"

#include <stdbool.h>
#include <stdlib.h>

#include "db/memory.h"

void db__dues_free(struct db__dues *dues)
{
    free(dues->heap);
    *dues = (struct db__dues){0};
}

static bool sooner(const struct db__due *a, const struct db__due *b)
{
    if (a->us != b->us)
        return a->us < b->us;
    return a->kind != b->kind ? a->kind < b->kind : a->tie < b->tie;
}

static void put(struct db__dues *dues, size_t at, struct db__due *due)
{
    dues->heap[at - 1] = due;
    due->at = at;
}

static void settle(struct db__dues *dues, size_t at)
{
    struct db__due *due = dues->heap[at - 1];
    for (; at > 1 && sooner(due, dues->heap[at / 2 - 1]); at /= 2)
        put(dues, at, dues->heap[at / 2 - 1]);
    for (size_t child; (child = at * 2) <= dues->count; at = child) {
        if (child < dues->count && sooner(dues->heap[child], dues->heap[child - 1]))
            child++;
        if (!sooner(dues->heap[child - 1], due))
            break;
        put(dues, at, dues->heap[child - 1]);
    }
    put(dues, at, due);
}

void db__due_set(struct db__dues *dues, struct db__due *due, int64_t us)
{
    if (due->at) {
        size_t at = due->at;
        struct db__due *last = dues->heap[--dues->count];
        due->at = 0;
        if (last != due) {
            put(dues, at, last);
            settle(dues, at);
        }
    }
    due->us = us;
    if (us == INT64_MAX)
        return;
    DB__RESERVE(dues->heap, dues->count, dues->capacity);
    put(dues, ++dues->count, due);
    settle(dues, dues->count);
}

struct db__due *db__due_first(const struct db__dues *dues)
{
    return dues->count ? dues->heap[0] : NULL;
}
