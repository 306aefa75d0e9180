// What a copy is going to do, as far as that is decided without asking anybody: which arguments go
// together, and which transfers the extents are sorted into.
#include "plugin/cli/copy_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

namespace siphon::cli {
namespace {

Options options_for(std::vector<std::string> names) {
  Options options;
  options.no_progress = true;
  options.secret_file = "/nonexistent/secret";  // so no device is asked
  options.names = std::move(names);
  return options;
}

Result<CopyPlan> planned(std::vector<std::string> names) {
  Session session(options_for(std::move(names)), "copy");
  return plan_copy(session, false);
}

Address at(const std::string& text) {
  auto address = parse_address(text, Want::kEither);
  EXPECT_TRUE(address) << text;
  return address ? *address : Address{};
}

CopyItem item_for(const std::string& source, const std::string& target, std::uint64_t bytes = 0) {
  CopyItem item;
  item.source = at(source);
  item.target = at(target);
  item.said_bytes = bytes;
  return item;
}

// ---- the arguments ---------------------------------------------------------------------------

TEST(CopyPlanTest, ArgumentsThatContradictEachOtherAreRefused) {
  struct Case {
    std::vector<std::string> names;
    std::string said;
  };
  const Case cases[] = {
      {{"127.0.0.1:1/a"}, "needs a source and a target"},
      {{"posix:/srv/a/e", "127.0.0.1:1/"}, "a folder without a daemon"},
      {{"127.0.0.1:1/e", "posix:/srv/a/"}, "a folder without a daemon"},
      {{"127.0.0.1:1/", "127.0.0.1:2/"}, "does not list its extents"},
      {{"p1", "127.0.0.1:2/e"}, "many extents cannot become the one 127.0.0.1:2/e"},
      {{"127.0.0.1:1/a", "127.0.0.1:1/b", "127.0.0.1:2/c"},
       "many extents cannot become the one 127.0.0.1:2/c"},
      {{"127.0.0.1:1/a", "127.0.0.1:3/a", "127.0.0.1:2/"},
       "two sources would become 127.0.0.1:2/a"},
  };
  for (const Case& c : cases) {
    const auto plan = planned(c.names);
    ASSERT_FALSE(plan) << c.said;
    EXPECT_EQ(plan.error().code, Code::kInvalidArgument);
    EXPECT_NE(plan.error().message.find(c.said), std::string::npos) << plan.error().message;
    EXPECT_FALSE(plan.error().next_step.empty()) << c.said;
  }
}

TEST(CopyPlanTest, FromAFolderIntoAPoolItIsToldHowItGoes) {
  const auto plan = planned({"127.0.0.1:1/an extent", "p1/n/"});
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code, Code::kInvalidArgument);
  EXPECT_NE(plan.error().next_step.find("siphon get 'posix:DIR/an extent' - | siphon put "
                                        "'p1/n/an extent' -"),
            std::string::npos)
      << plan.error().next_step;
}

TEST(CopyPlanTest, NothingBecomesItself) {
  for (const char* target : {"127.0.0.1:1/a", "127.0.0.1:1/"}) {
    const auto plan = planned({"127.0.0.1:1/a", target});
    ASSERT_FALSE(plan) << target;
    EXPECT_EQ(plan.error().reason, Reason::kSameThing);
  }
  EXPECT_TRUE(planned({"127.0.0.1:1/a", "127.0.0.1:1/b"})) << "another name in the same place";
}

TEST(CopyPlanTest, ExtentsKeepTheirNamesInAStoreAndNobodyKnowsTheirSizes) {
  const auto plan = planned({"127.0.0.1:1/a", "127.0.0.1:1/b", "127.0.0.1:2/"});
  ASSERT_TRUE(plan) << plan.error().message;
  ASSERT_EQ(plan->items.size(), 2u);
  EXPECT_EQ(plan->items[0].target.to_string(), "127.0.0.1:2/a");
  EXPECT_EQ(plan->items[1].target.to_string(), "127.0.0.1:2/b");
  EXPECT_TRUE(plan->whole_sources.empty());
  for (const CopyItem& item : plan->items) {
    EXPECT_EQ(item.state, ItemState::kPending);
    EXPECT_FALSE(item.info);
  }
  EXPECT_EQ(pending_bytes(*plan), std::nullopt);
  EXPECT_EQ(plan->total_bytes, 0u);
  const auto renamed = planned({"127.0.0.1:1/a", "127.0.0.1:2/z"});
  ASSERT_TRUE(renamed);
  EXPECT_EQ(renamed->items.at(0).target.extent, "z");
}

// ---- sizes and states ------------------------------------------------------------------------

TEST(CopyPlanTest, OnlyWhatIsToComeCountsAndOnlyWhenAllOfItIsKnown) {
  CopyPlan plan;
  plan.items.push_back(item_for("127.0.0.1:1/a", "127.0.0.1:2/a", 100));
  plan.items.push_back(item_for("127.0.0.1:1/b", "127.0.0.1:2/b"));
  plan.items.back().info.emplace();
  plan.items.back().info->header.extent_bytes = 30;
  plan.items.push_back(item_for("127.0.0.1:1/c", "127.0.0.1:2/c", 5000));
  plan.items.back().state = ItemState::kAlreadyThere;
  EXPECT_EQ(pending_bytes(plan), 130u);
  plan.items.push_back(item_for("127.0.0.1:1/d", "127.0.0.1:2/d", 7));
  plan.items.back().source_problem =
      Error{Code::kDataLoss, "rot", Side::kSource, "", Reason::kNone};
  EXPECT_EQ(pending_bytes(plan), 130u) << "nothing of it will come";
  plan.items.push_back(item_for("127.0.0.1:1/e", "127.0.0.1:2/e"));
  EXPECT_EQ(pending_bytes(plan), std::nullopt);
}

TEST(CopyPlanTest, RefusedIsWhatWasKnownBeforeAnyTry) {
  CopyItem item = item_for("127.0.0.1:1/a", "127.0.0.1:2/a");
  EXPECT_FALSE(item.refused());
  item.fail_with({Code::kAlreadyExists, "it differs", Side::kTarget, "", Reason::kDiffers});
  EXPECT_TRUE(item.refused());
  item.attempts = 1;
  EXPECT_FALSE(item.refused());
  item.attempts = 0;
  item.fail_with({Code::kUnavailable, "no answer", Side::kNone, "", Reason::kNone});
  EXPECT_FALSE(item.refused());
}

TEST(CopyPlanTest, AReceiptSpeaksOfTheChecksumsOfThisRun) {
  CopyItem item = item_for("127.0.0.1:1/a", "127.0.0.1:2/a");
  EXPECT_TRUE(receipt_json(item).is_null());
  item.receipt.emplace();
  item.receipt->source_crc32 = item.receipt->target_crc32 = 0x11111111;
  EXPECT_EQ(receipt_json(item)["source_crc32"], "11111111");
  item.read_crc32 = {{0x22222222, 0x33333333}};
  EXPECT_EQ(receipt_json(item)["source_crc32"], "22222222");
  EXPECT_EQ(receipt_json(item)["target_crc32"], "33333333");
}

TEST(CopyPlanTest, TheCapsThatACopyNeedsAreToldPoolByPool) {
  const std::string both = caps_command("client.x", at("p1/a"), at("p2/a"));
  EXPECT_NE(both.find("ceph auth caps client.x mon 'allow r' osd '"), std::string::npos) << both;
  EXPECT_NE(both.find("grant_read pool=p1, allow r pool=p1"), std::string::npos) << both;
  EXPECT_NE(both.find("grant_write pool=p2, allow r pool=p2"), std::string::npos) << both;
  const std::string one = caps_command("client.x", at("p1/a"), at("127.0.0.1:2/a"));
  EXPECT_EQ(one.find("grant_write"), std::string::npos) << one;
}

// ---- transfers -------------------------------------------------------------------------------

class CopyRouterTest : public ::testing::Test {
 protected:
  void add(const std::string& source, const std::string& target, std::uint64_t bytes = 0) {
    plan_.items.push_back(item_for(source, target, bytes));
  }
  Session session_{options_for({}), "copy"};
  CopyRouter router_{session_};
  CopyPlan plan_;
};

TEST_F(CopyRouterTest, OneTransferIsOfOneSourceAndOneTarget) {
  add("127.0.0.1:1/a", "127.0.0.1:2/a");
  add("127.0.0.1:3/b", "127.0.0.1:2/b");
  add("127.0.0.1:1/c", "127.0.0.1:2/c");
  add("127.0.0.1:1/d", "127.0.0.1:4/d");
  const auto groups = router_.route(plan_);
  std::set<std::vector<std::size_t>> items;
  for (const CopyGroup& group : groups) {
    items.insert(group.items);
    EXPECT_EQ(group.number, 0u);
    for (const std::size_t i : group.items) {
      EXPECT_EQ(group.source.address, plan_.items[i].source.device);
      EXPECT_EQ(group.target.address, plan_.items[i].target.device);
      EXPECT_EQ(plan_.items[i].source_device, group.source);
    }
  }
  EXPECT_EQ(items, (std::set<std::vector<std::size_t>>{{0, 2}, {1}, {3}}));
}

TEST_F(CopyRouterTest, WhatIsNotPendingIsNotCopied) {
  for (const ItemState state : {ItemState::kCopied, ItemState::kAlreadyThere, ItemState::kFailed,
                                ItemState::kGoesOn, ItemState::kGone}) {
    add("127.0.0.1:1/" + std::to_string(static_cast<int>(state)), "127.0.0.1:2/x");
    plan_.items.back().state = state;
  }
  EXPECT_TRUE(router_.route(plan_).empty());
  add("127.0.0.1:1/e", "127.0.0.1:2/e");
  const auto groups = router_.route(plan_);
  ASSERT_EQ(groups.size(), 1u);
  EXPECT_EQ(groups[0].items, std::vector<std::size_t>{plan_.items.size() - 1});
}

TEST_F(CopyRouterTest, WhatTakesLongestBeginsFirst) {
  add("127.0.0.1:1/a", "127.0.0.1:2/a", 10);
  add("127.0.0.1:3/b", "127.0.0.1:2/b", 500);
  add("127.0.0.1:4/c", "127.0.0.1:2/c", 20);
  add("127.0.0.1:4/d", "127.0.0.1:2/d", 20);
  const auto groups = router_.route(plan_);
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_EQ(groups[0].items, std::vector<std::size_t>{1});
  EXPECT_EQ(groups[1].items, (std::vector<std::size_t>{2, 3}));
  EXPECT_EQ(groups[2].items, std::vector<std::size_t>{0});
}

TEST_F(CopyRouterTest, MoreExtentsThanATransferTakesAreSeveralNumberedOnes) {
  constexpr std::size_t kCount = 2 * kMaxExtentsPerTransfer + 5;
  for (std::size_t i = 0; i < kCount; ++i) {
    const std::string name = std::to_string(i);
    add("127.0.0.1:1/" + name, "127.0.0.1:2/" + name);
  }
  const auto groups = router_.route(plan_);
  ASSERT_EQ(groups.size(), 3u);
  std::set<std::size_t> items, numbers;
  for (const CopyGroup& group : groups) {
    EXPECT_LE(group.items.size(), kMaxExtentsPerTransfer);
    EXPECT_TRUE(std::ranges::is_sorted(group.items));
    items.insert(group.items.begin(), group.items.end());
    numbers.insert(group.number);
  }
  EXPECT_EQ(items.size(), kCount) << "each in one of them";
  EXPECT_EQ(numbers, (std::set<std::size_t>{0, 1, 2}));
  EXPECT_EQ(groups.back().items.size(), 5u);
}

}  // namespace
}  // namespace siphon::cli
