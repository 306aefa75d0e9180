// The cluster that with_cluster started (SIPHON_TEST_CONF), as the tests of the RADOS adapters use
// it: one connection, pools made on demand, the region of an OSD, and a look behind the stores'
// backs through librados alone.
//
// One per process; not thread safe. What cannot be had ends the program with a message: a cluster
// test that cannot run has failed.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "adapters/objclass/exchange_client.h"
#include "adapters/rados/rados_cluster.h"
#include "adapters/rados/rados_internal.h"
#include "plugin/base/types.h"

namespace siphon::contract {

[[noreturn]] inline void give_up(const std::string& why) {
  std::fprintf(stderr, "cluster tests: %s\n", why.c_str());
  std::exit(1);
}

inline std::string environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) give_up(std::string(name) + " is not set: run this under with_cluster");
  return value;
}

// Stops a process, as a hang would, for as long as this object lives.
class Stopped {
 public:
  explicit Stopped(pid_t pid) : pid_(pid) {
    ::kill(pid_, SIGSTOP);
    while (!all_threads_stopped()) ::sched_yield();  // the signal reaches them one by one
  }
  ~Stopped() { ::kill(pid_, SIGCONT); }
  Stopped(const Stopped&) = delete;
  Stopped& operator=(const Stopped&) = delete;

 private:
  bool all_threads_stopped() const {
    const auto tasks = "/proc/" + std::to_string(pid_) + "/task";
    for (const auto& task : std::filesystem::directory_iterator(tasks)) {
      std::string line;
      std::getline(std::ifstream(task.path() / "stat"), line);
      const std::size_t name_end = line.rfind(") ");  // "pid (name) state ..."
      if (name_end != std::string::npos && line[name_end + 2] != 'T') return false;
    }
    return true;
  }

  const pid_t pid_;
};

class ClusterUnderTest {
 public:
  static ClusterUnderTest& get() {
    static ClusterUnderTest cluster;
    return cluster;
  }

  RadosCluster& connection() { return *connection_; }
  std::unique_ptr<RadosCluster> connect_as(const std::string& name, const std::string& key,
                                           RadosOptions options = {}) {
    options.conf_path = environment("SIPHON_TEST_CONF");
    options.name = name;
    if (!key.empty()) options.overrides["key"] = key;
    auto cluster = RadosCluster::connect(options);
    if (!cluster) give_up(cluster.error().message);
    return *std::move(cluster);
  }

  // The administrator's connection with so short a patience that a test can wait for its end.
  std::unique_ptr<RadosCluster> connect_impatient() {
    RadosOptions options;
    options.osd_timeout = options.mon_timeout = options.connect_timeout = std::chrono::seconds(1);
    return connect_as("client.admin", "", options);
  }
  // "osd.0", "mon.a"
  static pid_t pid_of(const std::string& daemon) {
    pid_t pid = 0;
    std::ifstream(environment("SIPHON_TEST_DIR") + "/run/" + daemon + ".pid") >> pid;
    if (pid <= 0) give_up("no pid file of " + daemon);
    return pid;
  }

