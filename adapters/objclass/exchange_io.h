// ExchangeIo: ObjectIo for a companion. Bulk bytes go between the region's buffers and the store
// by the class methods read_part and write_part, the register changes by its lifecycle methods.
//
// Whatever the class cannot do goes through librados, one operation at a time, and is counted: a
// buffer outside the region (not counted, it was never planned otherwise), a primary that is
// another OSD, an OSD without the class, an erasure-coded pool, damage (a replicated read repairs
// itself there). Timeouts and errors retire the descriptor first. Thread safe.
//
// Writes of all pools share one limiter: what an OSD has not committed blocks its threads, and
// so every client of it. A write waits there for its turn, at most two minutes (then -ETIMEDOUT) or
// until it is stopped (-EINTR), before its operation's timeout begins.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <string>

#include "adapters/objclass/exchange_client.h"
#include "adapters/rados/object_io.h"
#include "plugin/base/write_limiter.h"
#include "plugin/core/mutex.h"

namespace siphon {

class ExchangeIo final : public ObjectIo {
 public:
  // What a write counts for the limiter, at least: a small one costs its OSD more than its bytes.
  static constexpr std::uint64_t kLeastCharge = 128 << 10;

  // `exchange` and `writes` (units: bytes) must outlive this.
  ExchangeIo(ExchangeClient& exchange, WriteLimiter& writes, bool whole_objects);

  int read(librados::IoCtx& io, const std::string& object, std::uint64_t offset_bytes,
           std::span<std::byte> out, std::size_t& got) override;
  int write(librados::IoCtx& io, const std::string& object, std::uint64_t offset_bytes,
            std::span<const std::byte> in, std::uint64_t expected_bytes,
            const std::stop_token& stop) override;
  void read_heads(std::span<HeadRead> reads) override;
  int transition(librados::IoCtx& io, const std::string& object,
                 const TransitionRequest& request) override;
  void put_heads(std::span<HeadPut> puts) override;

 private:
  // A descriptor for `buffer`, or nothing (and counted, when the buffer lies in the region).
  std::optional<ExchangeClient::Armed> arm(exchange::OperationKind kind, const std::string& object,
                                           std::span<const std::byte> buffer);
  // Whether the exchange is of use, for reads or for writes. Where an OSD answers that it has no
  // such method (it has no plugin, or the pool is erasure-coded), that extent goes another way for
  // a while; and when several extents in a row were answered so, the whole pool does.
  class Way {
   public:
    explicit Way(bool never) : never_(never) {}
    bool is_closed(const std::string& object);
    void note_refusal(const std::string& object);
    void note_success();

   private:
    using Time = std::chrono::steady_clock::time_point;
    const bool never_;
    std::atomic<std::uint32_t> refusals_{0};  // in a row
    std::atomic<Time> pool_until_{Time::min()};
    std::atomic<std::size_t> extents_{0};  // the size of until_
    Mutex mutex_;
    std::map<std::string, Time> until_ SIPHON_GUARDED_BY(mutex_);  // by extent
  };

  // True: another way may succeed where the class answered `result`, for `object`.
  bool falls_back(int result, Way& way, const std::string& object);

  ExchangeClient& exchange_;
  WriteLimiter& writes_;
  Way reads_, writes_way_;
};

}  // namespace siphon
