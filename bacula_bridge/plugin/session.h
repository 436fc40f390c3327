/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * One conversation with the bridge, from HELLO to DONE_ACK.
 *
 * Covers: the order of frames, the entries on their way to the reader, receipts on
 * their way back.  Does not cover: what Bacula gets (backup.c), the socket
 * (link.c).  All functions but fb_session_cancel() run on the job's thread.
 */
#ifndef FOREBAY_SESSION_H
#define FOREBAY_SESSION_H

#include <stdbool.h>

#include "command.h"
#include "frames.h"
#include "host.h"
#include "reader.h"

struct fb_session;

/* NULL with a sentence in error. */
struct fb_session *fb_session_start(const struct fb_host *host, const struct fb_command *command,
                                    const struct fb_hello *hello, char *error);
/* The functions that return bool are false when the session broke or the job was
 * cancelled: fb_session_reason() tells which. */
bool fb_session_wait_accept(struct fb_session *s);
/* What the bridge accepted and the reader; after wait_accept(). */
const struct fb_accept *fb_session_accept(const struct fb_session *s);
struct fb_reader *fb_session_reader(const struct fb_session *s);
/* The next entry, waited for: ITEM, END or STOPPED. */
enum fb_next fb_session_next(struct fb_session *s, struct fb_prefetch **item);
/* Ends the head entry with its receipt. */
bool fb_session_release(struct fb_session *s, struct fb_prefetch *item,
                        const struct fb_receipt *receipt);
/* After END: sends DONE and waits for DONE_ACK. */
bool fb_session_finish(struct fb_session *s, uint64_t data_bytes, uint64_t warnings);
bool fb_session_is_up(struct fb_session *s);
/* Breaks the session and tells the bridge; the first reason stays. */
void fb_session_fail(struct fb_session *s, const char *reason);
/* True with the reason (FB_ERROR_BYTES) if it broke; false if it is up or was
 * cancelled. */
bool fb_session_reason(struct fb_session *s, char *out);
bool fb_session_is_canceled(struct fb_session *s);
void fb_session_cancel(struct fb_session *s);
void fb_session_free(struct fb_session *s);

#endif
