// What a transfer copies and what it does not, and how it is cancelled.
#include <atomic>
#include <chrono>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>

#include "tests/unit/transfer/target_fixture.h"

namespace siphon::target_test {
namespace {

// ---- what is copied --------------------------------------------------------------------------

TEST_F(TargetTransferTest, VersionOneIsCopiedWithTheDigestThatTheSourceFoundInItsIndex) {
  offer_version_1("small", 20'000);
  offer_version_1("large", 1'500'000);
  order("small");
  order("large");
  run();
  expect_copied("small");
  expect_copied("large");
  expect_journal_empty();
}

TEST_F(TargetTransferTest, AHeaderThatCannotBeIsNotPublished) {
  Sample sample = make_sample(20'000, 1);
  ++sample.header.content_bytes;
  samples_["e"] = source_.put("e", std::move(sample));
  order("e");
  run();
  EXPECT_EQ(outcome("e"), "DATA_LOSS");
  EXPECT_EQ(outcomes_.at("e").error().suspect, Side::kSource);
  expect_no_trace_of("e");
  expect_journal_empty();
}

TEST_F(TargetTransferTest, ALargeExtentOfManyFramesGetsItsReceipt) {
  offer("e", 3 * kMiB);
  order("e");
  run();
  expect_copied("e");
  expect_journal_empty();
  EXPECT_EQ(summary_.phase, Phase::kSucceeded);
  EXPECT_TRUE(summary_.status);
  EXPECT_EQ(summary_.bytes, samples_.at("e").bytes.size());
  EXPECT_EQ(counters_.bytes_received, samples_.at("e").bytes.size());
  EXPECT_EQ(outcomes_.at("e")->source_device, "osd.2");
  EXPECT_GE(target_.count("write"), 36) << "frames of at most 100 KiB";
  EXPECT_EQ(target_.count("begin"), 1) << "made once, early or late";
}

TEST_F(TargetTransferTest, WithoutAHintTheFirstFrameBegins) {
  offer("e", kMiB);
  order("e", 0);
  run();
  expect_copied("e");
  expect_journal_empty();
  EXPECT_EQ(target_.count("begin"), 1);
}

TEST_F(TargetTransferTest, ABatchOfSmallExtentsNeedsNeitherScratchNorJournal) {
  for (int i = 0; i < 300; ++i) {
    offer("e" + std::to_string(i), 1 + (i * 97) % 20'000);
    order("e" + std::to_string(i));
  }
  run();
  for (const auto& [name, sample] : samples_) expect_copied(name);
  expect_journal_empty();
  EXPECT_EQ(summary_.extents_done, 300u);
  EXPECT_EQ(target_.count("begin"), 0);
  EXPECT_EQ(target_.count("put_inline"), 300);
}

TEST_F(TargetTransferTest, LargeAndSmallExtentsTogether) {
  for (int i = 0; i < 30; ++i) {
    offer("e" + std::to_string(i), i % 3 == 0 ? 300 * kKiB + i : 1000 + i);
    order("e" + std::to_string(i));
  }
  run();
  for (const auto& [name, sample] : samples_) expect_copied(name);
  expect_journal_empty();
}

// ---- what is not copied ----------------------------------------------------------------------

TEST_F(TargetTransferTest, ANameThatIsTakenOpensNoPortAndMakesNoScratch) {
  offer("e", kMiB);
  order("e");
  const Sample old = target_.put("e", 100 * kKiB);
  const int begins = target_.count("begin");
  run();
  EXPECT_EQ(outcome("e"), "ALREADY_EXISTS");
  EXPECT_EQ(summary_.data_endpoint, "");
  EXPECT_EQ(target_.count("begin"), begins);
  EXPECT_TRUE(target_.read("e") == old.bytes);
  expect_journal_empty();
}

TEST_F(TargetTransferTest, ANameThatIsTakenIsLeftAloneBesideOneThatIsFree) {
  offer("taken", kMiB);
  offer("free", kMiB);
  order("taken");
  order("free");
  const Sample old = target_.put("taken", 100 * kKiB);
  const int begins = target_.count("begin", "taken");
  run();
  EXPECT_EQ(outcome("taken"), "ALREADY_EXISTS");
  EXPECT_EQ(target_.count("begin", "taken"), begins);
  EXPECT_TRUE(target_.read("taken") == old.bytes);
  expect_copied("free");
  expect_journal_empty();
}

// Whoever was told that the name is taken would look there, or remove what is the last copy.
TEST_F(TargetTransferTest, ANameThatIsTakenDoesNotHideWhatTheSourceSays) {
  target_.put("gone", kMiB);
  order("gone", kMiB);
  offer("damaged", kMiB);
  target_.put("damaged", 100 * kKiB);
  order("damaged");
  offer("sound", kMiB);
  target_.put("sound", kMiB);
  order("sound");
  source_.react = [](const MemoryOperation& op) -> Status {
    if (op.operation != "stat" || op.name != "damaged") return {};
    return fail(Code::kDataLoss, "its head register does not decode");
  };
  run();
  EXPECT_EQ(outcome("gone"), "NOT_FOUND");
  EXPECT_EQ(outcome("damaged"), "DATA_LOSS");
  for (const char* name : {"gone", "damaged"}) {
    const Error& error = outcomes_.at(name).error();
    EXPECT_EQ(error.suspect, Side::kSource);
    EXPECT_EQ(error.message.find("extent " + std::string(name) + " is already in to/ns"), 0u)
        << error.message;
  }
  ASSERT_TRUE(outcomes_.at("sound"));
  EXPECT_TRUE(outcomes_.at("sound")->already_there);
}

TEST_F(TargetTransferTest, ANameThatIsTakenDoesNotHideASourceThatDoesNotAnswer) {
  offer("e", kMiB);
  order("e");
  target_.put("e", kMiB);
  caller_.hang_at_headers = [](const std::stop_token&) {};
  caller_.header_end = fail(Code::kUnavailable, "the device does not answer");
  run();
  EXPECT_EQ(outcome("e"), "UNAVAILABLE");
  EXPECT_EQ(outcomes_.at("e").error().suspect, Side::kSource);
  EXPECT_EQ(target_.count("begin"), 1) << "when it was put there";
}

// A large batch is not looked through first: beginning and publishing find out.
TEST_F(TargetTransferTest, NamesThatAreTakenInALargeBatchLeaveNothing) {
  const Sample old_large = target_.put("large", 100 * kKiB);
  const Sample old_small = target_.put("small", 100);
  offer("large", kMiB);
  offer("small", 1000);
  order("large");
  order("small");
  for (int i = 0; i < 70; ++i) {
    offer("e" + std::to_string(i), 1000);
    order("e" + std::to_string(i));
  }
  run();
  EXPECT_EQ(outcome("large"), "ALREADY_EXISTS");
  EXPECT_EQ(outcome("small"), "ALREADY_EXISTS");
  EXPECT_TRUE(target_.read("large") == old_large.bytes);
  EXPECT_TRUE(target_.read("small") == old_small.bytes);
  EXPECT_EQ(target_.stored("large"), 2u);
  EXPECT_EQ(target_.stored("small"), 2u);
  for (int i = 0; i < 70; ++i) expect_copied("e" + std::to_string(i));
  expect_journal_empty();
}

TEST_F(TargetTransferTest, EarlyScratchIsDroppedWhenTheSourceLacksTheExtent) {
  order("missing", kMiB);
  hold_source_until_begun(1);
  run();
  EXPECT_EQ(outcome("missing"), "NOT_FOUND");
  EXPECT_EQ(outcomes_.at("missing").error().suspect, Side::kSource);
  EXPECT_EQ(summary_.phase, Phase::kFailed);
  EXPECT_EQ(target_.count("begin", "missing"), 1);
  expect_no_trace_of("missing");
  expect_journal_empty();
}

TEST_F(TargetTransferTest, AMissingExtentDoesNotHoldTheOthersBack) {
  offer("there", kMiB);
  order("missing", kMiB);
  order("there");
  hold_source_until_begun(2);
  run();
  EXPECT_EQ(outcome("missing"), "NOT_FOUND");
  expect_no_trace_of("missing");
  expect_copied("there");
  expect_journal_empty();
}

TEST_F(TargetTransferTest, AFailedWriteDropsTheScratch) {
  offer("bad", kMiB);
  offer("good", kMiB);
  order("bad");
  order("good");
  target_.react = [](const MemoryOperation& op) -> Status {
    if (op.operation != "write" || op.name != "bad" || op.offset_bytes == 0) return {};
    return fail(Code::kDataLoss, "EIO");
  };
  run();
  EXPECT_EQ(outcome("bad"), "DATA_LOSS");
  EXPECT_EQ(outcomes_.at("bad").error().suspect, Side::kTarget);
  expect_no_trace_of("bad");
  expect_copied("good");
  expect_journal_empty();
}

// ---- cancel ----------------------------------------------------------------------------------

// They are more than the lease holds, and those behind them need its memory.
TEST_F(TargetTransferTest, ExtentsThatFailLetGoOfTheirMemory) {
  for (int i = 0; i < 100; ++i) {
    offer("e" + std::to_string(i), 20'000);
    order("e" + std::to_string(i));
  }
  caller_.fails = [](std::uint32_t index) { return index < 60; };
  settings_.transfer_timeout = std::chrono::seconds(20);
  run();
  EXPECT_EQ(summary_.extents_done, 40u);
  for (int i = 0; i < 100; ++i) {
    const std::string name = "e" + std::to_string(i);
    if (i >= 60) {
      expect_copied(name);
    } else {
      EXPECT_EQ(outcome(name), "DATA_LOSS");
      expect_no_trace_of(name);
    }
  }
  expect_journal_empty();
}

// More than the lease holds waits for claims that cannot come any more.
TEST_F(TargetTransferTest, ALostSecondCallEndsATransferWhoseLanesWaitForMemory) {
  for (int i = 0; i < 300; ++i) {
    offer("e" + std::to_string(i), 20'000);
    order("e" + std::to_string(i));
  }
  Gate under_way;
  source_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation == "open" && source_.count("open") > 20) under_way.open();
    return {};
  };
  caller_.lose_connection_when = &under_way;
  run(/*source_ends_too=*/true);
  EXPECT_EQ(summary_.phase, Phase::kFailed);
  EXPECT_EQ(summary_.extents_done, 0u);
  for (const auto& [name, sample] : samples_) {
    EXPECT_EQ(outcome(name), "UNAVAILABLE") << name;
    expect_no_trace_of(name);
  }
  expect_journal_empty();
}

TEST_F(TargetTransferTest, WhatASourceSendsIsCountedWhileItSends) {
  offer("e", 32 * kMiB);  // more than there is room for on the way: it cannot be over at once
  order("e");
  bool counted_before_the_end = false;
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != "write" || counted_before_the_end) return {};
    const Deadline until = deadline_in(std::chrono::seconds(20));
    while (counters_.bytes_sent == 0 && Deadline::clock::now() < until) std::this_thread::yield();
    counted_before_the_end = counters_.bytes_sent > 0 && counters_.transfers_out == 1;
    return {};
  };
  settings_.writers = 1;
  run();
  EXPECT_TRUE(counted_before_the_end);
  EXPECT_EQ(counters_.bytes_sent, samples_.at("e").bytes.size());
  EXPECT_EQ(counters_.transfers_out, 0u);
}

// What the store has done another way for others, at the same time, is theirs.
TEST_F(TargetTransferTest, ASourceCountsOnlyTheFallbacksOfItsOwnTransfer) {
  offer("e", 2 * kMiB);
  order("e");
  std::atomic<std::uint64_t> own{0};
  source_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != "read") return {};
    ++fallback_parts_of_this_thread();
    ++own;
    std::thread([] { fallback_parts_of_this_thread() += 100; }).join();
    return {};
  };
  run();
  expect_copied("e");
  EXPECT_GT(own, 1u);
  EXPECT_EQ(summary_.fallback_parts, own);
  EXPECT_EQ(counters_.fallback_parts, own);
}

TEST_F(TargetTransferTest, CancelInTheMiddleDropsTheScratch) {
  offer("e", 4 * kMiB);
  order("e");
  target_.react = [this](const MemoryOperation& op) -> Status {
    if (op.operation == "write" && target_.count("write") == 5) transfer_->cancel();
    return {};
  };
  run();
  EXPECT_EQ(outcome("e"), "CANCELLED");
  EXPECT_EQ(summary_.phase, Phase::kCancelled);
  EXPECT_GT(progress_.received_bytes, 0u);
  EXPECT_EQ(progress_.durable_bytes, 0u) << "the scratch is gone";
  expect_no_trace_of("e");
  expect_journal_empty();
}

TEST_F(TargetTransferTest, CancelWhileTheEarlyScratchIsMadeDropsIt) {
  order("e", kMiB);  // the source is never asked for it
  order("f", kMiB);
  target_.react = [this](const MemoryOperation& op) -> Status {
    if (op.operation != "begin") return {};
    transfer_->cancel();
    begun_.open();
    return {};
  };
  source_.react = [this](const MemoryOperation& op) -> Status {
    if (op.operation == "check_ready") begun_.wait();
    return {};
  };
  run();
  EXPECT_EQ(outcome("e"), "CANCELLED");
  EXPECT_EQ(outcome("f"), "CANCELLED");
  EXPECT_EQ(summary_.phase, Phase::kCancelled);
  EXPECT_EQ(target_.count("begin", "e"), 1);
  EXPECT_EQ(target_.count("begin", "f"), 0) << "nothing more is begun once cancelled";
  expect_no_trace_of("e");
  expect_journal_empty();
}

}  // namespace
}  // namespace siphon::target_test
