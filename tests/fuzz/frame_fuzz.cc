// A frame's header and trailer, and what the limits let through.
//
// Properties: a header that is accepted encodes to the very same bytes; its range lies in its
// extent; behind the limits nothing is larger than agreed; one flipped bit is noticed.
#include "plugin/base/crc32.h"
#include "plugin/stream/frame.h"
#include "tests/fuzz/fuzz.h"

namespace siphon::fuzz {
namespace {

constexpr std::uint8_t kKeepChecksum = 1;  // else it is made good before the header is decoded

void check_accepted(const FrameHeader& header, std::span<const std::byte> raw, Input& input) {
  std::array<std::byte, kFrameHeaderBytes> again;
  encode_frame_header(header, again);
  HOLDS(std::equal(again.begin(), again.end(), raw.begin(), raw.end()));
  if (header.type == FrameType::kData) {
    HOLDS(header.length_bytes > 0);
    HOLDS(header.offset_bytes <= header.extent_bytes);
    HOLDS(header.length_bytes <= header.extent_bytes - header.offset_bytes);
  }
  FrameLimits limits;
  limits.extent_count = input.number<std::uint32_t>();
  limits.max_frame_bytes = input.number<std::uint32_t>();
  limits.max_extent_bytes = input.number<std::uint64_t>();
  const Status within = check_frame_limits(header, limits);
  if (!within) {
    check_error(within.error());
  } else if (header.type == FrameType::kData) {
    HOLDS(header.extent_index < limits.extent_count);
    HOLDS(header.length_bytes <= limits.max_frame_bytes);
    HOLDS(header.extent_bytes <= limits.max_extent_bytes);
  } else {
    HOLDS(header.length_bytes == 0);
  }
  const std::size_t bit = input.number<std::uint16_t>() % (kFrameHeaderBytes * 8);
  again[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
  HOLDS(!decode_frame_header(again));
}

}  // namespace

void run(std::span<const std::byte> bytes) {
  Input input(bytes);
  const auto flags = input.number<std::uint8_t>();
  const auto trailer = input.bytes(kFrameTrailerBytes);
  const auto crc = decode_frame_trailer(trailer);
  if (crc) {
    std::array<std::byte, kFrameTrailerBytes> again;
    encode_frame_trailer(*crc, again);
    HOLDS(std::equal(again.begin(), again.end(), trailer.begin(), trailer.end()));
  } else {
    check_error(crc.error());
  }

  const auto taken = input.bytes(kFrameHeaderBytes);
  Bytes raw(taken.begin(), taken.end());
  if (raw.size() == kFrameHeaderBytes && (flags & kKeepChecksum) == 0) {
    put_last(raw, ceph_crc32c(std::span(raw).first(kFrameHeaderBytes - 4)));
  }
  const auto header = decode_frame_header(raw);
  if (!header) return check_error(header.error());
  check_accepted(*header, raw, input);
}

std::vector<Bytes> seeds() {
  std::vector<Bytes> out;
  const auto add = [&out](const FrameHeader& header) {
    std::array<std::byte, kFrameTrailerBytes> trailer;
    encode_frame_trailer(0x01020304, trailer);
    std::array<std::byte, kFrameHeaderBytes> raw;
    encode_frame_header(header, raw);
    out.push_back(SeedWriter()
                      .number(std::uint8_t{0})
                      .bytes(trailer)
                      .bytes(raw)
                      .number(std::uint32_t{4})
                      .number(std::uint32_t{4u << 20})
                      .number(std::uint64_t{1u << 30})
                      .number(std::uint16_t{77})
                      .take());
  };
  add({FrameType::kData, false, 3, 4096, 8192, 1u << 20, 5});
  add({FrameType::kData, true, 0, 4096, (1u << 20) - 4096, 1u << 20, 6});
  add({FrameType::kData, true, 4, 4u << 20, 0, 4u << 20, 0});
  add({FrameType::kEndOfLane, false, 0, 0, 0, 0, 7});
  add({FrameType::kKeepAlive, false, 0, 0, 0, 0, 8});
  return out;
}

}  // namespace siphon::fuzz
