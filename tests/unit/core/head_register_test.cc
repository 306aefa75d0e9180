#include "plugin/core/head_register.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "tests/support/test_random.h"

namespace siphon {
namespace {

constexpr std::uint64_t kNow = 5000;

PrivateId id(int number) {
  PrivateId out;
  out.bytes[0] = static_cast<std::byte>(number);
  out.bytes[15] = std::byte{0xee};
  return out;
}

SealedHeader header_of(int number) {
  SealedHeader h;
  h.extent_bytes = 1000 + static_cast<std::uint64_t>(number);
  h.content_bytes = 800;
  h.crc32 = static_cast<std::uint32_t>(number);
  h.block_count = 1;
  h.part_bytes = 65536;
  h.sealed_unix_ms = 77;
  h.format_version = 2;
  h.content_digest.fill(static_cast<std::byte>(0xd0 + number));
  return h;
}

TransitionRequest request(Transition kind, int number) {
  TransitionRequest r;
  r.kind = kind;
  r.id = id(number);
  r.header = header_of(number);
  r.expected_generation = TransitionRequest::kAnyGeneration;
  r.now_unix_ms = kNow;
  r.lease_unix_ms = 9000;
  return r;
}

// A register and the calls that made it. `exists` is what the caller of `apply` passes.
struct Model {
  HeadRegister reg;
  bool exists = false;

  int run(const TransitionRequest& r) {
    const HeadRegister before = reg;
    const int result = apply(reg, exists, r);
    if (result == 0) {
      exists = !reg.blank();
    } else {
      EXPECT_EQ(reg, before) << "a refused transition changed the register";
    }
    return result;
  }
  int run(Transition kind, int number) { return run(request(kind, number)); }
};

TransitionRequest publish(int number, bool replace = false, bool open = false) {
  auto r = request(Transition::kPublish, number);
  r.replace = replace;
  r.open = open;
  return r;
}

// ---- the whole table: every transition in every state of id 1 -----------------------------------

enum class State {
  kAbsent,
  kReserved,
  kOpen,
  kSealed,
  kInline,
  kTrashed,    // a condemned attempt
  kRemoved,    // a condemned current one
  kDiscarded,  // the same, and given up
  kReplaced,   // by id 2
  kOtherSealed
};

Model in_state(State state) {
  Model m;
  switch (state) {
    case State::kAbsent:
      break;
    case State::kReserved:
      EXPECT_EQ(m.run(Transition::kReserve, 1), 0);
      break;
    case State::kOpen:
      EXPECT_EQ(m.run(Transition::kReserve, 1), 0);
      EXPECT_EQ(m.run(publish(1, false, true)), 0);
      break;
    case State::kSealed:
      EXPECT_EQ(m.run(Transition::kReserve, 1), 0);
      EXPECT_EQ(m.run(publish(1)), 0);
      break;
    case State::kInline: {
      auto r = publish(1);
      r.is_inline = true;
      EXPECT_EQ(m.run(r), 0);
      break;
    }
    case State::kTrashed:
      EXPECT_EQ(m.run(Transition::kReserve, 1), 0);
      EXPECT_EQ(m.run(Transition::kCondemn, 1), 0);
      break;
    case State::kRemoved:
    case State::kDiscarded:
    case State::kReplaced:
      m = in_state(State::kSealed);
      if (state == State::kReplaced) {
        EXPECT_EQ(m.run(Transition::kReserve, 2), 0);
        EXPECT_EQ(m.run(publish(2, true)), 0);
        break;
      }
      EXPECT_EQ(m.run(Transition::kCondemn, 1), 0);
      if (state == State::kDiscarded) {
        EXPECT_EQ(m.run(Transition::kDiscard, 1), 0);
      }
      break;
    case State::kOtherSealed:
      EXPECT_EQ(m.run(Transition::kReserve, 2), 0);
      EXPECT_EQ(m.run(publish(2)), 0);
      break;
  }
  return m;
}

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

// ---- encoding ----------------------------------------------------------------------------------

using Buffer = std::array<std::byte, HeadRegister::kMaxEncodedBytes>;

HeadRegister random_register(test::TestRandom& random) {
  HeadRegister reg;
  auto random_id = [&] {
    PrivateId out;
    random.fill(out.bytes);
    out.bytes[3] = std::byte{1};
    return out;
  };
  auto u32 = [&] { return static_cast<std::uint32_t>(random.number(1, ~0u)); };
  auto u64 = [&] { return random.number(0, ~0ull); };
  auto random_header = [&] {
    SealedHeader h{u64(), u64(), u32(), u32(), u32(), static_cast<std::uint16_t>(u32()), u64()};
    random.fill(h.content_digest);
    return h;
  };
  reg.generation = u64();
  reg.state = static_cast<ExtentState>(random.number(0, 2));
  if (reg.state != ExtentState::kNone) {
    reg.current = random_id();
    reg.is_inline = random.number(0, 1) == 1;
    reg.header = random_header();
  }
  for (auto n = random.number(0, 16); n > 0; --n) {
    reg.reservations.push_back({random_id(), u64(), u32(), u64()});
  }
  for (auto n = random.number(0, 16); n > 0; --n) {
    const bool published = random.number(0, 1) == 1;
    const auto state = static_cast<ExtentState>(published ? random.number(0, 2) : 0);
    reg.trash.push_back(
        {random_id(), random_header(), state, random.number(0, 1) == 1, published, u64()});
  }
  return reg;
}

TEST(HeadRegister, EncodingRoundTrips) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  for (int i = 0; i < 300; ++i) {
    const HeadRegister reg = random_register(random);
    Buffer buffer;
    const std::size_t used = encode_head(reg, buffer);
    ASSERT_EQ(used, 132 + 48 * reg.reservations.size() + 96 * reg.trash.size());
    HeadRegister back = random_register(random);  // what it held before does not matter
    ASSERT_TRUE(decode_head(std::span(buffer).first(used), back));
    ASSERT_EQ(back, reg);
  }
}

TrashEntry trashed(int number) {
  TrashEntry entry;
  entry.id = id(number);
  entry.header.part_bytes = 1;
  return entry;
}

// What is removed under the one entry would be the other's. Found by a fuzz target.
TEST(HeadRegister, AnIdThatIsNamedTwiceIsRefused) {
  Buffer buffer;
  HeadRegister back;
  const auto is_refused = [&](const HeadRegister& reg) {
    const std::size_t used = encode_head(reg, buffer);
    return used > 0 && !decode_head(std::span(buffer).first(used), back);
  };
  HeadRegister good;
  good.state = ExtentState::kSealed;
  good.current = id(1);
  good.header.part_bytes = 1;
  good.reservations = {{id(2), 0, 1, 0}};
  good.trash = {trashed(3)};
  EXPECT_FALSE(is_refused(good));
  HeadRegister bad = good;
  bad.trash.push_back(trashed(1));
  EXPECT_TRUE(is_refused(bad));
  bad = good;
  bad.trash.push_back(trashed(2));
  EXPECT_TRUE(is_refused(bad));
  bad = good;
  bad.trash.push_back(trashed(3));
  EXPECT_TRUE(is_refused(bad));
  bad = good;
  bad.reservations.push_back({id(2), 5, 1, 0});
  EXPECT_TRUE(is_refused(bad));
}

TEST(HeadRegister, EveryFlippedByteAndEveryTruncationIsRefused) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  HeadRegister reg = random_register(random);
  reg.reservations.resize(1, {id(1), 0, 1, 0});
  reg.trash.resize(1, trashed(2));
  Buffer buffer;
  const std::size_t used = encode_head(reg, buffer);
  HeadRegister back;
  for (std::size_t i = 0; i < used; ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      Buffer damaged = buffer;
      damaged[i] ^= static_cast<std::byte>(1 << bit);
      ASSERT_FALSE(decode_head(std::span(damaged).first(used), back)) << i;
    }
    ASSERT_FALSE(decode_head(std::span(buffer).first(i), back)) << i;
  }
  ASSERT_FALSE(decode_head(std::span(buffer).first(used + 1), back));
}

