// Answers that are lost around the publish, names that are taken, and tries after the first.
#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/transfer/target_fixture.h"

namespace siphon::target_test {
namespace {

// ---- lost answers ----------------------------------------------------------------------------

class TargetTransferLostAnswer : public TargetTransferTest,
                                 public ::testing::WithParamInterface<bool> {
 protected:
  // Large or small: a publish of scratch, or a put of everything at once.
  std::string done() const { return GetParam() ? "publish done" : "put_inline done"; }
  std::string asked() const { return GetParam() ? "publish" : "put_inline"; }
  void offer_two() {
    for (const char* name : {"lost", "other"}) {
      offer(name, GetParam() ? kMiB : 1000);
      order(name);
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Sizes, TargetTransferLostAnswer, ::testing::Bool(), [](const auto& test) {
  return std::string(test.param ? "Large" : "Small");
});

TEST_P(TargetTransferLostAnswer, APublishThatTookEffectHasItsReceipt) {
  offer_two();
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != done() || op.name != "lost" || target_.count(done(), "lost") > 1) return {};
    return fail(Code::kDeadlineExceeded, "no answer");
  };
  run();
  expect_copied("lost");
  expect_copied("other");
  expect_journal_empty();
  EXPECT_EQ(target_.count(asked(), "lost"), 2) << "asked again, published once";
}

TEST_P(TargetTransferLostAnswer, AnErrorAfterThePublishIsNoFailure) {
  offer_two();
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != done() || op.name != "lost" || target_.count(done(), "lost") > 1) return {};
    return fail(Code::kDataLoss, "sync the folder: EIO");
  };
  run();
  expect_copied("lost");
  expect_copied("other");
  expect_journal_empty();
}

TEST_P(TargetTransferLostAnswer, OneThatNeverTookEffectIsWithdrawn) {
  offer_two();
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != asked() || op.name != "lost") return {};
    return fail(Code::kDeadlineExceeded, "no answer");
  };
  run();
  EXPECT_GE(clock_.passed(), settings_.settle_timeout) << "asked again for so long";
  EXPECT_LT(clock_.passed(), settings_.settle_timeout + std::chrono::seconds(2));
  EXPECT_EQ(outcome("lost"), "DEADLINE_EXCEEDED");
  EXPECT_EQ(outcomes_.at("lost").error().reason, Reason::kNone);
  expect_no_trace_of("lost");
  expect_copied("other");
}

TEST_P(TargetTransferLostAnswer, AnAnswerThatNeverComesIsUnknownAndLeftToTheCollector) {
  offer_two();
  target_.react = [&](const MemoryOperation& op) -> Status {
    const bool silent = op.operation == asked() || op.operation == done() ||
                        op.operation == "collect" || op.operation == "abort";
    if (!silent || op.name != "lost" ||
        (op.operation == asked() && target_.count(asked(), "lost") == 1))
      return {};
    return fail(Code::kDeadlineExceeded, "no answer");
  };
  run();
  ASSERT_EQ(outcome("lost"), "UNAVAILABLE");
  EXPECT_EQ(outcomes_.at("lost").error().reason, Reason::kOutcomeUnknown);
  expect_copied("other");
  ASSERT_EQ(left_behind_.size(), 1u);
  EXPECT_EQ(left_behind_[0].extent, "lost");
  EXPECT_EQ(journal_->all()->size(), 1u);
  // It had been published. The next try of the same command finds that out.
  target_.react = {};
  outcomes_.clear();
  run();
  ASSERT_TRUE(outcomes_.at("lost")) << outcomes_.at("lost").error().message;
  EXPECT_TRUE(outcomes_.at("lost")->already_there);
  EXPECT_EQ(outcomes_.at("lost")->private_id, target_.store().stat("lost")->private_id);
  EXPECT_TRUE(target_.read("lost") == samples_.at("lost").bytes);
}

// ---- names that are taken, and tries after the first -------------------------------------------

