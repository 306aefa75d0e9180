// The second call, as the target makes it and the source answers it: what is asked for, what comes
// back, and who carries it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "plugin/base/status.h"
#include "plugin/base/types.h"
#include "plugin/stream/handshake.h"
#include "plugin/transfer/machine.h"
#include "plugin/transfer/types.h"

namespace siphon {

struct StreamCall {
  std::string transfer_id;
  std::uint32_t attempt = 1;
  std::string source_address;
  Location source;
  std::vector<std::string> extents;
  Endpoint data;
  Ticket ticket;
  std::string target_device;
  std::uint16_t lanes = 1;
  std::uint32_t max_frame_bytes = 0;
  MinimumRate minimum_rate;
  std::chrono::milliseconds deadline{0};
  std::uint64_t bytes_per_second = 0;
  std::optional<SourceKey> source_key;
  StoreIdentity target_store;  // empty when no extent keeps its name
  bool headers_only = false;   // reports what the sealed headers say; nothing is streamed
  bool in_order = false;       // each extent's frames by their offsets; then there is one lane
};
// Binds a ticket to everything the call says: both ends compute it.
Sha256 ticket_binding(const StreamCall& call);

struct SourceReport {
  struct Extent {
    std::uint32_t index = 0;
    Result<SourceClaim> claim = fail(Code::kUnknown, "no claim");
  };
  std::string source_device;
  std::vector<Extent> extents;
  Bottleneck bottleneck = Bottleneck::kNone;
};
struct StreamEnd {
  Status status;
  std::uint64_t fallback_parts = 0;
  std::uint64_t rpc_bytes = 0;  // serialized messages, both directions
};

class SourceCaller {
 public:
  virtual ~SourceCaller() = default;
  // Blocks until the call has ended; `on_report` runs on the calling thread. A stop request ends
  // it within a second.
  virtual StreamEnd stream(const StreamCall& call,
                           const std::function<void(const SourceReport&)>& on_report,
                           std::stop_token stop) = 0;
};

}  // namespace siphon
