/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See link.h.
 */
#include "link.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "threads.h"

#define RECEIVE_BYTES 65536
#define CONNECT_RETRY_MS 100

struct fb_link {
  struct fb_link_handler handler;
  char socket_path[sizeof((struct sockaddr_un *)0)->sun_path];
  pthread_t thread;
  int wake_fd;
  int socket_fd; /* the thread's own, as the next four */
  bool send_broken;
  atomic_bool stop;
  int64_t last_received_ms;
  int64_t last_sent_ms;
  struct fb_parser parser;
  pthread_mutex_t lock; /* guards the rest */
  uint8_t *out;
  size_t out_capacity;
  size_t out_start;
  size_t out_end;
  char abort_reason[FB_ERROR_BYTES];
};

static int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void fb_link_wake(struct fb_link *link) {
  uint64_t one = 1;
  /* The counter cannot overflow in practice, and a full one wakes as well. */
  if (write(link->wake_fd, &one, sizeof one) < 0)
    return;
}

static void drain_wake(struct fb_link *link) {
  uint64_t count;
  if (read(link->wake_fd, &count, sizeof count) < 0)
    return;
}

/* Waits on the wake descriptor and the socket (-1 for none). */
static short wait_for(struct fb_link *link, int fd, short events, int64_t timeout_ms) {
  struct pollfd p[2] = {{.fd = link->wake_fd, .events = POLLIN}, {.fd = fd, .events = events}};
  int n = poll(p, fd < 0 ? 1 : 2, timeout_ms < 0 ? 0 : (int)timeout_ms);
  if (n > 0 && (p[0].revents & POLLIN) != 0)
    drain_wake(link);
  return n > 0 && fd >= 0 ? p[1].revents : 0;
}

bool fb_link_send(struct fb_link *link, const uint8_t *frame, size_t size) {
  bool taken = false;
  pthread_mutex_lock(&link->lock);
  size_t waiting = link->out_end - link->out_start;
  if (waiting + size <= FB_LINK_OUT_BYTES_MAX) {
    if (link->out_start > 0 && link->out_end + size > link->out_capacity) {
      memmove(link->out, link->out + link->out_start, waiting);
      link->out_start = 0;
      link->out_end = waiting;
    }
    size_t capacity = link->out_capacity;
    while (capacity < link->out_end + size)
      capacity *= 2;
    uint8_t *out = capacity == link->out_capacity ? link->out : realloc(link->out, capacity);
    if (out != NULL) {
      link->out = out;
      link->out_capacity = capacity;
      memcpy(link->out + link->out_end, frame, size);
      link->out_end += size;
      taken = true;
    }
  }
  pthread_mutex_unlock(&link->lock);
  if (taken)
    fb_link_wake(link);
  return taken;
}

static int try_connect(struct fb_link *link) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  memcpy(address.sun_path, link->socket_path, sizeof address.sun_path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return -errno;
  if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
    int rc = -errno;
    close(fd);
    return rc;
  }
  return fd;
}

/* EAGAIN: the bridge's queue of connections is full; that may pass. */
static int connect_bridge(struct fb_link *link, char *error) {
  int64_t deadline_ms = now_ms() + FB_SILENCE_MS;
  for (;;) {
    int fd = try_connect(link);
    if (fd >= 0) {
      link->socket_fd = fd;
      return 0;
    }
    if (atomic_load(&link->stop))
      return -1;
    if ((fd != -EAGAIN && fd != -EINTR) || now_ms() >= deadline_ms) {
      snprintf(error, FB_ERROR_BYTES,
               "cannot connect to the bridge at %s: %s: start the bridge on this data mover, or "
               "name its socket with socket=PATH",
               link->socket_path, strerror(-fd));
      return -1;
    }
    wait_for(link, -1, 0, CONNECT_RETRY_MS);
  }
}

/* Sends what the socket takes; true if nothing is left to wait for.  A broken
 * connection is found by receiving: the bridge's reason may still stand there. */
