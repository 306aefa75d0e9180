// BufferPool: a bounded arena of page-aligned buffers; the only source of payload memory.
//
// The arena is memory that somebody else owns (the exchange's region, or an anonymous mapping), so
// the bytes in flight can never exceed it. Buffers are taken first-fit, in steps of 4 KiB.
// A transfer leases one Buffer of the device's pool and makes a pool of its own of it, its share:
// that much is guaranteed to it, so no transfer can starve another. When its share is used up, it
// borrows memory of the device's pool that nobody has leased, buffer by buffer.
//
// Thread safe. `acquire` blocks, first come first served; everything else does not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <span>
#include <vector>

#include "plugin/base/status.h"
#include "plugin/base/types.h"
#include "plugin/core/mutex.h"

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
    // As resize, and gives the granules no longer needed back to the arena.
    void shrink(std::size_t bytes);
    void reset();
    explicit operator bool() const { return pool_ != nullptr; }

   private:
    friend class BufferPool;
    BufferPool* pool_ = nullptr;
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t carved_ = 0;  // whole granules taken from the arena
  };

  static constexpr std::size_t kGranule = 4096;
  // What a buffer of so many bytes (one at least) takes of the arena.
  static constexpr std::size_t whole_granules(std::size_t bytes) {
    return (bytes - 1) / kGranule * kGranule + kGranule;
  }

  // Whether somebody else may still write to some of these bytes. Must not block or throw.
  using IsHeld = std::function<bool(std::span<const std::byte>)>;

  // `arena` starts page-aligned and outlives the pool. Only its whole granules are used. What
  // `is_held` when it comes back (here or to a share) is handed out again only when it no longer
  // is.
  explicit BufferPool(std::span<std::byte> arena, IsHeld is_held = {});
  // A share of the pool that `lease` is of. Beyond the lease it borrows there, from the arena's
  // end: not while others wait for a buffer, and never the last room for a lease of this size,
  // which a newcomer would need. Outlives its buffers; `lease` and its pool outlive the share.
  explicit BufferPool(const Buffer& lease);
  // Every buffer is back and nobody waits by then.
  ~BufferPool() = default;
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // Blocks until `bytes` contiguous bytes are free; a share that may not borrow has only its lease.
  // INVALID_ARGUMENT: larger than the arena or zero; DEADLINE_EXCEEDED; CANCELLED after close().
  Result<Buffer> acquire(std::size_t bytes, Deadline deadline, bool may_borrow = true);
  // The same for `count` buffers of that size: all of them, or none. Several are never borrowed.
  Result<std::vector<Buffer>> acquire_many(std::size_t bytes, std::size_t count, Deadline deadline,
                                           bool may_borrow = true);
  // Takes from a fresh pool what `is_held` from the start.
  void withhold(std::span<const std::byte> bytes);
  std::size_t arena_bytes() const { return arena_.size(); }
  // Carved out of the arena: what was asked for, rounded up to whole granules.
  std::size_t in_use_bytes() const;
  // Threads blocked in `acquire`.
  std::size_t waiters() const;
  // Wakes every waiter with CANCELLED; buffers out stay valid.
  void close();

 private:
  BufferPool(std::span<std::byte> arena, BufferPool* lender, IsHeld is_held);

  struct FreeRange {
    std::size_t offset;
    std::size_t length;
  };
  struct Waiter {
    const std::size_t carved;
    const std::size_t count;
    const bool may_borrow;
    Condition turn;
  };

  // Rounds up to granules; INVALID_ARGUMENT when so many can never fit.
  Result<std::size_t> carved_size(std::size_t bytes, std::size_t count) const;
  bool has_room(std::size_t carved, std::size_t count) const SIPHON_REQUIRES(mutex_);
  bool may_be_served(const Waiter& waiter) SIPHON_REQUIRES(mutex_);
  // An empty Buffer when nothing fits.
  Buffer carve(std::size_t bytes, std::size_t carved) SIPHON_REQUIRES(mutex_);
  // From the range's start or end.
  enum class From { kStart, kEnd };
  Buffer take(std::vector<FreeRange>::iterator range, From from, std::size_t bytes,
              std::size_t carved) SIPHON_REQUIRES(mutex_);
  // As carve, for a share, of the lender's arena.
  Buffer borrow(std::size_t bytes, std::size_t carved) SIPHON_REQUIRES(mutex_);
  // The free range at whose end a share with a lease of `lease_bytes` may borrow so much, or end().
  std::vector<FreeRange>::iterator range_to_lend(std::size_t carved, std::size_t lease_bytes)
      SIPHON_REQUIRES(mutex_);
  void give_back(std::byte* data, std::size_t carved) noexcept;
  void make_free(FreeRange range) noexcept SIPHON_REQUIRES(mutex_);
  // Frees what is no longer held.
  void look_at_held() noexcept SIPHON_REQUIRES(mutex_);
  void wake_first() noexcept SIPHON_REQUIRES(mutex_);  // if there may be what it waits for

  const std::span<std::byte> arena_;
  const IsHeld is_held_;
  BufferPool* const lender_;  // of a share; its mutex_ is taken after ours
  mutable Mutex mutex_;
  // Sorted, coalesced, and reserved for the worst fragmentation, so that giving back never
  // allocates.
  std::vector<FreeRange> free_ SIPHON_GUARDED_BY(mutex_);
  // They count as in use; room for as many as free_ has.
  std::vector<FreeRange> held_ SIPHON_GUARDED_BY(mutex_);
  // In order of arrival; only the first may carve.
  std::list<Waiter*> waiters_ SIPHON_GUARDED_BY(mutex_);
  std::size_t in_use_bytes_ SIPHON_GUARDED_BY(mutex_) = 0;
  bool closed_ SIPHON_GUARDED_BY(mutex_) = false;
};

// Anonymous page-aligned memory for homes without an exchange.
class ArenaMemory {
 public:
  // RESOURCE_EXHAUSTED when the kernel has no such room; INVALID_ARGUMENT for zero.
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
