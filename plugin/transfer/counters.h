// What a device has done since it was started.
#pragma once

#include <atomic>
#include <cstdint>

namespace siphon {

// Monotonic counters of a device, for `describe`.
struct DeviceCounters {
  std::atomic<std::uint64_t> bytes_received{0}, bytes_sent{0}, rejected_connections{0},
      fallback_parts{0};
  std::atomic<std::uint64_t> extents_published{0};
  std::atomic<std::uint32_t> transfers_in{0}, transfers_out{0};
  std::atomic<std::uint32_t> open_data_ports{0};
};

}  // namespace siphon
