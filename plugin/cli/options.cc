#include "plugin/cli/options.h"

#include <CLI/CLI.hpp>
#include <cctype>
#include <cstdlib>
#include <set>
#include <sstream>
#include <tuple>
#include <utility>

#include "plugin/base/text.h"
#include "plugin/transfer/types.h"

namespace siphon::cli {
namespace {

// Behind size_value: none, or what every device accepts.
CLI::Validator rate_value() {
  return {[](std::string& text) -> std::string {
            const bool enough =
                text == "0" || text.size() > 4 || std::stoull(text) >= kLeastBytesPerSecond;
            return enough ? "" : "at least 4K bytes per second, or 0 for no limit";
          },
          ""};
}
// What makes a command lose, overwrite or let pass something is said on its line, or not at all.
// The list is also in `siphon --help` and in docs/operations.md.
const std::set<std::string> kLineOnly = {
    "--accept-degraded", "--all",   "--allow-changing", "--corrupt-head",        "--drop-damaged",
    "--force",           "--purge", "--replace",        "--yes-i-really-mean-it"};

// Whether a SIPHON_ variable has anything to do with it.
bool is_setting(const std::string& flag) {
  return !flag.empty() && flag != "--help" && flag != "--version";
}

// The first long name of an option, "--conf"; empty for positionals.
std::string long_name(const CLI::Option& option) {
  return option.get_lnames().empty() ? std::string() : "--" + option.get_lnames().front();
}

// What CEPH_ARGS says of the identity: librados reads the rest of it by itself, but not these.
void apply_ceph_args(Options& options) {
  const char* text = std::getenv("CEPH_ARGS");
  if (text == nullptr) return;
  const std::map<std::string, std::pair<std::string, std::string*>> wanted = {
      {"-c", {"--conf", &options.cluster.conf}},
      {"--conf", {"--conf", &options.cluster.conf}},
      {"--cluster", {"--cluster", &options.cluster.cluster}},
      {"--id", {"--id", &options.cluster.id}},
      {"--user", {"--id", &options.cluster.id}},
      {"-n", {"--name", &options.cluster.name}},
      {"--name", {"--name", &options.cluster.name}},
      {"-k", {"--keyring", &options.cluster.keyring}},
      {"--keyring", {"--keyring", &options.cluster.keyring}},
  };
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    std::string value;
    const auto equals = word.find('=');
    const auto known = wanted.find(word.substr(0, equals));
    if (known == wanted.end()) continue;
    if (equals != std::string::npos) {
      value = word.substr(equals + 1);
    } else if (!(words >> value)) {
      return;
    }
    const auto& [flag, target] = known->second;
    // A name and an id say the same thing: neither overrides the other's flag.
    const bool named = flag == "--id" || flag == "--name";
    const bool taken =
        named ? !options.cluster.id.empty() || !options.cluster.name.empty() : !target->empty();
    if (taken) continue;
    *target = value;
    options.origins[flag] = "CEPH_ARGS";
  }
}

// What librados takes from its own variables where nothing else says it.
void apply_ceph_variables(Options& options) {
  for (const auto& [name, flag, target] :
       {std::tuple("CEPH_CONF", "--conf", &options.cluster.conf),
        std::tuple("CEPH_KEYRING", "--keyring", &options.cluster.keyring)}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == 0 || !target->empty()) continue;
    *target = value;
    options.origins[flag] = name;
  }
}

void add_cluster_group(CLI::App& app, const std::string& prefix, ClusterOptions& cluster,
                       bool short_names) {
  const std::string group = prefix.empty() ? "Ceph cluster" : "Second Ceph cluster";
  const std::string of = prefix.empty() ? "" : " at the " + prefix.substr(0, prefix.size() - 1);
  auto flag = [&](const std::string& name, const char* letter) {
    return (short_names && *letter != 0 ? std::string(letter) + "," : "") + "--" + prefix + name;
  };
  app.add_option(flag("conf", "-c"), cluster.conf, "Ceph configuration file" + of)
      ->type_name("FILE")
      ->group(group);
  app.add_option(flag("id", ""), cluster.id, "Ceph user, without 'client.'" + of)
      ->type_name("ID")
      ->group(group);
  app.add_option(flag("name", "-n"), cluster.name, "Ceph user, as in client.admin" + of)
      ->type_name("TYPE.ID")
      ->group(group);
  app.add_option(flag("keyring", "-k"), cluster.keyring, "file with the user's key" + of)
      ->type_name("FILE")
      ->group(group);
  app.add_option(flag("cluster", ""), cluster.cluster, "name of the cluster" + of)
      ->type_name("NAME")
      ->group(group);
}

}  // namespace

