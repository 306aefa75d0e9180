// The exchange: the shared-memory region between a ceph-osd (through libcls_siphon.so) and its
// companion siphond, and the inputs of the class methods that use it.
//
// The class creates the region as a sealed memfd and is its only other user. Layout:
//
//   0                 RegionHeader        constant after creation, but for `hello`
//   kGrantsOffset     Grant[kGrantCount]  written by the class, read by the companion
//   kDescriptorsOffset Descriptor[kDescriptorCount]  armed by the companion, used by the class
//   kDataOffset       data: [send half][receive half], carved by the companion at will
//
// The class never trusts a number it reads from the region: it keeps its own copies of the
// geometry and checks every descriptor's bounds against them before it touches a byte.
// A descriptor's state and epoch share one atomic word, so that a late method can never claim a
// descriptor that was armed again meanwhile. See docs/adr/2026-11-22-thin-class-and-companion.md.
//
// Header only, C++20, no dependency but the standard library: it is compiled into the OSD.
#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "plugin/core/le.h"
#include "plugin/core/names.h"

namespace siphon::exchange {

inline constexpr std::uint64_t kRegionMagic = 0x314e4f4850495353;  // "SSIPHON1"
// Also of the methods' inputs: a companion and a class of other versions do not work together.
inline constexpr std::uint32_t kAbiVersion = 4;

inline constexpr std::uint32_t kGrantCount = 1024;
// Shares of that table, so that nobody fills all of it. A client is one connection to the cluster:
// the OSD does not tell the class which key it has. A key's pools bound what it can do with many.
inline constexpr std::uint32_t kMaxGrantsPerClient = 256;
inline constexpr std::uint32_t kMaxGrantsPerPool = 512;
// Operations under way at once. A companion works with a region that has fewer.
inline constexpr std::uint32_t kDescriptorCount = 2048;
inline constexpr std::uint64_t kGrantsOffset = 4096;
inline constexpr std::uint64_t kDescriptorsOffset = 256 * 1024;
inline constexpr std::uint64_t kDataOffset = 512 * 1024;
inline constexpr std::uint64_t kDefaultDataBytes = 64ull << 20;  // bytes in flight, both halves
inline constexpr std::uint64_t kMinDataBytes = 16ull << 20;
inline constexpr std::uint64_t kMaxDataBytes = 1ull << 30;
inline constexpr std::uint32_t kMaxOperationBytes = 64u << 20;
// What one read_part or write_part may move. The method's copy holds the placement group: into
// fresh pages 8 MiB took 3-5 ms, 16 MiB 7-12 ms, 64 MiB 31-59 ms, and 10 ms is the limit.
inline constexpr std::uint32_t kMaxCopyBytes = 8u << 20;
inline constexpr std::uint32_t kMaxGrantSeconds = 3600;

// Descriptors the plugin hands to the companion, by number. Nothing else may be open in it at
// its first instruction.
inline constexpr int kRegionFd = 3;
inline constexpr int kSocketFd = 4;

// The methods' names: the table at the end of plugin/osd/cls_siphon.cc.
inline constexpr const char* kClassName = "siphon";

// ---- layout ----------------------------------------------------------------------------------

// Whether the class may believe what it reads of the object it is called on, and so give grants.
enum class LayoutState : std::uint8_t {
  kUnproven = 0,    // verified for this Ceph release, and not yet tried in this OSD: no grants yet
  kFits = 1,        // a probe found what it should
  kDoesNotFit = 2,  // a probe found something else: no grants
  kUnverified = 3,  // nobody has verified one for this Ceph release: no grants
};

// ---- hello -----------------------------------------------------------------------------------

// What `hello` returns: who is the acting primary and where its companion listens. 48 bytes.
struct Hello {
  static constexpr std::size_t kEncodedBytes = 48;
  static constexpr std::uint32_t kMagic = 0x48504953;  // "SIPH"

  std::uint16_t version = 1;
  std::uint16_t control_port = 0;
  std::int32_t osd_id = -1;
  std::uint32_t flags = 0;  // bit 0: control is TLS
  std::uint64_t boot_nonce = 0;
  std::uint8_t address_family = 4;              // 4 or 6
  LayoutState layout = LayoutState::kUnproven;  // the class's own word, whatever is written here
  std::array<std::byte, 16> address{};

  static constexpr std::uint32_t kFlagTls = 1;

