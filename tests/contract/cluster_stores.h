// The stores that the tests on a cluster are about: small parts, a namespace for each, and what
// they are filled with. Under with_cluster, see cluster_under_test.h.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "adapters/objclass/objclass_provider.h"
#include "adapters/rados/rados_provider.h"
#include "adapters/store_util.h"
#include "tests/contract/bounced_store.h"
#include "tests/contract/cluster_under_test.h"
#include "tests/contract/samples.h"

namespace siphon::contract {

inline StoreLimits small_limits() {
  StoreLimits limits;
  limits.part_bytes = 64 * kKiB;
  limits.operation_bytes = 48 * kKiB;  // does not divide a part
  limits.inline_max_bytes = 16 * kKiB;
  return limits;
}

// A namespace nobody has used.
inline Location fresh_location(const std::string& pool) {
  static int count = 0;
  return {pool, "t" + std::to_string(++count)};
}

// One provider of each kind for the whole program.
inline std::shared_ptr<StoreProvider> rados_provider() {
  static auto provider =
      std::make_shared<RadosProvider>(ClusterUnderTest::get().connection(), small_limits());
  return provider;
}
inline ObjclassProvider& objclass_provider() {
  static ObjclassProvider provider(ClusterUnderTest::get().connection(),
                                   ClusterUnderTest::get().exchange(), small_limits());
  return provider;
}
inline std::shared_ptr<StoreProvider> bounced_provider() {
  static auto provider =
      std::make_shared<BouncedProvider>(objclass_provider(), ClusterUnderTest::get().exchange());
  return provider;
}

inline ExtentStore& open_store(StoreProvider& provider, const std::string& pool) {
  ClusterUnderTest::get().need_pool(pool);
  auto store = provider.open(fresh_location(pool));
  EXPECT_TRUE(store) << store.error().message;
  return **store;
}

inline Status put(ExtentStore& store, const std::string& name, const Sample& sample) {
  BeginOptions options;
  options.extent_bytes = sample.bytes.size();
  options.private_id = new_private_id();
  auto scratch = store.begin(name, options);
  if (!scratch) return fail(scratch.error());
  SIPHON_TRY(write_range(**scratch, store.limits(), 0, sample.bytes));
  return (*scratch)->publish(sample.header, false, ExtentState::kSealed);
}

inline void expect_holds(ExtentStore& store, const std::string& name, const Sample& sample) {
  auto reader = store.open(name, {});
  ASSERT_TRUE(reader) << reader.error().message;
  Bytes back(sample.bytes.size());
  Status read = read_range(**reader, store.limits(), 0, back);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_TRUE(back == sample.bytes);
}

inline Sample sample_of_parts(std::size_t half_parts, std::uint64_t seed) {
  return make_sample(small_limits().part_bytes * half_parts / 2, seed);
}

}  // namespace siphon::contract
