// What the memory adapter adds for tests: pools and faults.
#include "adapters/memory/memory_store.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace siphon {
namespace {

TEST(MemoryProvider, KnowsItsPoolsOnly) {
  MemoryProvider provider({"a", "b"});
  EXPECT_EQ(provider.pool_id("a").value_or(-1), 1);
  EXPECT_EQ(provider.pool_id("b").value_or(-1), 2);
  auto missing = provider.open({"c", ""});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Code::kNotFound);
  auto first = provider.open({"a", ""}), again = provider.open({"a", ""}),
       other = provider.open({"a", "space"});
  ASSERT_TRUE(first && again && other);
  EXPECT_EQ(*first, *again);
  EXPECT_NE(*first, *other);
}

TEST(MemoryProvider, AFaultHappensBeforeTheOperation) {
  MemoryProvider provider;
  auto opened = provider.open({});
  ASSERT_TRUE(opened);
  ExtentStore& store = **opened;
  std::vector<std::string> seen;
  provider.set_fault_hook([&](const MemoryOperation& operation) -> Status {
    seen.emplace_back(operation.operation);
    if (operation.operation == "write" && operation.offset_bytes == 4) {
      return fail(Code::kUnavailable, "injected");
    }
    return {};
  });
  BeginOptions options;
  options.private_id = new_private_id();
  auto scratch = store.begin("e1", options);
  ASSERT_TRUE(scratch);
  const std::vector<std::byte> four(4, std::byte{1});
  EXPECT_TRUE((*scratch)->write(0, four));
  Status failed = (*scratch)->write(4, four);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Code::kUnavailable);
  EXPECT_TRUE((*scratch)->publish({}, false, ExtentState::kOpen));
  auto reader = store.open("e1", {}, true);
  ASSERT_TRUE(reader);
  EXPECT_EQ((*reader)->info().header.extent_bytes, 4u);
  EXPECT_EQ(seen, (std::vector<std::string>{"begin", "write", "write", "publish", "publish done",
                                            "open"}));
}

}  // namespace
}  // namespace siphon
