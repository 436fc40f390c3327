/* SPDX-License-Identifier: Apache-2.0 */
/* How the server is told and asked while it runs: lines on stdin, JSON objects on stdout.
 *
 * Covers: "counts"; "metadata-us N", "read-us N" and "read-mib-us N", which change the delay of
 * what arrives from then on.
 */
#ifndef LATENCY_CONTROL_H
#define LATENCY_CONTROL_H

#include "pending.h"

#define STATX_OPCODE 52 /* FUSE_STATX; headers before Linux 6.6 lack it */

extern struct costs costs;
extern struct counts counts;

_Noreturn void fail(const char *what, const char *why);

void print_counts(void);

/* Read what stdin has and obey it; false at its end. */
bool take_commands(void);

#endif
