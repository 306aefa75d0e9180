// ExchangeClient: the companion's side of the region it shares with its OSD's class
// (plugin/exchange/exchange.h): the two halves of buffer memory, the descriptors that let the
// class reach into them, the hello, the grants.
//
// The region is mapped for the object's whole life. Thread safe; nothing blocks but
// Armed::retire. No librados here.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "plugin/base/status.h"
#include "plugin/core/mutex.h"
#include "plugin/exchange/exchange.h"

namespace siphon {

struct ExchangeGrant {
  std::int64_t pool_id = -1;
  std::string nspace;
  exchange::Right right = exchange::Right::kRead;
  std::uint64_t client = 0;  // who asked for it; 0: not known
};

// What the class did with the region, by its own count. Monotonic.
struct ExchangeCounters {
  std::uint64_t reads_done = 0;
  std::uint64_t writes_done = 0;
  std::uint64_t stale_refused = 0;
  std::uint64_t grants_given = 0;
};

class ExchangeClient {
 public:
  // Maps the region behind `fd` (which may be closed afterwards). FAILED_PRECONDITION when it is
  // no region, of another ABI version, or its geometry contradicts itself.
  // `patience`: how long a copy may take before its buffer is held instead of waited for.
  static Result<std::unique_ptr<ExchangeClient>> map(
      int fd, std::chrono::milliseconds patience = std::chrono::milliseconds(5000));
  ~ExchangeClient();
  ExchangeClient(const ExchangeClient&) = delete;
  ExchangeClient& operator=(const ExchangeClient&) = delete;

  // The halves of the data area, page-aligned. Receive buffers drain into the local store alone.
  std::span<std::byte> send_half() const { return data_.first(data_.size() / 2); }
  std::span<std::byte> receive_half() const { return data_.subspan(data_.size() / 2); }
  std::uint64_t region_bytes() const { return region_bytes_; }
  std::uint64_t boot_nonce() const { return boot_nonce_; }
  // False: the OSD is of another Ceph build; its class has no methods, all goes through librados.
  bool bulk_methods() const { return bulk_methods_; }
  bool contains(std::span<const std::byte> bytes) const;
  // Whether the class may still copy into or out of some of `bytes`, for an operation that its
  // owner has given up (or a predecessor of this process left behind): nobody may use them until
  // it has ended. Costs one load when there is none such.
  bool is_held(std::span<const std::byte> bytes);
  // The buffers that are withheld for now, each in whole.
  std::vector<std::span<std::byte>> held();
  ExchangeCounters counters() const;

  // Whether the class may believe what it reads of its operations, and so give grants.
  exchange::LayoutState layout() const;
  // Where a grant was asked for that needs a probe first; each is told once. A hint, from anybody.
  struct WantedProbe {
    std::int64_t pool_id;
    std::uint32_t placement_group;
  };
  std::optional<WantedProbe> wanted_probe();
  // The class takes a probe with `ticket` for this process's, and no other. One thread at a time.
  void announce_probe(std::span<const std::byte, 16> ticket);
  void withdraw_probe();

  // What `hello` answers from now on. One thread at a time.
  void publish_hello(const exchange::Hello& hello);

  // The nonce of a grant of this name (grant_key_id), not expired. An entry whose name is not its
  // nonce's is none.
  std::optional<std::array<std::byte, 16>> find_nonce(std::span<const std::byte, 16> key_id) const;
  // Every grant that `nonce` shows, not expired. Looks at the whole table in the same time,
  // wherever the nonce is.
  std::vector<ExchangeGrant> find_grants(std::span<const std::byte, 16> nonce) const;
  // Whether one of them entitles to `right` in exactly this pool and namespace.
  bool allows(std::span<const std::byte, 16> nonce, exchange::Right right, std::int64_t pool_id,
              std::string_view nspace) const;

  // A buffer that the class may use for one operation, until retired. Move only.
  class Armed {
   public:
    Armed(Armed&& other) noexcept;
    Armed& operator=(Armed&&) = delete;
    ~Armed() { (void)retire(); }
    // Takes the buffer back: no late method touches it afterwards. Waits out a copy that is going
    // on (a few milliseconds). False: it did not end in time (an OSD that is hung or stopped in
    // the middle of a copy); the buffer may still change and is held (is_held) until it has.
    // Once; then true.
    bool retire();
    // The request that names this descriptor; offset, length and crc32c are the caller's.
    exchange::OperationRequest request(std::uint64_t object_offset_bytes,
                                       std::uint32_t length_bytes, std::uint32_t crc32c = 0) const;

   private:
    friend class ExchangeClient;
    Armed(ExchangeClient& client, std::uint32_t index, std::uint64_t epoch,
          const std::array<std::byte, 16>& ticket)
        : client_(&client), index_(index), epoch_(epoch), ticket_(ticket) {}
    ExchangeClient* client_;
    std::uint32_t index_;
    std::uint64_t epoch_;
    std::array<std::byte, 16> ticket_;
  };
  // Nothing when `buffer` is not wholly inside the data area, is empty or too long, or all
  // descriptors are in use: the caller then goes another way.
  std::optional<Armed> arm(exchange::OperationKind kind, std::span<const std::byte> buffer);

 private:
  ExchangeClient(std::span<std::byte> mapping, const exchange::RegionHeader& header,
                 std::chrono::milliseconds patience);

  // An operation whose copy had not ended when its owner went on.
  struct Held {
    std::uint32_t index;
    std::uint64_t epoch;
    std::span<std::byte> bytes;
  };
  void hold(std::uint32_t index, std::uint64_t epoch);
  bool has_ended(const Held& held);
  void release_ended_locked() SIPHON_REQUIRES(mutex_);

  exchange::RegionHeader* header() const {
    return reinterpret_cast<exchange::RegionHeader*>(mapping_.data());
  }
  std::span<exchange::Grant> grants() const;
  std::span<exchange::Descriptor> descriptors() const;

  const std::span<std::byte> mapping_;
  const std::span<std::byte> data_;
  const std::uint64_t region_bytes_;
  const std::uint64_t boot_nonce_;
  const std::uint32_t descriptor_count_;
  const bool bulk_methods_;
  const std::chrono::milliseconds patience_;
  std::atomic<std::uint64_t> probes_seen_{0};
  Mutex mutex_;
  // Both have room for every descriptor.
  std::vector<std::uint32_t> free_ SIPHON_GUARDED_BY(mutex_);
  std::vector<Held> held_ SIPHON_GUARDED_BY(mutex_);
  std::atomic<std::size_t> held_count_{0};
};

}  // namespace siphon
