// The head register: the one lifecycle record of an extent, and the transitions on it.
//
// It is stored as the xattr `siphon.head` of the head object (RADOS) or as the trailer of the
// head file (posix), byte by byte as docs/extent_format.md says. The same pure function `apply`
// decides in the class methods (one for each transition, by its name) and in every adapter
// that has no class beside it (which then writes the result guarded by a compare of the old
// bytes). Nothing else may change a register.
//
//   (absent) --reserve--> {reserved A} --publish A--> {current A, sealed}
//   {current A} --reserve B, publish B--> {current B, trash: A}
//   {reserved B} --condemn B--> {trash: B}     {current A} --condemn A--> {trash: A}
//   {trash: A, once published} --restore A--> {current A}
//   {trash: A} --discard A--> {trash: A, no way back} --forget A (its parts are gone)--> {}
//   an empty register is removed
//   publish as open, append, --seal--> {current A, sealed}
//
// `generation` counts the changes of what the public name shows (publish, condemn of the current,
// seal, restore). Reserve, condemn of a reserved id, discard and forget leave it alone, so two
// attempts do not disturb each other until one publishes.
//
// No allocation beyond the two short lists, no exception leaves (std::bad_alloc apart; the class
// entry points catch it). Thread compatible.
#pragma once

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "plugin/core/le.h"
#include "plugin/core/sealed_header.h"

namespace siphon {

inline constexpr const char* kHeadXattr = "siphon.head";

struct Reservation {
  PrivateId id;
  std::uint64_t extent_bytes = 0;  // upper bound known at the time; 0: unknown
  std::uint32_t part_bytes = 0;
  std::uint64_t lease_unix_ms = 0;  // when a collector may try

  bool operator==(const Reservation&) const = default;
};

struct TrashEntry {
  PrivateId id;
  // Whole when `state` is kSealed, so that a restore reads nothing. Otherwise part_bytes, and
  // extent_bytes where it is known (0: look until parts end).
  SealedHeader header;
  // What the name showed. kNone: nothing (an attempt), or a register of version 1 does not say.
  ExtentState state = ExtentState::kNone;
  bool is_inline = false;      // its bytes are the head object's own data
  bool was_published = false;  // false: a condemned attempt, or discarded: never restored
  std::uint64_t trashed_unix_ms = 0;

  bool operator==(const TrashEntry&) const = default;
};

struct HeadRegister {
  static constexpr std::size_t kMaxReservations = 16;
  // Published generations stop at kMaxKept, so that a condemned attempt always finds room.
  static constexpr std::size_t kMaxKept = 16;
  static constexpr std::size_t kMaxTrash = kMaxKept + kMaxReservations;
  static constexpr std::size_t kFixedBytes = 128;
  static constexpr std::size_t kReservationBytes = 48;
  static constexpr std::size_t kTrashBytes = 96;
  static constexpr std::size_t kMaxEncodedBytes =
      kFixedBytes + kMaxReservations * kReservationBytes + kMaxTrash * kTrashBytes + 4;
  static constexpr std::uint32_t kMagic = 0x44485053;  // "SPHD"
  static constexpr std::uint16_t kVersion = 2;
  // Version 1, which is read and never written: no digest, trash entries without their header.
  static constexpr std::size_t kFixedBytesV1 = 96;
  static constexpr std::size_t kTrashBytesV1 = 48;

  std::uint64_t generation = 0;
  ExtentState state = ExtentState::kNone;
  bool is_inline = false;  // the current bytes are the head object's own data
  PrivateId current;
  SealedHeader header;  // valid when kSealed; part_bytes valid when kOpen
  std::vector<Reservation> reservations;
  std::vector<TrashEntry> trash;

  bool operator==(const HeadRegister&) const = default;
  bool blank() const {
    return state == ExtentState::kNone && reservations.empty() && trash.empty();
  }
};

// Bitwise CRC-32C (Castagnoli) for records of a few hundred bytes inside the OSD, where no
// checksum library is linked. Seed and result are inverted as RFC 3720 has it.
constexpr std::uint32_t record_crc32c(std::span<const std::byte> bytes) {
  std::uint32_t crc = 0xffffffffu;
  for (std::byte b : bytes) {
    crc ^= static_cast<std::uint32_t>(b);
    for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1u)));
  }
  return ~crc;
}

