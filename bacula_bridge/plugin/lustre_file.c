/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See lustre_file.h.  The numbers are those of lustre_user.h (lustre/include/uapi/linux/lustre in
 * Lustre 2.15 and 2.17).
 */
#include "lustre_file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/types.h>
#include <sys/xattr.h>

#include "layout_lustre.h"

/* LL_IOC_DATA_VERSION, struct ioc_data_version and LL_DV_RD_FLUSH. */
#define LUSTRE_DATA_VERSION _IOR('f', 218, struct data_version)
#define LUSTRE_READ_FLUSH 0x1u
struct data_version {
  uint64_t version;
  uint32_t layout_version, flags;
};
_Static_assert(LUSTRE_DATA_VERSION == 0x801066da, "the number that Lustre has for it");

/* LL_IOC_HSM_STATE_GET, struct hsm_user_state and HS_RELEASED. */
#define LUSTRE_HSM_STATE_GET _IOR('f', 211, struct hsm_state)
#define LUSTRE_HSM_RELEASED 0x4u
struct hsm_state {
  uint32_t states, archive_id, in_progress_state, in_progress_action;
  uint64_t in_progress_offset, in_progress_length;
};
_Static_assert(LUSTRE_HSM_STATE_GET == 0x802066d3, "the number that Lustre has for it");

/* Most layouts fit this; a longer one is read into the heap. */
#define LOV_BYTES_SHORT 1024

static int ask_hsm(int fd) {
  struct hsm_state state = {0};
  if (ioctl(fd, LUSTRE_HSM_STATE_GET, &state) == 0)
    return (state.states & LUSTRE_HSM_RELEASED) != 0;
  return errno == ENOTTY || errno == EOPNOTSUPP || errno == ENOSYS ? 0 : -errno;
}

/* A client recalls a file when its layout says that it is released (lov_io_init_released() of
 * Lustre's lov/lov_io.c), so that is what to look at, and it has it already; the state, for
 * which it would ask the metadata server, only where the layout cannot be read. */
int fb_lustre_is_released(int fd) {
  uint8_t short_lov[LOV_BYTES_SHORT], *lov = short_lov, *long_lov = NULL;
  bool is_released = false, is_known;
  ssize_t size = fgetxattr(fd, FB_LUSTRE_XATTR, lov, sizeof(short_lov));
  if (size < 0 && errno == ERANGE) {
    lov = long_lov = malloc(FB_LUSTRE_LOV_BYTES_MAX);
    if (lov == NULL)
      return -ENOMEM;
    size = fgetxattr(fd, FB_LUSTRE_XATTR, lov, FB_LUSTRE_LOV_BYTES_MAX);
  }
  if (size < 0) /* a file without objects, or another filesystem is mounted there */
    is_known = errno == ENODATA || errno == ENOTSUP;
  else
    is_known = fb_lustre_find_released(lov, (size_t)size, &is_released) == FB_LUSTRE_OK;
  free(long_lov);
  return is_known ? is_released : ask_hsm(fd);
}

uint64_t fb_lustre_data_version(int fd) {
  struct data_version data = {.flags = LUSTRE_READ_FLUSH};
  return ioctl(fd, LUSTRE_DATA_VERSION, &data) == 0 ? data.version : 0;
}
