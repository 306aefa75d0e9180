// The readers of a StreamSender: they open extents and read their pieces into buffers, ahead of the
// lanes.
#include <algorithm>
#include <system_error>
#include <utility>

#include "plugin/stream/sender_impl.h"

namespace siphon {

using namespace sender;

void StreamSender::Impl::start_reader() {
  readers_.push_back(guarded([this] { reader_main(); }));
  ++readers_running_;
}

// By a lane that has nothing to send. When every reader is at work in the store
// (and not waiting for memory), more depth may help; when one is idle, it would not.
void StreamSender::Impl::add_reader_if_of_use() {
  const bool work = !reading_.empty() || next_to_open_ < request_.extents.size();
  const bool all_busy = opening_ + reading_now_ >= readers_running_ && pool_.waiters() == 0;
  if (!work || !all_busy || readers_.size() >= kMaxReaders) return;
  try {
    start_reader();
  } catch (const std::system_error&) {  // those that run have to do
  }
}

void StreamSender::Impl::reader_main() {
  while (auto task = next_task()) {
    const CountFallbackParts count(fallback_parts_);
    if (task->extent) {
      read_piece(*task);
    } else {
      open_extents(task->index, task->count);
    }
  }
  const MutexLock lock(mutex_);
  if (--readers_running_ == 0) frames_.notify_all();
}

// Extents already open come first; the next one is opened when these leave a reader idle.
std::optional<ReaderTask> StreamSender::Impl::next_task() {
  // A piece joins the queue before the next one of its extent is read.
  const std::uint32_t depth =
      request_.in_order ? 1 : std::max<std::uint32_t>(1, limits_.read_depth);
  MutexLock lock(mutex_);
  while (!stopped()) {
    const bool room = queue_.size() < kMaxQueuedFrames;
    for (auto it = reading_.begin(); room && it != reading_.end(); ++it) {
      OpenExtent& extent = **it;
      if (extent.reads_in_flight >= depth) continue;
      ReaderTask task{*it, extent.next_offset, piece_length(extent, extent.next_offset)};
      extent.next_offset += task.length_bytes;
      ++extent.reads_in_flight;
      ++reading_now_;
      if (extent.next_offset == extent.bytes) reading_.erase(it);
      return task;
    }
    if (room && next_to_open_ < request_.extents.size()) {
      ++opening_;
      const std::uint32_t index = next_to_open_;
      next_to_open_ += open_count_locked();
      return ReaderTask{nullptr, 0, 0, index, next_to_open_ - index};
    }
    if (reading_.empty() && opening_ == 0 && next_to_open_ == request_.extents.size()) {
      reader_work_.notify_all();
      return std::nullopt;
    }
    reader_work_.wait(lock);
  }
  return std::nullopt;
}

// Several, once some have turned out to be small; as many as leave the other readers their share.
std::uint32_t StreamSender::Impl::open_count_locked() const {
  if (!are_small_.load(std::memory_order_relaxed)) return 1;
  const std::size_t share = (request_.extents.size() - next_to_open_) / kFirstReaders;
  const std::size_t most = std::max(1u, limits_.small_together);
  return static_cast<std::uint32_t>(std::clamp<std::size_t>(share, 1, most));
}

std::uint32_t StreamSender::Impl::piece_length(const OpenExtent& extent,
                                               std::uint64_t offset) const {
  std::uint64_t length = std::min<std::uint64_t>(frame_bytes_, extent.bytes - offset);
  const std::uint64_t part = extent.reader->info().header.part_bytes;
  if (part > 0) length = std::min(length, part - offset % part);
  return static_cast<std::uint32_t>(length);
}

std::size_t StreamSender::Impl::prefetch_bytes() const {
  return prefetch_bytes_.load(std::memory_order_relaxed);
}

// Opens as many at a time as there is memory for, so that no reader waits for memory while it holds
// some.
void StreamSender::Impl::open_extents(std::uint32_t index, std::uint32_t count) {
  const std::uint32_t end = index + count;
  while (index < end) {
    std::vector<BufferPool::Buffer> prefetch = acquire_prefetch(end - index);
    if (prefetch.empty()) return;  // stopped
    std::vector<OpenRequest> requests;
    for (std::size_t i = 0; i < prefetch.size(); ++i) {
      requests.push_back({request_.extents[index + i], prefetch[i].span()});
    }
    auto readers = store_.open_many(requests);
    for (std::size_t i = 0; i < readers.size(); ++i, ++index) {
      Status status;
      if (!readers[i]) {
        status = fail(std::move(readers[i]).error().with_suspect(Side::kSource));
      } else if ((*readers[i])->info().header.extent_bytes == 0) {
        status = fail(Code::kDataLoss, "extent " + request_.extents[index] + " has no bytes at all",
                      Side::kSource);
      }
      if (status) {
        start_extent(index, std::move(*readers[i]), std::move(prefetch[i]));
        continue;
      }
      ExtentResult result;
      result.extent_index = index;
      if (readers[i]) result.info = (*readers[i])->info();
      result.status = std::move(status);
      report(std::move(result));
    }
  }
  bool last = false;
  {
    const MutexLock lock(mutex_);
    last = --opening_ == 0 && next_to_open_ == request_.extents.size();
  }
  if (last) reader_work_.notify_all();
  deliver_results();
}

// Buffers for up to `at_most` extents, one at least; none: stopped. Empty ones where this store
// needs none.
std::vector<BufferPool::Buffer> StreamSender::Impl::acquire_prefetch(std::size_t at_most) {
  const std::size_t bytes = prefetch_bytes();
  if (bytes == 0) return std::vector<BufferPool::Buffer>(at_most);
  const std::size_t share = pool_.arena_bytes() / kFirstReaders / BufferPool::whole_granules(bytes);
  const std::size_t count = std::clamp<std::size_t>(share, 1, at_most);
  if (count > 1) {
    if (auto group = pool_.acquire_many(bytes, count, Deadline::clock::now()))
      return std::move(*group);
    if (starving()) return acquire(bytes, 1);  // which may be borrowed
  }
  return acquire(bytes, count);
}

// Puts an extent on the list of those to read, or, if it is here already, into the queue.
void StreamSender::Impl::start_extent(std::uint32_t index, std::unique_ptr<ExtentReader> reader,
                                      BufferPool::Buffer prefetch) {
  auto extent = std::make_shared<OpenExtent>();
  extent->index = index;
  extent->reader = std::move(reader);
  extent->bytes = extent->reader->info().header.extent_bytes;
  const std::uint64_t bytes = extent->bytes;
  const bool here = extent->reader->prefetched_bytes() == bytes;
  extent->index_watch = IndexWatch::for_header(extent->reader->info().header);
  if (here) {
    are_small_.store(true, std::memory_order_relaxed);
    prefetch.shrink(bytes);
    if (extent->index_watch) extent->index_watch->see(0, prefetch.span());
    bytes_read_.fetch_add(bytes, std::memory_order_relaxed);
  } else {
    prefetch.reset();
    if (extent->reader->info().is_inline && bytes <= frame_bytes_ && bytes > prefetch_bytes()) {
      prefetch_bytes_.store(bytes, std::memory_order_relaxed);
    }
  }
  {
    const MutexLock lock(mutex_);
    if (here) {
      extent->next_offset = bytes;
      queue_.push_back({std::move(extent), 0, std::move(prefetch)});
    } else {
      reading_.push_back(std::move(extent));
    }
  }
  // Without the lock, which whoever wakes needs first.
  if (here) {
    frames_.notify_one();
  } else {
    reader_work_.notify_all();
  }
}

// Memory beyond the lease is for when the lanes starve, and for a few reads: what waits for a slow
// target, or for its turn under a rate limit, must not fill what other transfers could use. Readers
// that wait for memory themselves do not count.
bool StreamSender::Impl::starving() const {
  const MutexLock lock(mutex_);
  return queue_.empty() && opening_ + reading_now_ <= kFirstReaders + pool_.waiters();
}

// None: the attempt has been stopped (by us, if there was no memory in time).
std::vector<BufferPool::Buffer> StreamSender::Impl::acquire(std::size_t bytes, std::size_t count) {
  while (!stopped()) {
    const Deadline slice = std::min(request_.deadline, Deadline::clock::now() + kSlice);
    auto buffers = pool_.acquire_many(bytes, count, slice, starving());
    if (buffers) return std::move(*buffers);
    if (buffers.error().code != Code::kDeadlineExceeded ||
        Deadline::clock::now() >= request_.deadline) {
      stop(std::move(buffers).error().with_context("wait for a send buffer"));
    }
  }
  return {};
}

void StreamSender::Impl::read_piece(const ReaderTask& task) {
  OpenExtent& extent = *task.extent;
  auto buffers = acquire(task.length_bytes, 1);
  if (buffers.empty()) return;
  Frame frame{task.extent, task.offset_bytes, std::move(buffers.front())};
  Status status = extent.reader->read(task.offset_bytes, frame.buffer.span());
  if (status) {
    bytes_read_.fetch_add(task.length_bytes, std::memory_order_relaxed);
    if (extent.index_watch) extent.index_watch->see(task.offset_bytes, frame.bytes());
  }
  bool failed_now = false;
  {
    const MutexLock lock(mutex_);
    --extent.reads_in_flight;
    --reading_now_;
    if (status && !extent.reported) {
      queue_.push_back(std::move(frame));
    } else if (!status && !extent.reported) {
      failed_now = extent.reported = true;
      std::erase(reading_, task.extent);
    }
  }
  frames_.notify_one();
  if (failed_now) {
    ExtentResult result;
    result.extent_index = extent.index;
    result.info = extent.reader->info();
    result.status = fail(std::move(status).error().with_suspect(Side::kSource));
    report(std::move(result));
    deliver_results();
  }
}

}  // namespace siphon
