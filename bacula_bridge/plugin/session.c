/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See session.h.
 */
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "link.h"
#include "threads.h"

/* How often a wait looks whether the daemon has cancelled the job without an
 * event. */
#define CANCEL_POLL_MS 1000

/* Receipts wait no longer than about this for their frame to fill: they are the
 * progress that people see. */
#define FB_RECEIPTS_HELD_S_MAX 1

enum phase { PHASE_HELLO, PHASE_ENTRIES, PHASE_END, PHASE_DONE, PHASE_ACKED };

struct fb_session {
  const struct fb_host *host;
  struct fb_link *link;
  enum fb_hsm hsm;
  int root_fd;
  struct fb_accept accept;
  struct fb_stream_state stream; /* the link's thread only */
  uint8_t *receipts;             /* a RECEIPTS frame in the making */
  uint32_t receipt_count;
  time_t first_receipt_s; /* when the first of them came */
  uint64_t receipt_total;
  uint32_t receipt_crc;
  atomic_bool input_paused;
  pthread_mutex_t lock; /* guards what follows */
  pthread_cond_t changed;
  enum phase phase;
  struct fb_reader *reader;
  bool broken;
  bool canceled;
  uint64_t entry_total;
  char reason[FB_ERROR_BYTES];
};

static enum fb_link_verdict refuse(char *error, const char *what) {
  snprintf(error, FB_ERROR_BYTES, "%s", what);
  return FB_LINK_REFUSED;
}

static void set_phase(struct fb_session *s, enum phase phase) {
  pthread_mutex_lock(&s->lock);
  s->phase = phase;
  pthread_cond_broadcast(&s->changed);
  pthread_mutex_unlock(&s->lock);
}

static enum fb_link_verdict on_accept(struct fb_session *s, const struct fb_frame *frame,
                                      char *error) {
  struct fb_reader *reader;
  if (fb_accept_parse(frame, &s->accept, error) < 0)
    return FB_LINK_REFUSED;
  s->root_fd = open(s->accept.read_root, O_PATH | O_DIRECTORY | O_CLOEXEC);
  int rc = s->root_fd < 0 ? errno : fb_reader_start(&reader, s->root_fd, &s->accept, s->hsm);
  if (rc != 0) {
    char root[FB_PRINTABLE_BYTES];
    snprintf(error, FB_ERROR_BYTES, "%s %.700s: %s",
             s->root_fd < 0 ? "cannot open the dataset's root" : "cannot start readers for",
             fb_escape_text(s->accept.read_root, strlen(s->accept.read_root), root), strerror(rc));
    return FB_LINK_REFUSED;
  }
  pthread_mutex_lock(&s->lock);
  s->reader = reader;
  if (s->canceled || s->broken)
    fb_reader_stop(reader);
  s->phase = PHASE_ENTRIES;
  pthread_cond_broadcast(&s->changed);
  pthread_mutex_unlock(&s->lock);
  return FB_LINK_GO_ON;
}

static enum fb_link_verdict on_reason(const struct fb_frame *frame, char *error) {
  char reason[FB_ERROR_BYTES];
  if (fb_reason_parse(frame, reason, error) == 0)
    snprintf(error, FB_ERROR_BYTES, "%s: %.900s",
             frame->type == FB_REFUSE ? "the bridge refuses this job" : "the bridge gave up",
             reason);
  return FB_LINK_REFUSED;
}

static enum fb_link_verdict on_end(struct fb_session *s, const struct fb_frame *frame,
                                   char *error) {
  if (fb_end_check(frame, &s->stream, error) < 0)
    return FB_LINK_REFUSED;
  pthread_mutex_lock(&s->lock);
  s->entry_total = s->stream.entry_count;
  s->phase = PHASE_END;
  pthread_mutex_unlock(&s->lock);
  fb_reader_finish(s->reader);
  return FB_LINK_GO_ON;
}

static enum fb_link_verdict on_frame(void *context, const struct fb_frame *frame, char *error) {
  struct fb_session *s = context;
  pthread_mutex_lock(&s->lock);
  enum phase phase = s->phase;
  pthread_mutex_unlock(&s->lock);
  if (frame->type == FB_ABORT || (frame->type == FB_REFUSE && phase == PHASE_HELLO))
    return on_reason(frame, error);
  if (frame->type == FB_ACCEPT && phase == PHASE_HELLO)
    return on_accept(s, frame, error);
  if (frame->type == FB_ENTRIES && phase == PHASE_ENTRIES)
    return fb_reader_push(s->reader, frame, &s->stream, error) < 0 ? FB_LINK_REFUSED
                                                                  : FB_LINK_GO_ON;
  if (frame->type == FB_END && phase == PHASE_ENTRIES)
    return on_end(s, frame, error);
  if (frame->type == FB_DONE_ACK && phase == PHASE_DONE) {
    if (frame->size != 0)
      return refuse(error, "DONE_ACK is not empty");
    set_phase(s, PHASE_ACKED);
    return FB_LINK_FINISHED;
  }
  snprintf(error, FB_ERROR_BYTES, "the bridge sent a frame of type %u out of order", frame->type);
  return FB_LINK_REFUSED;
}

