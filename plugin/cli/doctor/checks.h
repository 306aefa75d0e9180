// What `siphon doctor` makes of the facts: one small pure function per check.
//
// Each appends its findings, at least one per thing that it looks at: what is well is said as well,
// and what cannot be seen from here is said as such. Thread compatible.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "plugin/cli/doctor/facts.h"

namespace siphon::cli::doctor {

enum class Severity { kOk, kNote, kWarning, kError };
std::string_view to_string(Severity severity);  // "warning"

struct Finding {
  std::string check;  // "class-load-list"; docs/operations.md has the table
  Severity severity = Severity::kOk;
  bool seen = true;   // false: nobody here can tell; the severity is kNote
  std::string about;  // "osd.3", "pool p1", "cluster", "client.mover"
  std::string what;   // one sentence
  std::string why;    // why it matters; empty when all is well
  std::string mend;   // the command that mends it; empty: nothing to run
  bool operator==(const Finding&) const = default;
};
using Findings = std::vector<Finding>;

void check_mons(const Facts& facts, Findings& out);
void check_cephx(const Facts& facts, Findings& out);
void check_forged_tickets(const Facts& facts, Findings& out);  // CVE-2025-30156
void check_pools(const Facts& facts, Findings& out);
void check_leftovers(const Facts& facts, Findings& out);
void check_osds_up(const Facts& facts, Findings& out);
void check_object_class(const Facts& facts, Findings& out);
void check_layouts(const Facts& facts, Findings& out);
void check_class_lists(const Facts& facts, Findings& out);
void check_companions(const Facts& facts, Findings& out);
void check_versions(const Facts& facts, Findings& out);
void check_reach(const Facts& facts, Findings& out);
void check_ports(const Facts& facts, Findings& out);
void check_tls(const Facts& facts, Findings& out);
void check_clocks(const Facts& facts, Findings& out);
void check_memory(const Facts& facts, Findings& out);
void check_oom_policy(const Facts& facts, Findings& out);
void check_journals(const Facts& facts, Findings& out);
void check_rights(const Facts& facts, Findings& out);

// All of them, in this order.
Findings check_all(const Facts& facts);

}  // namespace siphon::cli::doctor
