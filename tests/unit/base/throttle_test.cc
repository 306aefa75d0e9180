// No assertion about how long something took: rates are either so low that a deadline cannot be
// met, or lifted from another thread.
#include "plugin/base/throttle.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/support/manual_clock.h"

namespace siphon {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;

Deadline at_once() { return deadline_in(milliseconds(-1)); }

TEST(BaseThrottle, UnlimitedNeverWaits) {
  Throttle throttle;
  EXPECT_EQ(throttle.rate(), 0u);
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(throttle.take(~0ull, at_once()));
}

TEST(BaseThrottle, HoldsFiftyMillisecondsWorthAndNoMore) {
  Throttle throttle(20);  // bytes per second: the bucket holds one
  EXPECT_TRUE(throttle.take(0, at_once()));
  EXPECT_TRUE(throttle.take(1, at_once()));
  const Status late = throttle.take(20 * 3600, deadline_in(minutes(1)));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Code::kDeadlineExceeded);
}

TEST(BaseThrottle, ARefusalTakesNothing) {
  Throttle throttle(20);
  for (int i = 0; i < 100; ++i) ASSERT_FALSE(throttle.take(1 << 30, at_once()));
  EXPECT_TRUE(throttle.take(1, at_once()));
}

TEST(BaseThrottle, BytesPassAtTheRate) {
  test::ManualClock clock;
  Throttle throttle(1000, clock);
  for (int i = 0; i < 360; ++i) EXPECT_TRUE(throttle.take(10'000, clock.now() + hours(1)));
  // An hour's worth, but for the 50 ms that the bucket held.
  EXPECT_NEAR(std::chrono::duration<double>(clock.passed()).count(), 3600 - 0.05, 0.01);
}

TEST(BaseThrottle, ItWaitsUpToItsDeadlineAndNotBeyond) {
  test::ManualClock clock;
  Throttle throttle(1000, clock);
  EXPECT_TRUE(throttle.take(50, clock.now()));
  EXPECT_FALSE(throttle.take(1001, clock.now() + std::chrono::seconds(1)));
  EXPECT_TRUE(throttle.take(999, clock.now() + std::chrono::seconds(1)));
}

TEST(BaseThrottle, WhatNobodyTookInAnHourIsNoBurst) {
  test::ManualClock clock;
  Throttle throttle(1000, clock);
  clock.advance(hours(1));
  EXPECT_TRUE(throttle.take(50, clock.now()));
  EXPECT_FALSE(throttle.take(2, clock.now() + milliseconds(1)));
}

TEST(BaseThrottle, GrantsQueueUp) {
  Throttle throttle(1000);
  std::thread first([&] { EXPECT_TRUE(throttle.take(36'000'000, deadline_in(hours(11)))); });
  // Once the first is in line (ten hours), nothing passes within a minute.
  const Deadline limit = deadline_in(minutes(5));
  while (throttle.take(10, deadline_in(minutes(1))) && Deadline::clock::now() < limit) {
  }
  EXPECT_FALSE(throttle.take(10, deadline_in(minutes(1))));
  throttle.set_rate(0);
  first.join();
  EXPECT_EQ(throttle.rate(), 0u);
}

TEST(BaseThrottle, RaisingTheRateFreesWaiters) {
  Throttle throttle(1);
  std::thread waiter([&] { EXPECT_TRUE(throttle.take(1'000'000, deadline_in(hours(10000)))); });
  throttle.set_rate(1'000'000'000);
  waiter.join();
}

TEST(BaseThrottle, LoweringTheRateEndsAWaitAtItsDeadline) {
  Throttle throttle(10'000'000);
  Status status;
  std::thread waiter([&] { status = throttle.take(9'000'000, deadline_in(milliseconds(1000))); });
  throttle.set_rate(1);
  waiter.join();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::kDeadlineExceeded);
}

TEST(BaseThrottle, AFreshLimitAfterUnlimitedStartsAtZero) {
  Throttle throttle(0);
  EXPECT_TRUE(throttle.take(1ull << 40, at_once()));
  throttle.set_rate(1'000'000'000'000);
  EXPECT_TRUE(throttle.take(1000, deadline_in(minutes(5))));
}

TEST(BaseThrottle, APlaceIsKeptAtAnyRate) {
  Throttle throttle(1);
  const auto place = throttle.line_up(1000);
  EXPECT_EQ(throttle.wait(place, at_once()).error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(throttle.wait(place, at_once()).error().code, Code::kDeadlineExceeded);
  throttle.set_rate(1'000'000);
  EXPECT_TRUE(throttle.wait(place, deadline_in(hours(1))));
}

TEST(BaseThrottle, OneBytePerSecondPassesBytes) {
  for (const std::uint64_t rate : {1, 3, 6}) {
    test::ManualClock clock;
    Throttle throttle(rate, clock);
    for (int i = 0; i < 100; ++i) {
      EXPECT_TRUE(throttle.wait(throttle.line_up(1), clock.now() + hours(1)));
    }
    EXPECT_NEAR(std::chrono::duration<double>(clock.passed()).count(),
                100.0 / static_cast<double>(rate) - 0.05, 0.01);
  }
}

TEST(BaseThrottle, AStopEndsAWait) {
  Throttle throttle(1);
  std::stop_source stop;
  Status waited, taken;
  std::thread in_line([&] {
    waited = throttle.wait(throttle.line_up(1'000'000), Deadline::max(), stop.get_token());
  });
  std::thread taker([&] { taken = throttle.take(1'000'000, Deadline::max(), stop.get_token()); });
  stop.request_stop();
  in_line.join();
  taker.join();
  ASSERT_FALSE(waited || taken);
  EXPECT_EQ(waited.error().code, Code::kCancelled);
  EXPECT_EQ(taken.error().code, Code::kCancelled);
}

}  // namespace
}  // namespace siphon
