/* SPDX-License-Identifier: Apache-2.0 */
/* What FUSE asks of the namespace. All handlers answer at once: delays are main.c's. */
#ifndef LATENCY_HANDLERS_H
#define LATENCY_HANDLERS_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#include "namespace.h"

struct serving {
    struct shape shape;
    uint64_t timeout_ms;              /* for how long the client may keep names and attributes */
    uint64_t readdirplus, page_cache; /* 0 or 1 */
};

extern struct serving serving;

struct fuse_lowlevel_ops handlers(void);

#endif
