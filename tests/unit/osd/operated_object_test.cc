// Reading the object, pool and namespace out of an OSD's operation: the right layout is read, any
// other is refused or reads something else, and memory that is not there harms nobody. What the
// layout of the real OSD is, only the cluster test can tell.
#include "plugin/osd/operated_object.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

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
  bool find() { return find_operated_object(layout_, &pointer_, found_); }

  OperationLayout layout_ = verified_layouts().front().operation;
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
    EXPECT_FALSE(find_operated_object(layout_, reinterpret_cast<void*>(bad), found_));
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

TEST_F(OperatedObjectTest, MemoryThatIsNotThereIsRefusedAndHarmsNobody) {
  // Pages that were here, and one that may not be read.
  const std::size_t page = 4096;
  void* mapped =
      mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(mapped, MAP_FAILED);
  ASSERT_EQ(mprotect(mapped, page, PROT_NONE), 0);
  auto* const gone = static_cast<std::byte*>(mapped) + page;
  ASSERT_EQ(munmap(gone, page), 0);
  for (void* bad : {mapped, static_cast<void*>(gone)}) {
    EXPECT_FALSE(find_operated_object(layout_, bad, found_));
    pointer_ = static_cast<FakeOperation*>(bad);
    EXPECT_FALSE(find());
    pointer_ = &operation_;
    operation_.obs = static_cast<FakeObject*>(bad);
    EXPECT_FALSE(find());
    operation_.obs = &object_;
    // A name that is said to be long, and is not there.
    void* const name = &object_.name;
    void* start = nullptr;  // the name's, which may lie in the object itself
    std::memcpy(&start, name, sizeof start);
    std::memcpy(name, &bad, sizeof bad);
    EXPECT_FALSE(find());
    std::memcpy(name, &start, sizeof start);
  }
  munmap(mapped, page);
}

TEST_F(OperatedObjectTest, ARowThatIsWrongReadsWrong) {
  const OperationLayout right = layout_;
  const auto refused = [&](auto change) {
    layout_ = right;
    change(layout_);
    const bool found = find();
    layout_ = right;
    return !found;
  };
  for (auto field :
       {&OperationLayout::op, &OperationLayout::ops, &OperationLayout::obs,
        &OperationLayout::new_obs, &OperationLayout::name, &OperationLayout::hash,
        &OperationLayout::max, &OperationLayout::hash_reverse_nibbles,
        &OperationLayout::hash_reverse_bits, &OperationLayout::pool, &OperationLayout::nspace}) {
    EXPECT_TRUE(refused([field](OperationLayout& l) { l.*field = std::size_t{1} << 46; }));
  }
  // The length of the namespace may well be a pool's id. It is not refused here: a probe tells.
  layout_.pool = right.nspace + 8;
  ASSERT_TRUE(find());
  EXPECT_EQ(found_.pool_id, 1);
}

TEST(CephLayouts, ARowIsForOneReleaseByVersionAndCommit) {
  for (const CephLayout& row : verified_layouts()) {
    EXPECT_EQ(find_layout(row.version, row.commit), &row);
    EXPECT_EQ(std::string_view(row.commit).size(), 40u) << row.name;
    EXPECT_EQ(find_layout(row.version, std::string(40, '0')), nullptr);
    EXPECT_EQ(find_layout("0.0.0", row.commit), nullptr);
  }
  EXPECT_EQ(find_layout("", ""), nullptr);
}

}  // namespace
}  // namespace siphon::osd
