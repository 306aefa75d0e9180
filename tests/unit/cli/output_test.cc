// What verbs print: documents, tables, lines; and where it goes.
#include "plugin/cli/output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <thread>
#include <vector>

#include "plugin/cli/stdio.h"

namespace siphon::cli {
namespace {

// What the same document is with all of its rows in memory.
std::string whole(Json document, const std::vector<Json>& rows, Exit exit, Format format) {
  document["rows"] = Json::array();
  for (const Json& row : rows) document["rows"].push_back(row);
  document["exit_code"] = static_cast<int>(exit);
  return document.dump(format == Format::kJsonPretty ? 2 : -1, ' ', false,
                       Json::error_handler_t::replace) +
         "\n";
}

TEST(OutputDocument, RowsMadeOneByOneReadAsIfTheyHadBeenThereAtOnce) {
  const std::vector<Json> some = {
      Json{{"name", "two\nlines, \"quoted\""}, {"list", {1, 2}}, {"none", nullptr}}, Json::object(),
      Json(7)};
  for (const Format format : {Format::kJson, Format::kJsonPretty}) {
    for (const auto& rows : {some, std::vector<Json>{}}) {
      Output out(format, "verb");
      Json document = out.new_document();
      document["before"] = Json{{"a", Json::array()}, {"b", {{"c", 1.5}}}};
      document["rows"] = nullptr;
      document["after"] = {"x", "y"};
      testing::internal::CaptureStdout();
      out.document(document, Exit::kPartial,
                   {"rows", rows.size(), [&](std::size_t i) { return rows[i]; }});
      ASSERT_TRUE(standard_output().flush());
      EXPECT_EQ(testing::internal::GetCapturedStdout(),
                whole(document, rows, Exit::kPartial, format));
    }
  }
}

TEST(OutputDocument, NoByteOfANameIsLost) {
  const std::string name = "a\xff";
  const std::string other = "a\xfe";
  Output out(Format::kJson, "ls");
  Json document = out.new_document();
  document["store"] = name;
  document["names"] = {"good", other};
  document["extents"] = nullptr;
  testing::internal::CaptureStdout();
  out.document(document, Exit::kOk,
               {"extents", 2, [&](std::size_t i) {
                  return Json{{"name", i == 0 ? name : other}, {"generation", i}};
                }});
  ASSERT_TRUE(standard_output().flush());
  const Json read = Json::parse(testing::internal::GetCapturedStdout());
  EXPECT_EQ(read["store"], "a\xef\xbf\xbd");
  EXPECT_EQ(read["store_b64"], "Yf8=");
  EXPECT_EQ(read["names_b64"], (Json{nullptr, "Yf4="}));
  EXPECT_EQ(read["extents"][0]["name_b64"], "Yf8=");
  EXPECT_EQ(read["extents"][1]["name_b64"], "Yf4=");
  EXPECT_FALSE(Json::parse(json_line(Json{{"name", "good"}})).contains("name_b64"));
}

TEST(OutputText, ControlCharactersOfNamesAreEscaped) {
  Output out(Format::kPlain, "ls");
  testing::internal::CaptureStdout();
  out.line("name\x1b[2J\n");
  Table table({{"NAME"}, {"BYTES", true}});
  table.add({"odd\r\n\xff", "1"});
  table.add({"caf\xc3\xa9", "2"});
  out.table(table);
  ASSERT_TRUE(standard_output().flush());
  EXPECT_EQ(testing::internal::GetCapturedStdout(),
            "name\\x1b[2J\\n\nNAME            BYTES\nodd\\x0d\\x0a\\xff     1\n"
            "caf\\xc3\\xa9         2\n");
  EXPECT_EQ(error_text({Code::kUnknown, "peer\nsays \x1b", Side::kTarget, "run\x07 it"}),
            "peer\\nsays \\x1b (suspect: target)\nnext: run\\x07 it");
}

TEST(OutputText, ABackslashOfANameIsOneInATableToo) {
  Table table({{"NAME"}, {"BYTES", true}});
  table.add({"p1/bs\\x41", "1"});
  table.add({"a/\\/\\\\x\xff", "2"});
  EXPECT_EQ(table.text(),
            "NAME        BYTES\n"
            "p1/bs\\x41       1\n"
            "a/\\/\\\\x\\xff     2\n");
}

TEST(OutputText, PaceHasNoRateWhereThereIsNone) {
  EXPECT_EQ(pace_text(0, 1.5), "1.50 s");
  EXPECT_EQ(pace_text(3 << 20, 1.5), "1.50 s, 2.00 MiB/s");
  EXPECT_EQ(pace_text(3, 1.5), "1.50 s, 2 B/s");
}

std::array<int, 2> new_pipe(int flags) {
  std::array<int, 2> ends{};
  EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  EXPECT_EQ(::fcntl(ends[1], F_SETFL, flags), 0);
  return ends;
}

TEST(WriteAll, WaitsForAPipeThatWouldNot) {
  const auto [read_end, write_end] = new_pipe(O_NONBLOCK);
  std::string text(3 << 20, 'x');
  for (std::size_t i = 0; i < text.size(); i += 7) text[i] = static_cast<char>('a' + i % 26);
  std::string got;
  std::jthread reader([&, from = read_end] {
    std::array<char, 60'000> buffer{};
    for (ssize_t n = 0; (n = ::read(from, buffer.data(), buffer.size())) > 0;) {
      got.append(buffer.data(), static_cast<std::size_t>(n));
    }
  });
  TextStream stream(write_end, "stdout", /*buffered=*/true);
  for (std::size_t i = 0; i < text.size(); i += 1000) {
    stream.write(std::string_view(text).substr(i, 1000));
  }
  EXPECT_TRUE(stream.flush());
  ::close(write_end);
  reader.join();
  EXPECT_TRUE(got == text);
  ::close(read_end);
}

TEST(WriteAll, AReaderThatHasGoneIsItsOwnReason) {
  const auto [read_end, write_end] = new_pipe(0);
  ::close(read_end);
  ::signal(SIGPIPE, SIG_IGN);
  TextStream stream(write_end, "stdout", /*buffered=*/true);
  stream.write("x");
  const Status flushed = stream.flush();
  ASSERT_FALSE(flushed);
  EXPECT_EQ(flushed.error().reason, Reason::kClosedPipe);
  stream.write("more");
  EXPECT_EQ(stream.flush().error().reason, Reason::kClosedPipe);
  ::close(write_end);
}

TEST(WriteAll, AnInterruptEndsAWaitForAReaderThatDoesNotRead) {
  const auto [read_end, write_end] = new_pipe(0);
  interrupt_flag() = true;
  const std::string text(1 << 20, 'x');  // more than a pipe holds
  const Status written = write_all(write_end, std::as_bytes(std::span(text)), "write to stdout");
  interrupt_flag() = false;
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, Code::kCancelled);
  ::close(read_end);
  ::close(write_end);
}

TEST(WriteAll, AFullDeviceIsAnErrorWithASentence) {
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(full, 0);
  TextStream out(full, "stdout", /*buffered=*/true);
  out.write("x");
  const Status flushed = out.flush();
  ASSERT_FALSE(flushed);
  EXPECT_EQ(flushed.error().message, "write to stdout: No space left on device");
  TextStream err(full, "stderr", /*buffered=*/false);
  err.write("nobody hears it");  // and nothing is thrown
  ::close(full);
}

}  // namespace
}  // namespace siphon::cli
