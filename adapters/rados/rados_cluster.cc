#include "adapters/rados/rados_cluster.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <list>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "adapters/rados/cluster_questions.h"
#include "adapters/rados/rados_internal.h"
#include "plugin/core/mutex.h"

namespace siphon {
namespace rados_internal {

Error to_error(int result, std::string_view what) {
  const int error = result < 0 ? -result : result;
  std::string message(what);
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return {Code::kResourceExhausted, message + ": the pool or its OSDs are full", Side::kNone,
              "free some room or raise the quota: ceph df detail"};
    case EIO:
      return {Code::kDataLoss, message + ": the store reports damage (Input/output error)",
              Side::kNone, "look for the damaged object: ceph health detail"};
    case ENAMETOOLONG:
      return {Code::kFailedPrecondition,
              message +
                  ": the cluster takes no object name (siphon.EXTENT), key or namespace that "
                  "long (osd_max_object_name_len, osd_max_object_namespace_len)",
              Side::kNone, "use a shorter name: ceph config get osd osd_max_object_name_len",
              Reason::kClusterLimit};
    case ETIMEDOUT:
      return {Code::kDeadlineExceeded, message + ": no answer from the cluster in time",
              Side::kNone, "see why its placement groups do not serve: ceph health detail"};
    case ESHUTDOWN:
      return {Code::kUnavailable, message + ": this client was blocklisted by the cluster",
              Side::kNone, "ceph osd blocklist ls"};
    case EPERM:
    case EACCES:
      return {Code::kPermissionDenied, message + ": the cephx key lacks the rights", Side::kNone,
              "ceph auth get NAME"};
    case EFBIG:
      return {Code::kFailedPrecondition,
              message +
                  ": larger than osd_max_object_size (or, for what is kept of an extent, "
                  "osd_max_attr_size) lets the cluster's OSDs take",
              Side::kNone,
              "ceph config get osd osd_max_object_size; raise it, or lower store.part_bytes",
              Reason::kClusterLimit};
    case EMSGSIZE:
      return {Code::kFailedPrecondition,
              message + ": larger than osd_max_write_size lets the cluster's OSDs take at once",
              Side::kNone,
              "ceph config set osd osd_max_write_size MIB, or lower store.operation_bytes",
              Reason::kClusterLimit};
    case EOPNOTSUPP:
      return {Code::kFailedPrecondition,
              message + ": the pool does not support this operation",
              Side::kNone,
              {}};
    default:
      return error_from_errno(error, what);
  }
}

bool is_decision(int result) {
  return result == -EEXIST || result == -ESTALE || result == -ENOENT || result == -ECANCELED ||
         result == -EUSERS || result == -EINVAL;
}

namespace {

// One that was under way when it was asked for may end with a map that is a little too old, so a
// newcomer waits for the next one, which it starts itself unless somebody else does.
int wait_for_map(RadosCluster::Impl& impl) try {
  using Wait = RadosCluster::Impl::MapWait;
  const std::shared_ptr<Wait> wait = impl.map_wait;
  const auto deadline = std::chrono::steady_clock::now() + impl.mon_timeout;
  MutexLock lock(wait->mutex);
  const auto wait_for_end_of = [&](std::uint64_t round) {
    return wait->ended.wait_until(
        lock, deadline, [&]() SIPHON_REQUIRES(wait->mutex) { return wait->round > round; });
  };
  if (wait->under_way && !wait_for_end_of(wait->round)) return -ETIMEDOUT;
  const std::uint64_t round = wait->round;
  if (!wait->under_way) {
    std::thread([wait, rados = impl.handle] {
      const int result = rados->wait_for_latest_osdmap();
      const MutexLock done(wait->mutex);
      wait->under_way = false;
      wait->result = result;
      ++wait->round;
      wait->ended.notify_all();
    }).detach();
    wait->under_way = true;
  }
  return wait_for_end_of(round) ? wait->result : -ETIMEDOUT;
} catch (const std::exception&) {
  return -ENOMEM;
}

}  // namespace

Status refresh_map(RadosCluster& cluster) {
  librados::Rados& rados = cluster.impl().rados;
  librados::bufferlist ignored;
  std::string status;
  // Whatever it answers, it answers; when it does not, no thread need wait for the map.
  const int probe = rados.mon_command(R"({"prefix": "fsid"})", {}, &ignored, &status);
  const int result = probe == -ETIMEDOUT ? probe : wait_for_map(cluster.impl());
  if (result < 0) return fail(to_error(result, "ask the mons for the cluster's map"));
  return {};
}

Result<librados::IoCtx> open_pool(RadosCluster& cluster, const Location& location) {
  auto id = cluster.pool_id(location);
  if (!id) return fail(std::move(id).error());
  librados::IoCtx io;
  const int result = cluster.impl().rados.ioctx_create2(*id, io);
  if (result < 0) return fail(to_error(result, "open pool " + location.pool));
  io.set_namespace(location.nspace);
  return io;
}

librados::IoCtx with_locator(const librados::IoCtx& base, std::string_view locator) {
  librados::IoCtx io;
  io.dup(base);
  io.locator_set_key(std::string(locator));
  return io;
}

PoolGroups::PoolGroups(librados::IoCtx& pool) : pool_id(pool.get_id()) {
  for (int i = 0; i < 4096; ++i) {
    std::uint32_t group = 0;
    if (pool.get_object_pg_hash_position2(std::to_string(i), &group) == 0) {
      count = std::max(count, group + 1);
    }
  }
}

std::size_t PoolGroups::shares() const { return std::bit_ceil(std::size_t{std::max(count, 1u)}); }

// The order of a listing is that of the names' hashes, read backwards bit by bit; the last bits of
// a hash say which group it is, one bit less where there is no group of that number.
std::string PoolGroups::of_share(std::size_t share) const {
  std::size_t group = 0;
  for (std::size_t bit = 1; bit < shares(); bit <<= 1, share >>= 1)
    group = group << 1 | (share & 1);
  if (group >= count) group &= shares() / 2 - 1;
  std::array<char, 24> hex{};
  const auto end = std::to_chars(hex.data(), hex.data() + hex.size(), group, 16).ptr;
  return std::to_string(pool_id) + "." + std::string(hex.data(), end);
}

std::string head_object(std::string_view extent) { return "siphon." + std::string(extent); }

}  // namespace rados_internal

