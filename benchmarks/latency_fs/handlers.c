/* SPDX-License-Identifier: Apache-2.0 */
#include "handlers.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define BLOCK_BYTES 4096
#define TIME_S 1735689600 /* 2025-01-01: old enough to be trusted */

struct serving serving;

static double timeout_s(void) {
    return (double)serving.timeout_ms / 1000;
}

static struct stat attributes(const struct node *node) {
    struct stat found = {
        .st_ino = node->inode,
        .st_mode = node->is_directory ? S_IFDIR | 0755 : S_IFREG | 0644,
        .st_nlink = 1, /* of directories too: tools must not count subdirectories by it */
        .st_size = node->is_directory ? BLOCK_BYTES : (off_t)serving.shape.size_bytes,
        .st_blksize = BLOCK_BYTES,
        .st_atime = TIME_S,
        .st_mtime = TIME_S,
        .st_ctime = TIME_S,
    };
    found.st_blocks = (found.st_size + 511) / 512;
    return found;
}

static struct fuse_entry_param entry_of(const struct node *node) {
    return (struct fuse_entry_param){
        .ino = node->inode,
        .attr = attributes(node),
        .attr_timeout = timeout_s(),
        .entry_timeout = timeout_s(),
    };
}

static void lookup(fuse_req_t request, fuse_ino_t parent, const char *name) {
    struct node directory, found;
    if (!node_at(&serving.shape, parent, &directory) ||
        !node_at(&serving.shape, child_named(&serving.shape, &directory, name), &found)) {
        fuse_reply_err(request, ENOENT);
        return;
    }
    struct fuse_entry_param entry = entry_of(&found);
    fuse_reply_entry(request, &entry);
}

static void get_attributes(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file) {
    (void)file;
    struct node node;
    if (!node_at(&serving.shape, inode, &node)) {
        fuse_reply_err(request, ENOENT);
        return;
    }
    struct stat found = attributes(&node);
    fuse_reply_attr(request, &found, timeout_s());
}

static void open_directory(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file) {
    (void)inode;
    fuse_reply_open(request, file);
}

static void open_file(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file) {
    (void)inode;
    file->direct_io = !serving.page_cache;
    file->keep_cache = serving.page_cache != 0;
    fuse_reply_open(request, file);
}

static void list(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, bool plus) {
    static char listed[READ_BYTES_MAX]; /* one thread handles all requests */
    struct node directory, found;
    if (!node_at(&serving.shape, inode, &directory) || !directory.is_directory || offset < 0) {
        fuse_reply_err(request, ENOTDIR);
        return;
    }
    if (size > sizeof listed) {
        size = sizeof listed;
    }
    size_t used = 0;
    for (uint64_t at = (uint64_t)offset; at < directory.children; at++) {
        char name[NAME_BYTES];
        if (!node_at(&serving.shape, child_at(&serving.shape, &directory, at, name), &found)) {
            abort(); /* they contradict each other */
        }
        struct fuse_entry_param entry = entry_of(&found);
        off_t next = (off_t)at + 1;
        size_t needed =
            plus ? fuse_add_direntry_plus(request, listed + used, size - used, name, &entry, next)
                 : fuse_add_direntry(request, listed + used, size - used, name, &entry.attr, next);
        if (needed > size - used) {
            break;
        }
        used += needed;
    }
    fuse_reply_buf(request, listed, used);
}

static void read_directory(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                           struct fuse_file_info *file) {
    (void)file;
    list(request, inode, size, offset, false);
}

static void read_directory_plus(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                                struct fuse_file_info *file) {
    (void)file;
    list(request, inode, size, offset, true);
}

static void read_file(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                      struct fuse_file_info *file) {
    (void)file;
    uint64_t begin = (uint64_t)offset;
    if (offset < 0 || begin >= serving.shape.size_bytes) {
        fuse_reply_buf(request, NULL, 0);
        return;
    }
    if (size > READ_BYTES_MAX) {
        size = READ_BYTES_MAX;
    }
    if (size > serving.shape.size_bytes - begin) {
        size = serving.shape.size_bytes - begin;
    }
    fuse_reply_buf(request, content_at(inode, begin), size);
}

static void list_xattrs(fuse_req_t request, fuse_ino_t inode, size_t size) {
    (void)inode;
    if (size == 0) {
        fuse_reply_xattr(request, 0);
    } else {
        fuse_reply_buf(request, NULL, 0);
    }
}

static void get_xattr(fuse_req_t request, fuse_ino_t inode, const char *name, size_t size) {
    (void)inode;
    (void)name;
    (void)size;
    fuse_reply_err(request, ENODATA);
}

static void stat_filesystem(fuse_req_t request, fuse_ino_t inode) {
    (void)inode;
    struct statvfs found = {
        .f_bsize = BLOCK_BYTES,
        .f_frsize = BLOCK_BYTES,
        .f_files = serving.shape.inodes,
        .f_namemax = NAME_BYTES - 1,
    };
    found.f_blocks = serving.shape.inodes * (1 + serving.shape.size_bytes / BLOCK_BYTES);
    fuse_reply_statfs(request, &found);
}

static void begin(void *data, struct fuse_conn_info *connection) {
    (void)data;
    connection->max_write = READ_BYTES_MAX; /* libfuse takes the size of reads from it */
    connection->max_background = UINT16_MAX;
    connection->congestion_threshold = UINT16_MAX;
}

struct fuse_lowlevel_ops handlers(void) {
    return (struct fuse_lowlevel_ops){
        .init = begin,
        .lookup = lookup,
        .getattr = get_attributes,
        .opendir = open_directory,
        .readdir = read_directory,
        /* Where it is not there, libfuse does not offer it. */
        .readdirplus = serving.readdirplus ? read_directory_plus : NULL,
        .open = open_file,
        .read = read_file,
        .listxattr = list_xattrs,
        .getxattr = get_xattr,
        .statfs = stat_filesystem,
    };
}
