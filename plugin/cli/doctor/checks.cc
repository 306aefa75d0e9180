#include "plugin/cli/doctor/checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <set>
#include <tuple>

#include "plugin/base/text.h"
#include "plugin/base/types.h"

namespace siphon::cli::doctor {
namespace {

constexpr double kClockLimitS = 5;
constexpr std::int64_t kDayS = 86400;
constexpr std::int64_t kSoonS = 30 * kDayS;  // in which a certificate should be renewed
// What a companion may need beside its region: docs/operations.md, Memory.
constexpr std::uint64_t kCompanionBytes = 128 * kMiB;
constexpr std::uint64_t kLeastMemoryTarget = 896 * kMiB;  // Ceph's own
constexpr unsigned kTransfersAtOnce = 4;                  // into one device, by default
constexpr std::uint16_t kFirstCephPort = 6800, kLastCephPort = 7300;
constexpr std::uint16_t kFirstEphemeral = 32768, kLastEphemeral = 60999;  // the kernel's default

std::string name_of(const OsdFacts& osd) { return "osd." + std::to_string(osd.id); }

// What follows one check's findings about one thing.
class Reporter {
 public:
  Reporter(Findings& out, std::string check, std::string about)
      : out_(out), check_(std::move(check)), about_(std::move(about)) {}

  void ok(std::string what) { add(Severity::kOk, std::move(what), {}, {}); }
  void unseen(const std::string& what, const std::string& because, std::string mend = {}) {
    add(Severity::kNote, what + ": not seen from here: " + because, {}, std::move(mend));
    out_.back().seen = false;
  }
  void note(std::string what, std::string why, std::string mend) {
    add(Severity::kNote, std::move(what), std::move(why), std::move(mend));
  }
  void warning(std::string what, std::string why, std::string mend) {
    add(Severity::kWarning, std::move(what), std::move(why), std::move(mend));
  }
  void error(std::string what, std::string why, std::string mend) {
    add(Severity::kError, std::move(what), std::move(why), std::move(mend));
  }

 private:
  void add(Severity severity, std::string what, std::string why, std::string mend) {
    out_.push_back(
        {check_, severity, true, about_, std::move(what), std::move(why), std::move(mend)});
  }
  Findings& out_;
  const std::string check_, about_;
};

// The OSDs that can say something, or one finding that says why there are none.
std::vector<const OsdFacts*> living(const Facts& facts, const std::string& check,
                                    const std::string& what, Findings& out) {
  std::vector<const OsdFacts*> osds;
  if (!facts.osds) {
    Reporter(out, check, "cluster").unseen(what, facts.osds.unseen);
    return osds;
  }
  for (const OsdFacts& osd : *facts.osds) {
    if (osd.up) osds.push_back(&osd);
  }
  return osds;
}

// A command for the OSD's host, which is named behind it.
std::string at_host(const OsdFacts& osd, const std::string& command) {
  return command + (osd.host.empty() ? std::string() : "  # on " + osd.host);
}

std::string restart(const OsdFacts& osd) {
  return fmt::format("systemctl restart ceph-osd@{}", osd.id);
}

std::string restart_companion(const OsdFacts& osd) {
  const std::uint32_t pid = osd.daemon ? osd.daemon->pid : 0;
  return pid != 0 ? fmt::format("kill {}", pid) : restart(osd);
}

std::vector<std::string> words_of_list(const std::string& text) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : text + " ") {
    if (std::string_view(" ,;=\t").find(c) == std::string_view::npos) {
      word += c;
    } else if (!word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
  }
  return words;
}

bool is_loopback_endpoint(const std::string& endpoint) {
  return endpoint.starts_with("127.") || endpoint.starts_with("[::1]") || endpoint == "::1";
}

std::string host_part(const std::string& endpoint) {
  std::string host = endpoint.substr(0, endpoint.rfind(':'));
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  return host;
}

std::uint16_t port_part(const std::string& endpoint) {
  std::uint16_t port = 0;
  const std::size_t colon = endpoint.rfind(':');
  if (colon == std::string::npos) return 0;
  std::from_chars(endpoint.data() + colon + 1, endpoint.data() + endpoint.size(), port);
  return port;
}

std::string day(std::int64_t unix_s) {
  return rfc3339(static_cast<std::uint64_t>(std::max<std::int64_t>(unix_s, 0)) * 1000)
      .substr(0, 10);
}

using Version = std::array<int, 3>;
std::optional<Version> parse_version(const std::string& text) {
  Version version{};
  const char* at = text.data();
  const char* end = at + text.size();
  for (std::size_t i = 0; i < version.size(); ++i) {
    const auto [stop, error] = std::from_chars(at, end, version[i]);
    if (error != std::errc()) return std::nullopt;
    at = stop;
    if (i + 1 < version.size() && (at == end || *at++ != '.')) return std::nullopt;
  }
  return version;
}

// The date of a certificate, and whether it is of the address that it is shown at ("": any).
void judge_certificate(Reporter& report, const Certificate& certificate, std::int64_t now_unix_s,
                       const std::string& address, const std::string& renew) {
  const std::string until = day(certificate.not_after_unix_s);
  if (certificate.not_after_unix_s <= now_unix_s) {
    report.error("its certificate has been out of date since " + until,
                 "every call over TLS is refused", renew);
  } else if (certificate.not_before_unix_s > now_unix_s) {
    report.error("its certificate is not valid before " + day(certificate.not_before_unix_s),
                 "every call over TLS is refused until then, or a clock is wrong", renew);
  } else if (!address.empty() &&
             std::ranges::find(certificate.names, address) == certificate.names.end()) {
    report.error("its certificate does not name the address " + address,
                 "callers compare the two, and refuse",
                 renew + ", with subjectAltName=IP:" + address);
  } else if (certificate.not_after_unix_s <= now_unix_s + kSoonS) {
    report.warning("its certificate is valid until " + until + " only",
                   "after that every call over TLS is refused", renew);
  } else {
    report.ok("its certificate is valid until " + until);
  }
}

std::string joined(const std::vector<std::string>& parts, const std::string& between = ", ") {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : between) + part;
  return text;
}

}  // namespace

