// Checksums of the data path.
//
// The extent checksum is CRC-32 as zlib's `crc32` defines it (IEEE 802.3, reflected; seed 0),
// computed by ISA-L's `crc32_gzip_refl`; frames in any order are joined with zlib's
// `crc32_combine`. CRC-32C in Ceph's convention (seed ~0, no final inversion) is what the class
// compares and BlueStore reuses. All functions are pure and thread safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "plugin/base/status.h"

namespace siphon {

std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t seed = 0);
// crc32(A ++ B) from crc32(A), crc32(B) and the length of B in bytes.
std::uint32_t crc32_join(std::uint32_t first, std::uint32_t second, std::uint64_t second_bytes);
std::uint32_t ceph_crc32c(std::span<const std::byte> bytes, std::uint32_t seed = 0xffffffffu);

// The crc32 of an extent from its pieces in any order. Pieces that touch are merged at once, so
// memory is bounded by the number of gaps, and that by kMostPieces. Not thread safe: the owner
// locks.
class Crc32Assembly {
 public:
  // Disjoint pieces at a time. Gaps are frames under way, of which a sender has far fewer.
  static constexpr std::size_t kMostPieces = 512;
  // OUT_OF_RANGE when the piece is empty, overlaps what is there, ends beyond `limit_bytes`, or
  // would be one piece too many.
  Status add(std::uint64_t offset_bytes, std::uint64_t length_bytes, std::uint32_t crc,
             std::uint64_t limit_bytes);
  std::uint64_t covered_bytes() const { return covered_bytes_; }
  std::size_t pieces() const { return pieces_.size(); }
  // The checksum, once exactly [0, total_bytes) is covered.
  std::optional<std::uint32_t> complete(std::uint64_t total_bytes) const;

 private:
  struct Piece {
    std::uint64_t length_bytes;
    std::uint32_t crc;
  };
  std::map<std::uint64_t, Piece> pieces_;  // by offset, disjoint, never touching
  std::uint64_t covered_bytes_ = 0;
};

}  // namespace siphon
