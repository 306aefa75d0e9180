// Gate: bounds what is under way at once, in units of its user's. First come, first served.
//
// The bound follows what lies behind it: most of what goes in is to be out again within `target`.
// Each that takes longer lowers the bound by half of its units; each that does not, while others
// wait, raises it by an eighth. So four in five stay below the target, at any rate.
//
// What stays inside for longer than `patience` no longer counts: an operation that hangs must not
// keep out those that would not. Thread safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <stop_token>
#include <utility>

#include "plugin/base/types.h"

namespace siphon {

class Gate {
  using Time = std::chrono::steady_clock::time_point;
  struct Guest {
    std::uint64_t units;
    Time since;
    bool counts = true;  // until it is overdue
  };
  using Guests = std::list<Guest>;

 public:
  struct Bounds {
    std::uint64_t least_units, most_units;  // begins with the most
    std::chrono::milliseconds target, patience;
  };

  // Inside until it is destroyed, which does not block. The gate must outlive it.
  class Pass {
   public:
    Pass(Pass&& other) noexcept
        : gate_(std::exchange(other.gate_, nullptr)), guest_(other.guest_) {}
    Pass& operator=(Pass&&) = delete;
    ~Pass() {
      if (gate_ != nullptr) gate_->leave(guest_);
    }

   private:
    friend class Gate;
    Pass(Gate& gate, Guests::iterator guest) : gate_(&gate), guest_(guest) {}
    Gate* gate_;
    const Guests::iterator guest_;
  };

  // `now` tells how long guests stay; called with the gate's lock held.
  explicit Gate(const Bounds& bounds, std::function<Time()> now = std::chrono::steady_clock::now)
      : bounds_(bounds), now_(std::move(now)), limit_units_(bounds.most_units) {}
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  // Blocks until there is room for `units`, at most `patience` for everyone before it. Who needs
  // more than the gate has gets in when nobody else counts. Nothing when its turn has not come by
  // `deadline`, or `stop` was requested: it has left the line.
  std::optional<Pass> enter(std::uint64_t units, Deadline deadline, std::stop_token stop = {});
  std::uint64_t limit_units() const;
  std::size_t waiting() const;

 private:
  struct Waiting {
    explicit Waiting(std::uint64_t units) : self{{units, {}}}, guest(self.begin()) {}
    Guests self;  // one; it moves into guests_, so that nobody needs memory under the lock
    const Guests::iterator guest;
    std::condition_variable_any turn;
    bool admitted = false;
  };
  void leave(Guests::iterator guest);
  void admit_locked();

  const Bounds bounds_;
  const std::function<Time()> now_;
  mutable std::mutex mutex_;  // guards what follows
  std::uint64_t limit_units_;
  std::uint64_t units_ = 0;  // of the guests that count
  Guests guests_;            // in the order of their entry
  std::deque<Waiting*> queue_;
};

}  // namespace siphon