std::string_view to_string(Severity severity) {
  switch (severity) {
    case Severity::kNote:
      return "note";
    case Severity::kWarning:
      return "warning";
    case Severity::kError:
      return "error";
    case Severity::kOk:
      break;
  }
  return "ok";
}

// ---- the cluster -------------------------------------------------------------------------------

void check_mons(const Facts& facts, Findings& out) {
  if (!facts.mons) {
    return Reporter(out, "mons", "cluster").unseen("the mons", facts.mons.unseen);
  }
  for (const MonFacts& mon : *facts.mons) {
    Reporter report(out, "mons", "mon." + mon.name);
    if (mon.in_quorum) {
      report.ok("in the quorum");
    } else {
      report.warning(
          "it is not in the quorum",
          "when too few are left, nothing of the cluster answers any more",
          "systemctl start ceph-mon@" + mon.name + (mon.host.empty() ? "" : "  # on " + mon.host));
    }
  }
}

void check_cephx(const Facts& facts, Findings& out) {
  const std::string everybody =
      "whoever reaches the port is who he says he is: Siphon's rights are worth nothing";
  Reporter client(out, "cephx", "cluster");
  // Ceph's default is "cephx, none": whatever the other side asks for.
  const auto client_words = words_of_list(facts.auth_client_required);
  if (std::ranges::find(client_words, "cephx") == client_words.end()) {
    client.error("this host's clients authenticate to nobody (auth_client_required is " +
                     facts.auth_client_required + ")",
                 everybody, "set auth_client_required = cephx in the ceph.conf of this host");
  }
  for (const OsdFacts* osd : living(facts, "cephx", "what the OSDs ask of clients", out)) {
    Reporter report(out, "cephx", name_of(*osd));
    if (!osd->auth_service_required) {
      report.unseen("what it asks of clients", osd->auth_service_required.unseen);
      continue;
    }
    const auto words = words_of_list(*osd->auth_service_required);
    if (std::ranges::find(words, "none") != words.end()) {
      report.error(
          "clients need no key (auth_service_required has none)", everybody,
          at_host(*osd, "ceph config set global auth_service_required cephx && " + restart(*osd)));
    } else {
      report.ok("clients need a key");
    }
  }
  const auto* said = [&]() -> const HealthCheck* {
    if (!facts.health) return nullptr;
    const auto found = facts.health->find("AUTH_INSECURE_GLOBAL_ID_RECLAIM_ALLOWED");
    return found == facts.health->end() ? nullptr : &found->second;
  }();
  bool allowed = said != nullptr, all_seen = facts.mons && !facts.mons->empty();
  std::string unseen = facts.mons.unseen;
  if (facts.mons) {
    for (const MonFacts& mon : *facts.mons) {
      allowed = allowed || (mon.insecure_reclaim && *mon.insecure_reclaim == "true");
      if (!mon.insecure_reclaim) {
        all_seen = false;
        unseen = mon.insecure_reclaim.unseen;
      }
    }
  }
  Reporter reclaim(out, "cephx", "mons");
  if (allowed) {
    reclaim.warning(
        "auth_allow_insecure_global_id_reclaim is true",
        "who has any key can take the identity of another client's session (CVE-2021-20288)",
        "ceph config set mon auth_allow_insecure_global_id_reclaim false");
  } else if (all_seen) {
    reclaim.ok("auth_allow_insecure_global_id_reclaim is false");
  } else {
    reclaim.unseen("auth_allow_insecure_global_id_reclaim", unseen);
  }
}

