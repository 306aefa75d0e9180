#include "adapters/objclass/objclass_provider.h"

#include <chrono>

#include "adapters/objclass/exchange_io.h"
#include "adapters/rados/rados_store.h"
#include "plugin/base/log.h"

namespace siphon {

namespace {

// Longer than an OSD takes for a write that only waits behind others.
constexpr std::chrono::seconds kGatePatience{2};

std::uint64_t bytes_at_once(const StoreLimits& limits) {
  return std::uint64_t{limits.write_depth} * limits.operation_bytes;
}

}  // namespace

struct ObjclassProvider::Impl {
  Impl(RadosCluster& cluster, ExchangeClient& exchange, const StoreLimits& limits)
      : writes(bytes_at_once(limits), kGatePatience),
        table(cluster, limits, [this, &exchange](bool whole_objects) {
          return std::make_unique<ExchangeIo>(exchange, writes, whole_objects);
        }) {}

  Gate writes;
  RadosStoreTable table;
};

ObjclassProvider::ObjclassProvider(RadosCluster& cluster, ExchangeClient& exchange,
                                   const StoreLimits& limits)
    : impl_(std::make_unique<Impl>(cluster, exchange, limits)) {
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
