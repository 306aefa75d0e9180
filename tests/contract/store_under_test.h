// What the contract's tests stand on: a fresh store of any adapter, and how they use it.
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
#include "plugin/base/types.h"
#include "plugin/format/extent_format.h"
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

}  // namespace siphon::contract