void check_forged_tickets(const Facts& facts, Findings& out) {
  Reporter report(out, "cve-2025-30156", "cluster");
  if (!facts.versions) {
    return report.unseen("which Ceph runs", facts.versions.unseen);
  }
  std::vector<std::string> concerned;
  for (const std::string& text : *facts.versions) {
    const auto version = parse_version(text);
    const bool mended = version && (*version >= Version{20, 2, 4} ||
                                    ((*version)[0] == 19 && *version >= Version{19, 2, 6}));
    if (!mended) concerned.push_back(text);
  }
  if (concerned.empty()) {
    return report.ok("no daemon is of a release with it");
  }
  report.note("daemons of Ceph " + joined(concerned) + " run here",
              "before 19.2.6 and 20.2.4 a holder of any key can forge a ticket that may do "
              "everything on an OSD: Siphon's rights are worth what cephx is worth there",
              "upgrade Ceph, or give keys to nobody who may not have all");
}

void check_pools(const Facts& facts, Findings& out) {
  if (!facts.pools) {
    return Reporter(out, "pool-tag", "cluster").unseen("the pools", facts.pools.unseen);
  }
  bool any_tagged = false;
  for (const PoolFacts& pool : *facts.pools) {
    any_tagged = any_tagged || pool.state.tagged();
    const std::string enable = "ceph osd pool application enable " + pool.state.name + " siphon";
    Reporter report(out, "pool-tag", "pool " + pool.state.name);
    if (pool.state.tagged()) {
      if (pool.wanted) report.ok("it carries the application tag siphon");
    } else if (pool.wanted) {
      report.error("it does not carry the application tag siphon",
                   "no transfer reads or writes there", enable);
    } else if (pool.state.applications.empty()) {
      report.note("it carries no application tag", "if it is meant to take part, it cannot",
                  enable);
    }
    if (!pool.wanted && !pool.state.tagged()) continue;
    Reporter tier(out, "cache-tier", "pool " + pool.state.name);
    if (pool.tier_in_front.empty() && pool.tier_of.empty()) {
      tier.ok("no cache tier");
      continue;
    }
    const bool is_tier = !pool.tier_of.empty();
    const std::string base = is_tier ? pool.tier_of : pool.state.name;
    const std::string front = is_tier ? pool.state.name : pool.tier_in_front;
    tier.error(is_tier ? "it is a cache tier of pool " + base
                       : "it has the cache tier " + front + " in front of it",
               "what its OSDs hold is not what clients see: no transfer goes past a tier",
               fmt::format("ceph osd tier cache-mode {0} proxy; rados -p {0} "
                           "cache-flush-evict-all; ceph osd tier remove-overlay {1}; ceph osd tier "
                           "remove {1} {0}",
                           front, base));
  }
  if (!any_tagged && facts.pool_arguments.empty()) {
    Reporter(out, "pool-tag", "cluster")
        .error("no pool carries the application tag siphon", "nothing can be copied",
               "ceph osd pool application enable POOL siphon");
  }
}

void check_leftovers(const Facts& facts, Findings& out) {
  if (!facts.pools) return;  // check_pools says so
  for (const PoolFacts& pool : *facts.pools) {
    if (!pool.wanted || !pool.state.tagged()) continue;
    const std::string about = "pool " + pool.state.name;
    if (!pool.leftovers) {
      Reporter(out, "trash", about).unseen("what is left over", pool.leftovers.unseen);
      continue;
    }
    const LeftoverFacts& left = *pool.leftovers;
    const bool all_seen = left.unseen.empty();
    const std::string among =
        !all_seen        ? fmt::format(" (of {} that could be seen)", counted(left.names, "name"))
        : left.all_names ? ""
                         : fmt::format(" (of the first {})", counted(left.names, "name"));
    Reporter trash(out, "trash", about);
    if (left.trash_due > 0) {
      trash.note(
          counted(left.trash_due, "generation") + " in the trash past due" + among,
          "it goes when the next attempt for its name begins; until then it takes room",
          "siphon trash purge --older-than 7d " + pool.state.name + " --yes-i-really-mean-it");
    } else if (all_seen) {
      trash.ok("nothing in the trash past due" + among);
    }
    if (!all_seen) trash.unseen("the trash of some names", left.unseen);
    Reporter scratch(out, "scratch", about);
    if (left.leases_over > 0) {
      scratch.note(counted(left.leases_over, "attempt") + " whose lease is over" + among,
                   "nobody works at it any more, and it takes room",
                   "siphon scratch purge " + pool.state.name);
    } else if (all_seen) {
      scratch.ok("no attempt whose lease is over" + among);
    }
    if (!all_seen) scratch.unseen("the attempts of some names", left.unseen);
  }
}

// ---- each OSD ----------------------------------------------------------------------------------

void check_osds_up(const Facts& facts, Findings& out) {
  if (!facts.osds) {
    return Reporter(out, "osd-up", "cluster").unseen("the OSDs", facts.osds.unseen);
  }
  for (const OsdFacts& osd : *facts.osds) {
    Reporter report(out, "osd-up", name_of(osd));
    if (osd.up && osd.silent) {
      report.error("it is up, and does not answer", "whatever needs it waits until it times out",
                   at_host(osd, restart(osd)));
    } else if (osd.up) {
      report.ok("up");
    } else {
      report.warning("it is down", "nothing more of it can be seen, and nothing be copied there",
                     at_host(osd, fmt::format("systemctl start ceph-osd@{}", osd.id)));
    }
  }
}

