#include "plugin/cli/doctor/gather.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <map>
#include <set>
#include <tuple>

#include "adapters/rados/cluster_questions.h"
#include "adapters/rados/rados_cluster.h"
#include "plugin/cli/devices.h"
#include "plugin/cli/doctor/certificate.h"
#include "plugin/cli/doctor/local.h"
#include "plugin/core/mutex.h"
#include "plugin/stream/socket.h"

namespace siphon::cli::doctor {
namespace {

constexpr std::size_t kThreads = 8;
constexpr std::size_t kMaxQuestions = 1024;   // to the mons, for the primaries of names
constexpr std::size_t kMaxNamesPerPool = 64;  // tried until another primary is found
constexpr std::size_t kMaxLeftoverNames = 1000;
constexpr std::chrono::seconds kConnect{5};
constexpr std::chrono::seconds kLook{5};  // how long a grant lasts that is for one look

std::string because(const Error& error) { return error.message; }

Result<Json> parsed(Result<std::string> answer, const std::string& whom) {
  if (!answer) return fail(std::move(answer).error());
  Json json = Json::parse(*answer, nullptr, false);
  if (json.is_discarded()) return fail(Code::kUnavailable, whom + " answered what is no JSON");
  return json;
}

std::string command(Json words) {
  words["format"] = "json";
  return words.dump();
}

std::string text_at(const Json& json, const std::string& key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::uint64_t number_in(const std::string& text) {
  return std::strtoull(text.c_str(), nullptr, 10);
}

// "ceph version 16.2.15 (618f440892089921c3e944a991122ddc44e60516) pacific (stable)"
std::pair<std::string, std::string> version_and_commit(const std::string& text) {
  constexpr std::string_view kBegin = "ceph version ";
  if (!text.starts_with(kBegin)) return {text, ""};
  const std::string rest = text.substr(kBegin.size());
  const std::string version = rest.substr(0, rest.find(' '));
  const std::size_t open = rest.find('('), close = rest.find(')');
  if (open == std::string::npos || close == std::string::npos || close < open) return {version, ""};
  return {version, rest.substr(open + 1, close - open - 1)};
}

// A name whose acting primary is a certain OSD.
struct Way {
  Location location;
  std::string locator;
  bool takes_part = false;  // of a pool that hello may be asked in
};

class Gatherer {
 public:
  Gatherer(Session& session, RadosCluster& cluster) : session_(session), cluster_(cluster) {}

  Result<Facts> run() {
    const Options& options = session_.options();
    std::array<char, HOST_NAME_MAX + 1> host{};
    ::gethostname(host.data(), HOST_NAME_MAX);
    facts_.here = host.data();
    facts_.now_unix_s = static_cast<std::int64_t>(now_unix_ms() / 1000);
    facts_.version = SIPHON_VERSION;
    facts_.entity = cluster_.name();
    facts_.verbs = options.verbs_wanted;
    facts_.pool_arguments = options.names;
    facts_.auth_client_required = cluster_.setting("auth_client_required").value_or("");
    for (const std::string* file : {&options.tls_ca, &options.tls_cert}) {
      if (file->empty()) continue;
      auto certificate = certificate_in(*file);
      facts_.own_certificates.emplace_back(
          *file, certificate ? Fact<Certificate>(*certificate)
                             : Fact<Certificate>::not_seen(because(certificate.error())));
    }
    mgr_silent_ = !has_mgr();
    health();
    versions();
    mons();
    SIPHON_TRY(pools_and_osds());
    if (session_.interrupted()) return interrupted();
    osds();
    if (session_.interrupted()) return interrupted();
    SIPHON_TRY(rights());
    leftovers();
    if (session_.interrupted()) return interrupted();
    return std::move(facts_);
  }

 private:
  static tl::unexpected<Error> interrupted() {
    return fail(Session::interrupted_error("interrupted"));
  }

  Result<Json> mon(Json words) {
    return parsed(ask_mons(cluster_, command(std::move(words))), "a mon");
  }

  // Whoever asks the mgr when there is none waits.
  bool has_mgr() {
    const auto answer = mon({{"prefix", "mgr stat"}});
    return answer && answer->value("available", false);
  }

  // ---- the cluster -----------------------------------------------------------------------------

  void health() {
    auto answer = mon({{"prefix", "health"}});
    if (!answer) {
      facts_.health = Fact<std::map<std::string, HealthCheck>>::not_seen(because(answer.error()));
      return;
    }
    std::map<std::string, HealthCheck> checks;
    const Json said = answer->value("checks", Json::object());
    for (const auto& [name, check] : said.items()) {
      checks[name] = {text_at(check, "severity"),
                      text_at(check.value("summary", Json::object()), "message")};
    }
    facts_.health = std::move(checks);
  }

  void versions() {
    auto answer = mon({{"prefix", "versions"}});
    if (!answer) {
      facts_.versions = Fact<std::vector<std::string>>::not_seen(because(answer.error()));
      return;
    }
    std::set<std::string> found;
    const Json overall = answer->value("overall", Json::object());
    for (const auto& [text, count] : overall.items()) {
      found.insert(version_and_commit(text).first);
    }
    facts_.versions = std::vector<std::string>(found.begin(), found.end());
  }

  void mons() {
    auto quorum = mon({{"prefix", "quorum_status"}});
    if (!quorum) {
      facts_.mons = Fact<std::vector<MonFacts>>::not_seen(because(quorum.error()));
      return;
    }
    const auto clocks = mon({{"prefix", "time-sync-status"}});
    std::map<std::string, std::string> hosts;
    if (const auto metadata = mon({{"prefix", "mon metadata"}}); metadata && metadata->is_array()) {
      for (const Json& entry : *metadata) {
        hosts[text_at(entry, "name")] = text_at(entry, "hostname");
      }
    }
    const Json names = quorum->value("quorum_names", Json::array());
    std::vector<MonFacts> found;
    const Json map = quorum->value("monmap", Json::object());
    const Json members = map.value("mons", Json::array());
    for (const Json& entry : members) {
      MonFacts facts;
      facts.name = text_at(entry, "name");
      facts.host = hosts[facts.name];
      facts.in_quorum = std::find(names.begin(), names.end(), Json(facts.name)) != names.end();
      facts.skew_s = skew_of(facts, clocks, names.size());
      if (facts.in_quorum) {
        facts.insecure_reclaim =
            running_value("mon." + facts.name, "auth_allow_insecure_global_id_reclaim");
      } else {
        facts.insecure_reclaim = Fact<std::string>::not_seen("mon." + facts.name + " is away");
      }
      found.push_back(std::move(facts));
    }
    facts_.mons = std::move(found);
  }

  static Fact<double> skew_of(MonFacts& facts, const Result<Json>& clocks, std::size_t mons) {
    if (mons == 1 && facts.in_quorum) return 0.0;  // there is nothing to compare with
    if (!clocks) return Fact<double>::not_seen(because(clocks.error()));
    const Json all = clocks->value("time_skew_status", Json::object());
    const auto found = all.find(facts.name);
    if (found == all.end()) return Fact<double>::not_seen("the mons do not tell");
    facts.skew_ok = text_at(*found, "health") == "HEALTH_OK";
    const auto skew = found->find("skew");
    return skew != found->end() && skew->is_number() ? skew->get<double>() : 0.0;
  }

  // A daemon's running value, as the mgr has it. A mgr that is silent is asked once.
  Fact<std::string> running_value(const std::string& who, const std::string& option) {
    if (mgr_silent_) return Fact<std::string>::not_seen("the mgr does not answer");
    auto answer =
        ask_mgr(cluster_, Json{{"prefix", "config show"}, {"who", who}, {"key", option}}.dump());
    if (answer) {
      std::string value = std::move(*answer);
      while (value.ends_with('\n')) value.pop_back();
      return value;
    }
    if (answer.error().code == Code::kDeadlineExceeded) mgr_silent_ = true;
    return Fact<std::string>::not_seen(because(answer.error()));
  }

  Status pools_and_osds() {
    auto dump = mon({{"prefix", "osd dump"}});
    if (!dump) {
      facts_.pools = Fact<std::vector<PoolFacts>>::not_seen(because(dump.error()));
      facts_.osds = Fact<std::vector<OsdFacts>>::not_seen(because(dump.error()));
      return {};
    }
    SIPHON_TRY(take_pools(*dump));
    std::map<int, Json> metadata;
    if (const auto all = mon({{"prefix", "osd metadata"}}); all && all->is_array()) {
      for (const Json& entry : *all) metadata[entry.value("id", -1)] = entry;
    }
    std::vector<OsdFacts> osds;
    const Json entries = dump->value("osds", Json::array());
    for (const Json& entry : entries) {
      OsdFacts osd;
      osd.id = entry.value("osd", -1);
      osd.up = entry.value("up", 0) != 0;
      const Json& about = metadata[osd.id];
      if (about.is_object()) {
        osd.host = text_at(about, "hostname");
        std::tie(osd.ceph_version, osd.ceph_commit) =
            version_and_commit(text_at(about, "ceph_version"));
        osd.host_memory_bytes = number_in(text_at(about, "mem_total_kb")) * kKiB;
      }
      osds.push_back(std::move(osd));
    }
    facts_.osds = std::move(osds);
    return {};
  }

  Status take_pools(const Json& dump) {
    std::map<std::int64_t, std::string> names;
    for (const Json& entry : dump.at("pools")) {
      names[entry.value("pool", std::int64_t{0})] = text_at(entry, "pool_name");
    }
    std::vector<PoolFacts> pools;
    const auto& wanted = facts_.pool_arguments;
    for (const Json& entry : dump.at("pools")) {
      PoolFacts pool;
      pool.state.id = entry.value("pool", std::int64_t{0});
      pool.state.name = text_at(entry, "pool_name");
      const Json applications = entry.value("application_metadata", Json::object());
      for (const auto& [tag, values] : applications.items()) {
        auto& keys = pool.state.applications[tag];
        for (const auto& [key, value] : values.items()) {
          if (value.is_string()) keys[key] = value.get<std::string>();
        }
      }
      pool.wanted = wanted.empty() ? pool.state.tagged()
                                   : std::ranges::find(wanted, pool.state.name) != wanted.end();
      const auto tier_of = entry.value("tier_of", std::int64_t{-1});
      const auto front = std::max(entry.value("read_tier", std::int64_t{-1}),
                                  entry.value("write_tier", std::int64_t{-1}));
      if (tier_of >= 0) pool.tier_of = names[tier_of];
      if (front >= 0) pool.tier_in_front = names[front];
      pools.push_back(std::move(pool));
    }
    for (const std::string& name : wanted) {
      if (std::ranges::any_of(pools, [&](const auto& p) { return p.state.name == name; })) continue;
      return fail(Code::kNotFound, "there is no pool '" + name + "'", Side::kNone,
                  "ceph osd pool ls");
    }
    facts_.pools = std::move(pools);
    return {};
  }

  // ---- each OSD --------------------------------------------------------------------------------

  // Names that lead to the OSDs, those of pools that take part first. What is not found has no
  // placement group whose primary it is.
  std::map<int, Way> ways(const std::vector<OsdFacts>& osds) {
    std::map<int, Way> found;
    if (!facts_.pools) return found;
    std::size_t up = 0;
    for (const OsdFacts& osd : osds) up += osd.up;
    std::vector<const PoolFacts*> pools;
    for (const PoolFacts& pool : *facts_.pools) pools.push_back(&pool);
    const auto takes_part = [](const PoolFacts* pool) {
      return pool->wanted || pool->state.tagged();
    };
    std::stable_partition(pools.begin(), pools.end(), takes_part);
    std::size_t questions = 0;
    for (const PoolFacts* pool : pools) {
      const Location location{pool->state.name, "", pool->state.id};
      std::set<std::uint32_t> groups;
      for (std::size_t i = 0; i < kMaxNamesPerPool * 4 && groups.size() < kMaxNamesPerPool; ++i) {
        if (found.size() >= up || questions >= kMaxQuestions || session_.interrupted()) {
          return found;
        }
        const std::string name = "probe-" + std::to_string(i);
        const auto group = cluster_.placement_group(location, name);
        if (!group) break;
        if (!groups.insert(*group).second) continue;
        ++questions;
        auto placed = mon({{"prefix", "osd map"}, {"pool", location.pool}, {"object", name}});
        if (!placed) return found;
        const int primary = placed->value("acting_primary", -1);
        if (primary >= 0) found.try_emplace(primary, Way{location, name, takes_part(pool)});
      }
    }
    return found;
  }

  void osds() {
    if (!facts_.osds) return;
    std::vector<OsdFacts>& osds = *facts_.osds.value;
    const std::map<int, Way> known = ways(osds);
    services();
    run_parallel(osds.size(), kThreads, [&](std::size_t i) {
      if (!osds[i].up || session_.interrupted()) return;
      const auto way = known.find(osds[i].id);
      look_at(osds[i], way == known.end() ? nullptr : &way->second);
    });
  }

  // What the companions have entered in the service map: an address where hello gives none.
  void services() {
    const auto dump = mon({{"prefix", "service dump"}});
    if (!dump) return;
    const Json daemons = dump->value("services", Json::object())
                             .value("siphon", Json::object())
                             .value("daemons", Json::object());
    for (const auto& [name, entry] : daemons.items()) {
      if (entry.is_object()) services_[name] = entry.value("metadata", Json::object());
    }
  }

  void look_at(OsdFacts& osd, const Way* way) {
    const bool answers = running_settings(osd);
    if (way == nullptr) {
      const std::string why = "it is the primary of no placement group that was found";
      osd.object_class = Fact<ClassState>::not_seen(why);
      osd.control_address = Fact<std::string>::not_seen(why);
    } else if (osd.silent) {
      osd.object_class = Fact<ClassState>::not_seen("it does not answer");
      osd.control_address = Fact<std::string>::not_seen("it does not answer");
    } else {
      // A placement group may be silent for want of another OSD.
      const bool late = !object_class(osd, *way);
      osd.silent = late && !answers;
      if (!late) hello(osd, *way);
    }
    const bool said_hello = osd.control_address.value.has_value();
    service_address(osd);
    if (!osd.control_address || osd.control_address->empty()) {
      const std::string why =
          osd.control_address ? "no siphond runs there" : osd.control_address.unseen;
      osd.daemon = Fact<DaemonFacts>::not_seen(why);
      osd.local = Fact<LocalFacts>::not_seen(why);
      osd.layout = Fact<exchange::LayoutState>::not_seen(why);
      return;
    }
    reach(osd);
    daemon(osd, way, said_hello);
    if (said_hello) {
      layout(osd, *way);
    } else {
      osd.layout = Fact<exchange::LayoutState>::not_seen("it did not say hello");
    }
    local(osd);
  }

  // By asking the OSD itself, which takes 'allow *'; else by what it has told the mgr. Whether the
  // OSD has answered.
  bool running_settings(OsdFacts& osd) {
    Fact<std::string> memory;
    bool answers = false;
    const std::string who = "osd." + std::to_string(osd.id);
    bool denied = false;
    for (const auto& [option, fact] :
         {std::pair("osd_class_load_list", &osd.class_load_list),
          std::pair("osd_class_default_list", &osd.class_default_list),
          std::pair("auth_service_required", &osd.auth_service_required),
          std::pair("osd_memory_target", &memory)}) {
      if (osd.silent) {
        *fact = Fact<std::string>::not_seen("it does not answer");
        continue;
      }
      if (!denied) {
        auto answer = parsed(
            ask_osd(cluster_, osd.id, command({{"prefix", "config get"}, {"var", option}})), who);
        if (answer && answer->is_object() && answer->contains(option)) {
          *fact = text_at(*answer, option);
          answers = true;
          continue;
        }
        const Code code = answer ? Code::kUnavailable : answer.error().code;
        osd.silent = code == Code::kDeadlineExceeded;
        denied = code == Code::kPermissionDenied;
      }
      *fact = osd.silent ? Fact<std::string>::not_seen("it does not answer")
                         : running_value(who, option);
    }
    osd.memory_target_bytes = memory ? Fact<std::uint64_t>(number_in(*memory))
                                     : Fact<std::uint64_t>::not_seen(memory.unseen);
    return answers;
  }

  // False: no answer in time.
  bool object_class(OsdFacts& osd, const Way& way) {
    auto loaded = loaded_class(cluster_, way.location, way.locator);
    if (!loaded) {
      osd.object_class = Fact<ClassState>::not_seen(because(loaded.error()));
      osd.control_address = Fact<std::string>::not_seen(because(loaded.error()));
      return loaded.error().code != Code::kDeadlineExceeded;
    }
    switch (*loaded) {
      case LoadedClass::kMethods:
        osd.object_class = ClassState::kMethods;
        break;
      case LoadedClass::kNoMethods:
        osd.object_class = ClassState::kNoMethods;
        break;
      case LoadedClass::kAbsent:
        osd.object_class = ClassState::kAbsent;
        break;
    }
    return true;
  }

  // As `siphon daemons` does; not in a pool that has nothing to do with Siphon.
  void hello(OsdFacts& osd, const Way& way) {
    using Seen = Fact<std::string>;
    if (osd.object_class && *osd.object_class != ClassState::kMethods) {
      osd.control_address = Seen::not_seen("its OSD has no plugin to ask");
      return;
    }
    if (!way.takes_part) {
      osd.control_address =
          Seen::not_seen("it is the primary of no placement group of those pools");
      return;
    }
    auto answer = cluster_.hello(way.location, way.locator);
    if (answer) {
      osd.control_address = device_from(*answer).address;
      osd.control_tls = (answer->flags & exchange::Hello::kFlagTls) != 0;
    } else if (answer.error().code == Code::kUnavailable) {
      osd.control_address = std::string();
    } else {
      // Late is no proof against this OSD: hello waits for the other OSDs of the placement group.
      osd.control_address = Seen::not_seen(because(answer.error()));
    }
  }

  // Once a grant was asked for: with the first one the class finds out.
  void layout(OsdFacts& osd, const Way& way) {
    auto answer = cluster_.hello(way.location, way.locator);
    osd.layout = answer ? Fact<exchange::LayoutState>(answer->layout)
                        : Fact<exchange::LayoutState>::not_seen(because(answer.error()));
  }

  const Json* service_of(const OsdFacts& osd) const {
    const auto found = services_.find("osd." + std::to_string(osd.id));
    return found == services_.end() ? nullptr : &found->second;
  }

  void service_address(OsdFacts& osd) {
    if (osd.control_address) return;
    const Json* service = service_of(osd);
    const std::string control = service != nullptr ? text_at(*service, "control") : std::string();
    if (control.empty()) return;
    osd.control_address = control;
    osd.control_tls = Fact<bool>::not_seen("the service map does not tell");
  }

  void reach(OsdFacts& osd) {
    const std::string& control = *osd.control_address;
    auto to = parse_endpoint(control);
    if (!to) {
      osd.control_error = because(to.error());
      return;
    }
    auto socket = Socket::connect(*to, deadline_in(kConnect));
    osd.control_error = socket ? std::string() : because(socket.error());
    if (!osd.control_tls || !*osd.control_tls) return;
    auto certificate = certificate_at(control, kConnect);
    osd.certificate = certificate ? Fact<Certificate>(*certificate)
                                  : Fact<Certificate>::not_seen(because(certificate.error()));
  }

  Result<DeviceDescription> describe(const OsdFacts& osd, const Way* way, bool grants) {
    auto client = session_.device(*osd.control_address);
    if (!client) return fail(std::move(client).error());
    if (grants && way != nullptr && way->takes_part) {
      Authority authority;
      const Status write = request_grant(cluster_, way->location, way->locator,
                                         exchange::Right::kWrite, authority.write_nonce, kLook);
      if (write || (write.error().reason != Reason::kLayout &&
                    request_grant(cluster_, way->location, way->locator, exchange::Right::kRead,
                                  authority.read_nonce, kLook))) {
        auto description = (*client)->describe(authority);
        if (description || description.error().reason != Reason::kGrantUnknown) return description;
      }
    }
    return (*client)->describe({});
  }

  // `grants`: whether the OSD has answered so far, and will not keep us waiting for one.
  void daemon(OsdFacts& osd, const Way* way, bool grants) {
    if (osd.control_tls && *osd.control_tls && session_.options().tls_ca.empty()) {
      osd.daemon = Fact<DaemonFacts>::not_seen(
          "it speaks TLS, and this command has no certificate (--tls-ca, --tls-cert, --tls-key)");
      return;
    }
    const std::uint64_t before = now_unix_ms();
    auto told = describe(osd, way, grants);
    const std::uint64_t after = now_unix_ms();
    if (!told) {
      osd.daemon = Fact<DaemonFacts>::not_seen(because(told.error()));
      osd.daemon_silent =
          told.error().code == Code::kUnavailable || told.error().code == Code::kDeadlineExceeded;
      return;
    }
    DaemonFacts daemon;
    daemon.version = told->version;
    daemon.adapter = told->adapter;
    daemon.data_address = told->data_address;
    const std::size_t dash = told->data_ports.find('-');
    daemon.first_data_port = static_cast<std::uint16_t>(number_in(told->data_ports));
    if (dash != std::string::npos) {
      daemon.last_data_port =
          static_cast<std::uint16_t>(number_in(told->data_ports.substr(dash + 1)));
    }
    daemon.region_bytes = told->region_bytes;
    daemon.journal_file = told->journal_file;
    daemon.journal_in_memory = told->journal_in_memory;
    daemon.pid = told->pid;
    if (told->clock_unix_ms > 0) {
      const double here_ms = (static_cast<double>(before) + static_cast<double>(after)) / 2;
      daemon.clock_ahead_s = (static_cast<double>(told->clock_unix_ms) - here_ms) / 1000;
      daemon.clock_error_s = static_cast<double>(after - before) / 2000;
    }
    osd.daemon = std::move(daemon);
  }

  void local(OsdFacts& osd) {
    if (osd.host != facts_.here) {
      osd.local = Fact<LocalFacts>::not_seen(osd.host.empty() ? "which host it is on is not known"
                                                              : "it is on " + osd.host +
                                                                    ", this is " + facts_.here);
      return;
    }
    std::uint32_t pid = osd.daemon ? osd.daemon->pid : 0;
    if (const Json* service = service_of(osd); pid == 0 && service != nullptr) {
      pid = static_cast<std::uint32_t>(number_in(text_at(*service, "pid")));
    }
    osd.local = look_at_process(pid);
  }

  // ---- rights, leftovers -----------------------------------------------------------------------

  Status rights() {
    const Options& options = session_.options();
    facts_.rights_wanted = !options.as_entity.empty() || !options.verbs_wanted.empty();
    if (!facts_.rights_wanted) return {};
    RightsFacts rights;
    rights.entity = options.as_entity.empty() ? cluster_.name() : options.as_entity;
    if (rights.entity.find('.') == std::string::npos) rights.entity = "client." + rights.entity;
    auto key = mon({{"prefix", "auth get"}, {"entity", rights.entity}});
    if (key && key->is_array() && !key->empty()) {
      take_key(key->front(), rights);
    } else if (!key && key.error().code == Code::kNotFound) {
      return fail(Code::kNotFound, "there is no key of the name " + rights.entity, Side::kNone,
                  "ceph auth ls");
    } else if (rights.entity == cluster_.name()) {
      try_rights(rights);
    } else {
      facts_.rights = Fact<RightsFacts>::not_seen(
          cluster_.name() + " may not read the caps of " + rights.entity +
          " (mon 'allow *'); as that key itself: siphon doctor -n " + rights.entity);
      return {};
    }
    facts_.rights = std::move(rights);
    return {};
  }

  // Of the secret itself nothing is kept.
  void take_key(const Json& entry, RightsFacts& rights) {
    const Json caps = entry.value("caps", Json::object());
    for (const auto& [kind, text] : caps.items()) {
      if (text.is_string()) rights.caps[kind] = text.get<std::string>();
    }
    if (const auto type = key_type(text_at(entry, "key"))) rights.key_type = *type;
    rights.mon_read = mon_cap_reads(text_at(caps, "mon"));
    OsdCaps osd = parse_osd_caps(text_at(caps, "osd"));
    rights.not_understood = std::move(osd.not_understood);
    if (!facts_.pools) return;
    for (const PoolFacts& pool : *facts_.pools) {
      if (pool.wanted) rights.pools[pool.state.name] = rights_in(osd, pool.state);
    }
  }

  void try_rights(RightsFacts& rights) {
    rights.mon_read = facts_.pools.value.has_value();
    if (!facts_.pools) return;
    std::vector<const PoolFacts*> pools;
    for (const PoolFacts& pool : *facts_.pools) {
      if (pool.wanted) pools.push_back(&pool);
    }
    Mutex mutex;
    run_parallel(pools.size(), kThreads, [&](std::size_t i) {
      const Location location{pools[i]->state.name, "", pools[i]->state.id};
      const auto allowed = [&](Act act) {
        return may(cluster_, location, "probe-0", act).value_or(false);
      };
      PoolRights found;
      found.read = allowed(Act::kRead);
      found.write = allowed(Act::kWrite);
      found.hello = allowed(Act::kHello);
      found.grant_read = allowed(Act::kGrantRead);
      found.grant_write = allowed(Act::kGrantWrite);
      const MutexLock lock(mutex);
      rights.pools[location.pool] = found;
    });
  }

  void leftovers() {
    if (!facts_.pools) return;
    for (PoolFacts& pool : *facts_.pools.value) {
      if (!pool.wanted || !pool.state.tagged() || session_.interrupted()) continue;
      auto found = leftovers_of(pool);
      pool.leftovers = found ? Fact<LeftoverFacts>(*found)
                             : Fact<LeftoverFacts>::not_seen(because(found.error()));
    }
  }

  // Of the pool's default namespace.
  Result<LeftoverFacts> leftovers_of(const PoolFacts& pool) {
    Address address;
    address.location = {pool.state.name, "", pool.state.id};
    auto store = session_.store(address);
    if (!store) return fail(std::move(store).error());
    std::vector<std::string> names;
    LeftoverFacts found;
    std::string cursor;
    do {
      auto page = (*store)->list(cursor, kMaxLeftoverNames, Listing::kEverything);
      if (!page) return fail(std::move(page).error());
      names.insert(names.end(), page->names.begin(), page->names.end());
      cursor = page->next_cursor;
      if (!page->unlisted.empty() && found.unseen.empty()) {
        found.unseen = page->unlisted.front().message;
      }
    } while (!cursor.empty() && names.size() < kMaxLeftoverNames && !session_.interrupted());
    found.all_names = found.all_names && cursor.empty() && names.size() <= kMaxLeftoverNames;
    names.resize(std::min(names.size(), kMaxLeftoverNames));
    found.names = names.size();
    const std::uint64_t now = now_unix_ms();
    Mutex mutex;  // found
    std::atomic<bool> silent{false};
    run_parallel(names.size(), kThreads, [&](std::size_t i) {
      if (silent || session_.interrupted()) return;
      const auto reg = (*store)->inspect(names[i]);
      if (!reg && reg.error().code == Code::kDeadlineExceeded) silent = true;
      const MutexLock lock(mutex);
      if (!reg) {
        const bool gone = reg.error().code == Code::kNotFound;
        if (!gone && found.unseen.empty()) found.unseen = reg.error().message;
        return;
      }
      for (const TrashEntry& entry : reg->trash) {
        found.trash_due +=
            entry.was_published && entry.trashed_unix_ms + StoreLimits{}.trash_grace_ms <= now;
      }
      for (const Reservation& entry : reg->reservations) {
        found.leases_over += entry.lease_unix_ms < now;
      }
    });
    if (silent) return fail(Code::kDeadlineExceeded, "a placement group does not answer");
    return found;
  }

  Session& session_;
  RadosCluster& cluster_;
  Facts facts_;
  std::map<std::string, Json> services_;  // by device: what it has told the service map
  std::atomic<bool> mgr_silent_{true};
};

}  // namespace

Result<Facts> gather(Session& session) try {
  auto cluster = session.cluster(Role::kOnly);
  if (!cluster) return fail(std::move(cluster).error());
  return Gatherer(session, **cluster).run();
} catch (const std::exception& e) {  // JSON of another shape than this knows
  return fail(Code::kUnavailable, std::string("read what the cluster says: ") + e.what());
}

}  // namespace siphon::cli::doctor
