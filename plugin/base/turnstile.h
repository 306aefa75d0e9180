// Turnstile: at most so many inside at once, the others in line, first come, first served; and the
// line has a length. Thread safe.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <optional>
#include <stop_token>
#include <utility>

#include "plugin/base/types.h"
#include "plugin/core/mutex.h"

namespace siphon {

class Turnstile {
 public:
  // Inside until it is destroyed. The turnstile must outlive it.
  class Place {
   public:
    Place(Place&& other) noexcept : turnstile_(std::exchange(other.turnstile_, nullptr)) {}
    Place& operator=(Place&&) = delete;
    ~Place() {
      if (turnstile_ != nullptr) turnstile_->leave();
    }

   private:
    friend class Turnstile;
    explicit Place(Turnstile* turnstile) : turnstile_(turnstile) {}
    Turnstile* turnstile_;
  };

  Turnstile(std::size_t places, std::size_t most_waiting)
      : places_(places), most_waiting_(most_waiting) {}

  // Blocks for a turn. Nothing: the line is full, or by `deadline` (or when `stop` was requested)
  // it had not come.
  std::optional<Place> enter(Deadline deadline, std::stop_token stop = {}) {
    MutexLock lock(mutex_);
    if (inside_ < places_) {
      ++inside_;
      return Place(this);
    }
    if (queue_.size() >= most_waiting_) return std::nullopt;
    Waiting self;
    queue_.push_back(&self);
    self.turn.wait_until(lock, stop, deadline, [&] { return self.admitted; });
    if (self.admitted) return Place(this);
    std::erase(queue_, &self);
    return std::nullopt;
  }
  std::size_t inside() const {
    const MutexLock lock(mutex_);
    return inside_;
  }
  std::size_t waiting() const {
    const MutexLock lock(mutex_);
    return queue_.size();
  }

 private:
  struct Waiting {
    std::condition_variable_any turn;
    bool admitted = false;
  };
  // The place goes to whoever is first in line, so that nobody overtakes.
  void leave() {
    const MutexLock lock(mutex_);
    if (queue_.empty()) {
      --inside_;
      return;
    }
    Waiting& next = *queue_.front();
    queue_.pop_front();
    next.admitted = true;
    next.turn.notify_one();  // under the lock: it must not be gone before
  }

  const std::size_t places_, most_waiting_;
  mutable Mutex mutex_;
  std::size_t inside_ SIPHON_GUARDED_BY(mutex_) = 0;
  std::deque<Waiting*> queue_ SIPHON_GUARDED_BY(mutex_);
};

}  // namespace siphon
