// The scratch that is made early from the requester's hint (planned_bytes): whatever the hint says
// and however the transfer ends, a published extent has exactly one private id, an unpublished one
// none, and the journal is empty.
#include <chrono>
#include <string>
#include <tuple>

#include "tests/unit/transfer/target_fixture.h"

namespace siphon::target_test {
namespace {

constexpr std::size_t kEarly = 4;  // as target.cc has it

TEST_F(TargetTransferTest, TheFirstExtentsScratchIsThereBeforeTheSourceReads) {
  for (int i = 0; i < 7; ++i) {
    offer("e" + std::to_string(i), 200 * kKiB);
    order("e" + std::to_string(i));
  }
  hold_source_until_begun(kEarly);
  run();
  for (const auto& [name, sample] : samples_) {
    expect_copied(name);
    EXPECT_EQ(target_.count("begin", name), 1) << name;
  }
  expect_journal_empty();
}

struct WrongHint {
  const char* what;
  std::size_t bytes;
  std::uint64_t planned_bytes;
  bool is_early;  // something is made of it before the source has spoken
};
class TargetTransferWrongHint : public TargetTransferTest,
                                public ::testing::WithParamInterface<std::tuple<WrongHint, bool>> {
};

TEST_P(TargetTransferWrongHint, TheCopySucceedsAndNothingIsLeft) {
  const auto& [hint, replace] = GetParam();
  spec_.replace = replace;
  offer("e", hint.bytes);
  order("e", hint.planned_bytes);
  if (replace) target_.put("e", 123'456);
  const int before = target_.count("begin");
  if (hint.is_early) hold_source_until_begun(before + 1);
  run();
  expect_copied("e");
  expect_journal_empty();
  EXPECT_EQ(target_.store().stat("e")->trash_count, replace ? 1u : 0u);
  if (hint.is_early) {
    EXPECT_EQ(target_.count("begin") - before, 2) << "early, then anew";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Hints, TargetTransferWrongHint,
    ::testing::Combine(::testing::Values(WrongHint{"TooLarge", kMiB, 5 * kMiB, true},
                                         WrongHint{"TooSmall", kMiB, 40 * kKiB, true},
                                         WrongHint{"OneByteOff", kMiB, kMiB - 1, true},
                                         WrongHint{"LargeButItIsInline", 5000, kMiB, true},
                                         WrongHint{"InlineButItIsLarge", kMiB, 5000, false},
                                         WrongHint{"BeyondAllLimits", kMiB, ~0ull, false}),
                       ::testing::Bool()),
    [](const auto& test) {
      return std::string(std::get<0>(test.param).what) +
             (std::get<1>(test.param) ? "Replacing" : "");
    });

// The thread that begins early may be late: a writer has begun by the true size, and is writing,
// when the wrong plan comes along. The gates force that order; only the early thread can begin
// "last", because the source does not open it before.
TEST_F(TargetTransferTest, APlanThatComesAfterTheFirstFrameChangesNothing) {
  offer("first", 40'000);  // one frame: occupies one writer
  offer("raced", 250 * kKiB);
  offer("last", 40'000);
  order("first");
  order("raced", 2 * samples_.at("raced").bytes.size());
  order("last");
  Gate raced_is_written, last_is_begun;
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation == "begin" && op.name == "first") raced_is_written.wait();
    if (op.operation == "begin" && op.name == "last") last_is_begun.open();
    if (op.operation == "write" && op.name == "raced") {
      raced_is_written.open();
      last_is_begun.wait();
    }
    return {};
  };
  source_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation == "open" && op.name == "last") last_is_begun.wait();
    return {};
  };
  run();
  EXPECT_EQ(target_.count("begin", "raced"), 1);
  EXPECT_EQ(target_.count("abort", "raced"), 0) << "scratch was dropped under its writers";
  for (const auto& [name, sample] : samples_) expect_copied(name);
  expect_journal_empty();
}

// Later still: the extent is public, and --replace would let a second reservation through.
TEST_F(TargetTransferTest, APlanThatComesAfterThePublishLeavesNoScratch) {
  spec_.replace = true;
  offer("first", 40'000);
  offer("raced", 250 * kKiB);
  order("first");
  order("raced", 2 * samples_.at("raced").bytes.size());
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != "begin" || op.name != "first") return {};
    const Deadline patience = deadline_in(std::chrono::seconds(20));
    while (transfer_->info().progress.extents_done == 0 && Deadline::clock::now() < patience) {
      std::this_thread::yield();
    }
    return {};
  };
  run();
  EXPECT_EQ(target_.count("begin", "raced"), 1);
  for (const auto& [name, sample] : samples_) expect_copied(name);
  expect_journal_empty();
}

TEST_F(TargetTransferTest, EarlyScratchThatCannotBeDroppedIsLeftToTheCollector) {
  offer("e", kMiB);
  order("e", 5 * kMiB);
  hold_source_until_begun(1);
  auto watch_begins = target_.react;
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation == "abort") return fail(Code::kUnavailable, "the store does not answer");
    return watch_begins(op);
  };
  run();
  EXPECT_EQ(outcome("e"), "OK");
  ASSERT_EQ(left_behind_.size(), 1u);
  auto rows = journal_->all();
  ASSERT_EQ(rows->size(), 1u) << "the published id's row is gone, the other's is not";
  EXPECT_EQ((*rows)[0].private_id, left_behind_[0].private_id);
  EXPECT_NE((*rows)[0].private_id, outcomes_.at("e")->private_id);
  EXPECT_TRUE(target_.read("e") == samples_.at("e").bytes);
  EXPECT_TRUE(target_.store().collect("e", (*rows)[0].private_id));
  expect_copied("e");
}

TEST_F(TargetTransferTest, WhenBeginningEarlyFailsTheExtentHearsOfIt) {
  offer("e", kMiB);
  order("e");
  target_.react = [](const MemoryOperation& op) -> Status {
    if (op.operation != "begin") return {};
    return fail(Code::kResourceExhausted, "the pool is full");
  };
  run();
  EXPECT_EQ(outcome("e"), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(outcomes_.at("e").error().suspect, Side::kTarget);
  expect_no_trace_of("e");
  expect_journal_empty();
}

}  // namespace
}  // namespace siphon::target_test
