// The addresses of the command line.
#include "plugin/cli/address.h"

#include <gtest/gtest.h>

namespace siphon::cli {
namespace {

Address parsed(const std::string& text, Want want) {
  auto address = parse_address(text, want);
  EXPECT_TRUE(address) << text << ": " << (address ? "" : address.error().message);
  return address.value_or(Address{});
}

void refused(const std::string& text, Want want) {
  auto address = parse_address(text, want);
  ASSERT_FALSE(address) << text;
  EXPECT_EQ(address.error().code, Code::kInvalidArgument) << text;
  EXPECT_FALSE(address.error().message.empty()) << text;
}

TEST(CliAddress, CephExtents) {
  const Address plain = parsed("p1/e1", Want::kExtent);
  EXPECT_EQ(plain.where, Where::kCeph);
  EXPECT_EQ(plain.location, (Location{"p1", ""}));
  EXPECT_EQ(plain.extent, "e1");
  EXPECT_EQ(plain.to_string(), "p1/e1");
  const Address spaced = parsed("p1/ns/e1", Want::kExtent);
  EXPECT_EQ(spaced.location, (Location{"p1", "ns"}));
  EXPECT_EQ(spaced.to_string(), "p1/ns/e1");
}

TEST(CliAddress, CephStores) {
  EXPECT_EQ(parsed("p1", Want::kStore).location, (Location{"p1", ""}));
  EXPECT_EQ(parsed("p1/", Want::kStore).location, (Location{"p1", ""}));
  EXPECT_EQ(parsed("p1/ns", Want::kStore).location, (Location{"p1", "ns"}));
  EXPECT_EQ(parsed("p1/ns/", Want::kEither).location, (Location{"p1", "ns"}));
  EXPECT_EQ(parsed("p1/ns", Want::kEither).extent, "ns");
  EXPECT_TRUE(parsed("p1", Want::kEither).extent.empty());
}

TEST(CliAddress, APrefixTellsAPoolFromADaemon) {
  EXPECT_EQ(parsed("10.0.0.1:7411/e1", Want::kExtent).where, Where::kDaemon);
  const Address pool = parsed("ceph:10.0.0.1:7411/e1", Want::kExtent);
  EXPECT_EQ(pool.where, Where::kCeph);
  EXPECT_EQ(pool.location.pool, "10.0.0.1:7411");
  EXPECT_EQ(parsed("a:b/e1", Want::kExtent).where, Where::kCeph);
  // A port that is none is a slip of the pen; a pool of such a name takes the prefix.
  refused("a:70000/e1", Want::kExtent);
  refused("a:0/e1", Want::kExtent);
  EXPECT_EQ(parsed("ceph:a:70000/e1", Want::kExtent).location.pool, "a:70000");
}

TEST(CliAddress, Daemons) {
  const Address one = parsed("127.0.0.1:7411/e1", Want::kExtent);
  EXPECT_EQ(one.device, "127.0.0.1:7411");
  EXPECT_EQ(one.extent, "e1");
  EXPECT_EQ(parsed("127.0.0.1:7411/", Want::kStore).device, "127.0.0.1:7411");
  EXPECT_EQ(parsed("127.0.0.1:7411", Want::kEither).where, Where::kDaemon);
  EXPECT_EQ(parsed("[::1]:7411/e1", Want::kEither).device, "[::1]:7411");
  EXPECT_EQ(parsed("localhost:7411/e1", Want::kExtent).device, "127.0.0.1:7411");
  EXPECT_EQ(parsed("ceph:localhost:7411/e1", Want::kExtent).location.pool, "localhost:7411");
}

TEST(CliAddress, Folders) {
  const Address one = parsed("posix:/srv/a/e1", Want::kExtent);
  EXPECT_EQ(one.dir, "/srv/a");
  EXPECT_EQ(one.extent, "e1");
  EXPECT_EQ(one.to_string(), "posix:/srv/a/e1");
  EXPECT_EQ(parsed("posix:/e1", Want::kExtent).dir, "/");
  EXPECT_EQ(parsed("posix:/e1", Want::kExtent).to_string(), "posix:/e1");
  EXPECT_EQ(parsed("posix:/srv/a", Want::kStore).dir, "/srv/a");
  EXPECT_EQ(parsed("posix:/srv/a//", Want::kStore).dir, "/srv/a");
  EXPECT_EQ(parsed("posix:/srv/a/", Want::kEither).dir, "/srv/a");
  EXPECT_EQ(parsed("posix:/srv/a/e1", Want::kEither).extent, "e1");
  EXPECT_EQ(parsed("posix:a/e1", Want::kExtent).dir, "a");
}

TEST(CliAddress, WhatIsRefused) {
  refused("", Want::kStore);
  refused("p1", Want::kExtent);
  refused("p1/", Want::kExtent);
  refused("/e1", Want::kExtent);
  refused("p1//e1", Want::kExtent);
  refused("p1/ns/e1/more", Want::kExtent);
  refused("p1/.hidden", Want::kExtent);
  refused("p1/ns/e1", Want::kStore);
  refused("p1/" + std::string(kMaxExtentNameBytes + 1, 'x'), Want::kExtent);
  refused("posix:", Want::kStore);
  refused("posix:e1", Want::kExtent);
  refused("posix:/srv/a/..", Want::kExtent);
  refused("127.0.0.1:7411/", Want::kExtent);
  refused("127.0.0.1:7411/a/b", Want::kExtent);
  refused("127.0.0.1:99999/", Want::kStore);
  refused("127.0.0.1:0/e1", Want::kExtent);
  refused("127.0.0.1:11111111111111111111/e1", Want::kExtent);
}

TEST(CliAddress, NothingBehindTheSlashIsNoWholeStoreToWhoChanges) {
  const auto next_step = [](const std::string& text, NamespaceSlash slash) {
    const Status checked = check_names_something(text, slash);
    return checked ? std::string() : checked.error().next_step;
  };
  constexpr auto kTaken = NamespaceSlash::kIsTaken, kRefused = NamespaceSlash::kIsRefused;
  for (const auto slash : {kTaken, kRefused}) {
    EXPECT_TRUE(next_step("p1/", slash).ends_with(": p1"));
    EXPECT_TRUE(next_step("ceph:10.0.0.1:7411/", slash).ends_with(": ceph:10.0.0.1:7411"));
    EXPECT_TRUE(next_step("posix:/srv/a/", slash).ends_with(": posix:/srv/a"));
    EXPECT_TRUE(next_step("posix:a//", slash).ends_with(": posix:a"));
    for (const char* text : {"p1", "p1/e1", "p1/ns/e1", "posix:/srv/a", "127.0.0.1:7411/",
                             "127.0.0.1:7411", "posix:/srv/a/e1"}) {
      EXPECT_TRUE(check_names_something(text, slash)) << text;
    }
  }
  EXPECT_TRUE(check_names_something("p1/ns/", kTaken));
  EXPECT_TRUE(next_step("p1/ns/", kRefused).ends_with(": --namespace ns p1"));
  EXPECT_TRUE(next_step("ceph:p1/ns/", kRefused).ends_with(": --namespace ns ceph:p1"));
}

}  // namespace
}  // namespace siphon::cli
