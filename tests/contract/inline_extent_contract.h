// The part of the store contract that small extents have to themselves: one object, one operation.
#pragma once

#include <string>
#include <thread>
#include <vector>

#include "tests/contract/extent_store_contract.h"

namespace siphon::contract {

TEST_P(ExtentStoreContract, InlineRoundTripAndPrefetch) {
  if (limits_.inline_max_bytes == 0) return;
  const Sample sample = small_sample(4);
  Status put = store_->put_inline("small", new_private_id(), sample.bytes, sample.header);
  ASSERT_TRUE(put) << put.error().message;
  const ExtentInfo info = stat("small");
  EXPECT_TRUE(info.is_inline);
  EXPECT_EQ(info.state, ExtentState::kSealed);
  EXPECT_EQ(info.header.crc32, sample.header.crc32);
  EXPECT_GT(info.header.part_bytes, 0u);
  expect_holds("small", sample);

  Bytes prefetch(sample.bytes.size() + 100);
  auto reader = store_->open("small", prefetch);
  ASSERT_TRUE(reader);
  ASSERT_EQ((*reader)->prefetched_bytes(), sample.bytes.size());
  EXPECT_TRUE(std::equal(sample.bytes.begin(), sample.bytes.end(), prefetch.begin()));

  auto cramped = store_->open("small", std::span(prefetch).first(sample.bytes.size() - 1));
  ASSERT_TRUE(cramped);
  EXPECT_EQ((*cramped)->prefetched_bytes(), 0u);
  auto bytes = read_all(**cramped);
  ASSERT_TRUE(bytes) << bytes.error().message;
  EXPECT_TRUE(*bytes == sample.bytes);
}

TEST_P(ExtentStoreContract, InlineIsExclusive) {
  if (limits_.inline_max_bytes == 0) return;
  const Sample first = small_sample(5), second = small_sample(6);
  auto put = [&](const std::string& name, const Sample& sample) {
    return code_of(store_->put_inline(name, new_private_id(), sample.bytes, sample.header));
  };
  EXPECT_EQ(put("e1", first), "OK");
  EXPECT_EQ(put("e1", second), "ALREADY_EXISTS");
  expect_holds("e1", first);
  // A head without a current extent is a head all the same.
  auto scratch = begin("e2");
  ASSERT_TRUE(scratch);
  EXPECT_EQ(put("e2", second), "ALREADY_EXISTS");
  EXPECT_TRUE(scratch->abort());
  EXPECT_EQ(put("e2", second), "OK");
}

// More than any backend has under way at a time, and each answer at its place.
TEST_P(ExtentStoreContract, ManyArePutAndOpenedTogether) {
  if (limits_.inline_max_bytes == 0) return;
  constexpr std::size_t kCount = 37, kBadName = 3, kTooLong = 11, kTaken = 20, kMissing = 30;
  std::vector<std::string> names;
  std::vector<Sample> samples;
  for (std::size_t i = 0; i < kCount; ++i) {
    names.push_back(i == kBadName ? "no/such name" : "e" + std::to_string(i));
    samples.push_back(i == kTooLong ? make_sample(limits_.inline_max_bytes + 1, 7)
                                    : small_sample(100 + i));
  }
  const Sample taken = small_sample(9);
  ASSERT_TRUE(store_->put_inline(names[kTaken], new_private_id(), taken.bytes, taken.header));

  std::vector<InlinePut> puts;
  for (std::size_t i = 0; i < kCount; ++i) {
    if (i == kMissing) continue;
    puts.push_back({names[i], new_private_id(), samples[i].bytes, samples[i].header});
  }
  EXPECT_TRUE(store_->put_inline_many({}).empty());
  const std::vector<Status> ends = store_->put_inline_many(puts);
  ASSERT_EQ(ends.size(), puts.size());
  for (std::size_t i = 0; i < puts.size(); ++i) {
    const bool wrong = puts[i].name == names[kBadName] || puts[i].name == names[kTooLong];
    EXPECT_EQ(code_of(ends[i]), wrong                           ? "INVALID_ARGUMENT"
                                : puts[i].name == names[kTaken] ? "ALREADY_EXISTS"
                                                                : "OK")
        << puts[i].name;
  }

  std::vector<Bytes> prefetch(kCount, Bytes(limits_.inline_max_bytes));
  std::vector<OpenRequest> requests;
  for (std::size_t i = 0; i < kCount; ++i) requests.push_back({names[i], prefetch[i]});
  EXPECT_TRUE(store_->open_many({}).empty());
  auto readers = store_->open_many(requests);
  ASSERT_EQ(readers.size(), kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    EXPECT_EQ(code_of(readers[i]), i == kBadName                    ? "INVALID_ARGUMENT"
                                   : i == kTooLong || i == kMissing ? "NOT_FOUND"
                                                                    : "OK")
        << names[i];
    if (!readers[i]) continue;
    const Bytes& expected = i == kTaken ? taken.bytes : samples[i].bytes;
    EXPECT_EQ((*readers[i])->info().name, names[i]);
    ASSERT_EQ((*readers[i])->prefetched_bytes(), expected.size()) << names[i];
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), prefetch[i].begin())) << names[i];
  }
}

TEST_P(ExtentStoreContract, ConcurrentInlinePutsOfOneNameHaveOneWinner) {
  if (limits_.inline_max_bytes == 0) return;
  constexpr std::size_t kThreads = 4;
  std::vector<Sample> samples;
  for (std::size_t t = 0; t < kThreads; ++t) samples.push_back(small_sample(700 + t * 50));
  std::vector<std::string> codes(kThreads);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      codes[t] =
          code_of(store_->put_inline("e1", new_private_id(), samples[t].bytes, samples[t].header));
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::size_t winners = 0;
  for (std::size_t t = 0; t < kThreads; ++t) {
    if (codes[t] == "OK") {
      ++winners;
      expect_holds("e1", samples[t]);
    } else {
      EXPECT_EQ(codes[t], "ALREADY_EXISTS");
    }
  }
  EXPECT_EQ(winners, 1u);
}

TEST_P(ExtentStoreContract, InlineLimitHolds) {
  const Sample sample = make_sample(limits_.inline_max_bytes + 1, 7);
  EXPECT_EQ(code_of(store_->put_inline("e1", new_private_id(), sample.bytes, sample.header)),
            "INVALID_ARGUMENT");
  EXPECT_EQ(raw_count("e1"), 0u);
}

TEST_P(ExtentStoreContract, InlineIsReplacedTrashedAndPurged) {
  if (limits_.inline_max_bytes == 0) return;
  const Sample small = small_sample(8), big = big_sample(9);
  ASSERT_TRUE(store_->put_inline("e1", new_private_id(), small.bytes, small.header));
  put("e1", big, true);
  EXPECT_FALSE(stat("e1").is_inline);
  EXPECT_EQ(stat("e1").trash_count, 1u);
  expect_holds("e1", big);
  auto purged = store_->purge_trash("e1");
  ASSERT_TRUE(purged) << purged.error().message;
  EXPECT_EQ(*purged, 1u);
  expect_holds("e1", big);

  ASSERT_TRUE(store_->put_inline("e2", new_private_id(), small.bytes, small.header));
  ASSERT_TRUE(store_->trash("e2", stat("e2")));
  EXPECT_EQ(code_of(store_->stat("e2")), "NOT_FOUND");
  purged = store_->purge_trash("e2");
  ASSERT_TRUE(purged) << purged.error().message;
  EXPECT_EQ(*purged, 1u);
  EXPECT_EQ(raw_count("e2"), 0u);
}

}  // namespace siphon::contract
