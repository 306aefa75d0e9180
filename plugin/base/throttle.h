// A token bucket for bytes, live-adjustable. Thread safe; `take` and `wait` block.
//
// Two counters say it all: `granted_` bytes were promised to callers, `passed_` bytes have passed
// since the start at the rates in force; each caller waits until `passed_` reaches its own mark.
// First come, first served, because marks grow.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <stop_token>

#include "plugin/base/clock.h"
#include "plugin/base/status.h"
#include "plugin/base/types.h"
#include "plugin/core/mutex.h"

namespace siphon {

class Throttle {
 public:
  // 0: unlimited. The bucket holds at most 50 ms worth of bytes, so there are no bursts.
  explicit Throttle(std::uint64_t bytes_per_second = 0, const Clock& clock = Clock::system());
  // Takes effect at once, for callers that wait already too.
  void set_rate(std::uint64_t bytes_per_second);
  std::uint64_t rate() const;
  // Waits until `bytes` may pass. DEADLINE_EXCEEDED when that would be after `deadline`: nothing
  // is taken then, unless the rate was lowered while it waited (the bytes are forfeited).
  // CANCELLED when `stop` is requested (forfeited, too).
  Status take(std::uint64_t bytes, Deadline deadline, std::stop_token stop = {});

  // The same in two steps, for who has something to do meanwhile: a place in line for `bytes`, at
  // any rate, and the wait for it. DEADLINE_EXCEEDED: not its turn yet, the place is kept. A place
  // that nobody waits for any more is forfeited.
  using Place = double;
  Place line_up(std::uint64_t bytes);
  Status wait(Place place, Deadline deadline, std::stop_token stop = {});

 private:
  Status wait_locked(MutexLock& lock, double mark, Deadline deadline, const std::stop_token& stop)
      SIPHON_REQUIRES(mutex_);
  void advance(Deadline now) SIPHON_REQUIRES(mutex_);  // brings passed_ up to date
  // When passed_ reaches `mark` at the present rate; after advance().
  Deadline passes_at(double mark, Deadline now) const SIPHON_REQUIRES(mutex_);

  const Clock& clock_;
  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  // Doubles count bytes exactly up to 8 PiB and closely enough beyond.
  std::uint64_t rate_ SIPHON_GUARDED_BY(mutex_);
  double granted_ SIPHON_GUARDED_BY(mutex_) = 0;
  double passed_ SIPHON_GUARDED_BY(mutex_) = 0;  // at most granted_ plus what the bucket holds
  Deadline advanced_at_ SIPHON_GUARDED_BY(mutex_);
};

}  // namespace siphon