void check_object_class(const Facts& facts, Findings& out) {
  for (const OsdFacts* osd : living(facts, "plugin", "the plugin", out)) {
    Reporter report(out, "plugin", name_of(*osd));
    const std::string build = osd->ceph_version.empty()
                                  ? "this Ceph"
                                  : "Ceph " + osd->ceph_version + " (" + osd->ceph_commit + ")";
    const std::string install = at_host(
        *osd,
        "install -m 644 libcls_siphon.so \"$(ceph-osd --show-config-value osd_class_dir)/\" "
        "&& " +
            restart(*osd));
    if (!osd->object_class) {
      report.unseen("whether it has the plugin", osd->object_class.unseen);
      continue;
    }
    switch (*osd->object_class) {
      case ClassState::kMethods:
        report.ok("the plugin is loaded, and compiled for what runs: " + build);
        break;
      case ClassState::kNoMethods:
        report.error("the plugin is loaded, but not compiled for what runs: " + build,
                     "it has no methods there: copies from and to this OSD are refused",
                     "build Siphon with that ceph-osd installed, then: " + install);
        break;
      case ClassState::kAbsent:
        report.error("the plugin is not loaded", "copies from and to this OSD are refused",
                     install);
        break;
    }
  }
}

void check_class_lists(const Facts& facts, Findings& out) {
  for (const OsdFacts* osd : living(facts, "class-load-list", "the lists of classes", out)) {
    const auto has = [](const std::vector<std::string>& words) {
      return std::ranges::any_of(words, [](const auto& w) { return w == "siphon" || w == "*"; });
    };
    Reporter load(out, "class-load-list", name_of(*osd));
    const std::string and_restart = " && " + restart(*osd);
    if (!osd->class_load_list) {
      load.unseen("osd_class_load_list", osd->class_load_list.unseen);
    } else if (has(words_of_list(*osd->class_load_list))) {
      load.ok("siphon is in osd_class_load_list");
    } else {
      auto words = words_of_list(*osd->class_load_list);
      words.emplace_back("siphon");
      load.error("siphon is not in osd_class_load_list", "the OSD does not load the plugin",
                 at_host(*osd, "ceph config set osd osd_class_load_list \"" + joined(words, " ") +
                                   "\"" + and_restart));
    }
    Reporter standard(out, "class-default-list", name_of(*osd));
    if (!osd->class_default_list) {
      standard.unseen("osd_class_default_list", osd->class_default_list.unseen);
      continue;
    }
    auto words = words_of_list(*osd->class_default_list);
    if (!has(words)) {
      standard.ok("siphon is not in osd_class_default_list");
      continue;
    }
    const bool all = std::ranges::find(words, "*") != words.end();
    std::erase(words, "siphon");
    standard.error(
        all ? "osd_class_default_list is *" : "siphon is in osd_class_default_list",
        "every key that holds x may call every method of it: Siphon's rights are worth nothing",
        at_host(*osd, (all ? std::string("ceph config rm osd osd_class_default_list")
                           : "ceph config set osd osd_class_default_list \"" + joined(words, " ") +
                                 "\"") +
                          and_restart));
  }
}

void check_companions(const Facts& facts, Findings& out) {
  for (const OsdFacts* osd : living(facts, "companion", "the companions", out)) {
    Reporter report(out, "companion", name_of(*osd));
    if (!osd->control_address) {
      report.unseen("its siphond", osd->control_address.unseen);
    } else if (osd->control_address->empty()) {
      report.error("no siphond runs beside it", "copies from and to this OSD are refused",
                   at_host(*osd, fmt::format("grep siphon: /var/log/ceph/ceph-osd.{0}.log; "
                                             "journalctl -u ceph-osd@{0}; siphond --check-config",
                                             osd->id)));
    } else if (!osd->daemon && osd->daemon_silent) {
      report.error(
          "its siphond does not answer: " + osd->daemon.unseen,
          "copies from and to this OSD wait, and fail",
          at_host(*osd, "ss -ltnp 'sport = :" + std::to_string(port_part(*osd->control_address)) +
                            "' shows its pid; kill -9 it, and the OSD starts it anew"));
    } else if (!osd->daemon) {
      report.unseen("what its siphond at " + *osd->control_address + " says of itself",
                    osd->daemon.unseen);
    } else {
      report.ok("siphond " + osd->daemon->version + " at " + *osd->control_address);
    }
  }
}

void check_versions(const Facts& facts, Findings& out) {
  if (!facts.osds) return;
  std::map<std::string, std::vector<std::string>> by_version;
  for (const OsdFacts& osd : *facts.osds) {
    if (osd.up && osd.daemon && !osd.daemon->version.empty()) {
      by_version[osd.daemon->version].push_back(name_of(osd));
    }
  }
  Reporter report(out, "version", "cluster");
  const std::string same = "run one version everywhere: docs/operations.md, Upgrades";
  if (by_version.empty()) {
    report.unseen("which version the companions are of", "none says");
  } else if (by_version.size() > 1) {
    std::string text;
    for (const auto& [version, osds] : by_version) {
      text += (text.empty() ? "" : "; ") + version + " at " + joined(osds);
    }
    report.warning("the companions are of several versions: " + text,
                   "what one of them can do, another may refuse", same);
  } else if (by_version.begin()->first != facts.version) {
    report.note("the companions are siphond " + by_version.begin()->first + ", this command is " +
                    facts.version,
                "what one of them can do, the other may refuse", same);
  } else {
    report.ok("siphond and this command are " + facts.version);
  }
}

