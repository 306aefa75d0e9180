#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <utility>

#include "plugin/base/crc32.h"
#include "plugin/base/thread.h"
#include "plugin/stream/sender_impl.h"

namespace siphon {

using namespace sender;

namespace {

// What is summed and sent at a time. Measured (docs/wire_format.md): smaller calls cost throughput,
// larger pieces leave the cache between the checksum and the kernel's copy.
constexpr std::size_t kPieceBytes = kMiB;
// What is tried first for an extent of a large batch; grows to the largest inline one seen.
constexpr std::size_t kFirstPrefetchBytes = 128 * kKiB;
constexpr std::size_t kSmallBatch = 16;
// Over loopback there is no distance to bridge, and megabytes that wait in the kernel fall out of
// the cache before the target copies them. Small frames would rather not wait for each other.
// Measured: docs/benchmarks.md.
constexpr std::size_t kLoopbackUnsentBytes = 128 * kKiB;
constexpr std::size_t kLoopbackLargeFrame = 512 * kKiB;
constexpr std::chrono::seconds kConnectTimeout{10};
// A flood of connections can push an honest lane out before its ticket is seen: it comes again, for
// as long as a target waits for it.
constexpr std::chrono::seconds kOpenTimeout{15};
constexpr std::chrono::milliseconds kFirstPause{5}, kLongestPause{250};
// A ticket that is not taken may have lost a bit on the way. It is not tried for long.
constexpr int kRefusals = 3;

}  // namespace

StreamSender::Impl::Impl(ExtentStore& store, BufferPool& pool, StreamRequest request,
                         std::function<void(ExtentResult)> on_result)
    : store_(store),
      pool_(pool),
      request_(std::move(request)),
      on_result_(std::move(on_result)),
      limits_(store.limits()),
      is_loopback_(is_loopback(request_.target.address)),
      wake_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      last_data_at_(Deadline::clock::now()),
      lanes_(request_.lanes),
      reported_(request_.extents.size(), false) {
  // Half the pool at most, so that one buffer fills while another drains.
  const std::size_t half = pool_.arena_bytes() / 2 / BufferPool::kGranule * BufferPool::kGranule;
  frame_bytes_ = std::min<std::size_t>({request_.max_frame_bytes, limits_.operation_bytes, half});
  prefetch_bytes_ = std::min<std::size_t>(limits_.inline_max_bytes, frame_bytes_);
  if (request_.extents.size() > kSmallBatch) {
    prefetch_bytes_ = std::min(prefetch_bytes_.load(), kFirstPrefetchBytes);
  }
}

StreamSender::Impl::~Impl() {
  if (wake_fd_ >= 0) ::close(wake_fd_);
}

Status StreamSender::Impl::run() {
  if (frame_bytes_ == 0 || request_.lanes == 0 || request_.extents.empty() ||
      request_.throttles.size() > kMostThrottles) {
    stop({Code::kInvalidArgument,
          "a request without extents, lanes or room for a frame, or with too many throttles",
          Side::kRequester,
          {}});
  }
  std::vector<std::thread> lane_threads;
  if (!stopped()) {
    try {
      {
        const std::size_t of_use = request_.extents.size() * std::max(1u, limits_.read_depth);
        const MutexLock lock(mutex_);
        readers_.reserve(kMaxReaders);
        while (readers_.size() < std::min(kFirstReaders, of_use)) start_reader();
      }
      for (std::uint16_t lane = 0; lane < request_.lanes; ++lane) {
        lane_threads.push_back(guarded([this, lane] {
          if (Status status = lane_main(lane); !status) stop(std::move(status).error());
        }));
      }
    } catch (const std::system_error& e) {
      stop(fail_without_thread(Side::kSource, e).value());
    } catch (const std::exception& e) {
      stop(
          {Code::kResourceExhausted, std::string("start to send: ") + e.what(), Side::kSource, {}});
    }
  }
  for (auto& thread : lane_threads) thread.join();
  std::vector<std::thread> readers;
  {
    const MutexLock lock(mutex_);
    readers.swap(readers_);  // lanes start them, so none is added any more
  }
  for (auto& thread : readers) thread.join();
  for (auto& lane : lanes_) lane.socket.close();

  std::optional<Error> stop_error;
  std::vector<bool> reported;
  {
    const MutexLock lock(mutex_);  // cancel() may come this late; it changes nothing any more
    queue_.clear();
    reading_.clear();
    stop_error = stop_error_;
    reported = reported_;
  }
  const Error why = stop_error.value_or(Error{Code::kInternal, "not sent", Side::kSource, {}});
  for (std::uint32_t i = 0; i < request_.extents.size(); ++i) {
    if (reported[i]) continue;
    ExtentResult result;
    result.extent_index = i;
    result.status = fail(why);
    report(std::move(result));
  }
  deliver_results();
  if (stop_error) return fail(*stop_error);
  return {};
}

// The first error ends the attempt; everything that waits is woken.
void StreamSender::Impl::stop(Error why) {
  const MutexLock lock(mutex_);
  if (!stop_error_) stop_error_ = std::move(why);
  stop_.store(true);
  stop_waits_.request_stop();
  for (auto& lane : lanes_) lane.socket.shutdown();
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_fd_, &one, sizeof one);
  reader_work_.notify_all();
  frames_.notify_all();
}

