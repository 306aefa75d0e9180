// What a verb says on stdout: a table or lines for people, or exactly one JSON document.
//
// Plain text goes to stdout as it comes; with --format json a verb builds its document and hands
// it over once. Errors are one sentence and a "next:" line on stderr, and with JSON also the
// document's "error". Everything from outside is escaped for people, and in JSON loses no byte.
// Not thread safe.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "adapters/extent_store.h"
#include "plugin/base/status.h"
#include "plugin/cli/exit_codes.h"
#include "plugin/cli/options.h"
#include "plugin/transfer/types.h"

namespace siphon::cli {

using Json = nlohmann::ordered_json;

inline constexpr int kSchemaVersion = 2;

// Columns for libsmartcols; numbers to the right.
class Table {
 public:
  struct Column {
    std::string title;
    bool right = false;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  bool empty() const { return rows_.empty(); }
  std::string text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// An array of a document whose rows are made while it is printed: many of them are never in memory
// at once.
struct Rows {
  std::string key;
  std::size_t count = 0;
  std::function<Json(std::size_t)> row;
};

class Output {
 public:
  Output(Format format, std::string verb) : format_(format), verb_(std::move(verb)) {}
  bool json() const { return format_ != Format::kPlain; }
  // stdout carries data of another kind: documents go to stderr.
  void data_on_stdout() { document_to_stderr_ = true; }

  // {"schema_version": 2, "verb": ...}
  Json new_document() const;
  // Prints the document, with the exit code in it, and with `rows` where it has null under their
  // key. At most once.
  void document(Json document, Exit exit, const Rows& rows = {});
  // A line on stdout, unless JSON was asked for; beside data of another kind on stderr.
  void line(const std::string& text) const;
  // The same of a table that has rows.
  void table(const Table& table) const;
  // The error as it is read by people; with JSON and no document so far, also as a document.
  // Returns `exit` as the process's status.
  int error(const Error& error, Exit exit);
  int error(const Error& e) { return error(e, exit_for(e)); }

 private:
  const Format format_;
  const std::string verb_;
  bool document_to_stderr_ = false;
  bool document_written_ = false;
};

// One sentence with its suspect, then the "next:" line.
std::string error_text(const Error& error);

// One line of NDJSON, with its line feed. As in documents, a string that is not UTF-8 is shown with
// replacements and has its bytes beside it, under KEY_b64.
std::string json_line(const Json& json);
// "0.42 s, 1.31 GiB/s"; without a rate where there is none.
std::string pace_text(std::uint64_t bytes, double seconds);

Json to_json(const Error& error);
Json to_json(const Location& location);
Json to_json(const SealedHeader& header);
Json to_json(const ExtentInfo& info);
// A generation that leaves the trash for good, to make room: {"private_id", "since", "bytes"}.
Json to_json(const TrashEntry& gone);
Json gone_json(const std::vector<TrashEntry>& gone);
std::string gone_text(const TrashEntry& gone, bool dry_run = false);
Json to_json(const Receipt& receipt);
Json to_json(const Progress& progress);
std::string_view state_name(ExtentState state);  // "sealed"

}  // namespace siphon::cli
