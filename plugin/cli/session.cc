#include "plugin/cli/session.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <utility>

#include "adapters/posix/posix_store.h"
#include "adapters/rados/rados_cluster.h"
#include "adapters/rados/rados_provider.h"
#include "plugin/base/text.h"
#include "plugin/cli/commands.h"
#include "plugin/cli/stdio.h"

namespace siphon::cli {
namespace {

// Made before anything can be interrupted, and never unmade.
std::atomic<const std::string*> last_words{nullptr};

void set_last_words(const std::string& left) {
  static std::deque<std::string> all;  // a handler may read what was there before
  last_words =
      &all.emplace_back("siphon: ended at once" + (left.empty() ? "" : "; " + left) + "\n");
}

// By which the transfers of a copy or a move are found again: the target's daemon, or the pools.
std::string transfers_words(bool begins_transfers, const Options& options) {
  std::string where;
  for (const std::string& name : options.names) {
    if (begins_transfers) where.clear();  // the last one is the target
    const auto address = parse_address(name, Want::kEither);
    if (address && address->where == Where::kDaemon) {
      where += " " + shell_word(address->store() + "/");
    }
  }
  return "transfers" + where;
}

// Only what a handler may do. The second interrupt ends the process, unless stderr is stuck with
// its last words.
void on_signal(int) {
  if (!interrupt_flag().exchange(true)) return;
  const std::string* words = last_words.load();
  pollfd wait{STDERR_FILENO, POLLOUT, 0};
  if (words != nullptr && ::poll(&wait, 1, 0) > 0) {
    const ssize_t written = ::write(STDERR_FILENO, words->data(), words->size());
    (void)written;
  }
  ::_exit(static_cast<int>(Exit::kInterrupted));
}

RadosOptions rados_options(const ClusterOptions& cluster, const Options& options) {
  RadosOptions rados;
  rados.conf_path = cluster.conf;
  if (!cluster.cluster.empty()) rados.cluster_name = cluster.cluster;
  if (!cluster.id.empty()) rados.name = "client." + cluster.id;
  if (!cluster.name.empty()) rados.name = cluster.name;
  rados.keyring = cluster.keyring;
  rados.use_ceph_args = true;
  const std::chrono::seconds timeout(options.timeout_seconds);
  rados.osd_timeout = rados.mon_timeout = rados.connect_timeout = timeout;
  return rados;
}

// trash.keep is a setting of the devices, and may be more than the default: who does not know it
// removes what a register has no room for.
StoreLimits limits_of_a_client() {
  StoreLimits limits;
  limits.kept_generations = StoreLimits::kMostKept;
  return limits;
}

// What a role sets overrides what is common to both.
ClusterOptions overlay(ClusterOptions base, const ClusterOptions& over) {
  if (!over.conf.empty()) base.conf = over.conf;
  if (!over.cluster.empty()) base.cluster = over.cluster;
  if (!over.keyring.empty()) base.keyring = over.keyring;
  if (!over.id.empty() || !over.name.empty()) {
    base.id = over.id;
    base.name = over.name;
  }
  return base;
}

}  // namespace

struct Session::Cluster {
  ClusterOptions options;
  std::unique_ptr<RadosCluster> connection;
  std::unique_ptr<RadosProvider> provider;
  std::map<std::string, std::int64_t> pools;  // what their names have meant since they were used
};

Session::Session(Options options, const std::string& verb)
    : options_(std::move(options)),
      out_(options_.output_format(), verb),
      meter_(progress_mode(options_.progress, options_.no_progress, ::isatty(STDERR_FILENO) == 1)) {
  const bool begins_transfers = verb == "copy" || verb == "move";
  std::string left;
  if (begins_transfers || verb == "watch") {
    left =
        "what runs at the devices goes on: " + command(transfers_words(begins_transfers, options_));
  } else if (verb == "put") {
    left = "what it had written may be left: " +
           command("scratch ls " + shell_word(options_.names.front()));
  }
  set_last_words(left);
}
Session::~Session() = default;

ClusterOptions Session::cluster_options(Role role) const {
  switch (role) {
    case Role::kSource:
      return overlay(options_.cluster, options_.source_cluster);
    case Role::kTarget:
      return overlay(options_.cluster, options_.target_cluster);
    case Role::kOnly:
      break;
  }
  return options_.cluster;
}

Result<RadosCluster*> Session::cluster(Role role) {
  const MutexLock lock(mutex_);
  if (const auto known = by_role_.find(role); known != by_role_.end()) {
    return known->second->connection.get();
  }
  const ClusterOptions wanted = cluster_options(role);
  for (const auto& cluster : clusters_) {
    if (cluster->options == wanted) {
      by_role_[role] = cluster.get();
      return cluster->connection.get();
    }
  }
  auto connection = RadosCluster::connect(rados_options(wanted, options_));
  if (!connection) return fail(std::move(connection).error());
  auto cluster = std::make_unique<Cluster>();
  cluster->options = wanted;
  cluster->connection = std::move(*connection);
  cluster->provider = std::make_unique<RadosProvider>(*cluster->connection, limits_of_a_client());
  by_role_[role] = cluster.get();
  clusters_.push_back(std::move(cluster));
  return clusters_.back()->connection.get();
}

Result<Location> Session::bound(Location location, Role role) {
  auto connection = cluster(role);
  if (!connection) return fail(std::move(connection).error());
  if (location.pool_id != 0) return location;
  {
    const MutexLock lock(mutex_);
    const auto& pools = by_role_.at(role)->pools;
    if (const auto known = pools.find(location.pool); known != pools.end()) {
      location.pool_id = known->second;
      return location;
    }
  }
  auto id = (*connection)->pool_id(location);
  if (!id) return fail(std::move(id).error());
  const MutexLock lock(mutex_);
  location.pool_id = by_role_.at(role)->pools.emplace(location.pool, *id).first->second;
  return location;
}

Result<ExtentStore*> Session::store(const Address& address, Role role) {
  if (address.where == Where::kDaemon) {
    return fail(Code::kUnimplemented,
                "the daemon at " + address.device + " does copy, verify and transfers only",
                Side::kRequester, "on its host, name the folder itself: posix:DIR/EXTENT");
  }
  if (address.where == Where::kCeph) {
    auto location = bound(address.location, role);
    if (!location) return fail(std::move(location).error());
    const MutexLock lock(mutex_);
    return by_role_.at(role)->provider->open(*location);
  }
  const MutexLock lock(mutex_);
  auto& provider = folders_[address.dir];
  if (!provider) {
    PosixOptions folder_options;
    folder_options.limits = limits_of_a_client();
    auto folder = PosixProvider::create(address.dir, folder_options);
    if (!folder) return fail(std::move(folder).error());
    provider = std::move(*folder);
  }
  return provider->open(Location{});
}

Result<std::unique_ptr<rpc::DeviceClient>> Session::device(const std::string& address) const {
  return rpc::DeviceClient::connect(address, device_options(), &stop());
}

rpc::ClientOptions Session::device_options() const {
  rpc::ClientOptions client;
  client.secret_file = options_.secret_file;
  client.tls_ca_file = options_.tls_ca;
  client.tls_cert_file = options_.tls_cert;
  client.tls_key_file = options_.tls_key;
  return client;
}

const std::atomic<bool>& Session::stop() const { return interrupt_flag(); }

bool Session::wait(std::chrono::milliseconds time) const {
  const auto until = std::chrono::steady_clock::now() + time;
  while (!interrupted()) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        until - std::chrono::steady_clock::now());
    if (left.count() <= 0) return true;
    ::poll(nullptr, 0, static_cast<int>(std::min<long>(left.count(), 100)));
  }
  return false;
}

