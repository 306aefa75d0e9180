// What the cluster's map says of its pools and OSDs. The mons are asked for its epoch (a few
// hundred bytes); for the map as text only when that has changed.
#include "adapters/rados/pool_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "adapters/rados/rados_internal.h"

namespace siphon {
namespace {

using nlohmann::json;

// A command for the mons, answered as JSON.
Result<json> ask_mons(RadosCluster& cluster, const json& command, const std::string& what) {
  librados::bufferlist out;
  std::string status;
  const int result = cluster.impl().rados.mon_command(command.dump(), {}, &out, &status);
  if (result < 0) return fail(rados_internal::to_error(result, what));
  json answer = json::parse(out.c_str(), out.c_str() + out.length(), nullptr, false);
  if (answer.is_discarded()) {
    return fail(Code::kUnavailable, what + ": an answer that cannot be read");
  }
  return answer;
}

bool has_flag(const std::string& flags, const std::string& flag) {
  return ("," + flags + ",").find("," + flag + ",") != std::string::npos;
}

ClusterMap map_from(const json& dump) {
  ClusterMap map;
  map.epoch = dump.value("epoch", std::uint64_t{0});
  map.paused_for_writing = has_flag(dump.value("flags", ""), "pausewr");
  for (const json& entry : dump.at("pools")) {
    PoolState pool;
    pool.id = entry.value("pool", std::int64_t{0});
    pool.name = entry.value("pool_name", "");
    pool.size = entry.value("size", 0u);
    pool.tier_of = entry.value("tier_of", std::int64_t{-1});
    pool.read_tier = entry.value("read_tier", std::int64_t{-1});
    pool.write_tier = entry.value("write_tier", std::int64_t{-1});
    const std::string flags = entry.value("flags_names", "");
    pool.full = has_flag(flags, "full") || has_flag(flags, "full_quota");
    map.pools.emplace(pool.id, std::move(pool));
  }
  for (const json& osd : dump.at("osds")) {
    map.osd_up_from[osd.value("osd", -1)] = osd.value("up_from", std::uint64_t{0});
  }
  return map;
}

}  // namespace

std::int64_t ClusterMap::base_pool_of(std::int64_t pool_id) const {
  const auto found = pools.find(pool_id);
  return found == pools.end() || found->second.tier_of < 0 ? pool_id : found->second.tier_of;
}

Result<std::shared_ptr<const ClusterMap>> cluster_map(RadosCluster& cluster) try {
  auto stat = ask_mons(cluster, {{"prefix", "osd stat"}, {"format", "json"}},
                       "ask the mons for the epoch of the cluster's map");
  if (!stat) return fail(std::move(stat).error());
  const std::uint64_t epoch = stat->value("epoch", std::uint64_t{0});
  RadosCluster::Impl& impl = cluster.impl();
  {
    const MutexLock lock(impl.map_mutex);
    if (impl.map && epoch != 0 && impl.map->epoch >= epoch) {
      impl.map_asked_at = std::chrono::steady_clock::now();
      return impl.map;
    }
  }
  auto dump = ask_mons(cluster, {{"prefix", "osd dump"}, {"format", "json"}},
                       "ask the mons for the cluster's map");
  if (!dump) return fail(std::move(dump).error());
  auto map = std::make_shared<const ClusterMap>(map_from(*dump));
  const MutexLock lock(impl.map_mutex);
  if (!impl.map || impl.map->epoch < map->epoch) impl.map = map;
  impl.map_asked_at = std::chrono::steady_clock::now();
  return map;
} catch (const std::exception& e) {
  return fail(Code::kUnavailable, std::string("read the cluster's map: ") + e.what());
}

// ---- placement groups
// -------------------------------------------------------------------------------

// What the groups of a pool say of themselves, through the mgr; nullptr: this key may not ask, or
// no mgr answers.
const std::map<std::string, GroupStates::Group>* GroupStates::reports_of(const Location& location) {
  auto known = reports_.find(location.pool_id);
  if (known == reports_.end()) {
    known = reports_.emplace(location.pool_id, std::nullopt).first;
    const json command{{"prefix", "pg ls-by-pool"}, {"poolstr", location.pool}, {"format", "json"}};
    librados::bufferlist out;
    std::string status;
    const int result = cluster_.impl().rados.mgr_command(command.dump(), {}, &out, &status);
    const json answer =
        result < 0 ? json() : json::parse(out.c_str(), out.c_str() + out.length(), nullptr, false);
    if (answer.is_object() && answer.contains("pg_stats")) {
      auto& groups = known->second.emplace();
      for (const json& pg : answer.at("pg_stats")) {
        const std::string epoch = pg.value("reported_epoch", json("0")).is_string()
                                      ? pg.value("reported_epoch", std::string("0"))
                                      : std::to_string(pg.value("reported_epoch", 0ull));
        groups[pg.value("pgid", "")] = {pg.value("state", ""),
                                        pg.value("acting", std::vector<int>{}),
                                        std::strtoull(epoch.c_str(), nullptr, 10)};
      }
    }
  }
  return known->second ? &*known->second : nullptr;
}

// What the cluster's health holds against the group, as far as it names it; empty: nothing.
Result<std::string> GroupStates::complaint_of(const std::string& pgid) {
  constexpr std::size_t kNamedAtMost = 50;  // mon_health_max_detail
  if (!complaints_) {
    auto health =
        ask_mons(cluster_, {{"prefix", "health"}, {"detail", "detail"}, {"format", "json"}},
                 "ask the mons for the cluster's health");
    if (!health) return fail(std::move(health).error());
    complaints_.emplace();
    const json checks = health->value("checks", json::object());
    for (const auto& [name, check] : checks.items()) {
      if (!name.starts_with("PG_")) continue;
      std::size_t named = 0;
      for (const json& line : check.value("detail", json::array())) {
        const std::string text = line.value("message", "");
        const std::size_t space = text.find(' ', 3);
        if (!text.starts_with("pg ") || space == std::string::npos) continue;
        complaints_->emplace(text.substr(3, space - 3), text);
        ++named;
      }
      more_complaints_ = more_complaints_ || named >= kNamedAtMost;
    }
  }
  if (const auto found = complaints_->find(pgid); found != complaints_->end()) return found->second;
  return more_complaints_ ? "more placement groups are degraded than the mons name" : std::string();
}

Result<std::string> GroupStates::why_not_clean(const Location& location, std::uint32_t group,
                                               const std::string& locator) try {
  if (!map_) {
    auto map = cluster_map(cluster_);
    if (!map) return fail(std::move(map).error());
    map_ = std::move(*map);
  }
  const auto pool = map_->pools.find(location.pool_id);
  if (pool == map_->pools.end()) return fail(Code::kNotFound, "its pool is gone");
  const std::string pgid = fmt::format("{}.{:x}", location.pool_id, group);
  auto placed = ask_mons(cluster_,
                         {{"prefix", "osd map"},
                          {"pool", location.pool},
                          {"object", locator},
                          {"nspace", location.nspace},
                          {"format", "json"}},
                         "ask the mons where pg " + pgid + " is");
  if (!placed) return fail(std::move(placed).error());
  const auto up = placed->value("up", std::vector<int>{});
  const auto acting = placed->value("acting", std::vector<int>{});
  if (placed->value("pgid", "") != pgid) {
    return "the mons place it in pg " + placed->value("pgid", std::string("?")) + " instead of " +
           pgid;
  }
  std::uint64_t settled_epoch = 0;  // all of these OSDs are up since then
  std::size_t there = 0;
  for (const int osd : acting) {
    const auto up_from = map_->osd_up_from.find(osd);
    if (up_from == map_->osd_up_from.end()) continue;  // a place that no OSD takes
    ++there;
    settled_epoch = std::max(settled_epoch, up_from->second);
  }
  if (there < pool->second.size) {
    return fmt::format("pg {} is on {} of {} OSDs", pgid, there, pool->second.size);
  }
  if (up != acting) return fmt::format("pg {} is on its way to other OSDs", pgid);
  const auto* reports = reports_of(location);
  if (reports == nullptr) return complaint_of(pgid);
  const auto report = reports->find(pgid);
  if (report == reports->end()) return fmt::format("pg {} has not reported", pgid);
  const Group& said = report->second;
  const bool clean = ("+" + said.state + "+").find("+active+") != std::string::npos &&
                     ("+" + said.state + "+").find("+clean+") != std::string::npos;
  if (!clean) return fmt::format("pg {} is {}", pgid, said.state);
  // A report from before one of its OSDs came back says nothing of what that one holds.
  if (said.acting != acting || said.reported_epoch < settled_epoch) {
    return fmt::format("pg {} has not reported since its OSDs changed", pgid);
  }
  return std::string();
} catch (const std::exception& e) {
  return fail(Code::kUnavailable, std::string("read the state of a placement group: ") + e.what());
}

Status check_no_tier(RadosCluster& cluster, std::int64_t pool_id) {
  constexpr std::chrono::seconds kRecently{10};
  std::shared_ptr<const ClusterMap> map;
  {
    RadosCluster::Impl& impl = cluster.impl();
    const MutexLock lock(impl.map_mutex);
    if (std::chrono::steady_clock::now() - impl.map_asked_at < kRecently) map = impl.map;
  }
  if (!map) {
    auto asked = cluster_map(cluster);
    if (!asked) return {};  // who may not ask, or gets no answer, hears of it from what follows
    map = std::move(*asked);
  }
  const auto name_of = [&map](std::int64_t id) {
    const auto found = map->pools.find(id);
    return found == map->pools.end() ? std::to_string(id) : found->second.name;
  };
  const auto found = map->pools.find(pool_id);
  if (found == map->pools.end()) return {};
  const PoolState& pool = found->second;
  const bool is_tier = pool.tier_of >= 0;
  const std::int64_t in_front = std::max(pool.read_tier, pool.write_tier);
  if (!is_tier && in_front < 0) return {};
  const std::string base = is_tier ? name_of(pool.tier_of) : pool.name;
  const std::string tier = is_tier ? pool.name : name_of(in_front);
  return fail(Error{Code::kFailedPrecondition,
                    is_tier ? "pool " + tier + " is a cache tier of pool " + base
                            : "pool " + base + " has the cache tier " + tier + " in front of it",
                    Side::kNone,
                    "transfers do not go through a tier; take it away first: ceph osd tier "
                    "cache-mode " +
                        tier + " proxy; rados -p " + tier +
                        " cache-flush-evict-all; ceph osd tier remove-overlay " + base +
                        "; ceph osd tier remove " + base + " " + tier,
                    Reason::kClusterLimit});
}

Status check_pool_writable(RadosCluster& cluster, const Location& location) {
  const auto map = cluster_map(cluster);
  if (!map) {
    // Who may not ask, or gets what cannot be read, learns from the writes themselves.
    if (map.error().code == Code::kDeadlineExceeded) return fail(map.error());
    return {};
  }
  if ((*map)->paused_for_writing) {
    return fail(Code::kFailedPrecondition, "the cluster is paused for writing", Side::kTarget,
                "ceph osd unpause");
  }
  const auto pool = (*map)->pools.find(location.pool_id);
  if (pool != (*map)->pools.end() && pool->second.full) {
    return fail(Code::kResourceExhausted, "pool " + location.pool + " is full", Side::kTarget,
                "free some room or raise the quota: ceph df detail; ceph osd pool get-quota " +
                    location.pool);
  }
  return {};
}

}  // namespace siphon
