// The collector of scratch left behind, over the real journal in a folder and the memory adapter:
// what is removed, what is tried again, and that a row leaves the journal only with its scratch.
#include "plugin/transfer/leftovers.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "adapters/memory/memory_store.h"
#include "tests/contract/samples.h"
#include "tests/contract/temp_folder.h"
#include "tests/support/manual_clock.h"

namespace siphon {
namespace {

using contract::make_sample;
using contract::Sample;

constexpr std::chrono::seconds kPatience{30};
const Location kHere{"p", "ns"};

// Counts the store's collects, and fails those that `fails` names.
class CollectWatch {
 public:
  explicit CollectWatch(MemoryProvider& stores) {
    stores.set_fault_hook([this](const MemoryOperation& op) { return on(op); });
  }
  void fail_for(std::function<bool(std::string_view name, int try_number)> fails) {
    std::lock_guard lock(mutex_);
    fails_ = std::move(fails);
  }
  int tries(const std::string& name) {
    std::lock_guard lock(mutex_);
    return tries_[name];
  }
  bool wait_for_tries(const std::string& name, int count) {
    return wait([&] { return tries_[name] >= count; });
  }
  bool wait_for_successes(int count) {
    return wait([&] { return successes_ >= count; });
  }

 private:
  template <typename F>
  bool wait(F done) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, done);
  }
  Status on(const MemoryOperation& op) {
    if (op.operation != "collect") return {};
    std::lock_guard lock(mutex_);
    const int number = ++tries_[std::string(op.name)];
    const bool fails = fails_ && fails_(op.name, number);
    if (!fails) ++successes_;
    changed_.notify_all();
    if (fails) return fail(Code::kUnavailable, "the store does not answer");
    return {};
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<bool(std::string_view, int)> fails_;
  std::map<std::string, int> tries_;
  int successes_ = 0;
};

class LeftoversTest : public ::testing::Test {
 protected:
  LeftoversTest() { reopen_journal(); }

  void reopen_journal() {
    journal_.reset();
    auto opened = AttemptJournal::open(folder_ / "attempts.db");
    ASSERT_TRUE(opened) << opened.error().message;
    journal_ = std::move(*opened);
  }
  std::vector<Attempt> rows() {
    auto all = journal_->all();
    EXPECT_TRUE(all);
    return all ? *all : std::vector<Attempt>{};
  }
  std::size_t stored(const std::string& name) { return stores_.raw_count(kHere, name); }