// Encodes `reg`; returns the bytes used (0: a list is over its limit).
inline std::size_t encode_head(const HeadRegister& reg,
                               std::span<std::byte, HeadRegister::kMaxEncodedBytes> out) {
  if (reg.reservations.size() > HeadRegister::kMaxReservations ||
      reg.trash.size() > HeadRegister::kMaxTrash) {
    return 0;
  }
  LeWriter w(out);
  w.put(HeadRegister::kMagic);
  w.put(HeadRegister::kVersion);
  w.put(static_cast<std::uint8_t>(reg.state));
  w.put(static_cast<std::uint8_t>(reg.is_inline ? 1 : 0));
  w.put(reg.generation);
  w.put_bytes(reg.current.bytes);
  w.put(reg.header.extent_bytes);
  w.put(reg.header.content_bytes);
  w.put(reg.header.crc32);
  w.put(reg.header.block_count);
  w.put(reg.header.part_bytes);
  w.put(reg.header.format_version);
  w.put(static_cast<std::uint8_t>(reg.reservations.size()));
  w.put(static_cast<std::uint8_t>(reg.trash.size()));
  w.put(reg.header.sealed_unix_ms);
  w.put_bytes(reg.header.content_digest);
  w.put_zeros(HeadRegister::kFixedBytes - w.used());
  for (const Reservation& e : reg.reservations) {
    w.put_bytes(e.id.bytes);
    w.put(e.extent_bytes);
    w.put(e.part_bytes);
    w.put_zeros(4);
    w.put(e.lease_unix_ms);
    w.put_zeros(8);
  }
  for (const TrashEntry& e : reg.trash) {
    w.put_bytes(e.id.bytes);
    w.put(e.header.extent_bytes);
    w.put(e.header.content_bytes);
    w.put(e.header.crc32);
    w.put(e.header.block_count);
    w.put(e.header.part_bytes);
    w.put(e.header.format_version);
    w.put(static_cast<std::uint8_t>((e.is_inline ? 1 : 0) | (e.was_published ? 2 : 0)));
    w.put(static_cast<std::uint8_t>(e.state));
    w.put(e.header.sealed_unix_ms);
    w.put(e.trashed_unix_ms);
    w.put_bytes(e.header.content_digest);
  }
  w.put(record_crc32c(out.first(w.used())));
  return w.ok() ? w.used() : 0;
}

// What was published has parts of some size, unless it is inline: restored without one, it would
// make a register that does not decode.
inline bool parts_have_size(const TrashEntry& e) {
  return !e.was_published || e.is_inline || e.header.part_bytes != 0;
}

// A trash entry of a register of version 1 or 2; false when it contradicts itself.
inline bool decode_trash_entry(LeReader& r, std::uint16_t version, TrashEntry& e) {
  r.get_bytes(e.id.bytes);
  e.header.extent_bytes = r.get<std::uint64_t>();
  if (version == 1) {
    e.header.part_bytes = r.get<std::uint32_t>();
    e.is_inline = r.get<std::uint8_t>() != 0;
    e.was_published = r.get<std::uint8_t>() != 0;
    r.skip(2);
    e.trashed_unix_ms = r.get<std::uint64_t>();
    r.skip(8);
    return !e.id.empty() && parts_have_size(e);
  }
  e.header.content_bytes = r.get<std::uint64_t>();
  e.header.crc32 = r.get<std::uint32_t>();
  e.header.block_count = r.get<std::uint32_t>();
  e.header.part_bytes = r.get<std::uint32_t>();
  e.header.format_version = r.get<std::uint16_t>();
  const auto flags = r.get<std::uint8_t>();
  const auto state = r.get<std::uint8_t>();
  e.header.sealed_unix_ms = r.get<std::uint64_t>();
  e.trashed_unix_ms = r.get<std::uint64_t>();
  r.get_bytes(e.header.content_digest);
  if (flags > 3 || state > 2) return false;
  e.is_inline = (flags & 1) != 0;
  e.was_published = (flags & 2) != 0;
  e.state = static_cast<ExtentState>(state);
  return !e.id.empty() && (e.state == ExtentState::kNone || e.was_published) && parts_have_size(e);
}

// No transition leaves that: what is removed under the one entry would be the other's.
inline bool names_an_id_twice(const HeadRegister& reg) {
  std::vector<PrivateId> ids;
  if (reg.state != ExtentState::kNone) ids.push_back(reg.current);
  for (const Reservation& e : reg.reservations) ids.push_back(e.id);
  for (const TrashEntry& e : reg.trash) ids.push_back(e.id);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (ids[i] == ids[j]) return true;
    }
  }
  return false;
}

