// The contract suite over the RADOS adapters, on a real cluster.
//
// Run under with_cluster with the stand-in for siphond beside the plugin, so that the OSD's region
// belongs to this process. Two shapes, chosen by --gtest_filter:
//   OneOsd*      every primary is the OSD whose region is used: nothing may fall back
//   ThreeOsds*   two extents of three have their primary elsewhere: all must work all the same
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>

#include "adapters/rados/parts.h"
#include "tests/contract/cluster_stores.h"
#include "tests/contract/extent_store_contract.h"
#include "tests/contract/inline_extent_contract.h"

namespace siphon::contract {
namespace {

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

}  // namespace
}  // namespace siphon::contract

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  siphon::contract::ClusterUnderTest::get();
  return RUN_ALL_TESTS();
}
