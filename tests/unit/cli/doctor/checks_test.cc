// What `siphon doctor` makes of facts: each is broken here once, on paper.
#include "plugin/cli/doctor/checks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "plugin/base/types.h"

namespace siphon::cli::doctor {
namespace {

constexpr std::int64_t kNow = 1'790'000'000, kDay = 86400;

OsdFacts healthy_osd(int id) {
  OsdFacts osd;
  osd.id = id;
  osd.host = "alpha";
  osd.ceph_version = "16.2.15";
  osd.ceph_commit = "618f44";
  osd.host_memory_bytes = 32 * kGiB;
  osd.class_load_list = std::string("lock log siphon");
  osd.class_default_list = std::string("lock log");
  osd.auth_service_required = std::string("cephx");
  osd.memory_target_bytes = 4 * kGiB;
  osd.object_class = ClassState::kMethods;
  osd.layout = exchange::LayoutState::kFits;
  osd.control_address = "127.0.0.1:740" + std::to_string(id);
  osd.control_tls = false;
  osd.control_error = std::string();
  DaemonFacts daemon;
  daemon.version = "0.1.0";
  daemon.adapter = "objclass";
  daemon.data_address = "127.0.0.1";
  daemon.first_data_port = 7500;
  daemon.last_data_port = 7999;
  daemon.region_bytes = 64 * kMiB;
  daemon.journal_file = "/var/lib/ceph/osd/ceph-0/siphon.journal";
  daemon.clock_ahead_s = 0.01;
  daemon.clock_error_s = 0.02;
  daemon.pid = 4711;
  osd.daemon = daemon;
  osd.local = LocalFacts{"ceph-osd@0.service", "continue"};
  return osd;
}

PoolFacts healthy_pool(const std::string& name, std::int64_t id) {
  PoolFacts pool;
  pool.state = {id, name, {{"siphon", {}}}};
  pool.wanted = true;
  pool.leftovers = LeftoverFacts{.names = 3};
  return pool;
}

Facts healthy() {
  Facts facts;
  facts.now_unix_s = kNow;
  facts.here = "alpha";
  facts.version = "0.1.0";
  facts.entity = "client.admin";
  MonFacts mon{.name = "a", .host = "alpha", .skew_s = 0.0};
  mon.insecure_reclaim = std::string("false");
  facts.mons = std::vector<MonFacts>{mon};
  facts.health = std::map<std::string, HealthCheck>{};
  facts.auth_client_required = "cephx, none";
  facts.versions = std::vector<std::string>{"20.2.4"};
  facts.pools = std::vector<PoolFacts>{healthy_pool("A", 1), healthy_pool("B", 2)};
  facts.osds = std::vector<OsdFacts>{healthy_osd(0), healthy_osd(1)};
  return facts;
}

OsdFacts& osd(Facts& facts, std::size_t i = 0) { return facts.osds.value->at(i); }

Severity worst(const Findings& findings) {
  Severity severity = Severity::kOk;
  for (const Finding& f : findings) severity = std::max(severity, f.severity);
  return severity;
}

// The one finding of a check about something that is not well.
Finding the_bad(const Findings& findings, const std::string& check, const std::string& about) {
  std::optional<Finding> found;
  for (const Finding& f : findings) {
    if (f.check != check || f.about != about || f.severity == Severity::kOk) continue;
    EXPECT_FALSE(found) << check << " " << about << ": " << f.what;
    found = f;
  }
  EXPECT_TRUE(found) << "nothing of " << check << " about " << about;
  return found.value_or(Finding{});
}

TEST(DoctorChecks, AHealthyClusterIsOkInEveryCheck) {
  const Findings findings = check_all(healthy());
  for (const Finding& f : findings) {
    EXPECT_EQ(f.severity, Severity::kOk) << f.check << " " << f.about << ": " << f.what;
    EXPECT_TRUE(f.seen && f.why.empty() && f.mend.empty()) << f.check;
  }
  std::set<std::string> checks;
  for (const Finding& f : findings) checks.insert(f.check);
  EXPECT_EQ(checks,
            (std::set<std::string>{
                "mons",      "osd-up",        "plugin",     "class-load-list", "class-default-list",
                "companion", "version",       "reach",      "reach-devices",   "ports",
                "layout",    "tls",           "clock",      "memory",          "oom-policy",
                "journal",   "pool-tag",      "cache-tier", "trash",           "scratch",
                "cephx",     "cve-2025-30156"}));
}

// One thing that is broken: what is found of it, and that nothing else is.
struct Case {
  const char* name;
  std::function<void(Facts&)> broken;
  std::string check, about;
  Severity severity;
  std::string what, mend;  // parts of them
};

TEST(DoctorChecks, EachThingThatIsBrokenIsFoundAndNothingElse) {
  const std::vector<Case> cases = {
      {"a mon is away", [](Facts& f) { f.mons.value->at(0).in_quorum = false; }, "mons", "mon.a",
       Severity::kWarning, "quorum", "systemctl start ceph-mon@a  # on alpha"},
      {"a mon's clock",
       [](Facts& f) {
         f.mons.value->at(0).skew_s = -0.4;
         f.mons.value->at(0).skew_ok = false;
       },
       "clock", "mon.a", Severity::kWarning, "0.400 s", "set-ntp"},
      {"an OSD is down", [](Facts& f) { osd(f).up = false; }, "osd-up", "osd.0", Severity::kWarning,
       "down", "systemctl start ceph-osd@0"},
      {"an OSD hangs", [](Facts& f) { osd(f).silent = true; }, "osd-up", "osd.0", Severity::kError,
       "does not answer", "systemctl restart ceph-osd@0"},
      {"no plugin", [](Facts& f) { osd(f).object_class = ClassState::kAbsent; }, "plugin", "osd.0",
       Severity::kError, "not loaded", "install -m 644 libcls_siphon.so"},
      {"another build", [](Facts& f) { osd(f).object_class = ClassState::kNoMethods; }, "plugin",
       "osd.0", Severity::kError, "Ceph 16.2.15 (618f44)", "systemctl restart ceph-osd@0"},
      {"a Ceph that nobody has verified",
       [](Facts& f) { osd(f).layout = exchange::LayoutState::kUnverified; }, "layout", "osd.0",
       Severity::kError, "Ceph 16.2.15 (618f44)", "systemctl restart ceph-osd@0"},
      {"another layout than was verified",
       [](Facts& f) { osd(f).layout = exchange::LayoutState::kDoesNotFit; }, "layout", "osd.0",
       Severity::kError, "refuses every grant", "grep 'siphon: layout'"},
      {"not in the load list", [](Facts& f) { osd(f).class_load_list = std::string("lock log"); },
       "class-load-list", "osd.0", Severity::kError, "not in",
       "ceph config set osd osd_class_load_list \"lock log siphon\" && systemctl restart"},
      {"in the default list",
       [](Facts& f) { osd(f).class_default_list = std::string("lock siphon log"); },
       "class-default-list", "osd.0", Severity::kError, "siphon is in",
       "ceph config set osd osd_class_default_list \"lock log\" &&"},
      {"everything is in the default list",
       [](Facts& f) { osd(f).class_default_list = std::string("*"); }, "class-default-list",
       "osd.0", Severity::kError, "is *", "ceph config rm osd osd_class_default_list"},
      {"the companion does not answer from here",
       [](Facts& f) { osd(f).control_error = std::string("Connection refused"); }, "reach", "osd.0",
       Severity::kError, "127.0.0.1:7400 does not answer from here: Connection refused", ":7400"},
      {"a port of Ceph's", [](Facts& f) { osd(f).control_address = std::string("127.0.0.1:6805"); },
       "ports", "osd.0", Severity::kWarning, "6800-7300", "kill 4711"},
      {"ports that the kernel gives away",
       [](Facts& f) { osd(f).daemon.value->last_data_port = 33000; }, "ports", "osd.0",
       Severity::kWarning, "32768", "data.ports"},
      {"few ports", [](Facts& f) { osd(f).daemon.value->last_data_port = 7506; }, "ports", "osd.0",
       Severity::kWarning, "7 ports", "data.ports"},
      {"a clock of a device", [](Facts& f) { osd(f).daemon.value->clock_ahead_s = 61.5; }, "clock",
       "osd.0", Severity::kWarning, "61.5 s ahead", "timedatectl set-ntp true  # on alpha"},
      {"a large region", [](Facts& f) { osd(f).daemon.value->region_bytes = 2 * kGiB; }, "memory",
       "osd.0", Severity::kWarning, "2.00 GiB", "SIPHON_REGION_MIB"},
      {"a small host",
       [](Facts& f) {
         for (auto& o : *f.osds.value) o.host_memory_bytes = 8 * kGiB;
       },
       "memory", "host alpha", Severity::kWarning, "2 OSDs",
       "ceph config set osd/host:alpha osd_memory_target 36"},
      {"no drop-in", [](Facts& f) { osd(f).local.value->oom_policy = ""; }, "oom-policy", "osd.0",
       Severity::kWarning, "ceph-osd@0.service", "/etc/systemd/system/ceph-osd@.service.d"},
      {"a journal in memory", [](Facts& f) { osd(f).daemon.value->journal_in_memory = true; },
       "journal", "osd.0", Severity::kWarning, "tmpfs", "journal.file"},
      {"a tier", [](Facts& f) { f.pools.value->at(0).tier_in_front = "hot"; }, "cache-tier",
       "pool A", Severity::kError, "hot in front", "ceph osd tier remove A hot"},
      {"a tier itself", [](Facts& f) { f.pools.value->at(1).tier_of = "A"; }, "cache-tier",
       "pool B", Severity::kError, "tier of pool A", "ceph osd tier remove A B"},
      {"trash", [](Facts& f) { f.pools.value->at(0).leftovers.value->trash_due = 2; }, "trash",
       "pool A", Severity::kNote, "2 generations", "siphon trash purge --older-than 7d A"},
      {"scratch", [](Facts& f) { f.pools.value->at(0).leftovers.value->leases_over = 1; },
       "scratch", "pool A", Severity::kNote, "1 attempt", "siphon scratch purge A"},
      {"an old Ceph",
       [](Facts& f) {
         f.versions = std::vector<std::string>{"19.2.5", "20.2.4"};
       },
       "cve-2025-30156", "cluster", Severity::kNote, "19.2.5", "upgrade"},
      {"global ids", [](Facts& f) { f.mons.value->at(0).insecure_reclaim = std::string("true"); },
       "cephx", "mons", Severity::kWarning, "global_id",
       "ceph config set mon auth_allow_insecure_global_id_reclaim false"},
      {"global ids by health",
       [](Facts& f) {
         (*f.health.value)["AUTH_INSECURE_GLOBAL_ID_RECLAIM_ALLOWED"] = {"HEALTH_WARN", ""};
       },
       "cephx", "mons", Severity::kWarning, "global_id", "ceph config set mon"},
      {"no authentication", [](Facts& f) { osd(f).auth_service_required = std::string("none"); },
       "cephx", "osd.0", Severity::kError, "no key", "auth_service_required cephx"},
      {"no authentication here", [](Facts& f) { f.auth_client_required = "none"; }, "cephx",
       "cluster", Severity::kError, "nobody", "auth_client_required"},
      {"another version of all", [](Facts& f) { f.version = "0.2.0"; }, "version", "cluster",
       Severity::kNote, "0.2.0", "Upgrades"},
      {"several versions", [](Facts& f) { osd(f, 1).daemon.value->version = "0.2.0"; }, "version",
       "cluster", Severity::kWarning, "0.1.0 at osd.0; 0.2.0 at osd.1", "Upgrades"},
  };
  for (const Case& c : cases) {
    Facts facts = healthy();
    c.broken(facts);
    const Findings findings = check_all(facts);
    const Finding f = the_bad(findings, c.check, c.about);
    EXPECT_EQ(f.severity, c.severity) << c.name;
    EXPECT_NE(f.what.find(c.what), std::string::npos) << c.name << ": " << f.what;
    EXPECT_NE(f.mend.find(c.mend), std::string::npos) << c.name << ": " << f.mend;
    EXPECT_FALSE(f.why.empty()) << c.name;
    EXPECT_EQ(std::ranges::count_if(
                  findings, [](const Finding& other) { return other.severity != Severity::kOk; }),
              1)
        << c.name;
  }
}

TEST(DoctorChecks, ADeadCompanionIsAnErrorAndTheRestIsNotCalledOk) {
  Facts facts = healthy();
  osd(facts).control_address = std::string();
  osd(facts).daemon = Fact<DaemonFacts>::not_seen("no siphond runs there");
  osd(facts).local = Fact<LocalFacts>::not_seen("no siphond runs there");
  const Findings findings = check_all(facts);
  EXPECT_EQ(the_bad(findings, "companion", "osd.0").severity, Severity::kError);
  for (const Finding& f : findings) {
    if (f.about != "osd.0" || f.severity != Severity::kOk) continue;
    EXPECT_TRUE(f.check == "osd-up" || f.check == "plugin" || f.check == "layout" ||
                f.check == "cephx" || f.check.starts_with("class-"))
        << f.check << ": " << f.what;
  }
}

TEST(DoctorChecks, ACompanionThatHangsIsAnError) {
  Facts facts = healthy();
  osd(facts).daemon = Fact<DaemonFacts>::not_seen("no answer in time");
  osd(facts).daemon_silent = true;
  EXPECT_EQ(the_bad(check_all(facts), "companion", "osd.0").severity, Severity::kError);
  osd(facts).daemon_silent = false;
  EXPECT_FALSE(the_bad(check_all(facts), "companion", "osd.0").seen) << "it refused";
}

// Not one "ok" about what nobody has looked at.
TEST(DoctorChecks, WhatIsNotSeenIsSaidAndNeverOk) {
  Facts facts;
  facts.auth_client_required = "cephx";
  facts.rights_wanted = true;
  for (const Finding& f : check_all(facts)) {
    EXPECT_FALSE(f.seen) << f.check << ": " << f.what;
    EXPECT_EQ(f.severity, Severity::kNote) << f.check;
    EXPECT_NE(f.what.find("not seen from here: "), std::string::npos) << f.what;
  }
  facts = healthy();
  OsdFacts unknown;
  unknown.host = "beta";
  facts.osds = std::vector<OsdFacts>{unknown};
  for (const Finding& f : check_all(facts)) {
    if (f.about != "osd.0" || f.check == "osd-up") continue;
    EXPECT_FALSE(f.seen) << f.check << ": " << f.what;
  }
}

// With a placement group down, what the others hold is no word about it.
TEST(DoctorChecks, LeftoversThatCouldNotAllBeSeenAreNotCalledNone) {
  Facts facts = healthy();
  LeftoverFacts& left = *facts.pools.value->at(0).leftovers.value;
  left.unseen = "placement group 1.3 does not answer";
  const auto of_pool = [&](const std::string& check) {
    Findings findings = check_all(facts);
    std::erase_if(findings,
                  [&](const Finding& f) { return f.check != check || f.about != "pool A"; });
    return findings;
  };
  for (const char* check : {"trash", "scratch"}) {
    const Findings findings = of_pool(check);
    ASSERT_EQ(findings.size(), 1u) << check;
    EXPECT_FALSE(findings[0].seen) << check;
    EXPECT_NE(findings[0].what.find("not seen from here: placement group 1.3"), std::string::npos);
  }
  left.trash_due = left.leases_over = 1;
  for (const char* check : {"trash", "scratch"}) {
    const Findings findings = of_pool(check);
    ASSERT_EQ(findings.size(), 2u) << check;
    EXPECT_TRUE(findings[0].seen);
    EXPECT_NE(findings[0].what.find("(of 3 names that could be seen)"), std::string::npos);
    EXPECT_FALSE(findings[1].seen);
  }
}

TEST(DoctorChecks, LoopbackIsEnoughForOneHostAlone) {
  Facts facts = healthy();
  osd(facts, 1).host = "beta";
  osd(facts, 1).control_address = std::string("192.0.2.7:7400");
  osd(facts, 1).daemon.value->data_address = "192.0.2.7";
  const Findings findings = check_all(facts);
  const Finding lonely = the_bad(findings, "reach-devices", "osd.0");
  EXPECT_EQ(lonely.severity, Severity::kError);
  EXPECT_NE(lonely.what.find("2 hosts"), std::string::npos) << lonely.what;
  EXPECT_FALSE(the_bad(findings, "reach-devices", "osd.1").seen);
}

TEST(DoctorChecks, CertificatesHaveADateAndAnAddress) {
  struct Date {
    std::int64_t from, until;
    std::vector<std::string> names;
    Severity severity;
    const char* what;
  };
  for (const Date& date :
       {Date{-kDay, 90 * kDay, {"127.0.0.1"}, Severity::kOk, "valid until"},
        Date{-kDay, 7 * kDay, {"127.0.0.1"}, Severity::kWarning, "only"},
        Date{-9 * kDay, -kDay, {"127.0.0.1"}, Severity::kError, "out of date"},
        Date{kDay, 9 * kDay, {"127.0.0.1"}, Severity::kError, "not valid before"},
        Date{-kDay, 90 * kDay, {"192.0.2.1"}, Severity::kError, "127.0.0.1"}}) {
    Facts facts = healthy();
    for (auto& o : *facts.osds.value) {
      o.control_tls = true;
      o.certificate = Certificate{kNow + date.from, kNow + date.until, date.names};
    }
    facts.own_certificates = {{"c.pem", Certificate{kNow - kDay, kNow + 90 * kDay, {}}}};
    Findings findings;
    check_tls(facts, findings);
    ASSERT_EQ(findings.size(), 3u);
    EXPECT_EQ(findings[0].severity, date.severity) << findings[0].what;
    EXPECT_NE(findings[0].what.find(date.what), std::string::npos) << findings[0].what;
    EXPECT_EQ(findings[2].severity, Severity::kOk) << "c.pem";
  }
}

TEST(DoctorChecks, TlsIsForAllDevicesOrNone) {
  Facts facts = healthy();
  osd(facts).control_tls = true;
  osd(facts).certificate = Fact<Certificate>::not_seen("no answer");
  Findings findings;
  check_tls(facts, findings);
  EXPECT_EQ(the_bad(findings, "tls", "cluster").severity, Severity::kError);
  EXPECT_EQ(the_bad(findings, "tls", "this command").severity, Severity::kWarning);
  facts.own_certificates = {{"c.pem", Fact<Certificate>::not_seen("No such file")}};
  findings.clear();
  check_tls(facts, findings);
  EXPECT_EQ(the_bad(findings, "tls", "c.pem").severity, Severity::kError);
}

TEST(DoctorChecks, PoolsWithoutTheTag) {
  Facts facts = healthy();
  PoolFacts& named = facts.pools.value->at(0);
  named.state.applications = {{"rbd", {}}};
  EXPECT_EQ(the_bad(check_all(facts), "pool-tag", "pool A").mend,
            "ceph osd pool application enable A siphon");
  named.wanted = false;
  EXPECT_EQ(worst(check_all(facts)), Severity::kOk) << "somebody else's pool";
  named.state.applications.clear();
  EXPECT_EQ(the_bad(check_all(facts), "pool-tag", "pool A").severity, Severity::kNote);
  for (PoolFacts& pool : *facts.pools.value) {
    pool.state.applications = {{"rbd", {}}};
    pool.wanted = false;
  }
  EXPECT_EQ(the_bad(check_all(facts), "pool-tag", "cluster").severity, Severity::kError);
}

TEST(DoctorChecks, TheMendedReleasesAreThoseOfTheAdvisory) {
  for (const auto& [version, concerned] :
       {std::pair("16.2.15", true), std::pair("18.2.7", true), std::pair("19.2.5", true),
        std::pair("19.2.6", false), std::pair("20.1.0", true), std::pair("20.2.3", true),
        std::pair("20.2.4", false), std::pair("21.0.0", false), std::pair("main", true)}) {
    Facts facts = healthy();
    facts.versions = std::vector<std::string>{version};
    Findings findings;
    check_forged_tickets(facts, findings);
    ASSERT_EQ(findings.size(), 1u);
    EXPECT_EQ(findings[0].severity, concerned ? Severity::kNote : Severity::kOk) << version;
  }
}

// ---- rights ------------------------------------------------------------------------------------

Facts with_rights(std::map<std::string, PoolRights> pools, std::vector<std::string> verbs,
                  std::vector<std::string> arguments) {
  Facts facts = healthy();
  facts.rights_wanted = true;
  facts.verbs = std::move(verbs);
  facts.pool_arguments = std::move(arguments);
  RightsFacts rights;
  rights.entity = "client.mover";
  rights.mon_read = true;
  rights.pools = std::move(pools);
  rights.caps = {{"mon", "allow r"}, {"osd", "allow x"}, {"mgr", "allow r"}};
  facts.rights = rights;
  return facts;
}

Findings rights_of(const Facts& facts) {
  Findings findings;
  check_rights(facts, findings);
  return findings;
}

const PoolRights kSource{.read = true, .hello = true, .grant_read = true};
const PoolRights kTarget{.hello = true, .grant_write = true};

TEST(DoctorRights, WhatIsEnoughIsOk) {
  EXPECT_EQ(worst(rights_of(with_rights({{"A", kSource}, {"B", kTarget}}, {"copy"}, {"A", "B"}))),
            Severity::kOk);
  EXPECT_EQ(worst(rights_of(with_rights({{"A", kSource}, {"B", kTarget}}, {"copy"}, {}))),
            Severity::kOk)
      << "one that serves as source, and one as target, are enough when none is named";
  EXPECT_TRUE(rights_of(healthy()).empty()) << "nobody asked";
}

TEST(DoctorRights, WhatIsMissingIsAddedToAllThatTheKeyHas) {
  const Findings findings = rights_of(with_rights(
      {{"A", kSource}, {"B", PoolRights{.hello = true}}}, {"copy", "move"}, {"A", "B"}));
  ASSERT_EQ(findings.size(), 2u);
  EXPECT_EQ(findings[0].severity, Severity::kError);
  EXPECT_EQ(findings[0].what, "for copy it lacks allow class siphon grant_write pool=B");
  EXPECT_EQ(findings[0].mend,
            "ceph auth caps client.mover mgr 'allow r' mon 'allow r' osd 'allow x, allow class "
            "siphon grant_write pool=B'");
  EXPECT_EQ(findings[1].what,
            "for move it lacks allow rw pool=A, allow class siphon grant_read pool=B, allow class "
            "siphon grant_write pool=B");
}

TEST(DoctorRights, TheLastPoolIsTheTarget) {
  const Findings findings =
      rights_of(with_rights({{"A", kSource}, {"B", kTarget}}, {"copy"}, {"B", "A"}));
  EXPECT_EQ(findings.at(0).what,
            "for copy it lacks allow class siphon grant_read pool=B, allow class siphon "
            "grant_write pool=A");
}

TEST(DoctorRights, WhoMayNotListIsTold) {
  PoolRights blind = kSource;
  blind.read = false;
  const Findings findings =
      rights_of(with_rights({{"A", blind}, {"B", kTarget}}, {"copy"}, {"A", "B"}));
  ASSERT_EQ(findings.size(), 2u);
  EXPECT_EQ(findings[0].severity, Severity::kOk);
  EXPECT_EQ(findings[1].severity, Severity::kNote);
  EXPECT_NE(findings[1].mend.find("allow r pool=A"), std::string::npos) << findings[1].mend;
}

TEST(DoctorRights, WithoutTheCapsTheCommandSaysWhereToGetThem) {
  Facts facts = with_rights({{"A", {}}}, {"get"}, {"A"});
  facts.rights.value->caps.clear();
  const Findings findings = rights_of(facts);
  EXPECT_EQ(findings.at(0).mend,
            "ceph auth get client.mover; then, with all that it has: ceph auth caps client.mover "
            "mon 'allow r' osd '..., allow r pool=A'");
}

TEST(DoctorRights, TooMuchIsANoteAndSoIsAnOldKey) {
  Facts facts = with_rights(
      {{"A",
        PoolRights{.hello = true, .grant_read = true, .grant_write = true, .lifecycle = true}}},
      {}, {});
  facts.rights.value->key_type = 1;
  facts.rights.value->not_understood = {"profile rbd"};
  const Findings findings = rights_of(facts);
  ASSERT_EQ(findings.size(), 3u);
  for (const Finding& f : findings) EXPECT_EQ(f.severity, Severity::kNote) << f.what;
  facts.versions = std::vector<std::string>{"16.2.15"};
  EXPECT_EQ(rights_of(facts).size(), 2u) << "that Ceph knows no other type";
}

}  // namespace
}  // namespace siphon::cli::doctor
