#include "plugin/base/crc32.h"

#include <isa-l/crc.h>
#include <zlib.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <string>

namespace siphon {

std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t seed) {
  return crc32_gzip_refl(seed, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
}

std::uint32_t crc32_join(std::uint32_t first, std::uint32_t second, std::uint64_t second_bytes) {
  static_assert(sizeof(z_off_t) == 8, "extents are larger than 2 GiB");
  return static_cast<std::uint32_t>(
      ::crc32_combine(first, second, static_cast<z_off_t>(second_bytes)));
}

std::uint32_t ceph_crc32c(std::span<const std::byte> bytes, std::uint32_t seed) {
  // ISA-L neither inverts seed nor result, which is Ceph's convention. Its length is an int and
  // its pointer not const, though it only reads.
  constexpr std::size_t kStep = 1u << 30;
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min(bytes.size(), kStep));
    auto* data = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(piece.data()));
    seed = crc32_iscsi(data, static_cast<int>(piece.size()), seed);
    bytes = bytes.subspan(piece.size());
  }
  return seed;
}

Status Crc32Assembly::add(std::uint64_t offset_bytes, std::uint64_t length_bytes, std::uint32_t crc,
                          std::uint64_t limit_bytes) {
  auto refuse = [&](const char* why) {
    return fail(Code::kOutOfRange, "piece of " + std::to_string(length_bytes) +
                                       " bytes at offset " + std::to_string(offset_bytes) + " " +
                                       why);
  };
  if (length_bytes == 0) return refuse("is empty");
  if (offset_bytes > limit_bytes || length_bytes > limit_bytes - offset_bytes) {
    return refuse("ends beyond the extent");
  }
  const std::uint64_t end = offset_bytes + length_bytes;
  auto next = pieces_.upper_bound(offset_bytes);
  auto previous = next == pieces_.begin() ? pieces_.end() : std::prev(next);
  if (previous != pieces_.end() && previous->first + previous->second.length_bytes > offset_bytes) {
    return refuse("overlaps an earlier piece");
  }
  if (next != pieces_.end() && next->first < end) return refuse("overlaps an earlier piece");

  const bool touches_next = next != pieces_.end() && next->first == end;
  const bool touches_previous =
      previous != pieces_.end() && previous->first + previous->second.length_bytes == offset_bytes;
  if (!touches_next && !touches_previous && pieces_.size() >= kMostPieces) {
    return refuse("leaves too many gaps");
  }
  covered_bytes_ += length_bytes;
  Piece merged{length_bytes, crc};
  if (touches_next) {
    merged.crc = crc32_join(merged.crc, next->second.crc, next->second.length_bytes);
    merged.length_bytes += next->second.length_bytes;
    next = pieces_.erase(next);
  }
  if (touches_previous) {
    Piece& first = previous->second;
    first.crc = crc32_join(first.crc, merged.crc, merged.length_bytes);
    first.length_bytes += merged.length_bytes;
  } else {
    pieces_.emplace_hint(next, offset_bytes, merged);
  }
  return {};
}

std::optional<std::uint32_t> Crc32Assembly::complete(std::uint64_t total_bytes) const {
  if (covered_bytes_ != total_bytes) return std::nullopt;
  if (total_bytes == 0) return 0;
  if (pieces_.size() != 1 || pieces_.begin()->first != 0) return std::nullopt;
  return pieces_.begin()->second.crc;
}

}  // namespace siphon
