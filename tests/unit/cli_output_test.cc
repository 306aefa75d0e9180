#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "plugin/cli/output.h"

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
      Json{{"name", "two\nlines, \"quoted\" \xff"}, {"list", {1, 2}}, {"none", nullptr}},
      Json::object(), Json(7)};
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
      EXPECT_EQ(testing::internal::GetCapturedStdout(),
                whole(document, rows, Exit::kPartial, format));
    }
  }
}

}  // namespace
}  // namespace siphon::cli