// Decodes any input; false (and `out` unspecified) unless it is a whole, consistent register.
inline bool decode_head(std::span<const std::byte> in, HeadRegister& out) {
  if (in.size() < HeadRegister::kFixedBytesV1 + 4 || in.size() > HeadRegister::kMaxEncodedBytes) {
    return false;
  }
  LeReader crc(in.last(4));
  if (crc.get<std::uint32_t>() != record_crc32c(in.first(in.size() - 4))) return false;
  LeReader r(in);
  if (r.get<std::uint32_t>() != HeadRegister::kMagic) return false;
  const auto version = r.get<std::uint16_t>();
  if (version != 1 && version != HeadRegister::kVersion) return false;
  const auto state = r.get<std::uint8_t>();
  const auto inline_flag = r.get<std::uint8_t>();
  if (state > 2 || inline_flag > 1) return false;
  out.state = static_cast<ExtentState>(state);
  out.is_inline = inline_flag == 1;
  out.generation = r.get<std::uint64_t>();
  r.get_bytes(out.current.bytes);
  out.header = {};
  out.header.extent_bytes = r.get<std::uint64_t>();
  out.header.content_bytes = r.get<std::uint64_t>();
  out.header.crc32 = r.get<std::uint32_t>();
  out.header.block_count = r.get<std::uint32_t>();
  out.header.part_bytes = r.get<std::uint32_t>();
  out.header.format_version = r.get<std::uint16_t>();
  const std::size_t reservation_count = r.get<std::uint8_t>();
  const std::size_t trash_count = r.get<std::uint8_t>();
  out.header.sealed_unix_ms = r.get<std::uint64_t>();
  if (version != 1) r.get_bytes(out.header.content_digest);
  const std::size_t fixed_bytes =
      version == 1 ? HeadRegister::kFixedBytesV1 : HeadRegister::kFixedBytes;
  const std::size_t trash_bytes =
      version == 1 ? HeadRegister::kTrashBytesV1 : HeadRegister::kTrashBytes;
  if (reservation_count > HeadRegister::kMaxReservations || trash_count > HeadRegister::kMaxTrash ||
      in.size() != fixed_bytes + reservation_count * HeadRegister::kReservationBytes +
                       trash_count * trash_bytes + 4) {
    return false;
  }
  r.skip(fixed_bytes - r.used());
  if ((out.state == ExtentState::kNone) != out.current.empty()) return false;
  if (out.state != ExtentState::kNone && !out.is_inline && out.header.part_bytes == 0) return false;
  out.reservations.assign(reservation_count, {});
  for (Reservation& e : out.reservations) {
    r.get_bytes(e.id.bytes);
    e.extent_bytes = r.get<std::uint64_t>();
    e.part_bytes = r.get<std::uint32_t>();
    r.skip(4);
    e.lease_unix_ms = r.get<std::uint64_t>();
    r.skip(8);
    if (e.id.empty() || e.part_bytes == 0) return false;
  }
  out.trash.assign(trash_count, {});
  for (TrashEntry& e : out.trash) {
    if (!decode_trash_entry(r, version, e)) return false;
  }
  return r.ok() && !names_an_id_twice(out);
}

// ---- transitions -----------------------------------------------------------------------------

enum class Transition : std::uint8_t {
  kReserve = 1,  // before the first part of `id` exists
  kPublish = 2,  // point the name at `id`, sealed (or open); the replaced one goes to the trash
  kCondemn = 3,  // `id` (reserved or current) goes to the trash; an attempt never comes back
  kForget = 4,   // the parts of the trashed `id` are gone
  kSeal = 5,     // the open current `id` gets its header
  kRestore = 6,  // the trashed `id`, published once, is the current one again
  // The trashed `id` can no more be restored. Comes before the first of its parts is removed, so
  // that a restore can never bring back half an extent.
  kDiscard = 7,
};

// Input of the lifecycle methods.
struct TransitionRequest {
  static constexpr std::size_t kEncodedBytes = 128;
  static constexpr std::uint32_t kVersion = 2;

  Transition kind = Transition::kReserve;
  bool replace = false;    // publish: a current one may be replaced
  bool open = false;       // publish: as an open extent; restore: see `header`
  bool is_inline = false;  // publish: the bytes are the head object's data (new heads only)
  PrivateId id;
  // Publish, seal, restore, condemn of the current: the generation the caller saw. kAnyGeneration
  // skips the guard (condemn of an id is already exact).
  std::uint64_t expected_generation = 0;
  // Publish, seal; reserve: extent_bytes and part_bytes. Restore: only looked at when the trash
  // entry has none (it comes from a register of version 1); the caller has then found it in the
  // bytes themselves, or says `open`.
  SealedHeader header;
  std::uint64_t now_unix_ms = 0;    // stamps trash entries
  std::uint64_t lease_unix_ms = 0;  // reserve

  static constexpr std::uint64_t kAnyGeneration = ~0ull;