TEST_F(TargetTransferTest, TheSameContentWithAPartMissingIsNotThere) {
  offer("e", 300'000);
  order("e");
  run();
  expect_copied("e");
  outcomes_.clear();
  spec_.id.clear();
  target_.react = [](const MemoryOperation& op) -> Status {
    if (op.operation != "check_parts") return {};
    return fail(parts_missing("extent e", 1, 2));
  };
  run();
  ASSERT_EQ(outcome("e"), "DATA_LOSS");
  EXPECT_EQ(outcomes_.at("e").error().suspect, Side::kTarget);
  EXPECT_NE(outcomes_.at("e").error().message.find("damaged there"), std::string::npos);
  target_.react = {};
  EXPECT_TRUE(target_.read("e") == samples_.at("e").bytes) << "left alone";
}

TEST_F(TargetTransferTest, TheSameContentUnderTheNameIsSuccessAndNothingMoves) {
  const Sample& sample = offer("e", kMiB);
  order("e");
  offer("small", 1000);
  order("small");
  target_.put("e", kMiB);
  target_.put("small", 1000);
  const PrivateId before = target_.store().stat("e")->private_id;
  run();
  for (const char* name : {"e", "small"}) {
    ASSERT_TRUE(outcomes_.at(name)) << outcomes_.at(name).error().message;
    EXPECT_TRUE(outcomes_.at(name)->already_there);
  }
  EXPECT_EQ(outcomes_.at("e")->private_id, before);
  EXPECT_EQ(outcomes_.at("e")->bytes, sample.bytes.size());
  EXPECT_EQ(target_.store().stat("e")->private_id, before);
  EXPECT_EQ(source_.count("open"), 0) << "no byte was read";
  EXPECT_EQ(counters_.bytes_received, 0u);
  EXPECT_EQ(summary_.phase, Phase::kSucceeded);
  EXPECT_EQ(summary_.bytes, 0u) << "nothing was published";
  EXPECT_EQ(summary_.extents_already_there, 2u);
  expect_journal_empty();
}

TEST_F(TargetTransferTest, TheTotalIsThatOfWhatIsToArrive) {
  for (const char* name : {"there", "new"}) {
    offer(name, kMiB);
    order(name);
  }
  target_.put("there", kMiB);
  run();
  EXPECT_TRUE(outcomes_.at("there")->already_there);
  EXPECT_EQ(progress_.total_bytes, samples_.at("new").bytes.size());
  EXPECT_EQ(progress_.durable_bytes, progress_.total_bytes);
  EXPECT_EQ(progress_.extents_done, 2u);
  EXPECT_EQ(progress_.extents_already_there, 1u);
  EXPECT_EQ(summary_.extents_done, 2u);
  EXPECT_EQ(summary_.extents_already_there, 1u);
}

TEST_F(TargetTransferTest, TheGenerationThatLeavesTheTrashIsToldAndACopyThatFailsCostsNone) {
  for (const char* name : {"copied", "broken"}) {
    offer(name, kMiB);
    order(name);
    const std::uint32_t keep = target_.store().limits().kept_generations;
    for (std::uint32_t i = 0; i <= keep; ++i) {
      target_.put(name, 200 * kKiB + i);
      if (i == keep) break;
      ASSERT_TRUE(target_.store().trash(name, *target_.store().stat(name)));
    }
  }
  const auto oldest = [&](const char* name) { return target_.store().inspect(name)->trash.at(0); };
  const TrashEntry of_copied = oldest("copied"), of_broken = oldest("broken");
  spec_.replace = true;
  target_.react = [](const MemoryOperation& op) -> Status {
    if (op.operation != "publish" || op.name != "broken") return {};
    return fail(Code::kResourceExhausted, "full");
  };
  run();
  expect_copied("copied");
  ASSERT_EQ(outcome("broken"), "RESOURCE_EXHAUSTED");
  const std::vector<TrashEntry>& told = left_for_good_.at("copied");
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].id, of_copied.id);
  EXPECT_EQ(told[0].header.extent_bytes, of_copied.header.extent_bytes);
  EXPECT_TRUE(left_for_good_.at("broken").empty());
  EXPECT_EQ(oldest("broken").id, of_broken.id);
  // The receipt says the same as often as it is asked for.
  const auto kept = journal_->receipts_of(spec_.id);
  ASSERT_TRUE(kept);
  ASSERT_EQ(kept->size(), 1u);
  ASSERT_EQ(kept->at(0).left_for_good.size(), 1u);
  EXPECT_EQ(kept->at(0).left_for_good[0].id, of_copied.id);
}

