// Where the threads of a transfer's lanes spend their time, at either end: says what limits it.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace siphon {

// Of a sender: the transfer's own and the device's.
inline constexpr std::size_t kMostThrottles = 2;

// In nanoseconds, monotonic. Written by the lanes' threads, read by any; lock free.
struct LaneTimes {
  std::atomic<std::uint64_t> waiting_for_buffer_ns{0};  // the local store is slower
  std::atomic<std::uint64_t> in_socket_ns{0};           // the peer or the wire is slower
  std::atomic<std::uint64_t> computing_ns{0};
  // A sender's, by their places in StreamRequest::throttles.
  std::array<std::atomic<std::uint64_t>, kMostThrottles> waiting_for_throttle_ns{};
};

inline void charge(std::atomic<std::uint64_t>& counter, std::chrono::steady_clock::duration time) {
  const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
  counter.fetch_add(static_cast<std::uint64_t>(ns), std::memory_order_relaxed);
}

}  // namespace siphon
