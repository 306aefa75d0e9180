// StreamSender: the source's end of a transfer attempt. Reads extents, sends them over the lanes,
// reports one result per extent.
//
// Blocking threads: `readers` fill buffers from the store (bounded per extent by the store's read
// depth), one thread per lane sums and sends them. While the store is what the lanes wait for,
// there come more readers. Buffers come from one pool, so bytes in flight are bounded; a full pool
// stops the readers, nothing else does.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "adapters/extent_store.h"
#include "plugin/base/buffer_pool.h"
#include "plugin/base/status.h"
#include "plugin/base/throttle.h"
#include "plugin/stream/handshake.h"
#include "plugin/stream/receiver.h"
#include "plugin/stream/socket.h"

namespace siphon {

struct StreamRequest {
  std::vector<std::string> extents;  // names; a frame's extent_index points here
  Endpoint target;
  Ticket ticket;
  std::uint16_t lanes = 1;
  std::uint32_t max_frame_bytes = 4u << 20;
  MinimumRate minimum_rate;
  Deadline deadline;
  bool in_order = false;             // each extent's frames by their offsets; with one lane
  std::vector<Throttle*> throttles;  // each holds; they outlive the sender
};

// What the source says of one extent, in the return of the second call.
struct ExtentResult {
  std::uint32_t extent_index = 0;
  Status status;  // error: not sent, or not to be trusted (DATA_LOSS: rot at the source)
  // As pinned; valid when it could be opened. A header of version 1 has become one of version 2,
  // with the digest of the index that was read, once all of it has been.
  ExtentInfo info;
  std::uint64_t bytes = 0;
  std::uint32_t crc32 = 0;  // of the bytes as read here
};

struct SenderCounters {
  std::uint64_t bytes_read = 0;
  std::uint64_t bytes_sent = 0;  // payload
  std::uint64_t fallback_parts = 0;
};

class StreamSender {
 public:
  // `store` and `pool` outlive the sender. `on_result` is called from the
  // sender's threads, one call at a time, once per extent, as soon as all of it has been read and
  // summed (or has failed).
  StreamSender(ExtentStore& store, BufferPool& pool, StreamRequest request,
               std::function<void(ExtentResult)> on_result);
  ~StreamSender();

  // Blocks: connects, proves the ticket on every lane, sends everything, ends the lanes. An extent
  // that fails does not stop the others. The returned error is about the attempt as a whole
  // (connect, handshake, a lane lost); every extent has had its result by then all the same.
  Status run();
  // From any thread: makes run() return CANCELLED soon.
  void cancel();
  SenderCounters counters() const;
  const LaneTimes& lane_times() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace siphon
