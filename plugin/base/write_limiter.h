// WriteLimiter: bounds the writes that are under way at once, in units of its user (bytes). First
// come, first served.
//
// The limit follows the store behind it: most writes are to end within `target`. Each that takes
// longer lowers the limit by half of its units; each that does not, while others wait, raises it by
// an eighth. So four in five stay below the target, at any rate.
//
// A write that takes longer than `patience` no longer counts: one that hangs must not keep out
// those that would not. Thread safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <optional>
#include <stop_token>
#include <utility>

#include "plugin/base/types.h"
#include "plugin/core/mutex.h"

namespace siphon {

class WriteLimiter {
  using Time = std::chrono::steady_clock::time_point;
  struct Write {
    std::uint64_t units;
    Time since;
    bool counts = true;  // until it is overdue
  };
  using Writes = std::list<Write>;

 public:
  struct Bounds {
    std::uint64_t least_units, most_units;  // begins with the most
    std::chrono::milliseconds target, patience;
  };

  // One write's share, until it is destroyed, which does not block. The limiter must outlive it.
  class Slot {
   public:
    Slot(Slot&& other) noexcept
        : limiter_(std::exchange(other.limiter_, nullptr)), write_(other.write_) {}
    Slot& operator=(Slot&&) = delete;
    ~Slot() {
      if (limiter_ != nullptr) limiter_->release(write_);
    }

   private:
    friend class WriteLimiter;
    Slot(WriteLimiter& limiter, Writes::iterator write) : limiter_(&limiter), write_(write) {}
    WriteLimiter* limiter_;
    const Writes::iterator write_;
  };

  // `now` tells how long writes take; called with the limiter's lock held.
  explicit WriteLimiter(const Bounds& bounds,
                        std::function<Time()> now = std::chrono::steady_clock::now)
      : bounds_(bounds), now_(std::move(now)), limit_units_(bounds.most_units) {}
  WriteLimiter(const WriteLimiter&) = delete;
  WriteLimiter& operator=(const WriteLimiter&) = delete;

  // Blocks until there is room for `units`, at most `patience` for each write before it. One that
  // needs more than the limit has its turn when no other counts. Nothing when its turn has not come
  // by `deadline`, or `stop` was requested: it no longer waits then.
  std::optional<Slot> acquire(std::uint64_t units, Deadline deadline, std::stop_token stop = {});
  std::uint64_t limit_units() const;
  std::size_t waiting() const;

 private:
  struct Waiting {
    explicit Waiting(std::uint64_t units) : self{{units, {}}}, write(self.begin()) {}
    Writes self;  // one; it moves into writes_, so that nobody needs memory under the lock
    const Writes::iterator write;
    std::condition_variable_any turn;
    bool admitted = false;
  };
  void release(Writes::iterator write);
  void admit_locked() SIPHON_REQUIRES(mutex_);

  const Bounds bounds_;
  const std::function<Time()> now_;
  mutable Mutex mutex_;
  std::uint64_t limit_units_ SIPHON_GUARDED_BY(mutex_);
  std::uint64_t units_ SIPHON_GUARDED_BY(mutex_) = 0;  // of the writes that count
  Writes writes_ SIPHON_GUARDED_BY(mutex_);            // in the order of their beginning
  std::deque<Waiting*> queue_ SIPHON_GUARDED_BY(mutex_);
};

}  // namespace siphon