// The checksum is mended after the damage, so that the fields themselves are what is checked.
TEST(HeadRegister, FieldsAreCheckedBehindAValidChecksum) {
  Model m = in_state(State::kSealed);
  ASSERT_EQ(m.run(Transition::kReserve, 5), 0);
  Buffer buffer;
  const std::size_t used = encode_head(m.reg, buffer);
  const auto refused = [&](std::size_t offset, int value) {
    Buffer damaged = buffer;
    damaged[offset] = static_cast<std::byte>(value);
    LeWriter(std::span(damaged).subspan(used - 4, 4))
        .put(record_crc32c(std::span(damaged).first(used - 4)));
    HeadRegister back;
    return !decode_head(std::span(damaged).first(used), back);
  };
  EXPECT_FALSE(refused(0, 0x53));  // unchanged: the surgery itself is sound
  EXPECT_TRUE(refused(0, 0x54));   // magic
  EXPECT_TRUE(refused(4, 0));      // version
  EXPECT_TRUE(refused(4, 1));      // of another length
  EXPECT_TRUE(refused(4, 3));
  EXPECT_TRUE(refused(6, 3));   // state
  EXPECT_TRUE(refused(6, 0));   // no state, but a current id
  EXPECT_TRUE(refused(7, 2));   // inline flag
  EXPECT_TRUE(refused(62, 0));  // reservation count
  EXPECT_TRUE(refused(62, 2));
  EXPECT_TRUE(refused(62, 255));
  EXPECT_TRUE(refused(63, 1));  // trash count
  EXPECT_TRUE(refused(63, 17));
}

