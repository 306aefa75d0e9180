// One head on RADOS, changed by several at once, by others, or between a look and a change.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "adapters/rados/object_io.h"
#include "adapters/rados/rados_store.h"
#include "tests/contract/cluster_stores.h"

namespace siphon::contract {
namespace {

// Guards of the register compare whole byte strings: zeros inside do not end the compare, or one
// of these reservations would overwrite another.
void reserve_from_many_threads(ExtentStore& store) {
  constexpr int kThreads = 8;
  std::vector<std::string> codes(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      BeginOptions options;
      options.private_id = new_private_id();
      options.lease_unix_ms = 1000 + static_cast<std::uint64_t>(t);
      codes[t] = code_of(store.begin("busy", options));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& code : codes) EXPECT_EQ(code, "OK");
  const Sample sample = sample_of_parts(1, 1);
  ASSERT_TRUE(put(store, "busy", sample));
  auto info = store.stat("busy");
  ASSERT_TRUE(info);
  EXPECT_EQ(info->scratch_count, static_cast<std::uint32_t>(kThreads));
}

TEST(OneOsdRados, ConcurrentChangesOfARegisterAllArrive) {
  reserve_from_many_threads(open_store(*rados_provider(), "one"));
}
TEST(OneOsdObjclass, ConcurrentChangesOfARegisterAllArrive) {
  reserve_from_many_threads(open_store(*bounced_provider(), "one"));
}

// An object without anything in it is nobody's: a removal that lost a race, rados create.
void use_an_empty_object(ExtentStore& store) {
  librados::IoCtx io = ClusterUnderTest::get().context(store.location(), "e1");
  ASSERT_EQ(io.create("siphon.e1", true), 0);
  EXPECT_EQ(code_of(store.stat("e1")), "NOT_FOUND");
  const Sample small = make_sample(5000, 61);
  EXPECT_EQ(code_of(store.put_inline("e1", new_private_id(), small.bytes, small.header)),
            "ALREADY_EXISTS");
  ASSERT_TRUE(put(store, "e1", small));
  expect_holds(store, "e1", small);
  ASSERT_TRUE(store.trash("e1", *store.stat("e1")));
  ASSERT_TRUE(store.purge_trash("e1"));
  EXPECT_TRUE(ClusterUnderTest::get().objects_of(store.location(), "e1").empty());
}
TEST(OneOsdRados, AnEmptyObjectIsNobodys) {
  use_an_empty_object(open_store(*rados_provider(), "one"));
}
TEST(OneOsdObjclass, AnEmptyObjectIsNobodys) {
  use_an_empty_object(open_store(*bounced_provider(), "one"));
}

// What somebody adds to a head of ours outlives the extent.
void forget_beside_foreign_attributes(ExtentStore& store) {
  librados::IoCtx io = ClusterUnderTest::get().context(store.location(), "e1");
  const Sample small = make_sample(5000, 62);
  ASSERT_TRUE(store.put_inline("e1", new_private_id(), small.bytes, small.header));
  librados::bufferlist value;
  value.append("precious");
  ASSERT_EQ(io.setxattr("siphon.e1", "theirs", value), 0);
  ASSERT_TRUE(store.trash("e1", *store.stat("e1")));
  ASSERT_TRUE(store.purge_trash("e1"));
  EXPECT_EQ(code_of(store.stat("e1")), "NOT_FOUND");
  librados::bufferlist back;
  EXPECT_EQ(io.getxattr("siphon.e1", "theirs", back), 8);
  std::uint64_t size_bytes = 0;
  EXPECT_EQ(io.stat("siphon.e1", &size_bytes, nullptr), 0);
  EXPECT_EQ(size_bytes, 0u);
}
TEST(OneOsdRados, WhatSomebodyAddedToAHeadOutlivesTheExtent) {
  forget_beside_foreign_attributes(open_store(*rados_provider(), "one"));
}
TEST(OneOsdObjclass, WhatSomebodyAddedToAHeadOutlivesTheExtent) {
  forget_beside_foreign_attributes(open_store(*bounced_provider(), "one"));
}

// ---- between a look at the head and the change of it -----------------------------------------

// What happens once, before the next transition of a kind reaches the head.
struct Meanwhile {
  Transition before = Transition::kReserve;
  std::function<void()> act;
  bool older_class = false;  // answers a condemn of whatever is in the trash with 0
};

class LateIo final : public ObjectIo {
 public:
  LateIo(bool whole_objects, Meanwhile& meanwhile)
      : ObjectIo(whole_objects), meanwhile_(meanwhile) {}
  int transition(librados::IoCtx& io, const std::string& object,
                 const TransitionRequest& request) override {
    if (request.kind == meanwhile_.before && meanwhile_.act) {
      std::exchange(meanwhile_.act, nullptr)();
    }
    const int result = ObjectIo::transition(io, object, request);
    const bool in_trash = request.kind == Transition::kCondemn && result == -EEXIST;
    return meanwhile_.older_class && in_trash ? 0 : result;
  }

