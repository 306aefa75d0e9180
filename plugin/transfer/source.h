// SourceService: what a device does as the source: answers the second call, and re-reads extents
// for `verify`. Reads only: nothing here can change a store.
//
// Thread safe; each call blocks its thread until it has ended.
#pragma once

#include <functional>
#include <stop_token>

#include "adapters/extent_store.h"
#include "plugin/base/buffer_pool.h"
#include "plugin/base/throttle.h"
#include "plugin/base/turnstile.h"
#include "plugin/format/extent_format.h"
#include "plugin/stream/sender.h"
#include "plugin/transfer/counters.h"
#include "plugin/transfer/second_call.h"
#include "plugin/transfer/settings.h"
#include "plugin/transfer/types.h"

namespace siphon {

class SourceService {
 public:
  // All outlive the service.
  SourceService(const TransferSettings& settings, BufferPool& send_pool, Throttle& throttle,
                DeviceCounters& counters)
      : settings_(settings),
        send_pool_(send_pool),
        throttle_(throttle),
        counters_(counters),
        streams_(settings.max_transfers, kMostWaiting),
        verifies_(kVerifiesAtOnce, kMostWaiting) {}

  // At most settings.max_transfers streams run, and so many extents are verified, at once; so many
  // calls of each kind wait for their turn, for settings.queue_timeout at most. Who is turned away
  // is told that the device is busy.
  static constexpr std::size_t kVerifiesAtOnce = 4, kMostWaiting = 16;

  // Streams to call.data and reports every extent once; several reports may come together. The
  // caller has checked authority and that call.data is the peer's own address. `on_report` is
  // called from one thread at a time, and first when the stream's turn has come. What the call asks
  // for holds within the device's own settings: its timeouts are not longer, its rate not higher,
  // its frames not larger. Returns when every lane has ended or the attempt has failed.
  // With call.headers_only it reports what the sealed headers say, and streams nothing. An extent
  // of a folder that is cut short is reported twice: its header, then DATA_LOSS.
  StreamEnd stream(const StreamCall& call, ExtentStore& store,
                   const std::function<void(const SourceReport&)>& on_report, std::stop_token stop);

  // Re-reads one extent in full: every block's SHA-256, index, footer and the crc32 of all of it.
  VerifyOutcome verify(ExtentStore& store, const std::string& extent,
                       const std::function<Status(std::uint64_t done_bytes)>& on_progress,
                       std::stop_token stop);

 private:
  StreamEnd report_headers(const StreamCall& call, ExtentStore& store,
                           const std::function<void(const SourceReport&)>& on_report,
                           const std::stop_token& stop);
  // This call's lease of the send memory: two frames.
  Result<BufferPool::Buffer> lease(std::uint64_t frame_bytes, std::stop_token stop);
  // `call` within this device's own limits, as a request without throttles.
  StreamRequest request_of(const StreamCall& call) const;
  Error busy(std::string_view what) const;

  const TransferSettings& settings_;
  BufferPool& send_pool_;
  Throttle& throttle_;
  DeviceCounters& counters_;
  Turnstile streams_, verifies_;
};

// Reads any range of an extent through buffers of `pool`, one store operation at a time: what
// the format's decoders want as a ByteSource. `out` may be ordinary memory, and is read into
// directly (by a companion: through librados) when streams have all of the pool.
Status read_range(ExtentReader& reader, BufferPool& pool, std::uint32_t operation_bytes,
                  std::uint64_t offset_bytes, std::span<std::byte> out);

}  // namespace siphon
