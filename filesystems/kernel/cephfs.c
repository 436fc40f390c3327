/* SPDX-License-Identifier: Apache-2.0 */
/* Directories of CephFS by libcephfs, which is loaded at run time: no mount is gone through.
 *
 * ceph_readdirplus_r gives names with their inodes, of which one request brings about a thousand.
 * What it says of their attributes is what the metadata server knew, also of a file that another
 * client is writing. ceph_ll_getattr asks again where the client was not granted to rely on that
 * (and answers from memory where it was): so attributes are as good as lstat's through a mount.
 * Directories are looked up by name in an open one, as openat does, without following symlinks.
 *
 * The declarations are of src/include/cephfs/libcephfs.h and ceph_ll_client.h, Ceph 16 to 20.
 */
#include "internal.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

/* libcephfs's */
struct ceph_mount_info;
struct ceph_dir_result;
struct Inode;
struct UserPerm;

struct ceph_statx {
    uint32_t mask, blksize, nlink, uid, gid;
    uint16_t mode;
    uint64_t ino, size, blocks;
    dev_t dev, rdev;
    struct timespec atime, ctime, mtime, btime;
    uint64_t version;
};

#define CEPH_STATX_INO 0x100u
#define CEPH_STATX_BASIC_STATS 0x7ffu
#define CEPH_STATX_BTIME 0x800u
#define CEPH_AT_STATX_DONT_SYNC 0x4000u
#define RDEV_MINOR_BITS 20 /* linux/kdev_t.h: MINORBITS */
#define WANTED (CEPH_STATX_BASIC_STATS | CEPH_STATX_BTIME)

/* What a later libcephfs may write behind the structure does no harm. */
union attributes {
    struct ceph_statx statx;
    char room[512];
};

#define LIBRARY_FUNCTIONS(FUNCTION)                                                               \
    FUNCTION(const char *, ceph_version, (int *, int *, int *))                                   \
    FUNCTION(int, ceph_create, (struct ceph_mount_info **, const char *))                         \
    FUNCTION(int, ceph_release, (struct ceph_mount_info *))                                       \
    FUNCTION(int, ceph_conf_read_file, (struct ceph_mount_info *, const char *))                  \
    FUNCTION(int, ceph_conf_parse_env, (struct ceph_mount_info *, const char *))                  \
    FUNCTION(int, ceph_conf_set, (struct ceph_mount_info *, const char *, const char *))          \
    FUNCTION(int, ceph_mount, (struct ceph_mount_info *, const char *))                           \
    FUNCTION(int, ceph_unmount, (struct ceph_mount_info *))                                       \
    FUNCTION(struct UserPerm *, ceph_mount_perms, (struct ceph_mount_info *))                     \
    FUNCTION(int, ceph_getxattr,                                                                  \
             (struct ceph_mount_info *, const char *, const char *, void *, size_t))              \
    FUNCTION(int, ceph_ll_lookup_root, (struct ceph_mount_info *, struct Inode **))               \
    FUNCTION(int, ceph_ll_lookup,                                                                 \
             (struct ceph_mount_info *, struct Inode *, const char *, struct Inode **,            \
              struct ceph_statx *, unsigned, unsigned, const struct UserPerm *))                  \
    FUNCTION(int, ceph_ll_put, (struct ceph_mount_info *, struct Inode *))                        \
    FUNCTION(int, ceph_ll_getattr,                                                                \
             (struct ceph_mount_info *, struct Inode *, struct ceph_statx *, unsigned, unsigned,  \
              const struct UserPerm *))                                                           \
    FUNCTION(int, ceph_ll_opendir,                                                                \
             (struct ceph_mount_info *, struct Inode *, struct ceph_dir_result **,                \
              const struct UserPerm *))                                                           \
    FUNCTION(int, ceph_ll_releasedir, (struct ceph_mount_info *, struct ceph_dir_result *))       \
    FUNCTION(int, ceph_readdirplus_r,                                                             \
             (struct ceph_mount_info *, struct ceph_dir_result *, struct dirent *,                \
              struct ceph_statx *, unsigned, unsigned, struct Inode **))                          \
    FUNCTION(void, ceph_seekdir, (struct ceph_mount_info *, struct ceph_dir_result *, int64_t))

