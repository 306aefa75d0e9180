// What `siphon doctor` knows of a cluster: gathered by gather.h, judged by checks.h.
//
// Values only; thread compatible. What nobody here can see is said as such: a check never takes the
// absence of a fact for a good one.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "adapters/rados/rados_cluster.h"
#include "plugin/cli/doctor/caps.h"

namespace siphon::cli::doctor {

// A value, or why it cannot be seen from here: half a sentence, behind "not seen from here: ".
template <typename T>
struct Fact {
  std::optional<T> value;
  std::string unseen = "not asked for";

  Fact() = default;
  Fact(T known) : value(std::move(known)), unseen() {}  // NOLINT: a value is a fact
  static Fact not_seen(std::string why) {
    Fact fact;
    fact.unseen = std::move(why);
    return fact;
  }
  explicit operator bool() const { return value.has_value(); }
  const T& operator*() const { return *value; }
  const T* operator->() const { return &*value; }
};

struct Certificate {
  std::int64_t not_before_unix_s = 0;
  std::int64_t not_after_unix_s = 0;
  std::vector<std::string> names;  // of its subjectAltName: addresses and host names
};

struct MonFacts {
  std::string name;  // "a"
  std::string host;
  Fact<double> skew_s;  // against the mons' leader, as that one sees it
  bool skew_ok = true;  // by the mons' own limit
  bool in_quorum = true;
  Fact<std::string> insecure_reclaim{};  // auth_allow_insecure_global_id_reclaim of the running mon
};

// What one pool holds of the past, of the names that were looked at.
struct LeftoverFacts {
  std::size_t names = 0;
  bool all_names = true;        // false: there are more, which nobody looked at
  std::string unseen{};         // why some of them could not be listed or read; empty: all could
  std::size_t trash_due = 0;    // generations in the trash for longer than they are kept
  std::size_t leases_over = 0;  // attempts that anybody may remove
};

struct PoolFacts {
  PoolState state;            // id, name, tags
  bool wanted = false;        // named on the command line, or tagged when none was
  std::string tier_in_front;  // of a pool with an overlay
  std::string tier_of;        // of a cache tier: the pool behind it
  Fact<LeftoverFacts> leftovers;
};

// The object class of Siphon in one OSD.
enum class ClassState {
  kMethods,    // loaded, in the build that it was compiled for
  kNoMethods,  // loaded, and without methods: compiled for another build
  kAbsent,     // not loaded
};

// What the companion says of itself, to who holds a grant.
struct DaemonFacts {
  std::string version;
  std::string adapter;  // "objclass"; "rados": it has no methods to go through
  // From here on only to who holds a grant; empty or 0: not told.
  std::string data_address;
  std::uint16_t first_data_port = 0, last_data_port = 0;
  std::uint64_t region_bytes = 0;
  std::string journal_file;
  bool journal_in_memory = false;       // on a tmpfs
  std::optional<double> clock_ahead_s;  // of this host's clock, to within half the call's time
  double clock_error_s = 0;             // that half
  std::uint32_t pid = 0;
};

// What an OSD's own host alone can see.
struct LocalFacts {
  std::string unit;        // "ceph-osd@3.service"; empty: no unit of systemd's has it
  std::string oom_policy;  // as its files say; empty: none does, and the default holds
};

struct OsdFacts {
  int id = 0;
  bool up = true;
  bool silent = false;                  // up, and what it was asked got no answer in time
  std::string host;                     // empty: not known
  std::string ceph_version;             // "16.2.15"
  std::string ceph_commit;              // "618f44..."
  std::uint64_t host_memory_bytes = 0;  // of the whole host; 0: not known
  // Of the running process.
  Fact<std::string> class_load_list, class_default_list, auth_service_required;
  Fact<std::uint64_t> memory_target_bytes;

  Fact<ClassState> object_class;
  Fact<exchange::LayoutState> layout;  // whether the class gives grants
  // The control address that the OSD gives out, HOST:PORT. Known and empty: no companion runs.
  Fact<std::string> control_address;
  Fact<bool> control_tls;
  Fact<std::string> control_error;  // of a connection from here; known and empty: it came about
  Fact<Certificate> certificate;    // that it shows there
  Fact<DaemonFacts> daemon;
  bool daemon_silent = false;  // it was asked, and no answer came
  Fact<LocalFacts> local;
};

struct HealthCheck {
  std::string severity, summary;
};

// A key, and what it may do in each pool.
struct RightsFacts {
  std::string entity;  // "client.mover"
  Fact<bool> mon_read;
  std::map<std::string, PoolRights> pools;
  // As they are set; empty: not known, the rights were tried out instead. By kind: "osd", "mon".
  std::map<std::string, std::string> caps;
  std::vector<std::string> not_understood;  // parts of the OSD caps
  Fact<int> key_type;                       // 1: AES-128
};

struct Facts {
  std::int64_t now_unix_s = 0;
  std::string here;     // this host's name
  std::string version;  // of this command
  std::string entity;   // whom it is connected as
  Fact<std::vector<MonFacts>> mons;
  Fact<std::map<std::string, HealthCheck>> health;
  std::string auth_client_required;         // as this host's configuration has it
  Fact<std::vector<std::string>> versions;  // of every daemon: "16.2.15"
  std::vector<std::string> pool_arguments;  // the POOL words, in order
  Fact<std::vector<PoolFacts>> pools;
  Fact<std::vector<OsdFacts>> osds;
  std::vector<std::pair<std::string, Fact<Certificate>>> own_certificates;  // by file
  std::vector<std::string> verbs;                                           // --for
  Fact<RightsFacts> rights;  // asked for by --as or --for
  bool rights_wanted = false;
};

}  // namespace siphon::cli::doctor
