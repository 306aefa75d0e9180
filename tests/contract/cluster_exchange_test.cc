// What goes through the region of the OSD next door, what does not, and what stands in it.
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "adapters/objclass/layout_probe.h"
#include "adapters/rados/parts.h"
#include "plugin/base/ticker.h"
#include "tests/contract/cluster_stores.h"

namespace siphon::contract {
namespace {

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

}  // namespace
}  // namespace siphon::contract
