#include "plugin/format/extent_format.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "plugin/base/crc32.h"
#include "plugin/core/le.h"

namespace siphon {
namespace {

// Sequential reads are this large: big enough for any backend, small enough for any budget.
constexpr std::size_t kReadPieceBytes = 4u << 20;
constexpr std::size_t kIndexPieceBytes = 1u << 20;
// One block's header and content never need a larger buffer.
static_assert(kReadPieceBytes >= kMaxBlockBytes);

// CRC-32C as RFC 3720 has it (seed and result inverted), as in every record of Siphon.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before = 0) {
  return ~ceph_crc32c(bytes, ~before);
}

auto damaged(std::string message) { return fail(Code::kDataLoss, std::move(message)); }

// Uninitialised memory; a vector would write it all first.
using Memory = std::unique_ptr<std::byte[]>;
Result<Memory> allocate(std::size_t bytes) {
  Memory memory(new (std::nothrow) std::byte[bytes]);
  if (!memory) {
    return fail(Code::kResourceExhausted, "no memory for a buffer of " + std::to_string(bytes));
  }
  return memory;
}

std::string at_offset(std::string_view what, std::uint64_t offset_bytes) {
  return std::string(what) + " at offset " + std::to_string(offset_bytes);
}

std::string block_name(std::uint64_t number, std::uint64_t offset_bytes) {
  return at_offset("block " + std::to_string(number), offset_bytes);
}

}  // namespace

void encode_block_header(const BlockHeader& header, std::span<std::byte, kBlockHeaderBytes> out) {
  LeWriter w(out);
  w.put(kBlockMagic);
  w.put(kExtentFormatVersion);
  w.put(std::uint16_t{0});
  w.put(header.length_bytes);
  w.put_bytes(header.sha256);
  w.put(crc32c(out.first(w.used())));
}

Result<BlockHeader> decode_block_header(std::span<const std::byte> in) {
  if (in.size() != kBlockHeaderBytes) return damaged("the block header is cut short");
  LeReader r(in);
  BlockHeader header;
  if (r.get<std::uint32_t>() != kBlockMagic) return damaged("there is no block header");
  const auto version = r.get<std::uint16_t>();
  const auto reserved = r.get<std::uint16_t>();
  header.length_bytes = r.get<std::uint32_t>();
  r.get_bytes(header.sha256);
  if (r.get<std::uint32_t>() != crc32c(in.first(kBlockHeaderBytes - 4))) {
    return damaged("the block header's checksum is wrong");
  }
  if (version != kExtentFormatVersion || reserved != 0) {
    return damaged("the block header has format version " + std::to_string(version) +
                   ", which this build does not know");
  }
  if (header.length_bytes == 0 || header.length_bytes > kMaxBlockBytes) {
    return damaged("the block header's length of " + std::to_string(header.length_bytes) +
                   " bytes is out of bounds");
  }
  return header;
}

void encode_index_entry(const IndexEntry& entry, std::span<std::byte, kIndexEntryBytes> out) {
  LeWriter w(out);
  w.put(entry.offset_bytes);
  w.put(entry.length_bytes);
  w.put(std::uint32_t{0});
  w.put_bytes(entry.sha256);
}

Result<IndexEntry> decode_index_entry(std::span<const std::byte> in) {
  if (in.size() != kIndexEntryBytes) return damaged("the index entry is cut short");
  LeReader r(in);
  IndexEntry entry;
  entry.offset_bytes = r.get<std::uint64_t>();
  entry.length_bytes = r.get<std::uint32_t>();
  const auto reserved = r.get<std::uint32_t>();
  r.get_bytes(entry.sha256);
  if (entry.length_bytes == 0 || entry.length_bytes > kMaxBlockBytes || reserved != 0) {
    return damaged("the index entry is out of bounds");
  }
  return entry;
}

void encode_footer(const Footer& footer, std::span<std::byte, kFooterBytes> out) {
  LeWriter w(out);
  w.put(kFooterMagic);
  w.put(kExtentFormatVersion);
  w.put(std::uint16_t{0});
  w.put(footer.block_count);
  w.put(footer.index_crc32c);
  w.put(footer.index_offset_bytes);
  w.put(footer.content_bytes);
  w.put_zeros(kFooterBytes - 4 - w.used());
  w.put(crc32c(out.first(w.used())));
}

