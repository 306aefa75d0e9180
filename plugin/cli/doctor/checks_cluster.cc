// Of the cluster as a whole: mons, authentication, pools.
#include <fmt/format.h>

#include <algorithm>

#include "plugin/base/text.h"
#include "plugin/cli/doctor/report.h"

namespace siphon::cli::doctor {

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

}  // namespace siphon::cli::doctor
