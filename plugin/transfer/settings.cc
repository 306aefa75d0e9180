#include "plugin/transfer/settings.h"

#include <algorithm>

#include "plugin/base/buffer_pool.h"

namespace siphon {

std::uint64_t lower_rate(std::uint64_t a, std::uint64_t b) {
  return a == 0 || b == 0 ? std::max(a, b) : std::min(a, b);
}

std::uint32_t frame_bytes_for(const TransferSettings& settings, std::uint64_t bytes_per_second) {
  if (bytes_per_second == 0) return settings.max_frame_bytes;
  const std::uint64_t second = bytes_per_second / BufferPool::kGranule * BufferPool::kGranule;
  return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(
      second, BufferPool::kGranule,
      std::max<std::uint64_t>(settings.paced_frame_bytes, BufferPool::kGranule)));
}

Bottleneck reached_setting(double rate, std::uint64_t of_request, std::uint64_t of_device) {
  const std::uint64_t lower = lower_rate(of_request, of_device);
  if (lower == 0 || rate <= 0.8 * static_cast<double>(lower)) return Bottleneck::kNone;
  return lower == of_request ? Bottleneck::kSetting : Bottleneck::kDeviceSetting;
}

}  // namespace siphon
