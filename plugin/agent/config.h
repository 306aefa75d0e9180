// siphond's settings: one TOML file, an environment variable for each, and a few flags.
// Precedence: flag > environment > file > default. docs/operations.md lists them all.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "adapters/extent_store.h"
#include "plugin/base/status.h"
#include "plugin/rpc/server.h"
#include "plugin/transfer/settings.h"

namespace siphon::agent {

struct Config {
  // [control], [tls], secret_file
  rpc::ServerOptions server;
  // [data], [transfer]
  TransferSettings transfer;
  // [store]
  StoreLimits store;
  // [ceph]: siphond's own name and key, where it is not to be the OSD's
  std::string ceph_name, ceph_keyring;
  std::uint32_t osd_timeout_seconds = 20;
  // [memory]
  std::uint64_t arena_mib = 64;         // bytes in flight of a stand-alone daemon
  std::uint64_t data_limit_mib = 1536;  // RLIMIT_DATA
  // [journal], [log], [peers]
  std::string journal_file;
  std::string log_level = "info", log_file;
  std::vector<std::string> peers{"127.0.0.1", "::1"};  // source addresses of a stand-alone target
};

// One setting as `siphond --check-config` shows it.
struct Setting {
  std::string key;          // "control.listen"
  std::string environment;  // "SIPHOND_CONTROL_LISTEN"
  std::string value;
  std::string origin;  // "default", "file", "environment", "flag"
};

// Reads `file` (empty: none), the environment, then `flags` ("key=value"). INVALID_ARGUMENT names
// the key, its origin and what it should look like; unknown keys are errors.
Result<Config> load_config(const std::string& file, const std::vector<std::string>& flags,
                           std::vector<Setting>* settings);

// Puts the OSD's id where journal.file, log.file, ceph.name and ceph.keyring say "$id": the
// companions of a host share one file.
void insert_osd_id(Config& config, const std::string& osd_id);

// What an OSD's companion may not be configured with. FAILED_PRECONDITION: a secret_file, which
// would stand in for the grants: whoever knows it would have every pool.
Status check_companion(const Config& config);

// The file a companion reads when none is named: SIPHON_CONFIG, siphond.toml beside the ceph.conf,
// /etc/siphon/siphond.toml; empty when there is none.
std::string default_config_file(const std::string& ceph_conf);

}  // namespace siphon::agent