static bool on_wants_input(void *context) {
  struct fb_session *s = context;
  if (s->reader == NULL) /* written by this thread only */
    return true;
  bool room = fb_reader_has_room(s->reader);
  atomic_store(&s->input_paused, !room);
  /* The job's thread may have made room between the two lines above. */
  return room || fb_reader_has_room(s->reader);
}

static void on_sent(void *context) {
  struct fb_session *s = context;
  pthread_mutex_lock(&s->lock);
  pthread_cond_broadcast(&s->changed);
  pthread_mutex_unlock(&s->lock);
}

/* The first reason stays; everything that waits wakes. */
static bool break_off(struct fb_session *s, const char *reason) {
  pthread_mutex_lock(&s->lock);
  bool first = !s->broken && !s->canceled && s->phase != PHASE_ACKED;
  if (first) {
    s->broken = true;
    snprintf(s->reason, sizeof s->reason, "%s", reason);
    if (s->reader != NULL)
      fb_reader_stop(s->reader);
  }
  pthread_cond_broadcast(&s->changed);
  pthread_mutex_unlock(&s->lock);
  return first;
}

static void on_down(void *context, const char *reason) { break_off(context, reason); }

void fb_session_fail(struct fb_session *s, const char *reason) {
  if (break_off(s, reason))
    fb_link_abort(s->link, reason);
}

struct fb_session *fb_session_start(const struct fb_host *host, const struct fb_command *command,
                                    const struct fb_hello *hello, char *error) {
  struct fb_session *s = calloc(1, sizeof *s);
  uint8_t *first = malloc(FB_HELLO_FRAME_BYTES_MAX);
  uint8_t *receipts = malloc(FB_RECEIPTS_FRAME_BYTES(FB_RECEIPTS_PER_FRAME_MAX));
  if (s == NULL || first == NULL || receipts == NULL) {
    snprintf(error, FB_ERROR_BYTES, "no memory for the connection to the bridge");
    free(s);
    free(first);
    free(receipts);
    return NULL;
  }
  s->host = host;
  s->hsm = command->hsm;
  s->root_fd = -1;
  s->receipts = receipts;
  pthread_mutex_init(&s->lock, NULL);
  fb_condition_init(&s->changed);
  size_t size = fb_hello_encode(first, hello);
  if (size == 0) {
    snprintf(error, FB_ERROR_BYTES, "a name of this job is longer than %d bytes",
             FB_HELLO_STRING_BYTES_MAX);
  } else {
    struct fb_link_handler handler = {s, on_frame, on_wants_input, on_sent, on_down};
    s->link = fb_link_start(command->socket_path, &handler, first, size, error);
  }
  free(first);
  if (s->link == NULL) {
    fb_session_free(s);
    return NULL;
  }
  return s;
}

bool fb_session_is_up(struct fb_session *s) {
  pthread_mutex_lock(&s->lock);
  bool up = !s->broken && !s->canceled;
  pthread_mutex_unlock(&s->lock);
  return up;
}

/* Waits for a change of the session, with the lock held; false if it is over. */
static bool wait_change(struct fb_session *s) {
  if (s->broken || s->canceled)
    return false;
  fb_condition_wait_ms(&s->changed, &s->lock, CANCEL_POLL_MS);
  if (s->broken || s->canceled)
    return false;
  pthread_mutex_unlock(&s->lock);
  bool canceled = s->host->is_canceled(s->host->context);
  if (canceled)
    fb_session_cancel(s);
  pthread_mutex_lock(&s->lock);
  return !canceled;
}

static bool wait_phase(struct fb_session *s, enum phase phase) {
  bool up = true;
  pthread_mutex_lock(&s->lock);
  while (up && s->phase < phase)
    up = wait_change(s);
  up = s->phase >= phase && !s->broken && !s->canceled;
  pthread_mutex_unlock(&s->lock);
  return up;
}

