#include "plugin/base/write_limiter.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>
#include <vector>

namespace siphon {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kLong{60};        // a test that waits so long has failed
constexpr milliseconds kShort{50};  // long enough to see that a write does not begin
constexpr seconds kForever{3600};

// A write on a thread of its own, which ends when told to.
class HeldWrite {
 public:
  HeldWrite(WriteLimiter& limiter, std::uint64_t units)
      : ended_(std::async(std::launch::async, [this, &limiter, units] {
          const auto slot = limiter.acquire(units, deadline_in(kForever));
          begun_.set_value();
          go_.get_future().wait();
        })) {}
  ~HeldWrite() { end(); }
  void end() {
    if (!ended_.valid()) return;
    go_.set_value();
    ended_.get();
  }
  bool begins_within(milliseconds time) {
    return begins_.wait_for(time) == std::future_status::ready;
  }

 private:
  std::promise<void> begun_, go_;
  std::future<void> begins_ = begun_.get_future();
  std::future<void> ended_;
};

constexpr milliseconds kTarget{80};

// The time is what the test says.
class Hand {
 public:
  auto clock() {
    return [this] { return Time(Time::duration(ticks_.load())); };
  }
  void advance(milliseconds time) { ticks_ += Time::duration(time).count(); }

 private:
  using Time = std::chrono::steady_clock::time_point;
  std::atomic<Time::rep> ticks_{0};
};

WriteLimiter::Bounds fixed(std::uint64_t units, milliseconds patience) {
  return {units, units, milliseconds(0), patience};
}

TEST(WriteLimiter, AdmitsAsMuchAsThereIsRoomFor) {
  WriteLimiter limiter(fixed(10, kForever));
  HeldWrite a(limiter, 6), b(limiter, 4);
  ASSERT_TRUE(a.begins_within(kLong));
  ASSERT_TRUE(b.begins_within(kLong));
  HeldWrite c(limiter, 1);
  EXPECT_FALSE(c.begins_within(kShort));
  b.end();
  EXPECT_TRUE(c.begins_within(kLong));
}

TEST(WriteLimiter, OneThatNeedsMoreThanThereIsRunsAlone) {
  WriteLimiter limiter(fixed(10, kForever));
  HeldWrite small(limiter, 1);
  ASSERT_TRUE(small.begins_within(kLong));
  HeldWrite large(limiter, 11);
  EXPECT_FALSE(large.begins_within(kShort));
  small.end();
  EXPECT_TRUE(large.begins_within(kLong));
}

TEST(WriteLimiter, SmallOnesDoNotPassALargeOneThatWaits) {
  WriteLimiter limiter(fixed(10, kForever));
  HeldWrite first(limiter, 6);
  ASSERT_TRUE(first.begins_within(kLong));
  HeldWrite large(limiter, 8);
  EXPECT_FALSE(large.begins_within(kShort));
  HeldWrite small(limiter, 2);  // there would be room
  EXPECT_FALSE(small.begins_within(kShort));
  first.end();
  EXPECT_TRUE(large.begins_within(kLong));
  EXPECT_TRUE(small.begins_within(kLong));
}

TEST(WriteLimiter, OneThatHangsKeepsNoOtherOut) {
  Hand hand;
  WriteLimiter limiter(fixed(10, kShort), hand.clock());
  HeldWrite hangs(limiter, 10);
  ASSERT_TRUE(hangs.begins_within(kLong));
  HeldWrite next(limiter, 10);
  EXPECT_FALSE(next.begins_within(4 * kShort));  // by the limiter's clock no time has passed
  hand.advance(kShort);
  EXPECT_TRUE(next.begins_within(kLong));
  // It ends after all, and gives back nothing that is not its own.
  hangs.end();
  HeldWrite more(limiter, 1);
  EXPECT_FALSE(more.begins_within(4 * kShort));
  next.end();
  EXPECT_TRUE(more.begins_within(kLong));
}

TEST(WriteLimiter, TheLimitFallsWhenWritesTakeLongAndNotBelowTheLeast) {
  Hand hand;
  WriteLimiter limiter({8, 64, kTarget, kForever}, hand.clock());
  const auto stay = [&](milliseconds time) {
    const auto slot = limiter.acquire(16, deadline_in(kForever));
    hand.advance(time);
  };
  stay(kTarget);
  EXPECT_EQ(limiter.limit_units(), 64u);
  std::vector<std::uint64_t> limits;
  for (int i = 0; i < 9; ++i) {
    stay(kTarget + milliseconds(1));
    limits.push_back(limiter.limit_units());
  }
  EXPECT_EQ(limits, (std::vector<std::uint64_t>{56, 48, 40, 32, 24, 16, 8, 8, 8}));
}

TEST(WriteLimiter, OneThatIsOverdueLowersTheLimitToo) {
  Hand hand;
  WriteLimiter limiter({8, 64, kTarget, 2 * kTarget}, hand.clock());
  {
    const auto hangs = limiter.acquire(16, deadline_in(kForever));
    hand.advance(2 * kTarget);
    const auto next =
        limiter.acquire(64, deadline_in(kForever));  // there would be no room if it counted
  }
  EXPECT_EQ(limiter.limit_units(), 56u);
}

TEST(WriteLimiter, TheLimitRisesOnlyWhileOthersWaitAndNotAboveTheMost) {
  Hand hand;
  WriteLimiter limiter({8, 10, kTarget, kForever}, hand.clock());
  {
    const auto late = limiter.acquire(8, deadline_in(kForever));
    hand.advance(kTarget + milliseconds(1));
  }
  ASSERT_EQ(limiter.limit_units(), 8u);
  { const auto alone = limiter.acquire(8, deadline_in(kForever)); }
  EXPECT_EQ(limiter.limit_units(), 8u);
  const auto leave_before_another = [&] {
    HeldWrite inside(limiter, 8);
    ASSERT_TRUE(inside.begins_within(kLong));
    HeldWrite other(limiter, 8);
    while (limiter.waiting() == 0) std::this_thread::yield();
    inside.end();
  };
  for (const std::uint64_t limit : {9u, 10u, 10u}) {
    leave_before_another();
    EXPECT_EQ(limiter.limit_units(), limit);
  }
}

TEST(WriteLimiter, NeverMoreUnderWayThanThereIsRoomFor) {
  constexpr std::uint64_t kRoom = 12;
  WriteLimiter limiter(fixed(kRoom, kForever));
  std::atomic<std::uint64_t> inside{0}, most{0};
  std::vector<std::future<void>> writes;
  for (std::uint64_t i = 0; i < 16; ++i) {
    writes.push_back(std::async(std::launch::async, [&, i] {
      for (std::uint64_t k = 0; k < 500; ++k) {
        const std::uint64_t units = 1 + (i + k) % 5;
        const auto slot = limiter.acquire(units, deadline_in(kForever));
        const std::uint64_t now = inside.fetch_add(units) + units;
        std::uint64_t seen = most.load();
        while (seen < now && !most.compare_exchange_weak(seen, now)) {
        }
        inside.fetch_sub(units);
      }
    }));
  }
  for (auto& write : writes) write.get();
  EXPECT_LE(most.load(), kRoom);
  EXPECT_EQ(inside.load(), 0u);
}

TEST(WriteLimiter, AWaitEndsByItsDeadlineOrAStopAndWaitsNoMore) {
  WriteLimiter limiter(fixed(10, kForever));
  HeldWrite inside(limiter, 8);
  ASSERT_TRUE(inside.begins_within(kLong));
  EXPECT_FALSE(limiter.acquire(4, deadline_in(milliseconds(1))));
  std::stop_source stop;
  auto stopped = std::async(std::launch::async, [&] {
    return limiter.acquire(4, deadline_in(kForever), stop.get_token()).has_value();
  });
  while (limiter.waiting() == 0) std::this_thread::yield();
  // Who waits behind it needs less, and gets in as soon as it has gone.
  HeldWrite behind(limiter, 2);
  while (limiter.waiting() == 1) std::this_thread::yield();
  stop.request_stop();
  EXPECT_FALSE(stopped.get());
  EXPECT_TRUE(behind.begins_within(kLong));
  EXPECT_EQ(limiter.waiting(), 0u);
}

}  // namespace
}  // namespace siphon