  void encode(std::span<std::byte, kEncodedBytes> out) const {
    LeWriter w(out);
    w.put(kMagic);
    w.put(version);
    w.put(control_port);
    w.put(osd_id);
    w.put(flags);
    w.put(boot_nonce);
    w.put(address_family);
    w.put(static_cast<std::uint8_t>(layout));
    w.put_zeros(2);
    w.put_bytes(address);
    w.put_zeros(4);
  }
  static bool decode(std::span<const std::byte> in, Hello& out) {
    if (in.size() != kEncodedBytes) return false;
    LeReader r(in);
    if (r.get<std::uint32_t>() != kMagic) return false;
    out.version = r.get<std::uint16_t>();
    out.control_port = r.get<std::uint16_t>();
    out.osd_id = r.get<std::int32_t>();
    out.flags = r.get<std::uint32_t>();
    out.boot_nonce = r.get<std::uint64_t>();
    out.address_family = r.get<std::uint8_t>();
    const auto layout = r.get<std::uint8_t>();
    r.skip(2);
    r.get_bytes(out.address);
    r.skip(4);
    if (layout > static_cast<std::uint8_t>(LayoutState::kUnverified)) return false;
    out.layout = static_cast<LayoutState>(layout);
    return r.ok() && out.version == 1 && (out.address_family == 4 || out.address_family == 6);
  }
};

// ---- the region ------------------------------------------------------------------------------

struct RegionHeader {
  std::uint64_t magic;
  std::uint32_t abi_version;
  std::uint32_t descriptor_count;
  std::uint32_t grant_count;
  std::uint32_t bulk_methods;  // 1: read_part/write_part/... are registered; 0: another Ceph build
  std::uint64_t region_bytes;
  std::uint64_t data_offset;
  std::uint64_t data_bytes;
  std::uint64_t boot_nonce;  // fresh for every start of the OSD
  // Written by the companion under a sequence lock (odd: being written; 0: never written).
  std::atomic<std::uint64_t> hello_seq;
  std::byte hello[64];
  // Written by the class: what it did, for the companion's status page. Monotonic.
  std::atomic<std::uint64_t> reads_done;
  std::atomic<std::uint64_t> writes_done;
  std::atomic<std::uint64_t> stale_refused;
  std::atomic<std::uint64_t> grants_given;
  // Written by the class: its LayoutState (a copy; it goes by its own), and where it was asked for
  // a grant before that was known: a pool and a placement group, as the requester said, so a hint.
  std::atomic<std::uint32_t> layout;
  std::atomic<std::uint32_t> probe_group;
  std::atomic<std::int64_t> probe_pool;
  std::atomic<std::uint64_t> probes_wanted;  // grows with each hint
  // Written by the companion: what the probe that it is about to make will show. 1: it is valid.
  std::atomic<std::uint32_t> probe_armed;
  std::byte probe_ticket[16];
};
static_assert(sizeof(RegionHeader) <= kGrantsOffset);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

enum class Right : std::uint32_t { kRead = 1, kWrite = 2 };

// One grant: "whoever shows this nonce may `right` in (pool, namespace) until `expires_ms`".
// The class claims a free or expired entry (kFree -> kWriting), fills it, sets kReady. The
// companion only reads; it accepts an entry whose `state` was kReady with the same `seq` before
// and after its copy.
struct Grant {
  static constexpr std::uint32_t kFree = 0;
  static constexpr std::uint32_t kWriting = 1;
  static constexpr std::uint32_t kReady = 2;