Result<Footer> decode_footer(std::span<const std::byte> in) {
  if (in.size() != kFooterBytes) return damaged("the footer is cut short");
  LeReader r(in);
  Footer footer;
  if (r.get<std::uint32_t>() != kFooterMagic) return damaged("there is no footer");
  const auto version = r.get<std::uint16_t>();
  const auto reserved = r.get<std::uint16_t>();
  footer.block_count = r.get<std::uint32_t>();
  footer.index_crc32c = r.get<std::uint32_t>();
  footer.index_offset_bytes = r.get<std::uint64_t>();
  footer.content_bytes = r.get<std::uint64_t>();
  bool zeros = reserved == 0;
  while (r.remaining() > 4) zeros = r.get<std::uint8_t>() == 0 && zeros;
  if (r.get<std::uint32_t>() != crc32c(in.first(kFooterBytes - 4))) {
    return damaged("the footer's checksum is wrong");
  }
  if (version != kExtentFormatVersion || !zeros) {
    return damaged("the footer has format version " + std::to_string(version) +
                   ", which this build does not know");
  }
  if (footer.block_count > kMaxBlockCount ||
      footer.content_bytes > std::uint64_t{footer.block_count} * kMaxBlockBytes ||
      footer.content_bytes < footer.block_count ||
      footer.index_offset_bytes !=
          footer.content_bytes + std::uint64_t{footer.block_count} * kBlockHeaderBytes) {
    return damaged("the footer's numbers contradict each other");
  }
  return footer;
}

void IndexDigest::add(const IndexEntry& entry) {
  std::array<std::byte, kIndexEntryBytes> encoded;
  encode_index_entry(entry, encoded);
  add(encoded);
}

Status check_sealed_header(const SealedHeader& header) {
  if (header.format_version != 1 && header.format_version != kSealedHeaderVersion) {
    return damaged("the sealed header has format version " + std::to_string(header.format_version) +
                   ", which this build does not know");
  }
  if (header.block_count > kMaxBlockCount ||
      header.content_bytes > std::uint64_t{header.block_count} * kMaxBlockBytes ||
      header.content_bytes < header.block_count ||
      header.extent_bytes != sealed_extent_bytes(header.content_bytes, header.block_count)) {
    return damaged("the sealed header's numbers contradict each other");
  }
  if (header.has_digest() != (header.format_version != 1)) {
    return damaged("the sealed header of version " + std::to_string(header.format_version) +
                   (header.has_digest() ? " has a" : " has no") + " content digest");
  }
  return {};
}

// ---- encoder ---------------------------------------------------------------------------------

ExtentEncoder::ExtentEncoder(ByteSink sink) : sink_(std::move(sink)) {}

ExtentEncoder::ExtentEncoder(ByteSink sink, std::vector<IndexEntry> blocks,
                             std::uint64_t extent_bytes, std::uint32_t crc)
    : sink_(std::move(sink)), blocks_(std::move(blocks)), extent_bytes_(extent_bytes), crc_(crc) {
  for (const IndexEntry& block : blocks_) content_bytes_ += block.length_bytes;
}

Status ExtentEncoder::append(std::span<const std::byte> content) {
  if (finished_) return fail(Code::kFailedPrecondition, "the extent's encoder is finished");
  if (content.empty() || content.size() > kMaxBlockBytes) {
    return fail(Code::kInvalidArgument, "a block of " + std::to_string(content.size()) +
                                            " bytes is outside 1.." +
                                            std::to_string(kMaxBlockBytes));
  }
  if (blocks_.size() >= kMaxBlockCount) {
    return fail(Code::kResourceExhausted,
                "the extent has " + std::to_string(kMaxBlockCount) + " blocks already", Side::kNone,
                "use larger blocks, or several extents");
  }
  BlockHeader header;
  header.length_bytes = static_cast<std::uint32_t>(content.size());
  header.sha256 = sha256(content);
  std::array<std::byte, kBlockHeaderBytes> encoded;
  encode_block_header(header, encoded);
  const IndexEntry entry{extent_bytes_, header.length_bytes, header.sha256};
  SIPHON_TRY(emit(encoded));
  SIPHON_TRY(emit(content));
  blocks_.push_back(entry);
  content_bytes_ += content.size();
  return {};
}