namespace {

using rados_internal::open_pool;
using rados_internal::to_error;
using rados_internal::with_locator;

// How long an operation waits before librados asks for a newer map. An OSD that was restarted at
// its old port refuses clients that have the old process's address. librados connects there again
// and again until an operation is objecter_timeout old (10 s, looked at every 5 s). An operation
// that times out earlier would never bring the new address.
std::chrono::seconds map_patience(std::chrono::seconds osd_timeout) {
  return std::clamp(osd_timeout / 4, std::chrono::seconds(1), std::chrono::seconds(10));
}

// In this order, the later ones winning: the file, the environment, what an embedded client needs,
// the timeouts, the caller's overrides.
Status configure(librados::Rados& rados, const RadosOptions& options) {
  const char* path = options.conf_path.empty() ? nullptr : options.conf_path.c_str();
  if (const int result = rados.conf_read_file(path); result < 0) {
    const char* set = std::getenv("CEPH_CONF");
    const bool by_environment = set != nullptr && (path == nullptr || options.conf_path == set);
    const std::string file = by_environment    ? std::string(set) + " (from CEPH_CONF)"
                             : path != nullptr ? options.conf_path
                                               : "at its usual places, as /etc/ceph/ceph.conf";
    return fail(to_error(result, "read the Ceph configuration " + file)
                    .with_next_step(by_environment ? "set CEPH_CONF to another file, or name it: "
                                                     "--conf FILE"
                                                   : "name the file: --conf FILE, or CEPH_CONF"));
  }
  if (options.use_ceph_args) rados.conf_parse_env(nullptr);
  const auto patience = map_patience(options.osd_timeout);
  std::map<std::string, std::string> settings = {
      {"admin_socket", ""},
      {"log_file", ""},
      {"log_to_stderr", "false"},
      {"err_to_stderr", "false"},
      {"rados_osd_op_timeout", std::to_string(options.osd_timeout.count())},
      {"objecter_timeout", std::to_string(patience.count())},
      {"objecter_tick_interval", std::to_string(static_cast<double>(patience.count()) / 2)},
      {"rados_mon_op_timeout", std::to_string(options.mon_timeout.count())},
      {"client_mount_timeout", std::to_string(options.connect_timeout.count())},
  };
  if (!options.osd_data.empty()) settings["osd_data"] = options.osd_data;
  if (!options.keyring.empty()) settings["keyring"] = options.keyring;
  for (const auto& [key, value] : options.overrides) settings[key] = value;
  for (const auto& [key, value] : settings) {
    if (const int result = rados.conf_set(key.c_str(), value.c_str()); result < 0) {
      return fail(Code::kInvalidArgument, "Ceph refuses the setting " + key + " = " + value);
    }
  }
  // librados looks for an OSD's key where a client's would be; ceph-osd itself looks here.
  std::string osd_data;
  if (options.name.starts_with("osd.") && options.keyring.empty() &&
      !options.overrides.contains("keyring") && rados.conf_get("osd_data", osd_data) == 0) {
    const std::string keyring = osd_data + "/keyring";
    if (::access(keyring.c_str(), R_OK) == 0) rados.conf_set("keyring", keyring.c_str());
  }
  return {};
}

// Executes a method that writes nothing, whatever its flags. Not IoCtx::exec: with a WR method that
// waits for ever on a full pool. Past a cache tier: it would make the object that is asked about.
int execute(librados::IoCtx& io, const std::string& object, const char* method,
            std::span<const std::byte> input, librados::bufferlist& output) {
  librados::bufferlist in;
  in.append(reinterpret_cast<const char*>(input.data()), static_cast<unsigned>(input.size()));
  librados::ObjectReadOperation operation;
  operation.exec(exchange::kClassName, method, in);
  return io.operate(object, &operation, &output,
                    librados::OPERATION_FULL_TRY | librados::OPERATION_IGNORE_CACHE |
                        librados::OPERATION_IGNORE_OVERLAY);
}

// Whether the OSD that serves `object` has the class at all. It answers -EPERM both for a class
// that it may not load and for a missing cap, but it looks at the class, and for the method, first.
bool has_class(librados::IoCtx& io, const std::string& object) {
  librados::bufferlist ignored;
  return execute(io, object, "no_such_method", {}, ignored) == -EOPNOTSUPP;
}

// Who serves `locator`, and of which build it is: "osd.1 runs Ceph 18.2.7 (COMMIT)". Empty: the
// mons do not say, or not to this key.
std::string primary_and_build(RadosCluster& cluster, const Location& location,
                              std::string_view locator) {
  using nlohmann::json;
  const auto ask = [&](json command) {
    command["format"] = "json";
    const auto answer = ask_mons(cluster, command.dump());
    json parsed = answer ? json::parse(*answer, nullptr, false) : json();
    return parsed.is_object() ? parsed : json::object();
  };
  try {
    const int osd = ask({{"prefix", "osd map"},
                         {"pool", location.pool},
                         {"object", std::string(locator)},
                         {"nspace", location.nspace}})
                        .value("acting_primary", -1);
    if (osd < 0) return {};
    // "ceph version 16.2.15 (618f440892089921c3e944a991122ddc44e60516) pacific (stable)"
    std::string build =
        ask({{"prefix", "osd metadata"}, {"id", osd}}).value("ceph_version", "unknown");
    constexpr std::string_view kBegin = "ceph version ";
    if (build.starts_with(kBegin)) build.erase(0, kBegin.size());
    if (const auto end = build.find(')'); end != std::string::npos) build.resize(end + 1);
    return "osd." + std::to_string(osd) + " runs Ceph " + build;
  } catch (const std::exception&) {
    return {};
  }
}

// The answer of a class method that needs a cap of its own.
Error method_error(int result, const std::string& method, RadosCluster& cluster,
                   const Location& location, std::string_view locator, bool class_is_there) {
  const std::string &pool = location.pool, &name = cluster.name();
  const std::string what = method + " in pool " + pool;
  const bool denied = result == -EPERM || result == -EACCES;
  if (denied && class_is_there) {
    const std::string cap =
        "allow class siphon " + method + (method == "hello" ? "" : " pool=" + pool);
    return {Code::kPermissionDenied, what + ": " + name + " lacks the OSD cap '" + cap + "'",
            Side::kRequester, "add it: ceph auth caps " + name + " ... osd '..., " + cap + "'"};
  }
  if (denied || result == -EOPNOTSUPP) {
    const std::string osd = primary_and_build(cluster, location, locator);
    return {Code::kFailedPrecondition,
            what + ": " +
                (osd.empty() ? "the OSD that serves it has no siphon plugin that was compiled for "
                               "its Ceph build"
                             : osd + ", and has no siphon plugin that was compiled for that"),
            Side::kNone,
            "install libcls_siphon.so and siphond for that build there, add siphon to "
            "osd_class_load_list, restart that OSD",
            Reason::kNoPlugin};
  }
  switch (-result) {
    case EHOSTDOWN:
      return {Code::kUnavailable, what + ": the siphond of the OSD that serves it is not running",
              Side::kNone, "look at that OSD's log for lines of siphon"};
    case EUSERS:
      return fail_busy(what + ": the device's grant table, or a share of it, is full", Side::kNone,
                       "try again in ten minutes: earlier grants have expired by then")
          .value();
    default:
      return to_error(
          result, method == "hello" ? "find the daemon that serves a name in pool " + pool : what);
  }
}

// The first grant that an OSD is asked for waits so long for its companion's probe, which takes
// milliseconds once the companion has seen that it is needed.
constexpr std::chrono::seconds kProbePatience{5};
constexpr std::chrono::milliseconds kProbeLook{20};

bool is_of_layout(int result) {
  return result == exchange::kLayoutUnproven || result == exchange::kLayoutDoesNotFit ||
         result == exchange::kLayoutUnverified;
}

// Why `osd` gives no grant.
Error layout_error(int result, const std::string& what, const std::string& osd) {
  const std::string more = "siphon doctor says more, and what to do; the OSD's log, what was seen";
  switch (result) {
    case exchange::kLayoutUnverified:
      return {Code::kFailedPrecondition,
              what + ": " + osd +
                  " refuses every grant: the layout of its Ceph release is not verified",
              Side::kNone, more, Reason::kLayout};
    case exchange::kLayoutDoesNotFit:
      return {Code::kFailedPrecondition,
              what + ": " + osd +
                  " refuses every grant: its ceph-osd does not have the layout that was verified "
                  "for its release",
              Side::kNone, more, Reason::kLayout};
    default:
      return {Code::kUnavailable,
              what + ": " + osd + " gives no grant yet: its siphond has not tried out its layout",
              Side::kNone, "run it again; if that does not help, look at the log of that siphond"};
  }
}

// A locator key of `io`'s namespace that lies in this placement group; empty: none was found.
std::string locator_in(librados::IoCtx& io, std::uint32_t placement_group) {
  constexpr int kMostTries = 1 << 20;  // some 16 for each group of a very large pool
  for (int i = 0; i < kMostTries; ++i) {
    std::string key = std::to_string(i);
    std::uint32_t group = 0;
    if (io.get_object_pg_hash_position2(key, &group) < 0) break;
    if (group == placement_group) return key;
  }
  return {};
}

// What `method` answered on `object`, as an Error.
Error method_failed(int result, librados::IoCtx& io, const std::string& object, const char* method,
                    RadosCluster& cluster, const Location& location, std::string_view locator) {
  const bool denied = result == -EPERM || result == -EACCES;
  return method_error(result, method, cluster, location, locator, !denied || has_class(io, object));
}

}  // namespace

