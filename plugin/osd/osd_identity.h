// Which OSD this process is, as its command line says: what the companion needs to connect as it.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace siphon::osd {

// Empty fields were not given: the companion's librados then uses its own defaults.
struct OsdIdentity {
  bool in_ceph_osd = false;  // what runs is a ceph-osd
  bool is_osd = false;       // ... and has an id
  std::string id;            // "3" for osd.3
  std::string conf;
  std::string cluster;
  std::string keyring;
};

// Understands the spellings ceph-osd does (`-i 3`, `--id=3`, `-n osd.3`, `-c`, `--conf`,
// `--cluster`, `-k`, `--keyring`); the last one wins. `arguments` includes argv[0]; `ceph_args` is
// CEPH_ARGS or null, and comes before the command line, as in Ceph.
OsdIdentity parse_osd_identity(std::span<const std::string> arguments, const char* ceph_args);

// The running process's arguments; empty when they cannot be read.
std::vector<std::string> own_command_line();

// The companion's arguments: {"siphond", "--companion", "--id", ...}.
std::vector<std::string> companion_arguments(const OsdIdentity& identity);

}  // namespace siphon::osd
