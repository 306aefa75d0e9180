#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "plugin/base/gate.h"

namespace siphon {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A guest on a thread of its own, who stays until told to go.
class Visitor {
 public:
  Visitor(Gate& gate, std::uint64_t units)
      : ended_(std::async(std::launch::async, [this, &gate, units] {
          const Gate::Pass pass = gate.enter(units);
          inside_.set_value();
          go_.get_future().wait();
        })) {}
  ~Visitor() { leave(); }
  void leave() {
    if (!ended_.valid()) return;
    go_.set_value();
    ended_.get();
  }
  bool leaves_within(milliseconds time) {
    return ended_.wait_for(time) == std::future_status::ready;
  }
  bool inside_within(milliseconds time) {
    return entered_.wait_for(time) == std::future_status::ready;
  }

 private:
  std::promise<void> inside_, go_;
  std::future<void> entered_ = inside_.get_future();
  std::future<void> ended_;
};

constexpr seconds kLong{60};        // a test that waits so long has failed
constexpr milliseconds kShort{50};  // long enough to see that somebody does not get in
constexpr seconds kForever{3600};

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
  Gate gate(fixed(10, milliseconds(100)));
  Visitor hangs(gate, 10);
  ASSERT_TRUE(hangs.inside_within(kLong));
  Visitor next(gate, 10);
  EXPECT_TRUE(next.inside_within(kLong));
  // It leaves after all, and takes nothing along that is not its own.
  hangs.leave();
  next.leave();
  Visitor all(gate, 10);
  EXPECT_TRUE(all.inside_within(kLong));
  Visitor more(gate, 1);
  EXPECT_TRUE(more.inside_within(kLong));  // `all` becomes overdue, too
}

TEST(Gate, TheBoundFallsWhenGuestsTakeLongAndNotBelowTheLeast) {
  Gate gate({8, 64, milliseconds(0), kForever});  // everybody takes too long
  std::uint64_t before = gate.limit_units();
  EXPECT_EQ(before, 64u);
  for (int i = 0; i < 100; ++i) {
    { const Gate::Pass pass = gate.enter(16); }
    EXPECT_LE(gate.limit_units(), before);
    before = gate.limit_units();
  }
  EXPECT_EQ(before, 8u);
}

TEST(Gate, TheBoundRisesOnlyWhileOthersWaitAndNotAboveTheMost) {
  Gate gate({8, 16, seconds(1), kForever});
  {
    Visitor late(gate, 16);
    ASSERT_TRUE(late.inside_within(kLong));
    EXPECT_FALSE(late.leaves_within(seconds(1)));  // so it takes longer than the target
  }
  ASSERT_EQ(gate.limit_units(), 8u);
  for (int i = 0; i < 100; ++i) const Gate::Pass pass = gate.enter(8);  // nobody waits
  EXPECT_EQ(gate.limit_units(), 8u);
  std::atomic<int> left{3};
  std::vector<std::future<void>> crowd;
  for (int thread = 0; thread < 3; ++thread) {
    crowd.push_back(std::async(std::launch::async, [&] {
      --left;
      while (left > 0) std::this_thread::yield();
      for (int i = 0; i < 10000 && gate.limit_units() < 16; ++i) {
        const Gate::Pass pass = gate.enter(8);
      }
    }));
  }
  for (auto& one : crowd) one.get();
  EXPECT_GT(gate.limit_units(), 8u);
  EXPECT_LE(gate.limit_units(), 16u);
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
        const Gate::Pass pass = gate.enter(units);
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

}  // namespace
}  // namespace siphon
