#include "plugin/cli/output.h"

#include <fmt/format.h>
#include <libsmartcols/libsmartcols.h>

#include <algorithm>
#include <cstdlib>

#include "plugin/base/text.h"
#include "plugin/cli/commands.h"
#include "plugin/cli/progress.h"
#include "plugin/cli/stdio.h"

namespace siphon::cli {
namespace {

bool is_bad(const Json& json) {
  return json.is_string() && !is_utf8(json.get_ref<const std::string&>());
}

bool has_bad(const Json& json) {
  if (is_bad(json)) return true;
  if (!json.is_structured()) return false;
  for (const Json& value : json) {
    if (has_bad(value)) return true;
  }
  return false;
}

Json bytes_of(const Json& json) {
  return is_bad(json) ? Json(base64(json.get_ref<const std::string&>())) : Json();
}

// Names come from outside and JSON is UTF-8. A string that is not gets a sibling KEY_b64 with its
// bytes; an array of strings gets one as well, with null for those that are good.
Json with_bytes(const Json& json) {
  if (json.is_array()) {
    Json out = Json::array();
    for (const Json& value : json) out.push_back(with_bytes(value));
    return out;
  }
  if (!json.is_object()) return json;
  Json out = Json::object();
  for (const auto& [key, value] : json.items()) {
    out[key] = with_bytes(value);
    if (is_bad(value)) out[key + "_b64"] = bytes_of(value);
    if (!value.is_array() || std::none_of(value.begin(), value.end(), is_bad)) continue;
    Json list = Json::array();
    for (const Json& element : value) list.push_back(bytes_of(element));
    out[key + "_b64"] = std::move(list);
  }
  return out;
}

// Bytes that are not UTF-8 are shown as replaced. Pretty text begins its further lines `depth`
// levels in.
std::string dump(const Json& json, Format format, std::size_t depth = 0) {
  const bool pretty = format == Format::kJsonPretty;
  const auto replace = Json::error_handler_t::replace;
  std::string text = has_bad(json) ? with_bytes(json).dump(pretty ? 2 : -1, ' ', false, replace)
                                   : json.dump(pretty ? 2 : -1);
  if (!pretty || depth == 0) return text;
  const std::string indent(2 * depth, ' ');  // a line break within a string is \n, never a byte
  for (auto at = text.find('\n'); at != std::string::npos; at = text.find('\n', at + 1)) {
    text.insert(at + 1, indent);
  }
  return text;
}

}  // namespace

// The library writes whatever is not printable as \x1b, and a backslash of a cell's own before an x
// as \x5c, which would be another name. So it sees a slash for each, and they come back in order.
std::string Table::text() const {
  std::string slashes;  // of both kinds, as they follow each other
  const auto without_backslashes = [&](std::string cell) {
    for (char& c : cell) {
      if (c != '/' && c != '\\') continue;
      slashes += c;
      c = '/';
    }
    return cell;
  };
  struct libscols_table* table = scols_new_table();
  if (table == nullptr) return {};
  for (const Column& column : columns_) {
    scols_table_new_column(table, without_backslashes(column.title).c_str(), 0,
                           column.right ? SCOLS_FL_RIGHT : 0);
  }
  for (const auto& row : rows_) {
    struct libscols_line* line = scols_table_new_line(table, nullptr);
    if (line == nullptr) break;
    for (std::size_t i = 0; i < row.size() && i < columns_.size(); ++i) {
      scols_line_set_data(line, i, without_backslashes(row[i]).c_str());
    }
  }
  // Never cut to the terminal's width: names are to be copied.
  scols_table_set_termforce(table, SCOLS_TERMFORCE_NEVER);
  std::string printed;
  char* text = nullptr;
  if (scols_print_table_to_string(table, &text) == 0 && text != nullptr) {
    printed = std::string(text) + "\n";  // it leaves out the last one
  }
  std::free(text);
  scols_unref_table(table);
  auto slash = slashes.begin();
  for (char& c : printed) {
    if (c == '/' && slash != slashes.end()) c = *slash++;
  }
  return printed;
}

Json Output::new_document() const {
  return Json{{"schema_version", kSchemaVersion}, {"verb", verb_}};
}

void Output::document(Json document, Exit exit, const Rows& rows) {
  document["exit_code"] = static_cast<int>(exit);
  if (has_bad(document)) document = with_bytes(document);
  TextStream& out = document_to_stderr_ ? standard_error() : standard_output();
  const bool pretty = format_ == Format::kJsonPretty;
  const auto line = [&](std::size_t depth) {
    return pretty ? "\n" + std::string(2 * depth, ' ') : std::string();
  };
  const char* colon = pretty ? ": " : ":";
  const char* comma = "{";
  for (const auto& [key, value] : document.items()) {
    out.write(comma + line(1) + dump(Json(key), format_) + colon);
    comma = ",";
    if (key != rows.key) {
      out.write(dump(value, format_, 1));
      continue;
    }
    for (std::size_t i = 0; i < rows.count; ++i) {
      out.write((i == 0 ? "[" : ",") + line(2) + dump(rows.row(i), format_, 2));
    }
    out.write(rows.count == 0 ? "[]" : line(1) + "]");
  }
  out.write(line(0) + "}\n");
  document_written_ = true;
}

void Output::line(const std::string& text) const {
  if (json()) return;
  (document_to_stderr_ ? standard_error() : standard_output()).write(escaped(text) + "\n");
}

void Output::table(const Table& table) const {
  if (json() || table.empty()) return;
  (document_to_stderr_ ? standard_error() : standard_output()).write(table.text());
}

int Output::error(const Error& error, Exit exit) {
  if (json() && !document_written_) {
    Json doc = new_document();
    doc["error"] = to_json(error);
    document(std::move(doc), exit);
  }
  complain(error_text(error));
  return static_cast<int>(exit);
}

std::string error_text(const Error& error) {
  std::string text = escaped(error.message);
  if (error.suspect == Side::kSource || error.suspect == Side::kTarget ||
      error.suspect == Side::kWire) {
    text += fmt::format(" (suspect: {})", to_string(error.suspect));
  }
  if (!error.next_step.empty()) text += "\nnext: " + escaped(pasteable(error.next_step));
  return text;
}

std::string json_line(const Json& json) { return dump(json, Format::kJson) + "\n"; }

std::string pace_text(std::uint64_t bytes, double seconds) {
  std::string text = fmt::format("{:.2f} s", seconds);
  if (bytes > 0 && seconds > 0) text += ", " + rate_text(static_cast<double>(bytes) / seconds);
  return text;
}

Json to_json(const Error& error) {
  Json json{{"code", to_string(error.code)}, {"message", error.message}};
  json["suspect"] = error.suspect == Side::kNone ? Json() : Json(to_string(error.suspect));
  json["next_step"] = error.next_step.empty() ? Json() : Json(pasteable(error.next_step));
  return json;
}

Json to_json(const Location& location) {
  return Json{{"pool", location.pool}, {"namespace", location.nspace}};
}

Json to_json(const SealedHeader& header) {
  return Json{
      {"extent_bytes", header.extent_bytes},
      {"content_bytes", header.content_bytes},
      {"crc32", crc32_hex(header.crc32)},
      {"content_digest", header.has_digest() ? Json(to_hex(header.content_digest)) : Json()},
      {"blocks", header.block_count},
      {"part_bytes", header.part_bytes},
      {"format_version", header.format_version},
      {"sealed_at", rfc3339(header.sealed_unix_ms)}};
}

Json to_json(const TrashEntry& gone) {
  return Json{{"private_id", to_hex(gone.id)},
              {"since", rfc3339(gone.trashed_unix_ms)},
              {"bytes", gone.header.extent_bytes > 0 ? Json(gone.header.extent_bytes) : Json()}};
}

Json gone_json(const std::vector<TrashEntry>& gone) {
  Json rows = Json::array();
  for (const TrashEntry& entry : gone) rows.push_back(to_json(entry));
  return rows;
}

std::string gone_text(const TrashEntry& gone, bool dry_run) {
  return fmt::format(
      "an older generation {} for good, to make room: private id {}, {}, in the "
      "trash since {}",
      dry_run ? "would leave the trash" : "left the trash", to_hex(gone.id),
      gone.header.extent_bytes > 0 ? counted(gone.header.extent_bytes, "byte")
                                   : std::string("of a size not known"),
      rfc3339(gone.trashed_unix_ms));
}

Json to_json(const ExtentInfo& info) {
  Json json{{"name", info.name},
            {"state", state_name(info.state)},
            {"generation", info.generation},
            {"private_id", to_hex(info.private_id)},
            {"inline", info.is_inline},
            {"attempts", info.scratch_count},
            {"trashed", info.trash_count}};
  json["header"] = info.state == ExtentState::kSealed ? to_json(info.header) : Json();
  return json;
}

Json to_json(const Receipt& r) {
  // Of what was there already nothing was read: the header's crc32 is in the header.
  const bool read = !r.already_there;
  return Json{{"transfer_id", r.transfer_id},
              {"source", to_json(r.source)},
              {"source_extent", r.source_extent},
              {"target", to_json(r.target)},
              {"target_extent", r.target_extent},
              {"source_device", r.source_device},
              {"target_device", r.target_device},
              {"bytes", r.bytes},
              {"source_crc32", read ? Json(crc32_hex(r.source_crc32)) : Json()},
              {"target_crc32", read ? Json(crc32_hex(r.target_crc32)) : Json()},
              {"header", to_json(r.header)},
              {"private_id", to_hex(r.private_id)},
              {"data_endpoint", r.data_endpoint},
              {"lanes", r.lanes},
              {"started_at", rfc3339(r.started_unix_ms)},
              {"finished_at", rfc3339(r.finished_unix_ms)},
              {"attempts", r.attempts},
              {"fallback_parts", r.fallback_parts},
              {"already_there", r.already_there},
              {"blocks_checked", r.blocks_checked},
              {"left_for_good", gone_json(r.left_for_good)}};
}

Json to_json(const Progress& p) {
  return Json{{"phase", to_string(p.phase)},
              {"total_bytes", p.total_bytes},
              {"received_bytes", p.received_bytes},
              {"durable_bytes", p.durable_bytes},
              {"extents_total", p.extents_total},
              {"extents_done", p.extents_done},
              {"extents_already_there", p.extents_already_there},
              {"extents_failed", p.extents_failed},
              {"data_endpoint", p.data_endpoint},
              {"elapsed_ms", p.elapsed_ms}};
}

std::string_view state_name(ExtentState state) {
  switch (state) {
    case ExtentState::kOpen:
      return "open";
    case ExtentState::kSealed:
      return "sealed";
    case ExtentState::kNone:
      break;
  }
  return "none";
}

}  // namespace siphon::cli
