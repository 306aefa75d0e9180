// Of the contract of adapters/extent_store.h: what is put is what is read: round trips, publish,
// readers, open extents.
#pragma once

#include <atomic>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/contract/store_under_test.h"

namespace siphon::contract {

// ---- round trips -----------------------------------------------------------------------------

TEST_P(ExtentStoreContract, IsReady) {
  EXPECT_EQ(code_of(store_->check_ready(false)), "OK");
  EXPECT_EQ(code_of(store_->check_ready(true)), "OK");
  EXPECT_EQ(store_->location().to_string(), under_test_.location.to_string());
  EXPECT_TRUE(under_test_.provider->pool_id(under_test_.location.pool));
  EXPECT_GE(limits_.part_bytes, 64 * kKiB);
  EXPECT_LE(limits_.part_bytes, 64 * kMiB);
}

TEST_P(ExtentStoreContract, ManyPartsRoundTrip) {
  const Sample sample = big_sample(1);
  put("e1", sample);
  const ExtentInfo info = stat("e1");
  EXPECT_EQ(info.name, "e1");
  EXPECT_EQ(info.state, ExtentState::kSealed);
  EXPECT_FALSE(info.is_inline);
  EXPECT_GE(info.generation, 1u);
  EXPECT_FALSE(info.private_id.empty());
  EXPECT_EQ(info.scratch_count, 0u);
  EXPECT_EQ(info.trash_count, 0u);
  SealedHeader expected = sample.header;
  expected.part_bytes = limits_.part_bytes;
  EXPECT_EQ(info.header, expected);

  auto reader = store_->open("e1", {});
  ASSERT_TRUE(reader) << reader.error().message;
  EXPECT_EQ((*reader)->info().private_id, info.private_id);
  EXPECT_EQ((*reader)->prefetched_bytes(), 0u);
  auto verified = verify_extent(source_of(**reader), info.header, {});
  ASSERT_TRUE(verified) << verified.error().message;
  EXPECT_EQ(verified->crc32, sample.header.crc32);
  expect_holds("e1", sample);
}

TEST_P(ExtentStoreContract, WritesMayComeInAnyOrderAndTwice) {
  const Sample sample = big_sample(2);
  auto scratch = begin("e1", false, sample.bytes.size());
  ASSERT_TRUE(scratch);
  EXPECT_EQ(scratch->part_bytes(), limits_.part_bytes);
  std::vector<std::pair<std::uint64_t, std::size_t>> pieces;  // unaligned
  for (std::uint64_t offset = 0; offset < sample.bytes.size();) {
    std::size_t length = operation_length(offset, sample.bytes.size() - offset,
                                          scratch->part_bytes(), limits_.operation_bytes);
    length = std::min<std::size_t>(length, 30'001);
    pieces.emplace_back(offset, length);
    offset += length;
  }
  for (int round = 0; round < 2; ++round) {
    for (auto it = pieces.rbegin(); it != pieces.rend(); ++it) {
      ASSERT_TRUE(
          scratch->write(it->first, std::span(sample.bytes).subspan(it->first, it->second)));
    }
  }
  ASSERT_TRUE(scratch->publish(sample.header, false, ExtentState::kSealed));
  expect_holds("e1", sample);
}

TEST_P(ExtentStoreContract, AnAttemptReadsBackWhatItHasWritten) {
  const Sample sample = big_sample(4);
  auto scratch = begin("e1", false, sample.bytes.size());
  ASSERT_TRUE(scratch);
  Bytes back(limits_.operation_bytes);
  EXPECT_EQ(code_of(scratch->read(0, back)), "DATA_LOSS") << "nothing is there";
  ASSERT_TRUE(write_all(*scratch, sample.bytes));
  Bytes all;
  while (all.size() < sample.bytes.size()) {
    back.resize(operation_length(all.size(), sample.bytes.size() - all.size(),
                                 scratch->part_bytes(), limits_.operation_bytes));
    Status read = scratch->read(all.size(), back);
    ASSERT_TRUE(read) << read.error().message;
    all.insert(all.end(), back.begin(), back.end());
  }
  EXPECT_TRUE(all == sample.bytes);
  // Parts end where they end, and so does the extent.
  back.resize(2);
  EXPECT_EQ(code_of(scratch->read(scratch->part_bytes() - 1, back)), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of(scratch->read(sample.bytes.size() - 1, back)), "OUT_OF_RANGE");
  ASSERT_TRUE(scratch->publish(sample.header, false, ExtentState::kSealed));
  expect_holds("e1", sample);
}

TEST_P(ExtentStoreContract, DisjointWritesAndReadsRunConcurrently) {
  const Sample sample = big_sample(3);
  constexpr std::size_t kThreads = 4, kPiece = 8192;
  auto scratch = begin("e1", false, sample.bytes.size());
  ASSERT_TRUE(scratch);
  std::atomic<int> failures{0};
  auto on_all_threads = [&](auto&& one_piece) {
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (std::size_t at = t * kPiece; at < sample.bytes.size(); at += kThreads * kPiece) {
          if (!one_piece(at, std::min(kPiece, sample.bytes.size() - at))) ++failures;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  };
  on_all_threads([&](std::size_t at, std::size_t length) {
    return scratch->write(at, std::span(sample.bytes).subspan(at, length)).has_value();
  });
  ASSERT_EQ(failures, 0);
  ASSERT_TRUE(scratch->publish(sample.header, false, ExtentState::kSealed));
  auto reader = store_->open("e1", {});
  ASSERT_TRUE(reader);
  Bytes back(sample.bytes.size());
  on_all_threads([&](std::size_t at, std::size_t length) {
    return (*reader)->read(at, std::span(back).subspan(at, length)).has_value();
  });
  EXPECT_EQ(failures, 0);
  EXPECT_TRUE(back == sample.bytes);
}

// ---- publish ---------------------------------------------------------------------------------

TEST_P(ExtentStoreContract, NothingIsVisibleBeforePublish) {
  const Sample sample = big_sample(10);
  auto scratch = begin("e1", false, sample.bytes.size());
  ASSERT_TRUE(scratch);
  auto expect_invisible = [&] {
    EXPECT_EQ(code_of(store_->stat("e1")), "NOT_FOUND");
    EXPECT_EQ(code_of(store_->open("e1", {})), "NOT_FOUND");
    EXPECT_EQ(code_of(store_->open("e1", {}, true)), "NOT_FOUND");
    EXPECT_EQ(code_of(store_->trash("e1", {})), "NOT_FOUND");
    EXPECT_TRUE(list_all(10).empty());
  };
  expect_invisible();
  ASSERT_TRUE(write_all(*scratch, sample.bytes));
  expect_invisible();
  ASSERT_TRUE(scratch->publish(sample.header, false, ExtentState::kSealed));
  expect_holds("e1", sample);
  EXPECT_EQ(list_all(10), (std::multiset<std::string>{"e1"}));
}

TEST_P(ExtentStoreContract, PublishTwiceIsPublishOnce) {
  const Sample sample = big_sample(11);
  auto scratch = begin("e1");
  ASSERT_TRUE(scratch);
  ASSERT_TRUE(write_all(*scratch, sample.bytes));
  ASSERT_TRUE(scratch->publish(sample.header, false, ExtentState::kSealed));
  const ExtentInfo before = stat("e1");
  EXPECT_EQ(code_of(scratch->publish(sample.header, false, ExtentState::kSealed)), "OK");
  const ExtentInfo after = stat("e1");
  EXPECT_EQ(after.generation, before.generation);
  EXPECT_EQ(after.trash_count, 0u);
  // Nor does a late abort take away what was published.
  (void)scratch->abort();
  expect_holds("e1", sample);
}

TEST_P(ExtentStoreContract, BeginOverCurrentNeedsReplace) {
  const Sample sample = small_sample(12);
  put("e1", sample);
  const std::size_t before = raw_count("e1");
  BeginOptions options;
  options.private_id = new_private_id();
  EXPECT_EQ(code_of(store_->begin("e1", options)), "ALREADY_EXISTS");
  EXPECT_EQ(raw_count("e1"), before);
  EXPECT_EQ(stat("e1").scratch_count, 0u);
  expect_holds("e1", sample);
}

TEST_P(ExtentStoreContract, PublishOverCurrentNeedsReplace) {
  const Sample old_sample = small_sample(13), new_sample = small_sample(14);
  put("e1", old_sample);
  auto scratch = begin("e1", true);
  ASSERT_TRUE(scratch);
  ASSERT_TRUE(write_all(*scratch, new_sample.bytes));
  EXPECT_EQ(code_of(scratch->publish(new_sample.header, false, ExtentState::kSealed)),
            "ALREADY_EXISTS");
  expect_holds("e1", old_sample);
  EXPECT_EQ(code_of(scratch->publish(new_sample.header, true, ExtentState::kSealed)), "OK");
  expect_holds("e1", new_sample);
}

TEST_P(ExtentStoreContract, ReplacePutsTheOldOneInTheTrash) {
  const Sample old_sample = big_sample(15), new_sample = big_sample(16);
  put("e1", old_sample);
  const ExtentInfo before = stat("e1");
  put("e1", new_sample, true);
  const ExtentInfo after = stat("e1");
  EXPECT_GT(after.generation, before.generation);
  EXPECT_NE(after.private_id, before.private_id);
  EXPECT_EQ(after.trash_count, 1u);
  EXPECT_EQ(after.scratch_count, 0u);
  expect_holds("e1", new_sample);
  auto purged = store_->purge_trash("e1");
  ASSERT_TRUE(purged);
  EXPECT_EQ(*purged, 1u);
  EXPECT_EQ(stat("e1").trash_count, 0u);
  expect_holds("e1", new_sample);
}

TEST_P(ExtentStoreContract, PublishRefusesAMovedGeneration) {
  const Sample first = small_sample(17), second = small_sample(18), late = small_sample(19);
  put("e1", first);
  auto scratch = begin("e1", true);
  ASSERT_TRUE(scratch);
  ASSERT_TRUE(write_all(*scratch, late.bytes));
  put("e1", second, true);
  EXPECT_EQ(code_of(scratch->publish(late.header, true, ExtentState::kSealed)), "ABORTED");
  expect_holds("e1", second);
  EXPECT_EQ(code_of(scratch->abort()), "OK");
  expect_holds("e1", second);
  EXPECT_EQ(stat("e1").scratch_count, 0u);
}

TEST_P(ExtentStoreContract, AReplacedAttemptCannotComeBack) {
  const Sample first = small_sample(20), second = small_sample(21);
  auto scratch = begin("e1");
  ASSERT_TRUE(scratch);
  ASSERT_TRUE(write_all(*scratch, first.bytes));
  ASSERT_TRUE(scratch->publish(first.header, false, ExtentState::kSealed));
  put("e1", second, true);
  EXPECT_EQ(code_of(scratch->publish(first.header, true, ExtentState::kSealed)), "ABORTED");
  expect_holds("e1", second);
}

// ---- readers ---------------------------------------------------------------------------------

TEST_P(ExtentStoreContract, APinnedReaderKeepsItsGeneration) {
  const Sample old_sample = big_sample(32), new_sample = big_sample(33);
  put("e1", old_sample);
  auto reader = store_->open("e1", {});
  ASSERT_TRUE(reader);
  put("e1", new_sample, true);
  auto bytes = read_all(**reader);
  ASSERT_TRUE(bytes) << bytes.error().message;
  EXPECT_TRUE(*bytes == old_sample.bytes);

  ASSERT_TRUE(store_->trash("e1", stat("e1")));
  bytes = read_all(**reader);
  ASSERT_TRUE(bytes) << bytes.error().message;
  EXPECT_TRUE(*bytes == old_sample.bytes);

  ASSERT_TRUE(store_->purge_trash("e1"));
  bytes = read_all(**reader);  // gone, or still there; never something else
  EXPECT_TRUE(bytes ? *bytes == old_sample.bytes : bytes.error().code == Code::kNotFound)
      << code_of(bytes);
}

TEST_P(ExtentStoreContract, AReaderNeverSeesAMixture) {
  constexpr int kRounds = 12;
  const Sample samples[2] = {big_sample(34), make_sample(limits_.part_bytes * 2, 35)};
  put("e1", samples[0]);
  std::atomic<bool> done{false};
  std::atomic<int> wrong{0};
  std::thread watcher([&] {
    while (!done) {
      auto bytes = read_all("e1");
      const bool right = bytes ? *bytes == samples[0].bytes || *bytes == samples[1].bytes
                               : bytes.error().code == Code::kNotFound;
      if (!right) ++wrong;
    }
  });
  for (int round = 1; round <= kRounds; ++round) {
    put("e1", samples[round % 2], true);
    EXPECT_TRUE(store_->purge_trash("e1"));
  }
  done = true;
  watcher.join();
  EXPECT_EQ(wrong, 0);
}

TEST_P(ExtentStoreContract, ReadAndWriteBoundsHold) {
  const Sample sample = big_sample(36);
  const std::uint64_t size = sample.bytes.size();
  auto scratch = begin("e1", false, size);
  ASSERT_TRUE(scratch);
  ASSERT_TRUE(write_all(*scratch, sample.bytes));
  Bytes buffer(limits_.operation_bytes + 1);
  const std::span<std::byte> ten = std::span(buffer).first(10);
  EXPECT_EQ(code_of(scratch->write(size - 5, ten)), "OUT_OF_RANGE");
  EXPECT_EQ(code_of(scratch->write(~0ull - 4, ten)), "OUT_OF_RANGE");
  EXPECT_EQ(code_of(scratch->write(limits_.part_bytes - 5, ten)), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of(scratch->write(0, buffer)), "INVALID_ARGUMENT");
  ASSERT_TRUE(scratch->publish(sample.header, false, ExtentState::kSealed));

  auto reader = store_->open("e1", {});
  ASSERT_TRUE(reader);
  EXPECT_EQ(code_of((*reader)->read(size - 5, ten)), "OUT_OF_RANGE");
  EXPECT_EQ(code_of((*reader)->read(size, ten)), "OUT_OF_RANGE");
  EXPECT_EQ(code_of((*reader)->read(~0ull - 4, ten)), "OUT_OF_RANGE");
  EXPECT_EQ(code_of((*reader)->read(limits_.part_bytes - 5, ten)), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of((*reader)->read(0, buffer)), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of((*reader)->read(size - 10, ten)), "OK");
  expect_holds("e1", sample);
}

TEST_P(ExtentStoreContract, DamageIsNotServedAsTheExtent) {
  if (!under_test_.damage) return;
  const Sample sample = big_sample(37);
  put("e1", sample);
  under_test_.damage("e1", limits_.part_bytes + 17);
  auto reader = store_->open("e1", {});
  ASSERT_TRUE(reader) << reader.error().message;
  EXPECT_EQ(code_of(verify_extent(source_of(**reader), (*reader)->info().header, {})), "DATA_LOSS");
}

// ---- open extents ----------------------------------------------------------------------------

TEST_P(ExtentStoreContract, AnOpenExtentIsScannedAndSealed) {
  // A torn tail of more than one part: seal has to cut whole parts too.
  Sample open = make_sample(limits_.part_bytes * std::size_t{3} / 2, 38, true);
  const std::size_t whole_bytes = open.bytes.size();
  const Bytes torn = random_bytes(limits_.part_bytes * std::size_t{2}, 39);
  Bytes stored = open.bytes;
  stored.insert(stored.end(), torn.begin(), torn.end());
  put("e1", {stored, {}}, false, ExtentState::kOpen);

  const ExtentInfo info = stat("e1");
  EXPECT_EQ(info.state, ExtentState::kOpen);
  EXPECT_EQ(info.header.part_bytes, limits_.part_bytes);
  EXPECT_EQ(code_of(store_->open("e1", {})), "FAILED_PRECONDITION");
  EXPECT_EQ(list_all(10), (std::multiset<std::string>{"e1"}));
  ASSERT_EQ(read_all("e1", true).value_or(Bytes{}).size(), stored.size());
  const ScanResult scan = scan_current("e1");
  ASSERT_EQ(scan.valid_bytes, whole_bytes);

  Bytes tail;
  ExtentEncoder encoder(into(tail), scan.blocks, scan.valid_bytes, scan.crc32);
  auto header = encoder.seal();
  ASSERT_TRUE(header);
  header->part_bytes = info.header.part_bytes;
  header->sealed_unix_ms = now_unix_ms();
  ExtentInfo other = info;
  ++other.generation;
  EXPECT_EQ(code_of(store_->seal("e1", other, whole_bytes, tail, *header)), "ABORTED");
  Status sealed = store_->seal("e1", info, whole_bytes, tail, *header);
  ASSERT_TRUE(sealed) << sealed.error().message;
  EXPECT_EQ(stat("e1").state, ExtentState::kSealed);
  EXPECT_GT(stat("e1").generation, info.generation);
  EXPECT_EQ(stat("e1").header, *header);

  auto again = store_->open("e1", {});
  ASSERT_TRUE(again) << again.error().message;
  auto verified = verify_extent(source_of(**again), *header, {});
  EXPECT_TRUE(verified) << verified.error().message;
  ASSERT_TRUE(store_->trash("e1", stat("e1")));
  ASSERT_TRUE(store_->purge_trash("e1"));
  EXPECT_EQ(raw_count("e1"), 0u);  // the cut parts too
}

// Generations start at 0 again when nothing is left of a name, so that one alone names nothing: a
// slow seal, or the last step of a move, finds another extent of the same generation.
TEST_P(ExtentStoreContract, WhatTookTheNameMeanwhileIsNeitherSealedNorTrashed) {
  for (const ExtentState state : {ExtentState::kOpen, ExtentState::kSealed}) {
    const bool open = state == ExtentState::kOpen;
    const std::size_t bytes = limits_.part_bytes * std::size_t{3} / 2;
    put("e1", make_sample(bytes, 70, open), false, state);
    const ExtentInfo seen = stat("e1");
    auto scan = scan_current("e1");
    Bytes tail;
    ExtentEncoder encoder(into(tail), scan.blocks, scan.valid_bytes, scan.crc32);
    auto header = encoder.seal();
    ASSERT_TRUE(header);
    header->part_bytes = seen.header.part_bytes;
    ASSERT_TRUE(store_->trash("e1", seen));
    ASSERT_TRUE(store_->purge_trash("e1"));
    const Sample next = make_sample(2 * bytes, 71, open);
    put("e1", next, false, state);
    ASSERT_EQ(stat("e1").generation, seen.generation);

    EXPECT_EQ(code_of(store_->seal("e1", seen, scan.valid_bytes, tail, *header)), "ABORTED");
    EXPECT_EQ(code_of(store_->trash("e1", seen)), "ABORTED");
    EXPECT_EQ(stat("e1").state, state);
    auto held = read_all("e1", true);
    ASSERT_TRUE(held) << held.error().message;
    EXPECT_TRUE(*held == next.bytes);
    ASSERT_TRUE(store_->trash("e1", stat("e1")));
    ASSERT_TRUE(store_->purge_trash("e1"));
    EXPECT_EQ(raw_count("e1"), 0u);
  }
}

TEST_P(ExtentStoreContract, AnOpenExtentIsTrashedWhole) {
  put("e1", make_sample(limits_.part_bytes * std::size_t{5} / 2, 40, true), false,
      ExtentState::kOpen);
  ASSERT_TRUE(store_->trash("e1", stat("e1")));
  auto purged = store_->purge_trash("e1");
  ASSERT_TRUE(purged) << purged.error().message;
  EXPECT_EQ(*purged, 1u);
  EXPECT_EQ(raw_count("e1"), 0u);
}

}  // namespace siphon::contract
