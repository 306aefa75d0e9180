// Byte surgery on frame headers and trailers.

#include "plugin/stream/frame.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "plugin/base/crc32.h"
#include "plugin/core/le.h"
#include "tests/support/test_random.h"

namespace siphon {
namespace {

using HeaderBytes = std::array<std::byte, kFrameHeaderBytes>;

FrameHeader sample() {
  FrameHeader h;
  h.extent_index = 7;
  h.length_bytes = 4096;
  h.offset_bytes = 8192;
  h.extent_bytes = 1 << 20;
  h.sequence = 42;
  return h;
}

HeaderBytes encode(const FrameHeader& header) {
  HeaderBytes out;
  encode_frame_header(header, out);
  return out;
}

// Writes `value` at `at` and mends the checksum: what a buggy or hostile peer could send.
template <typename T>
HeaderBytes forge(HeaderBytes bytes, std::size_t at, T value) {
  LeWriter(std::span(bytes).subspan(at)).put(value);
  LeWriter(std::span(bytes).subspan(60)).put(ceph_crc32c(std::span(bytes).first(60)));
  return bytes;
}

Code code_of(const HeaderBytes& bytes) {
  auto decoded = decode_frame_header(bytes);
  return decoded ? Code::kOk : decoded.error().code;
}

TEST(FrameHeader, RoundTrip) {
  FrameHeader last = sample();
  last.offset_bytes = last.extent_bytes - last.length_bytes;
  last.last = true;
  FrameHeader end;
  end.type = FrameType::kEndOfLane;
  end.sequence = std::numeric_limits<std::uint64_t>::max();
  FrameHeader alive;
  alive.type = FrameType::kKeepAlive;
  for (const FrameHeader& h : {sample(), last, end, alive}) {
    auto decoded = decode_frame_header(encode(h));
    ASSERT_TRUE(decoded) << decoded.error().message;
    EXPECT_EQ(*decoded, h);
  }
}

// The bytes of docs/wire_format.md; a change here is a change of the protocol.
TEST(FrameHeader, LayoutIsFixed) {
  FrameHeader h;
  h.extent_index = 0x01020304;
  h.length_bytes = 0x10;
  h.offset_bytes = 0x20;
  h.extent_bytes = 0x30;
  h.sequence = 5;
  h.last = true;
  const HeaderBytes bytes = encode(h);
  const auto at = [&](std::size_t i) { return std::to_integer<int>(bytes[i]); };
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), 4), "SPHF");
  EXPECT_EQ(at(4), 1);  // version
  EXPECT_EQ(at(5), 1);  // data
  EXPECT_EQ(at(6), 1);  // flags: last
  EXPECT_EQ(at(8), 4);
  EXPECT_EQ(at(11), 1);
  EXPECT_EQ(at(12), 0x10);
  EXPECT_EQ(at(16), 0x20);
  EXPECT_EQ(at(24), 0x30);
  EXPECT_EQ(at(32), 5);
  for (std::size_t i = 40; i < 60; ++i) EXPECT_EQ(at(i), 0);
}

TEST(FrameHeader, EveryFlippedBitIsFound) {
  const HeaderBytes good = encode(sample());
  for (std::size_t bit = 0; bit < kFrameHeaderBytes * 8; ++bit) {
    HeaderBytes bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    auto decoded = decode_frame_header(bad);
    ASSERT_FALSE(decoded) << "bit " << bit;
    EXPECT_EQ(decoded.error().code, Code::kDataLoss);
    EXPECT_EQ(decoded.error().suspect, Side::kWire);
  }
}

// With the checksum mended a flip is either refused or is another valid header, never a crash.
TEST(FrameHeader, EveryFlippedBitWithMendedChecksum) {
  const HeaderBytes good = encode(sample());
  for (std::size_t bit = 0; bit < 60 * 8; ++bit) {
    HeaderBytes bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    auto decoded = decode_frame_header(forge(bad, 60, std::uint32_t{0}));
    if (decoded) {
      EXPECT_FALSE(*decoded == sample()) << "bit " << bit;
    } else {
      EXPECT_TRUE(decoded.error().code == Code::kInvalidArgument ||
                  (bit < 32 && decoded.error().code == Code::kDataLoss))
          << "bit " << bit;
    }
  }
}

TEST(FrameHeader, WrongSizes) {
  std::vector<std::byte> bytes(kFrameHeaderBytes + 1);
  const HeaderBytes good = encode(sample());
  std::copy(good.begin(), good.end(), bytes.begin());
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    EXPECT_EQ(decode_frame_header(std::span(bytes).first(size)).has_value(),
              size == kFrameHeaderBytes);
  }
}

