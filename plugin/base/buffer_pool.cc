#include "plugin/base/buffer_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

namespace siphon {

BufferPool::Buffer::Buffer(Buffer&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      carved_(std::exchange(other.carved_, 0)) {}

BufferPool::Buffer& BufferPool::Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    reset();
    pool_ = std::exchange(other.pool_, nullptr);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    carved_ = std::exchange(other.carved_, 0);
  }
  return *this;
}

void BufferPool::Buffer::shrink(std::size_t bytes) {
  resize(bytes);
  const std::size_t kept = std::max<std::size_t>(1, (size_ + kGranule - 1) / kGranule) * kGranule;
  if (pool_ == nullptr || kept >= carved_) return;
  pool_->give_back(data_ + kept, carved_ - kept);
  carved_ = kept;
}

void BufferPool::Buffer::reset() {
  if (pool_ == nullptr) return;
  std::exchange(pool_, nullptr)->give_back(data_, carved_);
  data_ = nullptr;
  size_ = 0;
  carved_ = 0;
}

namespace {

// How often a waiter looks at what is held: nobody tells when that ends.
constexpr std::chrono::milliseconds kLookAtHeld{50};

}  // namespace

BufferPool::BufferPool(std::span<std::byte> arena, IsHeld is_held)
    : BufferPool(arena, nullptr, std::move(is_held)) {}

BufferPool::BufferPool(const Buffer& lease)
    : BufferPool(lease.span(), lease.pool_, lease.pool_->is_held_) {}

BufferPool::BufferPool(std::span<std::byte> arena, BufferPool* lender, IsHeld is_held)
    : arena_(arena.first(arena.size() / kGranule * kGranule)),
      is_held_(std::move(is_held)),
      lender_(lender) {
  // Free ranges never touch, so between any two lies at least one granule in use.
  free_.reserve(arena_.size() / kGranule / 2 + 1);
  if (is_held_) held_.reserve(arena_.size() / kGranule);
  if (!arena_.empty()) free_.push_back({0, arena_.size()});
}

Result<BufferPool::Buffer> BufferPool::acquire(std::size_t bytes, Deadline deadline,
                                               bool may_borrow) {
  auto buffers = acquire_many(bytes, 1, deadline, may_borrow);
  if (!buffers) return fail(std::move(buffers).error());
  return std::move(buffers->front());
}

Result<std::vector<BufferPool::Buffer>> BufferPool::acquire_many(std::size_t bytes,
                                                                 std::size_t count,
                                                                 Deadline deadline,
                                                                 bool may_borrow) {
  const auto carved = carved_size(bytes, count);
  if (!carved) return fail(carved.error());
  std::vector<Buffer> buffers;
  buffers.reserve(count);
  MutexLock lock(mutex_);
  Waiter self{*carved, count, may_borrow && count == 1, {}};
  const auto place = waiters_.insert(waiters_.end(), &self);
  Status status;
  for (bool expired = false;;) {
    if (closed_) {
      status = fail(Code::kCancelled, "the buffer pool is closed");
      break;
    }
    if (waiters_.front() == &self) {
      if (!held_.empty()) look_at_held();
      if (has_room(*carved, count)) {
        while (buffers.size() < count) buffers.push_back(carve(bytes, *carved));
        break;
      }
      if (self.may_borrow) {
        if (Buffer buffer = borrow(bytes, *carved)) {
          buffers.push_back(std::move(buffer));
          break;
        }
      }
    }
    if (expired) {
      status = fail(Code::kDeadlineExceeded,
                    "no buffer of " + std::to_string(bytes) + " bytes came free in time");
      break;
    }
    // Of a lender, too, there may be something held.
    const Deadline until =
        is_held_ ? std::min(deadline, Deadline::clock::now() + kLookAtHeld) : deadline;
    expired = self.turn.wait_until(lock, until) == std::cv_status::timeout &&
              Deadline::clock::now() >= deadline;
  }
  waiters_.erase(place);
  wake_first();
  if (!status) return fail(std::move(status).error());
  return buffers;
}

std::size_t BufferPool::in_use_bytes() const {
  const MutexLock lock(mutex_);
  return in_use_bytes_;
}

std::size_t BufferPool::waiters() const {
  const MutexLock lock(mutex_);
  return waiters_.size();
}

void BufferPool::close() {
  const MutexLock lock(mutex_);
  closed_ = true;
  for (Waiter* waiter : waiters_) waiter->turn.notify_one();
}

Result<std::size_t> BufferPool::carved_size(std::size_t bytes, std::size_t count) const {
  if (bytes == 0 || count == 0) {
    return fail(Code::kInvalidArgument, "a buffer of zero bytes was asked for");
  }
  // The arena is whole granules, so rounding up what fits cannot exceed it.
  const std::size_t carved = whole_granules(bytes);
  if (bytes > arena_.size() || carved > arena_.size() / count) {
    return fail(Code::kInvalidArgument,
                (count == 1 ? "a buffer" : std::to_string(count) + " buffers") + " of " +
                    std::to_string(bytes) + " bytes exceeds the pool of " +
                    std::to_string(arena_.size()) + " bytes");
  }
  return carved;
}

bool BufferPool::has_room(std::size_t carved, std::size_t count) const {
  std::size_t fit = 0;
  for (const FreeRange& range : free_) {
    fit += range.length / carved;
    if (fit >= count) return true;
  }
  return false;
}

BufferPool::Buffer BufferPool::carve(std::size_t bytes, std::size_t carved) {
  const auto range = std::find_if(free_.begin(), free_.end(),
                                  [&](const FreeRange& r) { return r.length >= carved; });
  return range == free_.end() ? Buffer() : take(range, From::kStart, bytes, carved);
}

