// A whole lane: what a source that has proven its ticket may send, through a socket into the
// receiver, and from there into the extents' sessions.
//
// The first byte says which checksums and numbers are made good before the bytes are sent, so that
// a frame that was changed still gets through. Properties: what is delivered lies within what was
// agreed and has the checksum that it is said to have; an extent is complete only when its bytes
// are there, each once; the pieces of an extent are bounded; nothing stays of the buffers.
#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <optional>

#include "plugin/base/crc32.h"
#include "plugin/stream/receiver.h"
#include "plugin/transfer/machine.h"
#include "tests/fuzz/fuzz.h"

namespace siphon::fuzz {
namespace {

constexpr std::uint8_t kKeepHeaderChecksums = 1;
constexpr std::uint8_t kKeepTrailers = 2;
constexpr std::uint8_t kKeepSequence = 4;
constexpr std::uint8_t kRefuseOddExtents = 8;  // as the target does with those that have failed

constexpr FrameLimits kLimits{4, 16384, 1u << 20};
constexpr std::size_t kPoolBytes = 64 * kKiB;
constexpr std::size_t kMostSent = 48 * 1024;  // fits a socket's buffer: nobody has to wait

class Sink : public FrameSink {
 public:
  explicit Sink(bool refuses_odd) : refuses_odd_(refuses_odd) {
    for (std::uint32_t i = 0; i < kLimits.extent_count; ++i) {
      sessions_.emplace(i, std::to_string(i));
    }
  }

  Result<bool> admit(const FrameHeader& header) override {
    HOLDS(header.type == FrameType::kData);
    HOLDS(header.extent_index < kLimits.extent_count);
    HOLDS(header.length_bytes > 0 && header.length_bytes <= kLimits.max_frame_bytes);
    HOLDS(header.extent_bytes <= kLimits.max_extent_bytes);
    return !refuses_odd_ || header.extent_index % 2 == 0;
  }

  Status deliver(ReceivedFrame frame) override {
    HOLDS(frame.payload.size() == frame.header.length_bytes);
    HOLDS(crc32(frame.payload.span()) == frame.crc32);
    const FrameHeader& header = frame.header;
    ExtentMachine& machine = sessions_.at(header.extent_index);
    const Status taken = machine.on_frame(header.extent_bytes, header.offset_bytes,
                                          header.length_bytes, frame.crc32);
    if (!taken) {
      check_error(taken.error());
      return {};  // the extent has failed, the lane goes on
    }
    HOLDS(machine.pieces() <= Crc32Assembly::kMostPieces);
    HOLDS(machine.received_bytes() <= machine.extent_bytes());
    Bytes& bytes = extents_[header.extent_index];
    bytes.resize(header.extent_bytes);
    const auto payload = frame.payload.span();
    std::copy(payload.begin(), payload.end(),
              bytes.begin() + static_cast<std::ptrdiff_t>(header.offset_bytes));
    if (machine.received_bytes() == machine.extent_bytes()) {
      HOLDS(machine.target_crc32() == crc32(bytes));
    }
    return {};
  }

  Status bad_frame(const FrameHeader& header, std::uint32_t sent, std::uint32_t received) override {
    HOLDS(header.length_bytes > 0);
    HOLDS(sent != received);
    return {};
  }

