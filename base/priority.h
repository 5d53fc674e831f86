/* base/priority.h: which threads of the process go first when the machine is busy. */
#ifndef CHR_BASE_PRIORITY_H
#define CHR_BASE_PRIORITY_H

/* What a cluster takes for the life of a node: heartbeats, votes. */
#define CHR_PRIORITY_URGENT (-5)
/* What can wait: a snapshot for a node that is behind. */
#define CHR_PRIORITY_LOW 5

/* Sets the nice value of the calling thread (setpriority(2); Linux has one for each thread). Going
 * below 0 needs CAP_SYS_NICE or RLIMIT_NICE; without them the thread stays as it is. Any thread. */
void chr_priority_set(int nice);

#endif
