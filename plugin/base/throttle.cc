#include "plugin/base/throttle.h"

#include <algorithm>

namespace siphon {
namespace {

constexpr double kBucketSeconds = 0.05;

tl::unexpected<Error> late() {
  return fail(Code::kDeadlineExceeded,
              "the rate limit lets the bytes pass only after the deadline");
}

}  // namespace

Throttle::Throttle(std::uint64_t bytes_per_second, const Clock& clock)
    : clock_(clock),
      rate_(bytes_per_second),
      passed_(static_cast<double>(bytes_per_second) * kBucketSeconds),
      advanced_at_(clock_.now()) {}

void Throttle::set_rate(std::uint64_t bytes_per_second) {
  const MutexLock lock(mutex_);
  advance(clock_.now());
  rate_ = bytes_per_second;
  changed_.notify_all();
}

std::uint64_t Throttle::rate() const {
  const MutexLock lock(mutex_);
  return rate_;
}

Status Throttle::take(std::uint64_t bytes, Deadline deadline, std::stop_token stop) {
  MutexLock lock(mutex_);
  if (rate_ == 0 || bytes == 0) return {};
  const auto now = clock_.now();
  advance(now);
  const double mark = granted_ + static_cast<double>(bytes);
  if (passed_ < mark && passes_at(mark, now) > deadline) return late();
  granted_ = mark;
  return wait_locked(lock, mark, deadline, stop);
}

Throttle::Place Throttle::line_up(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  if (rate_ == 0 || bytes == 0) return 0;
  advance(clock_.now());
  return granted_ += static_cast<double>(bytes);
}

Status Throttle::wait(Place place, Deadline deadline, std::stop_token stop) {
  MutexLock lock(mutex_);
  advance(clock_.now());
  return wait_locked(lock, place, deadline, stop);
}

Status Throttle::wait_locked(MutexLock& lock, double mark, Deadline deadline,
                             const std::stop_token& stop) {
  while (rate_ != 0 && passed_ < mark) {
    const auto now = clock_.now();
    if (stop.stop_requested()) return fail(Code::kCancelled, "cancelled");
    if (now >= deadline) return late();
    // Woken by a new rate and by a stop.
    const std::uint64_t rate = rate_;
    clock_.wait_until(changed_, lock, stop, std::min(passes_at(mark, now), deadline),
                      [&]() SIPHON_REQUIRES(mutex_) { return rate_ != rate; });
    advance(clock_.now());
  }
  return {};
}

void Throttle::advance(Deadline now) {
  const double seconds = std::chrono::duration<double>(now - advanced_at_).count();
  advanced_at_ = now;
  if (rate_ == 0) {
    passed_ = granted_;
    return;
  }
  const auto rate = static_cast<double>(rate_);
  passed_ = std::min(passed_ + rate * seconds, granted_ + rate * kBucketSeconds);
}

Deadline Throttle::passes_at(double mark, Deadline now) const {
  constexpr double kFarSeconds = 10 * 365 * 86400.0;
  // One microsecond more than exact, so that a waiter does not wake just short of its mark.
  const double seconds = (mark - passed_) / static_cast<double>(rate_) + 1e-6;
  return now + std::chrono::duration_cast<Deadline::duration>(
                   std::chrono::duration<double>(std::min(seconds, kFarSeconds)));
}

}  // namespace siphon
