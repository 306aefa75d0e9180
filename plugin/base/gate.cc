#include "plugin/base/gate.h"

#include <iterator>
#include <utility>

namespace siphon {

Gate::Pass Gate::enter(std::uint64_t units) {
  std::unique_lock lock(mutex_);
  Waiting self{units, {}, false, {}};
  queue_.push_back(&self);
  admit_locked();
  // Whoever leaves lets the next one in. That somebody has become overdue nobody tells.
  while (!self.admitted) {
    self.turn.wait_for(lock, patience_);
    admit_locked();
  }
  return {*this, self.guest};
}

void Gate::leave(Guests::iterator guest) {
  const std::lock_guard lock(mutex_);
  units_ -= guest->units;
  guests_.erase(guest);
  admit_locked();
}

void Gate::admit_locked() {
  const Clock::time_point now = Clock::now();
  for (Guest& guest : guests_) {
    if (now - guest.since < patience_) break;
    units_ -= std::exchange(guest.units, 0);
  }
  while (!queue_.empty()) {
    Waiting& next = *queue_.front();
    if (units_ > 0 && units_ + next.units > most_units_) return;
    queue_.pop_front();
    units_ += next.units;
    next.guest = guests_.insert(guests_.end(), {next.units, now});
    next.admitted = true;
    next.turn.notify_one();
  }
}

}  // namespace siphon
