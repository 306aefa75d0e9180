// One extent of a TargetTransfer. For target*.cc alone.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "plugin/transfer/target.h"

namespace siphon {

// An extent's state machine (guarded by the transfer's mutex) and what a writer needs to store it.
struct TargetTransfer::Extent {
  Extent(std::uint32_t i, const ExtentPair& p, const TargetPlace& place)
      : index(i), pair(p), machine(p.source), stored(place, p.target) {}

  // With the transfer's mutex, as is let_go_if_failed. Nothing while it is being published.
  void on_error(Error error) {
    machine.on_error(std::move(error));
    let_go_if_failed();
  }
  // What failed is not published, and others can use its memory.
  void let_go_if_failed() {
    if (machine.state() == ExtentMachine::State::kFailed) held.payload.reset();
  }

  const std::uint32_t index;
  const ExtentPair& pair;
  ExtentMachine machine;
  TargetExtent stored;
  bool inline_candidate = false;  // its one frame is held until the source has spoken
  ReceivedFrame held;             // that frame; its publisher's alone once it is being published
  bool begins_early = false;      // as planned, before its first frame; fixed
  std::uint64_t started_unix_ms = 0;
  std::optional<SealedHeader> source_header;  // where the source was asked for no more than that
  std::optional<Error> source_error;          // why it did not tell
  std::optional<Receipt> receipt;             // that it had before, or for what was found there
  bool has_outcome = false;
};

// What look_for_bottleneck saw when it looked last.
struct TargetTransfer::LastLook {
  bool was_one = false;
  std::chrono::steady_clock::time_point at;
  std::uint64_t buffer_ns = 0, socket_ns = 0, bytes = 0;
};

// What an extent above transfer.max_extent_bytes fails with.
Error too_large(const std::string& extent, std::uint64_t bytes, std::uint64_t limit);

}  // namespace siphon
