/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * What a Lustre client knows of an open file beside its attributes.
 *
 * Covers: whether HSM has released it.  Does not cover: which files are on Lustre (layout.c), what
 * follows (prefetch.c).
 */
#ifndef FOREBAY_LUSTRE_FILE_H
#define FOREBAY_LUSTRE_FILE_H

#include <stdint.h>

/* Has HSM released the open regular file fd of a Lustre?  1, 0, or -errno: it cannot be told.
 * Reads no data and looks for no holes, for either would recall the file. */
int fb_lustre_is_released(int fd);

#endif
