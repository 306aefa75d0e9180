#include "adapters/rados/rados_provider.h"

#include "adapters/rados/rados_store.h"

namespace siphon {

struct RadosProvider::Impl {
  RadosStoreTable table;
};

RadosProvider::RadosProvider(RadosCluster& cluster, const StoreLimits& limits)
    : impl_(new Impl{RadosStoreTable(cluster, limits, [](bool whole_objects) {
        return std::make_unique<ObjectIo>(whole_objects);
      })}) {}
RadosProvider::~RadosProvider() = default;

Result<ExtentStore*> RadosProvider::open(const Location& location) {
  return impl_->table.open(location);
}
Result<std::int64_t> RadosProvider::pool_id(const std::string& pool) {
  return impl_->table.cluster().pool_id(pool);
}

}  // namespace siphon
