// The contract of adapters/extent_store.h as one GoogleTest suite, for every adapter.
//
// To run it over an adapter: include this header in one .cc file of a test program and
//
//   INSTANTIATE_TEST_SUITE_P(Mine, ExtentStoreContract, testing::Values(my_factory()),
//                            siphon::contract::factory_name);
//
// The suite takes sizes from the store's limits; small parts (64 KiB) and operations (48 KiB)
// make it quick. Its buffers are plain heap memory.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "adapters/extent_store.h"
#include "adapters/store_util.h"
#include "plugin/base/extent_format.h"
#include "plugin/base/types.h"
#include "tests/contract/samples.h"

namespace siphon::contract {

// A fresh, empty location of some backend.
struct StoreUnderTest {
  std::shared_ptr<StoreProvider> provider;  // shared: a factory may keep one cluster connection
  Location location;
  // How many raw things (objects, files, entries) the backend holds for this extent name, public
  // or not; looks behind the store's back. 0: nothing at all.
  std::function<std::size_t(const std::string& name)> raw_count;
  // Flips one byte of the current bytes of a name, behind the store's back.
  std::function<void(const std::string& name, std::uint64_t offset_bytes)> damage;
  // Puts something that is not Siphon's where the head of a name belongs, one way for each number
  // from 0; false: there are no more ways.
  std::function<bool(const std::string& name, int way)> make_foreign;
  // All that there is of it, to compare.
  std::function<std::string(const std::string& name)> foreign_content;
  // What is to be true after each test of the suite; may be empty.
  std::function<void()> at_end;
};

struct StoreFactory {
  std::string name;  // letters and digits
  std::function<StoreUnderTest()> make;
};
inline void PrintTo(const StoreFactory& factory, std::ostream* out) { *out << factory.name; }
inline std::string factory_name(const testing::TestParamInfo<StoreFactory>& info) {
  return info.param.name;
}

class ExtentStoreContract : public testing::TestWithParam<StoreFactory> {
 protected:
  void SetUp() override {
    under_test_ = GetParam().make();
    auto store = under_test_.provider->open(under_test_.location);
    ASSERT_TRUE(store) << store.error().message;
    store_ = *store;
    limits_ = store_->limits();
  }
  void TearDown() override {
    if (store_ && under_test_.at_end) under_test_.at_end();
  }

  // Three and a half parts, so that first, middle and last differ.
  Sample big_sample(std::uint64_t seed) {
    return make_sample(limits_.part_bytes * std::size_t{7} / 2, seed);
  }
  Sample small_sample(std::uint64_t seed) { return make_sample(5000, seed); }

  std::unique_ptr<ScratchExtent> begin(const std::string& name, bool replace = false,
                                       std::uint64_t extent_bytes = 0,
                                       PrivateId id = new_private_id()) {
    BeginOptions options;
    options.extent_bytes = extent_bytes;
    options.private_id = id;
    options.lease_unix_ms = now_unix_ms() + 60'000;
    options.replace = replace;
    auto scratch = store_->begin(name, options);
    EXPECT_TRUE(scratch) << scratch.error().message;
    return scratch ? std::move(*scratch) : nullptr;
  }
  Status write_all(ScratchExtent& scratch, const Bytes& bytes) {
    return write_range(scratch, limits_, 0, bytes);
  }
  // begin, write, publish.
  void put(const std::string& name, const Sample& sample, bool replace = false,
           ExtentState state = ExtentState::kSealed) {
    auto scratch = begin(name, replace, sample.bytes.size());
    ASSERT_TRUE(scratch);
    Status written = write_all(*scratch, sample.bytes);
    ASSERT_TRUE(written) << written.error().message;
    Status published = scratch->publish(sample.header, replace, state);
    ASSERT_TRUE(published) << published.error().message;
  }
  // What a scan of the current one, open or sealed, finds.
  ScanResult scan_current(const std::string& name) {
    auto reader = store_->open(name, {}, true);
    EXPECT_TRUE(reader) << reader.error().message;
    if (!reader) return {};
    auto scan = scan_blocks(source_of(**reader), (*reader)->info().header.extent_bytes);
    EXPECT_TRUE(scan) << scan.error().message;
    return scan ? std::move(*scan) : ScanResult{};
  }
  static ByteSink into(Bytes& bytes) {
    return [&bytes](std::span<const std::byte> piece) {
      bytes.insert(bytes.end(), piece.begin(), piece.end());
      return Status{};
    };
  }
  Result<Bytes> read_all(ExtentReader& reader) {
    Bytes bytes(reader.info().header.extent_bytes);
    SIPHON_TRY(read_range(reader, limits_, 0, bytes));
    return bytes;
  }
  Result<Bytes> read_all(const std::string& name, bool allow_open = false) {
    auto reader = store_->open(name, {}, allow_open);
    if (!reader) return fail(std::move(reader).error());
    return read_all(**reader);
  }
  void expect_holds(const std::string& name, const Sample& sample) {
    auto bytes = read_all(name);
    ASSERT_TRUE(bytes) << bytes.error().message;
    EXPECT_TRUE(*bytes == sample.bytes) << name << " holds other bytes";
  }
  ExtentInfo stat(const std::string& name) {
    auto info = store_->stat(name);
    EXPECT_TRUE(info) << info.error().message;
    return info ? *info : ExtentInfo{};
  }
  ByteSource source_of(ExtentReader& reader) {
    return [this, &reader](std::uint64_t offset, std::span<std::byte> out) {
      return read_range(reader, limits_, offset, out);
    };
  }
  std::size_t raw_count(const std::string& name) { return under_test_.raw_count(name); }
  // Every name, page by page.
  std::multiset<std::string> list_all(std::size_t page_names, Listing listing = Listing::kExtents) {
    std::multiset<std::string> names;
    std::string cursor;
    for (int page_count = 0; page_count < 1000; ++page_count) {
      auto page = store_->list(cursor, page_names, listing);
      if (!page) {
        ADD_FAILURE() << page.error().message;
        return names;
      }
      EXPECT_LE(page->names.size(), page_names);
      names.insert(page->names.begin(), page->names.end());
      if (page->next_cursor.empty()) return names;
      cursor = page->next_cursor;
    }
    ADD_FAILURE() << "the list does not end";
    return names;
  }

  StoreUnderTest under_test_;
  ExtentStore* store_ = nullptr;
  StoreLimits limits_;
};

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
