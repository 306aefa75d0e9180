#include "plugin/transfer/types.h"

#include <algorithm>

namespace siphon {

std::string_view to_string(Phase phase) {
  switch (phase) {
    case Phase::kQueued:
      return "queued";
    case Phase::kReserve:
      return "reserve";
    case Phase::kListen:
      return "listen";
    case Phase::kStream:
      return "stream";
    case Phase::kCompare:
      return "compare";
    case Phase::kPublish:
      return "publish";
    case Phase::kSucceeded:
      return "succeeded";
    case Phase::kFailed:
      return "failed";
    case Phase::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

std::string new_transfer_id() { return to_hex(new_private_id()); }

Status check_transfer_id(const std::string& id) {
  std::array<std::byte, 16> ignored{};
  if (from_hex(id, ignored)) return {};
  return fail(Code::kInvalidArgument, "transfer id '" + id.substr(0, 64) + "' is not 32 hex digits",
              Side::kRequester);
}

Status check_rate(std::uint64_t bytes_per_second) {
  if (bytes_per_second == 0 || bytes_per_second >= kLeastBytesPerSecond) return {};
  return fail(Code::kInvalidArgument,
              "a bandwidth limit of " + std::to_string(bytes_per_second) +
                  " bytes per second is too low: at least " + std::to_string(kLeastBytesPerSecond) +
                  ", or 0 for none",
              Side::kRequester);
}

Status check_spec(const TransferSpec& spec) {
  auto wrong = [](std::string what) {
    return fail(Code::kInvalidArgument, "transfer request: " + what, Side::kRequester);
  };
  SIPHON_TRY(check_transfer_id(spec.id));
  if (spec.extents.empty()) return wrong("it names no extent");
  if (spec.extents.size() > kMaxExtentsPerTransfer) {
    return wrong("it names " + std::to_string(spec.extents.size()) + " extents, at most " +
                 std::to_string(kMaxExtentsPerTransfer) + " are allowed");
  }
  SIPHON_TRY(check_rate(spec.bytes_per_second));
  if (spec.lanes > kMaxLanes) return wrong("more than " + std::to_string(kMaxLanes) + " lanes");
  if (spec.source_address.empty()) return wrong("the source's address is missing");
  std::vector<std::string_view> targets;
  targets.reserve(spec.extents.size());
  for (const ExtentPair& e : spec.extents) {
    SIPHON_TRY(check_extent_name(e.source));
    SIPHON_TRY(check_extent_name(e.target));
    targets.push_back(e.target);
  }
  std::sort(targets.begin(), targets.end());
  if (auto twice = std::adjacent_find(targets.begin(), targets.end()); twice != targets.end()) {
    return wrong("target extent " + std::string(*twice) + " is named twice");
  }
  return {};
}

}  // namespace siphon
