#include "plugin/agent/config.h"

#include <toml++/toml.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <functional>
#include <map>
#include <sstream>

namespace siphon::agent {

namespace {

// A key, how to set it from text, and its default as text.
struct Key {
  std::string name;
  std::function<Status(Config&, const std::string&)> set;
  std::string fallback;
};

Status bad(const std::string& what) { return fail(Code::kInvalidArgument, what); }

Result<std::uint64_t> number(const std::string& text, std::uint64_t least, std::uint64_t most) {
  std::uint64_t value = 0;
  const auto end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end || value < least || value > most) {
    return fail(Code::kInvalidArgument, "'" + text + "' is not a number from " +
                                            std::to_string(least) + " to " + std::to_string(most));
  }
  return value;
}

template <typename T>
Key numeric(std::string name, T Config::*member, std::uint64_t least, std::uint64_t most) {
  const Config defaults;
  return {std::move(name),
          [=](Config& c, const std::string& text) -> Status {
            auto value = number(text, least, most);
            if (!value) return fail(std::move(value).error());
            c.*member = static_cast<T>(*value);
            return {};
          },
          std::to_string(defaults.*member)};
}

template <typename Struct, typename T>
Key numeric(std::string name, Struct Config::*group, T Struct::*member, std::uint64_t least,
            std::uint64_t most) {
  const Config defaults;
  return {std::move(name),
          [=](Config& c, const std::string& text) -> Status {
            auto value = number(text, least, most);
            if (!value) return fail(std::move(value).error());
            (c.*group).*member = static_cast<T>(*value);
            return {};
          },
          std::to_string((defaults.*group).*member)};
}

Key text(std::string name, const std::function<std::string&(Config&)>& where) {
  Config defaults;
  return {std::move(name),
          [where](Config& c, const std::string& value) -> Status {
            where(c) = value;
            return {};
          },
          where(defaults)};
}

Status set_listen(Config& c, const std::string& value) {
  const auto colon = value.rfind(':');
  if (colon == std::string::npos)
    return bad("'" + value + "' is not ADDRESS:PORT or ADDRESS:FIRST-LAST");
  auto address = parse_address(value.substr(0, colon));
  if (!address) return fail(std::move(address).error());
  auto ports = parse_port_range(value.substr(colon + 1));
  if (!ports) return fail(std::move(ports).error());
  // It is also what the daemon tells requesters, and who may be asked for a certificate.
  if (is_wildcard(*address)) {
    return bad("a wildcard (" + *address +
               ") is not allowed: name the address that requesters reach");
  }
  c.server.address = *address;
  c.server.ports = *ports;
  return {};
}

Status set_data_address(Config& c, const std::string& value) {
  auto address = parse_address(value);
  if (!address) return fail(std::move(address).error());
  if (is_wildcard(*address)) {
    return bad("a wildcard (" + value + ") is not allowed: name the address that sources reach");
  }
  c.transfer.data_address = *address;
  return {};
}

Status set_data_ports(Config& c, const std::string& value) {
  auto ports = parse_port_range(value);
  if (!ports) return fail(std::move(ports).error());
  c.transfer.data_ports = *ports;
  return {};
}

Status set_peers(Config& c, const std::string& value) {
  c.peers.clear();
  std::istringstream in(value);
  for (std::string item; std::getline(in, item, ',');) {
    auto address = parse_address(item);
    if (!address) return fail(std::move(address).error());
    c.peers.push_back(*address);
  }
  return {};
}

Status set_level(Config& c, const std::string& value) {
  for (const char* level : {"debug", "info", "warn", "error"}) {
    if (value == level) {
      c.log_level = value;
      return {};
    }
  }
  return bad("'" + value + "' is none of debug, info, warn, error");
}

Status set_idle(Config& c, const std::string& value) {
  auto ms = number(value, 1000, 3600 * 1000);
  if (!ms) return fail(std::move(ms).error());
  c.transfer.minimum_rate.idle_timeout = std::chrono::milliseconds(*ms);
  return {};
}

Status set_grace(Config& c, const std::string& value) {
  auto hours = number(value, 0, 24 * 3650);
  if (!hours) return fail(std::move(hours).error());
  c.store.trash_grace_ms = *hours * 3600 * 1000;
  return {};
}

Status set_rate(Config& c, const std::string& value) {
  auto rate = number(value, 0, ~0ull);
  if (!rate) return fail(std::move(rate).error());
  SIPHON_TRY(check_rate(*rate));
  c.transfer.bytes_per_second = *rate;
  return {};
}

std::vector<Key> make_keys() {
  constexpr std::uint64_t kAny = ~0ull;
  using T = TransferSettings;
  using L = StoreLimits;
  return {
      {"control.listen", set_listen, "127.0.0.1:7400-7499"},
      text("secret_file", [](Config& c) -> std::string& { return c.server.secret_file; }),
      text("tls.ca", [](Config& c) -> std::string& { return c.server.tls_ca_file; }),
      text("tls.cert", [](Config& c) -> std::string& { return c.server.tls_cert_file; }),
      text("tls.key", [](Config& c) -> std::string& { return c.server.tls_key_file; }),
      {"data.address", set_data_address, "127.0.0.1"},
      {"data.ports", set_data_ports, "7500-7999"},
      numeric("transfer.lanes", &Config::transfer, &T::lanes, 1, kMaxLanes),
      numeric("transfer.max_transfers", &Config::transfer, &T::max_transfers, 1, 64),
      numeric("transfer.writers", &Config::transfer, &T::writers, 1, 64),
      {"transfer.bytes_per_second", set_rate, "0"},
      numeric("transfer.max_extent_bytes", &Config::transfer, &T::max_extent_bytes, 1, kAny),
      {"transfer.idle_timeout_ms", set_idle, "30000"},
      numeric("store.part_bytes", &Config::store, &L::part_bytes, 64 * kKiB, 64 * kMiB),
      numeric("store.operation_bytes", &Config::store, &L::operation_bytes, 64 * kKiB, 8 * kMiB),
      numeric("store.inline_max_bytes", &Config::store, &L::inline_max_bytes, 0, 4 * kMiB),
      numeric("store.read_depth", &Config::store, &L::read_depth, 1, 16),
      numeric("trash.keep", &Config::store, &L::kept_generations, 1, L::kMostKept),
      {"trash.grace_hours", set_grace, "168"},
      numeric("store.write_target_ms", &Config::store, &L::write_target_ms, 1, 1000),
      text("ceph.name", [](Config& c) -> std::string& { return c.ceph_name; }),
      text("ceph.keyring", [](Config& c) -> std::string& { return c.ceph_keyring; }),
      numeric("ceph.osd_timeout_seconds", &Config::osd_timeout_seconds, 1, 3600),
      numeric("memory.arena_mib", &Config::arena_mib, 16, 1024),
      numeric("memory.data_limit_mib", &Config::data_limit_mib, 512, 65536),
      text("journal.file", [](Config& c) -> std::string& { return c.journal_file; }),
      {"log.level", set_level, "info"},
      text("log.file", [](Config& c) -> std::string& { return c.log_file; }),
      {"peers.allow", set_peers, "127.0.0.1,::1"},
  };
}

std::string environment_name(const std::string& key) {
  std::string name = "SIPHOND_" + key;
  for (char& c : name) c = c == '.' ? '_' : static_cast<char>(std::toupper(c));
  return name;
}

Result<std::string> value_text(const std::string& key, const toml::node& node) {
  if (auto v = node.value<std::string>()) return *v;
  if (auto v = node.value<std::int64_t>(); v && node.is_integer()) return std::to_string(*v);
  if (const toml::array* array = node.as_array()) {
    std::string joined;
    for (const toml::node& item : *array) {
      auto item_text = item.value<std::string>();
      if (!item_text) return fail(Code::kInvalidArgument, key + ": a list of strings is expected");
      joined += (joined.empty() ? "" : ",") + *item_text;
    }
    return joined;
  }
  return fail(Code::kInvalidArgument, key + ": a string, a whole number or a list is expected");
}

// Flattens [table] key = value into "table.key" -> text.
Result<std::map<std::string, std::string>> read_file(const std::string& file) {
  std::map<std::string, std::string> values;
  if (file.empty()) return values;
  toml::table root;
  try {
    root = toml::parse_file(file);
  } catch (const toml::parse_error& e) {
    return fail(Code::kInvalidArgument, "configuration " + file + ": line " +
                                            std::to_string(e.source().begin.line) + ": " +
                                            std::string(e.description()));
  }
  for (const auto& [first, node] : root) {
    const std::string name(first.str());
    if (const toml::table* table = node.as_table()) {
      for (const auto& [second, inner] : *table) {
        const std::string key = name + "." + std::string(second.str());
        auto value = value_text(key, inner);
        if (!value) return fail(std::move(value).error().with_context("configuration " + file));
        values[key] = *value;
      }
    } else {
      auto value = value_text(name, node);
      if (!value) return fail(std::move(value).error().with_context("configuration " + file));
      values[name] = *value;
    }
  }
  return values;
}

}  // namespace