TEST(HeadRegister, TrashEntriesAreCheckedBehindAValidChecksum) {
  Model m = in_state(State::kRemoved);
  Buffer buffer;
  const std::size_t used = encode_head(m.reg, buffer);
  ASSERT_EQ(used, 228u);
  const auto refused = [&](std::size_t offset, int value) {
    Buffer damaged = buffer;
    damaged[128 + offset] = static_cast<std::byte>(value);
    LeWriter(std::span(damaged).subspan(used - 4, 4))
        .put(record_crc32c(std::span(damaged).first(used - 4)));
    HeadRegister back;
    return !decode_head(std::span(damaged).first(used), back);
  };
  EXPECT_FALSE(refused(46, 2));  // unchanged
  EXPECT_TRUE(refused(46, 4));   // flags
  EXPECT_TRUE(refused(46, 0));   // never published, but sealed
  EXPECT_TRUE(refused(47, 3));   // state
  EXPECT_TRUE(refused(42, 0));   // published, but its parts have no size
}

// ---- version 1
// -----------------------------------------------------------------------------------

// As the first releases wrote it: docs/extent_format.md, "Version 1".
std::vector<std::byte> version_1(const HeadRegister& reg) {
  std::vector<std::byte> out(100 + 48 * (reg.reservations.size() + reg.trash.size()));
  LeWriter w(out);
  w.put(HeadRegister::kMagic);
  w.put(std::uint16_t{1});
  w.put(static_cast<std::uint8_t>(reg.state));
  w.put(static_cast<std::uint8_t>(reg.is_inline));
  w.put(reg.generation);
  w.put_bytes(reg.current.bytes);
  w.put(reg.header.extent_bytes);
  w.put(reg.header.content_bytes);
  w.put(reg.header.crc32);
  w.put(reg.header.block_count);
  w.put(reg.header.part_bytes);
  w.put(reg.header.format_version);
  w.put(static_cast<std::uint8_t>(reg.reservations.size()));
  w.put(static_cast<std::uint8_t>(reg.trash.size()));
  w.put(reg.header.sealed_unix_ms);
  w.put_zeros(24);
  for (const Reservation& e : reg.reservations) {
    w.put_bytes(e.id.bytes);
    w.put(e.extent_bytes);
    w.put(e.part_bytes);
    w.put_zeros(4);
    w.put(e.lease_unix_ms);
    w.put_zeros(8);
  }
  for (const TrashEntry& e : reg.trash) {
    w.put_bytes(e.id.bytes);
    w.put(e.header.extent_bytes);
    w.put(e.header.part_bytes);
    w.put(static_cast<std::uint8_t>(e.is_inline));
    w.put(static_cast<std::uint8_t>(e.was_published));
    w.put_zeros(2);
    w.put(e.trashed_unix_ms);
    w.put_zeros(8);
  }
  w.put(record_crc32c(std::span(out).first(w.used())));
  EXPECT_TRUE(w.ok());
  return out;
}

TEST(HeadRegister, VersionOneDecodesAndBecomesVersionTwoWhenWritten) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  for (int i = 0; i < 300; ++i) {
    HeadRegister reg = random_register(random);
    reg.header.content_digest = {};
    for (TrashEntry& entry : reg.trash) {
      entry.state = ExtentState::kNone;
      const SealedHeader all = entry.header;
      entry.header = {};
      entry.header.extent_bytes = all.extent_bytes;
      entry.header.part_bytes = all.part_bytes;
    }
    HeadRegister back = random_register(random);
    ASSERT_TRUE(decode_head(version_1(reg), back));
    ASSERT_EQ(back, reg);
    Buffer buffer;
    const std::size_t used = encode_head(back, buffer);
    ASSERT_EQ(buffer[4], std::byte{2});
    ASSERT_TRUE(decode_head(std::span(buffer).first(used), back));
    ASSERT_EQ(back, reg);
  }
}

TEST(HeadRegister, RestoreFromAVersionOneTrashTakesTheHeaderThatTheCallerFound) {
  HeadRegister old;
  old.generation = 4;
  TrashEntry entry = trashed(1);
  entry.header.extent_bytes = 1001;
  entry.header.part_bytes = 65536;
  entry.was_published = true;
  old.trash.push_back(entry);
  Model m;
  m.exists = true;
  ASSERT_TRUE(decode_head(version_1(old), m.reg));
  auto r = request(Transition::kRestore, 1);
  r.header = {};
  EXPECT_EQ(m.run(r), -EINVAL);
  r.header = header_of(1);
  ++r.header.extent_bytes;
  EXPECT_EQ(m.run(r), -EINVAL);
  Model as_open = m;
  r.header = header_of(1);
  ASSERT_EQ(m.run(r), 0);
  EXPECT_EQ(m.reg.header, header_of(1));
  EXPECT_EQ(m.reg.state, ExtentState::kSealed);
  EXPECT_EQ(m.reg.generation, 5u);
  r.open = true;
  ASSERT_EQ(as_open.run(r), 0);
  EXPECT_EQ(as_open.reg.state, ExtentState::kOpen);
  EXPECT_EQ(as_open.reg.header.part_bytes, 65536u);
}

