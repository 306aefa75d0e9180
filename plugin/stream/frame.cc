#include "plugin/stream/frame.h"

#include <array>
#include <string>

#include "plugin/base/crc32.h"
#include "plugin/core/le.h"

namespace siphon {
namespace {

constexpr std::uint32_t kHeaderMagic = 0x46485053;   // "SPHF"
constexpr std::uint32_t kTrailerMagic = 0x54485053;  // "SPHT"
constexpr std::uint16_t kFlagLast = 1;
constexpr std::size_t kReservedBytes = 20;
constexpr std::size_t kSummedBytes = kFrameHeaderBytes - 4;

auto bad_header(std::string what) {
  return fail(Code::kInvalidArgument, "frame header: " + std::move(what), Side::kSource);
}

// A data frame's range must lie in its extent; the others carry nothing at all.
Status check_consistent(const FrameHeader& h) {
  if (h.type != FrameType::kData) {
    if (h.last || h.extent_index != 0 || h.length_bytes != 0 || h.offset_bytes != 0 ||
        h.extent_bytes != 0) {
      return bad_header("a control frame that names bytes");
    }
    return {};
  }
  if (h.length_bytes == 0) return bad_header("a data frame without bytes");
  if (h.offset_bytes > h.extent_bytes || h.length_bytes > h.extent_bytes - h.offset_bytes) {
    return bad_header("offset " + std::to_string(h.offset_bytes) + " and length " +
                      std::to_string(h.length_bytes) + " leave an extent of " +
                      std::to_string(h.extent_bytes) + " bytes");
  }
  const bool ends = h.offset_bytes + h.length_bytes == h.extent_bytes;
  if (ends != h.last) return bad_header("the flag `last` contradicts offset and length");
  return {};
}

Status above_limit(const char* field, std::uint64_t value, std::uint64_t limit) {
  return fail(Code::kOutOfRange,
              std::string("frame header: ") + field + " " + std::to_string(value) +
                  " is beyond the agreed " + std::to_string(limit),
              Side::kSource);
}

}  // namespace

void encode_frame_header(const FrameHeader& header, std::span<std::byte, kFrameHeaderBytes> out) {
  LeWriter w(out);
  w.put(kHeaderMagic);
  w.put(kFrameVersion);
  w.put(static_cast<std::uint8_t>(header.type));
  w.put(static_cast<std::uint16_t>(header.last ? kFlagLast : 0));
  w.put(header.extent_index);
  w.put(header.length_bytes);
  w.put(header.offset_bytes);
  w.put(header.extent_bytes);
  w.put(header.sequence);
  w.put_zeros(kReservedBytes);
  w.put(ceph_crc32c(out.first(kSummedBytes)));
}

Result<FrameHeader> decode_frame_header(std::span<const std::byte> in) {
  if (in.size() != kFrameHeaderBytes) return bad_header("wrong size");
  LeReader r(in);
  const auto magic = r.get<std::uint32_t>();
  const auto version = r.get<std::uint8_t>();
  const auto type = r.get<std::uint8_t>();
  const auto flags = r.get<std::uint16_t>();
  FrameHeader h;
  h.extent_index = r.get<std::uint32_t>();
  h.length_bytes = r.get<std::uint32_t>();
  h.offset_bytes = r.get<std::uint64_t>();
  h.extent_bytes = r.get<std::uint64_t>();
  h.sequence = r.get<std::uint64_t>();
  std::array<std::byte, kReservedBytes> reserved;
  r.get_bytes(reserved);
  const auto crc = r.get<std::uint32_t>();

  // The checksum comes before any field is believed.
  if (magic != kHeaderMagic || crc != ceph_crc32c(in.first(kSummedBytes))) {
    return fail(Code::kDataLoss, "frame header: its magic or checksum is wrong", Side::kWire);
  }
  if (version != kFrameVersion) return bad_header("version " + std::to_string(version));
  if (type < static_cast<std::uint8_t>(FrameType::kData) ||
      type > static_cast<std::uint8_t>(FrameType::kKeepAlive)) {
    return bad_header("type " + std::to_string(type));
  }
  if ((flags & ~kFlagLast) != 0) return bad_header("flags " + std::to_string(flags));
  for (std::byte b : reserved) {
    if (b != std::byte{0}) return bad_header("reserved bytes that are not zero");
  }
  h.type = static_cast<FrameType>(type);
  h.last = (flags & kFlagLast) != 0;
  SIPHON_TRY(check_consistent(h));
  return h;
}

Status check_frame_limits(const FrameHeader& header, const FrameLimits& limits) {
  if (header.type != FrameType::kData) return {};
  if (header.extent_index >= limits.extent_count) {
    return above_limit("extent index", header.extent_index, limits.extent_count);
  }
  if (header.length_bytes > limits.max_frame_bytes) {
    return above_limit("length", header.length_bytes, limits.max_frame_bytes);
  }
  if (header.extent_bytes > limits.max_extent_bytes) {
    return above_limit("extent size", header.extent_bytes, limits.max_extent_bytes);
  }
  return {};
}

void encode_frame_trailer(std::uint32_t payload_crc32,
                          std::span<std::byte, kFrameTrailerBytes> out) {
  LeWriter w(out);
  w.put(payload_crc32);
  w.put(kTrailerMagic);
}

Result<std::uint32_t> decode_frame_trailer(std::span<const std::byte> in) {
  LeReader r(in);
  const auto crc = r.get<std::uint32_t>();
  const auto magic = r.get<std::uint32_t>();
  if (!r.ok() || r.remaining() != 0 || magic != kTrailerMagic) {
    return fail(Code::kDataLoss, "frame trailer: not one", Side::kWire);
  }
  return crc;
}

}  // namespace siphon
