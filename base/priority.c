#include "base/priority.h"

#include <sys/resource.h>

void chr_priority_set(int nice)
{
    (void)!setpriority(PRIO_PROCESS, 0, nice);
}