  void encode(std::span<std::byte, kEncodedBytes> out) const {
    LeWriter w(out);
    w.put(kVersion);
    w.put(static_cast<std::uint8_t>(kind));
    w.put(static_cast<std::uint8_t>((replace ? 1 : 0) | (open ? 2 : 0) | (is_inline ? 4 : 0)));
    w.put(header.format_version);
    w.put_bytes(id.bytes);
    w.put(expected_generation);
    w.put(header.extent_bytes);
    w.put(header.content_bytes);
    w.put(header.crc32);
    w.put(header.block_count);
    w.put(header.part_bytes);
    w.put(std::uint32_t{0});
    w.put(header.sealed_unix_ms);
    w.put(now_unix_ms);
    w.put(lease_unix_ms);
    w.put_bytes(header.content_digest);
    w.put_zeros(kEncodedBytes - w.used());
  }
  static bool decode(std::span<const std::byte> in, TransitionRequest& out) {
    if (in.size() != kEncodedBytes) return false;
    LeReader r(in);
    if (r.get<std::uint32_t>() != kVersion) return false;
    const auto kind = r.get<std::uint8_t>();
    const auto flags = r.get<std::uint8_t>();
    if (kind < 1 || kind > 7 || flags > 7) return false;
    out.kind = static_cast<Transition>(kind);
    out.replace = (flags & 1) != 0;
    out.open = (flags & 2) != 0;
    out.is_inline = (flags & 4) != 0;
    out.header.format_version = r.get<std::uint16_t>();
    r.get_bytes(out.id.bytes);
    out.expected_generation = r.get<std::uint64_t>();
    out.header.extent_bytes = r.get<std::uint64_t>();
    out.header.content_bytes = r.get<std::uint64_t>();
    out.header.crc32 = r.get<std::uint32_t>();
    out.header.block_count = r.get<std::uint32_t>();
    out.header.part_bytes = r.get<std::uint32_t>();
    r.skip(4);
    out.header.sealed_unix_ms = r.get<std::uint64_t>();
    out.now_unix_ms = r.get<std::uint64_t>();
    out.lease_unix_ms = r.get<std::uint64_t>();
    r.get_bytes(out.header.content_digest);
    return r.ok() && !out.id.empty();
  }
};

