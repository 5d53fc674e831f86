/* bench/filters.c */
#include "bench/filters.h"

#include <stdio.h>

#include "base/hash.h"

static unsigned site_of(uint64_t seed, uint32_t device)
{
    return (unsigned)(chr_hash_u64(seed ^ device) % FILTERS_SITES);
}

/* A permutation of the numbers, so that names have no order. */
static unsigned name_of(uint32_t device)
{
    return device * 2654435761u;
}

size_t filters_text(uint64_t seed, uint32_t i, char *out)
{
    uint32_t device = i / FILTERS_PER_DEVICE;
    unsigned site = site_of(seed, device), name = name_of(device);
    int len = 0;
    switch (i % FILTERS_PER_DEVICE) {
    case 0:
        return filters_topic(seed, device, FILTERS_TEMP, out);
    case 1:
        return filters_topic(seed, device, FILTERS_STATE, out);
    case 2:
        if (device % 4 == 0)
            len = snprintf(out, FILTERS_TEXT_MAX, "site/%03u/dev-%08x/+", site, name);
        else if (device % 4 == 1)
            len = snprintf(out, FILTERS_TEXT_MAX, "site/+/dev-%08x/temp", name);
        else if (device % 4 == 2)
            len = snprintf(out, FILTERS_TEXT_MAX, "+/%03u/dev-%08x/+", site, name);
        else
            len = snprintf(out, FILTERS_TEXT_MAX, "+/+/dev-%08x/#", name);
        break;
    default:
        len = snprintf(out, FILTERS_TEXT_MAX, "site/%03u/dev-%08x/%s#", site, name,
                       device % 2 ? "temp/" : "");
    }
    return (size_t)len;
}

size_t filters_topic(uint64_t seed, uint32_t device, enum filters_topic which, char *out)
{
    return (size_t)snprintf(out, FILTERS_TEXT_MAX, "site/%03u/dev-%08x/%s", site_of(seed, device),
                            name_of(device), which == FILTERS_TEMP ? "temp" : "state");
}

unsigned filters_matching(uint32_t device, enum filters_topic which)
{
    if (which == FILTERS_TEMP)
        return 3;
    return 1u + (device % 4 != 1) + (device % 2 == 0);
}
