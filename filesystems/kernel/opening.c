/* SPDX-License-Identifier: Apache-2.0 */
/* Opening directories below the root: component by component, never through a symlink.
 *
 * Component by component also because a path may be longer than PATH_MAX. What was opened is
 * compared with what was recorded (device and inode), so that a directory swapped for another one
 * or covered by a mount in the meantime is reported, not listed under the wrong name.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0x1000U
#endif
#ifndef STATX_ATTR_AUTOMOUNT
#define STATX_ATTR_AUTOMOUNT 0x1000
#endif

#define COMPONENT_BYTES_MAX 4095u

uint64_t statx_device(const struct statx *attributes) {
    return makedev(attributes->stx_dev_major, attributes->stx_dev_minor);
}

/* Whether another filesystem begins here. Device numbers are compared for directories only, since
 * overlayfs gives files those of its layers; the mount tells bind mounts, of files as well. */
bool walk_is_foreign(const struct fw_walk *walk, const struct statx *attributes) {
    if (!(walk->options.flags & FW_ONE_FILESYSTEM)) {
        return false;
    }
    if (walk->root_mount_known && (attributes->stx_mask & STATX_MNT_ID) &&
        attributes->stx_mnt_id != walk->root_mount) {
        return true;
    }
    return S_ISDIR(attributes->stx_mode) &&
           (statx_device(attributes) != walk->root->device ||
            (attributes->stx_attributes & STATX_ATTR_AUTOMOUNT));
}

static int compare_identities(const void *left, const void *right) {
    const struct fw_identity *a = left, *b = right;
    if (a->inode != b->inode) {
        return a->inode < b->inode ? -1 : 1;
    }
    return a->device < b->device ? -1 : a->device > b->device;
}

void identities_sort(struct fw_identity *identities, size_t count) {
    qsort(identities, count, sizeof *identities, compare_identities);
}

static bool is_among(const struct fw_identity *identities, size_t count, uint64_t device,
                     uint64_t inode) {
    struct fw_identity wanted = {.device = device, .inode = inode};
    return bsearch(&wanted, identities, count, sizeof *identities, compare_identities) != NULL;
}

bool walk_is_excluded(const struct fw_walk *walk, uint64_t device, uint64_t inode) {
    return is_among(walk->excluded, walk->options.excluded_count, device, inode);
}

bool walk_is_elsewhere(const struct fw_walk *walk, uint64_t device, uint64_t inode) {
    return is_among(walk->elsewhere, walk->options.elsewhere_count, device, inode);
}

/* Copy the component at *offset and move past it; false if it is too long. */
static bool next_component(const char *path, uint32_t size, uint32_t *offset, char *component) {
    const char *begin = path + *offset;
    const char *slash = memchr(begin, '/', size - *offset);
    uint32_t length = slash ? (uint32_t)(slash - begin) : size - *offset;
    if (length > COMPONENT_BYTES_MAX) {
        return false;
    }
    memcpy(component, begin, length);
    component[length] = '\0';
    *offset += length + (slash != NULL);
    return true;
}

/* Open a path of any length below base. At most two descriptors are open on the way. `parent` is
 * filled with the attributes of the last directory but one, `self` with those of the last one if
 * it can be seen but not opened; both may be NULL. */
static int open_components(struct fw_walk *walk, handle base, const char *path, uint32_t size,
                           struct statx *parent, struct statx *self, handle *descriptor) {
    const struct source *source = walk->source;
    char component[COMPONENT_BYTES_MAX + 1] = ".";
    handle current = base;
    int error = 0;
    uint32_t offset = 0;
    while (error == 0) {
        if (size > 0 && !next_component(path, size, &offset, component)) {
            error = ENAMETOOLONG;
            break;
        }
        if (offset == size) {
            if (parent != NULL) {
                error = source->attributes(walk, current, NULL, parent);
            }
            if (error == 0) {
                error = source->open(walk, current, component, true, descriptor);
            }
            if (error != 0 && self != NULL) {
                (void)source->attributes(walk, current, component, self);
            }
            break;
        }
        handle next = HANDLE_NONE;
        error = source->open(walk, current, component, false, &next);
        if (error == 0) {
            if (current != base) {
                source->close(walk, current);
            }
            current = next;
        }
    }
    if (current != base) {
        source->close(walk, current);
    }
    return error;
}

/* See that the descriptor is the directory that was recorded, or record it. */
static int identify(struct fw_walk *walk, struct directory *directory, handle descriptor) {
    struct statx attributes = {0};
    int error = walk->source->attributes(walk, descriptor, NULL, &attributes);
    if (error != 0) {
        return error;
    }
    uint64_t device = statx_device(&attributes);
    if (directory->identified) {
        bool same = device == directory->device && attributes.stx_ino == directory->inode;
        return same ? 0 : ESTALE;
    }
    directory->device = device;
    directory->inode = attributes.stx_ino;
    directory->identified = true;
    directory->skipped = walk_is_excluded(walk, device, attributes.stx_ino);
    return walk_is_foreign(walk, &attributes) ? EXDEV : 0;
}

/* Open a directory for the first time; base is its parent, or the root for a start directory. */
int open_first(struct fw_walk *walk, struct directory *directory, handle base,
               handle *descriptor) {
    int error;
    if (directory->start) {
        struct statx parent = {0};
        struct statx self = {0};
        error = open_components(walk, base, directory->name, directory->name_size, &parent,
                                &self, descriptor);
        directory->parent_inode = parent.stx_ino;
        if (error != 0) {
            directory->inode = self.stx_ino; /* 0 where even that is not known */
        }
    } else {
        error = walk->source->open(walk, base, directory->name, true, descriptor);
    }
    if (error == 0) {
        error = identify(walk, directory, *descriptor);
        if (error != 0) {
            walk->source->close(walk, *descriptor);
        }
    }
    return error;
}

/* Open a directory that was closed for want of descriptors, from an open ancestor. */
int open_again(struct fw_walk *walk, struct directory *directory, struct directory *ancestor,
               handle base, handle *descriptor) {
    char *path = malloc((size_t)directory->path_size + 1);
    if (path == NULL) {
        return ENOMEM;
    }
    directory_path(directory, path);
    uint32_t skip = ancestor->path_size + (ancestor->path_size > 0);
    uint32_t size = directory->path_size > skip ? directory->path_size - skip : 0;
    int error = open_components(walk, base, path + skip, size, NULL, NULL, descriptor);
    free(path);
    if (error == 0) {
        struct statx attributes = {0};
        error = walk->source->attributes(walk, *descriptor, NULL, &attributes);
        if (error == 0 && (statx_device(&attributes) != directory->device ||
                           attributes.stx_ino != directory->inode)) {
            error = ESTALE;
        }
        if (error != 0) {
            walk->source->close(walk, *descriptor);
        }
    }
    return error;
}