  // As a transfer does it: the row first, then the reservation, then bytes.
  std::unique_ptr<ScratchExtent> begin(const std::string& name, Attempt* attempt) {
    *attempt = {kHere, name, new_private_id()};
    EXPECT_TRUE(journal_->add(*attempt));
    ExtentStore& store = **stores_.open(kHere);
    auto scratch = store.begin(name, {.extent_bytes = sample_.bytes.size(),
                                      .private_id = attempt->private_id,
                                      .lease_unix_ms = now_unix_ms() + 1'000'000});
    EXPECT_TRUE(scratch);
    EXPECT_TRUE((*scratch)->write(0, sample_.bytes));
    return std::move(*scratch);
  }
  Attempt leave_behind(const std::string& name) {
    Attempt attempt;
    begin(name, &attempt);
    EXPECT_EQ(stored(name), 2u);  // the register and the bytes
    return attempt;
  }
  void run_sql(const char* sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open((folder_ / "attempts.db").c_str(), &db), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(db, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
    sqlite3_close(db);
  }

  const Sample sample_ = make_sample(10'000, 1);
  contract::TempFolder folder_;
  MemoryProvider stores_{{"p"}};
  CollectWatch watch_{stores_};
  std::unique_ptr<AttemptJournal> journal_;
};

TEST_F(LeftoversTest, WhatAnEarlierLifeLeftIsGoneFromStoreAndJournal) {
  leave_behind("a");
  leave_behind("b");
  reopen_journal();  // all that a restart keeps
  ASSERT_EQ(rows().size(), 2u);
  Leftovers leftovers(stores_, *journal_, rows());
  EXPECT_EQ(leftovers.collect(), 0u);
  EXPECT_EQ(stored("a"), 0u);
  EXPECT_EQ(stored("b"), 0u);
  EXPECT_TRUE(rows().empty());
}

TEST_F(LeftoversTest, WhatTheStoreDoesNotAnswerForStaysInTheJournalAndIsTriedAgain) {
  const Attempt attempt = leave_behind("e");
  Leftovers leftovers(stores_, *journal_, rows());
  watch_.fail_for([](std::string_view, int number) { return number <= 2; });
  for (int round = 1; round <= 2; ++round) {
    EXPECT_EQ(leftovers.collect(), 1u);
    EXPECT_EQ(watch_.tries("e"), round);
    EXPECT_EQ(stored("e"), 2u);
    ASSERT_EQ(rows().size(), 1u);
    EXPECT_EQ(rows()[0].private_id, attempt.private_id);
    EXPECT_EQ(rows()[0].extent, "e");
    EXPECT_EQ(rows()[0].location, kHere);
  }
  EXPECT_EQ(leftovers.collect(), 0u);
  EXPECT_EQ(stored("e"), 0u);
  EXPECT_TRUE(rows().empty());
  EXPECT_EQ(leftovers.collect(), 0u);
  EXPECT_EQ(watch_.tries("e"), 3) << "what is gone is not asked for again";
}

TEST_F(LeftoversTest, OneThatStaysDoesNotHoldTheOthersBack) {
  for (const char* name : {"a", "stuck", "c"}) leave_behind(name);
  Leftovers leftovers(stores_, *journal_, rows());
  watch_.fail_for([](std::string_view name, int) { return name == "stuck"; });
  EXPECT_EQ(leftovers.collect(), 1u);
  EXPECT_EQ(stored("a") + stored("c"), 0u);
  EXPECT_EQ(stored("stuck"), 2u);
  ASSERT_EQ(rows().size(), 1u);
  EXPECT_EQ(rows()[0].extent, "stuck");
}

// The publish took effect and only its answer, or the row's removal, was lost.
TEST_F(LeftoversTest, WhatWasPublishedAfterAllStaysAndLosesItsRow) {
  Attempt attempt;
  auto scratch = begin("e", &attempt);
  ASSERT_TRUE(scratch->publish(sample_.header, false, ExtentState::kSealed));
  Leftovers leftovers(stores_, *journal_, rows());
  EXPECT_EQ(leftovers.collect(), 0u);
  EXPECT_TRUE(rows().empty());
  auto info = (*stores_.open(kHere))->stat("e");
  ASSERT_TRUE(info);
  EXPECT_EQ(info->private_id, attempt.private_id);
  EXPECT_EQ(stored("e"), 2u);
}

TEST_F(LeftoversTest, APublishedExtentLosesItsOtherAttemptsOnly) {
  Attempt published;
  ASSERT_TRUE(begin("e", &published)->publish(sample_.header, false, ExtentState::kSealed));
  journal_->remove(published.private_id);
  Attempt other{kHere, "e", new_private_id()};
  ASSERT_TRUE(journal_->add(other));
  ASSERT_TRUE((*stores_.open(kHere))
                  ->begin("e", {.extent_bytes = 5,
                                .private_id = other.private_id,
                                .lease_unix_ms = now_unix_ms() + 1'000'000,
                                .replace = true}));
  EXPECT_EQ(stored("e"), 3u);
  Leftovers leftovers(stores_, *journal_, rows());
  EXPECT_EQ(leftovers.collect(), 0u);
  EXPECT_EQ(stored("e"), 2u);
  EXPECT_EQ((*stores_.open(kHere))->stat("e")->private_id, published.private_id);
  EXPECT_TRUE(rows().empty());
}

TEST_F(LeftoversTest, APoolThatIsGoneHasTakenItsScratchAlong) {
  ASSERT_TRUE(journal_->add({{"gone", ""}, "e", new_private_id()}));
  Leftovers leftovers(stores_, *journal_, rows());
  EXPECT_EQ(leftovers.collect(), 0u);
  EXPECT_TRUE(rows().empty());
}

// The daemon died between the row and the reservation.
TEST_F(LeftoversTest, ARowWithoutAReservationCostsOneLook) {
  ASSERT_TRUE(journal_->add({kHere, "never-begun", new_private_id()}));
  Leftovers leftovers(stores_, *journal_, rows());
  EXPECT_EQ(leftovers.collect(), 0u);
  EXPECT_EQ(watch_.tries("never-begun"), 1);
  EXPECT_TRUE(rows().empty());
}

TEST_F(LeftoversTest, ARowThatCannotBeRemovedGoesWithTheNextThatIsWritten) {
  leave_behind("e");
  Leftovers leftovers(stores_, *journal_, rows());
  run_sql("ALTER TABLE attempts RENAME TO hidden");
  EXPECT_EQ(leftovers.collect(), 0u);
  EXPECT_EQ(stored("e"), 0u);
  EXPECT_FALSE(journal_->all());
  run_sql("ALTER TABLE hidden RENAME TO attempts");
  EXPECT_TRUE(rows().empty());
}

TEST_F(LeftoversTest, TheThreadTriesAgainUntilTheStoreAnswers) {
  leave_behind("e");
  Leftovers leftovers(stores_, *journal_, rows());
  watch_.fail_for([](std::string_view, int number) { return number == 1; });
  std::jthread collector([&](std::stop_token stop) { leftovers.run(std::move(stop)); });
  EXPECT_TRUE(watch_.wait_for_tries("e", 2));
  collector.request_stop();
  collector.join();
  EXPECT_EQ(stored("e"), 0u);
  EXPECT_TRUE(rows().empty());
}

// A write to it may still be under way.
TEST_F(LeftoversTest, OneIsLeftAloneUntilItsTime) {
  test::ManualClock clock;
  Attempt attempt = leave_behind("e");
  attempt.not_before = clock.now() + std::chrono::minutes(5);
  Leftovers leftovers(stores_, *journal_, {attempt}, clock);
  clock.advance(std::chrono::minutes(5) - std::chrono::milliseconds(1));
  EXPECT_EQ(leftovers.collect(), 1u);
  EXPECT_EQ(watch_.tries("e"), 0);
  clock.advance(std::chrono::milliseconds(1));
  EXPECT_EQ(leftovers.collect(), 0u);
  EXPECT_EQ(stored("e"), 0u);
}

TEST_F(LeftoversTest, PausesGrowWhileNothingCanBeRemoved) {
  test::ManualClock clock;
  leave_behind("e");
  Leftovers leftovers(stores_, *journal_, rows(), clock);
  std::stop_source stop;
  std::vector<std::chrono::nanoseconds> tries;
  watch_.fail_for([&](std::string_view, int number) {
    tries.push_back(clock.passed());
    if (number == 8) stop.request_stop();
    return true;
  });
  leftovers.run(stop.get_token());
  using std::chrono::milliseconds;
  std::vector<std::chrono::nanoseconds> expected{milliseconds(0)};
  for (const int pause : {500, 1000, 2000, 4000, 8000, 15000, 15000}) {
    expected.push_back(expected.back() + milliseconds(pause));
  }
  EXPECT_EQ(tries, expected);
}

TEST_F(LeftoversTest, TheThreadTakesWhatIsAddedLater) {
  Leftovers leftovers(stores_, *journal_, {});
  std::jthread collector([&](std::stop_token stop) { leftovers.run(std::move(stop)); });
  leftovers.add(leave_behind("a"));
  EXPECT_TRUE(watch_.wait_for_tries("a", 1));
  leftovers.add(leave_behind("b"));
  EXPECT_TRUE(watch_.wait_for_tries("b", 1));
  collector.request_stop();
  collector.join();
  EXPECT_EQ(stored("a") + stored("b"), 0u);
  EXPECT_TRUE(rows().empty());
}

TEST_F(LeftoversTest, StoppedWhileNothingCanBeRemovedItKeepsEveryRow) {
  leave_behind("a");
  leave_behind("b");
  Leftovers leftovers(stores_, *journal_, rows());
  watch_.fail_for([](std::string_view, int) { return true; });
  std::jthread collector([&](std::stop_token stop) { leftovers.run(std::move(stop)); });
  EXPECT_TRUE(watch_.wait_for_tries("b", 1));
  collector.request_stop();
  collector.join();
  EXPECT_EQ(rows().size(), 2u);
  EXPECT_EQ(stored("a"), 2u);
  EXPECT_EQ(stored("b"), 2u);
}

// Seen there for so long, whatever a clock said when it was trashed, or says now.
TEST_F(LeftoversTest, AGenerationLeavesTheTrashWhenItWasSeenThereForTheGraceTime) {
  ExtentStore& store = **stores_.open(kHere);
  const std::chrono::milliseconds grace(store.limits().trash_grace_ms), hour(3'600'000);
  Attempt attempt;
  ASSERT_TRUE(begin("e", &attempt)->publish(sample_.header, false, ExtentState::kSealed));
  ASSERT_TRUE(store.trash("e", *store.stat("e")));
  const auto look = [&](std::chrono::milliseconds since_last) {
    Leftovers(stores_, *journal_, {}).tidy(store, since_last, {});
    return store.inspect("e")->trash.size();
  };
  EXPECT_EQ(look(10 * grace), 1u) << "nobody has seen it there in that time";
  EXPECT_EQ(look(grace - hour), 1u);
  reopen_journal();  // a restart: what passes meanwhile counts for nothing
  EXPECT_EQ(look({}), 1u);
  EXPECT_EQ(look(hour / 2), 1u);
  // Restored and trashed again, it begins anew.
  ASSERT_TRUE(store.restore("e", attempt.private_id));
  const std::uint64_t before = now_unix_ms();
  while (now_unix_ms() == before) std::this_thread::yield();
  ASSERT_TRUE(store.trash("e", *store.stat("e")));
  EXPECT_EQ(look(hour), 1u);
  EXPECT_EQ(look(grace - hour), 1u);
  EXPECT_EQ(look(hour), 0u);
  EXPECT_EQ(stored("e"), 0u);
  EXPECT_TRUE(journal_->watched()->empty());
}

TEST_F(LeftoversTest, WhatCannotBeLookedAtKeepsTheTimeThatItWasSeenFor) {
  ExtentStore& store = **stores_.open(kHere);
  const std::chrono::milliseconds grace(store.limits().trash_grace_ms);
  Attempt attempt;
  ASSERT_TRUE(begin("e", &attempt)->publish(sample_.header, false, ExtentState::kSealed));
  ASSERT_TRUE(store.trash("e", *store.stat("e")));
  Leftovers leftovers(stores_, *journal_, {});
  leftovers.tidy(store, {}, {});
  leftovers.tidy(store, grace / 2, {});
  stores_.set_fault_hook([](const MemoryOperation& op) -> Status {
    if (op.operation != "inspect") return {};
    return fail(Code::kUnavailable, "the store does not answer");
  });
  leftovers.tidy(store, grace, {});
  stores_.set_fault_hook({});
  ASSERT_EQ(journal_->watched()->size(), 1u);
  EXPECT_EQ(journal_->watched()->at(0).watched_ms, static_cast<std::uint64_t>(grace.count() / 2));
}

TEST_F(LeftoversTest, TransfersMayAddFromManyThreadsWhileItCollects) {
  constexpr int kThreads = 4, kEach = 25;
  Leftovers leftovers(stores_, *journal_, {});
  std::jthread collector([&](std::stop_token stop) { leftovers.run(std::move(stop)); });
  std::vector<std::jthread> transfers;
  for (int t = 0; t < kThreads; ++t) {
    transfers.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        leftovers.add(leave_behind("e" + std::to_string(t) + "-" + std::to_string(i)));
      }
    });
  }
  transfers.clear();
  EXPECT_TRUE(watch_.wait_for_successes(kThreads * kEach));
  collector.request_stop();
  collector.join();
  EXPECT_TRUE(rows().empty());
}

}  // namespace
}  // namespace siphon