Result<Config> load_config(const std::string& file, const std::vector<std::string>& flags,
                           std::vector<Setting>* settings) {
  auto from_file = read_file(file);
  if (!from_file) return fail(std::move(from_file).error());
  std::map<std::string, std::string> from_flags;
  for (const std::string& flag : flags) {
    const auto equals = flag.find('=');
    if (equals == std::string::npos)
      return fail(Code::kInvalidArgument, "--set " + flag + ": KEY=VALUE is expected");
    from_flags[flag.substr(0, equals)] = flag.substr(equals + 1);
  }
  Config config;
  for (const Key& key : make_keys()) {
    Setting setting{key.name, environment_name(key.name), key.fallback, "default"};
    if (auto it = from_file->find(key.name); it != from_file->end()) {
      setting.value = it->second;
      setting.origin = "file";
      from_file->erase(it);
    }
    if (const char* value = std::getenv(setting.environment.c_str())) {
      setting.value = value;
      setting.origin = "environment";
    }
    if (auto it = from_flags.find(key.name); it != from_flags.end()) {
      setting.value = it->second;
      setting.origin = "flag";
      from_flags.erase(it);
    }
    if (Status s = key.set(config, setting.value); !s) {
      return fail(std::move(s).error().with_context(key.name + " (from " + setting.origin + ")"));
    }
    if (settings != nullptr) settings->push_back(std::move(setting));
  }
  for (const auto* left : {&*from_file, &from_flags}) {
    if (!left->empty()) {
      return fail(Code::kInvalidArgument,
                  "unknown setting " + left->begin()->first +
                      (left == &from_flags ? " on the command line" : " in " + file),
                  Side::kNone, "siphond --check-config lists those that exist");
    }
  }
  if (config.store.inline_max_bytes > config.store.part_bytes) {
    return fail(Code::kInvalidArgument,
                "store.inline_max_bytes (" + std::to_string(config.store.inline_max_bytes) +
                    ") is more than store.part_bytes (" + std::to_string(config.store.part_bytes) +
                    "): an extent that is written at once is no larger than a part",
                Side::kNone, "lower the first or raise the second");
  }
  // A frame is one operation of the store; two of them are the least a transfer gets.
  config.transfer.max_frame_bytes = config.store.operation_bytes;
  config.transfer.paced_frame_bytes =
      std::min<std::uint32_t>(config.transfer.paced_frame_bytes, config.store.operation_bytes);
  config.server.peer_patience = config.transfer.minimum_rate.idle_timeout;
  config.store.max_extent_bytes = config.transfer.max_extent_bytes;
  return config;
}

