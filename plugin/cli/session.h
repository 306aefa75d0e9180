// Session: one run of the CLI. Opens clusters, folders and devices when a verb asks for them: of
// the CLI, only this and the search for devices (devices.h) name concrete adapters. Also Ctrl-C.
//
// Thread safe, but for `out` (the verb's own thread).
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "adapters/extent_store.h"
#include "plugin/base/status.h"
#include "plugin/cli/address.h"
#include "plugin/cli/options.h"
#include "plugin/cli/output.h"
#include "plugin/cli/progress.h"
#include "plugin/core/mutex.h"
#include "plugin/rpc/client.h"

namespace siphon {
class RadosCluster;
}

namespace siphon::cli {

// Which cluster a Ceph address means when there are two.
enum class Role { kOnly, kSource, kTarget };

class Session {
 public:
  Session(Options options, const std::string& verb);
  ~Session();

  const Options& options() const { return options_; }
  Output& out() { return out_; }
  ProgressMeter& meter() { return meter_; }

  // Connects at the first call. The cluster lives as long as the session.
  Result<RadosCluster*> cluster(Role role);
  // With the pool's id, which a command looks up once: whatever has the name later is another pool.
  Result<Location> bound(Location location, Role role);
  // The store of a Ceph or folder address. A daemon's store cannot be opened from here:
  // UNIMPLEMENTED says what to do instead.
  Result<ExtentStore*> store(const Address& address, Role role = Role::kOnly);
  Result<std::unique_ptr<rpc::DeviceClient>> device(const std::string& address) const;
  rpc::ClientOptions device_options() const;

  // Set by the first SIGINT or SIGTERM; the second ends the process at once.
  const std::atomic<bool>& stop() const;
  bool interrupted() const { return stop().load(); }
  // Waits; false at once when interrupted.
  bool wait(std::chrono::milliseconds time) const;

  // The exit status, with the error shown, when `what` is asked for in earnest but without
  // --yes-i-really-mean-it.
  std::optional<int> refused(const std::string& what);
  // "siphon CONNECTION WORDS", to be pasted: with the connection that the user named. With a role,
  // it is about that end of two alone, and names its cluster as if there were no other.
  std::string command(const std::string& words, Role role = Role::kOnly) const;
  // A file that this run makes and removes again: who ends it at once is told that it is left.
  // "": there is none. Not thread safe.
  void note_temporary(const std::string& file);
  // The message of a change that Ctrl-C broke off.
  static Error interrupted_error(const std::string& what);
  // A part of `store` could not be listed: told once, and whatever goes by that listing is partial.
  void note_unlisted(const std::string& store, const Error& error);
  bool listed_all() const;
  // As documents have it: what could not be listed, and why.
  Json unlisted() const;
  // Of a verb that did what it was asked with all that was listed.
  Exit exit_of_listed(Exit exit) const;

 private:
  struct Cluster;
  ClusterOptions cluster_options(Role role) const;

  const Options options_;
  Output out_;
  ProgressMeter meter_;
  mutable Mutex mutex_;
  // The store, and why.
  std::vector<std::pair<std::string, Error>> unlisted_ SIPHON_GUARDED_BY(mutex_);
  std::map<Role, Cluster*> by_role_ SIPHON_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Cluster>> clusters_ SIPHON_GUARDED_BY(mutex_);
  std::map<std::string, std::unique_ptr<StoreProvider>> folders_ SIPHON_GUARDED_BY(mutex_);
};

// Installs the handlers of SIGINT, SIGTERM and SIGPIPE.
void install_signal_handlers();

}  // namespace siphon::cli