static bool send_some(struct fb_link *link) {
  bool moved = false;
  pthread_mutex_lock(&link->lock);
  while (link->out_start < link->out_end && !link->send_broken) {
    ssize_t n = send(link->socket_fd, link->out + link->out_start, link->out_end - link->out_start,
                     MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      link->out_start += (size_t)n;
      link->last_sent_ms = now_ms();
      moved = true;
    } else if (n < 0 && errno == EINTR) {
      continue;
    } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      break;
    } else {
      link->send_broken = true;
    }
  }
  bool all = link->out_start == link->out_end || link->send_broken;
  pthread_mutex_unlock(&link->lock);
  if (moved)
    link->handler.sent(link->handler.context);
  return all;
}

/* One receive and the frames in it. */
static enum fb_link_verdict receive_some(struct fb_link *link, uint8_t *buffer, char *error) {
  ssize_t n = recv(link->socket_fd, buffer, RECEIVE_BYTES, MSG_DONTWAIT);
  if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
    return FB_LINK_GO_ON;
  if (n < 0) {
    snprintf(error, FB_ERROR_BYTES, "the bridge's connection broke: %s", strerror(errno));
    return FB_LINK_REFUSED;
  }
  if (n == 0) {
    snprintf(error, FB_ERROR_BYTES,
             "the bridge closed the connection %s: see the bridge's log on this data mover",
             fb_parser_is_midway(&link->parser) ? "in the middle of a frame"
                                                : "before the stream was complete");
    return FB_LINK_REFUSED;
  }
  link->last_received_ms = now_ms();
  for (size_t offset = 0; offset < (size_t)n;) {
    struct fb_frame frame;
    size_t used;
    int rc = fb_parser_feed(&link->parser, buffer + offset, (size_t)n - offset, &used, &frame,
                            error);
    offset += used;
    if (rc < 0)
      return FB_LINK_REFUSED;
    if (rc == 0 || frame.type == FB_KEEPALIVE)
      continue;
    enum fb_link_verdict verdict = link->handler.frame(link->handler.context, &frame, error);
    if (verdict != FB_LINK_GO_ON)
      return verdict;
  }
  return FB_LINK_GO_ON;
}

static void keep_alive(struct fb_link *link) {
  uint8_t frame[FB_FRAME_HEADER_BYTES];
  pthread_mutex_lock(&link->lock);
  bool idle = link->out_start == link->out_end && !link->send_broken;
  pthread_mutex_unlock(&link->lock);
  if (idle && now_ms() - link->last_sent_ms >= FB_KEEPALIVE_MS)
    fb_link_send(link, frame, fb_keepalive_encode(frame));
}

static enum fb_link_verdict converse(struct fb_link *link, uint8_t *buffer, char *error) {
  while (!atomic_load(&link->stop)) {
    keep_alive(link);
    bool all_sent = send_some(link);
    bool wants = link->send_broken || link->handler.wants_input(link->handler.context);
    int64_t now = now_ms();
    if (!wants) /* our own pause is not the bridge's silence */
      link->last_received_ms = now;
    int64_t silent_ms = now - link->last_received_ms;
    if (silent_ms >= FB_SILENCE_MS) {
      snprintf(error, FB_ERROR_BYTES,
               "the bridge has been silent for %lld s: see whether it hangs on this data mover",
               (long long)(silent_ms / 1000));
      return FB_LINK_REFUSED;
    }
    int64_t keepalive_ms = FB_KEEPALIVE_MS - (now - link->last_sent_ms);
    int64_t timeout_ms = FB_SILENCE_MS - silent_ms;
    if (all_sent && !link->send_broken && keepalive_ms < timeout_ms)
      timeout_ms = keepalive_ms;
    short events = (short)((wants ? POLLIN : 0) | (all_sent ? 0 : POLLOUT));
    short ready = wait_for(link, link->socket_fd, events, timeout_ms);
    if ((ready & (POLLIN | POLLHUP | POLLERR)) != 0) {
      enum fb_link_verdict verdict = receive_some(link, buffer, error);
      if (verdict != FB_LINK_GO_ON)
        return verdict;
    }
  }
  return FB_LINK_FINISHED;
}