Result<SealedHeader> ExtentEncoder::seal() {
  if (finished_) return fail(Code::kFailedPrecondition, "the extent's encoder is finished");
  Footer footer;
  footer.block_count = static_cast<std::uint32_t>(blocks_.size());
  footer.index_offset_bytes = extent_bytes_;
  footer.content_bytes = content_bytes_;
  std::vector<std::byte> piece;
  piece.reserve(std::min(blocks_.size() * kIndexEntryBytes, kIndexPieceBytes) + kFooterBytes);
  IndexDigest digest;
  for (const IndexEntry& entry : blocks_) {
    std::array<std::byte, kIndexEntryBytes> encoded;
    encode_index_entry(entry, encoded);
    footer.index_crc32c = crc32c(encoded, footer.index_crc32c);
    digest.add(encoded);
    if (piece.size() + kIndexEntryBytes > kIndexPieceBytes) {
      SIPHON_TRY(emit(piece));
      piece.clear();
    }
    piece.insert(piece.end(), encoded.begin(), encoded.end());
  }
  std::array<std::byte, kFooterBytes> encoded;
  encode_footer(footer, encoded);
  piece.insert(piece.end(), encoded.begin(), encoded.end());
  SIPHON_TRY(emit(piece));
  finished_ = true;

  SealedHeader header;
  header.extent_bytes = extent_bytes_;
  header.content_bytes = content_bytes_;
  header.crc32 = crc_;
  header.block_count = footer.block_count;
  header.format_version = kSealedHeaderVersion;
  header.content_digest = digest.finish();
  return header;
}

Status ExtentEncoder::emit(std::span<const std::byte> bytes) {
  if (Status written = sink_(bytes); !written) {
    finished_ = true;
    return written;
  }
  crc_ = crc32(bytes, crc_);
  extent_bytes_ += bytes.size();
  return {};
}

// ---- index and scan --------------------------------------------------------------------------

Result<std::vector<IndexEntry>> read_index(const ByteSource& source, std::uint64_t extent_bytes) {
  if (extent_bytes < kFooterBytes) return damaged("the extent is too short to hold a footer");
  const std::uint64_t footer_offset = extent_bytes - kFooterBytes;
  std::array<std::byte, kFooterBytes> encoded;
  SIPHON_TRY(source(footer_offset, encoded));
  const auto footer = decode_footer(encoded);
  if (!footer) return fail(footer.error().with_context(at_offset("footer", footer_offset)));
  if (extent_bytes != sealed_extent_bytes(footer->content_bytes, footer->block_count)) {
    return damaged("the footer speaks of another extent size than " + std::to_string(extent_bytes) +
                   " bytes");
  }

  std::vector<IndexEntry> blocks;
  blocks.reserve(footer->block_count);
  const std::size_t index_bytes = std::size_t{footer->block_count} * kIndexEntryBytes;
  constexpr std::size_t kWholeEntries = kIndexPieceBytes / kIndexEntryBytes * kIndexEntryBytes;
  std::vector<std::byte> piece(std::min(index_bytes, kWholeEntries));
  std::uint64_t expected_offset = 0;
  std::uint32_t crc = 0;
  for (std::size_t done = 0; done < index_bytes;) {
    const auto bytes = std::span(piece).first(std::min(piece.size(), index_bytes - done));
    SIPHON_TRY(source(footer->index_offset_bytes + done, bytes));
    crc = crc32c(bytes, crc);
    for (std::size_t i = 0; i < bytes.size(); i += kIndexEntryBytes) {
      auto entry = decode_index_entry(bytes.subspan(i, kIndexEntryBytes));
      if (!entry || entry->offset_bytes != expected_offset) {
        return damaged("the index entry of " + block_name(blocks.size(), expected_offset) +
                       " is damaged");
      }
      expected_offset += kBlockHeaderBytes + entry->length_bytes;
      blocks.push_back(*entry);
    }
    done += bytes.size();
  }
  if (expected_offset != footer->index_offset_bytes) {
    return damaged("the index does not end where the blocks do");
  }
  if (crc != footer->index_crc32c) return damaged("the index's checksum is wrong");
  return blocks;
}

Result<ScanResult> scan_blocks(const ByteSource& source, std::uint64_t available_bytes) {
  ScanResult result;
  auto memory = allocate(std::min<std::uint64_t>(kMaxBlockBytes, available_bytes));
  if (!memory) return fail(memory.error());
  std::array<std::byte, kBlockHeaderBytes> encoded;
  while (available_bytes - result.valid_bytes > kBlockHeaderBytes &&
         result.blocks.size() < kMaxBlockCount) {
    const std::uint64_t offset = result.valid_bytes;
    SIPHON_TRY(source(offset, encoded));
    const auto header = decode_block_header(encoded);
    if (!header || header->length_bytes > available_bytes - offset - kBlockHeaderBytes) break;
    const std::span content(memory->get(), header->length_bytes);
    SIPHON_TRY(source(offset + kBlockHeaderBytes, content));
    if (sha256(content) != header->sha256) break;
    result.crc32 = crc32(content, crc32(encoded, result.crc32));
    result.blocks.push_back({offset, header->length_bytes, header->sha256});
    result.valid_bytes += kBlockHeaderBytes + header->length_bytes;
  }
  return result;
}

