#include "plugin/cli/doctor/checks.h"

#include <fmt/format.h>

#include <charconv>

#include "plugin/cli/doctor/report.h"

namespace siphon::cli::doctor {

std::string_view to_string(Severity severity) {
  switch (severity) {
    case Severity::kNote:
      return "note";
    case Severity::kWarning:
      return "warning";
    case Severity::kError:
      return "error";
    case Severity::kOk:
      break;
  }
  return "ok";
}

std::string name_of(const OsdFacts& osd) { return "osd." + std::to_string(osd.id); }

std::vector<const OsdFacts*> living(const Facts& facts, const std::string& check,
                                    const std::string& what, Findings& out) {
  std::vector<const OsdFacts*> osds;
  if (!facts.osds) {
    Reporter(out, check, "cluster").unseen(what, facts.osds.unseen);
    return osds;
  }
  for (const OsdFacts& osd : *facts.osds) {
    if (osd.up) osds.push_back(&osd);
  }
  return osds;
}

std::string at_host(const OsdFacts& osd, const std::string& command) {
  return command + (osd.host.empty() ? std::string() : "  # on " + osd.host);
}

std::string restart(const OsdFacts& osd) {
  return fmt::format("systemctl restart ceph-osd@{}", osd.id);
}

std::vector<std::string> words_of_list(const std::string& text) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : text + " ") {
    if (std::string_view(" ,;=\t").find(c) == std::string_view::npos) {
      word += c;
    } else if (!word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
  }
  return words;
}

std::string joined(const std::vector<std::string>& parts, const std::string& between) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : between) + part;
  return text;
}

std::optional<Version> parse_version(const std::string& text) {
  Version version{};
  const char* at = text.data();
  const char* end = at + text.size();
  for (std::size_t i = 0; i < version.size(); ++i) {
    const auto [stop, error] = std::from_chars(at, end, version[i]);
    if (error != std::errc()) return std::nullopt;
    at = stop;
    if (i + 1 < version.size() && (at == end || *at++ != '.')) return std::nullopt;
  }
  return version;
}

Findings check_all(const Facts& facts) {
  Findings out;
  for (auto* check :
       {check_mons, check_osds_up, check_object_class, check_layouts, check_class_lists,
        check_companions, check_versions, check_reach, check_ports, check_tls, check_clocks,
        check_memory, check_oom_policy, check_journals, check_pools, check_leftovers, check_cephx,
        check_forged_tickets, check_rights}) {
    check(facts, out);
  }
  return out;
}

}  // namespace siphon::cli::doctor
