#include "plugin/stream/receiver.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "plugin/base/crc32.h"

namespace siphon {
namespace {

// Small enough to stay in a core's cache between the kernel's copy and the checksum.
constexpr std::size_t kPieceBytes = 256 * kKiB;
// A receiver that drains faster than the source sends would be woken for every segment, and each
// wake-up costs the source more than sending did (measured: 1.6 instead of 4.3 GB/s on loopback).
constexpr std::size_t kWakeBytes = 64 * kKiB;
constexpr std::size_t kDiscardBytes = 64 * kKiB;

// An error between a header and its trailer.
Error lost_in_frame(Error error) {
  if (error.code == Code::kOutOfRange) {
    error.code = Code::kUnavailable;
    error.message = "the source closed the lane in the middle of a frame";
  }
  return std::move(error).with_suspect(Side::kSource);
}

class LaneReceiver {
 public:
  LaneReceiver(Socket& socket, BufferPool& pool, const ReceiveOptions& options, FrameSink& sink,
               LaneTimes& times)
      : socket_(socket),
        pool_(pool),
        options_(options),
        sink_(sink),
        times_(times),
        meter_(options.minimum_rate) {}

  Status run();

 private:
  Result<FrameHeader> next_header();
  Status check_progress() const;
  Status wait_for_throttle(std::uint64_t bytes);
  Status take_frame(const FrameHeader& header);
  Status discard_frame(const FrameHeader& header);
  Status receive_payload(std::span<std::byte> payload, std::uint32_t& crc,
                         std::span<std::byte, kFrameTrailerBytes> trailer);