CLI::Validator size_value() {
  return {[](std::string& text) -> std::string {
            const auto bytes = parse_bytes(text);
            if (!bytes) {
              return "'" + escaped(text) +
                     "' is no size: write a decimal number, with K, M, G or T "
                     "behind it for powers of 1024, as in 5.5M";
            }
            text = std::to_string(*bytes);
            return {};
          },
          ""};
}

CLI::Validator count_value() {
  return {[](std::string& text) -> std::string {
            const bool digits = !text.empty() && text.size() <= 9 &&
                                text.find_first_not_of("0123456789") == std::string::npos;
            if (!digits) return "'" + escaped(text) + "' is no decimal number";
            text = std::to_string(std::stoul(text));  // 010 is ten
            return {};
          },
          ""};
}

Format Options::output_format() const {
  if (format == "json") return Format::kJson;
  return format == "json-pretty" ? Format::kJsonPretty : Format::kPlain;
}

void add_output_settings(CLI::App& app, Options& options) {
  app.add_option("-f,--format", options.format, "plain, json or json-pretty")
      ->check(CLI::IsMember({"plain", "json", "json-pretty"}))
      ->option_text("FORMAT")
      ->group("Output");
  app.add_option("--progress", options.progress,
                 "auto (on a terminal only), none, terminal, plain or json (one object per line)")
      ->check(CLI::IsMember({"auto", "none", "terminal", "plain", "json"}))
      ->option_text("MODE")
      ->group("Output");
  app.add_flag("--no-progress", options.no_progress, "show no progress")->group("Output");
}

void add_ceph_settings(CLI::App& app, Options& options) {
  add_cluster_group(app, "", options.cluster, true);
  app.add_option("--timeout", options.timeout_seconds,
                 "seconds that one operation of the cluster may take")
      ->transform(count_value())
      ->check(CLI::Range(1u, 3600u))
      ->option_text("SECONDS")
      ->group("Ceph cluster");
}

void add_two_cluster_settings(CLI::App& app, Options& options) {
  add_cluster_group(app, "source-", options.source_cluster, false);
  add_cluster_group(app, "target-", options.target_cluster, false);
}

void add_device_settings(CLI::App& app, Options& options) {
  const std::string group = "Devices";
  app.add_option("--secret-file", options.secret_file,
                 "shared secret of the folder daemons (mode 0600)")
      ->type_name("FILE")
      ->group(group);
  app.add_option("--tls-ca", options.tls_ca, "CA certificate that devices must present")
      ->type_name("FILE")
      ->group(group);
  app.add_option("--tls-cert", options.tls_cert, "own certificate")
      ->type_name("FILE")
      ->group(group);
  app.add_option("--tls-key", options.tls_key, "own private key")->type_name("FILE")->group(group);
}

void add_transfer_settings(CLI::App& app, Options& options) {
  const std::string group = "Transfer";
  app.add_option("--lanes", options.lanes, "TCP connections per transfer (0: the target's default)")
      ->transform(count_value())
      ->check(CLI::Range(0u, 16u))
      ->option_text("N")
      ->group(group);
  app.add_option("--bwlimit", options.bwlimit,
                 "bytes per second of the whole command, as in 50M (0: none)")
      ->transform(size_value())
      ->check(rate_value())
      ->option_text("RATE")
      ->group(group);
  app.add_option("--max-transfers", options.max_transfers, "transfers that run at once")
      ->transform(count_value())
      ->check(CLI::Range(1u, 64u))
      ->option_text("N")
      ->group(group);
  app.add_option("--receipts", options.receipts, "append the receipts to FILE, one JSON per line")
      ->type_name("FILE")
      ->group(group);
}

std::string environment_name(const std::string& flag) {
  std::string name = "SIPHON_";
  for (const char c : flag.substr(flag.find_first_not_of('-'))) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

void apply_environment(const std::vector<CLI::App*>& chain, Options& options) {
  // The app and the verb define the same settings; either may have been used.
  std::set<std::string> given;
  for (const CLI::App* app : chain) {
    for (const CLI::Option* option : app->get_options()) {
      const std::string flag = long_name(*option);
      if (!is_setting(flag)) continue;
      options.origins.emplace(flag, "default");
      if (option->count() > 0) {
        given.insert(flag);
        options.origins[flag] = "flag";
      }
    }
  }
  for (CLI::App* app : chain) {
    for (CLI::Option* option : app->get_options()) {
      const std::string flag = long_name(*option);
      if (!is_setting(flag) || given.contains(flag)) continue;
      const std::string name = environment_name(flag);
      const char* value = std::getenv(name.c_str());
      if (value == nullptr || *value == 0) continue;
      if (kLineOnly.contains(flag)) {
        throw CLI::ValidationError(name + " is set, and " + flag +
                                   " is taken from the command line alone: unset the variable");
      }
      option->add_result(std::string(value));
      option->run_callback();
      options.origins[flag] = name;
    }
  }
  apply_ceph_args(options);
  apply_ceph_variables(options);
}

}  // namespace siphon::cli