void insert_osd_id(Config& config, const std::string& osd_id) {
  for (std::string* text :
       {&config.journal_file, &config.log_file, &config.ceph_name, &config.ceph_keyring}) {
    for (auto at = text->find("$id"); at != std::string::npos; at = text->find("$id", at)) {
      text->replace(at, 3, osd_id);
      at += osd_id.size();
    }
  }
}

Status check_companion(const Config& config) {
  if (config.server.secret_file.empty()) return {};
  return fail(Code::kFailedPrecondition,
              "secret_file " + config.server.secret_file +
                  " is for stand-alone daemons: beside an OSD it would give every pool to whoever "
                  "knows it, without a cephx cap",
              Side::kNone,
              "take secret_file out of this configuration; requesters need "
              "'allow class siphon grant_read' and 'grant_write' caps only");
}

std::string default_config_file(const std::string& ceph_conf) {
  if (const char* named = std::getenv("SIPHON_CONFIG")) return named;
  std::vector<std::string> candidates;
  if (const auto slash = ceph_conf.rfind('/'); slash != std::string::npos) {
    candidates.push_back(ceph_conf.substr(0, slash) + "/siphond.toml");
  }
  candidates.emplace_back("/etc/siphon/siphond.toml");
  for (const std::string& candidate : candidates) {
    if (::access(candidate.c_str(), F_OK) == 0) return candidate;
  }
  return {};
}

}  // namespace siphon::agent
