// Text from outside: what is escaped, what is UTF-8.
#include "plugin/base/text.h"

#include <gtest/gtest.h>

#include <array>

namespace siphon {
namespace {

TEST(Text, WhatSteersATerminalIsEscaped) {
  EXPECT_EQ(escaped("plain text, \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
            "plain text, \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
  EXPECT_EQ(escaped("\x1b[31mred\r\n\tand\x7f"), "\\x1b[31mred\\x0d\\n\\tand\\x7f");
  EXPECT_EQ(escaped(std::string_view("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(escaped("\xc2\x9b"), "\\xc2\\x9b");           // CSI as one character
  EXPECT_EQ(escaped("\xe2\x80\xae"), "\\xe2\\x80\\xae");  // turns the direction of writing
  EXPECT_EQ(escaped("x\xff\xc3"), "x\\xff\\xc3");         // not UTF-8, and cut short
  EXPECT_EQ(escaped_lines("two\nlines\x1b"), "two\nlines\\x1b");
}

TEST(Text, AShellReadsAsOneWordWhatWasOne) {
  for (const char* plain : {"p1/ns/e-1", "posix:/srv/a_b/e.1", "127.0.0.1:7411/e", "a=b@c,d%e+"}) {
    EXPECT_EQ(shell_word(plain), plain);
  }
  EXPECT_EQ(shell_word(""), "''");
  EXPECT_EQ(shell_word("p1/x;id"), "'p1/x;id'");
  EXPECT_EQ(shell_word("a b"), "'a b'");
  EXPECT_EQ(shell_word("it's"), "'it'\\''s'");
}

TEST(Text, Utf8) {
  for (const char* good : {"", "a", "\xc3\xa9", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(is_utf8(good)) << good;
  }
  for (const char* bad : {"\xff", "\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xed\xa0\x80",
                          "\xf4\x90\x80\x80", "\xc3", "a\x80", "\xe2\x82"}) {
    EXPECT_FALSE(is_utf8(bad)) << escaped(bad);
  }
}

TEST(Text, Base64) {  // RFC 4648, section 10
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("fo"), "Zm8=");
  EXPECT_EQ(base64("foo"), "Zm9v");
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(base64("\xff\xfe\xfd"), "//79");
}

TEST(Text, OneOfThemIsSingular) {
  EXPECT_EQ(counted(0, "extent"), "0 extents");
  EXPECT_EQ(counted(1, "extent"), "1 extent");
  EXPECT_EQ(counted(2, "extent"), "2 extents");
}

TEST(Text, SizesAreDecimalAndBounded) {
  EXPECT_EQ(parse_bytes("0"), 0u);
  EXPECT_EQ(parse_bytes("010"), 10u);
  EXPECT_EQ(parse_bytes("5.5M"), 5767168u);
  EXPECT_EQ(parse_bytes("1.5 GiB"), 3ull << 29);
  EXPECT_EQ(parse_bytes("0.001k"), 1u);
  EXPECT_EQ(parse_bytes("9223372036854775807"), (1ull << 63) - 1);
  for (const char* bad : {"",
                          " ",
                          "M",
                          "-1",
                          "+1",
                          "0x10",
                          "1e3",
                          "5.",
                          ".5",
                          "5..5",
                          "5Q",
                          "5MM",
                          "5 M B",
                          "1 ",
                          "0.1",
                          "0.0001K",
                          "9223372036854775808",
                          "8192P",
                          "99999999999999999999",
                          "1bb",
                          "1bib"}) {
    EXPECT_FALSE(parse_bytes(bad)) << bad;
  }
}

TEST(Text, TheClosestWord) {
  const std::array<std::string_view, 4> words = {"copy", "move", "stat", "transfers"};
  EXPECT_EQ(closest("cpy", words), "copy");
  EXPECT_EQ(closest("tranfers", words), "transfers");
  EXPECT_EQ(closest("xyzzy", words), "");
  EXPECT_EQ(closest("", words), "");
}

}  // namespace
}  // namespace siphon
