// The frame: what travels on a lane once the ticket is proven. docs/wire_format.md specifies it.
//
//   header   64 bytes, little-endian, with a crc32c of its own
//   payload  header.length_bytes bytes of the extent, at header.offset_bytes
//   trailer  8 bytes: crc32 (zlib's) of the payload, and a magic
//
// The checksum follows the payload so that the sender sums each piece while it is in cache, right
// before the kernel copies it. Frames address themselves, so any lane may carry any frame in any
// order. Pure functions, thread safe; decoders accept any bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "plugin/base/status.h"

namespace siphon {

inline constexpr std::size_t kFrameHeaderBytes = 64;
inline constexpr std::size_t kFrameTrailerBytes = 8;
inline constexpr std::uint8_t kFrameVersion = 1;

// kKeepAlive carries nothing: the source is alive but has nothing to send just now (its store is
// slow, or a throttle holds it back).
enum class FrameType : std::uint8_t { kData = 1, kEndOfLane = 2, kKeepAlive = 3 };

struct FrameHeader {
  FrameType type = FrameType::kData;
  bool last = false;               // ends at the extent's last byte
  std::uint32_t extent_index = 0;  // into the list that the Stream call authorised
  std::uint32_t length_bytes = 0;  // payload; at least 1 (all these are 0 unless kData)
  std::uint64_t offset_bytes = 0;
  std::uint64_t extent_bytes = 0;  // the whole extent, the same in each of its frames
  std::uint64_t sequence = 0;      // counts the frames of this lane from 0, of every type

  bool operator==(const FrameHeader&) const = default;
};

// What a receiver has agreed to, checked for every header before anything is allocated.
struct FrameLimits {
  std::uint32_t extent_count = 0;
  std::uint32_t max_frame_bytes = 0;
  std::uint64_t max_extent_bytes = 0;
};

void encode_frame_header(const FrameHeader& header, std::span<std::byte, kFrameHeaderBytes> out);
// `in` is exactly one header. DATA_LOSS: magic or checksum wrong (suspect: wire).
// INVALID_ARGUMENT: a version, type or flag we do not know, or a contradiction between fields
// (a range that overflows or leaves the extent, `last` elsewhere than at its end, no bytes).
Result<FrameHeader> decode_frame_header(std::span<const std::byte> in);
// OUT_OF_RANGE names the field and both values.
Status check_frame_limits(const FrameHeader& header, const FrameLimits& limits);

void encode_frame_trailer(std::uint32_t payload_crc32,
                          std::span<std::byte, kFrameTrailerBytes> out);
// DATA_LOSS: not a trailer (suspect: wire).
Result<std::uint32_t> decode_frame_trailer(std::span<const std::byte> in);

}  // namespace siphon
