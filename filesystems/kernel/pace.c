/* SPDX-License-Identifier: Apache-2.0 */
/* How many threads should work at once.
 *
 * Hill climbing by trials: another number of threads is tried for a window of time, and of the two
 * the smaller one is kept unless the larger one does clearly more. At first the number doubles from
 * trial to trial; when that no longer pays it is held, and a third more or a quarter less is tried
 * now and then, less often the longer nothing comes of it. Where calls take twice as long as when
 * the number was settled on and no more is done, half of it is tried at once: a saturated server
 * does as much for fewer threads, one that is merely far away does not.
 *
 * A latency target comes before all that: above it the number is halved at once, and later creeps
 * up again by a few threads at a time (additive increase, multiplicative decrease).
 */
#include "pace.h"

#include <stddef.h>

#define NS_PER_MS UINT64_C(1000000)
#define WINDOW_NS (50 * NS_PER_MS)
/* What speaks for more threads while they climb is believed at once, all else after a longer look:
 * machines have other work to do. */
#define CLIMB_NS (100 * NS_PER_MS) /* until it is given up */
#define HALVING_NS (100 * NS_PER_MS)
#define ROUTINE_NS (150 * NS_PER_MS)
#define WINDOW_NS_MAX (1000 * NS_PER_MS)
#define SETTLE_NS_MIN (20 * NS_PER_MS)
#define SETTLE_NS_MAX (250 * NS_PER_MS)
#define HOLD_NS_MIN (500 * NS_PER_MS)
#define HOLD_NS_MAX (4000 * NS_PER_MS)
#define DONE_PER_THREAD 4u /* in a window that says anything */
#define WAITS_MIN 4u       /* so many calls are no single mishap */
#define CREEP_THREADS 2u
/* Of what threads would do if each did as much as before, so much must come of more of them. */
#define WORTH_SHARE 0.3
#define CREEP_BELOW 0.8 /* of the target: from there to the target nothing is added */
#define SLOWER 2.0
#define MORE_DONE 1.1
#define SMOOTHING 0.3
#define IDLE_SHARE_MAX 0.25

static uint32_t clamp(uint32_t value, uint32_t low, uint32_t high) {
    return value < low ? low : value > high ? high : value;
}

void pace_init(struct pace *pace, uint32_t start, bool known, uint32_t active_min,
               uint32_t active_max, uint64_t target_ns) {
    *pace = (struct pace){.active_min = clamp(active_min, 1, active_max),
                          .active_max = active_max,
                          .target_ns = (double)target_ns,
                          .hold_ns = HOLD_NS_MIN,
                          .climbing = !known,
                          .upwards = true};
    pace->active = pace->high = clamp(start, pace->active_min, active_max);
}

/* Take a number of threads; what calls now under way bring belongs to the old one. */
static void set_active(struct pace *pace, uint32_t active, uint64_t now_ns, double latency_ns) {
    double settle_ns = 2 * latency_ns;
    pace->active = active;
    pace->high = active > pace->high ? active : pace->high;
    pace->begun = false;
    pace->settled_ns = now_ns + (settle_ns < SETTLE_NS_MIN   ? SETTLE_NS_MIN
                                 : settle_ns > SETTLE_NS_MAX ? SETTLE_NS_MAX
                                                             : (uint64_t)settle_ns);
}

/* Whatever is measured next is what this number of threads does. */
static void forget(struct pace *pace) {
    pace->slow = 0;
    pace->rate_held = pace->latency_held = 0;
}

static void hold(struct pace *pace, uint64_t now_ns) {
    pace->trial = PACE_NONE;
    pace->climbing = false;
    pace->hold_until_ns = now_ns + pace->hold_ns;
}

/* Try another number; false where the bounds leave none. */
static bool try_active(struct pace *pace, enum pace_trial trial, uint64_t wanted,
                       double rate_now, uint64_t now_ns, double latency_ns) {
    uint32_t active = clamp(wanted > UINT32_MAX ? UINT32_MAX : (uint32_t)wanted, pace->active_min,
                            pace->active_max);
    if (active == pace->active) {
        return false;
    }
    pace->trial = trial;
    pace->before = pace->active;
    pace->rate_before = rate_now;
    set_active(pace, active, now_ns, latency_ns);
    return true;
}

static bool is_worth(uint32_t fewer, double rate_of_fewer, uint32_t more, double rate_of_more) {
    double share = 1 + WORTH_SHARE * ((double)more / fewer - 1);
    return rate_of_more >= rate_of_fewer * share;
}

static bool has_room(const struct pace *pace, const struct pace_window *window) {
    return pace->target_ns == 0 || window->latency_ns < CREEP_BELOW * pace->target_ns;
}

static void back_off(struct pace *pace, uint64_t now_ns, const struct pace_window *window) {
    uint32_t reached = pace->trial != PACE_NONE ? pace->before : pace->active;
    pace->ceiling = reached > pace->ceiling ? reached : pace->ceiling;
    pace->backoffs += pace->active > pace->active_min;
    pace->hold_ns = HOLD_NS_MIN;
    forget(pace);
    hold(pace, now_ns);
    set_active(pace, clamp(pace->active / 2, pace->active_min, pace->active_max), now_ns,
               window->latency_ns);
}

static uint32_t a_step_down(uint32_t active) {
    return active - (active < 4 ? 1 : active / 4);
}

/* Whether a trial has lasted long enough to be decided like that. */
static bool is_decided(enum pace_trial trial, bool keep, uint64_t elapsed_ns) {
    switch (trial) {
    case PACE_CLIMB:
        return keep || elapsed_ns >= CLIMB_NS;
    case PACE_HALVING:
        return elapsed_ns >= HALVING_NS;
    default:
        return elapsed_ns >= ROUTINE_NS;
    }
}

