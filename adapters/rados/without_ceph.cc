// A build without Ceph (SIPHON_WITH_CEPH=OFF) instead of everything else in this folder: there is
// no connection to be had, and connect() says so. Without one none of the rest can be called.
#include "adapters/rados/cluster_questions.h"
#include "adapters/rados/pool_state.h"
#include "adapters/rados/rados_cluster.h"
#include "adapters/rados/rados_provider.h"

namespace siphon {
namespace {

tl::unexpected<Error> no_ceph() {
  return fail(Code::kFailedPrecondition,
              "this build of Siphon has no Ceph in it: it knows folders (posix:DIR), not pools",
              Side::kNone, "use a build with SIPHON_WITH_CEPH=ON on this host");
}

}  // namespace

struct RadosCluster::Impl {};

Result<std::unique_ptr<RadosCluster>> RadosCluster::connect(const RadosOptions&) {
  return no_ceph();
}
RadosCluster::~RadosCluster() = default;
const std::string& RadosCluster::name() const {
  static const std::string kNone;
  return kNone;
}
Result<std::string> RadosCluster::fsid() { return no_ceph(); }
std::uint64_t RadosCluster::instance_id() { return 0; }
Result<std::string> RadosCluster::setting(const std::string&) { return no_ceph(); }
Status RadosCluster::refresh() { return no_ceph(); }
Result<std::int64_t> RadosCluster::pool_id(const std::string&) { return no_ceph(); }
Result<std::int64_t> RadosCluster::pool_id(const Location&) { return no_ceph(); }
Result<RadosCluster::Namespaces> RadosCluster::namespaces(const Location&) { return no_ceph(); }
Result<std::vector<std::pair<std::string, std::int64_t>>> RadosCluster::siphon_pools() {
  return no_ceph();
}
Status RadosCluster::register_service(const std::string&, const std::string&,
                                      const std::map<std::string, std::string>&) {
  return no_ceph();
}
Result<std::uint32_t> RadosCluster::placement_group(const Location&, std::string_view) {
  return no_ceph();
}
Result<exchange::Hello> RadosCluster::hello(const Location&, std::string_view) { return no_ceph(); }
Status RadosCluster::grant(const Location&, std::string_view, exchange::Right,
                           std::span<const std::byte, 16>, std::chrono::seconds) {
  return no_ceph();
}

struct RadosProvider::Impl {};

RadosProvider::RadosProvider(RadosCluster&, const StoreLimits&) {}
RadosProvider::~RadosProvider() = default;
Result<ExtentStore*> RadosProvider::open(const Location&) { return no_ceph(); }
Result<std::int64_t> RadosProvider::pool_id(const std::string&) { return no_ceph(); }

std::int64_t ClusterMap::base_pool_of(std::int64_t pool_id) const { return pool_id; }
Result<std::shared_ptr<const ClusterMap>> cluster_map(RadosCluster&) { return no_ceph(); }
Status check_no_tier(RadosCluster&, std::int64_t) { return no_ceph(); }
Status check_pool_writable(RadosCluster&, const Location&) { return no_ceph(); }
Result<std::string> GroupStates::why_not_clean(const Location&, std::uint32_t, const std::string&) {
  return no_ceph();
}

Result<std::string> ask_mons(RadosCluster&, const std::string&) { return no_ceph(); }
Result<std::string> ask_mgr(RadosCluster&, const std::string&) { return no_ceph(); }
Result<std::string> ask_osd(RadosCluster&, int, const std::string&) { return no_ceph(); }
Result<LoadedClass> loaded_class(RadosCluster&, const Location&, std::string_view) {
  return no_ceph();
}
Result<bool> may(RadosCluster&, const Location&, std::string_view, Act) { return no_ceph(); }

}  // namespace siphon
