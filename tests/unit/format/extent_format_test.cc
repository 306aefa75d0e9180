#include "plugin/format/extent_format.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <string>

#include "plugin/base/crc32.h"
#include "tests/support/test_random.h"

namespace siphon {
namespace {

using Bytes = std::vector<std::byte>;

ByteSink into(Bytes& out) {
  return [&out](std::span<const std::byte> bytes) -> Status {
    out.insert(out.end(), bytes.begin(), bytes.end());
    return {};
  };
}

// Reads from `bytes`, and makes sure that nobody asks for anything outside.
ByteSource from(const Bytes& bytes) {
  return [&bytes](std::uint64_t offset, std::span<std::byte> out) -> Status {
    if (offset > bytes.size() || out.size() > bytes.size() - offset) {
      return fail(Code::kOutOfRange, "read beyond the end");
    }
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
    return {};
  };
}

struct Extent {
  Bytes bytes;
  std::vector<Bytes> contents;
  SealedHeader header;
  std::vector<IndexEntry> blocks;
};

Extent make_extent(test::TestRandom& random, const std::vector<std::size_t>& sizes) {
  Extent extent;
  ExtentEncoder encoder(into(extent.bytes));
  for (std::size_t size : sizes) {
    extent.contents.push_back(random.bytes(size));
    EXPECT_TRUE(encoder.append(extent.contents.back()));
  }
  extent.header = encoder.seal().value();
  extent.blocks = encoder.blocks();
  return extent;
}

Result<VerifyResult> verify(const Bytes& bytes, const SealedHeader& header) {
  return verify_extent(from(bytes), header, {});
}

void expect_data_loss(const Result<VerifyResult>& result, std::string_view words) {
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Code::kDataLoss) << result.error().message;
  EXPECT_NE(result.error().message.find(words), std::string::npos)
      << "'" << result.error().message << "' lacks '" << words << "'";
}

class BaseExtentFormat : public testing::Test {
 protected:
  test::TestRandom random;
  testing::ScopedTrace trace{__FILE__, __LINE__, random.trace()};
};

TEST_F(BaseExtentFormat, RoundTripOfManyShapes) {
  for (const auto& sizes :
       std::vector<std::vector<std::size_t>>{{},
                                             {1},
                                             {1, 2, 3},
                                             {4096, 1, 4095},
                                             {kMaxBlockBytes},
                                             {kMaxBlockBytes, kMaxBlockBytes, 17},
                                             std::vector<std::size_t>(500, 33)}) {
    const Extent e = make_extent(random, sizes);
    ASSERT_EQ(e.bytes.size(), e.header.extent_bytes);
    EXPECT_EQ(e.header.extent_bytes,
              sealed_extent_bytes(e.header.content_bytes, e.header.block_count));
    EXPECT_EQ(e.header.crc32, crc32(e.bytes));

    const auto verified = verify(e.bytes, e.header);
    ASSERT_TRUE(verified) << verified.error().message;
    EXPECT_EQ(verified->extent_bytes, e.header.extent_bytes);
    EXPECT_EQ(verified->content_bytes, e.header.content_bytes);
    EXPECT_EQ(verified->block_count, sizes.size());
    EXPECT_EQ(verified->crc32, e.header.crc32);

    const auto index = read_index(from(e.bytes), e.bytes.size());
    ASSERT_TRUE(index) << index.error().message;
    ASSERT_EQ(index->size(), sizes.size());
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const IndexEntry& entry = (*index)[i];
      EXPECT_EQ(entry.length_bytes, sizes[i]);
      EXPECT_EQ(entry.sha256, sha256(e.contents[i]));
      EXPECT_TRUE(std::equal(
          e.contents[i].begin(), e.contents[i].end(),
          e.bytes.begin() + static_cast<std::ptrdiff_t>(entry.offset_bytes + kBlockHeaderBytes)));
    }
  }
}

