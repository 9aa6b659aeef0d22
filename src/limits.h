/* limits.h - what the system lets this process take: memory and cores, by its own limits and those of its control groups
 * (Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/). */
#ifndef LIMITS_H
#define LIMITS_H

#include <stdint.h>

/* Bytes that may still be taken: what the system has available, what the control groups allow beyond what they use (pages of files
 * do not count as used: they make room), and what resource limits leave. */
uint64_t limits_memory(void);
uint64_t limits_memory_taken(void);             /* bytes of this process in memory, now; 0: not known */

/* Cores in this process's affinity mask, no more than the quotas of its control groups come to, rounded up; at least 1. */
int limits_cores(void);

#endif
