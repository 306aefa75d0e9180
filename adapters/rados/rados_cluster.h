// RadosCluster: one connection to a Ceph cluster, and the few services of it that the daemon and
// the CLI need beside the extents: the class methods hello, grant_read and grant_write, pools, the
// service map. RadosProvider (rados_provider.h) opens extent stores over it.
//
// Thread safe. Every call blocks for at most the configured timeouts. No librados type here.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "plugin/base/status.h"
#include "plugin/base/types.h"
#include "plugin/exchange/exchange.h"

namespace siphon {

struct RadosOptions {
  std::string conf_path;  // empty: librados' own search (CEPH_CONF, /etc/ceph)
  std::string cluster_name = "ceph";
  std::string name = "client.admin";  // "client.x" or "osd.N"
  std::string keyring;                // empty: what the configuration says; osd.N: its osd_data's
  std::string osd_data;               // osd.N only; empty: what the configuration says
  bool use_ceph_args = false;         // also obey the environment's CEPH_ARGS
  std::map<std::string, std::string> overrides;  // any Ceph option, applied last
  // Whatever does not answer for so long is DEADLINE_EXCEEDED. Never 0, which waits for ever.
  std::chrono::seconds osd_timeout{20};
  std::chrono::seconds mon_timeout{20};
  std::chrono::seconds connect_timeout{20};
};

class RadosCluster {
 public:
  // Connects. INVALID_ARGUMENT (a setting librados refuses), NOT_FOUND (no configuration or
  // keyring), PERMISSION_DENIED, DEADLINE_EXCEEDED (no mon answers).
  static Result<std::unique_ptr<RadosCluster>> connect(const RadosOptions& options);
  ~RadosCluster();
  RadosCluster(const RadosCluster&) = delete;
  RadosCluster& operator=(const RadosCluster&) = delete;

  const std::string& name() const;  // "osd.3"
  Result<std::string> fsid();
  std::uint64_t instance_id();  // the global id of this connection
  // A value of the configuration this connection runs with. NOT_FOUND: no such option.
  Result<std::string> setting(const std::string& option);

  // Waits until this connection knows the cluster's present map (pools, their ids and tags).
  // DEADLINE_EXCEEDED when no mon answers.
  Status refresh();
  // NOT_FOUND names the pool. From the map at hand, which may be old.
  Result<std::int64_t> pool_id(const std::string& pool);
  // The id of the pool at `location`: the one that it is bound to (location.pool_id), which must
  // still have that name, or else that of its name. Reason::kPoolChanged: "p2 is now another pool
  // (id 7, was 4)". No round trip while the map at hand agrees.
  Result<std::int64_t> pool_id(const Location& location);
  // The namespaces of the pool at `location` that hold heads of extents. What does not answer is
  // passed over and told of; an error when nothing answers. PERMISSION_DENIED: this key may not
  // look into all of them.
  struct Namespaces {
    std::set<std::string> names;
    std::vector<Error> unlisted;
  };
  Result<Namespaces> namespaces(const Location& location);
  // Name and id of the pools that carry the application tag `siphon`.
  Result<std::vector<std::pair<std::string, std::int64_t>>> siphon_pools();

  // Enters this process in the service map as `service.id`; again after a restart replaces it.
  // Once per connection.
  Status register_service(const std::string& service, const std::string& id,
                          const std::map<std::string, std::string>& metadata);

  // The number of `locator`'s placement group in its pool: two with the same one have the same
  // acting primary. From the cluster map at hand, no round trip.
  Result<std::uint32_t> placement_group(const Location& location, std::string_view locator);
  // Who is the acting primary of `locator` (an extent's name) at `location`, and where its
  // companion listens. PERMISSION_DENIED (names the missing cap), FAILED_PRECONDITION (that OSD has
  // no plugin), UNAVAILABLE (its companion is not running).
  Result<exchange::Hello> hello(const Location& location, std::string_view locator);
  // Leaves a grant at the acting primary of `locator`, with this connection's own rights. Errors
  // as hello; RESOURCE_EXHAUSTED when the device's table is full; Reason::kLayout when that OSD
  // refuses every grant, and it is named. The first grant that an OSD is asked for waits for the
  // probe of its companion, some seconds at most.
  Status grant(const Location& location, std::string_view locator, exchange::Right right,
               std::span<const std::byte, 16> nonce, std::chrono::seconds ttl);

  // Has the OSD that serves a placement group try out the layout of its operations: a `probe` with
  // this ticket (plugin/exchange/exchange.h). PERMISSION_DENIED: it is not the OSD that the ticket
  // was made for; Reason::kLayout: it refuses grants from now on.
  Status probe_layout(std::int64_t pool_id, std::uint32_t placement_group,
                      std::span<const std::byte, 16> ticket);

  // For the adapters over librados alone; see rados_internal.h.
  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  explicit RadosCluster(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace siphon
