#include "plugin/cli/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <map>
#include <set>
#include <span>
#include <tuple>

#include "plugin/base/text.h"
#include "plugin/cli/devices.h"
#include "plugin/cli/extent_io.h"
#include "plugin/cli/headers.h"
#include "plugin/core/mutex.h"

namespace siphon::cli {
namespace {

constexpr std::size_t kPageNames = 1000;
// One call's share: what a device verifies before the next one's turn, well below what it takes.
constexpr std::size_t kMaxExtentsPerCall = 2000;
static_assert(kMaxExtentsPerCall <= kMaxExtentsPerTransfer);

// Some of the addresses, all at one device and location.
struct Batch {
  Device device;
  Location location;
  Where where = Where::kCeph;
  std::vector<std::size_t> items;
};

// The sum over everything that is verified by one command.
class SharedProgress {
 public:
  SharedProgress(Session& session, std::uint64_t total_bytes, std::uint64_t total_extents)
      : session_(session) {
    state_.total_bytes = total_bytes;
    state_.total_extents = total_extents;
  }
  void update(std::size_t slot, std::uint64_t done_bytes) {
    const MutexLock lock(mutex_);
    std::uint64_t& before = slots_[slot];
    state_.done_bytes += std::max(before, done_bytes) - before;
    before = std::max(before, done_bytes);
    session_.meter().update(state_);
  }
  void extent_done() {
    const MutexLock lock(mutex_);
    ++state_.done_extents;
  }

 private:
  Session& session_;
  Mutex mutex_;
  ProgressState state_ SIPHON_GUARDED_BY(mutex_);
  std::map<std::size_t, std::uint64_t> slots_ SIPHON_GUARDED_BY(mutex_);
};

void verify_here(Session& session, Role role, Verified& item, std::size_t slot,
                 SharedProgress& progress) {
  item.where = "here";
  auto store = session.store(item.address, role);
  if (!store) {
    item.outcome.status = fail(std::move(store).error());
    return;
  }
  IoControl control{&session.stop(), [&](std::uint64_t done) { progress.update(slot, done); }};
  item.outcome = verify_extent_here(**store, item.address.extent, control);
  progress.extent_done();
}

void verify_beside(Session& session, Role role, const Batch& batch, std::vector<Verified>& items,
                   std::size_t slot, SharedProgress& progress) {
  auto fail_all = [&](const Error& error) {
    for (const std::size_t i : batch.items) items[i].outcome.status = fail(error);
  };
  Authority authority;
  if (batch.where == Where::kCeph) {
    auto cluster = session.cluster(role);
    if (!cluster) return fail_all(cluster.error());
    const std::string& locator = items[batch.items[0]].address.extent;
    Status granted = request_grant(**cluster, batch.location, locator, exchange::Right::kRead,
                                   authority.read_nonce);
    if (!granted) {
      Error error = granted.error();
      if (error.code == Code::kPermissionDenied) {
        error.next_step += "; or read everything through this client: --local";
      }
      return fail_all(error);
    }
  }
  auto client = session.device(batch.device.address);
  if (!client) return fail_all(client.error());
  std::uint64_t done_before = 0;
  for (std::size_t from = 0; from < batch.items.size(); from += kMaxExtentsPerCall) {
    const std::size_t count = std::min(kMaxExtentsPerCall, batch.items.size() - from);
    const std::span<const std::size_t> some(batch.items.data() + from, count);
    if (from > 0 && batch.where == Where::kCeph) {  // a grant may be old by now
      (void)request_grant(**session.cluster(role), batch.location,
                          items[batch.items[0]].address.extent, exchange::Right::kRead,
                          authority.read_nonce);
    }
    std::vector<std::string> names;
    for (const std::size_t i : some) names.push_back(items[i].address.extent);
    std::vector<bool> answered(count, false);
    std::uint64_t done_bytes = 0;
    Status status = (*client)->verify(
        batch.location, names, authority,
        [&](std::uint64_t done) {
          done_bytes = done;
          progress.update(slot, done_before + done);
        },
        [&](const VerifyOutcome& outcome) {
          if (outcome.index >= count) return;
          if (!answered[outcome.index]) progress.extent_done();
          answered[outcome.index] = true;
          items[some[outcome.index]].outcome = outcome;
        });
    done_before += done_bytes;
    for (std::size_t i = 0; i < count; ++i) {
      Verified& item = items[some[i]];
      item.where = batch.device.name;
      if (answered[i]) continue;
      item.outcome.status =
          status ? fail(Code::kInternal, batch.device.name + " said nothing of this extent")
                 : fail(status.error());
    }
  }
}

// PlacementMap groups that did not answer for one extent: no other extent waits for them as long
// again.
class SilentGroups {
 public:
  void note(Session& session, Role role, const Verified& item) {
    if (item.outcome.status || item.outcome.status.error().code != Code::kDeadlineExceeded) return;
    if (const auto group = group_of(session, role, item.address)) groups_.insert(*group);
  }
  // What to say of an extent in such a group.
  std::optional<Error> known(Session& session, Role role, const Address& address) {
    if (groups_.empty()) return std::nullopt;
    const auto group = group_of(session, role, address);
    if (!group || !groups_.contains(*group)) return std::nullopt;
    return Error{Code::kDeadlineExceeded,
                 "verify " + address.extent + ": its placement group does not answer", Side::kNone,
                 "see why its placement groups do not serve: ceph health detail"};
  }