  // A command to the mon, as JSON; returns what it prints.
  std::string command(const std::string& json) {
    librados::bufferlist out;
    std::string status;
    const int result = connection_->impl().rados.mon_command(json, {}, &out, &status);
    if (result < 0) give_up(json + ": " + status);
    return {out.c_str(), out.length()};
  }
  // Makes the pool, tagged for siphon, if it is not there. `more` are further JSON members.
  void need_pool(const std::string& pool, const std::string& more = {}, int groups = 8) {
    if (connection_->pool_id(pool)) return;
    command(R"({"prefix": "osd pool create", "pg_num": )" + std::to_string(groups) +
            R"(, "pool": ")" + pool + "\"" + more + "}");
    command(R"({"prefix": "osd pool application enable", "app": "siphon", "pool": ")" + pool +
            "\"}");
    connection_->impl().rados.wait_for_latest_osdmap();
  }
  void need_erasure_pool(const std::string& pool, bool overwrites) {
    if (connection_->pool_id(pool)) return;
    command(R"({"prefix": "osd erasure-code-profile set", "name": "k2m1", "force": true,
                "profile": ["k=2", "m=1", "crush-failure-domain=osd"]})");
    need_pool(pool, R"(, "pool_type": "erasure", "erasure_code_profile": "k2m1")");
    if (!overwrites) return;
    command(R"({"prefix": "osd pool set", "var": "allow_ec_overwrites", "val": "true",
                "pool": ")" +
            pool + "\"}");
    connection_->impl().rados.wait_for_latest_osdmap();
  }

  // Which placement group the mon says that a name is in: "3.1a".
  std::string group_of(const Location& location, const std::string& name) {
    const std::string map =
        command(R"({"prefix": "osd map", "format": "json", "pool": ")" + location.pool +
                R"(", "nspace": ")" + location.nspace + R"(", "object": ")" + name + "\"}");
    static constexpr std::string_view kKey = R"("pgid":")";
    const std::size_t at = map.find(kKey);
    if (at == map.npos) give_up("no pgid in " + map);
    const std::size_t from = at + kKey.size();
    return map.substr(from, map.find('"', from) - from);
  }

  // The region of one of this cluster's OSDs, as its companion would have it.
  ExchangeClient& exchange() {
    if (!exchange_) exchange_ = find_exchange();
    return *exchange_;
  }

  librados::IoCtx context(const Location& location, const std::string& locator = {}) {
    auto pool = rados_internal::open_pool(*connection_, location);
    if (!pool) give_up(pool.error().message);
    return rados_internal::with_locator(*pool, locator);
  }
  // Names of all objects with this locator key.
  std::vector<std::string> objects_of(const Location& location, const std::string& locator) {
    librados::IoCtx io = context(location);
    std::vector<std::string> objects;
    for (auto it = io.nobjects_begin(); it != io.nobjects_end(); ++it) {
      if (it->get_locator() == locator) objects.push_back(it->get_oid());
    }
    return objects;
  }

 private:
  ClusterUnderTest() : connection_(connect_as("client.admin", "")) {}

  static std::unique_ptr<ExchangeClient> find_exchange() {
    namespace fs = std::filesystem;
    const fs::path run = fs::path(environment("SIPHON_TEST_DIR")) / "run";
    for (const auto& entry : fs::directory_iterator(run)) {
      const std::string file = entry.path().filename();
      if (!file.starts_with("osd.") || !file.ends_with(".pid")) continue;
      std::string pid;
      std::ifstream(entry.path()) >> pid;
      for (const auto& fd : fs::directory_iterator("/proc/" + pid + "/fd")) {
        std::error_code ignored;
        const std::string link = fs::read_symlink(fd.path(), ignored);
        if (!link.starts_with("/memfd:siphon-region")) continue;
        const int region = ::open(fd.path().c_str(), O_RDWR | O_CLOEXEC);
        if (region < 0) give_up("open " + fd.path().string() + ": not root?");
        auto client = ExchangeClient::map(region);
        ::close(region);
        if (!client) give_up(client.error().message);
        return *std::move(client);
      }
    }
    give_up("no OSD here has a region: is the plugin loaded?");
  }

  std::unique_ptr<RadosCluster> connection_;
  std::unique_ptr<ExchangeClient> exchange_;
};

// Keeps a flag of the OSD map ("nodown") set for as long as this object lives.
class OsdFlag {
 public:
  OsdFlag(ClusterUnderTest& cluster, std::string flag) : cluster_(cluster), flag_(std::move(flag)) {
    change("osd set");
  }
  ~OsdFlag() { change("osd unset"); }
  OsdFlag(const OsdFlag&) = delete;
  OsdFlag& operator=(const OsdFlag&) = delete;

 private:
  void change(const std::string& verb) {
    cluster_.command(R"({"prefix": ")" + verb + R"(", "key": ")" + flag_ + "\"}");
  }

  ClusterUnderTest& cluster_;
  const std::string flag_;
};

}  // namespace siphon::contract
