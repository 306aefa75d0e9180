// What caps allow, as `siphon doctor` reads them.
#include "plugin/cli/doctor/caps.h"

#include <gtest/gtest.h>

namespace siphon::cli::doctor {
namespace {

PoolState pool(const std::string& name, bool tagged = true) {
  PoolState state{1, name, {}};
  if (tagged) state.applications["siphon"] = {{"tier", "cold"}};
  return state;
}

PoolRights rights(const std::string& caps, const std::string& name = "A", bool tagged = true) {
  return rights_in(parse_osd_caps(caps), pool(name, tagged));
}

TEST(DoctorCaps, AdministratorsMayEverything) {
  for (const char* caps : {"allow *", "allow all", " allow  * ", "allow * pool=A"}) {
    EXPECT_EQ(rights(caps), (PoolRights{true, true, true, true, true, true})) << caps;
  }
  EXPECT_EQ(rights("allow * pool=B"), PoolRights{});
  EXPECT_EQ(rights(""), PoolRights{});
}

TEST(DoctorCaps, ReadAndWriteAreNoMethods) {
  EXPECT_EQ(rights("allow rwx"), (PoolRights{.read = true, .write = true}));
  EXPECT_EQ(rights("allow r pool=A, allow w pool=B"), (PoolRights{.read = true}));
  EXPECT_EQ(rights("allow pool A rw"), (PoolRights{.read = true, .write = true}));
  EXPECT_EQ(rights("allow r class-read pool = \"A\""), (PoolRights{.read = true}));
}

TEST(DoctorCaps, MethodsPoolByPool) {
  const std::string mover =
      "allow class siphon hello, allow class siphon grant_read pool=A; "
      "allow class siphon grant_write pool=B";
  EXPECT_EQ(rights(mover, "A"), (PoolRights{.hello = true, .grant_read = true}));
  EXPECT_EQ(rights(mover, "B"), (PoolRights{.hello = true, .grant_write = true}));
  EXPECT_EQ(rights(mover, "C"), (PoolRights{.hello = true}));
  EXPECT_EQ(rights("allow class rbd grant_read"), PoolRights{});
  EXPECT_EQ(
      rights("allow class siphon pool=A"),
      (PoolRights{.hello = true, .grant_read = true, .grant_write = true, .lifecycle = true}));
}

TEST(DoctorCaps, TagsAreThoseOfThePool) {
  EXPECT_TRUE(rights("allow r tag siphon *=*").read);
  EXPECT_TRUE(rights("allow r tag siphon tier=cold").read);
  EXPECT_TRUE(rights("allow r tag siphon * = cold").read);
  EXPECT_FALSE(rights("allow r tag siphon tier=hot").read);
  EXPECT_FALSE(rights("allow r tag rbd *=*").read);
  EXPECT_FALSE(rights("allow r tag siphon *=*", "A", false).read);
}

// A part of a pool is not the pool.
TEST(DoctorCaps, WhatIsLimitedFurtherAllowsNothingHere) {
  for (const char* caps :
       {"allow rw pool=A namespace=x", "allow rw object_prefix foo", "allow rw network 10.0.0.0/8",
        "allow class siphon grant_read namespace=x"}) {
    EXPECT_EQ(rights(caps), PoolRights{}) << caps;
    EXPECT_TRUE(parse_osd_caps(caps).not_understood.empty()) << caps;
  }
  EXPECT_TRUE(rights("allow r namespace=*").read);
}

TEST(DoctorCaps, WhatIsNotUnderstoodIsNamedAndAllowsNothing) {
  const OsdCaps caps = parse_osd_caps("profile rbd pool=A, allow r pool=A, allow rwz");
  EXPECT_EQ(caps.not_understood, (std::vector<std::string>{"profile rbd pool = A", "allow rwz"}));
  EXPECT_EQ(rights_in(caps, pool("A")), (PoolRights{.read = true}));
  for (const char* text : {"allow", "allow pool", "allow tag siphon x", "allow class", "'",
                           "=,=", "allow r pool='unended"}) {
    (void)parse_osd_caps(text);  // ends
  }
}

TEST(DoctorCaps, OfMons) {
  for (const char* caps : {"allow r", "allow *", "allow rw", "profile rbd", "allow profile osd"}) {
    EXPECT_TRUE(mon_cap_reads(caps)) << caps;
  }
  for (const char* caps : {"", "allow w", "allow command \"osd dump\"", "r"}) {
    EXPECT_FALSE(mon_cap_reads(caps)) << caps;
  }
}

// README.md, "The least rights": each row of its table is enough for its verb, and nothing less.
TEST(DoctorCaps, TheTableOfLeastRightsIsEnoughAndNeeded) {
  struct Row {
    const char* verb;
    std::vector<std::string> source, target;  // caps
  };
  const std::string hello = "allow class siphon hello";
  const auto grant = [](const std::string& right, const std::string& of) {
    return "allow class siphon grant_" + right + " pool=" + of;
  };
  const std::vector<Row> rows = {
      {"copy", {hello, grant("read", "A")}, {hello, grant("write", "B")}},
      {"move",
       {hello, grant("read", "A"), "allow rw pool=A"},
       {hello, grant("read", "B"), grant("write", "B")}},
      {"verify", {hello, grant("read", "A")}, {}},
      {"get", {"allow r pool=A"}, {}},
      {"put", {"allow rw pool=A"}, {}},
      {"daemons", {hello}, {}},
      {"transfers", {hello, grant("write", "A")}, {}},
      {"cancel", {hello, grant("write", "A")}, {}},
  };
  for (const Row& row : rows) {
    const VerbNeeds* needs = needs_of(row.verb);
    ASSERT_NE(needs, nullptr) << row.verb;
    EXPECT_EQ(needs->target.any(), !row.target.empty()) << row.verb;
    EXPECT_EQ(missing_caps(needs->source, {}, "A"), row.source) << row.verb;
    EXPECT_EQ(missing_caps(needs->target, {}, "B"), row.target) << row.verb;
    for (const auto& [caps, end, name] : {std::tuple(&row.source, &needs->source, "A"),
                                          std::tuple(&row.target, &needs->target, "B")}) {
      std::string all;
      for (const std::string& cap : *caps) all += (all.empty() ? "" : ", ") + cap;
      EXPECT_TRUE(missing_caps(*end, rights(all, name), name).empty()) << row.verb << ": " << all;
    }
  }
  EXPECT_EQ(needs_of("config"), nullptr);
  EXPECT_TRUE(missing_caps(needs_of("transfers")->source, {.hello = true, .grant_read = true}, "A")
                  .empty());
}

TEST(DoctorCaps, TheTypeOfAKeyIsItsFirstTwoBytes) {
  EXPECT_EQ(key_type("AQBjYWJjAAAAABAAjmRfHE0ZPwZyQ1p7rUnJkg=="), 1);
  EXPECT_EQ(key_type("AgBjYWJj"), 2);
  EXPECT_EQ(key_type(""), std::nullopt);
  EXPECT_EQ(key_type("????"), std::nullopt);
}

}  // namespace
}  // namespace siphon::cli::doctor