// The bytes of the specification's example, so that the format cannot drift unnoticed.
TEST_F(BaseExtentFormat, TheSpecificationsExample) {
  Bytes bytes;
  ExtentEncoder encoder(into(bytes));
  const std::string_view abc = "abc";
  ASSERT_TRUE(encoder.append(std::as_bytes(std::span(abc))));
  const SealedHeader header = encoder.seal().value();
  EXPECT_EQ(to_hex(bytes),
            "53424c4b01000000"
            "03000000"
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
            "cb2ae97f"
            "616263"
            "0000000000000000"
            "03000000"
            "00000000"
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
            "53464f5401000000"
            "01000000"
            "57c6ad9a"
            "3300000000000000"
            "0300000000000000"
            "00000000000000000000000000000000000000000000000000000000"
            "5fb0ee74");
  EXPECT_EQ(header.extent_bytes, 163u);
  EXPECT_EQ(header.crc32, 0xe695a0ceu);
  EXPECT_EQ(header.format_version, 2);
  EXPECT_EQ(header.content_digest, sha256(std::span(bytes).subspan(51, 48)));
  EXPECT_EQ(to_hex(header.content_digest),
            "b826cc394f31246767ba5d05f12935ad97c0843041d6ab047b7a81ce6f053fc4");
}

TEST_F(BaseExtentFormat, AnEmptyExtentIsOneLikeAnother) {
  const Extent e = make_extent(random, {});
  EXPECT_EQ(e.bytes.size(), kFooterBytes);
  EXPECT_TRUE(check_sealed_header(e.header));
  const auto verified = verify(e.bytes, e.header);
  ASSERT_TRUE(verified);
  EXPECT_EQ(verified->content_digest, sha256({}));
  EXPECT_EQ(verified->content_digest, e.header.content_digest);
}

// Two contents of equal length whose extents have equal lengths and equal checksums.
TEST_F(BaseExtentFormat, TwinsOfOneCrc32HaveTwoDigests) {
  std::vector<SealedHeader> twins;
  for (const std::string_view content : {"0001cac0", "0002a960"}) {
    Bytes bytes;
    ExtentEncoder encoder(into(bytes));
    ASSERT_TRUE(encoder.append(std::as_bytes(std::span(content))));
    twins.push_back(encoder.seal().value());
    const auto verified = verify(bytes, twins.back());
    ASSERT_TRUE(verified);
    EXPECT_EQ(verified->content_digest, twins.back().content_digest);
  }
  EXPECT_EQ(twins[0].crc32, twins[1].crc32);
  EXPECT_EQ(twins[0].extent_bytes, twins[1].extent_bytes);
  EXPECT_FALSE(same_content(twins[0], twins[1]));
  EXPECT_TRUE(same_content(twins[0], twins[0]));
}

TEST_F(BaseExtentFormat, VersionOneIsVerifiedAndItsDigestComputed) {
  const Extent e = make_extent(random, {100, 200, 300});
  SealedHeader old = e.header;
  old.format_version = 1;
  EXPECT_FALSE(check_sealed_header(old));  // version 1 has no digest
  old.content_digest = {};
  EXPECT_FALSE(same_content(old, old));  // not known is not the same
  const auto verified = verify(e.bytes, old);
  ASSERT_TRUE(verified);
  EXPECT_EQ(verified->content_digest, e.header.content_digest);
}

TEST_F(BaseExtentFormat, EncoderRefusesBadBlocksAndUseAfterTheEnd) {
  Bytes bytes;
  ExtentEncoder encoder(into(bytes));
  EXPECT_EQ(encoder.append({}).error().code, Code::kInvalidArgument);
  EXPECT_EQ(encoder.append(Bytes(kMaxBlockBytes + 1)).error().code, Code::kInvalidArgument);
  EXPECT_TRUE(bytes.empty());
  ASSERT_TRUE(encoder.append(Bytes(10)));
  ASSERT_TRUE(encoder.seal());
  EXPECT_EQ(encoder.append(Bytes(10)).error().code, Code::kFailedPrecondition);
  EXPECT_EQ(encoder.seal().error().code, Code::kFailedPrecondition);
}

TEST_F(BaseExtentFormat, AFailedSinkEndsTheEncoder) {
  int calls = 0;
  ExtentEncoder encoder([&](std::span<const std::byte>) -> Status {
    if (++calls == 2) return fail(Code::kResourceExhausted, "disk full");
    return {};
  });
  EXPECT_EQ(encoder.append(Bytes(10)).error().code, Code::kResourceExhausted);
  EXPECT_EQ(encoder.append(Bytes(10)).error().code, Code::kFailedPrecondition);
  EXPECT_EQ(encoder.seal().error().code, Code::kFailedPrecondition);
  EXPECT_EQ(calls, 2);
}