 private:
  const bool refuses_odd_;
  std::map<std::uint32_t, ExtentMachine> sessions_;
  std::map<std::uint32_t, Bytes> extents_;
};

// Walks over the frames and makes good what the flags do not keep.
void make_good(std::span<std::byte> stream, std::uint8_t flags) {
  std::uint64_t sequence = 0;
  while (stream.size() >= kFrameHeaderBytes) {
    const auto raw = stream.first(kFrameHeaderBytes);
    stream = stream.subspan(kFrameHeaderBytes);
    if ((flags & kKeepSequence) == 0) {
      for (std::size_t i = 0; i < 8; ++i) {
        raw[32 + i] = static_cast<std::byte>(sequence >> (8 * i));
      }
    }
    ++sequence;
    if ((flags & kKeepHeaderChecksums) == 0) {
      put_last(raw, ceph_crc32c(raw.first(kFrameHeaderBytes - 4)));
    }
    const auto header = decode_frame_header(raw);
    if (!header || header->length_bytes > stream.size()) return;
    const auto payload = stream.first(header->length_bytes);
    stream = stream.subspan(header->length_bytes);
    if (header->type != FrameType::kData || stream.size() < kFrameTrailerBytes) continue;
    if ((flags & kKeepTrailers) == 0) {
      encode_frame_trailer(crc32(payload), stream.first<kFrameTrailerBytes>());
    }
    stream = stream.subspan(kFrameTrailerBytes);
  }
}

}  // namespace

void run(std::span<const std::byte> bytes) {
  Input input(bytes);
  const auto flags = input.number<std::uint8_t>();
  const auto sent = input.bytes(kMostSent);
  Bytes stream(sent.begin(), sent.end());
  make_good(stream, flags);

  int ends[2];
  HOLDS(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  Socket target(ends[0]);
  HOLDS(stream.empty() || ::send(ends[1], stream.data(), stream.size(), MSG_NOSIGNAL) ==
                              static_cast<ssize_t>(stream.size()));
  HOLDS(::shutdown(ends[1], SHUT_WR) == 0);

  static ArenaMemory memory = *ArenaMemory::allocate(kPoolBytes);
  BufferPool pool(memory.span());
  Sink sink((flags & kRefuseOddExtents) != 0);
  LaneTimes times;
  ReceiveOptions options;
  options.limits = kLimits;
  options.deadline = deadline_in(std::chrono::seconds(10));
  const Status ended = receive_lane(target, pool, options, sink, times);
  if (!ended) {
    check_error(ended.error());
    HOLDS(ended.error().code != Code::kDeadlineExceeded);
    HOLDS(!target.valid());
  }
  HOLDS(pool.in_use_bytes() == 0);
  ::close(ends[1]);
}

std::vector<Bytes> seeds() {
  std::vector<Bytes> out;
  struct Frame {
    std::uint32_t extent_index, length_bytes;
    std::uint64_t offset_bytes, extent_bytes;
  };
  const auto add = [&out](std::uint8_t flags, std::initializer_list<Frame> frames) {
    SeedWriter writer;
    writer.number(flags);
    std::uint64_t sequence = 0;
    const auto header_of = [&](FrameHeader header) {
      header.sequence = sequence++;
      std::array<std::byte, kFrameHeaderBytes> raw;
      encode_frame_header(header, raw);
      writer.bytes(raw);
    };
    for (const Frame& frame : frames) {
      header_of({FrameType::kData, frame.offset_bytes + frame.length_bytes == frame.extent_bytes,
                 frame.extent_index, frame.length_bytes, frame.offset_bytes, frame.extent_bytes,
                 0});
      const Bytes payload(frame.length_bytes, static_cast<std::byte>(frame.extent_index + 1));
      std::array<std::byte, kFrameTrailerBytes> trailer;
      encode_frame_trailer(crc32(payload), trailer);
      writer.bytes(payload).bytes(trailer);
    }
    header_of({FrameType::kKeepAlive, false, 0, 0, 0, 0, 0});
    header_of({FrameType::kEndOfLane, false, 0, 0, 0, 0, 0});
    out.push_back(writer.take());
  };
  add(0, {{0, 100, 0, 100}});
  add(0, {{0, 100, 100, 200}, {0, 100, 0, 200}});
  add(0, {{0, 64, 0, 64}, {1, 32, 0, 64}, {1, 32, 32, 64}, {3, 1, 0, 1}});
  add(kRefuseOddExtents, {{1, 64, 0, 64}, {2, 32, 0, 32}});
  add(kKeepTrailers, {{2, 300, 0, 600}, {2, 300, 300, 600}});
  return out;
}

}  // namespace siphon::fuzz
