// doctor: what is wrong with a cluster's Siphon, why it matters, and what mends it.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "plugin/base/text.h"
#include "plugin/cli/commands.h"
#include "plugin/cli/doctor/checks.h"
#include "plugin/cli/doctor/gather.h"
#include "plugin/cli/verbs.h"

namespace siphon::cli {
namespace {

using doctor::Finding;
using doctor::Findings;
using doctor::Severity;

Json to_json(const Finding& f) {
  return Json{{"check", f.check},
              {"severity", doctor::to_string(f.severity)},
              {"seen", f.seen},
              {"about", f.about},
              {"what", f.what},
              {"why", f.why.empty() ? Json() : Json(f.why)},
              {"mend", f.mend.empty() ? Json() : Json(pasteable(f.mend))}};
}

constexpr std::size_t kNamedAtMost = 4;  // things of which a check is well, for people

// What stands first is what to do first; among equals in the order of the checks.
void show(Session& session, Findings findings) {
  std::ranges::stable_sort(findings, [](const Finding& a, const Finding& b) {
    return std::pair(a.severity, a.seen) > std::pair(b.severity, b.seen);
  });
  Table well({{"OK"}, {"OF", true}, {"ABOUT"}, {"WHAT"}});
  std::map<std::string, std::vector<const Finding*>> good;  // by check
  for (const Finding& f : findings) {
    if (f.severity == Severity::kOk) {
      good[f.check].push_back(&f);
      continue;
    }
    session.out().line(fmt::format("{:<8} {} {}: {}",
                                   f.seen ? doctor::to_string(f.severity) : "unseen", f.check,
                                   f.about, f.what));
    if (!f.why.empty()) session.out().line("  why:  " + f.why);
    if (!f.mend.empty()) session.out().line("  next: " + pasteable(f.mend));
  }
  for (const auto& [check, of] : good) {
    std::string about;
    for (std::size_t i = 0; i < std::min(of.size(), kNamedAtMost); ++i) {
      about += (i == 0 ? "" : ", ") + of[i]->about;
    }
    if (of.size() > kNamedAtMost) about += ", ...";
    well.add({check, std::to_string(of.size()), about,
              of.front()->what + (of.size() == 1 ? "" : ", and the like")});
  }
  session.out().table(well);
}

}  // namespace

Result<int> run_doctor(Session& session) {
  auto facts = doctor::gather(session);
  if (!facts) return fail(std::move(facts).error());
  Findings findings = doctor::check_all(*facts);
  std::map<Severity, std::size_t> counts;
  std::size_t unseen = 0;
  Severity worst = Severity::kOk;
  for (const Finding& f : findings) {
    unseen += !f.seen;
    if (f.seen) ++counts[f.severity];
    worst = std::max(worst, f.severity);
  }
  const Exit exit = worst >= Severity::kWarning ? Exit::kNotFit : Exit::kOk;
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["connected_as"] = facts->entity;
    doc["worst"] = doctor::to_string(worst);
    doc["counts"] = Json::object();
    for (const Severity s :
         {Severity::kError, Severity::kWarning, Severity::kNote, Severity::kOk}) {
      doc["counts"][std::string(doctor::to_string(s))] = counts[s];
    }
    doc["counts"]["unseen"] = unseen;
    doc["findings"] = Json::array();
    for (const Finding& f : findings) doc["findings"].push_back(to_json(f));
    session.out().document(std::move(doc), exit);
    return static_cast<int>(exit);
  }
  show(session, std::move(findings));
  session.out().line(fmt::format(
      "{}, {}, {}, {} not seen from here, {} ok", counted(counts[Severity::kError], "error"),
      counted(counts[Severity::kWarning], "warning"), counted(counts[Severity::kNote], "note"),
      unseen, counts[Severity::kOk]));
  return static_cast<int>(exit);
}

}  // namespace siphon::cli