  std::atomic<std::uint32_t> state;
  std::atomic<std::uint32_t> seq;  // bumped on every fill
  std::byte nonce[16];
  std::int64_t pool_id;
  std::uint64_t expires_ms;  // CLOCK_MONOTONIC, one host
  std::uint32_t right;
  std::uint32_t namespace_bytes;
  char nspace[kMaxNamespaceBytes + 1];
  std::byte key_id[16];  // what the grant is called where others can see it
  std::uint64_t client;  // who asked for it, as the OSD names connections; 0: not known
  std::byte pad[8];
};
static_assert(sizeof(Grant) == 208);
static_assert(kGrantsOffset + kGrantCount * sizeof(Grant) <= kDescriptorsOffset);

// One operation between companion and class. The word `state` is (epoch << 8) | DescriptorState;
// the epoch grows each time the companion arms the descriptor, and is part of the request.
enum class DescriptorState : std::uint8_t { kFree = 0, kArmed = 1, kCopying = 2, kDone = 3 };
enum class OperationKind : std::uint32_t { kRead = 1, kWrite = 2 };

struct Descriptor {
  std::atomic<std::uint64_t> word;
  std::byte ticket[16];         // from the kernel's generator, one per operation
  std::uint64_t buffer_offset;  // within the data area
  std::uint32_t buffer_bytes;   // at most kMaxOperationBytes
  std::uint32_t kind;           // OperationKind
  std::byte pad[88];
};
static_assert(sizeof(Descriptor) == 128);
static_assert(kDescriptorsOffset + kDescriptorCount * sizeof(Descriptor) <= kDataOffset);

constexpr std::uint64_t pack(std::uint64_t epoch, DescriptorState s) {
  return (epoch << 8) | static_cast<std::uint64_t>(s);
}
constexpr std::uint64_t epoch_of(std::uint64_t word) { return word >> 8; }
constexpr DescriptorState state_of(std::uint64_t word) {
  return static_cast<DescriptorState>(word & 0xff);
}

// ---- method inputs ---------------------------------------------------------------------------
// A request of another length or version is refused with -EINVAL before anything is looked at.

// Input of `grant_read` and `grant_write`. The object the method runs on is named
// "siphon.grant." + hex(key_id): object names stand in logs and in dumps of operations, where the
// nonce, a secret, must not be. The class refuses (-EPERM) when the object, pool or namespace that
// the OSD is really operating on differ from what is claimed here.
struct GrantRequest {
  static constexpr std::size_t kEncodedBytes = 184;
  std::uint32_t placement_group = 0;  // in which the object lies: where a probe reaches this OSD
  std::array<std::byte, 16> key_id{};
  std::array<std::byte, 16> nonce{};
  std::int64_t pool_id = -1;
  std::uint32_t ttl_seconds = 0;
  std::uint32_t namespace_bytes = 0;
  std::array<char, kMaxNamespaceBytes + 1> nspace{};

  void encode(std::span<std::byte, kEncodedBytes> out) const {
    LeWriter w(out);
    w.put(std::uint32_t{3});
    w.put(placement_group);
    w.put_bytes(key_id);
    w.put_bytes(nonce);
    w.put(pool_id);
    w.put(ttl_seconds);
    w.put(namespace_bytes);
    w.put_bytes(std::as_bytes(std::span(nspace)));
  }
  static bool decode(std::span<const std::byte> in, GrantRequest& out) {
    if (in.size() != kEncodedBytes) return false;
    LeReader r(in);
    if (r.get<std::uint32_t>() != 3) return false;
    out.placement_group = r.get<std::uint32_t>();
    r.get_bytes(out.key_id);
    r.get_bytes(out.nonce);
    out.pool_id = r.get<std::int64_t>();
    out.ttl_seconds = r.get<std::uint32_t>();
    out.namespace_bytes = r.get<std::uint32_t>();
    r.get_bytes(std::as_writable_bytes(std::span(out.nspace)));
    return r.ok() && out.namespace_bytes <= kMaxNamespaceBytes && out.ttl_seconds > 0 &&
           out.ttl_seconds <= kMaxGrantSeconds;
  }
};
inline constexpr std::size_t kGrantObjectNameBytes = 13 + 32;  // "siphon.grant." + hex(key_id)

// Input of `probe`: the companion says which object the method runs on, and the class compares
// that with what it reads of it. The object is named "siphon.probe." + hex(name_id), lies in the
// namespace kProbeNamespace and is never made. Who does not show the ticket that stands in the
// region is refused (-EPERM) before anything is compared.
inline constexpr const char* kProbeNamespace = "siphon.probe";
struct ProbeRequest {
  static constexpr std::size_t kEncodedBytes = 48;
  std::array<std::byte, 16> ticket{};
  std::array<std::byte, 16> name_id{};
  std::int64_t pool_id = -1;

