// What a transfer is asked for and what it answers: plain values, shared by the target's manager,
// the RPC layer and the CLI. Thread compatible.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "plugin/base/status.h"
#include "plugin/base/types.h"
#include "plugin/core/head_register.h"

namespace siphon {

using Nonce = std::array<std::byte, 16>;

inline constexpr std::size_t kMaxExtentsPerTransfer = 10000;
inline constexpr std::uint16_t kMaxLanes = 16;

// What entitles a caller: nonces that grant_read and grant_write left at the devices, or (folder
// daemons) knowledge of the shared secret, which the RPC layer proves.
struct Authority {
  std::optional<Nonce> read_nonce;
  std::optional<Nonce> write_nonce;
};

// What a target shows its source instead of the requester's read grant: a key made from it, good
// for one transfer out of one place.
struct SourceKey {
  std::array<std::byte, 16> key_id{};
  Sha256 key{};
};

enum class Phase : int {
  kQueued = 1,
  kReserve = 2,
  kListen = 3,
  kStream = 4,
  kCompare = 5,
  kPublish = 6,
  kSucceeded = 7,
  kFailed = 8,
  kCancelled = 9,
};
std::string_view to_string(Phase phase);  // "stream"
inline bool is_final(Phase p) { return p >= Phase::kSucceeded; }

enum class Bottleneck : int {
  kNone = 0,
  kSourceStore = 1,
  kLanes = 2,
  kTargetStore = 3,
  kSetting = 4,        // the request's limit
  kDeviceSetting = 5,  // the target device's own
  kSourceSetting = 6,  // the source device's own
};

struct ExtentPair {
  std::string source;
  std::string target;
  std::uint64_t planned_bytes = 0;  // what the requester saw; 0: unknown. A hint, no promise
};

// The first call.
struct TransferSpec {
  std::string id;              // 32 hex digits
  std::uint32_t attempt = 1;   // of the requester's, under this id
  std::string source_address;  // control address of the source device
  Location source;
  Location target;
  std::vector<ExtentPair> extents;
  bool replace = false;
  bool check_blocks = false;  // each block's SHA-256, in what is stored, before it is published
  std::uint16_t lanes = 0;    // 0: the target's default
  std::uint64_t bytes_per_second = 0;
  Authority authority;
  std::optional<SourceKey> source_key;  // the target's; the RPC layer makes it of the read grant
};
// INVALID_ARGUMENT names the field that is wrong.
Status check_spec(const TransferSpec& spec);
// The lowest bandwidth limit: below it a frame takes longer than the silence that a peer bears.
inline constexpr std::uint64_t kLeastBytesPerSecond = 4 * kKiB;
// 0 (none), or at least that; else INVALID_ARGUMENT.
Status check_rate(std::uint64_t bytes_per_second);
std::string new_transfer_id();
Status check_transfer_id(const std::string& id);

struct Progress {
  Phase phase = Phase::kQueued;
  std::uint64_t total_bytes = 0;
  std::uint64_t received_bytes = 0;
  std::uint64_t durable_bytes = 0;
  std::uint32_t extents_total = 0;
  std::uint32_t extents_done = 0;           // published, or there already
  std::uint32_t extents_already_there = 0;  // of those
  std::uint32_t extents_failed = 0;
  Bottleneck bottleneck = Bottleneck::kNone;
  std::string data_endpoint;
  std::uint64_t elapsed_ms = 0;
};

struct Receipt {
  std::string transfer_id;
  std::string source_extent, target_extent;
  Location source, target;
  std::string source_device, target_device;
  std::uint64_t bytes = 0;
  std::uint32_t source_crc32 = 0;
  std::uint32_t target_crc32 = 0;
  SealedHeader header;
  PrivateId private_id;
  std::string data_endpoint;
  std::uint32_t lanes = 0;
  std::uint64_t started_unix_ms = 0;
  std::uint64_t finished_unix_ms = 0;
  std::uint32_t attempts = 1;
  std::uint64_t fallback_parts = 0;
  bool already_there = false;
  bool blocks_checked = false;
  // Generations of the name that left its trash, to make room: of each the id, since when it was
  // there, and its bytes.
  std::vector<TrashEntry> left_for_good;
};

struct ExtentOutcome {
  std::uint32_t index = 0;
  std::string source_extent, target_extent;
  Result<Receipt> result = fail(Code::kUnknown, "no outcome");
  std::vector<TrashEntry> left_for_good = {};  // on failure; else the receipt's

  const std::vector<TrashEntry>& all_left_for_good() const {
    return result ? result->left_for_good : left_for_good;
  }
};

struct Summary {
  Phase phase = Phase::kFailed;
  std::uint32_t extents_done = 0;           // published, or there already
  std::uint32_t extents_already_there = 0;  // of those
  std::uint32_t extents_failed = 0;
  std::uint64_t bytes = 0;
  std::uint64_t lane_bytes = 0;
  std::uint64_t rpc_bytes = 0;
  std::uint64_t elapsed_ms = 0;
  std::uint64_t stream_ms = 0;
  std::uint64_t rejected_connections = 0;
  std::uint64_t fallback_parts = 0;
  Status status;  // of the attempt as a whole
  std::string source_device, target_device, data_endpoint;
};

struct TransferInfo {
  std::string id;
  Location source, target;
  std::string source_device, target_device;
  std::uint64_t started_unix_ms = 0;
  Progress progress;
  Status status;
};

// What a device says of itself.
struct DeviceDescription {
  std::string device, version, adapter, control_address, data_address, data_ports;
  std::uint64_t boot_nonce = 0, region_bytes = 0, bytes_in_flight = 0, started_unix_ms = 0;
  std::uint64_t bytes_received = 0, bytes_sent = 0, rejected_connections = 0, fallback_parts = 0;
  std::uint64_t extents_published = 0;
  std::uint32_t transfers_in = 0, transfers_out = 0, pid = 0;
  bool open_data_port = false;
  StoreIdentity store;
  std::uint64_t clock_unix_ms = 0;  // of its host, as it answers; 0: an older device does not tell
  std::string journal_file;         // empty: as above
  bool journal_in_memory = false;   // on a tmpfs
};

struct VerifyOutcome {
  std::uint32_t index = 0;
  std::string extent;
  SealedHeader header;
  PrivateId private_id;
  std::uint64_t bytes = 0;
  std::uint32_t crc32 = 0;
  std::uint32_t block_count = 0;
  Sha256 content_digest{};  // computed now, also where the header has none
  Status status;
};
// Whether both were verified and hold the same content.
inline bool same_content(const VerifyOutcome& a, const VerifyOutcome& b) {
  return a.status && b.status && a.content_digest != Sha256{} &&
         a.content_digest == b.content_digest;
}

}  // namespace siphon