// Applies `req` to `reg` in place. `existed`: whether the head object was there.
// Returns 0, or a negative errno and an unchanged register:
//   -EEXIST    publish without `replace`, or restore, over a current one; inline over an existing
//              head; condemn of an attempt that was published, and is in the trash as that
//   -ESTALE    the generation is not the expected one (somebody published, removed or sealed)
//   -ENOENT    the id is not where the transition needs it (publish, condemn, seal, restore: in
//              the trash, published once, and not discarded)
//   -ECANCELED the id was condemned
//   -EUSERS    a list is full: collect leftovers first
//   -EINVAL    the request contradicts itself
// Idempotent: repeating a transition that has taken effect returns 0 and changes nothing.
inline int apply(HeadRegister& reg, bool existed, const TransitionRequest& req) {
  auto find_reservation = [&] {
    auto it = reg.reservations.begin();
    while (it != reg.reservations.end() && it->id != req.id) ++it;
    return it;
  };
  auto find_trash = [&] {
    auto it = reg.trash.begin();
    while (it != reg.trash.end() && it->id != req.id) ++it;
    return it;
  };
  const bool guarded = req.expected_generation != TransitionRequest::kAnyGeneration;
  const bool is_current = reg.state != ExtentState::kNone && reg.current == req.id;
  const bool in_trash = find_trash() != reg.trash.end();
  auto trash_current = [&] {
    reg.trash.push_back({reg.current, reg.header, reg.state, reg.is_inline, true, req.now_unix_ms});
  };

  switch (req.kind) {
    case Transition::kReserve: {
      if (in_trash) return -ECANCELED;
      if (is_current) return 0;
      if (auto mine = find_reservation(); mine != reg.reservations.end()) {
        // Asked for again: a renewal, which never shortens the lease.
        if (req.lease_unix_ms > mine->lease_unix_ms) mine->lease_unix_ms = req.lease_unix_ms;
        return 0;
      }
      if (req.header.part_bytes == 0) return -EINVAL;
      if (reg.reservations.size() >= HeadRegister::kMaxReservations ||
          reg.reservations.size() + reg.trash.size() >= HeadRegister::kMaxTrash) {
        return -EUSERS;
      }
      reg.reservations.push_back(
          {req.id, req.header.extent_bytes, req.header.part_bytes, req.lease_unix_ms});
      return 0;
    }
    case Transition::kPublish: {
      if (is_current) return 0;
      if (in_trash) return -ECANCELED;
      auto reservation = find_reservation();
      if (req.is_inline ? existed : reservation == reg.reservations.end()) {
        return req.is_inline ? -EEXIST : -ENOENT;
      }
      if (!req.is_inline && req.header.part_bytes == 0) return -EINVAL;
      if (guarded && reg.generation != req.expected_generation) return -ESTALE;
      if (reg.state != ExtentState::kNone) {
        if (!req.replace) return -EEXIST;
        if (reg.trash.size() >= HeadRegister::kMaxKept) return -EUSERS;
        trash_current();
      }
      if (reservation != reg.reservations.end()) reg.reservations.erase(reservation);
      reg.current = req.id;
      reg.header = req.header;
      reg.is_inline = req.is_inline;
      reg.state = req.open ? ExtentState::kOpen : ExtentState::kSealed;
      ++reg.generation;
      return 0;
    }
    case Transition::kCondemn: {
      if (const auto entry = find_trash(); entry != reg.trash.end()) {
        // An attempt when the caller looked, it was published and replaced or removed since: two
        // changes at least. One alone is this very condemn of the current, sent again.
        const bool moved_on = guarded && reg.generation - req.expected_generation > 1;
        return entry->was_published && moved_on ? -EEXIST : 0;
      }
      if (reg.trash.size() >= (is_current ? HeadRegister::kMaxKept : HeadRegister::kMaxTrash)) {
        return -EUSERS;
      }
      if (is_current) {
        if (guarded && reg.generation != req.expected_generation) return -ESTALE;
        trash_current();
        reg.state = ExtentState::kNone;
        reg.current = {};
        reg.header = {};
        reg.is_inline = false;
        ++reg.generation;
        return 0;
      }
      auto reservation = find_reservation();
      if (reservation == reg.reservations.end()) return -ENOENT;
      TrashEntry entry;
      entry.id = reservation->id;
      entry.header.extent_bytes = reservation->extent_bytes;
      entry.header.part_bytes = reservation->part_bytes;
      entry.trashed_unix_ms = req.now_unix_ms;
      reg.trash.push_back(entry);
      reg.reservations.erase(reservation);
      return 0;
    }
    case Transition::kForget: {
      if (is_current || find_reservation() != reg.reservations.end()) return -EINVAL;
      auto entry = find_trash();
      if (entry != reg.trash.end()) reg.trash.erase(entry);
      return 0;
    }
    case Transition::kSeal: {
      if (!is_current) return in_trash ? -ECANCELED : -ENOENT;
      if (reg.state == ExtentState::kSealed) return reg.header == req.header ? 0 : -EEXIST;
      if (guarded && reg.generation != req.expected_generation) return -ESTALE;
      if (req.header.part_bytes != reg.header.part_bytes) return -EINVAL;
      reg.header = req.header;
      reg.state = ExtentState::kSealed;
      ++reg.generation;
      return 0;
    }
    case Transition::kRestore: {
      if (is_current) return 0;
      const auto entry = find_trash();
      if (entry == reg.trash.end() || !entry->was_published) return -ENOENT;
      if (reg.state != ExtentState::kNone) return -EEXIST;
      if (guarded && reg.generation != req.expected_generation) return -ESTALE;
      TrashEntry restored = *entry;
      if (restored.state == ExtentState::kNone) {
        if (req.header.part_bytes != restored.header.part_bytes ||
            (!req.open && req.header.extent_bytes != restored.header.extent_bytes)) {
          return -EINVAL;
        }
        restored.state = req.open ? ExtentState::kOpen : ExtentState::kSealed;
        if (!req.open) restored.header = req.header;
      }
      reg.trash.erase(entry);
      reg.current = restored.id;
      reg.header = restored.header;
      reg.is_inline = restored.is_inline;
      reg.state = restored.state;
      ++reg.generation;
      return 0;
    }
    case Transition::kDiscard: {
      if (is_current || find_reservation() != reg.reservations.end()) return -EINVAL;
      const auto entry = find_trash();
      if (entry == reg.trash.end()) return 0;
      if (guarded && reg.generation != req.expected_generation) return -ESTALE;
      TrashEntry kept;  // what the removal of its parts needs
      kept.id = entry->id;
      kept.header.extent_bytes = entry->header.extent_bytes;
      kept.header.part_bytes = entry->header.part_bytes;
      kept.is_inline = entry->is_inline;
      kept.trashed_unix_ms = entry->trashed_unix_ms;
      *entry = kept;
      return 0;
    }
  }
  return -EINVAL;
}

}  // namespace siphon
