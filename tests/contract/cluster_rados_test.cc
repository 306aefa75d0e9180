// What only RADOS has: parts that are gone, groups that do not answer, pools that are full.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "adapters/rados/object_io.h"
#include "adapters/rados/parts.h"
#include "adapters/rados/rados_store.h"
#include "tests/contract/cluster_stores.h"

namespace siphon::contract {
namespace {

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
