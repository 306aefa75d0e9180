// Which device holds what, and the right to ask it: hello and grants, over the class methods.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "adapters/rados/rados_cluster.h"
#include "plugin/base/status.h"
#include "plugin/cli/session.h"
#include "plugin/core/mutex.h"
#include "plugin/transfer/types.h"

namespace siphon::cli {

struct Device {
  std::string name;     // "osd.3"; a folder's daemon: its address
  std::string address;  // control address, HOST:PORT
  auto operator<=>(const Device&) const = default;
};

Device device_from(const exchange::Hello& hello);

// As `siphon daemons` says it: "fits", "unproven", "does not fit", "unverified".
std::string_view to_string(exchange::LayoutState layout);

// Runs task(0) .. task(count - 1) on up to `threads` threads, and waits.
void run_parallel(std::size_t count, std::size_t threads,
                  const std::function<void(std::size_t)>& task);

// task(i) for each address, in any order and side by side, but for those of one name, which would
// change one register: one after the other.
void run_by_name(std::span<const Address> addresses, std::size_t threads,
                 const std::function<void(std::size_t)>& task);

// The device of every extent of one cluster, one hello per placement group. Thread safe.
class PlacementMap {
 public:
  // `cluster` must outlive it.
  explicit PlacementMap(RadosCluster& cluster) : cluster_(cluster) {}
  // Errors as RadosCluster::hello. A group that does not answer is not asked again.
  Result<Device> device_of(const Location& location, std::string_view locator);
  void forget();  // primaries may have moved

 private:
  using Group = std::pair<Location, std::uint32_t>;
  RadosCluster& cluster_;
  Mutex mutex_;
  std::map<Group, Device> known_ SIPHON_GUARDED_BY(mutex_);
  std::map<Group, Error> silent_ SIPHON_GUARDED_BY(mutex_);
};

// How long a grant lasts. What waits in a device's queue for longer needs it renewed.
inline constexpr std::chrono::seconds kGrantTtl{600};
inline constexpr std::chrono::seconds kGrantRenewal = kGrantTtl / 3;

// Leaves `nonce` at the device that serves `locator`: a fresh one, if there is none yet, or the
// same for another `ttl`.
Status request_grant(RadosCluster& cluster, const Location& location, std::string_view locator,
                     exchange::Right right, std::optional<Nonce>& nonce,
                     std::chrono::seconds ttl = kGrantTtl);

// A device, and per location a name that reaches it (the locator of grants).
struct FoundDevice {
  Device device;
  std::map<Location, std::string> locators;

  // That of the place which has this pool and namespace, whether its pool is resolved or not; null:
  // there is none.
  const std::string* locator_of(const Location& place) const;
};
struct Discovery {
  std::vector<FoundDevice> devices;
  // PlacementMap groups whose primary did not say hello, by pool: how many, and the first reason.
  struct Silent {
    std::string pool;
    std::size_t groups = 0;
    Error error;
  };
  std::vector<Silent> silent;
};
// Asks the primaries of `locations`, up to kMaxProbedGroups placement groups each.
inline constexpr std::size_t kMaxProbedGroups = 512;
Discovery discover(RadosCluster& cluster, const std::vector<Location>& locations);

// The locations that WHERE arguments name ("POOL"), or every pool with the application tag.
// NOT_FOUND: there is no such pool.
Result<std::vector<Location>> locations_of(RadosCluster& cluster,
                                           const std::vector<Address>& where);

}  // namespace siphon::cli
