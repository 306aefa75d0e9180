// SourceService: what a device does as the source: answers the second call, and re-reads extents
// for `verify`. Reads only: nothing here can change a store.
//
// Thread safe; each call blocks its thread until it has ended.
#pragma once

#include <functional>
#include <stop_token>

#include "adapters/extent_store.h"
#include "plugin/base/buffer_pool.h"
#include "plugin/base/extent_format.h"
#include "plugin/base/throttle.h"
#include "plugin/stream/sender.h"
#include "plugin/transfer/target.h"
#include "plugin/transfer/types.h"

namespace siphon {

class SourceService {
 public:
  // All outlive the service.
  SourceService(const TransferSettings& settings, BufferPool& send_pool, Throttle& throttle,
                DeviceCounters& counters)
      : settings_(settings), send_pool_(send_pool), throttle_(throttle), counters_(counters) {}

  // Streams to call.data and reports every extent once; several reports may come together. The
  // caller has checked authority and that call.data is the peer's own address. `on_report` is
  // called from one thread at a time. Returns when every lane has ended or the attempt has failed.
  // With call.headers_only it reports what the sealed headers say, and streams nothing.
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
  Result<BufferPool::Buffer> lease(std::uint64_t frame_bytes);

  const TransferSettings& settings_;
  BufferPool& send_pool_;
  Throttle& throttle_;
  DeviceCounters& counters_;
};

// Reads any range of an extent through buffers of `pool`, one store operation at a time: what
// the format's decoders want as a ByteSource. `out` may be ordinary memory.
Status read_range(ExtentReader& reader, BufferPool& pool, std::uint32_t operation_bytes,
                  std::uint64_t offset_bytes, std::span<std::byte> out);

}  // namespace siphon
