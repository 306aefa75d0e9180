#include "adapters/objclass/objclass_provider.h"

#include <chrono>

#include "adapters/objclass/exchange_io.h"
#include "adapters/rados/rados_store.h"
#include "plugin/base/log.h"

namespace siphon {

namespace {

// Longer than an OSD takes for a write that only waits behind others, and than any target.
constexpr std::chrono::milliseconds kPatience{2000};

// From one operation, since two are too many beside clients on a slow disk, to what memory holds.
WriteLimiter::Bounds bounds_of(const StoreLimits& limits) {
  const std::uint64_t operation = limits.operation_bytes;
  return {operation, 8 * operation, std::chrono::milliseconds(limits.write_target_ms), kPatience};
}

}  // namespace

struct ObjclassProvider::Impl {
  Impl(RadosCluster& cluster, ExchangeClient& exchange, const StoreLimits& limits)
      : writes(bounds_of(limits)), table(cluster, limits, [this, &exchange](bool whole_objects) {
          return std::make_unique<ExchangeIo>(exchange, writes, whole_objects);
        }) {}

  WriteLimiter writes;
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
