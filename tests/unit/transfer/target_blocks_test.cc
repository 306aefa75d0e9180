// A transfer that checks the blocks at both ends, and whom it blames for rot.
#include <atomic>
#include <map>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>

#include "tests/unit/transfer/target_fixture.h"

namespace siphon::target_test {
namespace {

// A byte of its second block's content is another, and its header's crc32 was made to fit.
Sample rotten_with_a_fitting_header(std::size_t bytes, std::uint64_t seed) {
  Sample sample = make_sample(bytes, seed);
  const std::size_t first_block = sample.bytes.size() > 40'000 ? 20'000 : bytes / 2 + 1;
  sample.bytes.at(first_block + 2 * kBlockHeaderBytes + 7) ^= std::byte{0x10};
  sample.header.crc32 = crc32(sample.bytes);
  return sample;
}

TEST_F(TargetTransferTest, BlocksThatAreCheckedAreSaidToBe) {
  for (const auto& [name, bytes] : {std::pair("large", 3 * kMiB), std::pair("small", 20'000ul)}) {
    offer(name, bytes);
    order(name);
  }
  spec_.check_blocks = true;
  run();
  for (const char* name : {"large", "small"}) {
    expect_copied(name);
    EXPECT_TRUE(outcomes_.at(name)->blocks_checked);
  }
  EXPECT_GT(target_.count("read scratch", "large"), 30) << "all of it was read back";
}

TEST_F(TargetTransferTest, RotUnderAFittingHeaderIsTheSourcesAndIsNotPublished) {
  for (const auto& [name, bytes] : {std::pair("large", 3 * kMiB), std::pair("small", 20'000ul)}) {
    samples_[name] = source_.put(name, rotten_with_a_fitting_header(bytes, 1));
    order(name);
  }
  offer("sound", 300'000);
  order("sound");
  spec_.check_blocks = true;
  run();
  for (const char* name : {"large", "small"}) {
    ASSERT_EQ(outcome(name), "DATA_LOSS");
    const Error& error = outcomes_.at(name).error();
    EXPECT_EQ(error.suspect, Side::kSource);
    EXPECT_NE(error.message.find("block 1"), std::string::npos) << error.message;
    EXPECT_NE(error.message.find("SHA-256"), std::string::npos) << error.message;
    expect_no_trace_of(name);
  }
  expect_copied("sound");
  expect_journal_empty();
}

TEST_F(TargetTransferTest, WhatTheTargetStoredWronglyIsTheTargets) {
  offer("e", 3 * kMiB);
  order("e");
  spec_.check_blocks = true;
  std::atomic<bool> flipped{false};
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != "read scratch" || flipped.exchange(true)) return {};
    const auto reg = target_.store().inspect("e");
    EXPECT_TRUE(reg);
    return target_.provider.flip_byte(target_.location, "e", 2 * kMiB, reg->reservations.at(0).id);
  };
  run();
  ASSERT_EQ(outcome("e"), "DATA_LOSS");
  EXPECT_EQ(outcomes_.at("e").error().suspect, Side::kTarget);
  expect_no_trace_of("e");
  expect_journal_empty();
}

TEST_F(TargetTransferTest, WhoCannotReadBackWhatIsWrongBlamesNobody) {
  samples_["e"] = source_.put("e", rotten_with_a_fitting_header(3 * kMiB, 1));
  order("e");
  spec_.check_blocks = true;
  std::atomic<int> from_the_start{0};  // once for the blocks, and once more for the crc32
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != "read scratch" || op.offset_bytes != 0) return {};
    return ++from_the_start == 2 ? fail(Code::kUnavailable, "no answer") : Status{};
  };
  run();
  ASSERT_EQ(outcome("e"), "UNAVAILABLE");
  EXPECT_EQ(outcomes_.at("e").error().message.find("damaged"), std::string::npos);
  expect_no_trace_of("e");
}

// Two check their blocks at a time (kBlockChecksAtOnce), the others wait for a place.
TEST_F(TargetTransferTest, ACancelEndsTheWaitForAPlaceToCheckBlocks) {
  for (const char* name : {"e1", "e2", "e3", "e4"}) {
    offer(name, kMiB);
    order(name);
  }
  spec_.check_blocks = true;
  std::mutex mutex;
  std::map<std::string, int> reads;
  Gate cancelled;
  std::jthread canceller;
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != "read scratch") return {};
    bool first = false;
    {
      std::lock_guard lock(mutex);
      first = ++reads[std::string(op.name)] == 1;
      if (first && reads.size() == 2) {
        canceller = std::jthread([&] {
          transfer_->cancel();
          cancelled.open();
        });
      }
    }
    if (first) cancelled.wait();
    return {};
  };
  run();
  EXPECT_EQ(summary_.phase, Phase::kCancelled);
  EXPECT_EQ(reads.size(), 2u) << "who waited has read nothing";
  for (const auto& [name, count] : reads) EXPECT_EQ(count, 1) << name;
  for (const auto& [name, sample] : samples_) {
    EXPECT_EQ(outcome(name), "CANCELLED") << name;
    expect_no_trace_of(name);
  }
  expect_journal_empty();
}

TEST_F(TargetTransferTest, ACancelEndsTheQuestionForTheSourcesHeaders) {
  offer("e", kMiB);
  order("e");
  target_.put("e", kMiB);
  bool stopped = false;
  caller_.hang_at_headers = [&](const std::stop_token& stop) {
    Gate hung_up;
    std::stop_callback wake(stop, [&] { hung_up.open(); });
    transfer_->cancel();
    hung_up.wait();
    stopped = stop.stop_requested();
  };
  run();
  EXPECT_TRUE(stopped);
  EXPECT_EQ(summary_.phase, Phase::kCancelled);
  EXPECT_EQ(source_.count("open"), 0);
}

TEST_F(TargetTransferTest, AnEarlierReceiptWithoutACheckOfBlocksIsNoReceiptForOne) {
  offer("e", 300'000);
  order("e");
  run();
  known_ = {*outcomes_.at("e")};
  ASSERT_FALSE(known_[0].blocks_checked);
  outcomes_.clear();
  spec_.check_blocks = true;
  run();
  ASSERT_TRUE(outcomes_.at("e"));
  EXPECT_TRUE(outcomes_.at("e")->already_there) << "and so is said to have been read by nobody";
  EXPECT_FALSE(outcomes_.at("e")->blocks_checked);
}

}  // namespace
}  // namespace siphon::target_test
