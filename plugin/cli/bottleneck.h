// What a device reports, as the progress line has it.
#pragma once

#include <string>

#include "plugin/cli/progress.h"
#include "plugin/transfer/types.h"

namespace siphon::cli {

// "osd.7 disk", "lanes", "--bwlimit", "osd.7 transfer.bytes_per_second"; empty: nothing stands out.
inline std::string bottleneck_text(Bottleneck bottleneck, const std::string& source_device,
                                   const std::string& target_device) {
  switch (bottleneck) {
    case Bottleneck::kSourceStore:
      return source_device + " disk";
    case Bottleneck::kTargetStore:
      return target_device + " disk";
    case Bottleneck::kLanes:
      return "lanes";
    case Bottleneck::kSetting:
      return "--bwlimit";
    case Bottleneck::kDeviceSetting:
      return target_device + " transfer.bytes_per_second";
    case Bottleneck::kSourceSetting:
      return source_device + " transfer.bytes_per_second";
    case Bottleneck::kNone:
      break;
  }
  return {};
}

inline ProgressState progress_of(const Progress& p, const std::string& source_device,
                                 const std::string& target_device) {
  ProgressState state;
  state.done_bytes = p.durable_bytes;
  state.total_bytes = p.total_bytes;
  state.counts = true;
  state.total_extents = p.extents_total;
  const std::uint32_t ended = p.extents_done + p.extents_failed;
  state.done_extents = ended;
  state.active = p.extents_total > ended ? p.extents_total - ended : 0;
  state.failed = p.extents_failed;
  state.bottleneck = bottleneck_text(p.bottleneck, source_device, target_device);
  return state;
}

}  // namespace siphon::cli
