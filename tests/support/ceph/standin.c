/* SPDX-License-Identifier: Apache-2.0 */
/* A libcephfs.so.2 that serves a directory of this machine: a path in CephFS is a path here.
 *
 * Covers: the functions that the walker kernel loads, with the public headers' declarations, and
 * that whoever unmounts has given every inode back.
 * Does not cover: anything of a client's cache, or other clients.
 *
 * STANDIN_FSID: the cluster. STANDIN_SHUTDOWN_AFTER=N: after so many names the client is shut out.
 * STANDIN_MOUNT=ERRNO: a mount fails; 0: it never ends. STANDIN_OTHER_INODES: names have others.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

struct ceph_mount_info {
    int root;
    atomic_long inodes, directories, names;
    long names_max;
};

struct Inode {
    int descriptor;
};

struct ceph_dir_result {
    DIR *stream;
};

struct UserPerm {
    int unused;
};

struct ceph_statx {
    uint32_t stx_mask, stx_blksize, stx_nlink, stx_uid, stx_gid;
    uint16_t stx_mode;
    uint64_t stx_ino, stx_size, stx_blocks;
    dev_t stx_dev, stx_rdev;
    struct timespec stx_atime, stx_ctime, stx_mtime, stx_btime;
    uint64_t stx_version;
};

#define BASIC_STATS 0x7ffu

static struct UserPerm user;

const char *ceph_version(int *major_version, int *minor_version, int *patch) {
    *major_version = 99;
    *minor_version = 1;
    *patch = 2;
    return "99.1.2";
}

int ceph_create(struct ceph_mount_info **mount, const char *id) {
    (void)id;
    *mount = calloc(1, sizeof **mount);
    if (*mount == NULL) {
        return -ENOMEM;
    }
    const char *names = getenv("STANDIN_SHUTDOWN_AFTER");
    (*mount)->root = -1;
    (*mount)->names_max = names != NULL ? atol(names) : -1;
    return 0;
}

int ceph_release(struct ceph_mount_info *mount) {
    free(mount);
    return 0;
}

int ceph_conf_read_file(struct ceph_mount_info *mount, const char *path) {
    (void)mount;
    (void)path;
    return 0;
}

int ceph_conf_parse_env(struct ceph_mount_info *mount, const char *variable) {
    (void)mount;
    (void)variable;
    return 0;
}

int ceph_conf_set(struct ceph_mount_info *mount, const char *option, const char *value) {
    (void)mount;
    return option != NULL && value != NULL ? 0 : -EINVAL;
}

int ceph_mount(struct ceph_mount_info *mount, const char *path) {
    const char *result = getenv("STANDIN_MOUNT");
    while (result != NULL && atoi(result) == 0) {
        pause();
    }
    if (result != NULL) {
        return -atoi(result);
    }
    mount->root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return mount->root >= 0 ? 0 : -errno;
}

int ceph_unmount(struct ceph_mount_info *mount) {
    if (atomic_load(&mount->inodes) != 0 || atomic_load(&mount->directories) != 0) {
        abort();
    }
    close(mount->root);
    return 0;
}

struct UserPerm *ceph_mount_perms(struct ceph_mount_info *mount) {
    (void)mount;
    return &user;
}

int ceph_getxattr(struct ceph_mount_info *mount, const char *path, const char *name, void *value,
                  size_t size) {
    (void)mount;
    const char *cluster = getenv("STANDIN_FSID");
    if (strcmp(path, "/") != 0 || strcmp(name, "ceph.cluster_fsid") != 0 || cluster == NULL) {
        return -ENODATA;
    }
    if (strlen(cluster) > size) {
        return -ERANGE;
    }
    memcpy(value, cluster, strlen(cluster));
    return (int)strlen(cluster);
}

static int inode_at(struct ceph_mount_info *mount, int base, const char *name, struct Inode **out) {
    int descriptor = openat(base, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (descriptor < 0) {
        return -errno;
    }
    *out = malloc(sizeof **out);
    (*out)->descriptor = descriptor;
    atomic_fetch_add(&mount->inodes, 1);
    return 0;
}

static int look(int descriptor, struct ceph_statx *found) {
    struct stat status;
    if (fstatat(descriptor, "", &status, AT_EMPTY_PATH) != 0) {
        return -errno;
    }
    memset(found, 0, sizeof *found);
    found->stx_mask = BASIC_STATS;
    found->stx_nlink = (uint32_t)status.st_nlink;
    found->stx_uid = status.st_uid;
    found->stx_gid = status.st_gid;
    found->stx_mode = (uint16_t)status.st_mode;
    found->stx_ino = status.st_ino;
    found->stx_size = (uint64_t)status.st_size;
    found->stx_blocks = (uint64_t)status.st_blocks;
    found->stx_rdev = ((dev_t)major(status.st_rdev) << 20) | minor(status.st_rdev);
    found->stx_atime = status.st_atim;
    found->stx_mtime = status.st_mtim;
    found->stx_ctime = status.st_ctim;
    if (getenv("STANDIN_OTHER_INODES") != NULL && !S_ISDIR(status.st_mode)) {
        found->stx_ino++;
    }
    return 0;
}

int ceph_ll_lookup_root(struct ceph_mount_info *mount, struct Inode **out) {
    return inode_at(mount, mount->root, ".", out);
}

int ceph_ll_put(struct ceph_mount_info *mount, struct Inode *inode) {
    atomic_fetch_sub(&mount->inodes, 1);
    close(inode->descriptor);
    free(inode);
    return 0;
}

int ceph_ll_lookup(struct ceph_mount_info *mount, struct Inode *parent, const char *name,
                   struct Inode **out, struct ceph_statx *found, unsigned want, unsigned flags,
                   const struct UserPerm *perms) {
    (void)want;
    (void)flags;
    (void)perms;
    int result = inode_at(mount, parent->descriptor, name, out);
    if (result == 0) {
        result = look((*out)->descriptor, found);
        if (result != 0) {
            ceph_ll_put(mount, *out);
        }
    }
    return result;
}

int ceph_ll_getattr(struct ceph_mount_info *mount, struct Inode *inode, struct ceph_statx *found,
                    unsigned want, unsigned flags, const struct UserPerm *perms) {
    (void)mount;
    (void)want;
    (void)flags;
    (void)perms;
    return look(inode->descriptor, found);
}

int ceph_ll_opendir(struct ceph_mount_info *mount, struct Inode *inode,
                    struct ceph_dir_result **out, const struct UserPerm *perms) {
    (void)perms;
    int descriptor = openat(inode->descriptor, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = descriptor >= 0 ? fdopendir(descriptor) : NULL;
    if (stream == NULL) {
        return -errno;
    }
    *out = malloc(sizeof **out);
    (*out)->stream = stream;
    atomic_fetch_add(&mount->directories, 1);
    return 0;
}

int ceph_ll_releasedir(struct ceph_mount_info *mount, struct ceph_dir_result *directory) {
    atomic_fetch_sub(&mount->directories, 1);
    closedir(directory->stream);
    free(directory);
    return 0;
}

int ceph_readdirplus_r(struct ceph_mount_info *mount, struct ceph_dir_result *directory,
                       struct dirent *dirent, struct ceph_statx *found, unsigned want,
                       unsigned flags, struct Inode **out) {
    (void)want;
    (void)flags;
    if (mount->names_max >= 0 && atomic_fetch_add(&mount->names, 1) >= mount->names_max) {
        return -ESHUTDOWN;
    }
    for (;;) {
        errno = 0;
        const struct dirent *next = readdir(directory->stream);
        if (next == NULL) {
            return -errno;
        }
        if (strcmp(next->d_name, ".") == 0 || strcmp(next->d_name, "..") == 0) {
            continue;
        }
        int result = inode_at(mount, dirfd(directory->stream), next->d_name, out);
        if (result == -ENOENT) {
            continue;
        }
        if (result != 0) {
            return result;
        }
        memset(dirent, 0, sizeof *dirent);
        dirent->d_ino = next->d_ino;
        dirent->d_off = next->d_off;
        dirent->d_type = next->d_type;
        strcpy(dirent->d_name, next->d_name);
        result = look((*out)->descriptor, found);
        if (result != 0) {
            ceph_ll_put(mount, *out);
            return result;
        }
        return 1;
    }
}

void ceph_seekdir(struct ceph_mount_info *mount, struct ceph_dir_result *directory,
                  int64_t offset) {
    (void)mount;
    seekdir(directory->stream, offset);
}
