// Of each OSD, its plugin and its companion.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <tuple>

#include "plugin/base/text.h"
#include "plugin/base/types.h"
#include "plugin/cli/doctor/report.h"

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

std::string restart_companion(const OsdFacts& osd) {
  const std::uint32_t pid = osd.daemon ? osd.daemon->pid : 0;
  return pid != 0 ? fmt::format("kill {}", pid) : restart(osd);
}

std::string build_of(const OsdFacts& osd) {
  if (osd.ceph_version.empty()) return "this Ceph";
  return "Ceph " + osd.ceph_version + " (" + osd.ceph_commit + ")";
}

// The folder is relative to / in Debian's 18.2 and 20.2, and a slash more does no harm.
std::string install_plugin(const OsdFacts& osd) {
  return at_host(
      osd,
      "install -m 644 libcls_siphon.so \"/$(ceph-osd --show-config-value osd_class_dir)/\" && " +
          restart(osd));
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

}  // namespace

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
    const std::string build = build_of(*osd);
    const std::string install = install_plugin(*osd);
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

void check_layouts(const Facts& facts, Findings& out) {
  const std::string why =
      "it cannot tell for which pool a grant is asked: copies from and to this OSD are refused";
  for (const OsdFacts* osd : living(facts, "layout", "the layouts", out)) {
    if (osd->object_class && *osd->object_class != ClassState::kMethods) continue;  // said there
    Reporter report(out, "layout", name_of(*osd));
    if (!osd->layout) {
      report.unseen("whether it gives grants", osd->layout.unseen);
      continue;
    }
    switch (*osd->layout) {
      case exchange::LayoutState::kFits:
        report.ok("it gives grants: its operations have the layout that was verified for " +
                  build_of(*osd));
        break;
      case exchange::LayoutState::kUnproven:
        report.unseen("whether it gives grants",
                      "its layout is tried out when the first one is asked for");
        break;
      case exchange::LayoutState::kDoesNotFit:
        report.error(
            "it refuses every grant: its operations do not have the layout that was "
            "verified for " +
                build_of(*osd),
            why,
            at_host(*osd,
                    fmt::format("grep 'siphon: layout' /var/log/ceph/ceph-osd.{}.log", osd->id)));
        break;
      case exchange::LayoutState::kUnverified:
        report.error(
            "it refuses every grant: nobody has verified a layout for " + build_of(*osd), why,
            "take a Siphon that knows this release (docs/operations.md, Another release of Ceph), "
            "then: " +
                install_plugin(*osd));
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

}  // namespace siphon::cli::doctor
