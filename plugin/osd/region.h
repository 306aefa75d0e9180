// The class's side of the shared-memory region: creation, layout, hello, grants, operation
// descriptors.
//
// The companion maps the same pages and may write anything at any time, so nothing read from the
// region is used before it is checked against this object's own copies of the geometry, and every
// buffer address handed out lies inside the data area whatever the region says.
//
// Thread safe: every method may be called from any op thread at once. None blocks, but for the
// grant table's mutex, held for one scan of 1024 entries, and `retire_descriptors`, which only the
// supervisor calls. No Ceph header here: it is tested without an OSD.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "plugin/core/mutex.h"
#include "plugin/exchange/exchange.h"

namespace siphon::osd {

std::uint64_t monotonic_ms();

// The data area's size from SIPHON_REGION_MIB's text (null or unusable: the default), clamped to
// the exchange's limits, in bytes.
std::uint64_t data_bytes_from(const char* mebibytes_text);

// A descriptor that passed every check, for one method call.
struct Operation {
  exchange::Descriptor* descriptor = nullptr;
  std::uint64_t epoch = 0;
  std::byte* buffer = nullptr;  // `length_bytes` of it are inside the data area
  std::uint32_t length_bytes = 0;
};

class Region {
 public:
  // A sealed memfd of `data_bytes` of data, with a fresh boot nonce. Null on failure, `error` says
  // which call failed.
  static std::unique_ptr<Region> create(std::uint64_t data_bytes, std::string& error);

  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  int fd() const { return fd_; }
  std::uint64_t boot_nonce() const { return boot_nonce_; }
  std::uint64_t data_bytes() const { return data_bytes_; }
  void set_bulk_methods(bool registered);

  // Unproven until it is settled, which happens once: false when it was settled before.
  exchange::LayoutState layout() const { return layout_.load(std::memory_order_acquire); }
  bool settle_layout(exchange::LayoutState state);
  // Asks the companion for a probe of that placement group. Its caller may be anybody.
  void want_probe(std::int64_t pool_id, std::uint32_t placement_group);
  // Whether this is the ticket of the probe that the companion has announced.
  bool probe_expected(std::span<const std::byte, 16> ticket);

  // Copies the companion's hello, with the layout's state. 0, or -EHOSTDOWN when it has written
  // none.
  int read_hello(std::span<std::byte, exchange::Hello::kEncodedBytes> out);
  // The companion has gone: its hello must not be handed out any more, nor its ticket count.
  void forget_companion();

  // Remembers (nonce, pool, namespace, right) until now + ttl; a repeated grant gets the new
  // expiry. 0, or -EUSERS when every entry is in use, or all of the client's or the pool's share.
  int give_grant(const exchange::GrantRequest& request, exchange::Right right, std::uint64_t client,
                 std::uint64_t now_ms);

  // Checks nonce, index, ticket, epoch, kind and bounds, in that order, touching no data.
  // 0 and `out`; -ENXIO (counted) when the request is not for a descriptor armed here;
  // -EINVAL when a bound is exceeded.
  int find(const exchange::OperationRequest& request, exchange::OperationKind kind, Operation& out);
  // Takes the buffer for copying: ARMED to COPYING (or DONE to COPYING, when the OSD executes an
  // operation again). False (counted) when its owner cancelled or armed it anew.
  bool claim(const Operation& operation);
  // Gives the buffer back: COPYING to DONE.
  void finish(const Operation& operation);
  // Whether the finished operation is still wanted: same epoch, same ticket, not cancelled.
  bool still_wanted(const Operation& operation, const exchange::OperationRequest& request);

  void count_read() { header()->reads_done.fetch_add(1, std::memory_order_relaxed); }
  void count_write() { header()->writes_done.fetch_add(1, std::memory_order_relaxed); }

  // Frees every descriptor of a dead companion, so that its late operations find nothing. Waits
  // out copies in flight, at most `patience_ms` in all; false when one was still copying.
  bool retire_descriptors(std::uint64_t patience_ms);

  exchange::RegionHeader* header() { return reinterpret_cast<exchange::RegionHeader*>(base_); }
  std::span<exchange::Grant> grants();
  std::span<exchange::Descriptor> descriptors();

 private:
  Region(int fd, std::byte* base, std::uint64_t data_bytes, std::uint64_t boot_nonce);

  void count_stale() { header()->stale_refused.fetch_add(1, std::memory_order_relaxed); }

  const int fd_;
  std::byte* const base_;
  const std::uint64_t data_bytes_;
  const std::uint64_t boot_nonce_;
  std::atomic<exchange::LayoutState> layout_{exchange::LayoutState::kUnproven};
  Mutex grants_mutex_;  // writers of the grant table
};

}  // namespace siphon::osd
