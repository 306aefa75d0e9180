#include "plugin/base/buffer_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/support/test_random.h"

namespace siphon {
namespace {

constexpr std::size_t kGranule = BufferPool::kGranule;

Deadline far_away() { return deadline_in(std::chrono::minutes(5)); }
Deadline long_ago() { return deadline_in(std::chrono::milliseconds(-1)); }

Result<BufferPool::Buffer> at_once(BufferPool& pool, std::size_t bytes) {
  return pool.acquire(bytes, long_ago());
}

class BaseBufferPool : public testing::Test {
 protected:
  // Until `count` threads block in acquire; every wait of these tests ends by a deadline.
  void await_waiters(std::size_t count) {
    const Deadline limit = far_away();
    while (pool.waiters() != count && std::chrono::steady_clock::now() < limit) {
      std::this_thread::yield();
    }
    ASSERT_EQ(pool.waiters(), count);
  }

  ArenaMemory memory = std::move(ArenaMemory::allocate(16 * kGranule)).value();
  BufferPool pool{memory.span()};
};

TEST_F(BaseBufferPool, BuffersAreAlignedDisjointAndInsideTheArena) {
  std::vector<BufferPool::Buffer> buffers;
  for (int i = 0; i < 16; ++i) {
    auto buffer = at_once(pool, kGranule - static_cast<std::size_t>(i));
    ASSERT_TRUE(buffer);
    EXPECT_EQ(buffer->size(), kGranule - static_cast<std::size_t>(i));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer->data()) % kGranule, 0u);
    EXPECT_GE(buffer->data(), memory.span().data());
    EXPECT_LE(buffer->data() + kGranule, memory.span().data() + memory.span().size());
    std::memset(buffer->data(), i, buffer->size());
    buffers.push_back(*std::move(buffer));
  }
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(buffers[static_cast<std::size_t>(i)].data()[100], static_cast<std::byte>(i));
  }
  EXPECT_EQ(pool.in_use_bytes(), pool.arena_bytes());
  EXPECT_EQ(at_once(pool, 1).error().code, Code::kDeadlineExceeded);
}

TEST_F(BaseBufferPool, ImpossibleSizesAreRefused) {
  for (std::size_t bytes : {std::size_t{0}, pool.arena_bytes() + 1, ~std::size_t{0}}) {
    EXPECT_EQ(pool.acquire(bytes, far_away()).error().code, Code::kInvalidArgument);
  }
  EXPECT_TRUE(at_once(pool, pool.arena_bytes()));
}

TEST_F(BaseBufferPool, OnlyWholeGranulesOfTheArenaCount) {
  BufferPool odd(memory.span().first(2 * kGranule + 100));
  EXPECT_EQ(odd.arena_bytes(), 2 * kGranule);
  EXPECT_EQ(at_once(odd, 2 * kGranule + 1).error().code, Code::kInvalidArgument);
  BufferPool none(memory.span().first(100));
  EXPECT_EQ(at_once(none, 1).error().code, Code::kInvalidArgument);
}

TEST_F(BaseBufferPool, NeighboursCoalesceInEveryOrder) {
  for (const auto& order : std::vector<std::vector<int>>{
           {0, 1, 2, 3}, {3, 2, 1, 0}, {0, 2, 1, 3}, {1, 3, 2, 0}, {2, 0, 3, 1}}) {
    std::vector<BufferPool::Buffer> buffers;
    for (int i = 0; i < 4; ++i) buffers.push_back(at_once(pool, 4 * kGranule).value());
    for (int i : order) buffers[static_cast<std::size_t>(i)].reset();
    EXPECT_TRUE(at_once(pool, pool.arena_bytes()));
    EXPECT_EQ(pool.in_use_bytes(), 0u);
  }
}

TEST_F(BaseBufferPool, FirstFit) {
  auto a = at_once(pool, 2 * kGranule).value();
  auto b = at_once(pool, kGranule).value();
  std::byte* const start = a.data();
  a.reset();
  auto c = at_once(pool, kGranule).value();
  EXPECT_EQ(c.data(), start);
  auto d = at_once(pool, 2 * kGranule).value();
  EXPECT_EQ(d.data(), start + 3 * kGranule);
}