/* A trial: go on with it, or in its direction, or return and hold. */
static void judge(struct pace *pace, uint64_t now_ns, const struct pace_window *window) {
    uint32_t tried = pace->active;
    bool up = tried > pace->before;
    bool keep = up ? is_worth(pace->before, pace->rate_before, tried, window->rate)
                   : !is_worth(tried, window->rate, pace->before, pace->rate_before);
    if (!is_decided(pace->trial, keep, window->elapsed_ns)) {
        return;
    }
    pace->begun = false;
    if (!keep) {
        set_active(pace, pace->before, now_ns, window->latency_ns);
        if (pace->trial == PACE_HALVING) {
            forget(pace); /* it takes longer now, and fewer threads do not help */
            pace->hold_ns = HOLD_NS_MIN;
        }
        hold(pace, now_ns);
        pace->hold_ns = 2 * pace->hold_ns < HOLD_NS_MAX ? 2 * pace->hold_ns : HOLD_NS_MAX;
        pace->upwards = !up;
        return;
    }
    pace->hold_ns = HOLD_NS_MIN;
    bool halving = pace->trial == PACE_HALVING;
    pace->backoffs += halving;
    if (!up && tried < pace->ceiling) {
        pace->ceiling = tried;
    }
    forget(pace);
    enum pace_trial trial = up ? PACE_CLIMB : pace->trial;
    uint64_t next = up ? 2 * (uint64_t)tried : halving ? tried / 2 : a_step_down(tried);
    if ((up && !has_room(pace, window)) ||
        !try_active(pace, trial, next, window->rate, now_ns, window->latency_ns)) {
        hold(pace, now_ns);
    }
}

static void look(struct pace *pace, uint64_t now_ns, const struct pace_window *window) {
    pace->begun = false;
    bool slower = pace->latency_held > 0 && window->latency_ns > SLOWER * pace->latency_held &&
                  window->rate < MORE_DONE * pace->rate_held;
    pace->slow = slower ? pace->slow + 1 : 0;
    if (pace->rate_held == 0) { /* the first window at this number */
        pace->rate_held = window->rate;
        pace->latency_held = window->latency_ns;
    } else if (!slower) {
        pace->rate_held += SMOOTHING * (window->rate - pace->rate_held);
    }
    if (pace->active < pace->ceiling && has_room(pace, window)) {
        uint32_t room = pace->ceiling - pace->active;
        set_active(pace, pace->active + (room < CREEP_THREADS ? room : CREEP_THREADS), now_ns,
                   window->latency_ns);
        forget(pace);
        hold(pace, now_ns);
        return;
    }
    /* The first of them may be slow in part only, and no other can be compared with it. */
    if (pace->slow >= 2 && try_active(pace, PACE_HALVING, pace->active / 2, window->rate, now_ns,
                                      window->latency_ns)) {
        return;
    }
    if (slower || now_ns < pace->hold_until_ns) {
        return;
    }
    uint64_t active = pace->active;
    uint64_t more = active + (pace->climbing ? active : active < 3 ? 1 : active / 3);
    bool up = pace->upwards && has_room(pace, window);
    if (!try_active(pace, pace->climbing ? PACE_CLIMB : PACE_ROUTINE,
                    up ? more : a_step_down(pace->active), pace->rate_held, now_ns,
                    window->latency_ns)) {
        pace->upwards = !pace->upwards;
        hold(pace, now_ns);
    }
}

void pace_step(struct pace *pace, const struct pace_totals *totals) {
    uint64_t now_ns = totals->now_ns;
    if (!pace->begun) {
        if (now_ns >= pace->settled_ns) {
            pace->begin = *totals;
            pace->begun = true;
        }
        return;
    }
    struct pace_window window = {
        .elapsed_ns = now_ns - pace->begin.now_ns,
        .done = totals->done - pace->begin.done,
        .waits = totals->waits - pace->begin.waits,
        .idle_ns = totals->idle_ns - pace->begin.idle_ns,
    };
    if (window.waits > 0) {
        uint64_t wait_ns = totals->wait_ns - pace->begin.wait_ns;
        window.latency_ns = (double)wait_ns / (double)window.waits;
    }
    if (window.elapsed_ns < WINDOW_NS) {
        return;
    }
    window.rate = (double)window.done / (double)window.elapsed_ns;
    bool too_slow = pace->target_ns > 0 && window.waits >= WAITS_MIN &&
                    window.latency_ns > pace->target_ns;
    /* What is done then says nothing about the filesystem. */
    bool hindered = (double)window.idle_ns >
                    IDLE_SHARE_MAX * (double)window.elapsed_ns * (double)pace->active;
    if (!too_slow && !hindered && window.elapsed_ns < WINDOW_NS_MAX &&
        window.done < (uint64_t)pace->active * DONE_PER_THREAD) {
        return; /* too little to judge by */
    }
    if (window.waits > 0) {
        double smoothing = pace->latency_ns == 0 ? 1 : SMOOTHING;
        pace->latency_ns += smoothing * (window.latency_ns - pace->latency_ns);
    }
    if (too_slow) {
        back_off(pace, now_ns, &window);
    } else if (hindered) {
        pace->begun = false;
    } else if (pace->trial != PACE_NONE) {
        judge(pace, now_ns, &window);
    } else {
        look(pace, now_ns, &window);
    }
    if (!pace->begun && now_ns >= pace->settled_ns) {
        pace->begin = *totals;
        pace->begun = true;
    }
}
