// The target's end of a lane: one blocking thread per lane runs `receive_lane`.
#pragma once

#include <atomic>
#include <cstdint>
#include <stop_token>

#include "plugin/base/buffer_pool.h"
#include "plugin/base/status.h"
#include "plugin/base/throttle.h"
#include "plugin/stream/frame.h"
#include "plugin/stream/lane_times.h"
#include "plugin/stream/socket.h"

namespace siphon {

// When nothing but keep-alives has gone over a transfer's lanes for so many idle timeouts, the
// source's store hangs, and the attempt ends: on either end.
inline constexpr int kIdleTimeoutsWithoutData = 4;

struct ReceivedFrame {
  FrameHeader header;
  BufferPool::Buffer payload;  // exactly header.length_bytes
  std::uint32_t crc32 = 0;     // computed here, from the bytes received
};

// Takes what lanes receive. Called by the lanes' threads concurrently; may block (backpressure).
class FrameSink {
 public:
  virtual ~FrameSink() = default;
  // A header within limits has arrived, its payload has not. An error drops the lane. False: the
  // payload is read and thrown away (an extent that has failed already).
  virtual Result<bool> admit(const FrameHeader& header) = 0;
  // The payload's checksum is that of the trailer.
  virtual Status deliver(ReceivedFrame frame) = 0;
  // It is not. The lane goes on: only this frame is bad.
  virtual Status bad_frame(const FrameHeader& header, std::uint32_t sent_crc32,
                           std::uint32_t received_crc32) = 0;
  // The lane ends with this error, and its socket is about to be closed: the source cannot have
  // noticed yet, so whatever it reports afterwards only follows from it.
  virtual void lane_broken(const Error&) {}
};

// When some lane of a transfer last brought data; shared by its lanes.
class LastData {
 public:
  void note() { at_.store(Deadline::clock::now(), std::memory_order_relaxed); }
  Deadline at() const { return at_.load(std::memory_order_relaxed); }

 private:
  std::atomic<Deadline> at_{Deadline::clock::now()};
};

struct ReceiveOptions {
  FrameLimits limits;
  MinimumRate minimum_rate;
  Deadline deadline;              // absolute, for the whole lane
  LastData* last_data = nullptr;  // with it, keep-alives count for kIdleTimeoutsWithoutData only
  Throttle* throttle = nullptr;   // the device's own, of what comes in
  std::stop_token stop = {};      // ends a wait for it
};

// Receives frames until the end-of-lane frame. Bytes go straight from the socket into a buffer of
// `pool`, summed piece by piece while they are in cache. UNAVAILABLE: the peer went away first;
// DEADLINE_EXCEEDED: silent or too slow; DATA_LOSS: a header that is not one; CANCELLED: `socket`
// was shut down from here. On an error the socket is closed, so that the source notices at once.
Status receive_lane(Socket& socket, BufferPool& pool, const ReceiveOptions& options,
                    FrameSink& sink, LaneTimes& times);

}  // namespace siphon
