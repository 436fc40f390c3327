/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * Bacula's File Daemon plugin interface, version 23 (Bacula 15.0.x), in our own
 * words: x86_64 and other LP64 Linux.  Offsets were measured on 15.0.3 and are
 * asserted below; plugin.c compares the sizes again with what the daemon says
 * at load and with the size that every packet carries.
 */
#ifndef FOREBAY_ABI_H
#define FOREBAY_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define FD_PLUGIN_MAGIC "*FDPluginData*"
#define FD_PLUGIN_INTERFACE_VERSION 23

/* Return codes of plugin entry points. */
typedef enum {
  bRC_OK = 0,
  bRC_Stop = 1,
  bRC_Error = 2,
  bRC_More = 3,
  bRC_Term = 4,
  bRC_Seen = 5,
  bRC_Core = 6,
  bRC_Skip = 7,
  bRC_Cancel = 8
} bRC;

/* Message types; 9.6 and 11 number them one lower, hence the check at load. */
enum {
  M_ABORT = 1,
  M_DEBUG = 2,
  M_FATAL = 4,
  M_ERROR = 5,
  M_WARNING = 6,
  M_INFO = 7,
  M_SAVED = 8,
  M_NOTSAVED = 9,
  M_SKIPPED = 10
};

enum { IO_OPEN = 1, IO_READ = 2, IO_WRITE = 3, IO_CLOSE = 4, IO_SEEK = 5 };
enum { BACL_BACKUP = 1, BACL_RESTORE = 2, BXATTR_BACKUP = 3, BXATTR_RESTORE = 4 };
enum { CF_SKIP = 1, CF_ERROR = 2, CF_EXTRACT = 3, CF_CREATED = 4, CF_CORE = 5 };

enum {
  FT_LNKSAVED = 1,
  FT_REGE = 2,
  FT_REG = 3,
  FT_LNK = 4,
  FT_DIREND = 5,
  FT_SPEC = 6,
  FT_NOACCESS = 7,
  FT_NOFOLLOW = 8,
  FT_NOSTAT = 9,
  FT_NOOPEN = 15,
  FT_RAW = 16,
  FT_FIFO = 17,
  FT_DELETED = 23,
  FT_RESTORE_FIRST = 25
};

enum { REPLACE_ALWAYS = 'a', REPLACE_IFNEWER = 'w', REPLACE_IFOLDER = 'o', REPLACE_NEVER = 'n' };

/* save_pkt.flags */
#define FO_SPARSE ((uint64_t)1 << 5)
#define FO_OFFSETS ((uint64_t)1 << 30)

typedef enum {
  bEventJobStart = 1,
  bEventJobEnd = 2,
  bEventStartBackupJob = 3,
  bEventEndBackupJob = 4,
  bEventStartRestoreJob = 5,
  bEventEndRestoreJob = 6,
  bEventStartVerifyJob = 7,
  bEventEndVerifyJob = 8,
  bEventBackupCommand = 9,
  bEventRestoreCommand = 10,
  bEventEstimateCommand = 11,
  bEventLevel = 12,
  bEventSince = 13,
  bEventCancelCommand = 14,
  bEventRestoreObject = 18,
  bEventEndFileSet = 19,
  bEventPluginCommand = 20,
  bEventOptionPlugin = 23,
  bEventFeatures = 26,
  bEventPluginOptions = 28
} bEventType;

typedef enum {
  bVarJobId = 1,
  bVarFDName = 2,
  bVarLevel = 3,
  bVarType = 4,
  bVarClient = 5,
  bVarJobName = 6,
  bVarJobStatus = 7,
  bVarSinceTime = 8,
  bVarAccurate = 9,
  bVarWorkingDir = 13,
  bVarWhere = 15,
  bVarRegexWhere = 16,
  bVarPrevJobName = 20,
  bVarPrefixLinks = 21,
  bVarFileIndex = 23,
  bVarReplace = 24,
  bVarIsCanceled = 27
} bVariable;

