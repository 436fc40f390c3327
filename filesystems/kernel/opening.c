/* SPDX-License-Identifier: Apache-2.0 */
/* Opening directories below the root: component by component, never through a symlink.
 *
 * Component by component also because a path may be longer than PATH_MAX. What was opened is
 * compared with what was recorded (device and inode), so that a directory swapped for another one
 * or covered by a mount in the meantime is reported, not listed under the wrong name.
 */
#include "internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0x1000U
#endif
#ifndef STATX_ATTR_AUTOMOUNT
#define STATX_ATTR_AUTOMOUNT 0x1000
#endif

#define STATX_MASK (STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID)
#define COMPONENT_BYTES_MAX 4095u

int statx_retrying(int descriptor, const char *name, int flags, struct statx *attributes) {
    int result;
    do {
        result = statx(descriptor, name, flags | AT_NO_AUTOMOUNT, STATX_MASK, attributes);
    } while (result != 0 && errno == EINTR);
    return result == 0 ? 0 : errno;
}

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

static int openat_retrying(int base, const char *name, int flags, int *descriptor) {
    do {
        *descriptor = openat(base, name, flags | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    } while (*descriptor < 0 && errno == EINTR);
    return *descriptor >= 0 ? 0 : errno;
}

/* Open for reading; without touching the access time where we are allowed to. */
static int open_to_read(int base, const char *name, int *descriptor) {
    int error = openat_retrying(base, name, O_RDONLY | O_NONBLOCK | O_NOATIME, descriptor);
    if (error == EPERM) {
        error = openat_retrying(base, name, O_RDONLY | O_NONBLOCK, descriptor);
    }
    return error;
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
static int open_components(int base, const char *path, uint32_t size, struct statx *parent,
                           struct statx *self, int *descriptor) {
    char component[COMPONENT_BYTES_MAX + 1] = ".";
    int current = base;
    int error = 0;
    uint32_t offset = 0;
    while (error == 0) {
        if (size > 0 && !next_component(path, size, &offset, component)) {
            error = ENAMETOOLONG;
            break;
        }
        if (offset == size) {
            if (parent != NULL) {
                error = statx_retrying(current, "", AT_EMPTY_PATH, parent);
            }
            if (error == 0) {
                error = open_to_read(current, component, descriptor);
            }
            if (error != 0 && self != NULL) {
                (void)statx_retrying(current, component, AT_SYMLINK_NOFOLLOW, self);
            }
            break;
        }
        /* O_PATH looks up only: search permission is enough, and no server is asked to open. */
        int next = -1;
        error = openat_retrying(current, component, O_PATH, &next);
        if (error == 0) {
            if (current != base) {
                close(current);
            }
            current = next;
        }
    }
    if (current != base) {
        close(current);
    }
    return error;
}

/* See that the descriptor is the directory that was recorded, or record it. */
static int identify(struct fw_walk *walk, struct directory *directory, int descriptor) {
    struct statx attributes = {0};
    int error = statx_retrying(descriptor, "", AT_EMPTY_PATH, &attributes);
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
int open_first(struct fw_walk *walk, struct directory *directory, int base, int *descriptor) {
    int error;
    if (directory->start) {
        struct statx parent = {0};
        struct statx self = {0};
        error = open_components(base, directory->name, directory->name_size, &parent, &self,
                                descriptor);
        directory->parent_inode = parent.stx_ino;
        if (error != 0) {
            directory->inode = self.stx_ino; /* 0 where even that is not known */
        }
    } else {
        error = open_to_read(base, directory->name, descriptor);
    }
    if (error == 0) {
        error = identify(walk, directory, *descriptor);
        if (error != 0) {
            close(*descriptor);
        }
    }
    return error;
}

/* Open a directory that was closed for want of descriptors, from an open ancestor. */
int open_again(struct directory *directory, struct directory *ancestor, int base,
               int *descriptor) {
    char *path = malloc((size_t)directory->path_size + 1);
    if (path == NULL) {
        return ENOMEM;
    }
    directory_path(directory, path);
    uint32_t skip = ancestor->path_size + (ancestor->path_size > 0);
    uint32_t size = directory->path_size > skip ? directory->path_size - skip : 0;
    int error = open_components(base, path + skip, size, NULL, NULL, descriptor);
    free(path);
    if (error == 0) {
        struct statx attributes = {0};
        error = statx_retrying(*descriptor, "", AT_EMPTY_PATH, &attributes);
        if (error == 0 && (statx_device(&attributes) != directory->device ||
                           attributes.stx_ino != directory->inode)) {
            error = ESTALE;
        }
        if (error != 0) {
            close(*descriptor);
        }
    }
    return error;
}
