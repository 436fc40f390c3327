/* A stand-in for liblustreapi: the calls that Forebay uses, on files instead of a filesystem.
 *
 * Written from the public interface's description. The state is below $FOREBAY_LUSTRE_STANDIN:
 *   root                   the FID of the mount's root directory, 16 bytes
 *   inodes/NUMBER          the FID of an inode, 16 bytes
 *   links/FID              the names of an object: parent FID (16), length (2), name; again ...
 *   MDT/records            whole records, one behind the other
 *   MDT/users              lines "clN INDEX": up to where each consumer has cleared
 *   MDT/purged             "INDEX NEWEST": what was purged, and the newest record when anybody cleared
 *   MDT/hidden             "INDEX COUNT": that record is not there for the next so many readings
 *   MDT/marks              if it is there, a marker is stored when all is cleared
 *   MDT/fault, fault       "CALL ERRNO COUNT": the call fails, after it has succeeded COUNT times
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_MAX 952
#define HEADER 64
#define MARK_PURGE 0x40000u
#define LEVELS_MAX 4096

struct fid { uint64_t seq; uint32_t oid, ver; } __attribute__((packed));
struct header {
    uint16_t namelen, flags;
    uint32_t type;
    uint64_t index, prev, time;
    struct fid target, parent;
} __attribute__((packed));
/* Reads on from a file of records: what is left of `size` bytes in a buffer is from `at` on. */
struct source { FILE *file; size_t size, at; char data[1 << 18]; };
struct reader {
    char target[64];
    struct source records;
    long long served, receive_fault_at, memory_fault_at; /* after so many; -1: never */
    int receive_fault, ended;
    unsigned long long hidden;
};

static int state_path(char *out, const char *one, const char *two)
{
    const char *base = getenv("FOREBAY_LUSTRE_STANDIN");
    int n = base == NULL ? -1 : snprintf(out, PATH_MAX, two ? "%s/%s/%s" : "%s/%s", base, one, two);
    return n < 0 || n >= PATH_MAX ? -EINVAL : 0;
}

/* The whole file, with a NUL behind it; NULL if there is none. */
static char *slurp(const char *one, const char *two, size_t *size)
{
    char path[PATH_MAX];
    struct stat st;
    if (state_path(path, one, two) != 0)
        return NULL;
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    char *data = NULL;
    if (fstat(fileno(file), &st) == 0 && (data = malloc((size_t)st.st_size + 1)) != NULL) {
        *size = fread(data, 1, (size_t)st.st_size, file);
        data[*size] = 0;
    }
    fclose(file);
    return data;
}

static int write_text(const char *one, const char *two, const char *text)
{
    char path[PATH_MAX];
    FILE *file = state_path(path, one, two) == 0 ? fopen(path, "wb") : NULL;
    if (file == NULL)
        return -EIO;
    fputs(text, file);
    return fclose(file) == 0 ? 0 : -EIO;
}

/* What a call is to return, and after how many successes (-1: never). */
static int fault_of(const char *target, const char *call, long long *after)
{
    size_t size = 0;
    char name[64];
    int code = 0;
    long long count = 0;
    char *text = target ? slurp(target, "fault", &size) : slurp("fault", NULL, &size);
    *after = -1;
    if (text != NULL && sscanf(text, "%63s %d %lld", name, &code, &count) == 3 && strcmp(name, call) == 0)
        *after = count;
    free(text);
    return -code;
}

static int fault(const char *target, const char *call)
{
    long long after;
    int code = fault_of(target, call, &after);
    return after == 0 ? code : 0;
}

/* 0 if the bytes are no whole record. */
static size_t record_size(const char *data, size_t left)
{
    static const unsigned extra_sizes[] = {16, 24, 4, 256};
    struct header header;
    if (left < HEADER)
        return 0;
    memcpy(&header, data, HEADER);
    size_t size = HEADER + (header.flags & 0x2000 ? 32 : 0) + (header.flags & 0x4000 ? 32 : 0);
    if (header.flags & 0x8000) {
        uint64_t extra = 0;
        if (left >= size + 8)
            memcpy(&extra, data + size, 8);
        size += 8;
        for (unsigned bit = 0; bit < 4; bit++)
            size += extra & (1u << bit) ? extra_sizes[bit] : 0;
    }
    size += header.namelen;
    return size <= left ? size : 0;
}

static uint64_t index_at(const char *data)
{
    struct header header;
    memcpy(&header, data, HEADER);
    return header.index;
}

static int open_records(struct source *records, const char *target)
{
    char path[PATH_MAX];
    records->size = records->at = 0;
    records->file = state_path(path, target, "records") == 0 ? fopen(path, "rb") : NULL;
    return records->file == NULL ? -ENOENT : 0;
}

/* The next record, and its size; NULL at the end. To be passed by adding that to `at`. */
static const char *next_record(struct source *records, size_t *size)
{
    if (records->size - records->at < 1 << 17) { /* longer than any record can say it is */
        records->size -= records->at;
        memmove(records->data, records->data + records->at, records->size);
        records->at = 0;
        records->size += fread(records->data + records->size, 1, sizeof(records->data) - records->size, records->file);
    }
    *size = record_size(records->data + records->at, records->size - records->at);
    return *size == 0 ? NULL : records->data + records->at;
}

