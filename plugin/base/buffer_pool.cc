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

BufferPool::BufferPool(std::span<std::byte> arena) : BufferPool(arena, nullptr) {}

BufferPool::BufferPool(const Buffer& lease) : BufferPool(lease.span(), lease.pool_) {}

BufferPool::BufferPool(std::span<std::byte> arena, BufferPool* lender)
    : arena_(arena.first(arena.size() / kGranule * kGranule)), lender_(lender) {
  // Free ranges never touch, so between any two lies at least one granule in use.
  free_.reserve(arena_.size() / kGranule / 2 + 1);
  if (!arena_.empty()) free_.push_back({0, arena_.size()});
}

Result<BufferPool::Buffer> BufferPool::acquire(std::size_t bytes, Deadline deadline,
                                               bool may_borrow) {
  const auto carved = carved_size(bytes);
  if (!carved) return fail(carved.error());
  std::unique_lock lock(mutex_);
  Waiter self;
  const auto place = waiters_.insert(waiters_.end(), &self);
  Result<Buffer> result = Buffer();
  for (bool expired = false;;) {
    if (closed_) {
      result = fail(Code::kCancelled, "the buffer pool is closed");
      break;
    }
    if (waiters_.front() == &self) {
      *result = carve(bytes, *carved);
      if (!*result && may_borrow) *result = borrow(bytes, *carved);
      if (*result) break;
    }
    if (expired) {
      result = fail(Code::kDeadlineExceeded,
                    "no buffer of " + std::to_string(bytes) + " bytes came free in time");
      break;
    }
    expired = self.turn.wait_until(lock, deadline) == std::cv_status::timeout;
  }
  waiters_.erase(place);
  wake_first();
  return result;
}

std::size_t BufferPool::in_use_bytes() const {
  std::lock_guard lock(mutex_);
  return in_use_bytes_;
}

std::size_t BufferPool::waiters() const {
  std::lock_guard lock(mutex_);
  return waiters_.size();
}

void BufferPool::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  for (Waiter* waiter : waiters_) waiter->turn.notify_one();
}

Result<std::size_t> BufferPool::carved_size(std::size_t bytes) const {
  if (bytes == 0) return fail(Code::kInvalidArgument, "a buffer of zero bytes was asked for");
  if (bytes > arena_.size()) {  // arena_ is whole granules, so rounding up cannot exceed it
    return fail(Code::kInvalidArgument, "a buffer of " + std::to_string(bytes) +
                                            " bytes exceeds the pool of " +
                                            std::to_string(arena_.size()) + " bytes");
  }
  return (bytes + kGranule - 1) / kGranule * kGranule;
}

BufferPool::Buffer BufferPool::carve(std::size_t bytes, std::size_t carved) {
  Buffer buffer;
  const auto range = std::find_if(free_.begin(), free_.end(),
                                  [&](const FreeRange& r) { return r.length >= carved; });
  if (range == free_.end()) return buffer;
  buffer.pool_ = this;
  buffer.data_ = arena_.data() + range->offset;
  buffer.size_ = bytes;
  buffer.carved_ = carved;
  in_use_bytes_ += carved;
  range->offset += carved;
  range->length -= carved;
  if (range->length == 0) free_.erase(range);
  return buffer;
}

BufferPool::Buffer BufferPool::borrow(std::size_t bytes, std::size_t carved) {
  if (lender_ == nullptr) return {};
  const std::lock_guard lock(lender_->mutex_);
  if (lender_->closed_ || !lender_->waiters_.empty()) return {};
  const std::size_t free_bytes = lender_->arena_.size() - lender_->in_use_bytes_;
  if (free_bytes < carved + arena_.size()) return {};
  return lender_->carve(bytes, carved);
}

void BufferPool::give_back(std::byte* data, std::size_t carved) noexcept {
  std::lock_guard lock(mutex_);
  const auto offset = static_cast<std::size_t>(data - arena_.data());
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
  wake_first();
}

void BufferPool::wake_first() noexcept {
  if (!waiters_.empty()) waiters_.front()->turn.notify_one();
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