TEST_F(BaseExtentFormat, EveryFlippedBitOfASmallExtentIsFound) {
  const Extent e = make_extent(random, {40, 1, 17});
  for (std::size_t i = 0; i < e.bytes.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      Bytes damaged = e.bytes;
      damaged[i] ^= static_cast<std::byte>(1 << bit);
      const auto verified = verify(damaged, e.header);
      ASSERT_FALSE(verified) << "byte " << i << " bit " << bit;
      ASSERT_EQ(verified.error().code, Code::kDataLoss);
      const auto index = read_index(from(damaged), damaged.size());
      const bool in_blocks = i < e.blocks.back().offset_bytes + kBlockHeaderBytes + 17;
      ASSERT_EQ(index.has_value(), in_blocks) << "byte " << i << " bit " << bit;
    }
  }
}

TEST_F(BaseExtentFormat, VerifyNamesTheBlockAndTheOffset) {
  const Extent e = make_extent(random, {100, 200, 300});
  const auto flip = [&](std::uint64_t offset) {
    Bytes damaged = e.bytes;
    damaged[offset] ^= std::byte{0x10};
    return damaged;
  };
  expect_data_loss(verify(flip(148 + 48 + 5), e.header), "block 1 at offset 148 (200 bytes)");
  expect_data_loss(verify(flip(148 + 9), e.header), "block 1 at offset 148: the block header");
  const std::uint64_t index = 3 * 48 + 600;
  expect_data_loss(verify(flip(index + 48 + 20), e.header), "contradicts block 1 at offset 148");
  expect_data_loss(verify(flip(index + 3 * 48 + 9), e.header), "footer at offset 888");
}

TEST_F(BaseExtentFormat, AWrongSealedHeaderIsFound) {
  const Extent e = make_extent(random, {100, 200, 300});
  SealedHeader h = e.header;
  h.crc32 ^= 1;
  expect_data_loss(verify(e.bytes, h), "crc32");
  h = e.header;
  h.format_version = 3;
  expect_data_loss(verify(e.bytes, h), "version");
  h = e.header;
  h.content_digest = {};
  expect_data_loss(verify(e.bytes, h), "no content digest");
  h = e.header;
  h.content_digest[31] ^= std::byte{1};
  expect_data_loss(verify(e.bytes, h), "the digest of the extent's index");
  h = e.header;
  ++h.extent_bytes;
  expect_data_loss(verify(e.bytes, h), "contradict");
  h = e.header;
  --h.content_bytes;
  expect_data_loss(verify(e.bytes, h), "contradict");
  // Consistent with itself, but not with the bytes: one block fewer, content to match the size.
  h = e.header;
  --h.block_count;
  h.content_bytes += kBlockHeaderBytes + kIndexEntryBytes;
  ASSERT_TRUE(check_sealed_header(h));
  expect_data_loss(verify(e.bytes, h), "index entry");
  h = e.header;
  ++h.block_count;
  h.content_bytes -= kBlockHeaderBytes + kIndexEntryBytes;
  ASSERT_TRUE(check_sealed_header(h));
  expect_data_loss(verify(e.bytes, h), "block 3");
  h = {};
  h.block_count = kMaxBlockCount + 1;
  h.content_bytes = h.block_count;
  h.extent_bytes = sealed_extent_bytes(h.content_bytes, h.block_count);
  expect_data_loss(verify(e.bytes, h), "contradict");
  h.block_count = ~0u;
  h.content_bytes = ~0ull;
  h.extent_bytes = ~0ull;
  EXPECT_FALSE(check_sealed_header(h));
}

// A valid extent whose footer was exchanged for that of another one of the same size.
TEST_F(BaseExtentFormat, AForeignFooterOrIndexIsFound) {
  const Extent a = make_extent(random, {100, 200});
  const Extent b = make_extent(random, {100, 200});
  Bytes mixed = a.bytes;
  std::copy(b.bytes.end() - kFooterBytes, b.bytes.end(), mixed.end() - kFooterBytes);
  SealedHeader h = a.header;
  h.crc32 = crc32(mixed);
  expect_data_loss(verify(mixed, h), "footer");
  EXPECT_FALSE(read_index(from(mixed), mixed.size()));
  constexpr std::size_t kTail = kFooterBytes + 2 * kIndexEntryBytes;
  std::copy(b.bytes.end() - kTail, b.bytes.end(), mixed.end() - kTail);
  h.crc32 = crc32(mixed);
  expect_data_loss(verify(mixed, h), "index entry");
  EXPECT_TRUE(read_index(from(mixed), mixed.size()));  // it does not look at the blocks
}