void check_reach(const Facts& facts, Findings& out) {
  const auto osds = living(facts, "reach", "the control addresses", out);
  std::set<std::string> hosts;
  bool all_hosts_known = true;
  for (const OsdFacts* osd : osds) {
    hosts.insert(osd->host);
    all_hosts_known = all_hosts_known && !osd->host.empty();
  }
  for (const OsdFacts* osd : osds) {
    if (!osd->control_address || osd->control_address->empty()) continue;  // check_companions
    const std::string& control = *osd->control_address;
    Reporter here(out, "reach", name_of(*osd));
    if (!osd->control_error) {
      here.unseen("its control address " + control, osd->control_error.unseen);
    } else if (osd->control_error->empty()) {
      here.ok("its control address " + control + " answers from here");
    } else {
      here.error(
          "its control address " + control + " does not answer from here: " + *osd->control_error,
          "a command from here cannot ask it for a copy",
          at_host(*osd, fmt::format("ss -ltnp 'sport = :{}'", port_part(control))) +
              "; open that port between the two hosts");
    }
    Reporter there(out, "reach-devices", name_of(*osd));
    const std::string data = osd->daemon ? osd->daemon->data_address : std::string();
    const bool lonely = is_loopback_endpoint(control) || is_loopback_endpoint(data);
    if (!all_hosts_known) {
      there.unseen("whether the other devices reach it", "which hosts they are on is not known");
    } else if (hosts.size() == 1) {
      there.ok("all devices are on one host");
    } else if (lonely) {
      there.error(fmt::format("it listens on loopback, and the OSDs are on {} hosts", hosts.size()),
                  "no device of another host can copy from or to it",
                  at_host(*osd,
                          "set control.listen, data.address and tls.* in "
                          "/etc/siphon/siphond.toml, then: " +
                              restart_companion(*osd)));
    } else {
      there.unseen("whether the other devices reach " + control, "none of them can be asked that");
    }
  }
}

void check_ports(const Facts& facts, Findings& out) {
  const auto osds = living(facts, "ports", "the port ranges", out);
  std::map<std::string, unsigned> on_host;
  for (const OsdFacts* osd : osds) ++on_host[osd->host];
  const auto overlaps = [](unsigned first, unsigned last, unsigned from, unsigned to) {
    return first <= to && last >= from;
  };
  for (const OsdFacts* osd : osds) {
    if (!osd->control_address || osd->control_address->empty()) continue;  // check_companions
    Reporter report(out, "ports", name_of(*osd));
    const unsigned control = port_part(*osd->control_address);
    const unsigned first = osd->daemon ? osd->daemon->first_data_port : 0;
    const unsigned last = osd->daemon ? osd->daemon->last_data_port : 0;
    const std::string mend =
        at_host(*osd, "set control.listen and data.ports in /etc/siphon/siphond.toml, then: " +
                          restart_companion(*osd));
    bool well = true;
    for (const auto& [what, from, to] : {std::tuple{"its control port", control, control},
                                         std::tuple{"its range of data ports", first, last}}) {
      if (to == 0) continue;
      const std::string range = from == to ? std::to_string(from) : fmt::format("{}-{}", from, to);
      if (overlaps(from, to, kFirstCephPort, kLastCephPort)) {
        well = false;
        report.warning(
            fmt::format("{} {} is among {}-{}", what, range, kFirstCephPort, kLastCephPort),
            "Ceph's daemons take those, and may not find one that is free", mend);
      }
      if (overlaps(from, to, kFirstEphemeral, kLastEphemeral)) {
        well = false;
        report.warning(
            fmt::format("{} {} is among {}-{}", what, range, kFirstEphemeral, kLastEphemeral),
            "the kernel gives those to outgoing connections: one that is wanted may be "
            "taken",
            mend);
      }
    }
    if (last == 0) {
      report.unseen("its range of data ports",
                    osd->daemon ? "it tells no more to who has no grant_read or grant_write there"
                                : osd->daemon.unseen);
      continue;
    }
    const unsigned wanted = kTransfersAtOnce * std::max(1u, on_host[osd->host]);
    if (last - first + 1 < wanted) {
      well = false;
      report.warning(fmt::format("its range of data ports {}-{} has {}", first, last,
                                 counted(last - first + 1, "port")),
                     fmt::format("{} at once on its host want {}: transfers will fail for want of "
                                 "one",
                                 counted(on_host[osd->host], "OSD"), wanted),
                     mend);
    }
    if (well) report.ok(fmt::format("control port {}, data ports {}-{}", control, first, last));
  }
}

