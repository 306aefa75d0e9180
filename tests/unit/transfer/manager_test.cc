// The transfers of one device: who waits for whom, who is told again what there was, and what is
// forgotten.
#include "plugin/transfer/manager.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "tests/unit/transfer/target_fixture.h"

namespace siphon::target_test {
namespace {

using Transfer = std::shared_ptr<TargetTransfer>;

// Of a test that makes some of the largest requests, on a machine that does much else.
constexpr std::chrono::seconds kDeadline{100};

class TransferManagerTest : public TargetTransferTest {
 protected:
  TransferManagerTest() { settings_.max_transfers = 1; }
  ~TransferManagerTest() override { let_go(); }

  void start() {
    manager_ = std::make_unique<TransferManager>(TargetEnvironment{
        settings_, receive_pool_, *journal_, caller_, counters_, receive_throttle_,
        [this](Attempt a) { left_behind_.push_back(std::move(a)); }});
  }
  TransferSpec request_for(const std::vector<std::string>& names) const {
    TransferSpec spec;
    spec.id = new_transfer_id();
    spec.source_address = "127.0.0.1:7400";
    spec.source = source_.location;
    spec.target = target_.location;
    for (const std::string& name : names) spec.extents.push_back({name, name, 0});
    return spec;
  }
  // Of so many extents that nobody has.
  TransferSpec request_of(std::size_t count) const {
    TransferSpec spec = request_for({});
    for (std::size_t i = 0; i < count; ++i) {
      const std::string name = "n" + std::to_string(i);
      spec.extents.push_back({name, name, 0});
    }
    return spec;
  }
  Result<Transfer> submit(const TransferSpec& spec) {
    return manager_->submit(spec, target_.store());
  }
  Transfer submitted(const TransferSpec& spec) {
    auto transfer = submit(spec);
    EXPECT_TRUE(transfer) << transfer.error().message;
    return transfer ? *transfer : nullptr;
  }
  // The source opens nothing from here on until `let_go`: what is submitted first runs, the rest
  // waits. Returns the one that runs.
  Transfer occupy() {
    offer("held", 50'000);
    source_.react = [this](const MemoryOperation& op) -> Status {
      if (op.operation == "open" && op.name == "held") gate_.wait(kDeadline);
      return opened_;
    };
    start();
    Transfer running = submitted(request_for({"held"}));
    EXPECT_TRUE(reaches(*running, [](Phase p) { return p != Phase::kQueued; }));
    return running;
  }
  void let_go() { gate_.open(); }
  // Waits for a phase; false when it does not come.
  template <typename Wanted>
  static bool reaches(TargetTransfer& transfer, Wanted wanted) {
    std::size_t cursor = 0;
    const auto until = std::chrono::steady_clock::now() + kDeadline;
    while (!wanted(transfer.info().progress.phase)) {
      if (std::chrono::steady_clock::now() > until) return false;
      (void)transfer.wait_update(&cursor, std::chrono::milliseconds(20));
    }
    return true;
  }
  static Phase end_of(const Transfer& transfer) {
    EXPECT_TRUE(reaches(*transfer, is_final));
    return transfer->info().progress.phase;
  }
  static std::vector<ExtentOutcome> outcomes_of(TargetTransfer& transfer) {
    std::size_t cursor = 0;
    return transfer.wait_update(&cursor, std::chrono::milliseconds(0)).outcomes;
  }

  Gate gate_;
  Status opened_;                             // what the source says then
  std::unique_ptr<TransferManager> manager_;  // ends before what it uses
};

TEST_F(TransferManagerTest, WhatIsSubmittedRunsToItsEndAndStaysKnown) {
  offer("e", 200'000);
  start();
  const TransferSpec request = request_for({"e"});
  const Transfer transfer = submitted(request);
  EXPECT_EQ(end_of(transfer), Phase::kSucceeded);
  EXPECT_TRUE(target_.read("e") == samples_.at("e").bytes);
  const auto found = manager_->find(request.id);
  ASSERT_TRUE(found);
  EXPECT_EQ(*found, transfer);
  EXPECT_EQ(manager_->all(), std::vector<Transfer>{transfer});
  EXPECT_EQ(code_of(manager_->find(new_transfer_id())), "NOT_FOUND");
}

TEST_F(TransferManagerTest, ARequestThatCannotBeIsRefusedAndNotRemembered) {
  start();
  EXPECT_EQ(code_of(submit(request_for({}))), "INVALID_ARGUMENT");
  EXPECT_TRUE(manager_->all().empty());
}

TEST_F(TransferManagerTest, TheSameRequestAgainIsTheSameTransfer) {
  TransferSpec request = request_for({"held"});
  const Transfer running = occupy();
  request.id = running->spec().id;
  EXPECT_EQ(submitted(request), running);
  let_go();
  EXPECT_EQ(end_of(running), Phase::kSucceeded);
  EXPECT_EQ(submitted(request), running) << "a lost reply gives the same receipt again";
}

TEST_F(TransferManagerTest, OneIdIsOneWay) {
  const Transfer running = occupy();
  TransferSpec request = running->spec();
  request.target.nspace = "elsewhere";
  EXPECT_EQ(code_of(submit(request)), "ALREADY_EXISTS");
  request = running->spec();
  request.replace = true;
  EXPECT_EQ(code_of(submit(request)), "ALREADY_EXISTS");
  request = running->spec();
  request.extents.push_back({"other", "other", 0});
  EXPECT_EQ(code_of(submit(request)), "ABORTED") << "it runs, and was asked for other extents";
  let_go();
  EXPECT_EQ(end_of(running), Phase::kSucceeded);
}

TEST_F(TransferManagerTest, TheNextTryCopiesOnlyWhatHasNoReceipt) {
  offer("good", 150'000);
  offer("bad", 150'000);
  caller_.fails = [](std::uint32_t index) { return index == 1; };
  start();
  const TransferSpec request = request_for({"good", "bad"});
  const Transfer first = submitted(request);
  EXPECT_EQ(end_of(first), Phase::kFailed);
  ASSERT_EQ(first->receipts().size(), 1u);
  const int begun = target_.count("begin", "good");
  caller_.fails = {};
  const Transfer second = submitted(request);
  EXPECT_NE(second, first);
  EXPECT_EQ(end_of(second), Phase::kSucceeded);
  EXPECT_EQ(target_.count("begin", "good"), begun) << "it was there";
  for (const ExtentOutcome& outcome : outcomes_of(*second)) {
    EXPECT_TRUE(outcome.result) << outcome.target_extent;
  }
  EXPECT_EQ(manager_->all(), std::vector<Transfer>{second}) << "in the place of the first";
}

TEST_F(TransferManagerTest, NoMoreRunThanTheSettingSaysAndTheRestInTheirOrder) {
  offer("a", 1000);
  offer("b", 1000);
  const Transfer running = occupy();
  const Transfer a = submitted(request_for({"a"}));
  const Transfer b = submitted(request_for({"b"}));
  EXPECT_EQ(a->info().progress.phase, Phase::kQueued);
  EXPECT_EQ(b->info().progress.phase, Phase::kQueued);
  EXPECT_EQ(counters_.transfers_in.load(), 1u);
  let_go();
  EXPECT_EQ(end_of(b), Phase::kSucceeded);
  EXPECT_TRUE(is_final(a->info().progress.phase)) << "it came first";
  EXPECT_TRUE(is_final(running->info().progress.phase));
}

TEST_F(TransferManagerTest, AFullLineIsBusyUntilSomebodyLeavesIt) {
  const Transfer running = occupy();
  std::vector<Transfer> waiting;
  for (std::size_t i = 0; i < TransferManager::kMaxWaiting; ++i) {
    waiting.push_back(submitted(request_of(1)));
  }
  const auto refused = submit(request_of(1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, Reason::kBusy);
  EXPECT_EQ(refused.error().suspect, Side::kTarget);
  waiting[7]->cancel();
  EXPECT_EQ(waiting[7]->info().progress.phase, Phase::kCancelled) << "it ends at once";
  EXPECT_TRUE(submit(request_of(1)));
  EXPECT_FALSE(submit(request_of(1)));
}

TEST_F(TransferManagerTest, TheLineIsAlsoFullOfExtents) {
  const Transfer running = occupy();
  const std::size_t times = TransferManager::kMaxWaitingExtents / kMaxExtentsPerTransfer;
  for (std::size_t i = 0; i < times; ++i) {
    EXPECT_TRUE(submit(request_of(kMaxExtentsPerTransfer)));
  }
  const auto refused = submit(request_of(1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, Reason::kBusy);
}

TEST_F(TransferManagerTest, OfThoseThatHaveEndedTheOldestAreForgotten) {
  const Transfer running = occupy();
  std::vector<std::string> ids;
  for (std::size_t i = 0; i < TransferManager::kMaxEnded + 2; ++i) {
    const Transfer transfer = submitted(request_of(1));
    ids.push_back(transfer->spec().id);
    transfer->cancel();
  }
  EXPECT_TRUE(submit(request_of(1)));  // finds out that they have left the line
  EXPECT_EQ(code_of(manager_->find(ids[0])), "NOT_FOUND");
  EXPECT_EQ(code_of(manager_->find(ids[1])), "NOT_FOUND");
  EXPECT_EQ(code_of(manager_->find(ids[2])), "OK");
  EXPECT_EQ(code_of(manager_->find(ids.back())), "OK");
}

TEST_F(TransferManagerTest, ALargeOneThatHasEndedPushesOutItsLike) {
  const Transfer running = occupy();
  const auto end_one_of = [&](std::size_t extents) {
    const Transfer transfer = submitted(request_of(extents));
    transfer->cancel();
    return transfer->spec().id;
  };
  const std::string small = end_one_of(1);
  const std::string large = end_one_of(TransferManager::kMaxEndedExtents / 2);
  const std::string other = end_one_of(1);
  const std::string last = end_one_of(TransferManager::kMaxEndedExtents / 2);
  EXPECT_TRUE(submit(request_of(1)));
  EXPECT_EQ(code_of(manager_->find(large)), "NOT_FOUND");
  for (const std::string& id : {small, other, last}) {
    EXPECT_EQ(code_of(manager_->find(id)), "OK");
  }
}

TEST_F(TransferManagerTest, WhenTheDeviceEndsWhatRunsAndWhatWaitsIsCancelled) {
  opened_ = fail(Code::kUnavailable, "no bytes", Side::kSource);
  const Transfer running = occupy();
  const Transfer waiting = submitted(request_of(3));
  // Its source does not answer before all that waits is cancelled, and then has nothing to send.
  std::jthread source([this, waiting] {
    EXPECT_TRUE(reaches(*waiting, is_final));
    let_go();
  });
  manager_.reset();
  EXPECT_TRUE(is_final(running->info().progress.phase));
  EXPECT_NE(running->info().progress.phase, Phase::kSucceeded);
  EXPECT_EQ(waiting->info().progress.phase, Phase::kCancelled);
  EXPECT_EQ(outcomes_of(*waiting).size(), 3u);
  for (const ExtentOutcome& outcome : outcomes_of(*waiting)) EXPECT_FALSE(outcome.result);
  EXPECT_EQ(counters_.transfers_in.load(), 0u);
}

}  // namespace
}  // namespace siphon::target_test
