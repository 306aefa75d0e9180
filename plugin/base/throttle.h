// A token bucket for bytes, live-adjustable. Thread safe; `take` blocks.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "plugin/base/status.h"
#include "plugin/base/types.h"

namespace siphon {

class Throttle {
 public:
  // 0: unlimited. The bucket holds at most 50 ms worth of bytes, so there are no bursts.
  explicit Throttle(std::uint64_t bytes_per_second = 0) : rate_(bytes_per_second) {}
  void set_rate(std::uint64_t bytes_per_second);
  std::uint64_t rate() const;
  // Waits until `bytes` may pass. DEADLINE_EXCEEDED when that would be after `deadline` (nothing
  // is taken then).
  Status take(std::uint64_t bytes, Deadline deadline);

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t rate_;
  std::chrono::steady_clock::time_point free_at_{};  // when the bytes already granted have passed
};

}  // namespace siphon
