#include "plugin/base/types.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <type_traits>

#include "tests/support/test_random.h"

namespace siphon {
namespace {

std::span<const std::byte> as_span(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST(BaseTypes, PathsOfEveryForm) {
  struct Case {
    const char* text;
    const char* pool;
    const char* nspace;
    const char* extent;
  };
  for (const Case& c :
       {Case{"p", "p", "", ""}, Case{"p/", "p", "", ""}, Case{"p/e", "p", "", "e"},
        Case{"p/n/e", "p", "n", "e"}, Case{"p/n/", "p", "n", ""}, Case{"/e", "", "", "e"},
        Case{"/", "", "", ""}, Case{"p/an extent", "p", "", "an extent"}}) {
    SCOPED_TRACE(c.text);
    const auto path = parse_extent_path(c.text);
    ASSERT_TRUE(path) << path.error().message;
    EXPECT_EQ(path->location.pool, c.pool);
    EXPECT_EQ(path->location.nspace, c.nspace);
    EXPECT_EQ(path->extent, c.extent);
  }
}

TEST(BaseTypes, BadPathsNameThePart) {
  const std::string long_pool(128, 'p'), long_namespace(128, 'n'), long_extent(201, 'e');
  struct Case {
    std::string text;
    const char* word;
  };
  const std::vector<Case> cases = {
      {"", "path"},
      {"p//e", "namespace"},
      {"/n/e", "pool"},
      {"p/n/e/f", "extent"},
      {"p/.e", "extent"},
      {"p/..", "extent"},
      {"p\n/e", "pool"},
      {"p/n\x7f/e", "namespace"},
      {long_pool + "/e", "pool"},
      {std::string("p/").append(long_namespace).append("/e"), "namespace"},
      {std::string("p/").append(long_extent), "extent"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.text);
    const auto path = parse_extent_path(c.text);
    ASSERT_FALSE(path);
    EXPECT_EQ(path.error().code, Code::kInvalidArgument);
    EXPECT_NE(path.error().message.find(c.word), std::string::npos) << path.error().message;
  }
}

TEST(BaseTypes, ExtentNames) {
  EXPECT_TRUE(check_extent_name("a"));
  EXPECT_TRUE(check_extent_name("a.b-c_d:e f~"));
  EXPECT_TRUE(check_extent_name(std::string(kMaxExtentNameBytes, 'x')));
  EXPECT_FALSE(check_extent_name(std::string(kMaxExtentNameBytes + 1, 'x')));
  for (const char* bad : {"", ".", "..", ".hidden", "a/b", "/", "a\tb", "caf\xc3\xa9"}) {
    EXPECT_FALSE(check_extent_name(bad)) << bad;
  }
  EXPECT_FALSE(check_extent_name(std::string_view("a\0b", 3)));
}

TEST(BaseTypes, LocationsPrintAsRadosHasThem) {
  EXPECT_EQ((Location{"p", ""}).to_string(), "p");
  EXPECT_EQ((Location{"p", "n"}).to_string(), "p/n");
}

TEST(BaseTypes, HexBothWays) {
  test::TestRandom random;
  SCOPED_TRACE(random.trace());
  for (std::size_t size : {0, 1, 16, 33}) {
    const auto bytes = random.bytes(size);
    std::vector<std::byte> back(size);
    ASSERT_TRUE(from_hex(to_hex(bytes), back));
    EXPECT_EQ(back, bytes);
  }
  std::array<std::byte, 2> two{};
  EXPECT_TRUE(from_hex("aBF0", two));
  EXPECT_EQ(to_hex(two), "abf0");
  for (const char* bad : {"", "ab", "abf", "abf01", "abf0ab", "ab g", "0x12", "-1-1"}) {
    EXPECT_FALSE(from_hex(bad, two)) << bad;
  }
  EXPECT_EQ(crc32_hex(0xabc), "00000abc");
}

TEST(BaseTypes, PrivateIdsAreFreshAndNeverNone) {
  std::set<PrivateId> seen;
  for (int i = 0; i < 1000; ++i) {
    const PrivateId id = new_private_id();
    EXPECT_FALSE(id.empty());
    EXPECT_TRUE(seen.insert(id).second);
  }
}

TEST(BaseTypes, TimesAndSizesForPeople) {
  EXPECT_EQ(rfc3339(0), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(rfc3339(1795370400123), "2026-11-22T18:00:00.123Z");
  EXPECT_EQ(rfc3339(~0ull), "9999-12-31T23:59:59.999Z");
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1024), "1.00 KiB");
  EXPECT_EQ(human_bytes(kMiB - 1), "1.00 MiB");
  EXPECT_EQ(human_bytes(kGiB + 310 * kMiB), "1.30 GiB");
  EXPECT_EQ(human_bytes(~0ull), "16.00 EiB");
}

TEST(BaseTypes, SecretsMoveCompareAndCloneOnly) {
  static_assert(!std::is_copy_constructible_v<Secret> && !std::is_copy_assignable_v<Secret>);
  Secret secret{as_span("ticket")};
  EXPECT_TRUE(secret.equals(as_span("ticket")));
  EXPECT_FALSE(secret.equals(as_span("tickeT")));
  EXPECT_FALSE(secret.equals(as_span("ticke")));
  EXPECT_FALSE(secret.equals({}));
  Secret copy = secret.clone();
  Secret moved = std::move(secret);
  EXPECT_TRUE(secret.empty());  // NOLINT: looking at a moved-from secret is the point
  EXPECT_TRUE(moved.equals(copy.reveal()));
  copy = std::move(moved);
  EXPECT_TRUE(copy.equals(as_span("ticket")));
  EXPECT_FALSE(Secret::random(32).equals(Secret::random(32).reveal()));
  EXPECT_EQ(Secret::random(32).reveal().size(), 32u);
}

// FIPS 180-4's example, and test cases 1 and 2 of RFC 4231.
TEST(BaseTypes, Sha256AndHmacHaveTheKnownValues) {
  EXPECT_EQ(to_hex(sha256(as_span("abc"))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(sha256({})), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(to_hex(hmac_sha256(std::vector<std::byte>(20, std::byte{0x0b}), as_span("Hi There"))),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(to_hex(hmac_sha256(as_span("Jefe"), as_span("what do ya want for nothing?"))),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(to_hex(hmac_sha256({}, {})),
            "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

}  // namespace
}  // namespace siphon
