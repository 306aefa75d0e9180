// The extent's byte stream: [block][block]...[index][footer]. docs/extent_format.md is the
// specification; this is its only encoder and decoder.
//
//   block   48-byte header (magic, version, length, SHA-256 of the content, crc32c) + content
//   index   48 bytes per block (offset of the block header, length, SHA-256)
//   footer  64 bytes (magic, version, block count, index offset, content bytes, crc32c's)
//
// An unsealed extent ends after a block. Decoders take any bytes, never allocate more than the
// input justifies, and never throw (std::bad_alloc apart). Thread compatible.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "plugin/base/status.h"
#include "plugin/base/types.h"

namespace siphon {

inline constexpr std::uint32_t kMaxBlockBytes = 4u << 20;
inline constexpr std::size_t kBlockHeaderBytes = 48;
inline constexpr std::size_t kIndexEntryBytes = 48;
inline constexpr std::size_t kFooterBytes = 64;
inline constexpr std::uint16_t kExtentFormatVersion = 1;  // of block headers and the footer
// Of the sealed header: 1 has no content digest, 2 has. The byte stream is the same.
inline constexpr std::uint16_t kSealedHeaderVersion = 2;
inline constexpr std::uint32_t kBlockMagic = 0x4b4c4253;   // "SBLK"
inline constexpr std::uint32_t kFooterMagic = 0x544f4653;  // "SFOT"
// Bounds the index (8 GiB of 4 KiB blocks); larger counts are refused.
inline constexpr std::uint32_t kMaxBlockCount = 2u << 20;

struct BlockHeader {
  std::uint32_t length_bytes = 0;
  Sha256 sha256{};
};
struct IndexEntry {
  std::uint64_t offset_bytes = 0;  // of the block header, from the start of the extent
  std::uint32_t length_bytes = 0;  // of the content
  Sha256 sha256{};
};
struct Footer {
  std::uint32_t block_count = 0;
  std::uint64_t index_offset_bytes = 0;
  std::uint64_t content_bytes = 0;
  std::uint32_t index_crc32c = 0;
};

void encode_block_header(const BlockHeader& header, std::span<std::byte, kBlockHeaderBytes> out);
Result<BlockHeader> decode_block_header(std::span<const std::byte> in);
void encode_index_entry(const IndexEntry& entry, std::span<std::byte, kIndexEntryBytes> out);
Result<IndexEntry> decode_index_entry(std::span<const std::byte> in);
void encode_footer(const Footer& footer, std::span<std::byte, kFooterBytes> out);
Result<Footer> decode_footer(std::span<const std::byte> in);

// Where finished bytes of the stream go, in order.
using ByteSink = std::function<Status(std::span<const std::byte>)>;

// The size of a sealed extent with these blocks. Cannot overflow for block_count up to
// kMaxBlockCount and content_bytes up to block_count * kMaxBlockBytes.
constexpr std::uint64_t sealed_extent_bytes(std::uint64_t content_bytes,
                                            std::uint32_t block_count) {
  return content_bytes + std::uint64_t{block_count} * (kBlockHeaderBytes + kIndexEntryBytes) +
         kFooterBytes;
}
// DATA_LOSS when the numbers of a sealed header contradict each other or this format's bounds.
// Version 1 comes without a content digest, version 2 with one.
Status check_sealed_header(const SealedHeader& header);

// What an extent's content is: SHA-256 over its encoded index, which names every block's place,
// length and SHA-256. Fed with the index's bytes as stored, in order. Not thread safe.
class IndexDigest {
 public:
  void add(std::span<const std::byte> index_bytes) { sha_.update(index_bytes); }
  void add(const IndexEntry& entry);
  Sha256 finish() { return sha_.finish(); }  // once, at the end

 private:
  Sha256Stream sha_;
};

// Turns blocks into the byte stream. Not thread safe. After a failure of the sink, and after
// seal(), every further call is FAILED_PRECONDITION: what the sink got so far is unknown.
class ExtentEncoder {
 public:
  explicit ExtentEncoder(ByteSink sink);
  // Continues an open extent that already holds these blocks (for sealing after a scan).
  ExtentEncoder(ByteSink sink, std::vector<IndexEntry> blocks, std::uint64_t extent_bytes,
                std::uint32_t crc);
  // 1..kMaxBlockBytes bytes of content become one block; else INVALID_ARGUMENT.
  // RESOURCE_EXHAUSTED after kMaxBlockCount blocks.
  Status append(std::span<const std::byte> content);
  // Writes index and footer and returns the header (part_bytes and sealed_unix_ms left to the
  // caller).
  Result<SealedHeader> seal();
  std::uint64_t extent_bytes() const { return extent_bytes_; }
  const std::vector<IndexEntry>& blocks() const { return blocks_; }

 private:
  Status emit(std::span<const std::byte> bytes);
  ByteSink sink_;
  std::vector<IndexEntry> blocks_;
  std::uint64_t extent_bytes_ = 0;
  std::uint64_t content_bytes_ = 0;
  std::uint32_t crc_ = 0;
  bool finished_ = false;
};

// Reads [offset, offset+out.size()) of an extent, wholly.
using ByteSource = std::function<Status(std::uint64_t offset_bytes, std::span<std::byte> out)>;

// Footer and index of a sealed extent of `extent_bytes` bytes, without a look at the blocks: the
// entries lie end to end from offset 0 to the index. DATA_LOSS names what is wrong.
Result<std::vector<IndexEntry>> read_index(const ByteSource& source, std::uint64_t extent_bytes);

// Walks an unsealed (or damaged) extent from the front and returns the blocks that are whole:
// header valid, content present with the right SHA-256. `valid_bytes` is where the torn tail (or
// the index) begins. Fails only when the source does.
struct ScanResult {
  std::vector<IndexEntry> blocks;
  std::uint64_t valid_bytes = 0;
  std::uint32_t crc32 = 0;  // of [0, valid_bytes)
};
Result<ScanResult> scan_blocks(const ByteSource& source, std::uint64_t available_bytes);

// Whole blocks behind the first bad one, where a scan stopped at `from_bytes`: there is none behind
// a torn write, whose last block ends with what is there. Goes from header to header, also over a
// block whose content alone is bad; where a header is bad, looks for the next one at every byte.
// There it may take for blocks what is content (of an extent that somebody put into another one).
// Memory: one block. Fails only when the source does.
struct BlocksBehind {
  std::uint64_t first_bytes = 0;  // where the first of them begins
  std::uint64_t bytes = 0;        // of all of them, headers included
  std::uint64_t count = 0;
};
Result<BlocksBehind> find_blocks_behind(const ByteSource& source, std::uint64_t from_bytes,
                                        std::uint64_t available_bytes);

// Re-reads all of a sealed extent: every block's header and SHA-256, the index, the footer and
// the crc32 of everything; computes the content digest, and compares it with the header's where
// that has one. DATA_LOSS names the first thing that is wrong. `progress` may be empty.
struct VerifyResult {
  std::uint64_t extent_bytes = 0;
  std::uint64_t content_bytes = 0;
  std::uint32_t crc32 = 0;
  std::uint32_t block_count = 0;
  Sha256 content_digest{};
};
Result<VerifyResult> verify_extent(const ByteSource& source, const SealedHeader& header,
                                   const std::function<Status(std::uint64_t done_bytes)>& progress);

}  // namespace siphon