TEST_F(BaseExtentFormat, EveryTruncationIsRefused) {
  const Extent e = make_extent(random, {40, 30});
  for (std::size_t size = 0; size < e.bytes.size(); ++size) {
    const Bytes cut(e.bytes.begin(), e.bytes.begin() + static_cast<std::ptrdiff_t>(size));
    const auto index = read_index(from(cut), size);
    ASSERT_FALSE(index) << size;
    ASSERT_EQ(index.error().code, Code::kDataLoss);
    // The source reports the missing bytes, and verify passes that on.
    ASSERT_EQ(verify(cut, e.header).error().code, Code::kOutOfRange);
  }
  Bytes longer = e.bytes;
  longer.push_back({});
  EXPECT_FALSE(read_index(from(longer), longer.size()));
}

TEST_F(BaseExtentFormat, ScanFindsTheTornTail) {
  const std::vector<std::size_t> sizes{40, 1, 30};
  const Extent e = make_extent(random, sizes);
  std::vector<std::uint64_t> ends{0};
  for (std::size_t size : sizes) ends.push_back(ends.back() + kBlockHeaderBytes + size);
  for (std::size_t size = 0; size <= e.bytes.size(); ++size) {
    const Bytes cut(e.bytes.begin(), e.bytes.begin() + static_cast<std::ptrdiff_t>(size));
    const auto scan = scan_blocks(from(cut), size);
    ASSERT_TRUE(scan) << size;
    std::size_t whole = 0;
    while (whole + 1 < ends.size() && ends[whole + 1] <= size) ++whole;
    ASSERT_EQ(scan->blocks.size(), whole) << size;
    ASSERT_EQ(scan->valid_bytes, ends[whole]);
    ASSERT_EQ(scan->crc32, crc32(std::span(cut).first(ends[whole])));
  }
}

TEST_F(BaseExtentFormat, ScanStopsAtTheFirstDamagedByte) {
  const Extent e = make_extent(random, {40, 20, 30});
  for (std::size_t i = 0; i < 3 * kBlockHeaderBytes + 90; ++i) {
    Bytes damaged = e.bytes;
    damaged[i] ^= std::byte{0x40};
    const auto scan = scan_blocks(from(damaged), damaged.size());
    ASSERT_TRUE(scan);
    ASSERT_EQ(scan->blocks.size(), i < 88 ? 0u : i < 156 ? 1u : 2u) << i;
  }
}

