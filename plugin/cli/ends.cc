#include "plugin/cli/ends.h"

#include "adapters/rados/pool_state.h"
#include "adapters/rados/rados_cluster.h"

namespace siphon::cli {

Status bind(Session& session, Role role, Address& address) {
  if (address.where != Where::kCeph || address.location.pool_id != 0) return {};
  auto location = session.bound(address.location, role);
  if (!location) return fail(std::move(location).error());
  address.location = std::move(*location);
  return {};
}

void widen(const Session& session, Address& address) {
  if (address.where != Where::kCeph || !address.extent.empty() ||
      !address.location.nspace.empty()) {
    return;
  }
  const std::optional<std::string>& nspace = session.options().nspace;
  address.location.nspace = nspace.value_or("");
  address.all_namespaces = !nspace;
}

Result<StoreIdentity> identify(Session& session, Role role, const Address& address) {
  switch (address.where) {
    case Where::kCeph: {
      auto cluster = session.cluster(role);
      if (!cluster) return fail(std::move(cluster).error());
      auto fsid = (*cluster)->fsid();
      if (!fsid) return fail(std::move(fsid).error());
      auto pool = (*cluster)->pool_id(address.location);
      if (!pool) return fail(std::move(pool).error());
      // A key that may not ask for the map sees no overlays; the devices still compare what they
      // have, and nothing is trashed whose private id is the copy's.
      if (const auto map = cluster_map(**cluster)) pool = (*map)->base_pool_of(*pool);
      return StoreIdentity{
          "ceph:" + *fsid + "/" + std::to_string(*pool) + "/" + address.location.nspace, ""};
    }
    case Where::kDaemon: {
      auto client = session.device(address.device);
      if (!client) return StoreIdentity{};
      auto description = (*client)->describe({});
      return description ? description->store : StoreIdentity{};
    }
    case Where::kFolder: {
      auto store = session.store(address, role);
      if (!store) return fail(std::move(store).error());
      return (*store)->identity();
    }
  }
  return StoreIdentity{};
}

Status check_distinct(const Address& source, const StoreIdentity& source_store,
                      const Address& target, const StoreIdentity& target_store) {
  const bool same_name =
      source.extent.empty() || target.extent.empty() || source.extent == target.extent;
  const bool same_spelling = source.where == Where::kDaemon && target.where == Where::kDaemon &&
                             source.device == target.device;
  if (!same_name || !(same_spelling || source_store.same_as(target_store))) return {};
  const std::string what = source.to_string() == target.with_extent(source.extent).to_string()
                               ? source.to_string()
                               : source.to_string() + " and " + target.to_string();
  return fail(
      Error{Code::kInvalidArgument,
            "source and target are one and the same thing: " + what + "; nothing was changed",
            Side::kRequester, "name another target", Reason::kSameThing});
}

}  // namespace siphon::cli