/* One try, without waiting: the reason is in the job log in any case.  What was to be
 * sent goes first, for a reason cannot stand in the middle of a frame. */
static void tell_abort(struct fb_link *link, const char *reason) {
  uint8_t frame[FB_ABORT_FRAME_BYTES_MAX];
  size_t size = fb_abort_encode(frame, reason);
  if (send_some(link) && !link->send_broken &&
      send(link->socket_fd, frame, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
    return;
}

static void *link_main(void *argument) {
  struct fb_link *link = argument;
  char error[FB_ERROR_BYTES] = "";
  uint8_t *buffer = malloc(RECEIVE_BYTES);
  enum fb_link_verdict verdict = FB_LINK_REFUSED;
  if (buffer == NULL) {
    snprintf(error, sizeof error, "no memory to receive from the bridge");
  } else if (connect_bridge(link, error) == 0) {
    link->last_received_ms = link->last_sent_ms = now_ms();
    verdict = converse(link, buffer, error);
  }
  bool stopped = atomic_load(&link->stop);
  if (link->socket_fd >= 0) {
    pthread_mutex_lock(&link->lock);
    const char *reason = stopped ? link->abort_reason : error;
    pthread_mutex_unlock(&link->lock);
    if (verdict == FB_LINK_REFUSED || (stopped && reason[0] != 0))
      tell_abort(link, reason);
    shutdown(link->socket_fd, SHUT_RDWR);
    close(link->socket_fd);
    link->socket_fd = -1;
  }
  free(buffer);
  if (verdict == FB_LINK_REFUSED && !stopped)
    link->handler.down(link->handler.context, error);
  return NULL;
}

struct fb_link *fb_link_start(const char *socket_path, const struct fb_link_handler *handler,
                              const uint8_t *hello, size_t hello_size, char *error) {
  struct fb_link *link = calloc(1, sizeof *link);
  size_t path_len = strlen(socket_path);
  if (link == NULL || path_len >= sizeof link->socket_path) {
    snprintf(error, FB_ERROR_BYTES, "the socket path has %zu bytes; at most %zu are allowed",
             path_len, sizeof link->socket_path - 1);
    free(link);
    return NULL;
  }
  link->handler = *handler;
  memcpy(link->socket_path, socket_path, path_len + 1);
  link->socket_fd = -1;
  link->out_capacity = FB_RECEIPTS_FRAME_BYTES(FB_RECEIPTS_PER_FRAME_MAX);
  link->out = malloc(link->out_capacity);
  link->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  pthread_mutex_init(&link->lock, NULL);
  fb_parser_init(&link->parser);
  int rc = link->wake_fd < 0 ? errno : link->out == NULL ? ENOMEM : 0;
  if (rc == 0) {
    memcpy(link->out, hello, hello_size);
    link->out_end = hello_size;
    rc = fb_thread_start(&link->thread, link_main, link);
  }
  if (rc == 0)
    return link;
  snprintf(error, FB_ERROR_BYTES, "cannot start the connection to the bridge: %s", strerror(rc));
  if (link->wake_fd >= 0)
    close(link->wake_fd);
  pthread_mutex_destroy(&link->lock);
  free(link->out);
  free(link);
  return NULL;
}

void fb_link_stop(struct fb_link *link) {
  atomic_store(&link->stop, true);
  fb_link_wake(link);
}

void fb_link_abort(struct fb_link *link, const char *reason) {
  pthread_mutex_lock(&link->lock);
  snprintf(link->abort_reason, sizeof link->abort_reason, "%s", reason);
  pthread_mutex_unlock(&link->lock);
  fb_link_stop(link);
}

void fb_link_free(struct fb_link *link) {
  if (link == NULL)
    return;
  pthread_join(link->thread, NULL);
  close(link->wake_fd);
  fb_parser_free(&link->parser);
  pthread_mutex_destroy(&link->lock);
  free(link->out);
  free(link);
}
