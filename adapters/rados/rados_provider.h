// RadosProvider: the extent stores of a cluster through librados alone, for clusters or clients
// without the plugin beside them (and for erasure-coded pools, which need nothing else).
//
// Thread safe. Layout on RADOS: docs/extent_format.md.
#pragma once

#include <memory>
#include <string>

#include "adapters/extent_store.h"
#include "adapters/rados/rados_cluster.h"

namespace siphon {

class RadosProvider : public StoreProvider {
 public:
  // `cluster` must outlive the provider. Limits out of bounds are brought into them.
  explicit RadosProvider(RadosCluster& cluster, const StoreLimits& limits = {});
  ~RadosProvider() override;

  Result<ExtentStore*> open(const Location& location) override;
  Result<std::int64_t> pool_id(const std::string& pool) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace siphon
