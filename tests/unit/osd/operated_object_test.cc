// Reading the object, pool and namespace out of an OSD's operation: the right layout is read, any
// other is refused. What the layout of the real OSD is, only the cluster test can tell.
#include "plugin/osd/operated_object.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "tests/support/fake_operation.h"

namespace siphon::osd {
namespace {

using test::FakeObject;
using test::FakeOperation;

class OperatedObjectTest : public testing::Test {
 protected:
  OperatedObjectTest() {
    operation_.op = &operation_;
    operation_.ops = &operation_;
    operation_.obs = &object_;
    pointer_ = &operation_;
  }
  bool find() { return find_operated_object(&pointer_, found_); }

  FakeObject object_;
  FakeOperation operation_{};
  FakeOperation* pointer_;
  OperatedObject found_;
};

TEST_F(OperatedObjectTest, ReadsNamePoolAndNamespace) {
  ASSERT_TRUE(find());
  EXPECT_EQ(found_.name, object_.name);
  EXPECT_EQ(found_.nspace, "n");
  EXPECT_EQ(found_.pool_id, 42);
}

TEST_F(OperatedObjectTest, ReadsShortAndLongStrings) {
  for (const std::size_t length : {0u, 1u, 15u, 16u, 127u, 2048u}) {
    object_.nspace = operation_.new_obs.nspace = std::string(length, 'x');
    ASSERT_TRUE(find()) << length;
    EXPECT_EQ(found_.nspace, object_.nspace);
  }
}

TEST_F(OperatedObjectTest, RefusesPointersThatCannotBe) {
  for (const std::uintptr_t bad :
       {std::uintptr_t{0}, std::uintptr_t{8}, std::uintptr_t{0x1001},
        reinterpret_cast<std::uintptr_t>(&object_) + 1, ~std::uintptr_t{7}}) {
    EXPECT_FALSE(find_operated_object(reinterpret_cast<void*>(bad), found_));
    pointer_ = reinterpret_cast<FakeOperation*>(bad);
    EXPECT_FALSE(find());
    pointer_ = &operation_;
    operation_.obs = reinterpret_cast<FakeObject*>(bad);
    EXPECT_FALSE(find());
    operation_.obs = &object_;
  }
  EXPECT_TRUE(find());
}

TEST_F(OperatedObjectTest, RefusesWhatDoesNotFitTogether) {
  const auto refuse = [&](const char* what, auto change) {
    const FakeObject before = object_;
    change(object_);
    EXPECT_FALSE(find()) << what;
    object_ = before;
    EXPECT_TRUE(find()) << what;
  };
  refuse("hash", [](FakeObject& o) { o.hash ^= 1; });
  refuse("bits", [](FakeObject& o) { o.bits ^= 1; });
  refuse("nibbles", [](FakeObject& o) { o.nibbles ^= 1; });
  refuse("max", [](FakeObject& o) { o.max = true; });
  refuse("pool below zero", [](FakeObject& o) { o.pool = -1; });
  refuse("pool unlike the copy's", [](FakeObject& o) { o.pool = 43; });
  refuse("namespace unlike the copy's", [](FakeObject& o) { o.nspace = "m"; });
  refuse("name unlike the copy's", [](FakeObject& o) { o.name.back() = 'e'; });
  refuse("a name no OSD has", [](FakeObject& o) { o.name = std::string(5000, 'x'); });
}

TEST_F(OperatedObjectTest, AShiftedLayoutIsRefused) {
  // As if a field had been added or dropped before the object: every shift of up to eight words.
  std::vector<std::byte> memory(sizeof(FakeObject) + 128);
  for (std::size_t shift = 8; shift <= 64; shift += 8) {
    std::memset(memory.data(), 0, memory.size());
    std::memcpy(memory.data() + shift, static_cast<const void*>(&object_), sizeof object_);
    operation_.obs = reinterpret_cast<FakeObject*>(memory.data());
    EXPECT_FALSE(find()) << shift;
  }
}

}  // namespace
}  // namespace siphon::osd
