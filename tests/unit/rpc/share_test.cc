#include "plugin/rpc/share.h"

#include <gtest/gtest.h>

#include <future>
#include <list>

namespace siphon::rpc {
namespace {

using std::chrono::milliseconds;

// As many as they get.
std::list<Share::Part> take_all(Share& share, const Payers& payers) {
  std::list<Share::Part> parts;
  while (auto part = share.take(payers)) parts.push_back(std::move(*part));
  return parts;
}

TEST(Share, OneAloneHasHalfAndLeavesTheRest) {
  Share share(32);
  const auto first = take_all(share, {{"a"}});
  EXPECT_EQ(first.size(), 16u);
  const auto second = take_all(share, {{"b"}});
  EXPECT_EQ(second.size(), 8u);
  EXPECT_FALSE(share.take({{"a"}}));
  EXPECT_TRUE(share.take({{"c"}}));
}

TEST(Share, WhoComesLaterGetsAsMuchOnceTheFirstGiveBack) {
  Share share(32);
  auto first = take_all(share, {{"a"}});
  auto second = take_all(share, {{"b"}});
  for (int i = 0; i < 100; ++i) {  // each gives one back and takes what it may
    first.pop_front();
    second.splice(second.end(), take_all(share, {{"b"}}));
    first.splice(first.end(), take_all(share, {{"a"}}));
  }
  EXPECT_NEAR(static_cast<double>(first.size()), static_cast<double>(second.size()), 1.0);
  EXPECT_NEAR(static_cast<double>(32 - first.size() - second.size()),
              static_cast<double>(first.size()), 1.0)
      << "and as much is free";
}

TEST(Share, AllPayersPay) {
  Share share(32);
  const auto one = take_all(share, {{"pool 1"}, {"client 1", 2}});
  EXPECT_EQ(one.size(), 11u) << "of a third";
  const auto other = take_all(share, {{"pool 1"}, {"client 2", 2}});
  EXPECT_EQ(one.size() + other.size(), 16u) << "half for all clients of a pool";
  EXPECT_FALSE(share.take({{"pool 1"}, {"client 3", 2}}));
  EXPECT_TRUE(share.take({{"pool 2"}, {"client 3", 2}}));
}

TEST(Share, WhatIsGivenBackIsThereAgain) {
  Share share(4);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(take_all(share, {{"a"}}).size(), 2u);
  share.wait_until_unused();
}

TEST(Share, AWaitEndsWithAPartOrWithItsDeadline) {
  Share share(4);
  auto mine = take_all(share, {{"a"}});
  EXPECT_FALSE(share.wait({{"a"}}, deadline_in(milliseconds(10))));
  auto waiting = std::async(std::launch::async, [&] {
    return share.wait({{"a"}}, deadline_in(std::chrono::hours(1))).has_value();
  });
  mine.pop_front();
  EXPECT_TRUE(waiting.get());
  std::stop_source stop;
  mine.splice(mine.end(), take_all(share, {{"a"}}));
  auto stopped = std::async(std::launch::async, [&] {
    return share.wait({{"a"}}, deadline_in(std::chrono::hours(1)), stop.get_token()).has_value();
  });
  stop.request_stop();
  EXPECT_FALSE(stopped.get());
}

}  // namespace
}  // namespace siphon::rpc