TEST_F(BaseBufferPool, MovingHandsTheLeaseOn) {
  auto a = at_once(pool, 100).value();
  BufferPool::Buffer b = std::move(a);
  EXPECT_FALSE(a);  // NOLINT: looking at a moved-from buffer is the point
  EXPECT_EQ(a.size(), 0u);
  EXPECT_EQ(b.size(), 100u);
  b.resize(200);
  EXPECT_EQ(b.size(), 100u);
  b.resize(50);
  EXPECT_EQ(b.size(), 50u);
  EXPECT_EQ(pool.in_use_bytes(), kGranule);
  b = at_once(pool, 2 * kGranule).value();
  EXPECT_EQ(pool.in_use_bytes(), 2 * kGranule);
  b.reset();
  b.reset();
  EXPECT_EQ(pool.in_use_bytes(), 0u);
}

TEST_F(BaseBufferPool, WaitersAreServedInOrderOfArrival) {
  auto all = at_once(pool, pool.arena_bytes()).value();
  std::mutex mutex;
  std::vector<int> order;
  std::vector<std::thread> threads;
  for (int i = 0; i < 5; ++i) {
    threads.emplace_back([&, i] {
      // Each wants everything, so that the next is served only when this one is recorded.
      auto buffer = pool.acquire(pool.arena_bytes(), far_away());
      ASSERT_TRUE(buffer);
      std::lock_guard lock(mutex);
      order.push_back(i);
    });
    await_waiters(static_cast<std::size_t>(i) + 1);
  }
  all.reset();
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
}

TEST_F(BaseBufferPool, SmallRequestsDoNotOvertakeALargeWaiter) {
  auto half = at_once(pool, 8 * kGranule).value();
  std::thread large([&] { EXPECT_TRUE(pool.acquire(16 * kGranule, far_away())); });
  await_waiters(1);
  EXPECT_EQ(pool.in_use_bytes(), 8 * kGranule);
  EXPECT_EQ(at_once(pool, 1).error().code, Code::kDeadlineExceeded);
  half.reset();
  large.join();
  EXPECT_TRUE(at_once(pool, 1));
}

TEST_F(BaseBufferPool, ManyAreAllOrNone) {
  EXPECT_EQ(pool.acquire_many(kGranule, 0, far_away()).error().code, Code::kInvalidArgument);
  EXPECT_EQ(pool.acquire_many(kGranule, 17, far_away()).error().code, Code::kInvalidArgument);
  EXPECT_EQ(pool.acquire_many(1, 17, far_away()).error().code, Code::kInvalidArgument);
  std::vector<BufferPool::Buffer> singles;
  for (int i = 0; i < 16; ++i) singles.push_back(at_once(pool, kGranule).value());
  for (int i : {1, 4, 5, 9}) singles[static_cast<std::size_t>(i)].reset();
  // Holes of one, two and one granules: four of one, or one of two.
  EXPECT_EQ(pool.acquire_many(kGranule, 5, long_ago()).error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(pool.in_use_bytes(), 12 * kGranule);
  EXPECT_EQ(pool.acquire_many(2 * kGranule, 2, long_ago()).error().code, Code::kDeadlineExceeded);
  auto many = pool.acquire_many(kGranule, 4, long_ago());
  ASSERT_TRUE(many);
  EXPECT_EQ(many->size(), 4u);
  EXPECT_EQ(pool.in_use_bytes(), 16 * kGranule);
  std::thread waiter([&] { EXPECT_EQ(pool.acquire_many(kGranule, 3, far_away())->size(), 3u); });
  await_waiters(1);
  many->clear();
  waiter.join();
}

TEST_F(BaseBufferPool, AShareInLineBorrowsWhenItsTurnComes) {
  auto lease = at_once(pool, 4 * kGranule).value();
  BufferPool share(lease);
  auto own = at_once(share, 2 * kGranule).value();
  // The first in line waits for what only the lease has; whoever is next could borrow.
  std::thread first([&] {
    const auto soon = deadline_in(std::chrono::milliseconds(50));
    EXPECT_EQ(share.acquire(4 * kGranule, soon, /*may_borrow=*/false).error().code,
              Code::kDeadlineExceeded);
  });
  std::thread next([&] { EXPECT_TRUE(share.acquire(3 * kGranule, far_away())); });
  first.join();
  next.join();
}

TEST_F(BaseBufferPool, AWaiterThatGivesUpLetsTheNextOneIn) {
  auto half = at_once(pool, 8 * kGranule).value();
  std::thread large([&] {
    const auto buffer = pool.acquire(16 * kGranule, deadline_in(std::chrono::milliseconds(50)));
    ASSERT_FALSE(buffer);
    EXPECT_EQ(buffer.error().code, Code::kDeadlineExceeded);
  });
  std::thread small([&] { EXPECT_TRUE(pool.acquire(kGranule, far_away())); });
  large.join();
  small.join();  // nothing was given back meanwhile: only the leaver can have woken it
}

TEST_F(BaseBufferPool, CloseWakesEveryWaiterAndLeavesBuffersValid) {
  auto all = at_once(pool, pool.arena_bytes()).value();
  std::vector<std::thread> threads;
  std::atomic<int> cancelled = 0;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      const auto buffer = pool.acquire(kGranule, far_away());
      if (!buffer && buffer.error().code == Code::kCancelled) ++cancelled;
    });
  }
  await_waiters(3);
  pool.close();
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(cancelled, 3);
  std::memset(all.data(), 1, all.size());
  EXPECT_EQ(pool.acquire(1, far_away()).error().code, Code::kCancelled);
  all.reset();
  EXPECT_EQ(pool.in_use_bytes(), 0u);
}

