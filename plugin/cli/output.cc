#include "plugin/cli/output.h"

#include <fmt/format.h>
#include <libsmartcols/libsmartcols.h>

#include <cerrno>
#include <cstdio>

namespace siphon::cli {
namespace {

// Names come from outside: bytes that are not UTF-8 are replaced, never thrown about. Pretty text
// begins its further lines `depth` levels in.
std::string dump(const Json& json, Format format, std::size_t depth = 0) {
  const bool pretty = format == Format::kJsonPretty;
  std::string text = json.dump(pretty ? 2 : -1, ' ', false, Json::error_handler_t::replace);
  if (!pretty || depth == 0) return text;
  const std::string indent(2 * depth, ' ');  // a line break within a string is \n, never a byte
  for (auto at = text.find('\n'); at != std::string::npos; at = text.find('\n', at + 1)) {
    text.insert(at + 1, indent);
  }
  return text;
}

}  // namespace

void Table::print() const {
  struct libscols_table* table = scols_new_table();
  if (table == nullptr) return;
  for (const Column& column : columns_) {
    scols_table_new_column(table, column.title.c_str(), 0, column.right ? SCOLS_FL_RIGHT : 0);
  }
  for (const auto& row : rows_) {
    struct libscols_line* line = scols_table_new_line(table, nullptr);
    if (line == nullptr) break;
    for (std::size_t i = 0; i < row.size() && i < columns_.size(); ++i) {
      scols_line_set_data(line, i, row[i].c_str());
    }
  }
  // Never cut to the terminal's width: names are to be copied.
  scols_table_set_termforce(table, SCOLS_TERMFORCE_NEVER);
  scols_print_table(table);
  scols_unref_table(table);
}

Json Output::new_document() const {
  return Json{{"schema_version", kSchemaVersion}, {"verb", verb_}};
}

void Output::document(Json document, Exit exit, const Rows& rows) {
  document["exit_code"] = static_cast<int>(exit);
  std::FILE* out = document_to_stderr_ ? stderr : stdout;
  const bool pretty = format_ == Format::kJsonPretty;
  const auto line = [&](std::size_t depth) {
    return pretty ? "\n" + std::string(2 * depth, ' ') : std::string();
  };
  const char* colon = pretty ? ": " : ":";
  const char* comma = "{";
  for (const auto& [key, value] : document.items()) {
    fmt::print(out, "{}{}{}{}", comma, line(1), dump(Json(key), format_), colon);
    comma = ",";
    if (key != rows.key) {
      fmt::print(out, "{}", dump(value, format_, 1));
      continue;
    }
    for (std::size_t i = 0; i < rows.count; ++i) {
      fmt::print(out, "{}{}{}", i == 0 ? "[" : ",", line(2), dump(rows.row(i), format_, 2));
    }
    fmt::print(out, "{}", rows.count == 0 ? "[]" : line(1) + "]");
  }
  fmt::print(out, "{}}}\n", line(0));
  document_written_ = true;
}

void Output::line(const std::string& text) const {
  if (!json()) fmt::print(document_to_stderr_ ? stderr : stdout, "{}\n", text);
}

int Output::error(const Error& error, Exit exit) {
  if (json() && !document_written_) {
    Json doc = new_document();
    doc["error"] = to_json(error);
    document(std::move(doc), exit);
  }
  fmt::print(stderr, "siphon: {}\n", error_text(error));
  return static_cast<int>(exit);
}

Status Output::flush() const {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return {};
  const int why = errno == 0 ? EPIPE : errno;
  return fail(error_from_errno(why, "write to stdout")
                  .with_reason(why == EPIPE ? Reason::kClosedPipe : Reason::kNone));
}

std::string error_text(const Error& error) {
  std::string text = error.message;
  if (error.suspect == Side::kSource || error.suspect == Side::kTarget ||
      error.suspect == Side::kWire) {
    text += fmt::format(" (suspect: {})", to_string(error.suspect));
  }
  if (!error.next_step.empty()) text += "\nnext: " + error.next_step;
  return text;
}

Json to_json(const Error& error) {
  Json json{{"code", to_string(error.code)}, {"message", error.message}};
  json["suspect"] = error.suspect == Side::kNone ? Json() : Json(to_string(error.suspect));
  json["next_step"] = error.next_step.empty() ? Json() : Json(error.next_step);
  return json;
}

Json to_json(const Location& location) {
  return Json{{"pool", location.pool}, {"namespace", location.nspace}};
}

Json to_json(const SealedHeader& header) {
  return Json{{"extent_bytes", header.extent_bytes},
              {"content_bytes", header.content_bytes},
              {"crc32", crc32_hex(header.crc32)},
              {"blocks", header.block_count},
              {"part_bytes", header.part_bytes},
              {"format_version", header.format_version},
              {"sealed_at", rfc3339(header.sealed_unix_ms)}};
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
  return Json{{"transfer_id", r.transfer_id},
              {"source", to_json(r.source)},
              {"source_extent", r.source_extent},
              {"target", to_json(r.target)},
              {"target_extent", r.target_extent},
              {"source_device", r.source_device},
              {"target_device", r.target_device},
              {"bytes", r.bytes},
              {"source_crc32", crc32_hex(r.source_crc32)},
              {"target_crc32", crc32_hex(r.target_crc32)},
              {"header", to_json(r.header)},
              {"private_id", to_hex(r.private_id)},
              {"data_endpoint", r.data_endpoint},
              {"lanes", r.lanes},
              {"started_at", rfc3339(r.started_unix_ms)},
              {"finished_at", rfc3339(r.finished_unix_ms)},
              {"attempts", r.attempts},
              {"fallback_parts", r.fallback_parts},
              {"already_there", r.already_there}};
}

Json to_json(const Progress& p) {
  return Json{{"phase", to_string(p.phase)},        {"total_bytes", p.total_bytes},
              {"received_bytes", p.received_bytes}, {"durable_bytes", p.durable_bytes},
              {"extents_total", p.extents_total},   {"extents_done", p.extents_done},
              {"extents_failed", p.extents_failed}, {"data_endpoint", p.data_endpoint},
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