std::optional<int> Session::refused(const std::string& what) {
  if (options_.confirmed || options_.dry_run) return std::nullopt;
  return out_.error({Code::kFailedPrecondition, what + " needs your confirmation", Side::kRequester,
                     "look at the plan with --dry-run, then add --yes-i-really-mean-it"},
                    Exit::kNeedsConfirmation);
}

std::string Session::command(const std::string& words, Role role) const {
  return "siphon" +
         (role == Role::kOnly ? connection_words(options_)
                              : connection_words(options_, cluster_options(role))) +
         " " + words;
}

void Session::note_unlisted(const std::string& store, const Error& error) {
  {
    const MutexLock lock(mutex_);
    const auto known = [&](const auto& entry) {
      return entry.first == store && entry.second.message == error.message;
    };
    if (std::ranges::any_of(unlisted_, known)) return;
    unlisted_.emplace_back(store, error);
  }
  meter_.note("siphon: " + escaped(store) + ": " + error_text(error));
}

bool Session::listed_all() const {
  const MutexLock lock(mutex_);
  return unlisted_.empty();
}

Json Session::unlisted() const {
  const MutexLock lock(mutex_);
  Json list = Json::array();
  for (const auto& [store, error] : unlisted_) {
    list.push_back(Json{{"store", store}, {"problem", to_json(error)}});
  }
  return list;
}

Exit Session::exit_of_listed(Exit exit) const {
  return (exit == Exit::kOk || exit == Exit::kNothingToDo) && !listed_all() ? Exit::kPartial : exit;
}

void Session::note_temporary(const std::string& file) {
  set_last_words(file.empty() ? "" : "left behind: " + escaped(file));
}

Error Session::interrupted_error(const std::string& what) {
  return Error{Code::kCancelled, what, Side::kRequester, ""};
}

void install_signal_handlers() {
  interrupt_flag();  // made here: not in a handler
  struct sigaction action {};
  action.sa_handler = on_signal;  // no SA_RESTART: reads of stdin are to wake up
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, nullptr);
}

}  // namespace siphon::cli
