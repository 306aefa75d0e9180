// ManualClock: stands still, unless a test moves it, or somebody waits by it: then it is at once
// what he waits for. So a minute of patience takes no time, and what was waited for can be told
// exactly. Thread safe.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>

#include "plugin/base/clock.h"

namespace siphon::test {

class ManualClock final : public Clock {
 public:
  Deadline now() const override { return Deadline(std::chrono::nanoseconds(now_ns_.load())); }
  void advance(std::chrono::nanoseconds time) { now_ns_ += time.count(); }
  // Since it was made.
  std::chrono::nanoseconds passed() const { return now().time_since_epoch() - kBegin; }

 private:
  // Neither the beginning of time, which stands for "never" here and there, nor this machine's.
  static constexpr std::chrono::nanoseconds kBegin = std::chrono::hours(1000);

  bool wait(std::condition_variable_any&, MutexLock&, const std::stop_token& stop, Deadline until,
            const std::function<bool()>& done) const override {
    if (done()) return true;
    if (stop.stop_requested()) return false;
    std::int64_t seen = now_ns_;
    const std::int64_t then = std::chrono::nanoseconds(until.time_since_epoch()).count();
    while (seen < then && !now_ns_.compare_exchange_weak(seen, then)) {
    }
    return done();
  }

  mutable std::atomic<std::int64_t> now_ns_{kBegin.count()};
};

}  // namespace siphon::test
