/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * Names below a root directory, resolved by openat2 with RESOLVE_BENEATH and
 * RESOLVE_NO_SYMLINKS: no link and no swapped directory leads out of the root.
 * Paths are relative to the root, of any length (past PATH_MAX they are resolved
 * in pieces), not NUL-terminated.
 */
#ifndef FOREBAY_BENEATH_H
#define FOREBAY_BENEATH_H

#include <stddef.h>
#include <sys/types.h>

/* Opens path below root_fd; path_len 0 opens the root itself anew.  O_CLOEXEC and
 * O_NOFOLLOW are added (a final symlink can be opened with O_PATH).  Returns a
 * descriptor or -errno: ELOOP for a symlink on the way, EXDEV for an escape. */
int fb_open_beneath(int root_fd, const char *path, size_t path_len, int flags, mode_t mode);

/* Opens the directory that holds path and points *name at its last component
 * (within path, *name_len bytes).  Returns an O_PATH descriptor or -errno. */
int fb_open_parent(int root_fd, const char *path, size_t path_len, const char **name,
                   size_t *name_len);

/* As fb_open_parent, and makes missing directories with the given mode.  With
 * replace_links a symlink on the way is unlinked and a directory made in its
 * place; without, it is -ELOOP.  A directory that another process makes at the
 * same moment is used. */
int fb_make_parent(int root_fd, const char *path, size_t path_len, mode_t mode,
                   int replace_links, const char **name, size_t *name_len);

#endif