TEST_F(TargetTransferTest, OtherContentUnderTheNameDiffersBeforeTheFirstByte) {
  offer("e", kMiB);
  order("e");
  target_.put("e", 100 * kKiB);
  run();
  EXPECT_EQ(outcome("e"), "ALREADY_EXISTS");
  EXPECT_EQ(outcomes_.at("e").error().reason, Reason::kDiffers);
  EXPECT_EQ(source_.count("open"), 0) << "no byte was read";
}

TEST_F(TargetTransferTest, TheSameContentFoundAtThePublishIsSuccess) {
  for (int i = 0; i < 70; ++i) {  // too many to be looked at first
    offer("e" + std::to_string(i), 1000);
    order("e" + std::to_string(i), 0);
  }
  target_.put("e3", 1000);
  run();
  for (const auto& [name, sample] : samples_) {
    ASSERT_TRUE(outcomes_.at(name)) << outcomes_.at(name).error().message;
    EXPECT_EQ(outcomes_.at(name)->already_there, name == "e3");
  }
  expect_journal_empty();
}

TEST_F(TargetTransferTest, ANextTryTellsTheSameReceiptsAndCopiesTheRest) {
  for (int i = 0; i < 10; ++i) {
    offer("e" + std::to_string(i), i % 2 == 0 ? 1000 : 200 * kKiB);
    order("e" + std::to_string(i));
  }
  caller_.fails = [](std::uint32_t index) { return index >= 6; };
  run();
  EXPECT_EQ(summary_.extents_done, 6u);
  const auto first = std::exchange(outcomes_, {});
  known_ = *journal_->receipts_of(spec_.id);  // as after a restart
  EXPECT_EQ(known_.size(), 6u);
  spec_.attempt = 2;
  caller_.fails = {};
  std::map<std::string, int> opened;
  for (const auto& [name, sample] : samples_) opened[name] = source_.count("open", name);
  run();
  EXPECT_EQ(summary_.phase, Phase::kSucceeded);
  for (const auto& [name, sample] : samples_) {
    expect_copied(name);
    EXPECT_EQ(outcomes_.at(name)->attempts, first.at(name) ? 1u : 2u) << name;
    if (!first.at(name)) continue;
    EXPECT_EQ(source_.count("open", name), opened.at(name)) << name << " was read again";
    EXPECT_EQ(outcomes_.at(name)->private_id, first.at(name)->private_id);
    EXPECT_EQ(outcomes_.at(name)->finished_unix_ms, first.at(name)->finished_unix_ms);
    EXPECT_EQ(target_.count("begin", name), name[1] % 2 == 0 ? 0 : 1) << name;
  }
  expect_journal_empty();
}

