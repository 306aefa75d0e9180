#include "plugin/osd/osd_identity.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string_view>

namespace siphon::osd {
namespace {

// If arguments[i] is the option `names` (a long or a short spelling), stores its value and returns
// true, moving `i` to the last argument used.
bool take_option(std::span<const std::string> arguments, std::size_t& i, std::string_view long_name,
                 std::string_view short_name, std::string& value) {
  const std::string_view argument = arguments[i];
  for (const std::string_view name : {long_name, short_name}) {
    if (name.empty() || !argument.starts_with(name)) continue;
    const std::string_view rest = argument.substr(name.size());
    if (rest.empty()) {
      if (i + 1 >= arguments.size()) return false;
      value = arguments[++i];
      return true;
    }
    if (rest.front() == '=') {
      value = rest.substr(1);
      return true;
    }
    if (name == short_name) {
      value = rest;
      return true;
    }
  }
  return false;
}

std::string_view base_name(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

}  // namespace

OsdIdentity parse_osd_identity(std::span<const std::string> arguments, const char* ceph_args) {
  OsdIdentity identity;
  if (arguments.empty() || base_name(arguments[0]) != "ceph-osd") return identity;
  identity.in_ceph_osd = true;

  std::istringstream from_environment(ceph_args != nullptr ? ceph_args : "");
  std::vector<std::string> all{std::istream_iterator<std::string>(from_environment), {}};
  all.insert(all.end(), arguments.begin() + 1, arguments.end());

  for (std::size_t i = 0; i < all.size() && all[i] != "--"; ++i) {
    std::string name;
    if (take_option(all, i, "--name", "-n", name)) {
      const std::size_t dot = name.find('.');
      if (dot != std::string::npos) identity.id = name.substr(dot + 1);
    } else {
      take_option(all, i, "--id", "-i", identity.id) ||
          take_option(all, i, "--conf", "-c", identity.conf) ||
          take_option(all, i, "--cluster", "", identity.cluster) ||
          take_option(all, i, "--keyring", "-k", identity.keyring);
    }
  }
  identity.is_osd =
      !identity.id.empty() && std::all_of(identity.id.begin(), identity.id.end(),
                                          [](char c) { return c >= '0' && c <= '9'; });
  return identity;
}

std::vector<std::string> own_command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> arguments;
  for (std::string argument; std::getline(file, argument, '\0');) arguments.push_back(argument);
  return arguments;
}

std::vector<std::string> companion_arguments(const OsdIdentity& identity) {
  std::vector<std::string> arguments{"siphond", "--companion", "--id", identity.id};
  const auto add = [&](const char* option, const std::string& value) {
    if (value.empty()) return;
    arguments.emplace_back(option);
    arguments.push_back(value);
  };
  add("--conf", identity.conf);
  add("--cluster", identity.cluster);
  add("--keyring", identity.keyring);
  return arguments;
}

}  // namespace siphon::osd
