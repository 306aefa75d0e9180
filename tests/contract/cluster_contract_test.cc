// The contract suite over the RADOS adapters, on a real cluster.
//
// Run under with_cluster with the stand-in for siphond beside the plugin, so that the OSD's region
// belongs to this process. Two shapes, chosen by --gtest_filter:
//   OneOsd*      every primary is the OSD whose region is used: nothing may fall back
//   ThreeOsds*   two extents of three have their primary elsewhere: all must work all the same
#include <gtest/gtest.h>

#include "adapters/objclass/layout_probe.h"
#include "adapters/objclass/objclass_provider.h"
#include "adapters/rados/object_io.h"
#include "adapters/rados/parts.h"
#include "adapters/rados/rados_provider.h"
#include "adapters/rados/rados_store.h"
#include "plugin/base/ticker.h"
#include "tests/contract/bounced_store.h"
#include "tests/contract/cluster_under_test.h"
#include "tests/contract/extent_store_contract.h"
#include "tests/contract/inline_extent_contract.h"

namespace siphon::contract {
namespace {

StoreLimits small_limits() {
  StoreLimits limits;
  limits.part_bytes = 64 * kKiB;
  limits.operation_bytes = 48 * kKiB;  // does not divide a part
  limits.inline_max_bytes = 16 * kKiB;
  return limits;
}

// A namespace nobody has used.
Location fresh_location(const std::string& pool) {
  static int count = 0;
  return {pool, "t" + std::to_string(++count)};
}

void flip_byte(const Location& location, const std::string& name, std::uint64_t offset_bytes) {
  librados::IoCtx io = ClusterUnderTest::get().context(location, name);
  librados::bufferlist stored;
  ASSERT_GT(io.getxattr("siphon." + name, kHeadXattr, stored), 0);
  HeadRegister head;
  ASSERT_TRUE(
      decode_head(std::as_bytes(std::span<const char>(stored.c_str(), stored.length())), head));
  const std::uint32_t part_bytes = head.header.part_bytes;
  const std::string object =
      head.is_inline ? "siphon." + name : part_object(head.current, offset_bytes / part_bytes);
  const std::uint64_t at = head.is_inline ? offset_bytes : offset_bytes % part_bytes;
  librados::bufferlist byte;
  ASSERT_EQ(io.read(object, byte, 1, at), 1);
  const char flipped = static_cast<char>(~byte.c_str()[0]);
  librados::bufferlist other;
  other.append(&flipped, 1);
  ASSERT_EQ(io.write(object, other, 1, at), 0);
}

// Data, an attribute, an omap entry, an omap header: each alone makes an object somebody's.
bool make_foreign(const Location& location, const std::string& name, int way) {
  librados::IoCtx io = ClusterUnderTest::get().context(location, name);
  bool takes_omap = true;
  librados::bufferlist value;
  value.append("precious");
  librados::ObjectWriteOperation operation;
  operation.create(true);
  if (way == 0) operation.write_full(value);
  if (way == 1) operation.setxattr("theirs", value);
  if (way == 2) operation.omap_set({{"key", value}});
  if (way == 3) operation.omap_set_header(value);
  const int result = io.operate("siphon." + name, &operation);
  if (way > 1 && result == -EOPNOTSUPP) takes_omap = false;  // erasure-coded
  if (takes_omap) {
    EXPECT_EQ(result, 0);
  }
  return takes_omap && way < 4;
}

std::string foreign_content(const Location& location, const std::string& name) {
  librados::IoCtx io = ClusterUnderTest::get().context(location, name);
  const std::string object = "siphon." + name;
  std::string all;
  auto add = [&all](const std::string& key, const librados::bufferlist& value) {
    all += key + "=" + value.to_str() + "\n";
  };
  librados::bufferlist data, header;
  EXPECT_GE(io.read(object, data, 0, 0), 0);
  add("data", data);
  std::map<std::string, librados::bufferlist> attributes, omap;
  EXPECT_GE(io.getxattrs(object, attributes), 0);
  for (const auto& [key, value] : attributes) add("attribute " + key, value);
  if (io.omap_get_header(object, &header) >= 0) add("header", header);
  if (io.omap_get_vals(object, "", 100, &omap) >= 0) {
    for (const auto& [key, value] : omap) add("omap " + key, value);
  }
  return all;
}

StoreUnderTest under_test(std::shared_ptr<StoreProvider> provider, const std::string& pool) {
  StoreUnderTest store;
  store.provider = std::move(provider);
  store.location = fresh_location(pool);
  const Location location = store.location;
  store.raw_count = [location](const std::string& name) {
    return ClusterUnderTest::get().objects_of(location, name).size();
  };
  store.damage = [location](const std::string& name, std::uint64_t offset_bytes) {
    flip_byte(location, name, offset_bytes);
  };
  store.make_foreign = [location](const std::string& name, int way) {
    return make_foreign(location, name, way);
  };
  store.foreign_content = [location](const std::string& name) {
    return foreign_content(location, name);
  };
  return store;
}

// One provider of each kind for the whole program.
std::shared_ptr<StoreProvider> rados_provider() {
  static auto provider =
      std::make_shared<RadosProvider>(ClusterUnderTest::get().connection(), small_limits());
  return provider;
}
ObjclassProvider& objclass_provider() {
  static ObjclassProvider provider(ClusterUnderTest::get().connection(),
                                   ClusterUnderTest::get().exchange(), small_limits());
  return provider;
}
std::shared_ptr<StoreProvider> bounced_provider() {
  static auto provider =
      std::make_shared<BouncedProvider>(objclass_provider(), ClusterUnderTest::get().exchange());
  return provider;
}

StoreFactory factory(std::string name, std::shared_ptr<StoreProvider> (*provider)(),
                     const std::string& pool, bool erasure) {
  return {std::move(name), [=] {
            if (erasure) {
              ClusterUnderTest::get().need_erasure_pool(pool, true);
            } else {
              ClusterUnderTest::get().need_pool(pool);
            }
            return under_test(provider(), pool);
          }};
}

// Whose every primary is the OSD next door: after each test, not one operation went round.
StoreFactory next_door_factory() {
  StoreFactory next_door = factory("Objclass", bounced_provider, "one", false);
  next_door.make = [make = next_door.make] {
    StoreUnderTest store = make();
    store.at_end = [provider = store.provider, location = store.location] {
      EXPECT_EQ((*provider->open(location))->counters().fallback_parts, 0u);
    };
    return store;
  };
  return next_door;
}

INSTANTIATE_TEST_SUITE_P(OneOsd, ExtentStoreContract,
                         testing::Values(factory("Rados", rados_provider, "one", false),
                                         next_door_factory()),
                         factory_name);
INSTANTIATE_TEST_SUITE_P(ThreeOsds, ExtentStoreContract,
                         testing::Values(factory("Rados", rados_provider, "three", false),
                                         factory("RadosErasure", rados_provider, "erasure", true),
                                         factory("Objclass", bounced_provider, "three", false),
                                         factory("ObjclassErasure", bounced_provider, "erasure",
                                                 true)),
                         factory_name);

// ---- what only RADOS has ---------------------------------------------------------------------

ExtentStore& open_store(StoreProvider& provider, const std::string& pool) {
  ClusterUnderTest::get().need_pool(pool);
  auto store = provider.open(fresh_location(pool));
  EXPECT_TRUE(store) << store.error().message;
  return **store;
}

Status put(ExtentStore& store, const std::string& name, const Sample& sample) {
  BeginOptions options;
  options.extent_bytes = sample.bytes.size();
  options.private_id = new_private_id();
  auto scratch = store.begin(name, options);
  if (!scratch) return fail(scratch.error());
  SIPHON_TRY(write_range(**scratch, store.limits(), 0, sample.bytes));
  return (*scratch)->publish(sample.header, false, ExtentState::kSealed);
}

void expect_holds(ExtentStore& store, const std::string& name, const Sample& sample) {
  auto reader = store.open(name, {});
  ASSERT_TRUE(reader) << reader.error().message;
  Bytes back(sample.bytes.size());
  Status read = read_range(**reader, store.limits(), 0, back);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_TRUE(back == sample.bytes);
}

Sample sample_of_parts(std::size_t half_parts, std::uint64_t seed) {
  return make_sample(small_limits().part_bytes * half_parts / 2, seed);
}

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

TEST(OneOsdObjclass, EveryByteGoesThroughTheRegion) {
  ExchangeClient& exchange = ClusterUnderTest::get().exchange();
  ASSERT_TRUE(exchange.bulk_methods());
  ExtentStore& store = open_store(*bounced_provider(), "one");
  const ExchangeCounters before = exchange.counters();
  const Sample big = sample_of_parts(7, 2), small = make_sample(5000, 3);
  ASSERT_TRUE(put(store, "big", big));
  expect_holds(store, "big", big);
  ASSERT_TRUE(store.put_inline("small", new_private_id(), small.bytes, small.header));
  expect_holds(store, "small", small);
  Bytes prefetch(16 * kKiB);
  auto reader = store.open("small", prefetch);
  ASSERT_TRUE(reader);
  EXPECT_EQ((*reader)->prefetched_bytes(), small.bytes.size());
  const ExchangeCounters after = exchange.counters();
  EXPECT_EQ(store.counters().fallback_parts, 0u);
  EXPECT_GE(after.writes_done - before.writes_done, 8u);
  EXPECT_GE(after.reads_done - before.reads_done, 9u);
  EXPECT_EQ(after.stale_refused, before.stale_refused);
}

TEST(OneOsdObjclass, WhatOneAdapterWritesTheOtherReads) {
  ClusterUnderTest::get().need_pool("one");
  const Location location = fresh_location("one");
  ExtentStore& by_class = **bounced_provider()->open(location);
  ExtentStore& by_librados = **rados_provider()->open(location);
  const Sample first = sample_of_parts(5, 4), second = sample_of_parts(3, 5);
  ASSERT_TRUE(put(by_class, "a", first));
  expect_holds(by_librados, "a", first);
  ASSERT_TRUE(put(by_librados, "b", second));
  expect_holds(by_class, "b", second);
  ASSERT_TRUE(by_class.trash("b", *by_librados.stat("b")));
  ASSERT_TRUE(by_librados.purge_trash("b"));
  EXPECT_TRUE(ClusterUnderTest::get().objects_of(location, "b").empty());
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

// An open extent's length is known by its parts alone: where one is missing, it does not end.
TEST(OneOsdRados, AMissingPartDoesNotHideWhatIsBehindIt) {
  ExtentStore& store = open_store(*rados_provider(), "one");
  const std::uint32_t part_bytes = store.limits().part_bytes;
  const Sample open = make_sample(7 * part_bytes / 2, 90, true);
  BeginOptions options;
  options.private_id = new_private_id();
  auto scratch = store.begin("e1", options);
  ASSERT_TRUE(scratch);
  ASSERT_TRUE(write_range(**scratch, store.limits(), 0, open.bytes));
  ASSERT_TRUE((*scratch)->publish(open.header, false, ExtentState::kOpen));
  librados::IoCtx io = ClusterUnderTest::get().context(store.location(), "e1");
  ASSERT_EQ(io.remove(part_object(options.private_id, 1)), 0);

  auto reader = store.open("e1", {}, true);
  ASSERT_TRUE(reader) << reader.error().message;
  EXPECT_EQ((*reader)->info().header.extent_bytes, open.bytes.size());
  Bytes piece(1000);
  EXPECT_EQ(code_of((*reader)->read(part_bytes, piece)), "DATA_LOSS");
  EXPECT_EQ(code_of((*reader)->read(2 * part_bytes, piece)), "OK");
  // Whoever cuts it before that leaves nothing behind.
  SealedHeader header;
  header.extent_bytes = part_bytes / 2;
  header.part_bytes = part_bytes;
  const Bytes tail(100);
  ASSERT_TRUE(store.seal("e1", (*reader)->info(), part_bytes / 2 - tail.size(), tail, header));
  EXPECT_EQ(ClusterUnderTest::get().objects_of(store.location(), "e1").size(), 2u);
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

TEST(OneOsdObjclass, FullSizedPartsAndOperations) {
  ClusterUnderTest& cluster = ClusterUnderTest::get();
  cluster.need_pool("one");
  ObjclassProvider inner(cluster.connection(), cluster.exchange());
  BouncedProvider provider(inner, cluster.exchange());
  ExtentStore& store = **provider.open(fresh_location("one"));
  EXPECT_EQ(store.limits().operation_bytes, 4 * kMiB);
  const Sample sample = make_sample(20 * kMiB + 12'345, 60);
  ASSERT_TRUE(put(store, "e1", sample));
  expect_holds(store, "e1", sample);
  EXPECT_EQ(store.counters().fallback_parts, 0u);
  EXPECT_EQ(cluster.objects_of(store.location(), "e1").size(), 4u);
}

TEST(OneOsdObjclass, BuffersOutsideTheRegionGoThroughLibrados) {
  ClusterUnderTest::get().need_pool("one");
  ExtentStore& store = **objclass_provider().open(fresh_location("one"));
  const Sample sample = sample_of_parts(3, 6);
  ASSERT_TRUE(put(store, "heap", sample));
  expect_holds(store, "heap", sample);
  EXPECT_EQ(store.counters().fallback_parts, 0u);  // never planned otherwise
}

TEST(OneOsdObjclass, DescriptorsRunOutAndComeBack) {
  ExchangeClient& exchange = ClusterUnderTest::get().exchange();
  const auto buffer = exchange.send_half().first(4096);
  EXPECT_FALSE(exchange.arm(exchange::OperationKind::kRead, {}));
  const Bytes heap(4096);
  EXPECT_FALSE(exchange.arm(exchange::OperationKind::kRead, heap));
  std::vector<ExchangeClient::Armed> all;
  while (auto armed = exchange.arm(exchange::OperationKind::kRead, buffer)) {
    all.push_back(std::move(*armed));
  }
  EXPECT_EQ(all.size(), exchange::kDescriptorCount);
  ExtentStore& store = open_store(*bounced_provider(), "one");
  const Sample sample = sample_of_parts(2, 7);
  EXPECT_TRUE(put(store, "meanwhile", sample));
  EXPECT_GT(store.counters().fallback_parts, 0u);
  all.clear();
  EXPECT_TRUE(exchange.arm(exchange::OperationKind::kRead, buffer));
}

TEST(OneOsdObjclass, ARetiredDescriptorIsRefused) {
  ClusterUnderTest& cluster = ClusterUnderTest::get();
  ExchangeClient& exchange = cluster.exchange();
  ExtentStore& store = open_store(*bounced_provider(), "one");
  const Sample small = make_sample(5000, 8);
  ASSERT_TRUE(store.put_inline("small", new_private_id(), small.bytes, small.header));
  auto armed = exchange.arm(exchange::OperationKind::kRead, exchange.send_half().first(4096));
  ASSERT_TRUE(armed);
  std::array<std::byte, exchange::OperationRequest::kEncodedBytes> request;
  armed->request(0, 4096).encode(request);
  librados::IoCtx io = cluster.context(store.location(), "small");
  auto call = [&] {
    librados::bufferlist in, out;
    in.append(reinterpret_cast<const char*>(request.data()), request.size());
    return io.exec("siphon.small", exchange::kClassName, "read_part", in, out);
  };
  EXPECT_GE(call(), 0);
  EXPECT_TRUE(armed->retire());
  EXPECT_EQ(call(), -ENXIO);
}

// Waits until the class has refused one more operation than `before`; false after 20 s.
bool refuses_one_more(ExchangeClient& exchange, std::uint64_t before) {
  const auto give_up_at = deadline_in(std::chrono::seconds(20));
  while (exchange.counters().stale_refused == before) {
    if (std::chrono::steady_clock::now() > give_up_at) return false;
    std::this_thread::yield();
  }
  return true;
}

// The OSD hangs, the caller gives up and uses the buffer for something else, the OSD goes on.
TEST(OneOsdObjclass, ALateReadTouchesNothing) {
  ClusterUnderTest& cluster = ClusterUnderTest::get();
  ExchangeClient& exchange = cluster.exchange();
  cluster.need_pool("one");
  auto impatient = cluster.connect_impatient();
  ObjclassProvider provider(*impatient, exchange, small_limits());
  ExtentStore& store = **provider.open(fresh_location("one"));
  const Sample sample = sample_of_parts(3, 50);
  ASSERT_TRUE(put(store, "e1", sample));
  auto reader = store.open("e1", {});
  ASSERT_TRUE(reader);
  const auto buffer = exchange.send_half().first(16 * kKiB);
  const std::uint64_t refused = exchange.counters().stale_refused;
  {
    const Stopped hung(ClusterUnderTest::pid_of("osd.0"));
    EXPECT_EQ(code_of((*reader)->read(0, buffer)), "DEADLINE_EXCEEDED");
    std::ranges::fill(buffer, std::byte{0x5a});
  }
  EXPECT_TRUE(refuses_one_more(exchange, refused));
  EXPECT_TRUE(std::ranges::all_of(buffer, [](std::byte b) { return b == std::byte{0x5a}; }));
  EXPECT_EQ(code_of((*reader)->read(0, buffer)), "OK");
  EXPECT_TRUE(std::equal(buffer.begin(), buffer.end(), sample.bytes.begin()));
}

TEST(OneOsdObjclass, ALateWriteWritesNothing) {
  ClusterUnderTest& cluster = ClusterUnderTest::get();
  ExchangeClient& exchange = cluster.exchange();
  cluster.need_pool("one");
  auto impatient = cluster.connect_impatient();
  ObjclassProvider provider(*impatient, exchange, small_limits());
  ExtentStore& store = **provider.open(fresh_location("one"));
  BeginOptions options;
  options.private_id = new_private_id();
  auto scratch = store.begin("e1", options);
  ASSERT_TRUE(scratch);
  const auto buffer = exchange.receive_half().first(16 * kKiB);
  const std::uint64_t refused = exchange.counters().stale_refused;
  {
    const Stopped hung(ClusterUnderTest::pid_of("osd.0"));
    EXPECT_EQ(code_of((*scratch)->write(0, buffer)), "DEADLINE_EXCEEDED");
  }
  EXPECT_TRUE(refuses_one_more(exchange, refused));
  EXPECT_EQ(cluster.objects_of(store.location(), "e1").size(), 1u);  // the head
  // The attempt cannot know that: its trash entry stays for a collector, who looks again.
  EXPECT_EQ(code_of((*scratch)->abort()), "OK");
  EXPECT_EQ(cluster.objects_of(store.location(), "e1").size(), 1u);
  EXPECT_EQ(code_of(store.collect("e1", options.private_id)), "OK");
  EXPECT_TRUE(cluster.objects_of(store.location(), "e1").empty());
}

TEST(OneOsdRados, SilentMonsAndOsdsAreADeadline) {
  ClusterUnderTest& cluster = ClusterUnderTest::get();
  cluster.need_pool("one");
  auto impatient = cluster.connect_impatient();
  RadosProvider provider(*impatient, small_limits());
  ExtentStore& store = **provider.open(fresh_location("one"));
  ASSERT_EQ(code_of(store.stat("e1")), "NOT_FOUND");
  {
    const Stopped hung(ClusterUnderTest::pid_of("mon.a"));
    EXPECT_EQ(code_of(store.stat("e1")), "NOT_FOUND");  // needs no mon
    EXPECT_EQ(code_of(store.check_ready(true)), "DEADLINE_EXCEEDED");
    EXPECT_EQ(code_of(provider.pool_id("nowhere")), "DEADLINE_EXCEEDED");
  }
  {
    const Stopped hung(ClusterUnderTest::pid_of("osd.0"));
    EXPECT_EQ(code_of(store.stat("e1")), "DEADLINE_EXCEEDED");
    EXPECT_EQ(code_of(store.list("", 10, Listing::kExtents)), "DEADLINE_EXCEEDED");
    BeginOptions options;
    options.private_id = new_private_id();
    EXPECT_EQ(code_of(store.begin("e1", options)), "DEADLINE_EXCEEDED");
    EXPECT_EQ(code_of(impatient->hello({"one", ""}, "e1")), "DEADLINE_EXCEEDED");
  }
  EXPECT_EQ(code_of(store.check_ready(true)), "OK");
}

// A listing passes over what does not answer, says so, and shows the rest.
TEST(ThreeOsdsRados, GroupsThatDoNotAnswerAreToldAndTheRestIsListed) {
  ClusterUnderTest& cluster = ClusterUnderTest::get();
  cluster.need_pool("three");
  auto impatient = cluster.connect_impatient();
  RadosProvider provider(*impatient, small_limits());
  ExtentStore& store = **provider.open(fresh_location("three"));
  std::set<std::string> all;
  for (int i = 0; i < 40; ++i) {
    const std::string name = "e" + std::to_string(i);
    const Sample sample = make_sample(100, i);
    ASSERT_TRUE(store.put_inline(name, new_private_id(), sample.bytes, sample.header));
    all.insert(name);
  }
  const auto readable = [&] {
    return std::ranges::all_of(
        all, [&](const std::string& name) { return code_of(store.stat(name)) == "OK"; });
  };
  // Silent for longer than its peers' patience, it would be marked down and nothing would be
  // silent.
  const OsdFlag nodown(cluster, "nodown");
  for (const Listing listing : {Listing::kExtents, Listing::kNames}) {
    for (int tries = 0; tries < 30 && !readable(); ++tries) {  // each costs the silence it meets
    }
    ASSERT_TRUE(readable());
    const Stopped hung(ClusterUnderTest::pid_of("osd.0"));
    std::set<std::string> listed;
    std::string unlisted;
    std::string cursor;
    do {
      auto page = store.list(cursor, 100, listing);
      ASSERT_TRUE(page) << page.error().message;
      EXPECT_EQ(page->errors.size(), 0u);
      listed.insert(page->names.begin(), page->names.end());
      for (const Error& error : page->unlisted) unlisted += error.message + "\n";
      cursor = page->next_cursor;
    } while (!cursor.empty());
    EXPECT_NE(unlisted, "");
    EXPECT_GT(listed.size(), 0u);
    EXPECT_LT(listed.size(), all.size());
    // A replica that is silent for 0.8 of osd_heartbeat_grace (16 s) stops the reads of its groups
    // as well, and listing goes on: two of the silent ones, a second each, must do.
    int silent = 0;
    for (const std::string& name : all) {
      if (listed.contains(name)) {
        EXPECT_EQ(code_of(store.stat(name)), "OK") << name;
        continue;
      }
      const std::string group = cluster.group_of(store.location(), name);
      EXPECT_NE(unlisted.find("placement group " + group + " does not"), unlisted.npos)
          << name << " is in " << group << "; told was: " << unlisted;
      if (++silent <= 2) {
        EXPECT_EQ(code_of(store.stat(name)), "DEADLINE_EXCEEDED") << name;
      }
    }
  }
}

// Also where the number of groups is no power of two: some of them have two shares.
TEST(OneOsdRados, AShareOfAListingHoldsTheGroupThatItIsCalledBy) {
  ClusterUnderTest& cluster = ClusterUnderTest::get();
  for (const auto& [pool, count] : {std::pair<const char*, std::uint32_t>{"eight", 8},
                                    std::pair<const char*, std::uint32_t>{"eleven", 11}}) {
    cluster.need_pool(pool, {}, static_cast<int>(count));
    librados::IoCtx io = cluster.context({pool, ""}, "");
    const rados_internal::PoolGroups groups(io);
    EXPECT_EQ(groups.count, count);
    for (int i = 0; i < 100; ++i) ASSERT_EQ(io.create("o" + std::to_string(i), true), 0);
    std::size_t seen = 0;
    for (std::size_t share = 0; share < groups.shares(); ++share) {
      librados::ObjectCursor from, to, next;
      io.object_list_slice(io.object_list_begin(), io.object_list_end(), share, groups.shares(),
                           &from, &to);
      std::vector<librados::ObjectItem> objects;
      ASSERT_GE(io.object_list(from, to, 1000, {}, &objects, &next), 0);
      seen += objects.size();
      for (const librados::ObjectItem& object : objects) {
        EXPECT_EQ(groups.of_share(share), cluster.group_of({pool, ""}, object.oid)) << object.oid;
      }
    }
    EXPECT_EQ(seen, 100u);
  }
}

// One head that cannot be read is listed with what is wrong with it, and takes nobody along.
TEST(OneOsdRados, AHeadThatDoesNotDecodeIsListedWithItsError) {
  ClusterUnderTest& cluster = ClusterUnderTest::get();
  cluster.need_pool("one");
  RadosProvider provider(cluster.connection(), small_limits());
  ExtentStore& store = **provider.open(fresh_location("one"));
  for (const char* name : {"good", "bad"}) {
    const Sample sample = make_sample(100, 1);
    ASSERT_TRUE(store.put_inline(name, new_private_id(), sample.bytes, sample.header));
  }
  librados::bufferlist garbage;
  garbage.append("garbage");
  librados::IoCtx io = cluster.context(store.location(), "bad");
  ASSERT_EQ(io.setxattr("siphon.bad", kHeadXattr, garbage), 0);
  librados::IoCtx odd = cluster.context(store.location(), "odd/name");
  ASSERT_EQ(odd.write_full("siphon.odd/name", garbage), 0);  // no extent can be called that
  auto page = store.list("", 10, Listing::kExtents);
  ASSERT_TRUE(page) << page.error().message;
  ASSERT_EQ(page->names.size(), 2u);
  ASSERT_EQ(page->errors.size(), 1u);
  const auto& [index, error] = *page->errors.begin();
  EXPECT_EQ(page->names[index], "bad");
  EXPECT_EQ(page->infos[index].state, ExtentState::kNone);
  EXPECT_EQ(page->infos[1 - index].state, ExtentState::kSealed);
  EXPECT_NE(error.message.find("bad"), std::string::npos) << error.message;
  EXPECT_EQ(store.list("", 10, Listing::kNames)->names.size(), 2u);
}

TEST(OneOsdServices, HelloTellsWhatTheCompanionPublished) {
  ClusterUnderTest& cluster = ClusterUnderTest::get();
  cluster.need_pool("one");
  exchange::Hello hello;
  hello.control_port = 7777;
  hello.osd_id = 0;
  hello.boot_nonce = cluster.exchange().boot_nonce();
  auto silent = cluster.connection().hello({"one", ""}, "any");
  EXPECT_EQ(code_of(silent), "UNAVAILABLE");
  cluster.exchange().publish_hello(hello);
  auto answer = cluster.connection().hello({"one", ""}, "any");
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->control_port, 7777);
  EXPECT_EQ(answer->boot_nonce, hello.boot_nonce);
  EXPECT_EQ(code_of(cluster.connection().hello({"nowhere", ""}, "any")), "NOT_FOUND");
  EXPECT_TRUE(cluster.objects_of({"one", ""}, "any").empty());  // nothing was written
}

TEST(OneOsdServices, GrantsFollowTheCapsOfTheKey) {
  ClusterUnderTest& cluster = ClusterUnderTest::get();
  cluster.need_pool("one");
  cluster.need_pool("two");
  const std::string printed = cluster.command(
      R"({"prefix": "auth get-or-create", "entity": "client.reader", "caps": ["mon", "allow r",
          "osd", "allow class siphon hello, allow class siphon grant_read pool=one"]})");
  const std::size_t at = printed.find("key = ") + 6;
  auto reader =
      cluster.connect_as("client.reader", printed.substr(at, printed.find('\n', at) - at));

  std::array<std::byte, 16> nonce;
  fill_random(nonce);
  const Location one{"one", "space"}, two{"two", ""};
  const std::int64_t one_id = *cluster.connection().pool_id("one");
  const std::int64_t two_id = *cluster.connection().pool_id("two");
  ExchangeClient& exchange = cluster.exchange();
  using exchange::Right;
  // What the OSD's companion does, which is none here. The first grant waits for it.
  EXPECT_EQ(exchange.layout(), exchange::LayoutState::kUnproven);
  auto prober = Ticker::start(Side::kNone, std::chrono::milliseconds(20), [&] {
    return probe_layout_if_wanted(exchange, cluster.connection());
  });
  ASSERT_TRUE(prober) << prober.error().message;
  Status granted = reader->grant(one, "e1", Right::kRead, nonce, std::chrono::seconds(60));
  EXPECT_TRUE(granted) << granted.error().message;
  EXPECT_EQ(exchange.layout(), exchange::LayoutState::kFits);
  Status refused = reader->grant(one, "e1", Right::kWrite, nonce, std::chrono::seconds(60));
  ASSERT_EQ(code_of(refused), "PERMISSION_DENIED");
  EXPECT_NE(refused.error().message.find("allow class siphon grant_write pool=one"),
            std::string::npos);
  EXPECT_EQ(code_of(reader->grant(two, "e1", Right::kRead, nonce, std::chrono::seconds(60))),
            "PERMISSION_DENIED");

  EXPECT_TRUE(exchange.allows(nonce, Right::kRead, one_id, "space"));
  EXPECT_FALSE(exchange.allows(nonce, Right::kRead, one_id, ""));
  EXPECT_FALSE(exchange.allows(nonce, Right::kWrite, one_id, "space"));
  EXPECT_FALSE(exchange.allows(nonce, Right::kRead, two_id, ""));
  // One nonce may show several rights.
  ASSERT_TRUE(
      cluster.connection().grant(two, "e1", Right::kWrite, nonce, std::chrono::seconds(60)));
  EXPECT_EQ(exchange.find_grants(nonce).size(), 2u);
  std::array<std::byte, 16> other = nonce;
  other[15] ^= std::byte{1};
  EXPECT_TRUE(exchange.find_grants(other).empty());
}

TEST(OneOsdRados, APoolWithoutTheTagIsRefusedByName) {
  ClusterUnderTest& cluster = ClusterUnderTest::get();
  cluster.command(R"({"prefix": "osd pool create", "pg_num": 1, "pool": "untagged"})");
  auto store = rados_provider()->open({"untagged", ""});
  ASSERT_TRUE(store) << store.error().message;
  Status ready = (*store)->check_ready(false);
  ASSERT_EQ(code_of(ready), "FAILED_PRECONDITION");
  EXPECT_EQ(ready.error().next_step, "ceph osd pool application enable untagged siphon");
  cluster.command(
      R"({"prefix": "osd pool application enable", "app": "siphon", "pool": "untagged"})");
  EXPECT_EQ(code_of((*store)->check_ready(true)), "OK");  // seen at once
  EXPECT_EQ(code_of(rados_provider()->open({"nowhere", ""})), "NOT_FOUND");
}

// A full pool answers at once, and lets an attempt be taken away.
void fill_up(StoreProvider& provider, const std::string& pool) {
  ClusterUnderTest& cluster = ClusterUnderTest::get();
  ExtentStore& store = open_store(provider, pool);
  const Sample sample = sample_of_parts(4, 9);
  BeginOptions options;
  options.extent_bytes = sample.bytes.size();
  options.private_id = new_private_id();
  auto scratch = store.begin("e1", options);
  ASSERT_TRUE(scratch);
  ASSERT_TRUE(write_range(**scratch, store.limits(), 0,
                          std::span(sample.bytes).first(small_limits().part_bytes)));
  cluster.command(R"({"prefix": "osd pool set-quota", "field": "max_objects", "val": "1",
                      "pool": ")" +
                  pool + "\"}");
  const auto give_up_at = deadline_in(std::chrono::seconds(60));
  while (code_of(store.check_ready(true)) == "OK") {
    ASSERT_LT(std::chrono::steady_clock::now(), give_up_at) << "the quota has no effect";
  }
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_EQ(code_of(write_range(**scratch, store.limits(), small_limits().part_bytes,
                                std::span(sample.bytes).subspan(small_limits().part_bytes))),
            "RESOURCE_EXHAUSTED");
  options.private_id = new_private_id();
  EXPECT_EQ(code_of(store.begin("e2", options)), "RESOURCE_EXHAUSTED");
  const Sample small = make_sample(5000, 10);
  EXPECT_EQ(code_of(store.put_inline("e3", new_private_id(), small.bytes, small.header)),
            "RESOURCE_EXHAUSTED");
  EXPECT_EQ(code_of((*scratch)->abort()), "OK");
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(5));
  EXPECT_TRUE(cluster.objects_of(store.location(), "e1").empty());
}

TEST(OneOsdRados, AFullPoolAnswersAtOnce) { fill_up(*rados_provider(), "full-a"); }
TEST(OneOsdObjclass, AFullPoolAnswersAtOnce) { fill_up(*bounced_provider(), "full-b"); }

TEST(ThreeOsdsObjclass, PrimariesElsewhereAreServedAndCounted) {
  ExtentStore& store = open_store(*bounced_provider(), "three");
  ExchangeClient& exchange = ClusterUnderTest::get().exchange();
  const std::uint64_t done_before = exchange.counters().writes_done;
  for (int i = 0; i < 16; ++i) {
    const std::string name = "e" + std::to_string(i);
    const Sample sample = sample_of_parts(3, 20 + static_cast<std::uint64_t>(i));
    ASSERT_TRUE(put(store, name, sample));
    expect_holds(store, name, sample);
  }
  EXPECT_GT(store.counters().fallback_parts, 0u);
  EXPECT_GT(exchange.counters().writes_done, done_before);
}

TEST(ThreeOsdsRados, AnErasurePoolWithoutOverwritesTakesWholeParts) {
  ClusterUnderTest::get().need_erasure_pool("whole", false);
  for (StoreProvider* provider : {rados_provider().get(), bounced_provider().get()}) {
    auto store = provider->open(fresh_location("whole"));
    ASSERT_TRUE(store) << store.error().message;
    EXPECT_EQ((*store)->limits().operation_bytes, (*store)->limits().part_bytes);
    const Sample sample = sample_of_parts(7, 40);
    ASSERT_TRUE(put(**store, "e1", sample));
    expect_holds(**store, "e1", sample);
    BeginOptions options;
    options.private_id = new_private_id();
    auto scratch = (*store)->begin("e2", options);
    ASSERT_TRUE(scratch);
    const auto piece = std::span(sample.bytes).first(30'001);
    ASSERT_TRUE((*scratch)->write(0, piece));
    EXPECT_EQ(code_of((*scratch)->write(30'001, piece)), "FAILED_PRECONDITION");
    EXPECT_TRUE((*scratch)->abort());
  }
}

}  // namespace
}  // namespace siphon::contract

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  siphon::contract::ClusterUnderTest::get();
  return RUN_ALL_TESTS();
}
