// How a StreamSender works inside: what its two files share. sender.cc has its run, its lanes and
// its results, sender_readers.cc the readers that feed the lanes.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "plugin/base/crc32.h"
#include "plugin/core/mutex.h"
#include "plugin/stream/index_watch.h"
#include "plugin/stream/sender.h"

namespace siphon {
namespace sender {

// Readers are added one by one, whenever a lane has nothing to send and all of them are at work.
inline constexpr std::size_t kFirstReaders = 4;
inline constexpr std::size_t kMaxReaders = 32;
inline constexpr std::size_t kMaxQueuedFrames = 64;  // bounds views, which no pool bounds
// The longest wait that cancel() cannot interrupt.
inline constexpr std::chrono::milliseconds kSlice{100};

// An extent between its opening and its result. Shared by the frames in flight; the last one lets
// go of it.
struct OpenExtent {
  std::uint32_t index = 0;
  std::unique_ptr<ExtentReader> reader;
  std::uint64_t bytes = 0;
  std::unique_ptr<IndexWatch> index_watch;  // null: its header has a digest
  // Guarded by Impl::mutex_:
  std::uint64_t next_offset = 0;  // everything before it has been claimed by a reader
  std::uint32_t reads_in_flight = 0;
  bool reported = false;
  Crc32Assembly crc;
};
using OpenExtentPtr = std::shared_ptr<OpenExtent>;

struct Frame {
  OpenExtentPtr extent;
  std::uint64_t offset_bytes = 0;
  BufferPool::Buffer buffer;
  std::span<const std::byte> bytes() const { return buffer.span(); }
};

// A reader's next task: one read of an open extent, or (extent null) the opening of the next
// ones.
struct ReaderTask {
  OpenExtentPtr extent;
  std::uint64_t offset_bytes = 0;
  std::uint32_t length_bytes = 0;
  std::uint32_t index = 0, count = 0;  // to open: [index, index + count)
};

}  // namespace sender

class StreamSender::Impl {
 public:
  Impl(ExtentStore& store, BufferPool& pool, StreamRequest request,
       std::function<void(ExtentResult)> on_result);
  ~Impl();
  Status run();
  void stop(Error why);
  SenderCounters counters() const;
  const LaneTimes& lane_times() const { return times_; }

 private:
  // Readers.
  void start_reader() SIPHON_REQUIRES(mutex_);
  void add_reader_if_of_use() SIPHON_REQUIRES(mutex_);
  void reader_main();
  std::optional<sender::ReaderTask> next_task();
  void open_extents(std::uint32_t index, std::uint32_t count);
  std::vector<BufferPool::Buffer> acquire_prefetch(std::size_t at_most);
  void start_extent(std::uint32_t index, std::unique_ptr<ExtentReader> reader,
                    BufferPool::Buffer prefetch);
  void read_piece(const sender::ReaderTask& task);
  std::vector<BufferPool::Buffer> acquire(std::size_t bytes, std::size_t count);
  bool starving() const;
  std::size_t prefetch_bytes() const;
  std::uint32_t open_count_locked() const SIPHON_REQUIRES(mutex_);
  std::uint32_t piece_length(const sender::OpenExtent& extent, std::uint64_t offset) const;

  // Lanes.
  Status lane_main(std::uint16_t lane);
  Status open_lane(std::uint16_t lane);
  Status try_lane(std::uint16_t lane, Deadline deadline, bool& lost);
  enum class Next { kFrame, kIdle, kEnd, kStopped };
  Next next_frame(sender::Frame& frame, Deadline until);
  Status send_control(std::uint16_t lane, FrameType type);
  Result<std::uint32_t> send_frame(std::uint16_t lane, const sender::Frame& frame);
  Status wait_for_throttle(std::uint16_t lane, std::uint64_t bytes);
  void frame_sent(sender::OpenExtent& extent, std::uint64_t offset_bytes,
                  std::uint64_t length_bytes, std::uint32_t crc);

  // Results.
  Status still_current(const ExtentInfo& read);
  void report(ExtentResult result);
  void deliver_results();

  Status check_progress() const;
  bool stopped() const { return stop_.load(std::memory_order_relaxed); }
  template <typename F>
  std::thread guarded(F body);

  struct Lane {
    Socket socket;  // connected under mutex_; used by the lane's thread
    std::uint64_t sequence = 0;
    bool unsent_limited = false;
    std::optional<MinimumRateMeter> meter;
  };

  ExtentStore& store_;
  BufferPool& pool_;
  const StreamRequest request_;
  const std::function<void(ExtentResult)> on_result_;
  const StoreLimits limits_;
  const bool is_loopback_;
  std::size_t frame_bytes_ = 0;
  int wake_fd_ = -1;

  LaneTimes times_;
  std::atomic<std::uint64_t> bytes_read_{0};
  std::atomic<std::uint64_t> bytes_sent_{0};
  std::atomic<std::uint64_t> fallback_parts_{0};
  std::atomic<std::size_t> prefetch_bytes_{0};
  std::atomic<bool> are_small_{false};  // one at least came whole with its opening
  std::atomic<bool> stop_{false};
  std::stop_source stop_waits_;         // requested with stop_
  std::atomic<Deadline> last_data_at_;  // some lane had data to send

  std::vector<Lane> lanes_;

  mutable Mutex mutex_;
  Condition reader_work_;  // for readers: something to do, or nothing any more
  Condition frames_;       // for lanes: a frame, or no more. One waiter for each frame:
                           // nobody else may wait here
  std::optional<Error> stop_error_ SIPHON_GUARDED_BY(mutex_);
  std::uint32_t next_to_open_ SIPHON_GUARDED_BY(mutex_) = 0;
  std::uint32_t opening_ SIPHON_GUARDED_BY(mutex_) = 0;      // readers that open extents
  std::uint32_t reading_now_ SIPHON_GUARDED_BY(mutex_) = 0;  // pieces that a reader reads
  // Those with bytes that nobody has claimed yet.
  std::deque<sender::OpenExtentPtr> reading_ SIPHON_GUARDED_BY(mutex_);
  std::deque<sender::Frame> queue_ SIPHON_GUARDED_BY(mutex_);
  std::vector<std::thread> readers_ SIPHON_GUARDED_BY(mutex_);
  std::size_t readers_running_ SIPHON_GUARDED_BY(mutex_) = 0;  // that have not ended
  std::vector<bool> reported_ SIPHON_GUARDED_BY(mutex_);
  std::deque<ExtentResult> results_ SIPHON_GUARDED_BY(mutex_);
  bool delivering_ SIPHON_GUARDED_BY(mutex_) = false;
};

// A thread whose body, whatever it throws, ends the attempt and not the process.
template <typename F>
std::thread StreamSender::Impl::guarded(F body) {
  return std::thread([this, body] {
    try {
      body();
    } catch (const std::exception& e) {
      stop({Code::kInternal, std::string("the sender failed: ") + e.what(), Side::kSource, {}});
    }
  });
}

}  // namespace siphon