static void purged(const char *target, unsigned long long *upto)
{
    size_t size = 0;
    char *text = slurp(target, "purged", &size);
    *upto = 0;
    if (text != NULL)
        sscanf(text, "%llu", upto);
    free(text);
}

/* The record that is not there yet for this reading; 0 if all are. */
static unsigned long long hidden(const char *target)
{
    size_t size = 0;
    unsigned long long index = 0, count = 0;
    char *text = slurp(target, "hidden", &size), left[64];
    if (text != NULL && sscanf(text, "%llu %llu", &index, &count) == 2 && count > 0) {
        snprintf(left, sizeof(left), "%llu %llu", index, count - 1);
        write_text(target, "hidden", left);
    }
    free(text);
    return count > 0 ? index : 0;
}

int llapi_changelog_start(void **priv, int flags, const char *mdtname, long long startrec)
{
    (void)flags;
    *priv = NULL;
    int code = fault(mdtname, "start");
    if (code != 0)
        return code;
    struct reader *reader = calloc(1, sizeof(*reader));
    if (reader == NULL)
        return -ENOMEM;
    if (open_records(&reader->records, mdtname) != 0) {
        free(reader);
        return -ENOENT;
    }
    unsigned long long upto;
    snprintf(reader->target, sizeof(reader->target), "%s", mdtname);
    reader->receive_fault = fault_of(mdtname, "recv", &reader->receive_fault_at);
    fault_of(mdtname, "nomem", &reader->memory_fault_at);
    purged(mdtname, &upto);
    reader->hidden = hidden(mdtname);
    size_t size;
    const char *data;
    while ((data = next_record(&reader->records, &size)) != NULL) {
        uint64_t index = index_at(data);
        if (index > upto && index != reader->hidden && (startrec <= 0 || index >= (uint64_t)startrec))
            break;
        reader->records.at += size;
    }
    *priv = reader;
    return 0;
}

int llapi_changelog_set_xflags(void *priv, int extra)
{
    (void)extra;
    return priv == NULL ? -EINVAL : 0;
}

int llapi_changelog_recv(void *priv, void **record)
{
    struct reader *reader = priv;
    *record = NULL;
    if (reader == NULL)
        return -EINVAL;
    if (reader->served == reader->receive_fault_at)
        return reader->receive_fault;
    size_t size;
    const char *data = next_record(&reader->records, &size);
    if (data != NULL && index_at(data) == reader->hidden) {
        reader->records.at += size;
        data = next_record(&reader->records, &size);
    }
    if (data == NULL || reader->ended) { /* sticks to what was opened */
        reader->ended = 1;
        return 1;
    }
    if (reader->served == reader->memory_fault_at)
        return 0; /* out of memory looks like this */
    /* As the library does: room for the largest, whatever the record says. */
    char *copy = calloc(1, RECORD_MAX);
    if (copy == NULL)
        return 0;
    memcpy(copy, data, size < RECORD_MAX ? size : RECORD_MAX);
    reader->records.at += size;
    reader->served++;
    *record = copy;
    return 0;
}

int llapi_changelog_free(void **record)
{
    free(*record);
    *record = NULL;
    return 0;
}

int llapi_changelog_fini(void **priv)
{
    struct reader *reader = *priv;
    if (reader == NULL)
        return -EINVAL;
    fclose(reader->records.file);
    free(reader);
    *priv = NULL;
    return 0;
}

static int append_mark(const char *target, uint64_t index)
{
    char path[PATH_MAX];
    struct header mark = {.flags = 0x1000, .index = index, .time = index};
    uint32_t flags = MARK_PURGE;
    memcpy(&mark.target, &flags, sizeof(flags));
    FILE *file = state_path(path, target, "records") == 0 ? fopen(path, "ab") : NULL;
    if (file == NULL)
        return -EIO;
    size_t done = fwrite(&mark, HEADER, 1, file);
    return fclose(file) == 0 && done == 1 ? 0 : -EIO;
}

