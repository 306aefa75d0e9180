// The extent's byte format as a peer's bytes reach it: sealed header, block headers, index, footer,
// the scan of an open extent, the verification of a sealed one, and the digest that is computed of
// an index while it passes by.
//
// An input is an extent's bytes behind a sealed header; its checksums are made good unless a flag
// keeps them. Properties: no decoder asks for bytes outside the extent; what an index or a scan
// says lies in it; what is verified is what was sealed, and has the digest that the index has.
#include <algorithm>
#include <array>
#include <limits>

#include "plugin/base/crc32.h"
#include "plugin/core/le.h"
#include "plugin/format/extent_format.h"
#include "plugin/stream/index_watch.h"
#include "tests/fuzz/fuzz.h"

namespace siphon::fuzz {
namespace {

constexpr std::uint8_t kKeepChecksums = 1;
constexpr std::uint8_t kKeepHeader = 2;
constexpr std::uint8_t kBackwards = 4;  // the order in which the pieces are seen

ByteSource from(const Bytes& bytes) {
  return [&bytes](std::uint64_t offset, std::span<std::byte> out) -> Status {
    HOLDS(offset <= bytes.size() && out.size() <= bytes.size() - offset);
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
    return {};
  };
}

SealedHeader take_header(Input& input) {
  SealedHeader header;
  header.extent_bytes = input.number<std::uint64_t>();
  header.content_bytes = input.number<std::uint64_t>();
  header.crc32 = input.number<std::uint32_t>();
  header.block_count = input.number<std::uint32_t>();
  header.format_version = input.number<std::uint16_t>();
  const auto digest = input.bytes(header.content_digest.size());
  std::copy(digest.begin(), digest.end(), header.content_digest.begin());
  return header;
}

std::uint32_t crc32c(std::span<const std::byte> bytes) { return ~ceph_crc32c(bytes); }

// Makes the checksums of the blocks, as far as they follow each other, and of the footer good.
void make_good(Bytes& bytes) {
  std::span<std::byte> rest(bytes);
  while (rest.size() >= kBlockHeaderBytes) {
    const auto raw = rest.first(kBlockHeaderBytes);
    LeReader reader(raw);
    if (reader.get<std::uint32_t>() != kBlockMagic) break;
    reader.skip(4);
    const auto length = reader.get<std::uint32_t>();
    put_last(raw, crc32c(raw.first(kBlockHeaderBytes - 4)));
    if (length > rest.size() - kBlockHeaderBytes) break;
    rest = rest.subspan(kBlockHeaderBytes + length);
  }
  if (bytes.size() < kFooterBytes) return;
  const auto raw = std::span(bytes).last(kFooterBytes);
  put_last(raw, crc32c(raw.first(kFooterBytes - 4)));
}

void check_records(std::span<const std::byte> bytes) {
  if (const auto header =
          decode_block_header(bytes.first(std::min(bytes.size(), kBlockHeaderBytes)))) {
    HOLDS(header->length_bytes > 0 && header->length_bytes <= kMaxBlockBytes);
    std::array<std::byte, kBlockHeaderBytes> again;
    encode_block_header(*header, again);
    HOLDS(std::equal(again.begin(), again.end(), bytes.begin()));
  } else {
    check_error(header.error());
  }
  if (const auto entry =
          decode_index_entry(bytes.first(std::min(bytes.size(), kIndexEntryBytes)))) {
    std::array<std::byte, kIndexEntryBytes> again;
    encode_index_entry(*entry, again);
    HOLDS(std::equal(again.begin(), again.end(), bytes.begin()));
  }
  const auto tail = bytes.last(std::min(bytes.size(), kFooterBytes));
  if (const auto footer = decode_footer(tail)) {
    std::array<std::byte, kFooterBytes> again;
    encode_footer(*footer, again);
    HOLDS(std::equal(again.begin(), again.end(), tail.begin()));
  } else {
    check_error(footer.error());
  }
}

void check_blocks(const std::vector<IndexEntry>& blocks, std::uint64_t end_bytes) {
  std::uint64_t next = 0;
  for (const IndexEntry& block : blocks) {
    HOLDS(block.offset_bytes == next);
    HOLDS(block.length_bytes > 0 && block.length_bytes <= kMaxBlockBytes);
    next += kBlockHeaderBytes + block.length_bytes;
  }
  HOLDS(next == end_bytes);
}

// The digest of the index, seen in pieces of any size and order.
void check_watch(SealedHeader header, const Bytes& bytes, std::uint8_t flags, Input& pieces) {
  header.content_digest = {};
  header.format_version = 1;
  const auto watch = IndexWatch::for_header(header);
  if (watch == nullptr || header.extent_bytes != bytes.size()) return;
  std::vector<std::span<const std::byte>> parts;
  std::span<const std::byte> rest(bytes);
  while (!rest.empty()) {
    const std::size_t size = std::min<std::size_t>(rest.size(), pieces.number<std::uint8_t>() + 1u);
    parts.push_back(rest.first(size));
    rest = rest.subspan(size);
  }
  if ((flags & kBackwards) != 0) std::reverse(parts.begin(), parts.end());
  for (const auto part : parts) {
    watch->see(static_cast<std::uint64_t>(part.data() - bytes.data()), part);
  }
  const auto digest = watch->finish();
  HOLDS(digest);
  const std::size_t index_bytes = header.block_count * kIndexEntryBytes;
  HOLDS(*digest == sha256(std::span(bytes).last(index_bytes + kFooterBytes).first(index_bytes)));
}

}  // namespace

void run(std::span<const std::byte> input_bytes) {
  Input input(input_bytes);
  const auto flags = input.number<std::uint8_t>();
  SealedHeader header = take_header(input);
  const auto order = input.bytes(8);
  const auto taken = input.rest();
  Bytes bytes(taken.begin(), taken.end());
  if ((flags & kKeepChecksums) == 0) make_good(bytes);
  check_records(bytes);
  if (!bytes.empty())
    check_records(std::span(bytes).last(std::min<std::size_t>(bytes.size(), 112)));

  const auto index = read_index(from(bytes), bytes.size());
  if (index) {
    check_blocks(*index, bytes.size() - kFooterBytes - index->size() * kIndexEntryBytes);
  } else {
    check_error(index.error());
  }
  const auto scan = scan_blocks(from(bytes), bytes.size());
  HOLDS(scan && scan->valid_bytes <= bytes.size());
  check_blocks(scan->blocks, scan->valid_bytes);
  HOLDS(scan->crc32 == crc32(std::span(bytes).first(scan->valid_bytes)));
  const auto behind = find_blocks_behind(from(bytes), scan->valid_bytes, bytes.size());
  HOLDS(behind && behind->bytes <= bytes.size() - scan->valid_bytes);
  HOLDS(behind->count == 0 || behind->first_bytes > scan->valid_bytes);

  if ((flags & kKeepHeader) == 0) {
    header.extent_bytes = bytes.size();
    header.crc32 = crc32(bytes);
  }
  const Status sound = check_sealed_header(header);
  if (!sound) return check_error(sound.error());
  Input pieces(order);
  check_watch(header, bytes, flags, pieces);
  if (header.extent_bytes > bytes.size()) return;
  const auto verified = verify_extent(from(bytes), header, {});
  if (!verified) return check_error(verified.error());
  HOLDS(index && scan->blocks.size() == header.block_count);
  HOLDS(verified->extent_bytes == bytes.size() && verified->crc32 == crc32(bytes));
  IndexDigest digest;
  for (const IndexEntry& entry : *index) digest.add(entry);
  HOLDS(verified->content_digest == digest.finish());
  HOLDS(!header.has_digest() || verified->content_digest == header.content_digest);
}

std::vector<Bytes> seeds() {
  std::vector<Bytes> out;
  const auto add = [&out](std::uint8_t flags, std::initializer_list<std::size_t> sizes,
                          bool first_version = false) {
    Bytes bytes;
    ExtentEncoder encoder([&bytes](std::span<const std::byte> piece) -> Status {
      bytes.insert(bytes.end(), piece.begin(), piece.end());
      return {};
    });
    for (const std::size_t size : sizes) {
      HOLDS(encoder.append(Bytes(size, static_cast<std::byte>(size))));
    }
    SealedHeader header = *encoder.seal();
    if (first_version) {
      header.format_version = 1;
      header.content_digest = {};
    }
    SeedWriter writer;
    writer.number(flags).number(header.extent_bytes).number(header.content_bytes);
    writer.number(header.crc32).number(header.block_count).number(header.format_version);
    writer.bytes(header.content_digest).number(std::uint64_t{0x2040081020408011}).bytes(bytes);
    out.push_back(writer.take());
  };
  add(0, {});
  add(0, {10});
  add(0, {10, 20, 30});
  add(kBackwards, {10, 20, 30}, true);
  add(kKeepHeader, {1, 1}, true);
  add(kKeepChecksums | kKeepHeader, {300, 1, 17, 5});
  return out;
}

}  // namespace siphon::fuzz
