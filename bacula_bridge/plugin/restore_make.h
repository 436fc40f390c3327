/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * Makes the inode or the name that a restore packet asks for, as the job's replace
 * mode allows.
 */
#ifndef FOREBAY_RESTORE_MAKE_H
#define FOREBAY_RESTORE_MAKE_H

#include <stdbool.h>
#include <stddef.h>

#include "abi.h"
#include "restore_attributes.h"
#include "restore_place.h"

/* What a packet describes; FB_KIND_NONE for what cannot be restored. */
enum fb_kind fb_make_kind(const struct restore_pkt *rp);

/* Is it a file that was saved without its data (hsm=stub)?  An empty regular file by its type,
 * but not by its size. */
bool fb_make_is_stub(const struct restore_pkt *rp);

/* Makes path (below the place), a regular file so that the layout can be given to it.
 * Returns 0 and in *fd the descriptor to write to (FB_KIND_FILE), an O_PATH one (symlinks,
 * nodes) or -1; or -errno; or -ECANCELED and in *skip why the replace mode leaves alone what
 * is there. */
int fb_make(struct fb_place *place, enum fb_kind kind, const struct restore_pkt *rp,
            const struct fb_layout_ahead *layout, const char *path, size_t path_len, int *fd,
            const char **skip);

#endif