SenderCounters StreamSender::Impl::counters() const {
  SenderCounters out;
  out.bytes_read = bytes_read_.load(std::memory_order_relaxed);
  out.bytes_sent = bytes_sent_.load(std::memory_order_relaxed);
  out.fallback_parts = fallback_parts_.load(std::memory_order_relaxed);
  return out;
}

// ---- lanes -------------------------------------------------------------------------------------

Status StreamSender::Impl::lane_main(std::uint16_t lane) {
  const auto context = [&](Status status) -> Status {
    if (status) return status;
    return fail(
        std::move(status)
            .error()
            .with_context("lane " + std::to_string(lane) + " to " + request_.target.to_string())
            .with_suspect(Side::kTarget));
  };
  SIPHON_TRY(context(open_lane(lane)));
  const auto keep_alive = request_.minimum_rate.idle_timeout / 4;
  while (true) {
    Frame frame;
    switch (next_frame(frame, Deadline::clock::now() + keep_alive)) {
      case Next::kStopped:
        return {};
      case Next::kEnd:
        return context(send_control(lane, FrameType::kEndOfLane));
      case Next::kIdle:
        SIPHON_TRY(context(check_progress()));
        SIPHON_TRY(context(send_control(lane, FrameType::kKeepAlive)));
        continue;
      case Next::kFrame:
        break;
    }
    if (!request_.throttles.empty()) {
      SIPHON_TRY(context(wait_for_throttle(lane, frame.bytes().size())));
    }
    auto crc = send_frame(lane, frame);
    if (!crc) return context(fail(std::move(crc).error()));
    last_data_at_.store(Deadline::clock::now(), std::memory_order_relaxed);
    const std::size_t length_bytes = frame.bytes().size();
    frame.buffer.reset();  // the memory goes back before its checksum is dealt with
    frame_sent(*frame.extent, frame.offset_bytes, length_bytes, *crc);
  }
}

Status StreamSender::Impl::open_lane(std::uint16_t lane) {
  const auto give_up = std::min(request_.deadline, Deadline::clock::now() + kOpenTimeout);
  auto pause = kFirstPause;
  int refusals = 0;
  while (true) {
    bool lost = false;
    Status opened =
        try_lane(lane, std::min(give_up, Deadline::clock::now() + kConnectTimeout), lost);
    if (opened || stopped()) return opened;
    const bool refused = opened.error().code == Code::kUnauthenticated && ++refusals < kRefusals;
    if (!(lost || refused) || Deadline::clock::now() + pause >= give_up) return opened;
    pollfd wake{wake_fd_, POLLIN, 0};
    if (::poll(&wake, 1, static_cast<int>(pause.count())) > 0) {
      return fail(Code::kCancelled, "cancelled");
    }
    pause = std::min(2 * pause, kLongestPause);
  }
}

// `lost`: connected, and cut off before anything was proven.
Status StreamSender::Impl::try_lane(std::uint16_t lane, Deadline deadline, bool& lost) {
  auto connected = Socket::connect(request_.target, deadline, wake_fd_);
  auto peer = connected ? connected->peer() : fail(connected.error());
  lost = connected ? !peer : connected.error().code == Code::kAborted;
  if (lost) return fail(Code::kUnavailable, "the connection was lost at once");
  if (!connected) return fail(std::move(connected).error());
  if (*peer != request_.target) {
    return fail(Code::kInternal, "connected to " + peer->to_string() + " instead");
  }
  Lane& self = lanes_[lane];
  {
    const MutexLock lock(mutex_);
    if (stopped()) return fail(Code::kCancelled, "cancelled");
    self.socket = std::move(*connected);
  }
  Status proven = prove_ticket(self.socket, request_.ticket, lane, deadline);
  if (!proven) {
    lost = proven.error().code == Code::kUnavailable;
    return proven;
  }
  self.meter.emplace(request_.minimum_rate);
  return {};
}

