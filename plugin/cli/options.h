// Every setting of the command line, where its value came from, and its definition for CLI11.
//
// A flag `--some-name` can also be given as the environment variable SIPHON_SOME_NAME, but for
// those that make a command lose, overwrite or let pass something: a variable of theirs is refused.
// Precedence: flag, environment, for the cluster's CEPH_ARGS and then Ceph's own variables,
// default.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Validator;
}  // namespace CLI

namespace siphon::cli {

enum class Format { kPlain, kJson, kJsonPretty };

// How to connect to a Ceph cluster. Empty: librados' own default.
struct ClusterOptions {
  std::string conf, cluster, id, name, keyring;
  bool operator==(const ClusterOptions&) const = default;
};

struct Options {
  ClusterOptions cluster;
  ClusterOptions source_cluster, target_cluster;  // what differs from `cluster`
  std::string format = "plain";
  std::string progress = "auto";
  bool no_progress = false;
  std::string secret_file, tls_ca, tls_cert, tls_key;
  std::uint32_t timeout_seconds = 20;

  std::uint32_t lanes = 0;
  std::uint64_t bwlimit = 0;
  std::uint32_t max_transfers = 8;
  std::string receipts;
  std::uint64_t block_size = 4u << 20;

  bool allow_changing = false;
  std::string expect_bytes;   // a number by now; empty: not given
  std::string expect_sha256;  // hex; empty: not given
  bool force = false;

  bool dry_run = false;
  bool accept_degraded = false;
  bool check = false;
  bool deep = false;
  bool exact = false;
  std::optional<std::string> nspace;  // what a whole pool means; absent: all of its namespaces
  bool replace = false;
  bool confirmed = false;
  bool open = false;
  bool drop_damaged = false;
  bool purge = false;
  bool corrupt_head = false;
  std::string save;
  bool local = false;
  bool long_listing = false;
  bool finished = false;
  std::string file = "-";
  std::string transfer_id;
  std::string private_id;
  std::string older_than;
  std::string as_entity;                  // doctor: whose rights
  std::vector<std::string> verbs_wanted;  // and for what
  std::vector<std::string> names;

  // "--conf" -> "flag", "SIPHON_CONF", "CEPH_ARGS", "CEPH_CONF" or "default".
  std::map<std::string, std::string> origins;

  Format output_format() const;
};

// Groups of settings, attached to each verb that obeys them.
void add_output_settings(CLI::App& app, Options& options);
void add_ceph_settings(CLI::App& app, Options& options);
void add_two_cluster_settings(CLI::App& app, Options& options);
void add_device_settings(CLI::App& app, Options& options);
void add_transfer_settings(CLI::App& app, Options& options);

// After parsing: fills what no flag set from the environment, then from Ceph's; records every
// origin. Throws what CLI11 throws for a bad value, and for a variable that may not be one.
// `chain`: the app and the verb that was chosen.
void apply_environment(const std::vector<CLI::App*>& chain, Options& options);

// For CLI11: a size of "4096", "50M", "5.5 GiB" becomes its number of bytes, by parse_bytes; a
// count is decimal digits.
CLI::Validator size_value();
CLI::Validator count_value();

// "--conf" -> "SIPHON_CONF"
std::string environment_name(const std::string& flag);

}  // namespace siphon::cli