int llapi_changelog_clear(const char *mdtname, const char *idstr, long long endrec)
{
    char id[32], users[4096] = "", out[PATH_MAX];
    unsigned long long newest = 0, least = ULLONG_MAX, upto;
    size_t size = 0;
    int is_known = 0, code = fault(mdtname, "clear");
    if (code != 0)
        return code;
    if (endrec < 0)
        return -EINVAL;
    snprintf(id, sizeof(id), "%.*s", (int)strcspn(idstr, "-"), idstr);
    struct source *records = malloc(sizeof(*records));
    if (records == NULL || open_records(records, mdtname) != 0) {
        free(records);
        return -ENOENT;
    }
    const char *data;
    while ((data = next_record(records, &size)) != NULL) {
        newest = index_at(data);
        records->at += size;
    }
    fclose(records->file);
    free(records);
    if ((unsigned long long)endrec > newest)
        return -EINVAL;
    unsigned long long end = endrec == 0 ? newest : (unsigned long long)endrec;
    char *text = slurp(mdtname, "users", &size), *rest = text;
    for (char *line; text != NULL && (line = strsep(&rest, "\n")) != NULL && *line;) {
        char name[32];
        unsigned long long mark;
        if (sscanf(line, "%31s %llu", name, &mark) != 2)
            continue;
        if (strcmp(name, id) == 0) {
            if (end < mark) {
                free(text);
                return -EINVAL;
            }
            is_known = 1;
            mark = end;
        }
        least = mark < least ? mark : least;
        snprintf(users + strlen(users), sizeof(users) - strlen(users), "%s %llu\n", name, mark);
    }
    free(text);
    if (!is_known)
        return -ENOENT;
    if (write_text(mdtname, "users", users) != 0)
        return -EIO;
    purged(mdtname, &upto);
    char *marks = slurp(mdtname, "marks", &size);
    int has_marks = marks != NULL;
    free(marks);
    if (has_marks && least >= newest && append_mark(mdtname, newest + 1) != 0)
        return -EIO;
    snprintf(out, sizeof(out), "%llu %llu\n", least > upto ? least : upto, newest);
    return write_text(mdtname, "purged", out);
}

int llapi_path2fid(const char *path, struct fid *fid)
{
    struct stat st;
    char number[32];
    size_t size = 0;
    if (lstat(path, &st) != 0)
        return -errno;
    snprintf(number, sizeof(number), "%llu", (unsigned long long)st.st_ino);
    char *data = slurp("inodes", number, &size);
    int code = data != NULL && size == sizeof(*fid) ? 0 : -ENOTTY;
    if (code == 0)
        memcpy(fid, data, sizeof(*fid));
    free(data);
    return code;
}

/* The link of that number, or the first one; how many there are, 0 if the object is gone. */
static int link_of(const struct fid *fid, int number, struct fid *parent, char *name)
{
    char hex[33];
    size_t size = 0;
    const unsigned char *bytes = (const unsigned char *)fid;
    for (int i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    char *data = slurp("links", hex, &size);
    int count = 0, wanted = 0;
    for (int pass = 0; data != NULL && pass < 2; pass++) {
        size_t at = 0;
        count = 0;
        while (at + 18 <= size) {
            uint16_t length;
            memcpy(&length, data + at + 16, 2);
            if (pass == 1 && count == wanted) {
                memcpy(parent, data + at, 16);
                memcpy(name, data + at + 18, length);
                name[length] = 0;
            }
            at += 18u + length;
            count++;
        }
        wanted = number < count ? number : 0;
    }
    free(data);
    return count;
}

int llapi_fid2path_at(int mnt_fd, const struct fid *fid, char *path, int pathlen,
                      long long *recno, int *linkno)
{
    char buffer[1 << 16], name[256];
    size_t size = 0;
    struct fid root, at = *fid, parent = {0};
    char *end = buffer + sizeof(buffer) - 1, *begin = end;
    (void)mnt_fd;
    (void)recno;
    if (pathlen > PATH_MAX)
        return -EINVAL;
    char *data = slurp("root", NULL, &size);
    if (data == NULL || size != sizeof(root)) {
        free(data);
        return -ENODEV;
    }
    memcpy(&root, data, sizeof(root));
    free(data);
    int code = fault(NULL, "fid2path");
    if (code != 0)
        return code;
    *end = 0;
    for (int level = 0; memcmp(&at, &root, sizeof(root)) != 0; level++) {
        int wanted = level == 0 ? *linkno : 0;
        int count = link_of(&at, wanted, &parent, name);
        if (count == 0 || level == LEVELS_MAX)
            return -ENOENT;
        if (level == 0 && wanted < count - 1)
            ++*linkno;
        size_t length = strlen(name);
        if (begin - buffer < (long)length + 1)
            return -ENAMETOOLONG;
        begin -= length;
        memcpy(begin, name, length);
        *--begin = '/';
        at = parent;
    }
    if (*begin == '/')
        begin++;
    if (end - begin >= pathlen)
        return -EOVERFLOW;
    memcpy(path, begin, (size_t)(end - begin) + 1);
    return 0;
}

/* How many there are is in the file `mdts`. */
static int mdts(void)
{
    size_t size = 0;
    char *text = slurp("mdts", NULL, &size);
    int count = text != NULL ? atoi(text) : 1;
    free(text);
    return count;
}

int llapi_get_obd_count(char *mnt, int *count, int is_mdt)
{
    struct stat st;
    if (stat(mnt, &st) != 0)
        return -errno;
    *count = is_mdt ? mdts() : 0;
    return fault(NULL, "obd_count");
}

/* A directory that was not placed is on the first one. */
int llapi_file_fget_mdtidx(int fd, int *index)
{
    struct stat st;
    char number[32];
    size_t size = 0;
    if (fstat(fd, &st) != 0)
        return -errno;
    snprintf(number, sizeof(number), "%llu", (unsigned long long)st.st_ino);
    char *text = slurp("placed", number, &size);
    *index = text != NULL ? atoi(text) : 0;
    free(text);
    return fault(NULL, "mdtidx");
}
