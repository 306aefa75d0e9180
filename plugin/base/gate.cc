#include "plugin/base/gate.h"

#include <algorithm>

namespace siphon {

std::optional<Gate::Pass> Gate::enter(std::uint64_t units, Deadline deadline,
                                      std::stop_token stop) {
  Waiting waiting(units);
  std::unique_lock lock(mutex_);
  queue_.push_back(&waiting);
  admit_locked();
  // Whoever leaves lets the next one in. That somebody has become overdue nobody tells.
  while (!waiting.admitted) {
    const Deadline now = Deadline::clock::now();
    if (now >= deadline || stop.stop_requested()) {
      std::erase(queue_, &waiting);
      admit_locked();  // who comes next may need less
      return std::nullopt;
    }
    waiting.turn.wait_until(lock, stop, std::min(deadline, now + bounds_.patience),
                            [&] { return waiting.admitted; });
    admit_locked();
  }
  return Pass(*this, waiting.guest);
}

std::uint64_t Gate::limit_units() const {
  const std::lock_guard lock(mutex_);
  return limit_units_;
}

std::size_t Gate::waiting() const {
  const std::lock_guard lock(mutex_);
  return queue_.size();
}

void Gate::leave(Guests::iterator guest) {
  const std::lock_guard lock(mutex_);
  const std::uint64_t units = guest->units;
  if (guest->counts) units_ -= units;
  if (now_() - guest->since > bounds_.target) {
    limit_units_ = std::max(bounds_.least_units, limit_units_ - std::min(limit_units_, units / 2));
  } else if (!queue_.empty()) {
    limit_units_ = std::min(bounds_.most_units, limit_units_ + units / 8);
  }
  guests_.erase(guest);
  admit_locked();
}

void Gate::admit_locked() {
  const Time now = now_();
  for (Guest& guest : guests_) {
    if (now - guest.since < bounds_.patience) break;
    if (std::exchange(guest.counts, false)) units_ -= guest.units;
  }
  while (!queue_.empty()) {
    Waiting& next = *queue_.front();
    const std::uint64_t units = next.guest->units;
    if (units_ > 0 && units_ + units > limit_units_) return;
    queue_.pop_front();
    units_ += units;
    next.guest->since = now;
    guests_.splice(guests_.end(), next.self);
    next.admitted = true;
    next.turn.notify_one();
  }
}

}  // namespace siphon