void check_tls(const Facts& facts, Findings& out) {
  std::size_t with = 0, without = 0;
  for (const OsdFacts* osd : living(facts, "tls", "the certificates", out)) {
    if (!osd->control_address || osd->control_address->empty()) continue;  // check_companions
    Reporter report(out, "tls", name_of(*osd));
    if (!osd->control_tls) {
      report.unseen("whether it speaks TLS", osd->control_tls.unseen);
      continue;
    }
    ++(*osd->control_tls ? with : without);
    if (!*osd->control_tls) {
      report.ok("no TLS: plain text, which siphond speaks on loopback alone");
    } else if (!osd->certificate) {
      report.unseen("the certificate it shows", osd->certificate.unseen);
    } else {
      judge_certificate(report, *osd->certificate, facts.now_unix_s,
                        host_part(*osd->control_address),
                        at_host(*osd, "renew tls.cert, then: " + restart_companion(*osd)));
    }
  }
  if (with > 0 && without > 0) {
    Reporter(out, "tls", "cluster")
        .error(fmt::format("{} with TLS, {} without", counted(with, "device"), without),
               "one kind cannot call the other: there is no copy between them",
               "set tls.ca, tls.cert and tls.key in /etc/siphon/siphond.toml of every host");
  }
  if (with > 0 && facts.own_certificates.empty()) {
    Reporter(out, "tls", "this command")
        .warning("the devices speak TLS, and this command was given no certificate",
                 "they answer only to who shows one of their CA",
                 "siphon doctor --tls-ca CA --tls-cert CERT --tls-key KEY");
  }
  for (const auto& [file, certificate] : facts.own_certificates) {
    Reporter report(out, "tls", file);
    if (certificate) {
      judge_certificate(report, *certificate, facts.now_unix_s, "", "renew " + file);
    } else {
      report.error("no certificate can be read there: " + certificate.unseen,
                   "no device can be called with it", "ls -l " + file);
    }
  }
}

void check_clocks(const Facts& facts, Findings& out) {
  const std::string why =
      "leases and dates go by clocks: ahead, a device may take another's running attempt for an "
      "old one";
  const std::string mend = "timedatectl set-ntp true";
  if (facts.mons) {
    for (const MonFacts& mon : *facts.mons) {
      Reporter report(out, "clock", "mon." + mon.name);
      if (!mon.skew_s) {
        report.unseen("its clock against the other mons'", mon.skew_s.unseen);
      } else if (mon.skew_ok) {
        report.ok("its clock agrees with the other mons'");
      } else {
        report.warning(
            fmt::format("its clock is {:.3f} s from the other mons'", std::abs(*mon.skew_s)),
            "Ceph's own tickets and leases go by it",
            mend + (mon.host.empty() ? "" : "  # on " + mon.host));
      }
    }
  } else {
    Reporter(out, "clock", "cluster").unseen("the mons' clocks", facts.mons.unseen);
  }
  for (const OsdFacts* osd : living(facts, "clock", "the OSDs' clocks", out)) {
    if (!osd->control_address || osd->control_address->empty()) continue;  // check_companions
    Reporter report(out, "clock", name_of(*osd));
    if (!osd->daemon || !osd->daemon->clock_ahead_s) {
      report.unseen("its host's clock",
                    osd->daemon ? "its siphond does not tell" : osd->daemon.unseen);
      continue;
    }
    const double ahead = *osd->daemon->clock_ahead_s;
    if (std::abs(ahead) > kClockLimitS + osd->daemon->clock_error_s) {
      report.warning(fmt::format("its host's clock is {:.1f} s {} of this one's", std::abs(ahead),
                                 ahead > 0 ? "ahead" : "behind"),
                     why, at_host(*osd, mend));
    } else {
      report.ok("its host's clock agrees with this one's");
    }
  }
}

