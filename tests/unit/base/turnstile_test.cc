#include "plugin/base/turnstile.h"

#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <thread>
#include <vector>

namespace siphon {
namespace {

Deadline far_away() { return deadline_in(std::chrono::minutes(5)); }
Deadline long_ago() { return deadline_in(std::chrono::milliseconds(-1)); }

TEST(Turnstile, SoManyAreInsideAndSoManyWait) {
  Turnstile turnstile(2, 1);
  auto first = turnstile.enter(long_ago());
  auto second = turnstile.enter(long_ago());
  ASSERT_TRUE(first && second);
  EXPECT_FALSE(turnstile.enter(long_ago()));
  auto third = std::async(std::launch::async, [&] { return turnstile.enter(far_away()); });
  while (turnstile.waiting() == 0) std::this_thread::yield();
  EXPECT_FALSE(turnstile.enter(far_away())) << "the line is full";
  second.reset();
  EXPECT_TRUE(third.get());
  EXPECT_EQ(turnstile.inside(), 1u) << "the third has left, too";
  first.reset();
  EXPECT_EQ(turnstile.inside(), 0u);
}

TEST(Turnstile, FirstComeFirstServed) {
  Turnstile turnstile(1, 8);
  auto first = turnstile.enter(long_ago());
  std::mutex mutex;
  std::vector<int> order;
  std::vector<std::thread> others;
  for (int i = 0; i < 4; ++i) {
    others.emplace_back([&, i] {
      const auto place = turnstile.enter(far_away());
      EXPECT_TRUE(place);
      const std::lock_guard lock(mutex);
      order.push_back(i);
    });
    while (turnstile.waiting() != static_cast<std::size_t>(i) + 1) std::this_thread::yield();
  }
  first.reset();
  for (std::thread& t : others) t.join();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3}));
}

TEST(Turnstile, AStopEndsTheWait) {
  Turnstile turnstile(1, 8);
  auto first = turnstile.enter(long_ago());
  std::stop_source stop;
  auto second =
      std::async(std::launch::async, [&] { return turnstile.enter(far_away(), stop.get_token()); });
  while (turnstile.waiting() == 0) std::this_thread::yield();
  stop.request_stop();
  EXPECT_FALSE(second.get());
  EXPECT_EQ(turnstile.waiting(), 0u);
}

}  // namespace
}  // namespace siphon