TEST(HeadRegister, WhatWasPublishedWithoutAPartSizeIsRefused) {
  // A restore of it once left a register that nothing could read any more.
  HeadRegister old;
  TrashEntry entry = trashed(1);
  entry.header = {};
  entry.was_published = true;
  entry.is_inline = true;
  old.trash.push_back(entry);
  HeadRegister back;
  EXPECT_TRUE(decode_head(version_1(old), back));
  old.trash[0].is_inline = false;
  EXPECT_FALSE(decode_head(version_1(old), back));
  old.trash[0].was_published = false;
  EXPECT_TRUE(decode_head(version_1(old), back));
}

TEST(HeadRegister, ListsOverTheirLimitAreNotEncoded) {
  HeadRegister reg;
  Buffer buffer;
  reg.reservations.resize(17, {id(1), 0, 1, 0});
  EXPECT_EQ(encode_head(reg, buffer), 0u);
  reg.reservations.resize(16);
  reg.trash.resize(32, trashed(1));
  EXPECT_EQ(encode_head(reg, buffer), HeadRegister::kMaxEncodedBytes);
  reg.trash.resize(33);
  EXPECT_EQ(encode_head(reg, buffer), 0u);
}

TEST(HeadRegister, DecodersSurviveRandomInput) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  for (int i = 0; i < 20000; ++i) {
    auto bytes = random.bytes(random.number(0, i % 8 == 0 ? 2000 : 200));
    // Half of the time with a valid checksum and a plausible beginning.
    if (i % 2 == 0 && bytes.size() >= 100) {
      LeWriter w(bytes);
      w.put(HeadRegister::kMagic);
      w.put(static_cast<std::uint16_t>(1 + i / 2 % 2));
      LeWriter(std::span(bytes).last(4))
          .put(record_crc32c(std::span(bytes).first(bytes.size() - 4)));
    }
    HeadRegister reg;
    if (decode_head(bytes, reg)) {
      ASSERT_LE(reg.reservations.size(), HeadRegister::kMaxReservations);
      ASSERT_LE(reg.trash.size(), HeadRegister::kMaxTrash);
    }
    TransitionRequest r;
    if (bytes.size() >= 128) TransitionRequest::decode(std::span(bytes).first(128), r);
    TransitionRequest::decode(bytes, r);
  }
}

TEST(HeadRegister, RequestsRoundTripAndForeignOnesAreRefused) {
  using Encoded = std::array<std::byte, TransitionRequest::kEncodedBytes>;
  for (int kind = 1; kind <= 7; ++kind) {
    for (int flags = 0; flags < 8; ++flags) {
      auto r = request(static_cast<Transition>(kind), kind);
      r.replace = (flags & 1) != 0;
      r.open = (flags & 2) != 0;
      r.is_inline = (flags & 4) != 0;
      r.expected_generation = 12345;
      Encoded encoded;
      r.encode(encoded);
      TransitionRequest back;
      ASSERT_TRUE(TransitionRequest::decode(encoded, back));
      EXPECT_EQ(back.kind, r.kind);
      EXPECT_EQ(back.replace, r.replace);
      EXPECT_EQ(back.open, r.open);
      EXPECT_EQ(back.is_inline, r.is_inline);
      EXPECT_EQ(back.id, r.id);
      EXPECT_EQ(back.expected_generation, r.expected_generation);
      EXPECT_EQ(back.header, r.header);
      EXPECT_EQ(back.now_unix_ms, r.now_unix_ms);
      EXPECT_EQ(back.lease_unix_ms, r.lease_unix_ms);
      ASSERT_FALSE(TransitionRequest::decode(std::span(encoded).first(127), back));
      for (auto [offset, value] : {std::pair{0, 1}, {0, 3}, {4, 0}, {4, 8}, {5, 8}}) {
        Encoded damaged = encoded;
        damaged[static_cast<std::size_t>(offset)] = static_cast<std::byte>(value);
        EXPECT_FALSE(TransitionRequest::decode(damaged, back));
      }
    }
  }
  auto r = request(Transition::kReserve, 1);
  r.id = {};
  Encoded encoded;
  r.encode(encoded);
  TransitionRequest back;
  EXPECT_FALSE(TransitionRequest::decode(encoded, back));
}

}  // namespace
}  // namespace siphon