BufferPool::Buffer BufferPool::take(std::vector<FreeRange>::iterator range, From from,
                                    std::size_t bytes, std::size_t carved) {
  Buffer buffer;
  range->length -= carved;
  buffer.pool_ = this;
  buffer.data_ = arena_.data() + range->offset + (from == From::kEnd ? range->length : 0);
  buffer.size_ = bytes;
  buffer.carved_ = carved;
  in_use_bytes_ += carved;
  if (from == From::kStart) range->offset += carved;
  if (range->length == 0) free_.erase(range);
  return buffer;
}

BufferPool::Buffer BufferPool::borrow(std::size_t bytes, std::size_t carved) {
  if (lender_ == nullptr) return {};
  const MutexLock lock(lender_->mutex_);
  const auto range = lender_->range_to_lend(carved, arena_.size());
  if (range == lender_->free_.end()) return {};
  return lender_->take(range, From::kEnd, bytes, carved);
}

std::vector<BufferPool::FreeRange>::iterator BufferPool::range_to_lend(std::size_t carved,
                                                                       std::size_t lease_bytes) {
  if (closed_ || !waiters_.empty()) return free_.end();
  const auto fits = [&](const FreeRange& r) { return r.length >= carved; };
  const auto last = std::find_if(free_.rbegin(), free_.rend(), fits);
  if (last == free_.rend()) return free_.end();
  const auto chosen = std::prev(last.base());
  for (auto range = free_.begin(); range != free_.end(); ++range) {
    if (range->length - (range == chosen ? carved : 0) >= lease_bytes) return chosen;
  }
  return free_.end();
}

bool BufferPool::may_be_served(const Waiter& waiter) {
  if (has_room(waiter.carved, waiter.count)) return true;
  if (!waiter.may_borrow || lender_ == nullptr) return false;
  const MutexLock lock(lender_->mutex_);
  return lender_->range_to_lend(waiter.carved, arena_.size()) != lender_->free_.end();
}

void BufferPool::give_back(std::byte* data, std::size_t carved) noexcept {
  const MutexLock lock(mutex_);
  const FreeRange range{static_cast<std::size_t>(data - arena_.data()), carved};
  if (!held_.empty()) look_at_held();
  if (is_held_ && is_held_({data, carved})) {
    held_.push_back(range);
  } else {
    make_free(range);
  }
  wake_first();
}

void BufferPool::look_at_held() noexcept {
  std::erase_if(held_, [this](const FreeRange& range) SIPHON_REQUIRES(mutex_) {
    if (is_held_({arena_.data() + range.offset, range.length})) return false;
    make_free(range);
    return true;
  });
}

void BufferPool::withhold(std::span<const std::byte> bytes) {
  const MutexLock lock(mutex_);
  if (bytes.empty() || bytes.data() < arena_.data() ||
      bytes.data() >= arena_.data() + arena_.size()) {
    return;
  }
  const auto at = static_cast<std::size_t>(bytes.data() - arena_.data());
  const std::size_t begin = at / kGranule * kGranule;
  const std::size_t end =
      std::min(begin + whole_granules(at - begin + bytes.size()), arena_.size());
  std::vector<FreeRange> rest;
  for (const FreeRange& range : free_) {
    const std::size_t range_end = range.offset + range.length;
    const std::size_t from = std::max(range.offset, begin), to = std::min(range_end, end);
    if (from >= to) {
      rest.push_back(range);
      continue;
    }
    if (range.offset < from) rest.push_back({range.offset, from - range.offset});
    if (to < range_end) rest.push_back({to, range_end - to});
    held_.push_back({from, to - from});
    in_use_bytes_ += to - from;
  }
  free_.assign(rest.begin(), rest.end());
}

void BufferPool::make_free(FreeRange range) noexcept {
  const std::size_t offset = range.offset, carved = range.length;
  in_use_bytes_ -= carved;
  auto next = std::find_if(free_.begin(), free_.end(),
                           [&](const FreeRange& r) { return r.offset > offset; });
  const bool joins_next = next != free_.end() && offset + carved == next->offset;
  const bool joins_previous =
      next != free_.begin() && std::prev(next)->offset + std::prev(next)->length == offset;
  if (joins_previous) {
    auto previous = std::prev(next);
    previous->length += carved;
    if (joins_next) {
      previous->length += next->length;
      free_.erase(next);
    }
  } else if (joins_next) {
    next->offset = offset;
    next->length += carved;
  } else {
    free_.insert(next, {offset, carved});
  }
}

void BufferPool::wake_first() noexcept {
  if (waiters_.empty()) return;
  if (may_be_served(*waiters_.front())) waiters_.front()->turn.notify_one();
}

Result<ArenaMemory> ArenaMemory::allocate(std::size_t bytes) {
  if (bytes == 0) return fail(Code::kInvalidArgument, "an arena of zero bytes was asked for");
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return fail(error_from_errno(errno, "map " + std::to_string(bytes) + " bytes for buffers"));
  }
  // Payload stays out of core files.
  ::madvise(memory, bytes, MADV_DONTDUMP);
  return ArenaMemory({static_cast<std::byte*>(memory), bytes});
}

ArenaMemory::ArenaMemory(ArenaMemory&& other) noexcept
    : memory_(std::exchange(other.memory_, {})) {}

ArenaMemory& ArenaMemory::operator=(ArenaMemory&& other) noexcept {
  if (this != &other) {
    if (!memory_.empty()) ::munmap(memory_.data(), memory_.size());
    memory_ = std::exchange(other.memory_, {});
  }
  return *this;
}

ArenaMemory::~ArenaMemory() {
  if (!memory_.empty()) ::munmap(memory_.data(), memory_.size());
}

}  // namespace siphon