 private:
  using Group = std::pair<Location, std::uint32_t>;
  static std::optional<Group> group_of(Session& session, Role role, const Address& address) {
    if (address.where != Where::kCeph) return std::nullopt;
    auto cluster = session.cluster(role);
    if (!cluster) return std::nullopt;
    const auto group = (*cluster)->placement_group(address.location, address.extent);
    return group ? std::optional(Group(address.location, *group)) : std::nullopt;
  }

  std::set<Group> groups_;
};

// Sorts the addresses into batches by device; what must be read here goes to `here`.
std::vector<Batch> plan(Session& session, Role role, std::vector<Verified>& items,
                        std::vector<std::size_t>& here) {
  std::map<std::tuple<Device, Location>, Batch> batches;
  std::vector<Device> devices(items.size());
  Result<RadosCluster*> cluster = nullptr;
  const bool any_ceph = std::any_of(items.begin(), items.end(), [](const Verified& item) {
    return item.address.where == Where::kCeph;
  });
  if (any_ceph) cluster = session.cluster(role);
  if (cluster && *cluster != nullptr && !session.options().local) {
    PlacementMap placement(**cluster);
    run_parallel(items.size(), 8, [&](std::size_t i) {
      if (items[i].address.where != Where::kCeph) return;
      auto device = placement.device_of(items[i].address.location, items[i].address.extent);
      if (device)
        devices[i] = *device;
      else
        items[i].outcome.status = fail(device.error());
    });
  }
  for (std::size_t i = 0; i < items.size(); ++i) {
    const Address& address = items[i].address;
    if (address.where == Where::kDaemon) devices[i] = {address.device, address.device};
    const bool ceph = address.where == Where::kCeph;
    if (ceph && !cluster) {
      items[i].outcome.status = fail(cluster.error());
    } else if (!devices[i].address.empty()) {
      Batch& batch = batches[{devices[i], address.location}];
      batch.device = devices[i];
      batch.location = address.location;
      batch.where = address.where;
      batch.items.push_back(i);
    } else if (!ceph || session.options().local ||
               items[i].outcome.status.error().code != Code::kPermissionDenied) {
      here.push_back(i);  // no daemon, no plugin: every byte comes to us
    }
  }
  std::vector<Batch> result;
  for (auto& [key, batch] : batches) result.push_back(std::move(batch));
  return result;
}

// So many extents are looked at, each by itself, for the sake of a progress line; a listing has
// seen more than that.
constexpr std::size_t kMostLooks = 64;
constexpr std::chrono::seconds kHeaderPatience{5};

// Finds the sizes that are missing, where anybody will see a progress.
void find_sizes(Session& session, VerifyEnd& end) {
  end.bytes.resize(end.addresses.size(), 0);
  if (!session.meter().shown()) return;
  std::vector<std::size_t> daemons, others;
  std::vector<Address> asked;
  for (std::size_t i = 0; i < end.addresses.size(); ++i) {
    if (end.bytes[i] != 0) continue;
    if (end.addresses[i].where == Where::kDaemon) {
      daemons.push_back(i);
      asked.push_back(end.addresses[i]);
    } else {
      others.push_back(i);
    }
  }
  const auto headers = daemon_headers(session, asked, kHeaderPatience);
  for (std::size_t i = 0; i < daemons.size(); ++i) {
    if (headers[i].header) end.bytes[daemons[i]] = headers[i].header->extent_bytes;
  }
  if (others.size() > kMostLooks) return;
  run_parallel(others.size(), 8, [&](std::size_t i) {
    const Address& address = end.addresses[others[i]];
    auto store = session.store(address, end.role);
    if (!store || session.interrupted()) return;
    if (const auto info = (*store)->stat(address.extent); info) {
      end.bytes[others[i]] = info->header.extent_bytes;
    }
  });
}

std::vector<Verified> verify_end(Session& session, const VerifyEnd& end, std::size_t first_slot,
                                 SharedProgress& progress) {
  std::vector<Verified> items;
  for (const Address& address : end.addresses) {
    Verified item;
    item.address = address;
    item.outcome.extent = address.extent;
    items.push_back(std::move(item));
  }
  std::vector<std::size_t> here;
  const std::vector<Batch> batches = plan(session, end.role, items, here);
  run_parallel(batches.size(), session.options().max_transfers, [&](std::size_t b) {
    verify_beside(session, end.role, batches[b], items, first_slot + batches[b].items.front(),
                  progress);
  });
  SilentGroups silent;
  for (const std::size_t i : here) {
    if (auto error = silent.known(session, end.role, items[i].address)) {
      items[i].outcome.status = fail(std::move(*error));
      continue;
    }
    if (items[i].address.where == Where::kCeph && !session.options().local) {
      session.meter().note("siphon: " + items[i].address.to_string() +
                           ": no daemon answers beside its device; reading it here");
    }
    verify_here(session, end.role, items[i], first_slot + i, progress);
    silent.note(session, end.role, items[i]);
  }
  return items;
}

}  // namespace

std::vector<std::vector<Verified>> verify_all(Session& session, std::vector<VerifyEnd> ends) {
  std::uint64_t bytes = 0, extents = 0;
  bool all_known = true;
  for (VerifyEnd& end : ends) {
    find_sizes(session, end);
    extents += end.addresses.size();
    for (const std::uint64_t size : end.bytes) {
      bytes += size;
      all_known = all_known && size != 0;
    }
  }
  SharedProgress progress(session, all_known ? bytes : 0, extents);
  std::vector<std::vector<Verified>> results;
  std::size_t first_slot = 0;  // each extent has one; a batch uses that of its first
  for (const VerifyEnd& end : ends) {
    results.push_back(verify_end(session, end, first_slot, progress));
    first_slot += end.addresses.size();
  }
  return results;
}

namespace {

// The namespaces that hold extents; the default one whether it does or not.
Result<std::set<std::string>> namespaces_of(Session& session, Role role, const Address& pool) {
  auto cluster = session.cluster(role);
  if (!cluster) return fail(std::move(cluster).error());
  auto found = (*cluster)->namespaces(pool.location);
  if (!found && found.error().code == Code::kPermissionDenied) {
    const Error error{Code::kPermissionDenied,
                      "this key may not list all namespaces; only the default one is looked at",
                      Side::kRequester, "name others one by one: --namespace NS " + pool.store()};
    // What a copy sees of its target beforehand is a help, and need not be all of it.
    if (role == Role::kTarget && !session.options().exact) {
      session.meter().note("siphon: " + escaped(pool.store()) + ": " + error_text(error));
    } else {
      session.note_unlisted(pool.store(), error);
    }
    return std::set<std::string>{""};
  }
  if (!found) return fail(std::move(found).error());
  for (const Error& error : found->unlisted) {
    session.note_unlisted(pool.store(), error.with_context("its namespaces"));
  }
  found->names.insert("");
  return std::move(found->names);
}

}  // namespace

namespace {

void add_parts(std::vector<PartsSeen>& all, const std::vector<PartsSeen>& more) {
  for (const PartsSeen& seen : more) {
    auto it = std::ranges::find(all, seen.id, &PartsSeen::id);
    if (it == all.end()) it = all.insert(it, {seen.id, 0});
    it->end = std::max(it->end, seen.end);
  }
}

}  // namespace

Result<std::vector<ListedExtent>> list_store(Session& session, Role role, const Address& address,
                                             Listing listing,
                                             const std::function<bool(std::size_t)>& on_page) {
  if (address.all_namespaces) {
    auto spaces = namespaces_of(session, role, address);
    if (!spaces) return fail(std::move(spaces).error().with_context("list " + address.store()));
    std::vector<ListedExtent> all;
    bool more = true;
    for (const std::string& nspace : *spaces) {
      if (!more) break;
      Address one = address;
      one.all_namespaces = false;
      one.location.nspace = nspace;
      auto listed = list_store(session, role, one, listing, [&](std::size_t count) {
        return more = !on_page || on_page(all.size() + count);
      });
      if (!listed) return listed;
      std::ranges::move(*listed, std::back_inserter(all));
    }
    return all;
  }
  auto store = session.store(address, role);
  if (!store) return fail(std::move(store).error());
  std::vector<ListedExtent> listed;
  std::map<std::string, std::vector<PartsSeen>> parts;
  std::string cursor;
  do {
    auto page = (*store)->list(cursor, kPageNames, listing);
    if (!page) return fail(std::move(page).error().with_context("list " + address.store()));
    for (std::size_t i = 0; i < page->names.size(); ++i) {
      ExtentInfo info = i < page->infos.size() ? std::move(page->infos[i]) : ExtentInfo{};
      listed.push_back({address.with_extent(page->names[i]), std::move(info), {}, std::nullopt});
      const auto wrong = page->errors.find(i);
      if (wrong != page->errors.end()) listed.back().problem = std::move(wrong->second);
    }
    for (auto& [name, seen] : page->parts) add_parts(parts[name], seen);
    for (const Error& error : page->unlisted) {
      session.note_unlisted(address.store(), error);
    }
    cursor = std::move(page->next_cursor);
    if (on_page && !on_page(listed.size())) break;
  } while (!cursor.empty() && !session.interrupted());
  if (session.interrupted()) return fail(Session::interrupted_error("interrupted while listing"));
  for (auto& [name, seen] : parts) {
    listed.push_back({address.with_extent(name), {}, std::move(seen)});  // beside that of its head
  }
  std::sort(listed.begin(), listed.end(), [](const ListedExtent& a, const ListedExtent& b) {
    return a.address.extent < b.address.extent;
  });
  return listed;
}

Result<std::vector<ListedExtent>> expand(Session& session, Role role, const Address& address) {
  if (!address.extent.empty()) return std::vector<ListedExtent>{{address, {}}};
  return list_store(session, role, address);
}

VerifyEnd verify_end_of(Role role, const std::vector<ListedExtent>& extents) {
  VerifyEnd end{role, {}, {}};
  for (const ListedExtent& extent : extents) {
    end.addresses.push_back(extent.address);
    const bool sealed = extent.info.state == ExtentState::kSealed;
    end.bytes.push_back(sealed ? extent.info.header.extent_bytes : 0);
  }
  return end;
}

Json to_json(const Verified& verified) {
  const VerifyOutcome& outcome = verified.outcome;
  const bool ok = outcome.status.has_value();
  const bool opened = outcome.private_id != PrivateId{};
  // Computed now, or nothing.
  Json json{{"extent", verified.address.to_string()},
            {"ok", ok},
            {"where", verified.where.empty() ? Json() : Json(verified.where)},
            {"bytes", ok ? Json(outcome.bytes) : Json()},
            {"crc32", ok ? Json(crc32_hex(outcome.crc32)) : Json()},
            {"content_digest", ok ? Json(to_hex(outcome.content_digest)) : Json()},
            {"blocks", ok ? Json(outcome.block_count) : Json()},
            {"private_id", opened ? Json(to_hex(outcome.private_id)) : Json()}};
  json["header"] = outcome.header.extent_bytes > 0 ? to_json(outcome.header) : Json();
  json["problem"] = outcome.status ? Json() : to_json(outcome.status.error());
  return json;
}

}  // namespace siphon::cli
