#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>
#include <vector>

#include "plugin/base/gate.h"

namespace siphon {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kLong{60};        // a test that waits so long has failed
constexpr milliseconds kShort{50};  // long enough to see that somebody does not get in
constexpr seconds kForever{3600};

// A guest on a thread of its own, who stays until told to go.
class Visitor {
 public:
  Visitor(Gate& gate, std::uint64_t units)
      : ended_(std::async(std::launch::async, [this, &gate, units] {
          const auto pass = gate.enter(units, deadline_in(kForever));
          inside_.set_value();
          go_.get_future().wait();
        })) {}
  ~Visitor() { leave(); }
  void leave() {
    if (!ended_.valid()) return;
    go_.set_value();
    ended_.get();
  }
  bool inside_within(milliseconds time) {
    return entered_.wait_for(time) == std::future_status::ready;
  }

 private:
  std::promise<void> inside_, go_;
  std::future<void> entered_ = inside_.get_future();
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

Gate::Bounds fixed(std::uint64_t units, milliseconds patience) {
  return {units, units, milliseconds(0), patience};
}

TEST(Gate, LetsInAsMuchAsThereIsRoomFor) {
  Gate gate(fixed(10, kForever));
  Visitor a(gate, 6), b(gate, 4);
  ASSERT_TRUE(a.inside_within(kLong));
  ASSERT_TRUE(b.inside_within(kLong));
  Visitor c(gate, 1);
  EXPECT_FALSE(c.inside_within(kShort));
  b.leave();
  EXPECT_TRUE(c.inside_within(kLong));
}

TEST(Gate, WhoNeedsMoreThanThereIsGetsInAlone) {
  Gate gate(fixed(10, kForever));
  Visitor small(gate, 1);
  ASSERT_TRUE(small.inside_within(kLong));
  Visitor large(gate, 11);
  EXPECT_FALSE(large.inside_within(kShort));
  small.leave();
  EXPECT_TRUE(large.inside_within(kLong));
}

TEST(Gate, SmallOnesDoNotPassALargeOneThatWaits) {
  Gate gate(fixed(10, kForever));
  Visitor first(gate, 6);
  ASSERT_TRUE(first.inside_within(kLong));
  Visitor large(gate, 8);
  EXPECT_FALSE(large.inside_within(kShort));
  Visitor small(gate, 2);  // there would be room
  EXPECT_FALSE(small.inside_within(kShort));
  first.leave();
  EXPECT_TRUE(large.inside_within(kLong));
  EXPECT_TRUE(small.inside_within(kLong));
}

TEST(Gate, WhoStaysTooLongKeepsNobodyOut) {
  Hand hand;
  Gate gate(fixed(10, kShort), hand.clock());
  Visitor hangs(gate, 10);
  ASSERT_TRUE(hangs.inside_within(kLong));
  Visitor next(gate, 10);
  EXPECT_FALSE(next.inside_within(4 * kShort));  // by the gate's clock no time has passed
  hand.advance(kShort);
  EXPECT_TRUE(next.inside_within(kLong));
  // It leaves after all, and takes nothing along that is not its own.
  hangs.leave();
  Visitor more(gate, 1);
  EXPECT_FALSE(more.inside_within(4 * kShort));
  next.leave();
  EXPECT_TRUE(more.inside_within(kLong));
}

TEST(Gate, TheBoundFallsWhenGuestsTakeLongAndNotBelowTheLeast) {
  Hand hand;
  Gate gate({8, 64, kTarget, kForever}, hand.clock());
  const auto stay = [&](milliseconds time) {
    const auto pass = gate.enter(16, deadline_in(kForever));
    hand.advance(time);
  };
  stay(kTarget);
  EXPECT_EQ(gate.limit_units(), 64u);
  std::vector<std::uint64_t> limits;
  for (int i = 0; i < 9; ++i) {
    stay(kTarget + milliseconds(1));
    limits.push_back(gate.limit_units());
  }
  EXPECT_EQ(limits, (std::vector<std::uint64_t>{56, 48, 40, 32, 24, 16, 8, 8, 8}));
}

TEST(Gate, OneThatIsOverdueLowersTheBoundToo) {
  Hand hand;
  Gate gate({8, 64, kTarget, 2 * kTarget}, hand.clock());
  {
    const auto hangs = gate.enter(16, deadline_in(kForever));
    hand.advance(2 * kTarget);
    const auto next =
        gate.enter(64, deadline_in(kForever));  // there would be no room if it counted
  }
  EXPECT_EQ(gate.limit_units(), 56u);
}

TEST(Gate, TheBoundRisesOnlyWhileOthersWaitAndNotAboveTheMost) {
  Hand hand;
  Gate gate({8, 10, kTarget, kForever}, hand.clock());
  {
    const auto late = gate.enter(8, deadline_in(kForever));
    hand.advance(kTarget + milliseconds(1));
  }
  ASSERT_EQ(gate.limit_units(), 8u);
  { const auto alone = gate.enter(8, deadline_in(kForever)); }
  EXPECT_EQ(gate.limit_units(), 8u);
  const auto leave_before_another = [&] {
    Visitor inside(gate, 8);
    ASSERT_TRUE(inside.inside_within(kLong));
    Visitor other(gate, 8);
    while (gate.waiting() == 0) std::this_thread::yield();
    inside.leave();
  };
  for (const std::uint64_t limit : {9u, 10u, 10u}) {
    leave_before_another();
    EXPECT_EQ(gate.limit_units(), limit);
  }
}

TEST(Gate, NeverMoreInsideThanThereIsRoomFor) {
  constexpr std::uint64_t kRoom = 12;
  Gate gate(fixed(kRoom, kForever));
  std::atomic<std::uint64_t> inside{0}, most{0};
  std::vector<std::future<void>> guests;
  for (std::uint64_t i = 0; i < 16; ++i) {
    guests.push_back(std::async(std::launch::async, [&, i] {
      for (std::uint64_t k = 0; k < 500; ++k) {
        const std::uint64_t units = 1 + (i + k) % 5;
        const auto pass = gate.enter(units, deadline_in(kForever));
        const std::uint64_t now = inside.fetch_add(units) + units;
        std::uint64_t seen = most.load();
        while (seen < now && !most.compare_exchange_weak(seen, now)) {
        }
        inside.fetch_sub(units);
      }
    }));
  }
  for (auto& guest : guests) guest.get();
  EXPECT_LE(most.load(), kRoom);
  EXPECT_EQ(inside.load(), 0u);
}

TEST(Gate, AWaitEndsByItsDeadlineOrAStopAndLeavesTheLine) {
  Gate gate(fixed(10, kForever));
  Visitor inside(gate, 8);
  ASSERT_TRUE(inside.inside_within(kLong));
  EXPECT_FALSE(gate.enter(4, deadline_in(milliseconds(1))));
  std::stop_source stop;
  auto stopped = std::async(std::launch::async, [&] {
    return gate.enter(4, deadline_in(kForever), stop.get_token()).has_value();
  });
  while (gate.waiting() == 0) std::this_thread::yield();
  // Who waits behind it needs less, and gets in as soon as it has gone.
  Visitor behind(gate, 2);
  while (gate.waiting() == 1) std::this_thread::yield();
  stop.request_stop();
  EXPECT_FALSE(stopped.get());
  EXPECT_TRUE(behind.inside_within(kLong));
  EXPECT_EQ(gate.waiting(), 0u);
}

}  // namespace
}  // namespace siphon
