// Of the contract of adapters/extent_store.h: names, what under them is not Siphon's, and many at
// once.
#pragma once

#include <atomic>
#include <cstdint>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/contract/store_under_test.h"

namespace siphon::contract {

// ---- what is not Siphon's --------------------------------------------------------------------

TEST_P(ExtentStoreContract, AForeignObjectWhereAHeadBelongsIsLeftAlone) {
  if (!under_test_.make_foreign) return;
  const Sample sample = small_sample(49);
  std::string name = "foreign-0";
  for (int way = 0; under_test_.make_foreign(name, way);
       name = "foreign-" + std::to_string(++way)) {
    SCOPED_TRACE(name);
    const std::string before = under_test_.foreign_content(name);
    auto expect_refused = [&](const auto& result) {
      ASSERT_FALSE(result);
      EXPECT_EQ(code_of(result), "FAILED_PRECONDITION") << result.error().message;
      EXPECT_EQ(result.error().reason, Reason::kNotSiphons) << result.error().message;
      EXPECT_NE(result.error().message.find("is not Siphon's"), std::string::npos);
    };
    BeginOptions options;
    options.private_id = new_private_id();
    expect_refused(store_->stat(name));
    expect_refused(store_->open(name, {}));
    expect_refused(store_->open(name, {}, true));
    expect_refused(store_->begin(name, options));
    options.replace = true;
    expect_refused(store_->begin(name, options));
    if (limits_.inline_max_bytes >= sample.bytes.size()) {
      expect_refused(store_->put_inline(name, options.private_id, sample.bytes, sample.header));
    }
    expect_refused(store_->seal(name, {}, 0, sample.bytes, sample.header));
    expect_refused(store_->trash(name, {}));
    (void)store_->collect(name, options.private_id);
    (void)store_->purge_trash(name);
    EXPECT_EQ(under_test_.foreign_content(name), before);
  }
}

// ---- names -----------------------------------------------------------------------------------

TEST_P(ExtentStoreContract, ListPagesThroughPublicNamesOnly) {
  std::multiset<std::string> expected;
  for (int i = 0; i < 7; ++i) {
    const std::string name = "page-" + std::to_string(i * 7 % 10);
    put(name, small_sample(50 + static_cast<std::uint64_t>(i)));
    expected.insert(name);
  }
  auto scratch = begin("scratch-only");
  put("trashed", small_sample(60));
  ASSERT_TRUE(store_->trash("trashed", stat("trashed")));
  put("page-0", small_sample(61), true);  // trash beside a current one does not list it twice
  for (std::size_t page_names : {1, 3, 7, 100}) EXPECT_EQ(list_all(page_names), expected);
  // Names alone may show more, never less, and none twice.
  for (std::size_t page_names : {1, 3, 100}) {
    const auto names = list_all(page_names, Listing::kNames);
    for (const std::string& name : expected) EXPECT_EQ(names.count(name), 1u) << name;
    for (const std::string& name : names) {
      EXPECT_TRUE(expected.contains(name) || name == "scratch-only" || name == "trashed") << name;
    }
  }
  EXPECT_EQ(code_of(store_->list("", 0, Listing::kExtents)), "INVALID_ARGUMENT");
}

TEST_P(ExtentStoreContract, NamesThatTryToLeaveAreRefused) {
  using namespace std::string_literals;
  const Sample sample = small_sample(62);
  const std::string bad_names[] = {
      ""s,
      "."s,
      ".."s,
      "../x"s,
      "a/b"s,
      "/etc/passwd"s,
      ".hidden"s,
      "a\0b"s,
      "\0"s,
      "a\nb"s,
      "a\x7f"s,
      "\xc3\xa9"s,
      "a/../../b"s,
      ".siphon"s,
      "a/"s,
      ".siphon/head/a"s,
      std::string(kMaxExtentNameBytes + 1, 'x'),
  };
  for (const std::string& name : bad_names) {
    SCOPED_TRACE(testing::PrintToString(name));
    BeginOptions options;
    options.private_id = new_private_id();
    EXPECT_EQ(code_of(store_->stat(name)), "INVALID_ARGUMENT");
    EXPECT_EQ(code_of(store_->open(name, {})), "INVALID_ARGUMENT");
    EXPECT_EQ(code_of(store_->begin(name, options)), "INVALID_ARGUMENT");
    if (limits_.inline_max_bytes > 0) {
      EXPECT_EQ(code_of(store_->put_inline(name, options.private_id, sample.bytes, sample.header)),
                "INVALID_ARGUMENT");
    }
    EXPECT_EQ(code_of(store_->seal(name, {}, 0, {}, {})), "INVALID_ARGUMENT");
    EXPECT_EQ(code_of(store_->trash(name, {})), "INVALID_ARGUMENT");
    EXPECT_EQ(code_of(store_->collect(name, options.private_id)), "INVALID_ARGUMENT");
    EXPECT_EQ(code_of(store_->purge_trash(name)), "INVALID_ARGUMENT");
  }
  EXPECT_TRUE(list_all(10).empty());
}

TEST_P(ExtentStoreContract, OddButLegalNamesWork) {
  const std::string names[] = {"-rf",  "a b", "%2e%2e",     "x.siphon",
                               "head", "~",   "a:b\\c|d*?", std::string(kMaxExtentNameBytes, 'n')};
  std::uint64_t seed = 70;
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const Sample sample = make_sample(limits_.part_bytes + 1000, ++seed);
    put(name, sample);
    expect_holds(name, sample);
    ASSERT_TRUE(store_->trash(name, stat(name)));
    ASSERT_TRUE(store_->purge_trash(name));
    EXPECT_EQ(raw_count(name), 0u);
  }
}

TEST_P(ExtentStoreContract, WhatIsNotThereIsNotFound) {
  EXPECT_EQ(code_of(store_->stat("nothing")), "NOT_FOUND");
  EXPECT_EQ(code_of(store_->open("nothing", {})), "NOT_FOUND");
  EXPECT_EQ(code_of(store_->trash("nothing", {})), "NOT_FOUND");
  EXPECT_EQ(code_of(store_->seal("nothing", {}, 0, {}, {})), "NOT_FOUND");
  EXPECT_TRUE(list_all(10).empty());
}

// ---- all at once -----------------------------------------------------------------------------

TEST_P(ExtentStoreContract, ManyThreadsOnManyNames) {
  constexpr int kThreads = 4, kRounds = 5;
  std::atomic<int> failures{0};
  auto life_of = [&](const std::string& name, std::uint64_t seed) -> Status {
    const Sample sample = make_sample(limits_.part_bytes + 5000, seed);
    BeginOptions options;
    options.private_id = new_private_id();
    auto scratch = store_->begin(name, options);
    if (!scratch) return fail(scratch.error());
    SIPHON_TRY(write_all(**scratch, sample.bytes));
    SIPHON_TRY((*scratch)->publish(sample.header, false, ExtentState::kSealed));
    auto bytes = read_all(name);
    if (!bytes) return fail(bytes.error());
    if (*bytes != sample.bytes) return fail(Code::kDataLoss, name + " holds other bytes");
    SIPHON_TRY(store_->trash(name, stat(name)));
    SIPHON_TRY(store_->purge_trash(name));
    return {};
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < kRounds; ++round) {
        Status done = life_of("thread-" + std::to_string(t),
                              static_cast<std::uint64_t>(1000 + t * 100 + round));
        if (done) continue;
        ++failures;
        ADD_FAILURE() << done.error().message;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  for (int t = 0; t < kThreads; ++t) EXPECT_EQ(raw_count("thread-" + std::to_string(t)), 0u);
}

}  // namespace siphon::contract