struct fw_cephfs {
    struct ceph_mount_info *mount;
    const struct UserPerm *user;
#define MEMBER(result, name, parameters) result(*name) parameters;
    LIBRARY_FUNCTIONS(MEMBER)
#undef MEMBER
};

/* What a handle points to. */
struct cephfs_directory {
    struct Inode *inode;
    struct ceph_dir_result *result; /* NULL: not opened to be read */
    int search_error;               /* why its names may not be looked at; 0: they may */
};

/* Behind the name in a record, from the next multiple of 8 on. */
struct entry {
    struct ceph_statx attributes;
    int64_t error;
};

#define NAME_BYTES_MAX 255u
#define RECORD_BYTES_MAX \
    ((uint32_t)((offsetof(struct record, name) + NAME_BYTES_MAX + 1 + 7) / 8 * 8 + \
                sizeof(struct entry)))
_Static_assert(sizeof(struct entry) % 8 == 0, "records are aligned to 8 bytes");
/* A frontier's cookie is libcephfs's: the kernel's client and this one need not agree. */
#define COOKIE_MARK (UINT64_C(1) << 62)
#define STACK_BYTES 1048576u /* libcephfs formats messages on it */
#define THREADS_AUTOMATIC_MAX 16u /* libcephfs has one lock; more only wait for it */

/* Mounting */

