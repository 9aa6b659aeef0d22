/* timing.h - how long things take: a clock, and what stands for several measurements. */
#ifndef TIMING_H
#define TIMING_H

double timing_now(void);                     /* monotonic, from an arbitrary start */
/* Sorts v[n], n > 0: the fastest of n times is v[0] then. */
double timing_median(double *v, int n);

#endif
