// Names and small value types used everywhere. Values only; thread compatible.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "plugin/base/status.h"
#include "plugin/core/sealed_header.h"

namespace siphon {

using Deadline = std::chrono::steady_clock::time_point;
inline Deadline deadline_in(std::chrono::milliseconds d) {
  return std::chrono::steady_clock::now() + d;
}

inline constexpr std::uint64_t kKiB = 1024, kMiB = 1024 * kKiB, kGiB = 1024 * kMiB;
inline constexpr std::size_t kMaxExtentNameBytes = 200;

// Where a set of extents lives: a RADOS pool and namespace. A folder store has both empty. The id
// is what counts once it is known: a name can be given to another pool in the middle.
struct Location {
  std::string pool;
  std::string nspace;
  std::int64_t pool_id = 0;  // 0: a folder, or the name has not been resolved yet
  bool operator==(const Location&) const = default;
  auto operator<=>(const Location&) const = default;
  std::string to_string() const;  // "pool", "pool/ns"
};

// Which store it is, however it was named: two are one and the same when either part is equal and
// not empty. A folder has both: an id in a file of its own, which another host sees, too, and
// its place on this host, which no second file can change.
struct StoreIdentity {
  std::string id;    // "folder:9f3c...", "ceph:FSID/POOL ID/NAMESPACE"
  std::string node;  // "BOOT ID:DEVICE:INODE"
  bool empty() const { return id.empty() && node.empty(); }
  bool same_as(const StoreIdentity& other) const {
    return (!id.empty() && id == other.id) || (!node.empty() && node == other.node);
  }
};

// "POOL/EXTENT" or "POOL/NAMESPACE/EXTENT", as rados has it. A missing extent means the whole
// pool. INVALID_ARGUMENT names the part that is wrong.
struct ExtentPath {
  Location location;
  std::string extent;  // empty: all
};
Result<ExtentPath> parse_extent_path(std::string_view text);

// An extent's public name: 1..kMaxExtentNameBytes bytes of printable ASCII, without '/', not
// starting with '.'. INVALID_ARGUMENT says what is wrong.
Status check_extent_name(std::string_view name);

// Fills from the kernel's generator (getrandom, blocking only before the pool is seeded).
void fill_random(std::span<std::byte> out);
PrivateId new_private_id();

std::string to_hex(std::span<const std::byte> bytes);
bool from_hex(std::string_view text,
              std::span<std::byte> out);  // exact length, lower or upper case
inline std::string to_hex(const PrivateId& id) { return to_hex(id.bytes); }
std::string crc32_hex(std::uint32_t crc);  // "9f3c01ab"

std::uint64_t now_unix_ms();
std::string rfc3339(std::uint64_t unix_ms);    // "2026-11-22T18:00:00.123Z"
std::string human_bytes(std::uint64_t bytes);  // "1.31 GiB"

// Bytes that must not be printed or linger: no stream operator, wiped on destruction, compared
// in constant time. Move only.
class Secret {
 public:
  Secret() = default;
  explicit Secret(std::span<const std::byte> bytes);
  static Secret random(std::size_t bytes);
  Secret(Secret&& other) noexcept;
  Secret& operator=(Secret&& other) noexcept;
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret();

  Secret clone() const { return Secret(reveal()); }
  std::span<const std::byte> reveal() const { return {bytes_.data(), bytes_.size()}; }
  bool empty() const { return bytes_.empty(); }
  bool equals(std::span<const std::byte> other) const;  // constant time in the length of other

 private:
  void wipe();
  std::vector<std::byte> bytes_;
};

// HMAC-SHA-256 (RFC 2104) and SHA-256 through OpenSSL.
using Sha256 = std::array<std::byte, 32>;
Sha256 hmac_sha256(std::span<const std::byte> key, std::span<const std::byte> message);
Sha256 sha256(std::span<const std::byte> message);
// What a grant is called where others can see it: a hash, which tells nothing of its nonce.
std::array<std::byte, 16> grant_key_id(std::span<const std::byte, 16> nonce);
// SHA-256 of bytes as they come. Not thread safe.
class Sha256Stream {
 public:
  Sha256Stream();
  void update(std::span<const std::byte> bytes);
  Sha256 finish();  // once

 private:
  struct Free {
    void operator()(void* context) const;
  };
  std::unique_ptr<void, Free> context_;
};
bool equal_constant_time(std::span<const std::byte> a, std::span<const std::byte> b);

}  // namespace siphon
