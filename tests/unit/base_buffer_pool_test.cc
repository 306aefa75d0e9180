#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "plugin/base/buffer_pool.h"
#include "tests/support/test_random.h"

namespace siphon {
namespace {

constexpr std::size_t kGranule = BufferPool::kGranule;

Deadline far_away() { return deadline_in(std::chrono::minutes(5)); }
Deadline long_ago() { return deadline_in(std::chrono::milliseconds(-1)); }

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
    auto buffer = pool.try_acquire(kGranule - static_cast<std::size_t>(i));
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
  EXPECT_EQ(pool.largest_free_bytes(), 0u);
  EXPECT_EQ(pool.try_acquire(1).error().code, Code::kResourceExhausted);
  EXPECT_EQ(pool.acquire(1, long_ago()).error().code, Code::kDeadlineExceeded);
}

TEST_F(BaseBufferPool, ImpossibleSizesAreRefused) {
  for (std::size_t bytes : {std::size_t{0}, pool.arena_bytes() + 1, ~std::size_t{0}}) {
    EXPECT_EQ(pool.try_acquire(bytes).error().code, Code::kInvalidArgument);
    EXPECT_EQ(pool.acquire(bytes, far_away()).error().code, Code::kInvalidArgument);
  }
  EXPECT_TRUE(pool.try_acquire(pool.arena_bytes()));
}

TEST_F(BaseBufferPool, OnlyWholeGranulesOfTheArenaCount) {
  BufferPool odd(memory.span().first(2 * kGranule + 100));
  EXPECT_EQ(odd.arena_bytes(), 2 * kGranule);
  EXPECT_EQ(odd.try_acquire(2 * kGranule + 1).error().code, Code::kInvalidArgument);
  BufferPool none(memory.span().first(100));
  EXPECT_EQ(none.try_acquire(1).error().code, Code::kInvalidArgument);
}

TEST_F(BaseBufferPool, NeighboursCoalesceInEveryOrder) {
  for (const auto& order : std::vector<std::vector<int>>{
           {0, 1, 2, 3}, {3, 2, 1, 0}, {0, 2, 1, 3}, {1, 3, 2, 0}, {2, 0, 3, 1}}) {
    std::vector<BufferPool::Buffer> buffers;
    for (int i = 0; i < 4; ++i) buffers.push_back(pool.try_acquire(4 * kGranule).value());
    for (int i : order) buffers[static_cast<std::size_t>(i)].reset();
    EXPECT_EQ(pool.largest_free_bytes(), pool.arena_bytes());
    EXPECT_EQ(pool.in_use_bytes(), 0u);
  }
}

TEST_F(BaseBufferPool, FirstFit) {
  auto a = pool.try_acquire(2 * kGranule).value();
  auto b = pool.try_acquire(kGranule).value();
  std::byte* const start = a.data();
  a.reset();
  auto c = pool.try_acquire(kGranule).value();
  EXPECT_EQ(c.data(), start);
  auto d = pool.try_acquire(2 * kGranule).value();
  EXPECT_EQ(d.data(), start + 3 * kGranule);
}

TEST_F(BaseBufferPool, MovingHandsTheLeaseOn) {
  auto a = pool.try_acquire(100).value();
  BufferPool::Buffer b = std::move(a);
  EXPECT_FALSE(a);  // NOLINT: looking at a moved-from buffer is the point
  EXPECT_EQ(a.size(), 0u);
  EXPECT_EQ(b.size(), 100u);
  b.resize(200);
  EXPECT_EQ(b.size(), 100u);
  b.resize(50);
  EXPECT_EQ(b.size(), 50u);
  EXPECT_EQ(pool.in_use_bytes(), kGranule);
  b = pool.try_acquire(2 * kGranule).value();
  EXPECT_EQ(pool.in_use_bytes(), 2 * kGranule);
  b.reset();
  b.reset();
  EXPECT_EQ(pool.in_use_bytes(), 0u);
}

TEST_F(BaseBufferPool, WaitersAreServedInOrderOfArrival) {
  auto all = pool.try_acquire(pool.arena_bytes()).value();
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
  auto half = pool.try_acquire(8 * kGranule).value();
  std::thread large([&] { EXPECT_TRUE(pool.acquire(16 * kGranule, far_away())); });
  await_waiters(1);
  EXPECT_GT(pool.largest_free_bytes(), kGranule);
  EXPECT_EQ(pool.try_acquire(1).error().code, Code::kResourceExhausted);
  EXPECT_EQ(pool.acquire(1, long_ago()).error().code, Code::kDeadlineExceeded);
  half.reset();
  large.join();
  EXPECT_TRUE(pool.try_acquire(1));
}

TEST_F(BaseBufferPool, AWaiterThatGivesUpLetsTheNextOneIn) {
  auto half = pool.try_acquire(8 * kGranule).value();
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
  auto all = pool.try_acquire(pool.arena_bytes()).value();
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
  EXPECT_EQ(pool.try_acquire(1).error().code, Code::kCancelled);
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
  EXPECT_EQ(pool.largest_free_bytes(), pool.arena_bytes());
  EXPECT_EQ(pool.waiters(), 0u);
}

TEST_F(BaseBufferPool, APoolInsideALeaseKeepsToIt) {
  auto lease = pool.try_acquire(4 * kGranule).value();
  BufferPool share(lease.span());
  EXPECT_EQ(share.arena_bytes(), 4 * kGranule);
  auto inner = share.try_acquire(4 * kGranule).value();
  EXPECT_EQ(inner.data(), lease.data());
  EXPECT_TRUE(pool.try_acquire(12 * kGranule));
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

}  // namespace
}  // namespace siphon