// A torn write loses its own blocks and no other; one bad byte has whole blocks behind it.
TEST_F(BaseExtentFormat, WholeBlocksBehindADamagedByteAreFound) {
  const std::vector<std::size_t> sizes = {40, 20, 30, 70'000, 25};
  const Extent e = make_extent(random, sizes);
  std::vector<std::size_t> ends = {0};
  for (std::size_t size : sizes) ends.push_back(ends.back() + kBlockHeaderBytes + size);
  for (std::size_t i = 0; i < ends[3]; ++i) {
    Bytes open(e.bytes.begin(), e.bytes.begin() + static_cast<std::ptrdiff_t>(ends.back()));
    open[i] ^= std::byte{0x40};
    const auto scan = scan_blocks(from(open), open.size());
    ASSERT_TRUE(scan);
    const std::size_t bad = scan->blocks.size();
    const auto behind = find_blocks_behind(from(open), scan->valid_bytes, open.size());
    ASSERT_TRUE(behind);
    ASSERT_EQ(behind->count, sizes.size() - bad - 1) << i;
    ASSERT_EQ(behind->first_bytes, ends[bad + 1]) << i;
    ASSERT_EQ(behind->bytes, ends.back() - ends[bad + 1]) << i;
  }
}

TEST_F(BaseExtentFormat, BehindATornBlockIsNothing) {
  // Its content is an extent itself: whole blocks, and not of this one.
  const Extent inner = make_extent(random, {100, 200});
  Bytes bytes;
  ExtentEncoder encoder(into(bytes));
  ASSERT_TRUE(encoder.append(inner.contents[0]));
  const std::size_t whole = bytes.size();
  ASSERT_TRUE(encoder.append(inner.bytes));
  for (std::size_t size = whole; size < bytes.size(); ++size) {
    const Bytes cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    const auto behind = find_blocks_behind(from(cut), whole, size);
    ASSERT_TRUE(behind);
    ASSERT_EQ(behind->count, 0u) << size;
  }
  bytes.back() ^= std::byte{1};  // a write that was torn in the middle
  EXPECT_EQ(find_blocks_behind(from(bytes), whole, bytes.size())->count, 0u);
  EXPECT_EQ(find_blocks_behind(from(bytes), bytes.size(), bytes.size())->count, 0u);
  // The index and footer that a seal wrote before it was killed.
  const std::size_t index = inner.blocks[1].offset_bytes + kBlockHeaderBytes + 200;
  EXPECT_EQ(find_blocks_behind(from(inner.bytes), index, inner.bytes.size())->count, 0u);
}

TEST_F(BaseExtentFormat, BlocksBehindAreFoundInBoundedPieces) {
  Bytes bytes(3 * kMaxBlockBytes + 11, std::byte{0x53});  // nothing but first letters
  ExtentEncoder encoder(into(bytes));
  ASSERT_TRUE(encoder.append(Bytes(kMaxBlockBytes, std::byte{0x53})));
  const ByteSource checked = [&](std::uint64_t offset, std::span<std::byte> out) -> Status {
    EXPECT_LE(out.size(), kMaxBlockBytes);
    return from(bytes)(offset, out);
  };
  const auto behind = find_blocks_behind(checked, 0, bytes.size());
  ASSERT_TRUE(behind);
  EXPECT_EQ(behind->count, 1u);
  EXPECT_EQ(behind->first_bytes, 3 * kMaxBlockBytes + 11u);
}

TEST_F(BaseExtentFormat, AScannedTailIsSealedLikeTheOriginal) {
  const Extent e = make_extent(random, {40, 1, 30});
  const std::uint64_t torn = e.blocks[2].offset_bytes + 50;
  Bytes bytes(e.bytes.begin(), e.bytes.begin() + static_cast<std::ptrdiff_t>(torn));
  auto scan = scan_blocks(from(bytes), bytes.size()).value();
  ASSERT_EQ(scan.blocks.size(), 2u);
  bytes.resize(scan.valid_bytes);
  ExtentEncoder encoder(into(bytes), scan.blocks, scan.valid_bytes, scan.crc32);
  ASSERT_TRUE(encoder.append(e.contents[2]));
  const SealedHeader header = encoder.seal().value();
  EXPECT_EQ(bytes, e.bytes);
  EXPECT_EQ(header, e.header);
}

TEST_F(BaseExtentFormat, SourceAndProgressErrorsPassThrough) {
  const Extent e = make_extent(random, {40});
  const ByteSource broken = [](std::uint64_t, std::span<std::byte>) -> Status {
    return fail(Code::kUnavailable, "osd down");
  };
  EXPECT_EQ(read_index(broken, e.bytes.size()).error().code, Code::kUnavailable);
  EXPECT_EQ(scan_blocks(broken, e.bytes.size()).error().code, Code::kUnavailable);
  EXPECT_EQ(find_blocks_behind(broken, 0, e.bytes.size()).error().code, Code::kUnavailable);
  EXPECT_EQ(verify_extent(broken, e.header, {}).error().code, Code::kUnavailable);
  std::uint64_t last = 0;
  EXPECT_TRUE(verify_extent(from(e.bytes), e.header, [&](std::uint64_t done) -> Status {
    last = done;
    return {};
  }));
  EXPECT_EQ(last, e.bytes.size());
  const auto stopped = verify_extent(from(e.bytes), e.header, [](std::uint64_t) -> Status {
    return fail(Code::kCancelled, "stop");
  });
  EXPECT_EQ(stopped.error().code, Code::kCancelled);
}

TEST_F(BaseExtentFormat, VerifyReadsInBoundedPieces) {
  const Extent e = make_extent(random, {kMaxBlockBytes, kMaxBlockBytes, kMaxBlockBytes, 5});
  std::uint64_t next = 0;
  const ByteSource checked = [&](std::uint64_t offset, std::span<std::byte> out) -> Status {
    EXPECT_EQ(offset, next);
    EXPECT_LE(out.size(), 4u << 20);
    next = offset + out.size();
    return from(e.bytes)(offset, out);
  };
  EXPECT_TRUE(verify_extent(checked, e.header, {}));
  EXPECT_EQ(next, e.bytes.size());
}

TEST_F(BaseExtentFormat, RecordsRoundTrip) {
  for (int i = 0; i < 200; ++i) {
    BlockHeader block;
    block.length_bytes = static_cast<std::uint32_t>(random.number(1, kMaxBlockBytes));
    random.fill(block.sha256);
    std::array<std::byte, kBlockHeaderBytes> a;
    encode_block_header(block, a);
    const auto block2 = decode_block_header(a).value();
    EXPECT_EQ(block2.length_bytes, block.length_bytes);
    EXPECT_EQ(block2.sha256, block.sha256);

    Footer footer;
    footer.block_count = static_cast<std::uint32_t>(random.number(0, kMaxBlockCount));
    footer.content_bytes = random.number(footer.block_count, footer.block_count * 9ull);
    footer.index_offset_bytes = footer.content_bytes + footer.block_count * 48ull;
    footer.index_crc32c = static_cast<std::uint32_t>(random.number(0, ~0u));
    std::array<std::byte, kFooterBytes> b;
    encode_footer(footer, b);
    const auto footer2 = decode_footer(b);
    ASSERT_TRUE(footer2) << footer2.error().message;
    EXPECT_EQ(footer2->block_count, footer.block_count);
    EXPECT_EQ(footer2->content_bytes, footer.content_bytes);
    EXPECT_EQ(footer2->index_offset_bytes, footer.index_offset_bytes);
    EXPECT_EQ(footer2->index_crc32c, footer.index_crc32c);
  }
}

// Bytes surgery that fixes the checksum after the cut: what remains are the bounds.
TEST_F(BaseExtentFormat, FieldsOutOfBoundsAreRefusedBehindAValidChecksum) {
  for (std::uint32_t length : {0u, kMaxBlockBytes + 1, ~0u}) {
    std::array<std::byte, kBlockHeaderBytes> a;
    encode_block_header({length, {}}, a);
    EXPECT_FALSE(decode_block_header(a)) << length;
    std::array<std::byte, kIndexEntryBytes> b;
    encode_index_entry({0, length, {}}, b);
    EXPECT_FALSE(decode_index_entry(b)) << length;
  }
  for (const Footer& footer :
       {Footer{kMaxBlockCount + 1, 49ull * (kMaxBlockCount + 1), kMaxBlockCount + 1, 0},
        Footer{2, 97, 1, 0}, Footer{1, 47, 0, 0}, Footer{0, 1, 1, 0}, Footer{0, 1, 0, 0},
        Footer{1, 48 + 4096, 4095, 0}, Footer{~0u, ~0ull, ~0ull, ~0u},
        Footer{1, ~0ull, ~0ull - 48, 0},
        Footer{1, 49 + kMaxBlockBytes, 1ull + kMaxBlockBytes, 0}}) {
    std::array<std::byte, kFooterBytes> a;
    encode_footer(footer, a);
    EXPECT_FALSE(decode_footer(a)) << footer.block_count << " " << footer.index_offset_bytes;
  }
}

TEST_F(BaseExtentFormat, DecodersSurviveRandomInput) {
  for (int i = 0; i < 20000; ++i) {
    Bytes bytes = random.bytes(random.number(0, 200));
    // Half of the time with a plausible beginning.
    if (bytes.size() >= 8 && i % 2 == 0) {
      const std::uint32_t magic = i % 4 == 0 ? kBlockMagic : kFooterMagic;
      for (int k = 0; k < 4; ++k) {
        bytes[static_cast<std::size_t>(k)] = static_cast<std::byte>((magic >> (8 * k)) & 0xff);
      }
    }
    ASSERT_FALSE(decode_block_header(bytes));
    ASSERT_FALSE(decode_footer(bytes));
    if (const auto entry = decode_index_entry(bytes)) {
      ASSERT_LE(entry->length_bytes, kMaxBlockBytes);
    }
    ASSERT_FALSE(read_index(from(bytes), bytes.size()));
    const auto scan = scan_blocks(from(bytes), bytes.size());
    ASSERT_TRUE(scan);
    ASSERT_EQ(scan->valid_bytes, 0u);
    SealedHeader header;
    header.extent_bytes = bytes.size();
    header.block_count = static_cast<std::uint32_t>(random.number(0, 2));
    header.content_bytes = header.extent_bytes - 64 - header.block_count * 96ull;
    ASSERT_FALSE(verify(bytes, header));
  }
}

}  // namespace
}  // namespace siphon