void check_memory(const Facts& facts, Findings& out) {
  struct Host {
    std::uint64_t memory_bytes = 0, needed_bytes = 0, beside_bytes = 0;
    unsigned osds = 0;
    bool known = true;
  };
  std::map<std::string, Host> hosts;
  for (const OsdFacts* osd : living(facts, "memory", "the OSDs' memory", out)) {
    Reporter report(out, "memory", name_of(*osd));
    Host& host = hosts[osd->host];
    ++host.osds;
    host.memory_bytes = osd->host_memory_bytes;
    const std::uint64_t region = osd->daemon ? osd->daemon->region_bytes : 0;
    if (region == 0 || !osd->memory_target_bytes) {
      host.known = false;
      report.unseen("its region against osd_memory_target",
                    !osd->memory_target_bytes ? osd->memory_target_bytes.unseen
                    : osd->daemon ? "its siphond tells no more to who has no grant there"
                                  : osd->daemon.unseen);
      continue;
    }
    const std::uint64_t target = *osd->memory_target_bytes;
    host.needed_bytes += target + region + kCompanionBytes;
    host.beside_bytes += region + kCompanionBytes;
    const std::string both =
        "its region has " + human_bytes(region) + ", osd_memory_target is " + human_bytes(target);
    if (region * 4 > target) {
      report.warning(both, "the OSD does not count the region, and needs so much more than that",
                     at_host(*osd,
                             "systemctl edit ceph-osd@ (Environment=SIPHON_REGION_MIB=64), "
                             "then: " +
                                 restart(*osd)));
    } else {
      report.ok(both);
    }
  }
  for (const auto& [name, host] : hosts) {
    if (name.empty()) continue;
    Reporter report(out, "memory", "host " + name);
    if (host.memory_bytes == 0 || !host.known) {
      report.unseen("whether its memory is enough for all of its OSDs",
                    "not all of them tell what they need");
    } else if (host.needed_bytes > host.memory_bytes) {
      const std::uint64_t share = host.memory_bytes / 10 * 9 / host.osds;
      const std::uint64_t beside = host.beside_bytes / host.osds;
      const std::uint64_t target =
          std::max(kLeastMemoryTarget, share > beside ? share - beside : 0);
      report.warning(fmt::format("{} with their regions and companions want {}, it has {}",
                                 counted(host.osds, "OSD"), human_bytes(host.needed_bytes),
                                 human_bytes(host.memory_bytes)),
                     "the kernel ends a process when there is none left",
                     fmt::format("ceph config set osd/host:{} osd_memory_target {}", name, target));
    } else {
      report.ok(fmt::format("{} with their regions and companions want {} of {}",
                            counted(host.osds, "OSD"), human_bytes(host.needed_bytes),
                            human_bytes(host.memory_bytes)));
    }
  }
}

void check_oom_policy(const Facts& facts, Findings& out) {
  for (const OsdFacts* osd : living(facts, "oom-policy", "the OSDs' units", out)) {
    Reporter report(out, "oom-policy", name_of(*osd));
    if (!osd->local) {
      report.unseen("OOMPolicy of its unit", osd->local.unseen,
                    at_host(*osd, fmt::format("systemctl show -p OOMPolicy ceph-osd@{}", osd->id)));
      continue;
    }
    const std::string& unit = osd->local->unit;
    if (unit.empty()) {
      report.ok("no unit of systemd's would stop it");
    } else if (osd->local->oom_policy == "continue") {
      report.ok("OOMPolicy=continue for " + unit);
    } else {
      const std::size_t at = unit.find('@');
      const std::string folder =
          "/etc/systemd/system/" +
          (at == std::string::npos ? unit : unit.substr(0, at + 1) + ".service") + ".d";
      report.warning("OOMPolicy=continue is not set for " + unit,
                     "when the kernel kills its siphond for want of memory, systemd stops the OSD",
                     at_host(*osd, "install -d " + folder +
                                       " && printf '[Service]\\nOOMPolicy=continue\\n' > " +
                                       folder + "/siphon.conf && systemctl daemon-reload"));
    }
  }
}

void check_journals(const Facts& facts, Findings& out) {
  for (const OsdFacts* osd : living(facts, "journal", "the attempt journals", out)) {
    if (!osd->control_address || osd->control_address->empty()) continue;  // check_companions
    Reporter report(out, "journal", name_of(*osd));
    if (!osd->daemon || osd->daemon->journal_file.empty()) {
      report.unseen(
          "where its attempt journal is",
          osd->daemon ? "its siphond tells no more to who has no grant there" : osd->daemon.unseen);
    } else if (osd->daemon->journal_in_memory) {
      report.warning("its attempt journal " + osd->daemon->journal_file + " is in memory (tmpfs)",
                     "after a restart of the host nothing knows which attempts it had begun: their "
                     "bytes stay until somebody looks",
                     at_host(*osd,
                             "set journal.file = \"/var/lib/ceph/siphon/osd.$id.journal\" in "
                             "/etc/siphon/siphond.toml, then: " +
                                 restart_companion(*osd)));
    } else {
      report.ok("its attempt journal is " + osd->daemon->journal_file);
    }
  }
}

// ---- rights ------------------------------------------------------------------------------------

