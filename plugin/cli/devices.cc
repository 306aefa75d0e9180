#include "plugin/cli/devices.h"

#include <arpa/inet.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <set>
#include <thread>

#include "plugin/core/mutex.h"

namespace siphon::cli {
namespace {

constexpr std::size_t kProbeThreads = 8;

// Names that fall into different placement groups of `location`, one per group.
std::vector<std::string> probe_locators(RadosCluster& cluster, const Location& location) {
  std::vector<std::string> locators;
  std::set<std::uint32_t> groups;
  for (std::size_t i = 0; i < kMaxProbedGroups * 16 && groups.size() < kMaxProbedGroups; ++i) {
    std::string name = "probe-" + std::to_string(i);
    const auto group = cluster.placement_group(location, name);
    if (!group) break;
    if (groups.insert(*group).second) locators.push_back(std::move(name));
  }
  return locators;
}

}  // namespace

Device device_from(const exchange::Hello& hello) {
  char text[INET6_ADDRSTRLEN] = "";
  const int family = hello.address_family == 6 ? AF_INET6 : AF_INET;
  ::inet_ntop(family, hello.address.data(), text, sizeof text);
  const std::string host = family == AF_INET6 ? "[" + std::string(text) + "]" : std::string(text);
  return {"osd." + std::to_string(hello.osd_id), host + ":" + std::to_string(hello.control_port)};
}

std::string_view to_string(exchange::LayoutState layout) {
  switch (layout) {
    case exchange::LayoutState::kUnproven:
      return "unproven";
    case exchange::LayoutState::kFits:
      return "fits";
    case exchange::LayoutState::kDoesNotFit:
      return "does not fit";
    case exchange::LayoutState::kUnverified:
      return "unverified";
  }
  return "";
}

void run_parallel(std::size_t count, std::size_t threads,
                  const std::function<void(std::size_t)>& task) {
  std::atomic<std::size_t> next{0};
  auto work = [&] {
    for (std::size_t i = next++; i < count; i = next++) task(i);
  };
  std::vector<std::jthread> workers;
  for (std::size_t i = 1; i < std::min(count, threads); ++i) workers.emplace_back(work);
  work();
}

void run_by_name(std::span<const Address> addresses, std::size_t threads,
                 const std::function<void(std::size_t)>& task) {
  std::map<std::string, std::vector<std::size_t>> names;
  for (std::size_t i = 0; i < addresses.size(); ++i) names[addresses[i].to_string()].push_back(i);
  std::vector<const std::vector<std::size_t>*> items;
  for (const auto& [name, of_name] : names) items.push_back(&of_name);
  run_parallel(items.size(), threads, [&](std::size_t n) {
    for (const std::size_t i : *items[n]) task(i);
  });
}

Result<Device> PlacementMap::device_of(const Location& location, std::string_view locator) {
  auto group = cluster_.placement_group(location, locator);
  if (!group) return fail(std::move(group).error());
  const Group key{location, *group};
  {
    const MutexLock lock(mutex_);
    if (const auto known = known_.find(key); known != known_.end()) return known->second;
    if (const auto known = silent_.find(key); known != silent_.end()) return fail(known->second);
  }
  auto hello = cluster_.hello(location, locator);
  const MutexLock lock(mutex_);
  if (!hello) {
    if (hello.error().code == Code::kDeadlineExceeded) silent_.emplace(key, hello.error());
    return fail(std::move(hello).error());
  }
  Device device = device_from(*hello);
  known_[key] = device;
  return device;
}

void PlacementMap::forget() {
  const MutexLock lock(mutex_);
  known_.clear();
  silent_.clear();
}

Status request_grant(RadosCluster& cluster, const Location& location, std::string_view locator,
                     exchange::Right right, std::optional<Nonce>& nonce, std::chrono::seconds ttl) {
  const bool fresh = !nonce;
  if (fresh) fill_random(nonce.emplace());
  Status granted = cluster.grant(location, locator, right, *nonce, ttl);
  if (!granted && fresh) nonce.reset();
  return granted;
}

const std::string* FoundDevice::locator_of(const Location& place) const {
  for (const auto& [location, locator] : locators) {
    if (location.pool == place.pool && location.nspace == place.nspace) return &locator;
  }
  return nullptr;
}

Discovery discover(RadosCluster& cluster, const std::vector<Location>& locations) {
  Discovery discovery;
  Mutex mutex;
  std::map<Device, FoundDevice> found;
  for (const Location& location : locations) {
    const std::vector<std::string> locators = probe_locators(cluster, location);
    Discovery::Silent silent{location.to_string(), 0, {}};
    run_parallel(locators.size(), kProbeThreads, [&](std::size_t i) {
      auto hello = cluster.hello(location, locators[i]);
      const MutexLock lock(mutex);
      if (!hello) {
        if (silent.groups++ == 0) silent.error = hello.error();
        return;
      }
      FoundDevice& entry = found[device_from(*hello)];
      entry.device = device_from(*hello);
      entry.locators.try_emplace(location, locators[i]);
    });
    if (silent.groups > 0) discovery.silent.push_back(std::move(silent));
  }
  for (auto& [device, entry] : found) discovery.devices.push_back(std::move(entry));
  return discovery;
}

Result<std::vector<Location>> locations_of(RadosCluster& cluster,
                                           const std::vector<Address>& where) {
  std::vector<Location> locations;
  for (const Address& address : where) {
    if (address.where != Where::kCeph) continue;
    // A pool that is not there has no devices either: said here.
    auto group = cluster.placement_group(address.location, "probe");
    if (!group) return fail(std::move(group).error());
    locations.push_back(address.location);
  }
  if (!where.empty()) return locations;
  auto pools = cluster.siphon_pools();
  if (!pools) return fail(std::move(pools).error());
  for (const auto& [name, id] : *pools) locations.push_back({name, ""});
  return locations;
}

}  // namespace siphon::cli
