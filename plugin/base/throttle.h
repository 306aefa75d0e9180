// A token bucket for bytes, live-adjustable. Thread safe; `take` and `wait` block.
//
// Two counters say it all: `granted_` bytes were promised to callers, `passed_` bytes have passed
// since the start at the rates in force; each caller waits until `passed_` reaches its own mark.
// First come, first served, because marks grow.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <stop_token>

#include "plugin/base/status.h"
#include "plugin/base/types.h"

namespace siphon {

class Throttle {
 public:
  // 0: unlimited. The bucket holds at most 50 ms worth of bytes, so there are no bursts.
  explicit Throttle(std::uint64_t bytes_per_second = 0);
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
  using Clock = std::chrono::steady_clock;

  Status wait_locked(std::unique_lock<std::mutex>& lock, double mark, Deadline deadline,
                     const std::stop_token& stop);
  void advance(Clock::time_point now);  // brings passed_ up to date; with mutex_ held
  // When passed_ reaches `mark` at the present rate; with mutex_ held, after advance().
  Clock::time_point passes_at(double mark, Clock::time_point now) const;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  // Guarded by mutex_. Doubles count bytes exactly up to 8 PiB and closely enough beyond.
  std::uint64_t rate_;
  double granted_ = 0;
  double passed_ = 0;  // at most granted_ plus what the bucket holds
  Clock::time_point advanced_at_;
};

}  // namespace siphon
