// Of the contract of adapters/extent_store.h: attempts, the trash and what is left over.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "tests/contract/store_under_test.h"

namespace siphon::contract {

// ---- attempts --------------------------------------------------------------------------------

TEST_P(ExtentStoreContract, TwoAttemptsDoNotDisturbEachOther) {
  const Sample first = big_sample(22), second = big_sample(23);
  auto a = begin("e1", false, first.bytes.size());
  auto b = begin("e1", false, second.bytes.size());
  ASSERT_TRUE(a && b);
  ASSERT_TRUE(write_all(*a, first.bytes));
  ASSERT_TRUE(write_all(*b, second.bytes));
  ASSERT_TRUE(a->publish(first.header, false, ExtentState::kSealed));
  EXPECT_EQ(stat("e1").scratch_count, 1u);
  expect_holds("e1", first);
  const std::string late = code_of(b->publish(second.header, false, ExtentState::kSealed));
  EXPECT_TRUE(late == "ABORTED" || late == "ALREADY_EXISTS") << late;
  expect_holds("e1", first);
  EXPECT_EQ(code_of(b->abort()), "OK");
  EXPECT_EQ(stat("e1").scratch_count, 0u);
  expect_holds("e1", first);
}

TEST_P(ExtentStoreContract, AbortOfOneAttemptLeavesTheOther) {
  const Sample first = big_sample(24), second = big_sample(25);
  auto a = begin("e1", false, first.bytes.size());
  auto b = begin("e1", false, second.bytes.size());
  ASSERT_TRUE(a && b);
  ASSERT_TRUE(write_all(*a, first.bytes));
  ASSERT_TRUE(write_all(*b, second.bytes));
  ASSERT_TRUE(a->abort());
  ASSERT_TRUE(b->publish(second.header, false, ExtentState::kSealed));
  expect_holds("e1", second);
}

TEST_P(ExtentStoreContract, AbortLeavesNothingAndMayBeRepeated) {
  const Sample sample = big_sample(26);
  auto scratch = begin("e1", false, sample.bytes.size());
  ASSERT_TRUE(scratch);
  ASSERT_TRUE(write_all(*scratch, sample.bytes));
  EXPECT_GT(raw_count("e1"), 0u);
  EXPECT_EQ(code_of(scratch->abort()), "OK");
  EXPECT_EQ(raw_count("e1"), 0u);
  EXPECT_EQ(code_of(scratch->abort()), "OK");
  EXPECT_EQ(code_of(scratch->publish(sample.header, false, ExtentState::kSealed)), "ABORTED");
  EXPECT_EQ(code_of(store_->stat("e1")), "NOT_FOUND");
  EXPECT_EQ(raw_count("e1"), 0u);
}

TEST_P(ExtentStoreContract, AbortBesideACurrentExtentLeavesItAlone) {
  const Sample current = big_sample(27), other = big_sample(28);
  put("e1", current);
  const std::size_t before = raw_count("e1");
  const ExtentInfo info = stat("e1");
  auto scratch = begin("e1", true, other.bytes.size());
  ASSERT_TRUE(scratch);
  ASSERT_TRUE(write_all(*scratch, other.bytes));
  EXPECT_EQ(stat("e1").scratch_count, 1u);
  EXPECT_GT(raw_count("e1"), before);
  ASSERT_TRUE(scratch->abort());
  EXPECT_EQ(raw_count("e1"), before);
  EXPECT_EQ(stat("e1").generation, info.generation);
  expect_holds("e1", current);
}

TEST_P(ExtentStoreContract, ACondemnedAttemptCannotBePublished) {
  const Sample sample = big_sample(29);
  auto scratch = begin("e1", false, sample.bytes.size());
  ASSERT_TRUE(scratch);
  ASSERT_TRUE(write_all(*scratch, sample.bytes));
  ASSERT_TRUE(store_->collect("e1", scratch->private_id()));
  EXPECT_EQ(code_of(scratch->publish(sample.header, false, ExtentState::kSealed)), "ABORTED");
  EXPECT_EQ(code_of(store_->stat("e1")), "NOT_FOUND");
  EXPECT_EQ(code_of(scratch->abort()), "OK");
  EXPECT_EQ(raw_count("e1"), 0u);
}

TEST_P(ExtentStoreContract, AnAttemptCanBeResumedByItsPrivateId) {
  const Sample sample = big_sample(30);
  const PrivateId id = new_private_id();
  const std::size_t half = limits_.part_bytes;
  auto scratch = begin("e1", false, sample.bytes.size(), id);
  ASSERT_TRUE(scratch);
  ASSERT_TRUE(write_range(*scratch, limits_, 0, std::span(sample.bytes).first(half)));
  scratch.reset();
  scratch = begin("e1", false, sample.bytes.size(), id);
  ASSERT_TRUE(scratch);
  EXPECT_EQ(scratch->private_id(), id);
  ASSERT_TRUE(write_range(*scratch, limits_, half, std::span(sample.bytes).subspan(half)));
  ASSERT_TRUE(scratch->publish(sample.header, false, ExtentState::kSealed));
  EXPECT_EQ(stat("e1").private_id, id);
  expect_holds("e1", sample);
}

TEST_P(ExtentStoreContract, BeginRefusesWhatItCannotHold) {
  BeginOptions options;
  EXPECT_EQ(code_of(store_->begin("e1", options)), "INVALID_ARGUMENT");  // no private id
  options.private_id = new_private_id();
  options.extent_bytes = limits_.max_extent_bytes + 1;
  EXPECT_EQ(code_of(store_->begin("e1", options)), "INVALID_ARGUMENT");
  EXPECT_EQ(raw_count("e1"), 0u);
}

TEST_P(ExtentStoreContract, OfManyAttemptsOneIsPublished) {
  constexpr std::size_t kThreads = 4;
  put("e1", small_sample(31));
  std::vector<Sample> samples;
  std::vector<std::unique_ptr<ScratchExtent>> attempts;
  for (std::size_t t = 0; t < kThreads; ++t) {
    samples.push_back(make_sample(20'000, 100 + t));
    attempts.push_back(begin("e1", true));
    ASSERT_TRUE(attempts.back());
    ASSERT_TRUE(write_all(*attempts.back(), samples.back().bytes));
  }
  std::vector<std::string> codes(kThreads);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      codes[t] = code_of(attempts[t]->publish(samples[t].header, true, ExtentState::kSealed));
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::size_t winners = 0;
  for (std::size_t t = 0; t < kThreads; ++t) {
    if (codes[t] == "OK") {
      ++winners;
      expect_holds("e1", samples[t]);
    } else {
      EXPECT_EQ(codes[t], "ABORTED");
      EXPECT_TRUE(attempts[t]->abort());
    }
  }
  EXPECT_EQ(winners, 1u);
  EXPECT_EQ(stat("e1").scratch_count, 0u);
}

// ---- trash and leftovers ---------------------------------------------------------------------

TEST_P(ExtentStoreContract, TrashTakesTheNameAway) {
  const Sample sample = big_sample(41), next = big_sample(42);
  put("e1", sample);
  const ExtentInfo seen = stat("e1");
  ExtentInfo other = seen;
  ++other.generation;
  EXPECT_EQ(code_of(store_->trash("e1", other)), "ABORTED");
  other = seen;
  other.private_id = new_private_id();
  EXPECT_EQ(code_of(store_->trash("e1", other)), "ABORTED");
  expect_holds("e1", sample);
  EXPECT_EQ(code_of(store_->trash("e1", seen)), "OK");
  EXPECT_EQ(code_of(store_->stat("e1")), "NOT_FOUND");
  EXPECT_EQ(code_of(store_->open("e1", {})), "NOT_FOUND");
  EXPECT_EQ(code_of(store_->trash("e1", seen)), "NOT_FOUND");
  EXPECT_TRUE(list_all(10).empty());
  EXPECT_GT(raw_count("e1"), 0u);
  // The name is free while the old bytes wait.
  put("e1", next);
  EXPECT_EQ(stat("e1").trash_count, 1u);
  expect_holds("e1", next);
}

TEST_P(ExtentStoreContract, PurgeCountsAndLeavesTheRest) {
  const Sample sample = big_sample(43), attempt = big_sample(44);
  for (int i = 0; i < 4; ++i) put("e1", sample, i > 0);
  auto scratch = begin("e1", true, attempt.bytes.size());
  ASSERT_TRUE(scratch);
  ASSERT_TRUE(write_all(*scratch, attempt.bytes));
  EXPECT_EQ(stat("e1").trash_count, 3u);
  auto purged = store_->purge_trash("e1");
  ASSERT_TRUE(purged) << purged.error().message;
  EXPECT_EQ(*purged, 3u);
  purged = store_->purge_trash("e1");
  ASSERT_TRUE(purged);
  EXPECT_EQ(*purged, 0u);
  expect_holds("e1", sample);
  ASSERT_TRUE(scratch->publish(attempt.header, true, ExtentState::kSealed));
  expect_holds("e1", attempt);
  ASSERT_TRUE(store_->trash("e1", stat("e1")));
  purged = store_->purge_trash("e1");
  ASSERT_TRUE(purged);
  EXPECT_EQ(*purged, 2u);
  EXPECT_EQ(raw_count("e1"), 0u);
  EXPECT_EQ(code_of(store_->purge_trash("never-there")), "OK");
}

TEST_P(ExtentStoreContract, CollectFinishesAnAbandonedAttempt) {
  const Sample sample = big_sample(45);
  auto scratch = begin("e1", false, sample.bytes.size());
  ASSERT_TRUE(scratch);
  const PrivateId id = scratch->private_id();
  ASSERT_TRUE(write_range(*scratch, limits_, 0, std::span(sample.bytes).first(100'000)));
  scratch.reset();
  EXPECT_GT(raw_count("e1"), 0u);
  EXPECT_EQ(code_of(store_->collect("e1", id)), "OK");
  EXPECT_EQ(raw_count("e1"), 0u);
  EXPECT_EQ(code_of(store_->collect("e1", id)), "OK");
  EXPECT_EQ(code_of(store_->collect("e1", new_private_id())), "OK");
  EXPECT_EQ(raw_count("e1"), 0u);
}

TEST_P(ExtentStoreContract, PurgeFinishesAttemptsWhoseLeaseIsOver) {
  const Sample sample = big_sample(48);
  put("e1", sample);
  BeginOptions options;
  options.private_id = new_private_id();
  options.lease_unix_ms = now_unix_ms() - 1;
  options.replace = true;
  auto dead = store_->begin("e1", options);
  ASSERT_TRUE(dead) << dead.error().message;
  ASSERT_TRUE(write_range(**dead, limits_, 0, std::span(sample.bytes).first(100'000)));
  dead->reset();
  auto alive = begin("e1", true, sample.bytes.size());
  ASSERT_TRUE(alive);
  EXPECT_EQ(stat("e1").scratch_count, 2u);
  auto purged = store_->purge_trash("e1");
  ASSERT_TRUE(purged) << purged.error().message;
  EXPECT_EQ(*purged, 1u);
  EXPECT_EQ(stat("e1").scratch_count, 1u);
  expect_holds("e1", sample);
  EXPECT_TRUE(alive->abort());
}

TEST_P(ExtentStoreContract, CollectRefusesTheCurrentOne) {
  const Sample sample = big_sample(46);
  put("e1", sample);
  EXPECT_EQ(code_of(store_->collect("e1", stat("e1").private_id)), "FAILED_PRECONDITION");
  expect_holds("e1", sample);
}

TEST_P(ExtentStoreContract, CollectTouchesNoOtherName) {
  const Sample sample = small_sample(47);
  auto scratch = begin("e1");
  ASSERT_TRUE(scratch);
  ASSERT_TRUE(write_all(*scratch, sample.bytes));
  EXPECT_EQ(code_of(store_->collect("e2", scratch->private_id())), "OK");
  ASSERT_TRUE(scratch->publish(sample.header, false, ExtentState::kSealed));
  EXPECT_EQ(code_of(store_->collect("e2", scratch->private_id())), "OK");
  expect_holds("e1", sample);
}

TEST_P(ExtentStoreContract, RestoreBringsAnExtentBackByteForByte) {
  const Sample first = big_sample(80), second = big_sample(81);
  put("e1", first);
  const ExtentInfo before = stat("e1");
  put("e1", second, true);
  const ExtentInfo newer = stat("e1");
  EXPECT_EQ(code_of(store_->restore("e1", before.private_id)), "ALREADY_EXISTS");
  expect_holds("e1", second);
  ASSERT_TRUE(store_->trash("e1", stat("e1")));
  EXPECT_EQ(list_all(10, Listing::kEverything), (std::multiset<std::string>{"e1"}));
  auto reg = store_->inspect("e1");
  ASSERT_TRUE(reg) << reg.error().message;
  ASSERT_EQ(reg->trash.size(), 2u);
  EXPECT_EQ(code_of(store_->restore("e1", new_private_id())), "NOT_FOUND");

  Status restored = store_->restore("e1", before.private_id);  // the older of the two
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_EQ(code_of(store_->restore("e1", before.private_id)), "OK");
  expect_holds("e1", first);
  const ExtentInfo after = stat("e1");
  EXPECT_EQ(after.header, before.header);
  EXPECT_EQ(after.private_id, before.private_id);
  EXPECT_GT(after.generation, newer.generation);
  EXPECT_EQ(after.trash_count, 1u);
  ASSERT_TRUE(store_->trash("e1", after));
  ASSERT_TRUE(store_->purge_trash("e1"));
  EXPECT_EQ(code_of(store_->restore("e1", before.private_id)), "NOT_FOUND");
  EXPECT_EQ(raw_count("e1"), 0u);
}

TEST_P(ExtentStoreContract, WhatCannotComeBackFromTheTrashIsTold) {
  for (const Sample& sample : {big_sample(84), small_sample(85)}) {
    put("e1", sample);
    ASSERT_TRUE(store_->trash("e1", stat("e1")));
    auto reg = store_->inspect("e1");
    ASSERT_TRUE(reg) << reg.error().message;
    const TrashEntry kept = reg->trash.at(0);
    EXPECT_EQ(code_of(store_->check_kept("e1", kept)), "OK");
    TrashEntry longer = kept;
    ++longer.header.extent_bytes;
    EXPECT_EQ(code_of(store_->check_kept("e1", longer)), "DATA_LOSS");
    ASSERT_TRUE(store_->purge_trash("e1"));
    EXPECT_EQ(code_of(store_->check_kept("e1", kept)), "DATA_LOSS");
  }
}

// A journal's row may outlive its publish, and a list of the trash what it lists.
TEST_P(ExtentStoreContract, WhatWasPublishedLeavesTheTrashOnlyAsWhatWasSeenThere) {
  for (const Sample& sample : {big_sample(82), small_sample(83)}) {
    put("e1", sample);
    const PrivateId id = stat("e1").private_id;
    EXPECT_EQ(code_of(store_->fence("e1", id)), "FAILED_PRECONDITION");
    ASSERT_TRUE(store_->trash("e1", stat("e1")));
    EXPECT_EQ(code_of(store_->collect("e1", id)), "FAILED_PRECONDITION");
    EXPECT_EQ(code_of(store_->fence("e1", id)), "FAILED_PRECONDITION");
    auto reg = store_->inspect("e1");
    ASSERT_TRUE(reg) << reg.error().message;
    ASSERT_EQ(reg->trash.size(), 1u);
    const std::uint64_t seen = reg->trash[0].trashed_unix_ms;
    EXPECT_EQ(code_of(store_->purge("e1", id, seen - 1)), "FAILED_PRECONDITION");
    Status restored = store_->restore("e1", id);
    ASSERT_TRUE(restored) << restored.error().message;
    expect_holds("e1", sample);
    EXPECT_EQ(code_of(store_->purge("e1", id, seen)), "FAILED_PRECONDITION");
    expect_holds("e1", sample);
    ASSERT_TRUE(store_->trash("e1", stat("e1")));
    reg = store_->inspect("e1");
    ASSERT_TRUE(reg);
    EXPECT_EQ(code_of(store_->purge("e1", id, reg->trash.at(0).trashed_unix_ms)), "OK");
    EXPECT_EQ(code_of(store_->restore("e1", id)), "NOT_FOUND");
    EXPECT_EQ(raw_count("e1"), 0u);
  }
}

TEST_P(ExtentStoreContract, AnyNumberOfReplacementsFindsRoom) {
  for (std::uint64_t i = 0; i < 2 * HeadRegister::kMaxKept; ++i) {
    Status room = store_->make_room("e1", true);
    ASSERT_TRUE(room) << room.error().message;
    const std::uint32_t before = i > 0 ? stat("e1").trash_count : 0;
    EXPECT_EQ(before, std::min<std::uint64_t>(i > 0 ? i - 1 : 0, limits_.kept_generations));
    put("e1", small_sample(100 + i), i > 0);
    EXPECT_EQ(stat("e1").trash_count, i > 0 ? before + 1 : 0) << "nothing leaves before";
    auto reg = store_->inspect("e1");
    ASSERT_TRUE(reg);
    std::vector<PrivateId> gone;
    ASSERT_TRUE(
        store_->trim_trash("e1", [&](const TrashEntry& entry) { gone.push_back(entry.id); }));
    if (before < limits_.kept_generations) {
      EXPECT_TRUE(gone.empty());
    } else {
      EXPECT_EQ(gone, std::vector{reg->trash.front().id}) << "the oldest";
    }
  }
  EXPECT_EQ(stat("e1").trash_count, limits_.kept_generations);
  auto reg = store_->inspect("e1");
  ASSERT_TRUE(reg);
  ASSERT_TRUE(store_->trash("e1", stat("e1")));
  // What left is the oldest: the youngest of what is kept comes back.
  ASSERT_TRUE(store_->restore("e1", reg->trash.back().id));
  expect_holds("e1", small_sample(100 + 2 * HeadRegister::kMaxKept - 2));
}

// Where nobody trims: the register's own limit.
TEST_P(ExtentStoreContract, MakingRoomRemovesTheOldestWhereTheRegisterHasNone) {
  for (std::uint64_t i = 0; i < HeadRegister::kMaxKept + 3; ++i) {
    std::vector<TrashEntry> gone;
    ASSERT_TRUE(store_->make_room("e1", i > 0, [&](const TrashEntry& e) { gone.push_back(e); }));
    EXPECT_EQ(gone.size(), i > HeadRegister::kMaxKept ? 1u : 0u) << i;
    put("e1", small_sample(100 + i), i > 0);
  }
  EXPECT_EQ(stat("e1").trash_count, HeadRegister::kMaxKept);
}

TEST_P(ExtentStoreContract, MakingRoomRemovesAttemptsWhoseLeaseIsOver) {
  BeginOptions options;
  options.private_id = new_private_id();
  options.lease_unix_ms = now_unix_ms() - 1;
  ASSERT_TRUE(store_->begin("e1", options));
  auto alive = begin("e1");
  ASSERT_TRUE(alive);
  ASSERT_TRUE(store_->make_room("e1", false));
  auto reg = store_->inspect("e1");
  ASSERT_TRUE(reg);
  ASSERT_EQ(reg->reservations.size(), 1u);
  EXPECT_EQ(reg->reservations.front().id, alive->private_id());
  EXPECT_TRUE(alive->abort());
  EXPECT_EQ(raw_count("e1"), 0u);
}

TEST_P(ExtentStoreContract, ARenewalDoesNotBeginACollectedAttemptAnew) {
  const Sample sample = big_sample(49);
  for (const bool removed : {true, false}) {
    auto scratch = begin("e1", false, sample.bytes.size());
    ASSERT_TRUE(scratch);
    ASSERT_TRUE(write_all(*scratch, sample.bytes));
    BeginOptions options;
    options.private_id = scratch->private_id();
    options.extent_bytes = sample.bytes.size();
    options.renews = true;
    options.lease_unix_ms = now_unix_ms() + 60'000;
    EXPECT_EQ(code_of(store_->begin("e1", options)), "OK");
    if (removed) {
      ASSERT_TRUE(store_->collect("e1", options.private_id));
    } else {
      ASSERT_TRUE(store_->fence("e1", options.private_id));
    }
    EXPECT_EQ(code_of(store_->begin("e1", options)), "ABORTED");
    EXPECT_EQ(code_of(scratch->publish(sample.header, false, ExtentState::kSealed)), "ABORTED");
    EXPECT_EQ(code_of(store_->stat("e1")), "NOT_FOUND");
    ASSERT_TRUE(store_->collect("e1", options.private_id));
    EXPECT_EQ(raw_count("e1"), 0u);
  }
}

TEST_P(ExtentStoreContract, AskingForTheSameAttemptAgainRenewsItsLease) {
  BeginOptions options;
  options.private_id = new_private_id();
  options.lease_unix_ms = now_unix_ms() + 1000;
  auto first = store_->begin("e1", options);
  ASSERT_TRUE(first);
  const std::uint64_t later = options.lease_unix_ms += 60'000;
  ASSERT_TRUE(store_->begin("e1", options));
  options.lease_unix_ms -= 30'000;
  ASSERT_TRUE(store_->begin("e1", options));  // never shorter
  auto reg = store_->inspect("e1");
  ASSERT_TRUE(reg);
  ASSERT_EQ(reg->reservations.size(), 1u);
  EXPECT_EQ(reg->reservations.front().lease_unix_ms, later);
  EXPECT_TRUE((*first)->abort());
}

}  // namespace siphon::contract