  Socket& socket_;
  BufferPool& pool_;
  const ReceiveOptions& options_;
  FrameSink& sink_;
  LaneTimes& times_;
  MinimumRateMeter meter_;
  std::uint64_t sequence_ = 0;
  std::unique_ptr<std::array<std::byte, kDiscardBytes>> discard_;  // made when first needed
};

Status LaneReceiver::run() {
  while (true) {
    auto header = next_header();
    if (!header) return fail(std::move(header).error().with_suspect(Side::kSource));
    if (header->type == FrameType::kEndOfLane) return {};
    if (header->type == FrameType::kKeepAlive) {
      SIPHON_TRY(check_progress());
      continue;
    }
    if (options_.last_data != nullptr) options_.last_data->note();
    auto wanted = sink_.admit(*header);
    if (!wanted) return fail(std::move(wanted).error());
    SIPHON_TRY(*wanted ? take_frame(*header) : discard_frame(*header));
  }
}

Result<FrameHeader> LaneReceiver::next_header() {
  std::array<std::byte, kFrameHeaderBytes> raw;
  const auto start = Deadline::clock::now();
  // Between frames only silence counts: a source with a slow store says so with keep-alives.
  const auto deadline = std::min(options_.deadline, start + options_.minimum_rate.idle_timeout);
  Status got = socket_.recv_all({raw}, deadline);
  charge(times_.in_socket_ns, Deadline::clock::now() - start);
  if (!got) {
    Error error = std::move(got).error();
    if (error.code == Code::kOutOfRange) {
      error.code = Code::kUnavailable;
      error.message = "the source closed the lane before its end";
    }
    return fail(std::move(error));
  }
  auto header = decode_frame_header(raw);
  if (!header) return header;
  if (header->sequence != sequence_) {
    return fail(Code::kInvalidArgument, "frame " + std::to_string(header->sequence) +
                                            " of the lane came when " + std::to_string(sequence_) +
                                            " was due");
  }
  ++sequence_;
  SIPHON_TRY(check_frame_limits(*header, options_.limits));
  return header;
}

Status LaneReceiver::check_progress() const {
  if (options_.last_data == nullptr) return {};
  const auto patience = kIdleTimeoutsWithoutData * options_.minimum_rate.idle_timeout;
  // The source notices by itself, and knows better why: it gets half a timeout more.
  if (Deadline::clock::now() - options_.last_data->at() <
      patience + options_.minimum_rate.idle_timeout / 2)
    return {};
  return fail(
      Code::kDeadlineExceeded,
      "the source has sent nothing but signs of life for " +
          std::to_string(std::chrono::duration_cast<std::chrono::seconds>(patience).count()) +
          " s: its store hangs",
      Side::kSource, "look at the source's disk, then run the copy again");
}

// The source, whose frame waits in the kernel, sees a slow reader.
Status LaneReceiver::wait_for_throttle(std::uint64_t bytes) {
  if (options_.throttle == nullptr) return {};
  const auto place = options_.throttle->line_up(bytes);
  Status passed = options_.throttle->wait(place, options_.deadline, options_.stop);
  if (options_.last_data != nullptr) options_.last_data->note();
  return passed;
}

Status LaneReceiver::take_frame(const FrameHeader& header) {
  SIPHON_TRY(wait_for_throttle(header.length_bytes));
  const auto start = Deadline::clock::now();
  // A whole extent may have to wait for the source's word before it is stored: within the lease.
  const bool may_borrow = header.length_bytes < header.extent_bytes;
  auto buffer = pool_.acquire(header.length_bytes, options_.deadline, may_borrow);
  const auto acquired = Deadline::clock::now();
  charge(times_.waiting_for_buffer_ns, acquired - start);
  if (!buffer) return fail(std::move(buffer).error().with_context("wait for a receive buffer"));

  ReceivedFrame frame{header, std::move(*buffer), 0};
  frame.payload.resize(header.length_bytes);
  std::array<std::byte, kFrameTrailerBytes> trailer;
  meter_.restart(acquired);
  SIPHON_TRY(receive_payload(frame.payload.span(), frame.crc32, trailer));
  auto sent = decode_frame_trailer(trailer);
  if (!sent) return fail(std::move(sent).error());
  if (*sent != frame.crc32) {
    frame.payload.reset();
    return sink_.bad_frame(header, *sent, frame.crc32);
  }
  return sink_.deliver(std::move(frame));
}

// Piece by piece, so that each is summed while it is in cache; the last comes with the trailer.
Status LaneReceiver::receive_payload(std::span<std::byte> payload, std::uint32_t& crc,
                                     std::span<std::byte, kFrameTrailerBytes> trailer) {
  Deadline::clock::duration in_socket{}, computing{};
  auto now = Deadline::clock::now();
  Status status;
  crc = 0;
  while (status && !payload.empty()) {
    const auto piece = payload.first(std::min(kPieceBytes, payload.size()));
    payload = payload.subspan(piece.size());
    const auto tail = payload.empty() ? std::span<std::byte>(trailer) : std::span<std::byte>();
    // More of this frame is sure to follow all but its last piece.
    socket_.wake_after(payload.empty() ? 1 : kWakeBytes);
    status = socket_.recv_all({piece, tail}, options_.deadline, &meter_);
    const auto received = Deadline::clock::now();
    if (status) crc = crc32(piece, crc);
    const auto summed = Deadline::clock::now();
    in_socket += received - now;
    computing += summed - received;
    now = summed;
  }
  charge(times_.in_socket_ns, in_socket);
  charge(times_.computing_ns, computing);
  if (!status) return fail(lost_in_frame(std::move(status).error()));
  return {};
}

Status LaneReceiver::discard_frame(const FrameHeader& header) {
  if (!discard_) discard_ = std::make_unique<std::array<std::byte, kDiscardBytes>>();
  meter_.restart(Deadline::clock::now());
  std::size_t left = header.length_bytes + kFrameTrailerBytes;
  while (left > 0) {
    const auto piece = std::span(*discard_).first(std::min(left, discard_->size()));
    Status got = socket_.recv_all({piece}, options_.deadline, &meter_);
    if (!got) return fail(lost_in_frame(std::move(got).error()));
    left -= piece.size();
  }
  return {};
}

}  // namespace

Status receive_lane(Socket& socket, BufferPool& pool, const ReceiveOptions& options,
                    FrameSink& sink, LaneTimes& times) {
  Status status = LaneReceiver(socket, pool, options, sink, times).run();
  if (!status) {
    sink.lane_broken(status.error());
    socket.close();
  }
  return status;
}

}  // namespace siphon