namespace {

// Where the next sound block header begins at or behind `at`; `available_bytes`: nowhere.
Result<std::uint64_t> find_header(const ByteSource& source, std::uint64_t at,
                                  std::uint64_t available_bytes, std::span<std::byte> memory) {
  std::array<std::byte, 4> magic;
  LeWriter(magic).put(kBlockMagic);
  while (available_bytes - at > kBlockHeaderBytes) {
    const auto piece = memory.first(std::min<std::uint64_t>(memory.size(), available_bytes - at));
    SIPHON_TRY(source(at, piece));
    auto found = piece.begin();
    for (;; ++found) {
      found = std::search(found, piece.end(), magic.begin(), magic.end());
      const auto left = static_cast<std::size_t>(piece.end() - found);
      if (left < kBlockHeaderBytes) break;
      const auto offset = static_cast<std::size_t>(found - piece.begin());
      if (decode_block_header(piece.subspan(offset, kBlockHeaderBytes))) return at + offset;
    }
    at += piece.size() - (kBlockHeaderBytes - 1);  // one may begin in this piece's last bytes
  }
  return available_bytes;
}

}  // namespace

Result<BlocksBehind> find_blocks_behind(const ByteSource& source, std::uint64_t from_bytes,
                                        std::uint64_t available_bytes) {
  BlocksBehind behind;
  auto memory = allocate(kMaxBlockBytes);
  if (!memory) return fail(memory.error());
  std::array<std::byte, kBlockHeaderBytes> encoded;
  std::uint64_t at = from_bytes;
  bool chained = true;  // the block before ended here
  while (at < available_bytes && available_bytes - at > kBlockHeaderBytes) {
    SIPHON_TRY(source(at, encoded));
    const auto header = decode_block_header(encoded);
    const std::uint64_t room = available_bytes - at - kBlockHeaderBytes;
    if (header && header->length_bytes <= room) {
      const std::span content(memory->get(), header->length_bytes);
      SIPHON_TRY(source(at + kBlockHeaderBytes, content));
      const bool sound = sha256(content) == header->sha256;
      const std::uint64_t whole = kBlockHeaderBytes + header->length_bytes;
      if (sound) {
        if (behind.count++ == 0) behind.first_bytes = at;
        behind.bytes += whole;
      }
      if (sound || chained) {
        at += whole;
        chained = true;
        continue;
      }
    } else if (header && chained) {
      break;  // torn: whatever is behind is its content
    }
    auto next = find_header(source, at + 1, available_bytes, {memory->get(), kMaxBlockBytes});
    if (!next) return fail(std::move(next).error());
    at = *next;
    chained = false;
  }
  return behind;
}

// ---- verify ----------------------------------------------------------------------------------

namespace {

// Takes the bytes of a sealed extent in order, in pieces of any size, and says what is wrong.
class Verifier {
 public:
  explicit Verifier(const SealedHeader& header) : header_(header) {}

  Status feed(std::span<const std::byte> bytes) {
    crc_ = crc32(bytes, crc_);
    while (!bytes.empty()) {
      const std::size_t taken = content_left_ > 0
                                    ? std::min<std::size_t>(content_left_, bytes.size())
                                    : std::min(record_bytes() - record_used_, bytes.size());
      const auto piece = bytes.first(taken);
      SIPHON_TRY(content_left_ > 0 ? feed_content(piece) : feed_record(piece));
      offset_ += taken;
      bytes = bytes.subspan(taken);
    }
    return {};
  }

  Result<VerifyResult> finish() {
    if (offset_ != header_.extent_bytes || !footer_seen_) return damaged("the extent is cut short");
    if (crc_ != header_.crc32) {
      return damaged("the extent's crc32 is " + crc32_hex(crc_) + ", its sealed header says " +
                     crc32_hex(header_.crc32));
    }
    const Sha256 digest = digest_.finish();
    if (header_.has_digest() && digest != header_.content_digest) {
      return damaged("the digest of the extent's index is " + to_hex(digest) +
                     ", its sealed header says " + to_hex(header_.content_digest));
    }
    return VerifyResult{offset_, content_bytes_, crc_, header_.block_count, digest};
  }