TEST_F(TargetTransferTest, OneTooLargeAndOneDamagedHeadAreTheirOwnErrors) {
  settings_.max_extent_bytes = 2 * kMiB;
  offer("large", 3 * kMiB);
  offer("unplanned", 3 * kMiB);
  offer("bad", 1000);
  offer("good", kMiB);
  order("large");
  order("unplanned", 0);
  order("bad");
  order("good");
  target_.react = [](const MemoryOperation& op) -> Status {
    if (op.operation != "stat" || op.name != "bad") return {};
    return fail(Code::kDataLoss, "its head does not decode");
  };
  run();
  EXPECT_EQ(outcome("large"), "INVALID_ARGUMENT");
  EXPECT_NE(outcomes_.at("large").error().next_step.find("transfer.max_extent_bytes"),
            std::string::npos);
  EXPECT_EQ(outcome("unplanned"), "INVALID_ARGUMENT");
  EXPECT_EQ(outcome("bad"), "DATA_LOSS");
  expect_copied("good");
  EXPECT_EQ(source_.count("open", "large"), 0) << "known before the first byte";
  for (const char* name : {"large", "unplanned", "bad"}) expect_no_trace_of(name);
  expect_journal_empty();
}

TEST_F(TargetTransferTest, OneThatIsCancelledInLineHasEndedAtOnce) {
  order("e", kMiB);
  spec_.id = new_transfer_id();
  spec_.source = source_.location;
  spec_.target = target_.location;
  TargetTransfer transfer(
      spec_, target_.store(),
      {settings_, receive_pool_, *journal_, caller_, counters_, receive_throttle_});
  transfer.cancel();
  EXPECT_EQ(transfer.info().progress.phase, Phase::kCancelled);
  transfer.run();  // whoever had it in line comes along later
  std::size_t cursor = 0;
  const auto update = transfer.wait_update(&cursor, std::chrono::milliseconds(0));
  ASSERT_TRUE(update.summary);
  EXPECT_EQ(update.outcomes.size(), 1u);
  EXPECT_EQ(target_.count("check_ready"), 0);
}

TEST(ReachedSetting, TheLowerOfTheTwoIsNamed) {
  constexpr double kNear = 19e6, kFar = 10e6;
  constexpr std::uint64_t kLow = 20'000'000, kHigh = 100'000'000;
  EXPECT_EQ(reached_setting(kNear, kLow, 0), Bottleneck::kSetting);
  EXPECT_EQ(reached_setting(kNear, kLow, kHigh), Bottleneck::kSetting);
  EXPECT_EQ(reached_setting(kNear, 0, kLow), Bottleneck::kDeviceSetting);
  EXPECT_EQ(reached_setting(kNear, kHigh, kLow), Bottleneck::kDeviceSetting);
  EXPECT_EQ(reached_setting(kFar, kHigh, kLow), Bottleneck::kNone)
      << "something else holds it back";
  EXPECT_EQ(reached_setting(kNear, 0, 0), Bottleneck::kNone);
}

TEST_F(TargetTransferTest, TheLineIsBoundedByItsExtents) {
  settings_.max_transfers = 1;
  target_.react = [this](const MemoryOperation& op) -> Status {
    if (op.operation == "check_ready") begun_.wait();
    return {};
  };
  TransferManager manager(
      {settings_, receive_pool_, *journal_, caller_, counters_, receive_throttle_});
  auto submit = [&](std::size_t extents) {
    TransferSpec spec;
    spec.id = new_transfer_id();
    spec.source_address = "127.0.0.1:1";
    spec.source = source_.location;
    spec.target = target_.location;
    for (std::size_t i = 0; i < extents; ++i) {
      const std::string name = "e" + std::to_string(i);
      spec.extents.push_back({name, name});
    }
    return manager.submit(std::move(spec), target_.store());
  };
  ASSERT_TRUE(submit(1));
  while (target_.count("check_ready") == 0) std::this_thread::yield();  // it runs: none waits
  for (std::size_t waiting = 0; waiting < TransferManager::kMaxWaitingExtents;
       waiting += kMaxExtentsPerTransfer) {
    ASSERT_TRUE(submit(kMaxExtentsPerTransfer)) << waiting;
  }
  const auto refused = submit(1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, Reason::kBusy);
  for (const auto& transfer : manager.all()) transfer->cancel();
  EXPECT_TRUE(submit(1)) << "those that were cancelled in line have left it";
  begun_.open();
}

}  // namespace
}  // namespace siphon::target_test