  void encode(std::span<std::byte, kEncodedBytes> out) const {
    LeWriter w(out);
    w.put(std::uint32_t{1});
    w.put_zeros(4);
    w.put_bytes(ticket);
    w.put_bytes(name_id);
    w.put(pool_id);
  }
  static bool decode(std::span<const std::byte> in, ProbeRequest& out) {
    if (in.size() != kEncodedBytes) return false;
    LeReader r(in);
    if (r.get<std::uint32_t>() != 1) return false;
    r.skip(4);
    r.get_bytes(out.ticket);
    r.get_bytes(out.name_id);
    out.pool_id = r.get<std::int64_t>();
    return r.ok();
  }
};

// Input of `read_part` and `write_part`. read_part: reads up to `length_bytes` at
// `object_offset` into the descriptor's buffer and returns an OperationReply. write_part: takes
// `length_bytes` from the descriptor's buffer, whose crc32c (seed ~0, no final inversion, as
// Ceph's) must be `crc32c`, and writes them at `object_offset`.
struct OperationRequest {
  static constexpr std::size_t kEncodedBytes = 64;
  std::uint64_t boot_nonce = 0;
  std::uint32_t descriptor = 0;
  std::uint32_t flags = 0;
  std::uint64_t epoch = 0;
  std::array<std::byte, 16> ticket{};
  std::uint64_t object_offset = 0;
  std::uint32_t length_bytes = 0;
  std::uint32_t crc32c = 0;

  void encode(std::span<std::byte, kEncodedBytes> out) const {
    LeWriter w(out);
    w.put(std::uint32_t{1});
    w.put(descriptor);
    w.put(boot_nonce);
    w.put(epoch);
    w.put_bytes(ticket);
    w.put(object_offset);
    w.put(length_bytes);
    w.put(crc32c);
    w.put(flags);
    w.put_zeros(4);
  }
  static bool decode(std::span<const std::byte> in, OperationRequest& out) {
    if (in.size() != kEncodedBytes) return false;
    LeReader r(in);
    if (r.get<std::uint32_t>() != 1) return false;
    out.descriptor = r.get<std::uint32_t>();
    out.boot_nonce = r.get<std::uint64_t>();
    out.epoch = r.get<std::uint64_t>();
    r.get_bytes(out.ticket);
    out.object_offset = r.get<std::uint64_t>();
    out.length_bytes = r.get<std::uint32_t>();
    out.crc32c = r.get<std::uint32_t>();
    out.flags = r.get<std::uint32_t>();
    r.skip(4);
    return r.ok();
  }
};

// Output of `read_part`: bytes copied into the buffer (short only at the object's end).
struct OperationReply {
  static constexpr std::size_t kEncodedBytes = 8;
  std::uint32_t length_bytes = 0;

  void encode(std::span<std::byte, kEncodedBytes> out) const {
    LeWriter w(out);
    w.put(std::uint32_t{1});
    w.put(length_bytes);
  }
  static bool decode(std::span<const std::byte> in, OperationReply& out) {
    if (in.size() != kEncodedBytes) return false;
    LeReader r(in);
    if (r.get<std::uint32_t>() != 1) return false;
    out.length_bytes = r.get<std::uint32_t>();
    return r.ok();
  }
};

// Answers of the methods, as negative errno. Never -EAGAIN, never -EINPROGRESS (such replies
// are never sent by an OSD).
//   -EINVAL    the input does not decode, or a bound is exceeded
//   -ENXIO     no such descriptor here: other boot nonce, epoch, ticket (the primary has moved);
//              the caller goes through librados for this operation
//   -EBADMSG   the buffer's crc32c is not the request's
//   -EPERM     the grant's claimed object is not the one operated on; no ticket of a probe
//   -EUSERS    the grant table, a share of it, or a register's list is full
//   -EHOSTDOWN the companion is not running (hello)
//   -EIO       the store failed, or the OSD parked the operation until it has repaired this copy
//              (its -EAGAIN): at once, and a read through librados then waits for the repair
//   -EUCLEAN   the head's register does not decode
//   kNotSiphons  the object holds data, attributes or omap entries, and no register: it is
//              somebody else's and stays as it is
//   kLayoutUnproven, kLayoutDoesNotFit, kLayoutUnverified  no grant: see LayoutState. The first one
//              is over as soon as the companion has made its probe: ask again
inline constexpr int kNotSiphons = -EMEDIUMTYPE;
inline constexpr int kLayoutUnproven = -EUNATCH;
inline constexpr int kLayoutDoesNotFit = -ELIBBAD;
inline constexpr int kLayoutUnverified = -ELIBSCN;

}  // namespace siphon::exchange
