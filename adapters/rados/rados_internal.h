// What the adapters over librados share and nobody else may include: the connection behind
// RadosCluster, and the mapping of librados' errors.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "adapters/rados/pool_state.h"
#include "adapters/rados/rados_cluster.h"
#include "plugin/core/mutex.h"
#include "rados/librados.hpp"

namespace siphon {

struct RadosCluster::Impl {
  // Shut down when the last owner lets go: see MapWait.
  std::shared_ptr<librados::Rados> handle = std::make_shared<librados::Rados>();
  librados::Rados& rados = *handle;
  std::string name;
  Mutex map_mutex;
  // The newest that was asked for.
  std::shared_ptr<const ClusterMap> map SIPHON_GUARDED_BY(map_mutex);
  std::chrono::steady_clock::time_point map_asked_at SIPHON_GUARDED_BY(map_mutex){};
  std::chrono::seconds mon_timeout{20};
  // librados waits for the map without a timeout. So one thread at a time waits, for all that ask
  // meanwhile; they wait for it no longer than a mon may take. When the mons are silent it may
  // outlast us, and then shuts the connection down itself.
  struct MapWait {
    Mutex mutex;
    Condition ended;
    bool under_way SIPHON_GUARDED_BY(mutex) = false;
    std::uint64_t round SIPHON_GUARDED_BY(mutex) = 0;  // counts those that have ended
    int result SIPHON_GUARDED_BY(mutex) = 0;
  };
  std::shared_ptr<MapWait> map_wait = std::make_shared<MapWait>();
};

namespace rados_internal {

// `result` (a negative errno of librados) as an Error: "<what>: <why>". A full pool is
// RESOURCE_EXHAUSTED, a medium error DATA_LOSS, no answer in time DEADLINE_EXCEEDED.
Error to_error(int result, std::string_view what);

// Whether apply() (or the class) decided so, rather than RADOS.
bool is_decision(int result);

// Waits until this connection knows the cluster's present map (pools, tags, flags).
// DEADLINE_EXCEEDED when no mon answers.
Status refresh_map(RadosCluster& cluster);

// An IoCtx for one pool and namespace. NOT_FOUND names the pool.
Result<librados::IoCtx> open_pool(RadosCluster& cluster, const Location& location);

// A copy of `base` with its own locator key: librados keeps the key in the context, so that a
// context is never shared between two extents. An empty key is none.
librados::IoCtx with_locator(const librados::IoCtx& base, std::string_view locator);

std::string head_object(std::string_view extent);

// A pool's placement groups, as librados slices its listing: in a power of two of equal shares,
// none of which holds more than one group. Found without a question to anybody.
struct PoolGroups {
  explicit PoolGroups(librados::IoCtx& pool);
  std::size_t shares() const;
  std::string of_share(std::size_t share) const;  // "3.1a", as ceph names the share's group

  std::int64_t pool_id = 0;
  std::uint32_t count = 0;
};

}  // namespace rados_internal
}  // namespace siphon