StreamSender::Impl::Next StreamSender::Impl::next_frame(Frame& frame, Deadline until) {
  const auto start = Deadline::clock::now();
  Next next = Next::kIdle;
  {
    MutexLock lock(mutex_);
    while (true) {
      if (stopped()) return Next::kStopped;
      const bool was_long = queue_.size() > kMaxQueuedFrames / 2;
      while (!queue_.empty() && queue_.front().extent->reported) queue_.pop_front();  // failed
      if (!queue_.empty()) {
        frame = std::move(queue_.front());
        queue_.pop_front();
        next = Next::kFrame;
      }
      if (was_long && queue_.size() <= kMaxQueuedFrames / 2) reader_work_.notify_all();
      if (next == Next::kFrame) break;
      if (readers_running_ == 0) {
        next = Next::kEnd;
        break;
      }
      add_reader_if_of_use();
      if (frames_.wait_until(lock, until) == std::cv_status::timeout) break;
    }
  }
  charge(times_.waiting_for_buffer_ns, Deadline::clock::now() - start);
  return next;
}

// The lanes are held, so far, by a store that answers (each read has its own deadline, where the
// backend has one) or by nothing that could be seen.
Status StreamSender::Impl::check_progress() const {
  const auto patience = kIdleTimeoutsWithoutData * request_.minimum_rate.idle_timeout;
  if (Deadline::clock::now() - last_data_at_.load(std::memory_order_relaxed) < patience) return {};
  return fail(
      Code::kDeadlineExceeded,
      "the source's store has delivered nothing for " +
          std::to_string(std::chrono::duration_cast<std::chrono::seconds>(patience).count()) + " s",
      Side::kSource, "look at the source's disk, then run the copy again");
}

// In portions of 50 ms, so that many lanes take turns; the target hears from us meanwhile.
Status StreamSender::Impl::wait_for_throttle(std::uint16_t lane, std::uint64_t bytes) {
  const auto keep_alive = request_.minimum_rate.idle_timeout / 4;
  const std::stop_token stop = stop_waits_.get_token();
  auto next_sign = Deadline::clock::now() + keep_alive;
  std::array<Throttle::Place, kMostThrottles> places{};
  while (bytes > 0) {
    std::uint64_t portion = bytes;
    for (Throttle* throttle : request_.throttles) {
      const std::uint64_t rate = throttle->rate();
      if (rate != 0) portion = std::min(portion, std::max<std::uint64_t>(1, rate / 20));
    }
    for (std::size_t i = 0; i < request_.throttles.size(); ++i) {
      places[i] = request_.throttles[i]->line_up(portion);
    }
    for (std::size_t i = 0; i < request_.throttles.size();) {
      const auto start = Deadline::clock::now();
      Status passed =
          request_.throttles[i]->wait(places[i], std::min(request_.deadline, next_sign), stop);
      charge(times_.waiting_for_throttle_ns[i], Deadline::clock::now() - start);
      if (passed) {
        ++i;
        continue;
      }
      if (passed.error().code == Code::kCancelled) return passed;
      if (Deadline::clock::now() >= request_.deadline) {
        return fail(Code::kDeadlineExceeded, "the rate limit leaves too little time",
                    Side::kSource);
      }
      SIPHON_TRY(send_control(lane, FrameType::kKeepAlive));
      next_sign = Deadline::clock::now() + keep_alive;
    }
    bytes -= portion;
    last_data_at_.store(Deadline::clock::now(), std::memory_order_relaxed);
  }
  return {};
}

Status StreamSender::Impl::send_control(std::uint16_t lane, FrameType type) {
  Lane& self = lanes_[lane];
  FrameHeader header;
  header.type = type;
  header.sequence = self.sequence++;
  std::array<std::byte, kFrameHeaderBytes> raw;
  encode_frame_header(header, raw);
  self.meter->restart(Deadline::clock::now());
  return self.socket.send_all({raw}, request_.deadline, &*self.meter);
}

// Sums and sends piece by piece; returns the payload's crc32.
Result<std::uint32_t> StreamSender::Impl::send_frame(std::uint16_t lane, const Frame& frame) {
  Lane& self = lanes_[lane];
  FrameHeader header;
  header.extent_index = frame.extent->index;
  header.length_bytes = static_cast<std::uint32_t>(frame.bytes().size());
  header.offset_bytes = frame.offset_bytes;
  header.extent_bytes = frame.extent->bytes;
  header.last = frame.offset_bytes + frame.bytes().size() == frame.extent->bytes;
  header.sequence = self.sequence++;
  std::array<std::byte, kFrameHeaderBytes> raw_header;
  std::array<std::byte, kFrameTrailerBytes> raw_trailer;
  encode_frame_header(header, raw_header);

  if (is_loopback_ && !self.unsent_limited && frame.bytes().size() >= kLoopbackLargeFrame) {
    self.socket.limit_unsent(kLoopbackUnsentBytes);
    self.unsent_limited = true;
  }

  Deadline::clock::duration in_socket{}, computing{};
  auto now = Deadline::clock::now();
  self.meter->restart(now);
  std::span<const std::byte> head(raw_header), left(frame.bytes()), tail;
  std::uint32_t crc = 0;
  while (!left.empty()) {
    const auto piece = left.first(std::min(kPieceBytes, left.size()));
    left = left.subspan(piece.size());
    crc = crc32(piece, crc);
    if (left.empty()) {
      encode_frame_trailer(crc, raw_trailer);
      tail = raw_trailer;
    }
    const auto summed = Deadline::clock::now();
    Status sent =
        self.socket.send_all({head, piece, tail}, request_.deadline, &*self.meter, !left.empty());
    if (!sent) return fail(std::move(sent).error());
    head = {};
    computing += summed - now;
    now = Deadline::clock::now();
    in_socket += now - summed;
  }
  charge(times_.in_socket_ns, in_socket);
  charge(times_.computing_ns, computing);
  bytes_sent_.fetch_add(frame.bytes().size(), std::memory_order_relaxed);
  return crc;
}

