// What only an OSD's own host can see: the unit that its process belongs to.
//
// Reads /proc and systemd's files; `root` stands before each path, for tests.
#pragma once

#include <cstdint>
#include <string>

#include "plugin/cli/doctor/facts.h"

namespace siphon::cli::doctor {

// Of the OSD whose companion has that pid here. Not seen: no such process is a companion.
Fact<LocalFacts> look_at_process(std::uint32_t companion_pid, const std::string& root = "");

// The unit of Ceph's in the text of /proc/PID/cgroup; empty: none.
std::string unit_in(const std::string& cgroup);

// The last OOMPolicy= that the unit's file and drop-ins set; empty: none of them does.
std::string oom_policy_of(const std::string& unit, const std::string& root = "");

}  // namespace siphon::cli::doctor
