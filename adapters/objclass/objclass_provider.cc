#include "adapters/objclass/objclass_provider.h"

#include "adapters/objclass/exchange_io.h"
#include "adapters/rados/rados_store.h"
#include "plugin/base/log.h"

namespace siphon {

struct ObjclassProvider::Impl {
  RadosStoreTable table;
};

ObjclassProvider::ObjclassProvider(RadosCluster& cluster, ExchangeClient& exchange,
                                   const StoreLimits& limits)
    : impl_(new Impl{RadosStoreTable(cluster, limits, [&exchange](bool whole_objects) {
        return std::make_unique<ExchangeIo>(exchange, whole_objects);
      })}) {
  if (!exchange.bulk_methods()) {
    log::warn(
        "this OSD runs another Ceph build than the plugin was made for: all bytes go through "
        "librados");
  }
}
ObjclassProvider::~ObjclassProvider() = default;

Result<ExtentStore*> ObjclassProvider::open(const Location& location) {
  return impl_->table.open(location);
}
Result<std::int64_t> ObjclassProvider::pool_id(const std::string& pool) {
  return impl_->table.cluster().pool_id(pool);
}

}  // namespace siphon
