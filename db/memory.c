/* db/memory.c: memory the state machine cannot go on without. */
#include "db/memory.h"

#include <stdlib.h>

#include "base/log.h"

void db__out_of_memory(void)
{
    chr_log_error("db", "out of memory while applying; stopping");
    abort();
}

static void *must(void *p, size_t bytes)
{
    if (!p && bytes)
        db__out_of_memory();
    return p;
}

void *db__must_malloc(size_t bytes)
{
    return must(malloc(bytes ? bytes : 1), bytes);
}

void *db__must_calloc(size_t count, size_t bytes)
{
    return must(calloc(count ? count : 1, bytes ? bytes : 1), count * bytes);
}

void *db__must_realloc(void *old, size_t bytes)
{
    return must(realloc(old, bytes ? bytes : 1), bytes);
}
