// What the cluster's map says of pools and OSDs, as far as Siphon asks. No librados type here.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "adapters/rados/rados_cluster.h"
#include "plugin/base/status.h"

namespace siphon {

struct PoolState {
  std::int64_t id = 0;
  std::string name;
  std::uint32_t size = 0;  // copies, or shards of an erasure-coded pool
  // A cache tier: the pool whose objects this one holds for a while. An overlay: the pools where
  // clients of this one really read and write. -1: none.
  std::int64_t tier_of = -1, read_tier = -1, write_tier = -1;
  bool full = false;
};

// One epoch of it; a value.
struct ClusterMap {
  std::uint64_t epoch = 0;
  bool paused_for_writing = false;
  std::map<std::int64_t, PoolState> pools;
  std::map<int, std::uint64_t> osd_up_from;  // the epoch since which an OSD is up

  // The pool whose extents these really are: of a cache tier the one behind it, for both names lead
  // to the same objects.
  std::int64_t base_pool_of(std::int64_t pool_id) const;
};

// The present one. One small question to the mons, and a large one when the map has changed.
// PERMISSION_DENIED: this key may not ask (mon 'allow r').
Result<std::shared_ptr<const ClusterMap>> cluster_map(RadosCluster& cluster);

// FAILED_PRECONDITION when the pool has a cache tier in front of it, or is one: what its own OSDs
// hold is not what clients see, and no transfer goes past that. Success also when this key may not
// ask. No question within ten seconds of the last answer.
Status check_no_tier(RadosCluster& cluster, std::int64_t pool_id);

// Why nothing can be written to the pool although it is there: RESOURCE_EXHAUSTED (full),
// FAILED_PRECONDITION (paused). Success also when this key may not ask; writes then say so.
Status check_pool_writable(RadosCluster& cluster, const Location& location);

// The state of placement groups at one moment, for a few questions; not thread safe. Asks what the
// key may ask: the OSD map (mon 'allow r'), and the groups' own reports (mgr 'allow r') or else
// what the cluster's health says of them.
class GroupStates {
 public:
  explicit GroupStates(RadosCluster& cluster) : cluster_(cluster) {}
  // Why what was written to placement group number `group` (of `locator`) is not on as many OSDs as
  // its pool wants: "pg 4.1a is active+undersized+degraded". Empty: it is.
  Result<std::string> why_not_clean(const Location& location, std::uint32_t group,
                                    const std::string& locator);

 private:
  struct Group {
    std::string state;
    std::vector<int> acting;
    std::uint64_t reported_epoch = 0;
  };
  const std::map<std::string, Group>* reports_of(const Location& location);
  Result<std::string> complaint_of(const std::string& pgid);

  RadosCluster& cluster_;
  std::shared_ptr<const ClusterMap> map_;
  std::map<std::int64_t, std::optional<std::map<std::string, Group>>> reports_;  // by pool
  std::optional<std::map<std::string, std::string>> complaints_;                 // by group
  bool more_complaints_ = false;  // than the mons name
};

}  // namespace siphon
