#include "plugin/cli/redundancy.h"

#include <fmt/format.h>

#include <chrono>
#include <string>
#include <utility>

#include "adapters/rados/pool_state.h"
#include "adapters/rados/rados_cluster.h"

namespace siphon::cli {
namespace {

Error degraded(const std::string& what) {
  return {
      Code::kFailedPrecondition, what, Side::kTarget,
      "see ceph health detail; run the same command again once the pool is active+clean (what is "
      "copied is not copied again), or add --accept-degraded",
      Reason::kDegraded};
}

}  // namespace

std::map<std::size_t, Error> not_yet_safe(Session& session, const std::vector<Address>& targets) {
  std::map<std::size_t, Error> unsafe;
  // The copies of one placement group are safe or not together.
  std::map<std::pair<Location, std::uint32_t>, std::vector<std::size_t>> groups;
  auto cluster = Result<RadosCluster*>(nullptr);
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (targets[i].where != Where::kCeph) continue;
    if (cluster && *cluster == nullptr) cluster = session.cluster(Role::kTarget);
    if (!cluster) {
      unsafe.emplace(i, cluster.error());
      continue;
    }
    const auto group = (*cluster)->placement_group(targets[i].location, targets[i].extent);
    if (group) {
      groups[{targets[i].location, *group}].push_back(i);
    } else {
      unsafe.emplace(i, group.error());
    }
  }
  if (groups.empty()) return unsafe;
  const auto until =
      std::chrono::steady_clock::now() + std::chrono::seconds(session.options().timeout_seconds);
  std::map<std::size_t, Error> waiting;
  for (bool said = false;; said = true) {
    waiting.clear();
    GroupStates states(**cluster);
    for (auto entry = groups.begin(); entry != groups.end();) {
      const auto& [where, items] = *entry;
      const std::string& locator = targets[items.front()].extent;
      const auto short_of = states.why_not_clean(where.first, where.second, locator);
      if (short_of && short_of->empty()) {
        entry = groups.erase(entry);
        continue;
      }
      const Error error =
          short_of ? degraded(targets[items.front()].location.to_string() + ": " + *short_of)
                   : degraded("cannot tell whether the copy is on all of its OSDs: " +
                              short_of.error().message);
      for (const std::size_t i : items) waiting.emplace(i, error);
      ++entry;
    }
    if (groups.empty() || std::chrono::steady_clock::now() > until) break;
    if (!said) {
      session.meter().note(fmt::format(
          "siphon: {} copies are not yet on all of their OSDs; waiting up to {} s before their "
          "sources go",
          waiting.size(), session.options().timeout_seconds));
    }
    if (!session.wait(std::chrono::seconds(1))) break;
  }
  unsafe.merge(waiting);
  return unsafe;
}

}  // namespace siphon::cli