 private:
  bool in_blocks() const { return blocks_.size() < header_.block_count; }
  bool in_index() const { return entries_seen_ < header_.block_count; }
  std::size_t record_bytes() const {
    if (in_blocks()) return kBlockHeaderBytes;
    return in_index() ? kIndexEntryBytes : kFooterBytes;
  }

  // A header, index entry or footer, which may arrive in two pieces.
  Status feed_record(std::span<const std::byte> piece) {
    std::memcpy(record_.data() + record_used_, piece.data(), piece.size());
    record_used_ += piece.size();
    const std::size_t wanted = record_bytes();
    if (record_used_ < wanted) return {};
    record_used_ = 0;
    const std::uint64_t start = offset_ + piece.size() - wanted;
    const auto record = std::span<const std::byte>(record_).first(wanted);
    if (in_blocks()) return block_header(record, start);
    return in_index() ? index_entry(record, start) : footer(record, start);
  }

  Status block_header(std::span<const std::byte> record, std::uint64_t start) {
    const auto header = decode_block_header(record);
    if (!header) return fail(header.error().with_context(block_name(blocks_.size(), start)));
    block_ = {start, header->length_bytes, header->sha256};
    content_left_ = header->length_bytes;
    sha_ = Sha256Stream();
    return {};
  }

  Status feed_content(std::span<const std::byte> piece) {
    sha_.update(piece);
    content_left_ -= static_cast<std::uint32_t>(piece.size());
    if (content_left_ > 0) return {};
    const Sha256 digest = sha_.finish();
    if (digest != block_.sha256) {
      return damaged(block_name(blocks_.size(), block_.offset_bytes) + " (" +
                     std::to_string(block_.length_bytes) +
                     " bytes): the content's SHA-256 is not the one in its header");
    }
    content_bytes_ += block_.length_bytes;
    blocks_.push_back(block_);
    return {};
  }

  Status index_entry(std::span<const std::byte> record, std::uint64_t start) {
    std::array<std::byte, kIndexEntryBytes> expected;
    encode_index_entry(blocks_[entries_seen_], expected);
    if (!std::equal(record.begin(), record.end(), expected.begin())) {
      return damaged(at_offset("index entry", start) + " contradicts " +
                     block_name(entries_seen_, blocks_[entries_seen_].offset_bytes));
    }
    index_crc32c_ = crc32c(record, index_crc32c_);
    digest_.add(record);
    ++entries_seen_;
    return {};
  }

  Status footer(std::span<const std::byte> record, std::uint64_t start) {
    if (footer_seen_) return damaged(at_offset("there are bytes behind the footer", start));
    const auto footer = decode_footer(record);
    if (!footer) return fail(footer.error().with_context(at_offset("footer", start)));
    if (footer->block_count != header_.block_count || footer->content_bytes != content_bytes_ ||
        footer->content_bytes != header_.content_bytes || footer->index_crc32c != index_crc32c_) {
      return damaged(at_offset("footer", start) + " contradicts the blocks before it");
    }
    footer_seen_ = true;
    return {};
  }

  const SealedHeader header_;
  std::vector<IndexEntry> blocks_;  // grows with the bytes seen
  Sha256Stream sha_;
  IndexDigest digest_;
  IndexEntry block_;  // the one whose content is passing by
  std::array<std::byte, kFooterBytes> record_{};
  std::size_t record_used_ = 0;
  std::uint32_t content_left_ = 0;
  std::uint32_t entries_seen_ = 0;
  std::uint64_t offset_ = 0;
  std::uint64_t content_bytes_ = 0;
  std::uint32_t index_crc32c_ = 0;
  std::uint32_t crc_ = 0;
  bool footer_seen_ = false;
};

}  // namespace

Result<VerifyResult> verify_extent(
    const ByteSource& source, const SealedHeader& header,
    const std::function<Status(std::uint64_t done_bytes)>& progress) {
  SIPHON_TRY(check_sealed_header(header));
  auto memory = allocate(std::min<std::uint64_t>(kReadPieceBytes, header.extent_bytes));
  if (!memory) return fail(memory.error());
  Verifier verifier(header);
  for (std::uint64_t done = 0; done < header.extent_bytes;) {
    const std::span piece(memory->get(),
                          std::min<std::uint64_t>(kReadPieceBytes, header.extent_bytes - done));
    SIPHON_TRY(source(done, piece));
    SIPHON_TRY(verifier.feed(piece));
    done += piece.size();
    if (progress) SIPHON_TRY(progress(done));
  }
  return verifier.finish();
}

}  // namespace siphon
