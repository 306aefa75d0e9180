// Which bytes a name stands for, and what is known of them once they are sealed.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>

namespace siphon {

// A random 128-bit name of one generation of an extent's bytes. All zero means "none".
struct PrivateId {
  std::array<std::byte, 16> bytes{};

  bool operator==(const PrivateId&) const = default;
  auto operator<=>(const PrivateId&) const = default;
  bool empty() const { return *this == PrivateId{}; }
};

// What is known of a sealed extent. All sizes in bytes.
struct SealedHeader {
  std::uint64_t extent_bytes = 0;   // the whole stream: blocks, index, footer
  std::uint64_t content_bytes = 0;  // the blocks' content alone
  std::uint32_t crc32 = 0;          // zlib's crc32 of the whole stream
  std::uint32_t block_count = 0;
  std::uint32_t part_bytes = 0;  // size of every part but the last
  std::uint16_t format_version = 1;
  std::uint64_t sealed_unix_ms = 0;
  // SHA-256 over the block index: what the content is. All zero: not known (format version 1).
  std::array<std::byte, 32> content_digest{};

  bool operator==(const SealedHeader&) const = default;
  bool has_digest() const { return content_digest != decltype(content_digest){}; }
};

// Whether two sealed extents are known to hold the same content: by their digests and nothing
// less. False also where one of the digests is not known.
inline bool same_content(const SealedHeader& a, const SealedHeader& b) {
  return a.has_digest() && a.content_digest == b.content_digest;
}

enum class ExtentState : std::uint8_t { kNone = 0, kOpen = 1, kSealed = 2 };

}  // namespace siphon