bool fb_session_wait_accept(struct fb_session *s) { return wait_phase(s, PHASE_ENTRIES); }

const struct fb_accept *fb_session_accept(const struct fb_session *s) { return &s->accept; }

struct fb_reader *fb_session_reader(const struct fb_session *s) { return s->reader; }

/* Hands a frame to the link, waiting while the bridge does not take them. */
static bool send_frame(struct fb_session *s, const uint8_t *frame, size_t size) {
  bool up = true;
  while (!fb_link_send(s->link, frame, size) && up) {
    pthread_mutex_lock(&s->lock);
    up = wait_change(s);
    pthread_mutex_unlock(&s->lock);
  }
  return up;
}

static bool flush_receipts(struct fb_session *s) {
  if (s->receipt_count == 0)
    return true;
  size_t size = fb_receipts_seal(s->receipts, s->receipt_count, &s->receipt_crc);
  s->receipt_count = 0;
  return send_frame(s, s->receipts, size);
}

enum fb_next fb_session_next(struct fb_session *s, struct fb_prefetch **item) {
  bool starved;
  enum fb_next next = fb_reader_next(s->reader, 0, item, &starved);
  while (next == FB_NEXT_WAIT) {
    if (starved && !flush_receipts(s))
      return FB_NEXT_STOPPED;
    next = fb_reader_next(s->reader, CANCEL_POLL_MS, item, &starved);
    if (next == FB_NEXT_WAIT && s->host->is_canceled(s->host->context))
      fb_session_cancel(s);
  }
  return next;
}

bool fb_session_release(struct fb_session *s, struct fb_prefetch *item,
                        const struct fb_receipt *receipt) {
  uint8_t *records = s->receipts + FB_RECEIPTS_FRAME_BYTES(0);
  fb_receipt_encode(records + (size_t)s->receipt_count * FB_RECEIPT_BYTES, receipt);
  s->receipt_count++;
  s->receipt_total++;
  fb_reader_release(s->reader, item);
  if (atomic_load(&s->input_paused) && fb_reader_has_room(s->reader)) {
    atomic_store(&s->input_paused, false);
    fb_link_wake(s->link);
  }
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  if (s->receipt_count == 1)
    s->first_receipt_s = now.tv_sec;
  if (s->receipt_count < FB_RECEIPTS_PER_FRAME_MAX &&
      now.tv_sec - s->first_receipt_s < FB_RECEIPTS_HELD_S_MAX)
    return true;
  return flush_receipts(s);
}

bool fb_session_finish(struct fb_session *s, uint64_t data_bytes, uint64_t warnings) {
  uint8_t frame[FB_DONE_FRAME_BYTES];
  if (!flush_receipts(s))
    return false;
  pthread_mutex_lock(&s->lock);
  bool complete = s->phase == PHASE_END && s->entry_total == s->receipt_total;
  s->phase = complete ? PHASE_DONE : s->phase;
  pthread_mutex_unlock(&s->lock);
  if (!complete) {
    fb_session_fail(s, "the receipts do not match the entries: this is a bug in the plugin");
    return false;
  }
  size_t size = fb_done_encode(frame, s->receipt_total, s->receipt_crc, data_bytes, warnings);
  return send_frame(s, frame, size) && wait_phase(s, PHASE_ACKED);
}

bool fb_session_reason(struct fb_session *s, char *out) {
  pthread_mutex_lock(&s->lock);
  bool broken = s->broken;
  snprintf(out, FB_ERROR_BYTES, "%s", s->reason);
  pthread_mutex_unlock(&s->lock);
  return broken;
}

bool fb_session_is_canceled(struct fb_session *s) {
  pthread_mutex_lock(&s->lock);
  bool canceled = s->canceled;
  pthread_mutex_unlock(&s->lock);
  return canceled;
}

void fb_session_cancel(struct fb_session *s) {
  pthread_mutex_lock(&s->lock);
  s->canceled = !s->broken;
  if (s->reader != NULL)
    fb_reader_stop(s->reader);
  pthread_cond_broadcast(&s->changed);
  pthread_mutex_unlock(&s->lock);
  fb_link_stop(s->link);
}

void fb_session_free(struct fb_session *s) {
  if (s == NULL)
    return;
  if (s->link != NULL)
    fb_link_stop(s->link);
  fb_link_free(s->link); /* after it nobody feeds the reader */
  fb_reader_free(s->reader);
  if (s->root_fd >= 0)
    close(s->root_fd);
  pthread_cond_destroy(&s->changed);
  pthread_mutex_destroy(&s->lock);
  free(s->receipts);
  free(s);
}