RadosCluster::RadosCluster(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RadosCluster::~RadosCluster() = default;

Result<std::unique_ptr<RadosCluster>> RadosCluster::connect(const RadosOptions& options) try {
  auto impl = std::make_unique<Impl>();
  impl->name = options.name;
  impl->mon_timeout = options.mon_timeout;
  const int result = impl->rados.init2(options.name.c_str(), options.cluster_name.c_str(), 0);
  if (result < 0) return fail(to_error(result, "use the Ceph name " + options.name));
  SIPHON_TRY(configure(impl->rados, options));
  if (const int error = impl->rados.connect(); error < 0) {
    const std::string what = "connect to the Ceph cluster as " + options.name;
    if (error == -ENOENT) {
      return fail(Code::kNotFound, what + ": no key of that name was found", Side::kNone,
                  "name the file that holds it: --keyring FILE");
    }
    return fail(
        to_error(error, what).with_next_step("compare with: ceph -n " + options.name + " status"));
  }
  return std::unique_ptr<RadosCluster>(new RadosCluster(std::move(impl)));
} catch (const std::exception& e) {
  return fail(Code::kInternal, std::string("connect to the Ceph cluster: ") + e.what());
}

const std::string& RadosCluster::name() const { return impl_->name; }

Result<std::string> RadosCluster::fsid() {
  std::string fsid;
  const int result = impl_->rados.cluster_fsid(&fsid);
  if (result < 0) return fail(to_error(result, "ask for the cluster's fsid"));
  return fsid;
}

std::uint64_t RadosCluster::instance_id() { return impl_->rados.get_instance_id(); }

Result<std::string> RadosCluster::setting(const std::string& option) {
  std::string value;
  const int result = impl_->rados.conf_get(option.c_str(), value);
  if (result < 0) return fail(to_error(result, "read the Ceph option " + option));
  return value;
}

Status RadosCluster::refresh() { return rados_internal::refresh_map(*this); }

// Not pool_lookup alone: for a name it does not know it waits for a new map without a timeout.
Result<std::int64_t> RadosCluster::pool_id(const std::string& pool) {
  for (const bool refreshed : {false, true}) {
    if (refreshed) SIPHON_TRY(rados_internal::refresh_map(*this));
    std::list<std::pair<std::int64_t, std::string>> pools;
    if (const int result = impl_->rados.pool_list2(pools); result < 0) {
      return fail(to_error(result, "list the pools"));
    }
    for (const auto& [id, name] : pools) {
      if (name == pool) return id;
    }
  }
  return fail(Code::kNotFound, "there is no pool '" + pool + "'", Side::kNone, "ceph osd pool ls");
}

Result<std::int64_t> RadosCluster::pool_id(const Location& location) {
  if (location.pool_id == 0) return pool_id(location.pool);
  const std::string was = std::to_string(location.pool_id);
  std::string name;
  for (const bool refreshed : {false, true}) {
    if (refreshed) SIPHON_TRY(rados_internal::refresh_map(*this));
    const int result = impl_->rados.pool_reverse_lookup(location.pool_id, &name);
    if (result < 0 && result != -ENOENT) return fail(to_error(result, "look up pool id " + was));
    if (result == -ENOENT) name.clear();
    if (name == location.pool) return location.pool_id;
  }
  std::string what;
  if (auto now = pool_id(location.pool)) {
    what = location.pool + " is now another pool (id " + std::to_string(*now) + ", was " + was +
           (name.empty() ? "" : ", which is now called " + name) + ")";
  } else if (now.error().code != Code::kNotFound) {
    return now;
  } else if (name.empty()) {
    what = "pool " + location.pool + " (id " + was + ") is gone";
  } else {
    what = "pool " + location.pool + " (id " + was + ") is now called " + name;
  }
  return fail(Error{Code::kFailedPrecondition,
                    what + "; nothing goes to a pool that was not planned", Side::kNone,
                    "see ceph osd pool ls detail, then run the command again",
                    Reason::kPoolChanged});
}

Result<std::vector<std::pair<std::string, std::int64_t>>> RadosCluster::siphon_pools() {
  std::list<std::pair<std::int64_t, std::string>> pools;
  if (const int result = impl_->rados.pool_list2(pools); result < 0) {
    return fail(to_error(result, "list the pools"));
  }
  std::vector<std::pair<std::string, std::int64_t>> tagged;
  for (const auto& [id, name] : pools) {
    librados::IoCtx io;
    if (impl_->rados.ioctx_create2(id, io) < 0) continue;  // removed meanwhile
    std::set<std::string> applications;
    if (io.application_list(&applications) == 0 && applications.contains("siphon")) {
      tagged.emplace_back(name, id);
    }
  }
  return tagged;
}

namespace {

// One share of a pool's objects, for its namespaces.
int add_namespaces(librados::IoCtx& io, librados::ObjectCursor from,
                   const librados::ObjectCursor& to, std::set<std::string>& names) {
  constexpr std::size_t kPage = 1000;
  while (from < to) {
    std::vector<librados::ObjectItem> objects;
    librados::ObjectCursor next;
    const int result = io.object_list(from, to, kPage, {}, &objects, &next);
    if (result < 0) return result;
    for (const librados::ObjectItem& object : objects) {
      // Heads, and parts that have lost theirs.
      if (!object.locator.empty() && object.oid.starts_with("siphon.")) {
        names.insert(object.nspace);
      }
    }
    from = next;
  }
  return 0;
}

}  // namespace

// In shares of about a placement group, several at a time: one that does not answer keeps no other.
Result<RadosCluster::Namespaces> RadosCluster::namespaces(const Location& location) try {
  constexpr std::size_t kThreads = 8;
  auto pool = open_pool(*this, location);
  if (!pool) return fail(std::move(pool).error());
  const rados_internal::PoolGroups groups(*pool);
  const std::size_t shares = groups.shares();
  pool->set_namespace(librados::all_nspaces);
  const librados::ObjectCursor begin = pool->object_list_begin(), end = pool->object_list_end();
  Namespaces found;
  Mutex mutex;  // found, answered
  std::size_t answered = 0;
  std::atomic<std::size_t> next_share{0};
  auto work = [&] {
    librados::IoCtx io;
    io.dup(*pool);
    for (std::size_t share = next_share++; share < shares; share = next_share++) {
      librados::ObjectCursor from, to;
      io.object_list_slice(begin, end, share, shares, &from, &to);
      std::set<std::string> names;
      const int result = add_namespaces(io, from, to, names);
      const MutexLock lock(mutex);
      found.names.merge(names);
      if (result == 0) {
        ++answered;
        continue;
      }
      found.unlisted.push_back(to_error(
          result, "list placement group " + groups.of_share(share) + " of pool " + location.pool));
      // Every share costs a whole timeout: nothing answers, or nothing may be seen.
      if (answered == 0 && found.unlisted.size() >= kThreads) next_share = shares;
      if (found.unlisted.back().code == Code::kPermissionDenied) next_share = shares;
    }
  };
  {
    std::vector<std::jthread> workers;
    for (std::size_t i = 1; i < std::min(kThreads, shares); ++i) workers.emplace_back(work);
    work();
  }
  if (answered == 0) return fail(found.unlisted.front());
  for (const Error& error : found.unlisted) {
    if (error.code == Code::kPermissionDenied) return fail(error);
  }
  return found;
} catch (const std::exception& e) {
  return fail(Code::kUnavailable, "list pool " + location.pool + ": " + e.what());
}

Status RadosCluster::register_service(const std::string& service, const std::string& id,
                                      const std::map<std::string, std::string>& metadata) {
  const int result = impl_->rados.service_daemon_register(service, id, metadata);
  if (result < 0) return fail(to_error(result, "register " + service + "." + id));
  return {};
}

Result<std::uint32_t> RadosCluster::placement_group(const Location& location,
                                                    std::string_view locator) {
  auto pool = open_pool(*this, location);
  if (!pool) return fail(std::move(pool).error());
  std::uint32_t group = 0;
  const int result = pool->get_object_pg_hash_position2(std::string(locator), &group);
  if (result < 0) return fail(to_error(result, "map a name in pool " + location.pool));
  return group;
}

Result<exchange::Hello> RadosCluster::hello(const Location& location, std::string_view locator) {
  auto pool = open_pool(*this, location);
  if (!pool) return fail(std::move(pool).error());
  librados::IoCtx io = with_locator(*pool, locator);
  const std::string head = rados_internal::head_object(locator);
  librados::bufferlist answer;
  const int result = execute(io, head, "hello_head", {}, answer);
  if (result < 0) {
    // No extent of that name, a key with but the one cap, or an older plugin: the method that the
    // OSD logs.
    const bool other_way =
        result == -ENOENT || result == -EPERM || result == -EACCES || result == -EOPNOTSUPP;
    if (!other_way) return fail(method_error(result, "hello", *this, location, locator, true));
    const int again = execute(io, head, "hello", {}, answer);
    if (again < 0) return fail(method_failed(again, io, head, "hello", *this, location, locator));
  }
  exchange::Hello hello;
  if (!exchange::Hello::decode(
          std::as_bytes(std::span<const char>(answer.c_str(), answer.length())), hello)) {
    return fail(Error{Code::kFailedPrecondition,
                      "hello in pool " + location.pool + ": the OSD's plugin is of another version",
                      Side::kNone, "run the same version of siphon everywhere", Reason::kNoPlugin});
  }
  return hello;
}

Status RadosCluster::grant(const Location& location, std::string_view locator,
                           exchange::Right right, std::span<const std::byte, 16> nonce,
                           std::chrono::seconds ttl) {
  auto pool = open_pool(*this, location);
  if (!pool) return fail(std::move(pool).error());
  if (location.nspace.size() > kMaxNamespaceBytes) {
    return fail(Code::kInvalidArgument, "the namespace's name is too long");
  }
  SIPHON_TRY(check_no_tier(*this, pool->get_id()));
  exchange::GrantRequest request;
  std::ranges::copy(nonce, request.nonce.begin());
  request.key_id = grant_key_id(nonce);
  request.pool_id = pool->get_id();
  auto group = placement_group(location, locator);
  if (!group) return fail(std::move(group).error());
  request.placement_group = *group;
  request.ttl_seconds = static_cast<std::uint32_t>(
      std::clamp<std::int64_t>(ttl.count(), 1, exchange::kMaxGrantSeconds));
  request.namespace_bytes = static_cast<std::uint32_t>(location.nspace.size());
  std::ranges::copy(location.nspace, request.nspace.begin());
  std::array<std::byte, exchange::GrantRequest::kEncodedBytes> input;
  request.encode(input);

  const char* method = right == exchange::Right::kRead ? "grant_read" : "grant_write";
  librados::IoCtx io = with_locator(*pool, locator);
  const std::string object = "siphon.grant." + to_hex(request.key_id);
  int result = 0;
  librados::bufferlist ignored;
  const auto give_up_at = std::chrono::steady_clock::now() + kProbePatience;
  while ((result = execute(io, object, method, input, ignored)) == exchange::kLayoutUnproven &&
         std::chrono::steady_clock::now() < give_up_at) {
    std::this_thread::sleep_for(kProbeLook);
  }
  if (result >= 0) return {};
  if (is_of_layout(result)) {
    const auto who = hello(location, locator);
    const std::string osd = who ? "osd." + std::to_string(who->osd_id) : "the OSD that serves it";
    return fail(layout_error(result, std::string(method) + " in pool " + location.pool, osd));
  }
  return fail(method_failed(result, io, object, method, *this, location, locator));
}

Status RadosCluster::probe_layout(std::int64_t pool_id, std::uint32_t placement_group,
                                  std::span<const std::byte, 16> ticket) {
  const std::string what = "try out the layout in pool " + std::to_string(pool_id);
  librados::IoCtx io;
  if (const int result = impl_->rados.ioctx_create2(pool_id, io); result < 0) {
    return fail(to_error(result, what));
  }
  io.set_namespace(exchange::kProbeNamespace);
  const std::string locator = locator_in(io, placement_group);
  if (locator.empty()) {
    return fail(Code::kNotFound,
                what + ": it has no placement group " + std::to_string(placement_group));
  }
  io.locator_set_key(locator);
  exchange::ProbeRequest request;
  std::ranges::copy(ticket, request.ticket.begin());
  fill_random(request.name_id);
  request.pool_id = pool_id;
  std::array<std::byte, exchange::ProbeRequest::kEncodedBytes> input;
  request.encode(input);
  librados::bufferlist ignored;
  const int result =
      execute(io, "siphon.probe." + to_hex(request.name_id), "probe", input, ignored);
  if (result >= 0) return {};
  if (is_of_layout(result)) return fail(layout_error(result, what, "this OSD"));
  return fail(to_error(result, what));
}

}  // namespace siphon