typedef struct {
  void *core_context;
  void *plugin_context;
} bpContext;

typedef struct {
  uint32_t event_type;
} bEvent;

typedef struct {
  uint32_t size;
  uint32_t version;
} bInfo;

typedef struct {
  uint32_t size;
  uint32_t version;
  const char *magic;
  const char *license;
  const char *author;
  const char *date;
  const char *plugin_version;
  const char *description;
} pInfo;

struct restore_object {
  char *name;
  char *object;
  int32_t length;
  int32_t index;
  void *compression; /* 8 bytes that we never touch */
};

/* The value of bEventRestoreObject; NULL once all have come. */
struct restore_object_pkt {
  int32_t pkt_size;
  char *object_name;
  char *object;
  char *plugin_name;
  int32_t object_type;
  int32_t object_len;
  int32_t object_full_len;
  int32_t object_index;
  int32_t object_compression;
  int32_t stream;
  uint32_t JobId;
  int32_t pkt_end;
};

struct plugin_object {
  char *path, *plugin_name, *category, *type, *name, *source, *uuid;
  uint64_t size;
  int32_t status;
  uint32_t count;
};

struct save_pkt {
  int32_t pkt_size;
  char *fname;
  char *snap_fname;
  int32_t plugin_mode;
  char *link;
  struct stat statp;
  int32_t type;
  uint64_t flags;
  bool no_read;
  bool portable;
  bool accurate_found;
  bool do_dedup;
  bool stat_update;
  char *cmd;
  struct restore_object restore_obj;
  struct plugin_object plugin_obj;
  void *plug_meta; /* a C++ object of the daemon: leave it NULL */
  uint32_t delta_seq;
  int32_t LinkFI;
  int32_t pkt_end;
};

struct restore_pkt {
  int32_t pkt_size;
  int32_t plugin_mode;
  int32_t stream;
  int32_t data_stream;
  int32_t type;
  int32_t file_index;
  int32_t LinkFI;
  uint32_t uid;
  struct stat statp;
  const char *attrEx;
  const char *ofname;
  const char *olname;
  const char *where;
  const char *RegexWhere;
  int32_t replace;
  int32_t create_status;
  uint32_t delta_seq;
  int32_t pkt_end;
};

struct io_pkt {
  int32_t pkt_size;
  int32_t func;
  int32_t count;
  int32_t flags;
  uint32_t mode;
  char *buf;
  const char *fname;
  int32_t status;
  int32_t io_errno;
  int32_t lerror;
  int32_t whence;
  int64_t offset;
  bool win32;
  int32_t pkt_end;
};

struct xacl_pkt {
  int32_t pkt_size;
  int32_t func;
  int32_t count;
  char *content;
  int32_t pkt_end;
};

/* What the daemon offers.  Members that we do not call are void (*)(void). */
typedef struct {
  uint32_t size;
  uint32_t version;
  bRC (*registerBaculaEvents)(bpContext *ctx, ...);
  bRC (*getBaculaValue)(bpContext *ctx, int32_t var, void *value);
  bRC (*setBaculaValue)(bpContext *ctx, int32_t var, void *value);
  bRC (*JobMessage)(bpContext *ctx, const char *file, int line, int type, int64_t mtime,
                    const char *fmt, ...);
  bRC (*DebugMessage)(bpContext *ctx, const char *file, int line, int level, const char *fmt, ...);
  void (*unused[15])(void);
} bFuncs;

