#include "plugin/base/crc32.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "plugin/core/head_register.h"
#include "tests/support/test_random.h"

namespace siphon {
namespace {

std::uint32_t zlib_crc32(std::span<const std::byte> bytes) {
  return static_cast<std::uint32_t>(::crc32_z(
      ::crc32_z(0, nullptr, 0), reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

std::span<const std::byte> as_span(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST(BaseCrc32, KnownValues) {
  EXPECT_EQ(crc32(as_span("123456789")), 0xcbf43926u);
  EXPECT_EQ(crc32({}), 0u);
  EXPECT_EQ(~ceph_crc32c(as_span("123456789")), 0xe3069283u);  // RFC 3720's check value
  // Ceph's own test of ceph_crc32c.
  EXPECT_EQ(ceph_crc32c(as_span("foo bar baz"), 0), 4119623852u);
  EXPECT_EQ(ceph_crc32c(as_span("foo bar baz"), 1234), 881700046u);
}

TEST(BaseCrc32, SameAsZlibForEverySplit) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  const auto bytes = random.bytes(4099);
  const std::uint32_t whole = zlib_crc32(bytes);
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    const auto first = std::span(bytes).first(cut);
    const auto second = std::span(bytes).subspan(cut);
    ASSERT_EQ(crc32(first), zlib_crc32(first)) << cut;
    ASSERT_EQ(crc32(second, crc32(first)), whole) << cut;
    ASSERT_EQ(crc32_join(crc32(first), crc32(second), second.size()), whole) << cut;
  }
}

TEST(BaseCrc32, SameAsZlibAtEveryAlignmentAndLength) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  const auto bytes = random.bytes(1024);
  for (std::size_t start = 0; start < 17; ++start) {
    for (std::size_t length = 0; length + start <= bytes.size(); length += 1 + length / 40) {
      const auto piece = std::span(bytes).subspan(start, length);
      ASSERT_EQ(crc32(piece), zlib_crc32(piece)) << start << "+" << length;
      ASSERT_EQ(~ceph_crc32c(piece), record_crc32c(piece)) << start << "+" << length;
    }
  }
}

TEST(BaseCrc32, JoinsBeyondFourGiB) {
  // zeros: the crc32 of n zero bytes after A, found by doubling, equals one join over n.
  std::uint32_t zeros = crc32(std::vector<std::byte>(1));
  std::uint64_t length = 1;
  while (length < (1ull << 36)) {
    zeros = crc32_join(zeros, zeros, length);
    length *= 2;
  }
  const std::uint32_t a = crc32(as_span("123456789"));
  std::uint32_t halves = a;
  std::uint32_t half = crc32(std::vector<std::byte>(1));
  for (std::uint64_t l = 1; l < (1ull << 35); l *= 2) half = crc32_join(half, half, l);
  halves = crc32_join(crc32_join(halves, half, length / 2), half, length / 2);
  EXPECT_EQ(crc32_join(a, zeros, length), halves);
}

TEST(BaseCrc32, AssemblesPiecesInAnyOrder) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  for (int round = 0; round < 200; ++round) {
    const auto bytes = random.bytes(random.number(1, 3000));
    struct Piece {
      std::uint64_t offset, length;
    };
    std::vector<Piece> pieces;
    for (std::uint64_t at = 0; at < bytes.size();) {
      const std::uint64_t length =
          random.number(1, std::min<std::uint64_t>(400, bytes.size() - at));
      pieces.push_back({at, length});
      at += length;
    }
    std::shuffle(pieces.begin(), pieces.end(), random.engine());
    Crc32Assembly assembly;
    std::uint64_t covered = 0;
    for (const Piece& p : pieces) {
      ASSERT_FALSE(assembly.complete(bytes.size()));
      const std::uint32_t crc = crc32(std::span(bytes).subspan(p.offset, p.length));
      ASSERT_TRUE(assembly.add(p.offset, p.length, crc, bytes.size()));
      covered += p.length;
      ASSERT_EQ(assembly.covered_bytes(), covered);
    }
    ASSERT_EQ(assembly.complete(bytes.size()), zlib_crc32(bytes));
    ASSERT_FALSE(assembly.complete(bytes.size() + 1));
    ASSERT_FALSE(assembly.complete(bytes.size() - 1));
  }
}

TEST(BaseCrc32, AssemblyRefusesOverlapEmptyAndBeyond) {
  constexpr std::uint64_t kLimit = 100;
  Crc32Assembly assembly;
  ASSERT_TRUE(assembly.add(10, 10, 1, kLimit));
  ASSERT_TRUE(assembly.add(40, 10, 2, kLimit));
  struct Piece {
    std::uint64_t offset, length;
  };
  for (const Piece& p :
       {Piece{10, 10}, Piece{10, 1}, Piece{19, 1}, Piece{9, 2}, Piece{19, 2}, Piece{0, 100},
        Piece{15, 30}, Piece{20, 21}, Piece{49, 51}, Piece{20, 0}, Piece{100, 0}, Piece{100, 1},
        Piece{101, 1}, Piece{99, 2}, Piece{~0ull, 1}, Piece{1, ~0ull}, Piece{50, ~0ull - 49}}) {
    const Status refused = assembly.add(p.offset, p.length, 3, kLimit);
    ASSERT_FALSE(refused) << p.offset << "+" << p.length;
    EXPECT_EQ(refused.error().code, Code::kOutOfRange);
    EXPECT_EQ(assembly.covered_bytes(), 20u);
  }
  EXPECT_TRUE(assembly.add(20, 20, 3, kLimit));
  EXPECT_TRUE(assembly.add(0, 10, 4, kLimit));
  EXPECT_TRUE(assembly.complete(50));
  EXPECT_TRUE(assembly.add(50, 50, 5, kLimit));
  EXPECT_TRUE(assembly.complete(100));
}

TEST(BaseCrc32, AssemblyOfNothingIsComplete) {
  EXPECT_EQ(Crc32Assembly().complete(0), 0u);
  EXPECT_FALSE(Crc32Assembly().complete(1));
}

// A peer that leaves a gap after each byte must not cost a map of them.
TEST(BaseCrc32, AssemblyRemembersABoundedNumberOfPieces) {
  constexpr std::uint64_t kLimit = 1 << 20;
  Crc32Assembly assembly;
  for (std::size_t i = 0; i < Crc32Assembly::kMostPieces; ++i) {
    ASSERT_TRUE(assembly.add(2 * i, 1, 0, kLimit));
  }
  EXPECT_EQ(assembly.pieces(), Crc32Assembly::kMostPieces);
  const std::uint64_t end = 2 * Crc32Assembly::kMostPieces;
  EXPECT_EQ(assembly.add(end, 1, 0, kLimit).error().code, Code::kOutOfRange);
  EXPECT_TRUE(assembly.add(1, 1, 0, kLimit)) << "what closes a gap is welcome";
  EXPECT_EQ(assembly.pieces(), Crc32Assembly::kMostPieces - 1);
  EXPECT_TRUE(assembly.add(end, 1, 0, kLimit));
}

}  // namespace
}  // namespace siphon
