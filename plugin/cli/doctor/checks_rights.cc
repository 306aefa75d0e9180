// Of a key: what it may do, against what the verbs need.
#include <algorithm>

#include "plugin/cli/doctor/report.h"

namespace siphon::cli::doctor {
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

}  // namespace siphon::cli::doctor
