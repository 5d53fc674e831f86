/* base/slice.c: the one slice function that allocates. */
#include "base/slice.h"

#include <stdlib.h>

char *chr_slice_dup_cstr(chr_slice s)
{
    char *copy = malloc(s.len + 1);
    if (!copy)
        return NULL;
    if (s.len)
        memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return copy;
}
