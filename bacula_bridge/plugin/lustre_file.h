/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * What a Lustre client knows of an open file beside its attributes.
 *
 * Covers: whether HSM has released it, the version of its data.  Does not cover: which files are on
 * Lustre (layout.c), what follows (prefetch.c).
 */
#ifndef FOREBAY_LUSTRE_FILE_H
#define FOREBAY_LUSTRE_FILE_H

#include <stdint.h>

/* Has HSM released the open regular file fd of a Lustre?  1, 0, or -errno: it cannot be told.
 * Reads no data and looks for no holes, for either would recall the file. */
int fb_lustre_is_released(int fd);

/* The data version of the open regular file fd of a Lustre, after other clients have written what
 * they hold back of it: it is another one after any change of data, whatever the times say.  0: it
 * is not known, as that of a file without objects. */
uint64_t fb_lustre_data_version(int fd);

#endif
