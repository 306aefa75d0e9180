#include "plugin/cli/doctor/local.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

namespace siphon::cli::doctor {
namespace {

namespace fs = std::filesystem;

std::string text_in(const fs::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

// As systemd.unit(5) has them; a drop-in of an earlier folder hides one of the same name.
constexpr const char* kFolders[] = {"/etc/systemd/system", "/run/systemd/system",
                                    "/usr/lib/systemd/system", "/lib/systemd/system"};

void take_policy(const std::string& text, std::string& policy) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    constexpr std::string_view kKey = "OOMPolicy=";
    if (!line.starts_with(kKey)) continue;
    policy = line.substr(kKey.size());
    while (!policy.empty() && std::isspace(static_cast<unsigned char>(policy.back())) != 0) {
      policy.pop_back();
    }
  }
}

}  // namespace

std::string unit_in(const std::string& cgroup) {
  std::string unit, part;
  for (const char c : cgroup + "\n") {
    if (c != '/' && c != '\n') {
      part += c;
      continue;
    }
    if (part.starts_with("ceph") && part.ends_with(".service")) unit = part;
    part.clear();
  }
  return unit;
}

std::string oom_policy_of(const std::string& unit, const std::string& root) {
  std::vector<std::string> names{unit};
  if (const std::size_t at = unit.find('@'); at != std::string::npos) {
    names.push_back(unit.substr(0, at + 1) + ".service");  // of all its instances
  }
  std::string policy;
  for (const std::string& name : names) {
    for (const char* folder : kFolders) {
      const fs::path file = root + folder + "/" + name;
      std::error_code error;
      if (!fs::is_regular_file(file, error)) continue;
      take_policy(text_in(file), policy);
      break;
    }
  }
  std::map<std::string, fs::path> drop_ins;  // by name, which is their order
  for (const char* folder : kFolders) {
    for (const std::string& name : names) {
      std::error_code error;
      for (const auto& entry : fs::directory_iterator(root + folder + "/" + name + ".d", error)) {
        if (entry.path().extension() != ".conf") continue;
        drop_ins.try_emplace(entry.path().filename(), entry.path());
      }
    }
  }
  for (const auto& [name, file] : drop_ins) take_policy(text_in(file), policy);
  return policy;
}

Fact<LocalFacts> look_at_process(std::uint32_t companion_pid, const std::string& root) {
  using Seen = Fact<LocalFacts>;
  if (companion_pid == 0) return Seen::not_seen("its siphond does not tell its pid");
  const std::string process = root + "/proc/" + std::to_string(companion_pid);
  const std::string command = text_in(process + "/cmdline");
  const bool is_one = command.find(std::string("\0--companion\0", 13)) != std::string::npos;
  if (!is_one) {
    return Seen::not_seen("no siphond with pid " + std::to_string(companion_pid) +
                          " is among this host's processes");
  }
  LocalFacts facts;
  facts.unit = unit_in(text_in(process + "/cgroup"));
  if (!facts.unit.empty()) facts.oom_policy = oom_policy_of(facts.unit, root);
  return facts;
}

}  // namespace siphon::cli::doctor