 private:
  Meanwhile& meanwhile_;
};

class LateStore : public testing::Test {
 protected:
  void SetUp() override {
    ClusterUnderTest::get().need_pool("one");
    location_ = fresh_location("one");
    late_ = *table_.open(location_);
    store_ = *rados_provider()->open(location_);
  }
  std::unique_ptr<ScratchExtent> begin(ExtentStore& store, bool replace) {
    BeginOptions options;
    options.private_id = new_private_id();
    options.lease_unix_ms = now_unix_ms() + 60'000;
    options.replace = replace;
    auto scratch = store.begin("e1", options);
    EXPECT_TRUE(scratch) << scratch.error().message;
    return scratch ? std::move(*scratch) : nullptr;
  }
  Status write(ScratchExtent& scratch, const Sample& sample) {
    return write_range(scratch, store_->limits(), 0, sample.bytes);
  }
  Status replace(const Sample& sample) {
    auto scratch = begin(*store_, true);
    SIPHON_TRY(write(*scratch, sample));
    return scratch->publish(sample.header, true, ExtentState::kSealed);
  }

  Meanwhile meanwhile_;
  RadosStoreTable table_{ClusterUnderTest::get().connection(), small_limits(), [this](bool whole) {
                           return std::make_unique<LateIo>(whole, meanwhile_);
                         }};
  Location location_;
  ExtentStore* late_ = nullptr;
  ExtentStore* store_ = nullptr;
};
using OneOsdLate = LateStore;

TEST_F(OneOsdLate, WhoCollectsAnAttemptLeavesWhatWasPublishedAndReplacedMeanwhile) {
  const Sample first = sample_of_parts(5, 80), second = sample_of_parts(3, 81);
  for (const bool older_class : {false, true}) {
    for (const bool fences : {false, true}) {
      meanwhile_.older_class = older_class;
      meanwhile_.before = Transition::kCondemn;
      auto scratch = begin(*store_, true);
      ASSERT_TRUE(scratch);
      const PrivateId id = scratch->private_id();
      ASSERT_TRUE(write(*scratch, first));
      meanwhile_.act = [&] {
        EXPECT_TRUE(scratch->publish(first.header, true, ExtentState::kSealed));
        EXPECT_TRUE(replace(second));
      };
      EXPECT_EQ(code_of(fences ? late_->fence("e1", id) : late_->collect("e1", id)),
                "FAILED_PRECONDITION");
      EXPECT_FALSE(meanwhile_.act);
      expect_holds(*store_, "e1", second);
      ASSERT_TRUE(store_->trash("e1", *store_->stat("e1")));
      Status restored = store_->restore("e1", id);
      ASSERT_TRUE(restored) << restored.error().message;
      expect_holds(*store_, "e1", first);
    }
  }
}

// A purge of the trash as it was seen is something else.
TEST_F(OneOsdLate, APurgeOfWhatWasSeenInTheTrashTakesNothingThatWasRestoredMeanwhile) {
  const Sample sample = sample_of_parts(5, 82);
  ASSERT_TRUE(replace(sample));
  const ExtentInfo seen = *store_->stat("e1");
  ASSERT_TRUE(store_->trash("e1", seen));
  const std::uint64_t trashed = store_->inspect("e1")->trash.at(0).trashed_unix_ms;
  meanwhile_.before = Transition::kDiscard;
  meanwhile_.act = [&] { EXPECT_TRUE(store_->restore("e1", seen.private_id)); };
  EXPECT_NE(code_of(late_->purge("e1", seen.private_id, trashed)), "OK");
  EXPECT_FALSE(meanwhile_.act);
  expect_holds(*store_, "e1", sample);
}

// Generations start at 0 again when nothing is left of a name.
TEST_F(OneOsdLate, WhoBeganAsTheNameStartedAnewReplacesNothingThatCameLater) {
  const Sample old = sample_of_parts(3, 83), ours = sample_of_parts(3, 84),
               theirs = sample_of_parts(3, 85);
  ASSERT_TRUE(replace(old));
  meanwhile_.before = Transition::kReserve;
  meanwhile_.act = [&] {
    EXPECT_TRUE(store_->trash("e1", *store_->stat("e1")));
    EXPECT_TRUE(store_->purge_trash("e1"));
  };
  auto scratch = begin(*late_, true);
  ASSERT_TRUE(scratch);
  EXPECT_FALSE(meanwhile_.act);
  ASSERT_TRUE(write(*scratch, ours));
  ASSERT_TRUE(replace(theirs));
  EXPECT_EQ(code_of(scratch->publish(ours.header, true, ExtentState::kSealed)), "ABORTED");
  expect_holds(*store_, "e1", theirs);
  EXPECT_TRUE(scratch->abort());
}

}  // namespace
}  // namespace siphon::contract