namespace {

// "ceph auth caps client.m mon 'allow r' osd '..., CAPS'": caps replace each other, so all of them.
std::string add_caps(const RightsFacts& rights, const std::vector<std::string>& missing) {
  const std::string added = joined(missing);
  std::string command = "ceph auth caps " + rights.entity;
  if (rights.caps.empty()) {
    return "ceph auth get " + rights.entity + "; then, with all that it has: " + command +
           " mon 'allow r' osd '..., " + added + "'";
  }
  auto caps = rights.caps;
  std::string& osd = caps["osd"];
  osd += (osd.empty() || added.empty() ? "" : ", ") + added;
  if (caps["mon"].empty()) caps["mon"] = "allow r";
  for (const auto& [kind, text] : caps) command += " " + kind + " '" + text + "'";
  return command;
}

struct Ends {
  std::vector<const PoolFacts*> sources, targets;
  bool named = false;  // which is which; otherwise one that serves is enough
};

// As the verb would take the pools: the last of several is the target.
Ends ends_of(const Facts& facts, bool two_ends) {
  Ends ends;
  for (const std::string& name : facts.pool_arguments) {
    for (const PoolFacts& pool : *facts.pools) {
      if (pool.state.name == name) ends.sources.push_back(&pool);
    }
  }
  ends.named = !ends.sources.empty();
  if (!ends.named) {
    for (const PoolFacts& pool : *facts.pools) {
      if (pool.wanted) ends.sources.push_back(&pool);
    }
  }
  if (!two_ends) return ends;
  ends.targets = ends.sources;
  if (ends.named && ends.sources.size() > 1) {
    ends.targets = {ends.sources.back()};
    ends.sources.pop_back();
  } else {
    ends.named = false;
  }
  return ends;
}

// The caps that one end of a verb lacks: of every pool, or when any will do of the one that lacks
// least.
std::vector<std::string> missing_of(const RightsFacts& rights, const PoolNeeds& needs,
                                    const std::vector<const PoolFacts*>& pools, bool every) {
  std::vector<std::string> missing;
  bool first = true;
  for (const PoolFacts* pool : pools) {
    const auto held = rights.pools.find(pool->state.name);
    const auto caps = missing_caps(needs, held == rights.pools.end() ? PoolRights{} : held->second,
                                   pool->state.name);
    if (every) {
      for (const std::string& cap : caps) {
        if (std::ranges::find(missing, cap) == missing.end()) missing.push_back(cap);
      }
    } else if (first || caps.size() < missing.size()) {
      missing = caps;
    }
    first = false;
  }
  return missing;
}

void check_verb(const Facts& facts, const VerbNeeds& needs, Findings& out) {
  const RightsFacts& rights = *facts.rights;
  const Ends ends = ends_of(facts, needs.target.any());
  Reporter report(out, "rights", rights.entity);
  if (ends.sources.empty()) {
    return report.unseen("whether it may " + std::string(needs.verb), "there is no pool for it");
  }
  std::vector<std::string> missing = missing_of(rights, needs.source, ends.sources, ends.named);
  for (const std::string& cap : missing_of(rights, needs.target, ends.targets, ends.named)) {
    if (std::ranges::find(missing, cap) == missing.end()) missing.push_back(cap);
  }
  const std::string verb(needs.verb);
  if (!missing.empty()) {
    return report.error("for " + verb + " it lacks " + joined(missing),
                        "the command ends with a refusal (exit code 4)", add_caps(rights, missing));
  }
  report.ok("it may " + verb);
  if (verb != "copy") return;
  for (const PoolFacts* pool : ends.sources) {
    const auto held = rights.pools.find(pool->state.name);
    if (held == rights.pools.end() || held->second.read || !held->second.grant_read) continue;
    report.note("it may not list pool " + pool->state.name,
                "its extents must be named one by one; for the whole pool it needs r there",
                add_caps(rights, {"allow r pool=" + pool->state.name}));
  }
}

}  // namespace

void check_rights(const Facts& facts, Findings& out) {
  if (!facts.rights_wanted) return;
  if (!facts.rights || !facts.pools) {
    return Reporter(out, "rights", "cluster")
        .unseen("what the key may do", !facts.rights ? facts.rights.unseen : facts.pools.unseen);
  }
  const RightsFacts& rights = *facts.rights;
  Reporter report(out, "rights", rights.entity);
  if (rights.mon_read && !*rights.mon_read) {
    report.error("it has no mon cap to read the cluster's map",
                 "its commands cannot connect, or not find a pool", add_caps(rights, {}));
  }
  for (const std::string& part : rights.not_understood) {
    report.note("of its OSD caps '" + part + "' is not understood here",
                "it may allow more than is said here", "ceph auth get " + rights.entity);
  }
  const auto all =
      std::ranges::find_if(rights.pools, [](const auto& entry) { return entry.second.lifecycle; });
  if (all != rights.pools.end() && rights.entity != "client.admin") {
    report.note("it may call every method of the class, in pool " + all->first + " for one",
                "with those that change an extent's lifecycle: a requester needs three of them",
                "give it the caps of README.md, The least rights");
  }
  if (rights.key_type && *rights.key_type == 1 && facts.versions &&
      std::ranges::any_of(*facts.versions, [](const std::string& text) {
        const auto version = parse_version(text);
        return version && *version >= Version{20, 2, 4};
      })) {
    report.note("its key is of the old type (AES-128)",
                "this Ceph knows a stronger one, and its mons may refuse the old one for new keys",
                "ceph auth rotate " + rights.entity);
  }
  for (const std::string& verb : facts.verbs) {
    if (const VerbNeeds* needs = needs_of(verb)) check_verb(facts, *needs, out);
  }
}

Findings check_all(const Facts& facts) {
  Findings out;
  for (auto* check : {check_mons, check_osds_up, check_object_class, check_class_lists,
                      check_companions, check_versions, check_reach, check_ports, check_tls,
                      check_clocks, check_memory, check_oom_policy, check_journals, check_pools,
                      check_leftovers, check_cephx, check_forged_tickets, check_rights}) {
    check(facts, out);
  }
  return out;
}

}  // namespace siphon::cli::doctor