typedef struct {
  uint32_t size;
  uint32_t version;
  bRC (*newPlugin)(bpContext *ctx);
  bRC (*freePlugin)(bpContext *ctx);
  bRC (*getPluginValue)(bpContext *ctx, int32_t var, void *value);
  bRC (*setPluginValue)(bpContext *ctx, int32_t var, void *value);
  bRC (*handlePluginEvent)(bpContext *ctx, bEvent *event, void *value);
  bRC (*startBackupFile)(bpContext *ctx, struct save_pkt *sp);
  bRC (*endBackupFile)(bpContext *ctx);
  bRC (*startRestoreFile)(bpContext *ctx, const char *cmd);
  bRC (*endRestoreFile)(bpContext *ctx);
  bRC (*pluginIO)(bpContext *ctx, struct io_pkt *io);
  bRC (*createFile)(bpContext *ctx, struct restore_pkt *rp);
  bRC (*setFileAttributes)(bpContext *ctx, struct restore_pkt *rp);
  bRC (*checkFile)(bpContext *ctx, char *fname);
  bRC (*handleXACLdata)(bpContext *ctx, struct xacl_pkt *xacl);
  void (*unused[6])(void); /* may be NULL */
} pFuncs;

#define ABI_AT(type, member, offset) \
  _Static_assert(offsetof(type, member) == (offset), #type "." #member)
_Static_assert(sizeof(pInfo) == 56, "pInfo");
_Static_assert(sizeof(bInfo) == 8, "bInfo");
_Static_assert(sizeof(bFuncs) == 168, "bFuncs");
_Static_assert(sizeof(pFuncs) == 168, "pFuncs");
_Static_assert(sizeof(struct stat) == 144, "struct stat");
_Static_assert(sizeof(struct save_pkt) == 344, "save_pkt");
ABI_AT(struct save_pkt, fname, 8);
ABI_AT(struct save_pkt, link, 32);
ABI_AT(struct save_pkt, statp, 40);
ABI_AT(struct save_pkt, type, 184);
ABI_AT(struct save_pkt, flags, 192);
ABI_AT(struct save_pkt, no_read, 200);
ABI_AT(struct save_pkt, stat_update, 204);
ABI_AT(struct save_pkt, cmd, 208);
ABI_AT(struct save_pkt, restore_obj, 216);
ABI_AT(struct save_pkt, plugin_obj, 248);
ABI_AT(struct save_pkt, plug_meta, 320);
ABI_AT(struct save_pkt, delta_seq, 328);
ABI_AT(struct save_pkt, LinkFI, 332);
ABI_AT(struct save_pkt, pkt_end, 336);
_Static_assert(sizeof(struct restore_pkt) == 232, "restore_pkt");
ABI_AT(struct restore_pkt, statp, 32);
ABI_AT(struct restore_pkt, attrEx, 176);
ABI_AT(struct restore_pkt, ofname, 184);
ABI_AT(struct restore_pkt, olname, 192);
ABI_AT(struct restore_pkt, where, 200);
ABI_AT(struct restore_pkt, replace, 216);
ABI_AT(struct restore_pkt, create_status, 220);
ABI_AT(struct restore_pkt, pkt_end, 228);
_Static_assert(sizeof(struct io_pkt) == 72, "io_pkt");
ABI_AT(struct io_pkt, buf, 24);
ABI_AT(struct io_pkt, fname, 32);
ABI_AT(struct io_pkt, status, 40);
ABI_AT(struct io_pkt, whence, 52);
ABI_AT(struct io_pkt, offset, 56);
ABI_AT(struct io_pkt, pkt_end, 68);
_Static_assert(sizeof(struct restore_object_pkt) == 64, "restore_object_pkt");
ABI_AT(struct restore_object_pkt, object_name, 8);
ABI_AT(struct restore_object_pkt, object, 16);
ABI_AT(struct restore_object_pkt, object_type, 32);
ABI_AT(struct restore_object_pkt, object_len, 36);
ABI_AT(struct restore_object_pkt, JobId, 56);
ABI_AT(struct restore_object_pkt, pkt_end, 60);
_Static_assert(sizeof(struct xacl_pkt) == 32, "xacl_pkt");
ABI_AT(struct xacl_pkt, content, 16);

#endif
