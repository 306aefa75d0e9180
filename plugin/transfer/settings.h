// A device's settings for its transfers, and what follows from them.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "plugin/base/types.h"
#include "plugin/stream/listener.h"
#include "plugin/transfer/types.h"

namespace siphon {

struct TransferSettings {
  std::string device;  // "osd.3"
  std::string data_address = "127.0.0.1";
  PortRange data_ports;
  std::uint16_t lanes = 1;
  std::uint32_t max_frame_bytes = 4u << 20;
  std::uint32_t paced_frame_bytes = 512u << 10;  // with a bandwidth limit
  std::uint64_t bytes_per_second = 0;            // the device's own limit, each direction
  std::uint32_t writers = 16;                    // that store frames, per transfer, at most
  std::uint32_t max_transfers = 4;               // at once, each direction
  std::uint64_t max_extent_bytes = 64ull << 30;
  MinimumRate minimum_rate{std::chrono::milliseconds(30000), 64 * kKiB};
  std::chrono::milliseconds connect_timeout{15000};
  std::chrono::milliseconds queue_timeout{60000};
  std::chrono::milliseconds settle_timeout{60000};       // for a publish without an answer
  std::chrono::milliseconds second_call_timeout{30000};  // for its end, once the lanes have ended
  std::chrono::milliseconds drop_timeout{30000};  // for removing scratch; then the collector's
  std::chrono::milliseconds transfer_timeout{std::chrono::hours(24)};
  std::chrono::milliseconds scratch_lease{std::chrono::hours(25)};  // beyond transfer_timeout
};

// The lower of two rates; 0 is none.
std::uint64_t lower_rate(std::uint64_t a, std::uint64_t b);
// Which limit holds back a transfer that goes at `rate`: the request's or the device's own (0:
// none), whichever is lower. kNone: it is well below.
Bottleneck reached_setting(double rate, std::uint64_t of_request, std::uint64_t of_device);
// The largest frame of a transfer at `bytes_per_second` (0: unlimited): about a second's worth, so
// that a slow one still has something on its way between two looks at it.
std::uint32_t frame_bytes_for(const TransferSettings& settings, std::uint64_t bytes_per_second);

}  // namespace siphon
