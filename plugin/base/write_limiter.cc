#include "plugin/base/write_limiter.h"

#include <algorithm>

namespace siphon {

std::optional<WriteLimiter::Slot> WriteLimiter::acquire(std::uint64_t units, Deadline deadline,
                                                        std::stop_token stop) {
  Waiting waiting(units);
  MutexLock lock(mutex_);
  queue_.push_back(&waiting);
  admit_locked();
  // A write that ends admits the next. Nobody tells when one becomes overdue: so look again then.
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
  return Slot(*this, waiting.write);
}

std::uint64_t WriteLimiter::limit_units() const {
  const MutexLock lock(mutex_);
  return limit_units_;
}

std::size_t WriteLimiter::waiting() const {
  const MutexLock lock(mutex_);
  return queue_.size();
}

void WriteLimiter::release(Writes::iterator write) {
  const MutexLock lock(mutex_);
  const std::uint64_t units = write->units;
  if (write->counts) units_ -= units;
  if (now_() - write->since > bounds_.target) {
    limit_units_ = std::max(bounds_.least_units, limit_units_ - std::min(limit_units_, units / 2));
  } else if (!queue_.empty()) {
    limit_units_ = std::min(bounds_.most_units, limit_units_ + units / 8);
  }
  writes_.erase(write);
  admit_locked();
}

void WriteLimiter::admit_locked() {
  const Time now = now_();
  for (Write& write : writes_) {
    if (now - write.since < bounds_.patience) break;
    if (std::exchange(write.counts, false)) units_ -= write.units;
  }
  while (!queue_.empty()) {
    Waiting& next = *queue_.front();
    const std::uint64_t units = next.write->units;
    if (units_ > 0 && units_ + units > limit_units_) return;
    queue_.pop_front();
    units_ += units;
    next.write->since = now;
    writes_.splice(writes_.end(), next.self);
    next.admitted = true;
    next.turn.notify_one();
  }
}

}  // namespace siphon
