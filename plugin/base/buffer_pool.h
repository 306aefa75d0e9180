// BufferPool: a bounded arena of page-aligned buffers; the only source of payload memory.
//
// The arena is memory that somebody else owns (the exchange's region, or an anonymous mapping),
// so "bytes in flight" can never exceed it. Buffers are carved first-fit at 4 KiB granularity.
// A transfer leases one Buffer of the device's pool and runs a pool of its own inside it: its
// share is guaranteed, and no transfer can starve another.
//
// Thread safe. `acquire` blocks, first come first served; everything else does not.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>

#include "plugin/base/status.h"
#include "plugin/base/types.h"

namespace siphon {

class BufferPool {
 public:
  // A lease on part of the arena; gives it back on destruction. Must not outlive the pool.
  // `size()` is what was asked for; `resize` shrinks what is considered used (never grows).
  class Buffer {
   public:
    Buffer() = default;
    Buffer(Buffer&& other) noexcept;
    Buffer& operator=(Buffer&& other) noexcept;
    ~Buffer() { reset(); }
    std::byte* data() const { return data_; }
    std::size_t size() const { return size_; }
    std::span<std::byte> span() const { return {data_, size_}; }
    void resize(std::size_t bytes) { size_ = bytes < size_ ? bytes : size_; }
    void reset();
    explicit operator bool() const { return pool_ != nullptr; }

   private:
    friend class BufferPool;
    BufferPool* pool_ = nullptr;
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t carved_ = 0;
  };

  static constexpr std::size_t kGranule = 4096;

  // `arena` starts page-aligned and outlives the pool.
  explicit BufferPool(std::span<std::byte> arena);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // Blocks until `bytes` contiguous bytes are free. INVALID_ARGUMENT: larger than the arena or
  // zero; DEADLINE_EXCEEDED; CANCELLED after close().
  Result<Buffer> acquire(std::size_t bytes, Deadline deadline);
  // At once or RESOURCE_EXHAUSTED; does not overtake waiters.
  Result<Buffer> try_acquire(std::size_t bytes);
  // The largest buffer that could be had at once.
  std::size_t largest_free_bytes() const;
  std::size_t arena_bytes() const { return arena_.size(); }
  std::size_t in_use_bytes() const;
  // Wakes every waiter with CANCELLED; buffers out stay valid.
  void close();

 private:
  std::byte* carve(std::size_t bytes);  // with mutex_ held
  void give_back(std::byte* data, std::size_t bytes);

  const std::span<std::byte> arena_;
  mutable std::mutex mutex_;
  std::condition_variable freed_;
  std::map<std::size_t, std::size_t> free_;  // offset -> length, coalesced
  std::size_t in_use_bytes_ = 0;
  std::uint64_t next_waiter_ = 0;
  std::uint64_t now_serving_ = 0;
  std::map<std::uint64_t, bool> abandoned_;  // waiters that timed out before their turn
  bool closed_ = false;
};

// Anonymous page-aligned memory for homes without an exchange.
class ArenaMemory {
 public:
  static Result<ArenaMemory> allocate(std::size_t bytes);
  ArenaMemory(ArenaMemory&& other) noexcept;
  ArenaMemory& operator=(ArenaMemory&& other) noexcept;
  ~ArenaMemory();
  std::span<std::byte> span() const { return memory_; }

 private:
  explicit ArenaMemory(std::span<std::byte> memory) : memory_(memory) {}
  std::span<std::byte> memory_;
};

}  // namespace siphon
