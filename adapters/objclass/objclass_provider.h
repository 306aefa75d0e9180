// ObjclassProvider: the extent stores of a cluster, for the companion of one of its OSDs. Extents
// whose primary is that OSD move through the shared region; everything else is as RadosProvider.
//
// Thread safe. For the fast path a buffer lies in the region's halves (ExchangeClient).
#pragma once

#include <memory>
#include <string>

#include "adapters/extent_store.h"
#include "adapters/objclass/exchange_client.h"
#include "adapters/rados/rados_cluster.h"

namespace siphon {

class ObjclassProvider : public StoreProvider {
 public:
  // Both references must outlive the provider. Limits out of bounds are brought into them.
  ObjclassProvider(RadosCluster& cluster, ExchangeClient& exchange, const StoreLimits& limits = {});
  ~ObjclassProvider() override;

  Result<ExtentStore*> open(const Location& location) override;
  Result<std::int64_t> pool_id(const std::string& pool) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace siphon
