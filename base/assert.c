/* base/assert.c: the last words of a process that found itself wrong. */
#include "base/assert.h"

#include <stdlib.h>

#include "base/log.h"

void chr_assert_failed(const char *condition, const char *file, int line)
{
    chr_log_error("assert", "assertion failed", CHR_KV_C("condition", condition),
                  CHR_KV_C("file", file), CHR_KV_I("line", line));
    abort();
}