static void say(char *said, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void say(char *said, size_t size, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(said, size, format, arguments);
    va_end(arguments);
}

/* The library stays loaded: it has threads and thread-local state of its own. */
static int load(struct fw_cephfs *cephfs, const char *library, char *said, size_t said_size) {
    void *loaded = dlopen(library, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (loaded == NULL) {
        const char *why = dlerror();
        say(said, said_size, "%s", why != NULL ? why : library);
        return ELIBACC;
    }
    int error = 0;
#define LOAD(result, name, parameters)                                                            \
    if (error == 0) {                                                                             \
        void *found = dlsym(loaded, #name);                                                       \
        if (found == NULL) {                                                                      \
            say(said, said_size, "%s has no %s; Ceph 16 or later has", library, #name);           \
            error = ELIBACC;                                                                      \
        } else {                                                                                  \
            memcpy(&cephfs->name, &found, sizeof found);                                          \
        }                                                                                         \
    }
    LIBRARY_FUNCTIONS(LOAD)
#undef LOAD
    dlclose(loaded);
    return error;
}

static int configure(struct fw_cephfs *cephfs, uint32_t timeout_s, char *said, size_t said_size) {
    char timeout[16];
    snprintf(timeout, sizeof timeout, "%u", timeout_s);
    const char *settings[][2] = {
        /* A library says nothing by itself, and other clients of the process have the socket. */
        {"admin_socket", ""},       {"log_file", ""},        {"log_to_stderr", "false"},
        {"err_to_stderr", "false"}, {"log_to_file", "false"}, {"client_mount_timeout", timeout},
    };
    int result = cephfs->ceph_conf_read_file(cephfs->mount, NULL);
    if (result < 0) {
        say(said, said_size, "no usable ceph.conf: %s", strerror(-result));
        return -result;
    }
    result = cephfs->ceph_conf_parse_env(cephfs->mount, NULL);
    if (result < 0) {
        say(said, said_size, "CEPH_ARGS: %s", strerror(-result));
        return -result;
    }
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        result = cephfs->ceph_conf_set(cephfs->mount, settings[i][0], settings[i][1]);
        if (result < 0) {
            say(said, said_size, "setting %s: %s", settings[i][0], strerror(-result));
            return -result;
        }
    }
    return 0;
}

int fw_cephfs_mount(const char *library, const char *id, const char *path, uint32_t timeout_s,
                    struct fw_cephfs **mounted, char *said, size_t said_size) {
    *mounted = NULL;
    struct fw_cephfs *cephfs = calloc(1, sizeof *cephfs);
    if (cephfs == NULL) {
        say(said, said_size, "no memory");
        return -ENOMEM;
    }
    int error = load(cephfs, library, said, said_size);
    if (error != 0) {
        free(cephfs);
        return -error;
    }
    int result = cephfs->ceph_create(&cephfs->mount, id);
    if (result < 0) {
        say(said, said_size, "a client cannot be made: %s", strerror(-result));
        free(cephfs);
        return result;
    }
    error = configure(cephfs, timeout_s, said, said_size);
    if (error == 0) {
        result = cephfs->ceph_mount(cephfs->mount, path);
        if (result < 0) {
            say(said, said_size, "mounting %s: %s", path, strerror(-result));
            error = -result;
        }
    }
    if (error != 0) {
        cephfs->ceph_release(cephfs->mount);
        free(cephfs);
        return -error;
    }
    cephfs->user = cephfs->ceph_mount_perms(cephfs->mount);
    *mounted = cephfs;
    return 0;
}

void fw_cephfs_unmount(struct fw_cephfs *mounted) {
    if (mounted != NULL) {
        mounted->ceph_unmount(mounted->mount);
        mounted->ceph_release(mounted->mount);
        free(mounted);
    }
}

void fw_cephfs_version(struct fw_cephfs *mounted, int version[3]) {
    (void)mounted->ceph_version(&version[0], &version[1], &version[2]);
}

int fw_cephfs_xattr(struct fw_cephfs *mounted, const char *name, char *value, size_t size) {
    return mounted->ceph_getxattr(mounted->mount, "/", name, value, size);
}

int fw_cephfs_look(struct fw_cephfs *mounted, struct fw_cephfs_root *root) {
    struct Inode *inode = NULL;
    int result = mounted->ceph_ll_lookup_root(mounted->mount, &inode);
    if (result < 0) {
        return result;
    }
    union attributes found = {0};
    result = mounted->ceph_ll_getattr(mounted->mount, inode, &found.statx, WANTED, 0,
                                      mounted->user);
    mounted->ceph_ll_put(mounted->mount, inode);
    if (result < 0) {
        return result;
    }
    *root = (struct fw_cephfs_root){.inode = found.statx.ino,
                                    .mode = found.statx.mode,
                                    .uid = found.statx.uid,
                                    .gid = found.statx.gid,
                                    .mtime_s = found.statx.mtime.tv_sec,
                                    .mtime_ns = (uint32_t)found.statx.mtime.tv_nsec,
                                    .ctime_s = found.statx.ctime.tv_sec,
                                    .ctime_ns = (uint32_t)found.statx.ctime.tv_nsec};
    return 0;
}

/* Walking */

/* The errno of a result. A client that the cluster has shut out, or that is not mounted any more,
 * answers nothing: that is no broken file but the end of the walk. */
static int checked(struct fw_walk *walk, int result) {
    if (result >= 0) {
        return 0;
    }
    if (result == -ESHUTDOWN || result == -ENOTCONN) {
        walk_end(walk, -result);
    }
    return -result;
}

static struct statx_timestamp timestamp(const struct timespec *time) {
    return (struct statx_timestamp){.tv_sec = time->tv_sec, .tv_nsec = (uint32_t)time->tv_nsec};
}

/* What a statx through the mount gives. */
static int convert(const struct fw_walk *walk, const struct ceph_statx *from, struct statx *to) {
    if ((from->mask & CEPH_STATX_BASIC_STATS) != CEPH_STATX_BASIC_STATS) {
        return EIO;
    }
    bool has_btime = (walk->options.flags & FW_BIRTH_TIMES) && (from->mask & CEPH_STATX_BTIME);
    *to = (struct statx){
        .stx_mask = STATX_BASIC_STATS | (has_btime ? STATX_BTIME : 0),
        .stx_nlink = from->nlink,
        .stx_uid = from->uid,
        .stx_gid = from->gid,
        .stx_mode = from->mode,
        .stx_ino = from->ino,
        .stx_size = from->size,
        .stx_blocks = from->blocks,
        .stx_atime = timestamp(&from->atime),
        .stx_btime = timestamp(&from->btime),
        .stx_ctime = timestamp(&from->ctime),
        .stx_mtime = timestamp(&from->mtime),
        /* CephFS stores the kernel's own form of it, and libcephfs passes that on. */
        .stx_rdev_major = (uint32_t)(from->rdev >> RDEV_MINOR_BITS),
        .stx_rdev_minor = (uint32_t)(from->rdev & ((1u << RDEV_MINOR_BITS) - 1)),
        .stx_dev_major = major(walk->options.device),
        .stx_dev_minor = minor(walk->options.device),
    };
    return 0;
}

static struct cephfs_directory *directory_of(handle pointer) {
    return (struct cephfs_directory *)pointer;
}

static void cephfs_close(struct fw_walk *walk, handle pointer) {
    struct fw_cephfs *cephfs = walk->options.cephfs;
    struct cephfs_directory *directory = directory_of(pointer);
    if (directory->result != NULL) {
        cephfs->ceph_ll_releasedir(cephfs->mount, directory->result);
    }
    cephfs->ceph_ll_put(cephfs->mount, directory->inode);
    free(directory);
}

/* Take over the inode, whose reference is given back if this fails. */
static int open_inode(struct fw_walk *walk, struct Inode *inode, bool to_read, handle *opened) {
    struct fw_cephfs *cephfs = walk->options.cephfs;
    struct cephfs_directory *directory = calloc(1, sizeof *directory);
    int error = directory != NULL ? 0 : ENOMEM;
    if (error == 0 && to_read) {
        error = checked(walk, cephfs->ceph_ll_opendir(cephfs->mount, inode, &directory->result,
                                                      cephfs->user));
    }
    if (error != 0) {
        cephfs->ceph_ll_put(cephfs->mount, inode);
        free(directory);
        return error;
    }
    directory->inode = inode;
    if (to_read) {
        /* Reading gives attributes also to those who may read a directory, but not search it. */
        struct Inode *self = NULL;
        union attributes unused;
        directory->search_error =
            checked(walk, cephfs->ceph_ll_lookup(cephfs->mount, inode, ".", &self, &unused.statx,
                                                 CEPH_STATX_INO, 0, cephfs->user));
        if (directory->search_error == 0) {
            cephfs->ceph_ll_put(cephfs->mount, self);
        }
    }
    *opened = (handle)directory;
    return 0;
}

static int cephfs_open_root(struct fw_walk *walk, const char *path, handle *opened) {
    (void)path;
    struct fw_cephfs *cephfs = walk->options.cephfs;
    struct Inode *inode = NULL;
    int error = checked(walk, cephfs->ceph_ll_lookup_root(cephfs->mount, &inode));
    return error != 0 ? error : open_inode(walk, inode, true, opened);
}

static int cephfs_open(struct fw_walk *walk, handle base, const char *name, bool to_read,
                       handle *opened) {
    struct fw_cephfs *cephfs = walk->options.cephfs;
    struct Inode *inode = NULL;
    union attributes found = {0};
    int error = checked(walk, cephfs->ceph_ll_lookup(cephfs->mount, directory_of(base)->inode,
                                                     name, &inode, &found.statx, CEPH_STATX_INO,
                                                     0, cephfs->user));
    if (error != 0) {
        return error;
    }
    if (!S_ISDIR(found.statx.mode)) {
        cephfs->ceph_ll_put(cephfs->mount, inode);
        return ENOTDIR;
    }
    return open_inode(walk, inode, to_read, opened);
}

static int cephfs_attributes(struct fw_walk *walk, handle pointer, const char *name,
                             struct statx *attributes) {
    struct fw_cephfs *cephfs = walk->options.cephfs;
    struct Inode *inode = directory_of(pointer)->inode;
    union attributes found = {0};
    int error;
    if (name == NULL) {
        error = checked(walk, cephfs->ceph_ll_getattr(cephfs->mount, inode, &found.statx, WANTED,
                                                      0, cephfs->user));
    } else {
        struct Inode *child = NULL;
        error = checked(walk, cephfs->ceph_ll_lookup(cephfs->mount, inode, name, &child,
                                                     &found.statx, WANTED, 0, cephfs->user));
        if (error == 0) {
            cephfs->ceph_ll_put(cephfs->mount, child);
        }
    }
    return error != 0 ? error : convert(walk, &found.statx, attributes);
}

static const struct entry *entry_of(const struct record *record) {
    const char *end = (const char *)record + record->size;
    return (const struct entry *)(const void *)(end - sizeof(struct entry));
}

static int cephfs_entry(struct fw_walk *walk, handle pointer, const struct record *record,
                        struct statx *attributes) {
    (void)pointer;
    const struct entry *entry = entry_of(record);
    return entry->error != 0 ? (int)entry->error : convert(walk, &entry->attributes, attributes);
}

static int cephfs_seek(struct fw_walk *walk, handle pointer, uint64_t cookie) {
    struct fw_cephfs *cephfs = walk->options.cephfs;
    if (cookie > INT64_MAX) {
        return EINVAL;
    }
    cephfs->ceph_seekdir(cephfs->mount, directory_of(pointer)->result, (int64_t)cookie);
    return 0;
}

/* Read the next name and its attributes; 1, 0 at the end, or a negative errno. An error that is
 * the name's own is in the entry. */
static int read_name(struct fw_walk *walk, struct cephfs_directory *directory,
                     struct dirent *dirent, struct entry *entry) {
    struct fw_cephfs *cephfs = walk->options.cephfs;
    struct Inode *inode = NULL;
    union attributes found = {0};
    int result = cephfs->ceph_readdirplus_r(cephfs->mount, directory->result, dirent,
                                            &found.statx, WANTED, CEPH_AT_STATX_DONT_SYNC, &inode);
    if (result != 1) {
        (void)checked(walk, result);
        return result;
    }
    int error = directory->search_error;
    if (error == 0 && !(walk->options.flags & FW_DONT_SYNC)) {
        /* From the cache, if the client was granted that; else another one may have news. */
        error = checked(walk, cephfs->ceph_ll_getattr(cephfs->mount, inode, &found.statx, WANTED,
                                                      0, cephfs->user));
    }
    cephfs->ceph_ll_put(cephfs->mount, inode);
    *entry = (struct entry){.attributes = found.statx, .error = error};
    return 1;
}

static long cephfs_read(struct fw_walk *walk, handle pointer, struct dirents *dirents) {
    struct cephfs_directory *directory = directory_of(pointer);
    uint32_t used = 0;
    while (used + RECORD_BYTES_MAX <= DIRENTS_BYTES && !walk_ending(walk)) {
        struct dirent dirent;
        struct entry entry;
        int result = read_name(walk, directory, &dirent, &entry);
        size_t name_size = result == 1 ? strnlen(dirent.d_name, NAME_BYTES_MAX + 1) : 0;
        if (name_size > NAME_BYTES_MAX) {
            result = -EIO;
        }
        if (result <= 0) {
            /* What was read before is listed; an error comes again, or was a passing one. */
            return used > 0 ? (long)used : result;
        }
        struct record *record = (struct record *)(void *)(dirents->bytes + used);
        size_t named = (offsetof(struct record, name) + name_size + 1 + 7) / 8 * 8;
        memset(record, 0, named);
        record->ino = dirent.d_ino;
        record->off = dirent.d_off;
        record->type = dirent.d_type;
        record->size = (uint16_t)(named + sizeof(struct entry));
        memcpy(record->name, dirent.d_name, name_size);
        memcpy((char *)record + named, &entry, sizeof entry);
        used += record->size;
    }
    return used;
}

const struct source source_cephfs = {
    .record_bytes_max = RECORD_BYTES_MAX,
    .cookie_mark = COOKIE_MARK,
    .thread_stack_bytes = STACK_BYTES,
    .threads_automatic_max = THREADS_AUTOMATIC_MAX,
    .open_root = cephfs_open_root,
    .open = cephfs_open,
    .close = cephfs_close,
    .attributes = cephfs_attributes,
    .entry = cephfs_entry,
    .seek = cephfs_seek,
    .read = cephfs_read,
};
