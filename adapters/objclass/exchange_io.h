// ExchangeIo: ObjectIo for a companion. Bulk bytes go between the region's buffers and the store
// by the class methods read_part and write_part, the register changes by its lifecycle methods.
//
// Whatever the class cannot do goes through librados, one operation at a time, and is counted: a
// buffer outside the region (not counted, it was never planned otherwise), a primary that is
// another OSD, an OSD without the class, an erasure-coded pool, damage (a replicated read repairs
// itself there). Timeouts and errors retire the descriptor first. Thread safe.
//
// Writes of all pools go through one gate: what an OSD has not committed blocks its threads, and
// so every client of it. A write waits there for its turn before its operation's timeout begins.
#pragma once

#include <atomic>

#include "adapters/objclass/exchange_client.h"
#include "adapters/rados/object_io.h"
#include "plugin/base/gate.h"

namespace siphon {

class ExchangeIo final : public ObjectIo {
 public:
  // What a write counts at the gate, at least: a small one costs its OSD more than its bytes.
  static constexpr std::uint64_t kLeastCharge = 96 << 10;

  // `exchange` and `writes` (units: bytes) must outlive this.
  ExchangeIo(ExchangeClient& exchange, Gate& writes, bool whole_objects);

  int read(librados::IoCtx& io, const std::string& object, std::uint64_t offset_bytes,
           std::span<std::byte> out, std::size_t& got) override;
  int write(librados::IoCtx& io, const std::string& object, std::uint64_t offset_bytes,
            std::span<const std::byte> in, std::uint64_t expected_bytes) override;
  void read_heads(std::span<HeadRead> reads) override;
  int transition(librados::IoCtx& io, const std::string& object,
                 const TransitionRequest& request) override;
  void put_heads(std::span<HeadPut> puts) override;

 private:
  // A descriptor for `buffer`, or nothing (and counted, when the buffer lies in the region).
  std::optional<ExchangeClient::Armed> arm(exchange::OperationKind kind,
                                           std::span<const std::byte> buffer);
  // True: another way may succeed where the class answered `result`. Remembers what will not
  // change.
  bool go_round(int result, std::atomic<bool>& closed);

  ExchangeClient& exchange_;
  Gate& writes_;
  std::atomic<bool> reads_closed_;
  std::atomic<bool> writes_closed_;
};

}  // namespace siphon
