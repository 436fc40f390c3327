/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The connection to the bridge: one thread that connects, receives, sends, keeps
 * alive and watches for silence, so that nobody else ever blocks on the socket.
 *
 * Covers: the socket and time.  Does not cover: what frames mean (backup.c).
 */
#ifndef FOREBAY_LINK_H
#define FOREBAY_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frames.h"

#ifndef FB_KEEPALIVE_MS
#define FB_KEEPALIVE_MS 10000
#endif
#ifndef FB_SILENCE_MS
#define FB_SILENCE_MS 60000
#endif
/* Frames that wait to be sent: a bridge that does not read them gets no more. */
#define FB_LINK_OUT_BYTES_MAX ((size_t)16 << 20)

struct fb_link;

enum fb_link_verdict { FB_LINK_GO_ON, FB_LINK_FINISHED, FB_LINK_REFUSED };

/* All are called on the link's thread, without a lock of the link held. */
struct fb_link_handler {
  void *context;
  /* REFUSED: error says why; it goes to the bridge as ABORT and to down(). */
  enum fb_link_verdict (*frame)(void *context, const struct fb_frame *frame, char *error);
  /* False while entries must wait in the socket; fb_link_wake() asks again. */
  bool (*wants_input)(void *context);
  /* Frames went out: fb_link_send() has room again. */
  void (*sent)(void *context);
  /* The link broke; called once at most, not after FINISHED or fb_link_stop(). */
  void (*down)(void *context, const char *reason);
};

/* Starts the thread; hello is the first frame to send.  NULL with a sentence in
 * error if there is no memory, descriptor or thread. */
struct fb_link *fb_link_start(const char *socket_path, const struct fb_link_handler *handler,
                              const uint8_t *hello, size_t hello_size, char *error);
/* Hands a frame over to the thread.  False if FB_LINK_OUT_BYTES_MAX are waiting:
 * try again after sent(). */
bool fb_link_send(struct fb_link *link, const uint8_t *frame, size_t size);
void fb_link_wake(struct fb_link *link);
/* The thread closes the socket at once; from any thread, more than once. */
void fb_link_stop(struct fb_link *link);
/* As stop, but tells the bridge why if the socket takes it. */
void fb_link_abort(struct fb_link *link, const char *reason);
/* Waits for the thread to end (fb_link_stop() comes first) and frees. */
void fb_link_free(struct fb_link *link);

#endif