// Joins the frame's checksum to its extent's; with the last one the extent has its result.
void StreamSender::Impl::frame_sent(OpenExtent& extent, std::uint64_t offset_bytes,
                                    std::uint64_t length_bytes, std::uint32_t crc) {
  std::optional<std::uint32_t> whole;
  Status joined;
  {
    const MutexLock lock(mutex_);
    if (extent.reported) return;
    joined = extent.crc.add(offset_bytes, length_bytes, crc, extent.bytes);
    whole = extent.crc.complete(extent.bytes);
    if (joined && !whole) return;
    extent.reported = true;
  }
  ExtentResult result;
  result.extent_index = extent.index;
  result.info = extent.reader->info();
  result.bytes = extent.bytes;
  result.crc32 = whole.value_or(0);
  SealedHeader& sealed = result.info.header;
  if (extent.index_watch) {
    if (const auto digest = extent.index_watch->finish()) {
      sealed.content_digest = *digest;
      sealed.format_version = kSealedHeaderVersion;
    }
  }
  if (!joined) {
    result.status = fail(std::move(joined).error().with_suspect(Side::kSource));
  } else if (result.info.state == ExtentState::kSealed && result.crc32 != sealed.crc32) {
    result.status = fail(Code::kDataLoss,
                         "extent " + request_.extents[extent.index] +
                             ": the source's bytes do not match its sealed header (crc32 read " +
                             crc32_hex(result.crc32) + ", sealed " + crc32_hex(sealed.crc32) +
                             "): rot at the source",
                         Side::kSource, "run `siphon verify` on the source extent");
  } else if (length_bytes < extent.bytes) {
    result.status = still_current(result.info);
  }
  report(std::move(result));
  deliver_results();
}

// A pinned generation stays readable after its name has got another one, or none. Its receipt would
// then speak of an extent that is not at the source: so whoever took more than one read looks
// again.
Status StreamSender::Impl::still_current(const ExtentInfo& read) {
  const CountFallbackParts count(fallback_parts_);
  auto now = store_.stat(read.name);
  if (now && now->private_id == read.private_id) return {};
  if (!now && now.error().code != Code::kNotFound) {
    return fail(std::move(now).error().with_suspect(Side::kSource));
  }
  return fail(Code::kAborted,
              "extent " + read.name + " was " + (now ? "replaced" : "removed") +
                  " at the source while it was read; nothing was published",
              Side::kSource, "run the copy again: it takes what is there now");
}

// ---- results -----------------------------------------------------------------------------------

void StreamSender::Impl::report(ExtentResult result) {
  const MutexLock lock(mutex_);
  if (reported_[result.extent_index]) return;
  reported_[result.extent_index] = true;
  results_.push_back(std::move(result));
}

// Whoever comes first hands over what there is, one at a time and without the lock.
void StreamSender::Impl::deliver_results() {
  MutexLock lock(mutex_);
  if (delivering_) return;
  delivering_ = true;
  while (!results_.empty()) {
    ExtentResult result = std::move(results_.front());
    results_.pop_front();
    lock.unlock();
    on_result_(std::move(result));
    lock.lock();
  }
  delivering_ = false;
}

// ---- the public face ---------------------------------------------------------------------------

StreamSender::StreamSender(ExtentStore& store, BufferPool& pool, StreamRequest request,
                           std::function<void(ExtentResult)> on_result)
    : impl_(std::make_unique<Impl>(store, pool, std::move(request), std::move(on_result))) {}
StreamSender::~StreamSender() = default;

Status StreamSender::run() { return impl_->run(); }
void StreamSender::cancel() {
  impl_->stop({Code::kCancelled, "the transfer was cancelled", Side::kNone, {}});
}
SenderCounters StreamSender::counters() const { return impl_->counters(); }
const LaneTimes& StreamSender::lane_times() const { return impl_->lane_times(); }

}  // namespace siphon