TEST_F(BaseBufferPool, ManyThreadsNeverShareMemoryAndGiveAllBack) {
  test::TestRandom seeds;
  SCOPED_TRACE(seeds.trace());
  std::vector<std::thread> threads;
  std::atomic<int> clashes = 0;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t, seed = seeds.number(0, ~0ull)] {
      test::TestRandom random(seed);
      for (int round = 0; round < 300; ++round) {
        auto buffer = pool.acquire(random.number(1, 9 * kGranule), far_away());
        ASSERT_TRUE(buffer);
        const auto mark = static_cast<std::byte>(t + 1);
        std::memset(buffer->data(), t + 1, buffer->size());
        if (round % 16 == 0) std::this_thread::yield();
        for (std::byte b : buffer->span()) {
          if (b != mark) ++clashes;
        }
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(clashes, 0);
  EXPECT_EQ(pool.in_use_bytes(), 0u);
  EXPECT_TRUE(at_once(pool, pool.arena_bytes()));
  EXPECT_EQ(pool.waiters(), 0u);
}

TEST_F(BaseBufferPool, AShareTakesItsLeaseFirstAndBorrowsAllButOneLeaseMore) {
  auto lease = at_once(pool, 4 * kGranule).value();
  BufferPool share(lease);
  EXPECT_EQ(share.arena_bytes(), 4 * kGranule);
  const auto own = at_once(share, 4 * kGranule).value();
  EXPECT_EQ(own.data(), lease.data());
  std::vector<BufferPool::Buffer> borrowed;
  while (auto buffer = at_once(share, 2 * kGranule)) borrowed.push_back(*std::move(buffer));
  EXPECT_EQ(borrowed.size(), 4u);
  EXPECT_EQ(pool.in_use_bytes(), 12 * kGranule);
  EXPECT_EQ(share.in_use_bytes(), 4 * kGranule);
  auto newcomer = at_once(pool, 4 * kGranule);
  ASSERT_TRUE(newcomer);
  // What the newcomer does not use for a lease is left to it all the same.
  borrowed.clear();
  EXPECT_EQ(pool.in_use_bytes(), 8 * kGranule);
  EXPECT_TRUE(at_once(share, 4 * kGranule));
}

TEST_F(BaseBufferPool, AShareThatMayNotBorrowHasItsLease) {
  auto lease = at_once(pool, 4 * kGranule).value();
  BufferPool share(lease);
  auto own = share.acquire(4 * kGranule, long_ago(), /*may_borrow=*/false);
  ASSERT_TRUE(own);
  EXPECT_EQ(share.acquire(1, long_ago(), /*may_borrow=*/false).error().code,
            Code::kDeadlineExceeded);
  EXPECT_TRUE(at_once(share, 1));
  EXPECT_EQ(pool.in_use_bytes(), 4 * kGranule);
}

TEST_F(BaseBufferPool, AShareBorrowsNothingThatOthersWaitFor) {
  auto lease = at_once(pool, 4 * kGranule).value();
  BufferPool share(lease);
  auto own = at_once(share, 4 * kGranule).value();
  auto borrowed = at_once(share, 4 * kGranule).value();
  std::thread waiter([&] { EXPECT_TRUE(pool.acquire(12 * kGranule, far_away())); });
  await_waiters(1);
  EXPECT_EQ(at_once(share, kGranule).error().code, Code::kDeadlineExceeded);
  borrowed.reset();
  waiter.join();
  EXPECT_TRUE(at_once(share, kGranule));
  own.reset();
  EXPECT_EQ(pool.in_use_bytes(), 4 * kGranule);
}

TEST(BaseArenaMemory, MapsMovesAndRefuses) {
  EXPECT_EQ(ArenaMemory::allocate(0).error().code, Code::kInvalidArgument);
  EXPECT_EQ(ArenaMemory::allocate(std::size_t{1} << 62).error().code, Code::kResourceExhausted);
  auto memory = std::move(ArenaMemory::allocate(kGranule)).value();
  memory.span()[0] = std::byte{1};
  ArenaMemory other = std::move(memory);
  EXPECT_TRUE(memory.span().empty());  // NOLINT: looking at a moved-from arena is the point
  memory = std::move(other);
  EXPECT_EQ(memory.span()[0], std::byte{1});
}

// Somebody else may still write there: an OSD that was stopped in the middle of a copy.
TEST_F(BaseBufferPool, WhatIsHeldIsNotHandedOutUntilItNoLongerIs) {
  const std::byte* held = nullptr;
  std::mutex mutex;
  BufferPool pool(memory.span(), [&](std::span<const std::byte> bytes) {
    const std::lock_guard lock(mutex);
    return held != nullptr && held >= bytes.data() && held < bytes.data() + bytes.size();
  });
  auto set_held = [&](const std::byte* at) {
    const std::lock_guard lock(mutex);
    held = at;
  };
  {
    auto lease = pool.acquire(8 * kGranule, long_ago());
    ASSERT_TRUE(lease);
    BufferPool share(*lease);
    auto buffer = share.acquire(2 * kGranule, long_ago(), false);
    ASSERT_TRUE(buffer);
    set_held(buffer->data());
    buffer->reset();
    EXPECT_EQ(share.in_use_bytes(), 2 * kGranule);
    auto rest = share.acquire(6 * kGranule, long_ago(), false);
    EXPECT_TRUE(rest) << "the rest of the share serves";
    EXPECT_FALSE(share.acquire(1, long_ago(), false));
  }
  // The lease went back in whole, and is held in whole.
  EXPECT_EQ(pool.in_use_bytes(), 8 * kGranule);
  EXPECT_FALSE(pool.acquire(9 * kGranule, long_ago()));
  std::thread waiter([&] { EXPECT_TRUE(pool.acquire(16 * kGranule, far_away())); });
  while (pool.waiters() == 0) std::this_thread::yield();
  set_held(nullptr);  // nobody tells the pool
  waiter.join();
  EXPECT_EQ(pool.in_use_bytes(), 0u);
}

TEST_F(BaseBufferPool, AFreshPoolWithholdsWhatIsHeldFromTheStart) {
  bool held = true;
  BufferPool pool(memory.span(), [&](std::span<const std::byte>) { return held; });
  const std::span<std::byte> all = memory.span();
  pool.withhold(all.subspan(3 * kGranule + 5, kGranule));  // two granules of it
  pool.withhold(all.subspan(15 * kGranule, kGranule));
  pool.withhold({all.data() + all.size() + kGranule, kGranule});  // not of this pool
  EXPECT_EQ(pool.in_use_bytes(), 3 * kGranule);
  EXPECT_FALSE(pool.acquire(11 * kGranule, long_ago()));
  {
    auto before = pool.acquire(3 * kGranule, long_ago());
    auto behind = pool.acquire(10 * kGranule, long_ago());
    ASSERT_TRUE(before && behind);
    EXPECT_EQ(behind->data(), all.data() + 5 * kGranule);
    held = false;
  }
  EXPECT_TRUE(pool.acquire(16 * kGranule, long_ago()));
}

}  // namespace
}  // namespace siphon