TEST(FrameHeader, UnknownVersionTypeFlagsAndReservedBytes) {
  const HeaderBytes good = encode(sample());
  for (int v : {0, 2, 255}) {
    EXPECT_EQ(code_of(forge(good, 4, static_cast<std::uint8_t>(v))), Code::kInvalidArgument);
  }
  for (int t : {0, 4, 255}) {
    EXPECT_EQ(code_of(forge(good, 5, static_cast<std::uint8_t>(t))), Code::kInvalidArgument);
  }
  for (int f : {2, 3, 0x8000}) {
    EXPECT_EQ(code_of(forge(good, 6, static_cast<std::uint16_t>(f))), Code::kInvalidArgument);
  }
  for (std::size_t at = 40; at < 60; ++at) {
    EXPECT_EQ(code_of(forge(good, at, std::uint8_t{1})), Code::kInvalidArgument);
  }
}

TEST(FrameHeader, ContradictionsAndOverflows) {
  const HeaderBytes good = encode(sample());
  constexpr auto kMax = std::numeric_limits<std::uint64_t>::max();
  EXPECT_EQ(code_of(forge(good, 12, std::uint32_t{0})), Code::kInvalidArgument);  // no bytes
  EXPECT_EQ(code_of(forge(good, 16, kMax)), Code::kInvalidArgument);              // overflow
  EXPECT_EQ(code_of(forge(good, 16, kMax - 4095)), Code::kInvalidArgument);       // wraps to 0
  EXPECT_EQ(code_of(forge(good, 24, std::uint64_t{0})), Code::kInvalidArgument);  // no extent
  EXPECT_EQ(code_of(forge(good, 24, std::uint64_t{12287})), Code::kInvalidArgument);
  EXPECT_EQ(code_of(forge(good, 24, std::uint64_t{12288})), Code::kInvalidArgument);  // last unset
  EXPECT_EQ(code_of(forge(good, 6, std::uint16_t{1})), Code::kInvalidArgument);  // last too early
  EXPECT_EQ(code_of(forge(good, 24, kMax)), Code::kOk);  // for check_frame_limits to refuse
  for (std::uint8_t type : {2, 3}) {                     // a control frame that names bytes
    EXPECT_EQ(code_of(forge(good, 5, type)), Code::kInvalidArgument);
  }
}

TEST(FrameHeader, LimitsAreInclusiveAndNamed) {
  FrameHeader h = sample();
  FrameLimits limits{8, 4096, 1 << 20};
  EXPECT_TRUE(check_frame_limits(h, limits));
  const auto refused = [&](FrameHeader header, const char* field) {
    Status status = check_frame_limits(header, limits);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, Code::kOutOfRange);
    EXPECT_NE(status.error().message.find(field), std::string::npos) << status.error().message;
  };
  h.extent_index = 8;
  refused(h, "extent index");
  h = sample();
  h.length_bytes = 4097;
  refused(h, "length");
  h = sample();
  h.extent_bytes = (1 << 20) + 1;
  refused(h, "extent size");
  FrameHeader end;
  end.type = FrameType::kEndOfLane;
  EXPECT_TRUE(check_frame_limits(end, {0, 0, 0}));
}

TEST(FrameHeader, NoiseIsRefused) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  for (int i = 0; i < 20000; ++i) EXPECT_FALSE(decode_frame_header(random.bytes(64)));
}

TEST(FrameTrailer, RoundTripAndSurgery) {
  std::array<std::byte, kFrameTrailerBytes> good;
  encode_frame_trailer(0x9f3c01abu, good);
  ASSERT_TRUE(decode_frame_trailer(good));
  EXPECT_EQ(*decode_frame_trailer(good), 0x9f3c01abu);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(good.data()) + 4, 4), "SPHT");
  for (std::size_t bit = 0; bit < kFrameTrailerBytes * 8; ++bit) {
    auto bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    auto decoded = decode_frame_trailer(bad);
    // A flip in the checksum is another checksum, which will not match; one in the magic shows.
    EXPECT_EQ(decoded.has_value(), bit < 32);
    EXPECT_NE(decoded.value_or(0), 0x9f3c01abu);
  }
  EXPECT_FALSE(decode_frame_trailer(std::span(good).first(7)));
  EXPECT_FALSE(decode_frame_trailer({}));
}

}  // namespace
}  // namespace siphon
