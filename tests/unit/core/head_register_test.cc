// What each transition does to a register, in each of its states.
#include "plugin/core/head_register.h"

#include <gtest/gtest.h>

#include <utility>

#include "tests/unit/core/head_samples.h"

namespace siphon::head_test {
namespace {

// ---- the whole table: every transition in every state of id 1 -----------------------------------

struct Row {
  State state;
  int reserve, publish, condemn, forget, seal, restore, discard;
};

TEST(HeadRegister, EveryTransitionInEveryState) {
  const Row table[] = {
      // state       reserve     publish     condemn   forget    seal       restore   discard
      {State::kAbsent, 0, -ENOENT, -ENOENT, 0, -ENOENT, -ENOENT, 0},
      {State::kReserved, 0, 0, 0, -EINVAL, -ENOENT, -ENOENT, -EINVAL},
      {State::kOpen, 0, 0, 0, -EINVAL, 0, 0, -EINVAL},
      {State::kSealed, 0, 0, 0, -EINVAL, 0, 0, -EINVAL},
      {State::kInline, 0, 0, 0, -EINVAL, 0, 0, -EINVAL},
      {State::kTrashed, -ECANCELED, -ECANCELED, 0, 0, -ECANCELED, -ENOENT, 0},
      {State::kRemoved, -ECANCELED, -ECANCELED, 0, 0, -ECANCELED, 0, 0},
      {State::kDiscarded, -ECANCELED, -ECANCELED, 0, 0, -ECANCELED, -ENOENT, 0},
      {State::kReplaced, -ECANCELED, -ECANCELED, 0, 0, -ECANCELED, -EEXIST, 0},
      {State::kOtherSealed, 0, -ENOENT, -ENOENT, 0, -ENOENT, -ENOENT, 0},
  };
  for (const Row& row : table) {
    const std::pair<Transition, int> cells[] = {
        {Transition::kReserve, row.reserve}, {Transition::kPublish, row.publish},
        {Transition::kCondemn, row.condemn}, {Transition::kForget, row.forget},
        {Transition::kSeal, row.seal},       {Transition::kRestore, row.restore},
        {Transition::kDiscard, row.discard}};
    for (const auto& [kind, expected] : cells) {
      SCOPED_TRACE("state " + std::to_string(static_cast<int>(row.state)) + " transition " +
                   std::to_string(static_cast<int>(kind)));
      Model m = in_state(row.state);
      EXPECT_EQ(m.run(kind, 1), expected);
      if (expected != 0) continue;
      // Sent again (a lost reply, another primary): the same answer, nothing moves.
      const HeadRegister once = m.reg;
      if (m.exists) {
        EXPECT_EQ(m.run(kind, 1), 0);
        EXPECT_EQ(m.reg, once);
      }
    }
  }
}

TEST(HeadRegister, ReserveThenPublish) {
  Model m;
  ASSERT_EQ(m.run(Transition::kReserve, 1), 0);
  ASSERT_EQ(m.reg.reservations.size(), 1u);
  EXPECT_EQ(m.reg.reservations[0], (Reservation{id(1), 1001, 65536, 9000}));
  EXPECT_EQ(m.reg.generation, 0u);
  EXPECT_EQ(m.reg.state, ExtentState::kNone);
  ASSERT_EQ(m.run(publish(1)), 0);
  EXPECT_EQ(m.reg.state, ExtentState::kSealed);
  EXPECT_EQ(m.reg.current, id(1));
  EXPECT_EQ(m.reg.header, header_of(1));
  EXPECT_EQ(m.reg.generation, 1u);
  EXPECT_TRUE(m.reg.reservations.empty());
  EXPECT_TRUE(m.reg.trash.empty());
}

TEST(HeadRegister, ReplacingPutsTheOldOneInTheTrash) {
  Model m = in_state(State::kOtherSealed);
  ASSERT_EQ(m.run(Transition::kReserve, 1), 0);
  EXPECT_EQ(m.run(publish(1, false)), -EEXIST);
  ASSERT_EQ(m.run(publish(1, true)), 0);
  EXPECT_EQ(m.reg.current, id(1));
  EXPECT_EQ(m.reg.generation, 2u);
  ASSERT_EQ(m.reg.trash.size(), 1u);
  EXPECT_EQ(m.reg.trash[0],
            (TrashEntry{id(2), header_of(2), ExtentState::kSealed, false, true, kNow}));
  // The replaced one never comes back.
  EXPECT_EQ(m.run(publish(2, true)), -ECANCELED);
  EXPECT_EQ(m.run(Transition::kReserve, 2), -ECANCELED);
}

TEST(HeadRegister, TwoAttemptsDoNotDisturbEachOtherUntilOnePublishes) {
  Model m;
  ASSERT_EQ(m.run(Transition::kReserve, 1), 0);
  ASSERT_EQ(m.run(Transition::kReserve, 2), 0);
  auto first = publish(1);
  first.expected_generation = 0;
  auto second = publish(2, true);
  second.expected_generation = 0;
  ASSERT_EQ(m.run(first), 0);
  EXPECT_EQ(m.run(second), -ESTALE);
  EXPECT_EQ(m.run(first), 0);  // again: it took effect
  EXPECT_EQ(m.reg.generation, 1u);
  EXPECT_EQ(m.run(Transition::kCondemn, 2), 0);
  EXPECT_EQ(m.reg.generation, 1u);
  EXPECT_EQ(m.reg.current, id(1));
}

TEST(HeadRegister, GenerationGuards) {
  Model m = in_state(State::kOpen);  // generation 1
  for (Transition kind : {Transition::kCondemn, Transition::kSeal}) {
    auto r = request(kind, 1);
    r.expected_generation = 0;
    EXPECT_EQ(m.run(r), -ESTALE);
    r.expected_generation = 2;
    EXPECT_EQ(m.run(r), -ESTALE);
  }
  auto seal = request(Transition::kSeal, 1);
  seal.expected_generation = 1;
  ASSERT_EQ(m.run(seal), 0);
  EXPECT_EQ(m.reg.generation, 2u);
  auto condemn = request(Transition::kCondemn, 1);
  condemn.expected_generation = 2;
  ASSERT_EQ(m.run(condemn), 0);
  EXPECT_EQ(m.reg.generation, 3u);
}

// Who collects an attempt goes on to remove its parts: not those of what was published meanwhile.
TEST(HeadRegister, CondemnOfAnAttemptIsRefusedOnceItWasPublished) {
  for (const bool replaced : {true, false}) {
    Model m = in_state(State::kReserved);
    auto collect = request(Transition::kCondemn, 1);
    collect.expected_generation = m.reg.generation;
    ASSERT_EQ(m.run(publish(1)), 0);
    EXPECT_EQ(m.run(collect), -ESTALE);
    if (replaced) {
      ASSERT_EQ(m.run(Transition::kReserve, 2), 0);
      ASSERT_EQ(m.run(publish(2, true)), 0);
    } else {
      ASSERT_EQ(m.run(Transition::kCondemn, 1), 0);
    }
    EXPECT_EQ(m.run(collect), -EEXIST);
    ASSERT_EQ(m.run(Transition::kDiscard, 1), 0);  // whoever did that removes it
    EXPECT_EQ(m.run(collect), 0);
  }
}

TEST(HeadRegister, CondemnOfTheCurrentMayArriveTwice) {
  Model m = in_state(State::kSealed);
  auto trash = request(Transition::kCondemn, 1);
  trash.expected_generation = m.reg.generation;
  ASSERT_EQ(m.run(trash), 0);
  EXPECT_EQ(m.run(trash), 0);
  auto seen_in_the_trash = request(Transition::kCondemn, 1);
  seen_in_the_trash.expected_generation = m.reg.generation;
  EXPECT_EQ(m.run(seen_in_the_trash), 0);
}

TEST(HeadRegister, ARenewalReservesNothingNew) {
  auto renewal = request(Transition::kReserve, 1);
  renewal.header = {};
  renewal.lease_unix_ms = 9999;
  Model m = in_state(State::kReserved);
  ASSERT_EQ(m.run(renewal), 0);
  EXPECT_EQ(m.reg.reservations.at(0), (Reservation{id(1), 1001, 65536, 9999}));
  m = in_state(State::kAbsent);
  EXPECT_EQ(m.run(renewal), -EINVAL);
  m = in_state(State::kTrashed);
  EXPECT_EQ(m.run(renewal), -ECANCELED);
}

TEST(HeadRegister, SealKeepsThePartSizeAndOneHeader) {
  Model m = in_state(State::kOpen);
  auto seal = request(Transition::kSeal, 1);
  seal.header.part_bytes *= 2;
  EXPECT_EQ(m.run(seal), -EINVAL);
  seal = request(Transition::kSeal, 1);
  ASSERT_EQ(m.run(seal), 0);
  EXPECT_EQ(m.run(seal), 0);
  seal.header.crc32 ^= 1;
  EXPECT_EQ(m.run(seal), -EEXIST);
}

TEST(HeadRegister, CondemnOfTheCurrentTakesTheNameAway) {
  Model m = in_state(State::kInline);
  ASSERT_EQ(m.run(Transition::kCondemn, 1), 0);
  EXPECT_EQ(m.reg.state, ExtentState::kNone);
  EXPECT_TRUE(m.reg.current.empty());
  EXPECT_EQ(m.reg.header, SealedHeader{});
  EXPECT_FALSE(m.reg.is_inline);
  ASSERT_EQ(m.reg.trash.size(), 1u);
  EXPECT_TRUE(m.reg.trash[0].is_inline);
  EXPECT_TRUE(m.reg.trash[0].was_published);
  ASSERT_EQ(m.run(Transition::kForget, 1), 0);
  EXPECT_TRUE(m.reg.blank());
}

TEST(HeadRegister, RestoreBringsBackTheWholeHeaderFromTheTrash) {
  for (State state : {State::kSealed, State::kOpen, State::kInline}) {
    Model m = in_state(state);
    const HeadRegister before = m.reg;
    ASSERT_EQ(m.run(Transition::kCondemn, 1), 0);
    auto restore = request(Transition::kRestore, 1);
    restore.header = {};  // nothing has to be said about it
    restore.expected_generation = before.generation;
    EXPECT_EQ(m.run(restore), -ESTALE);
    ++restore.expected_generation;
    ASSERT_EQ(m.run(restore), 0);
    EXPECT_EQ(m.reg.generation, before.generation + 2);
    m.reg.generation = before.generation;
    EXPECT_EQ(m.reg, before);
  }
}

TEST(HeadRegister, RestoreNeverReplacesACurrentOne) {
  Model m = in_state(State::kReplaced);
  EXPECT_EQ(m.run(Transition::kRestore, 1), -EEXIST);
  ASSERT_EQ(m.run(Transition::kCondemn, 2), 0);
  ASSERT_EQ(m.run(Transition::kRestore, 1), 0);
  EXPECT_EQ(m.reg.current, id(1));
  EXPECT_EQ(m.reg.header, header_of(1));
  EXPECT_EQ(m.run(Transition::kRestore, 2), -EEXIST);
}

// An attempt that saw the name free, or the one before, does not replace what came back.
TEST(HeadRegister, RestoreStalesAttemptsThatBeganBefore) {
  Model m = in_state(State::kRemoved);
  ASSERT_EQ(m.run(Transition::kReserve, 3), 0);
  auto late = publish(3, true);
  late.expected_generation = m.reg.generation;
  ASSERT_EQ(m.run(Transition::kRestore, 1), 0);
  EXPECT_EQ(m.run(late), -ESTALE);
}

TEST(HeadRegister, DiscardKeepsWhatTheRemovalOfItsPartsNeeds) {
  Model m = in_state(State::kDiscarded);
  ASSERT_EQ(m.reg.trash.size(), 1u);
  TrashEntry expected;
  expected.id = id(1);
  expected.header.extent_bytes = 1001;
  expected.header.part_bytes = 65536;
  expected.trashed_unix_ms = kNow;
  EXPECT_EQ(m.reg.trash[0], expected);
  ASSERT_EQ(m.run(Transition::kForget, 1), 0);
  EXPECT_TRUE(m.reg.blank());
}

TEST(HeadRegister, InlineNeedsANewHead) {
  for (State state : {State::kReserved, State::kTrashed, State::kOtherSealed}) {
    Model m = in_state(state);
    auto r = publish(3, true);
    r.is_inline = true;
    EXPECT_EQ(m.run(r), -EEXIST);
  }
}

TEST(HeadRegister, PartsNeedASize) {
  Model m;
  auto r = request(Transition::kReserve, 1);
  r.header.part_bytes = 0;
  EXPECT_EQ(m.run(r), -EINVAL);
  ASSERT_EQ(m.run(Transition::kReserve, 1), 0);
  auto p = publish(1);
  p.header.part_bytes = 0;
  EXPECT_EQ(m.run(p), -EINVAL);
}

TEST(HeadRegister, ListsHaveLimits) {
  Model m;
  for (int i = 1; i <= 16; ++i) ASSERT_EQ(m.run(Transition::kReserve, i), 0);
  EXPECT_EQ(m.run(Transition::kReserve, 17), -EUSERS);
  EXPECT_EQ(m.run(Transition::kReserve, 16), 0);  // there already
  for (int i = 1; i <= 16; ++i) ASSERT_EQ(m.run(Transition::kCondemn, i), 0);
  EXPECT_EQ(m.run(Transition::kCondemn, 16), 0);
  // No published generation goes in any more, but every attempt that gets in also gets out.
  for (int i = 20; i < 36; ++i) ASSERT_EQ(m.run(Transition::kReserve, i), 0);
  ASSERT_EQ(m.run(publish(20)), 0);
  EXPECT_EQ(m.run(Transition::kCondemn, 20), -EUSERS);
  EXPECT_EQ(m.run(publish(21, true)), -EUSERS);
  for (int i = 21; i < 36; ++i) ASSERT_EQ(m.run(Transition::kCondemn, i), 0);
  ASSERT_EQ(m.run(Transition::kReserve, 40), 0);
  EXPECT_EQ(m.run(Transition::kReserve, 41), -EUSERS);
  EXPECT_EQ(m.run(Transition::kCondemn, 40), 0);
  // Room again.
  for (int i = 1; i <= 16; ++i) ASSERT_EQ(m.run(Transition::kForget, i), 0);
  for (int i = 21; i <= 22; ++i) ASSERT_EQ(m.run(Transition::kForget, i), 0);
  ASSERT_EQ(m.run(Transition::kReserve, 42), 0);
  EXPECT_EQ(m.run(publish(42, true)), 0);
}

TEST(HeadRegister, AnUnknownTransitionIsRefused) {
  Model m = in_state(State::kSealed);
  auto r = request(static_cast<Transition>(9), 1);
  EXPECT_EQ(m.run(r), -EINVAL);
}

}  // namespace
}  // namespace siphon::head_test
