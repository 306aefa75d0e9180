#include "plugin/cli/copy_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <map>
#include <set>
#include <tuple>

#include "plugin/cli/commands.h"
#include "plugin/cli/ends.h"
#include "plugin/cli/headers.h"
#include "plugin/cli/verify.h"
#include "plugin/core/mutex.h"

namespace siphon::cli {
namespace {

tl::unexpected<Error> usage(const std::string& message, const std::string& next) {
  return fail(Code::kInvalidArgument, message, Side::kRequester, next);
}

Result<Address> parse_end(const std::string& text) {
  auto address = parse_address(text, Want::kEither);
  if (!address) return address;
  if (address->where == Where::kFolder) {
    return usage(text + " is a folder without a daemon",
                 "start siphond over it and name that: HOST:PORT/EXTENT; or use put and get");
  }
  return address;
}

Status check_ends(const Address& source, const Address& target) {
  if (source.where == Where::kDaemon && source.extent.empty()) {
    return usage("the daemon at " + source.device + " does not list its extents",
                 "name them: siphon copy " + source.device + "/EXTENT... TARGET");
  }
  if (source.where == Where::kDaemon && target.where == Where::kCeph) {
    const std::string step = "on that daemon's host: siphon get " +
                             shell_word("posix:DIR/" + source.extent) + " - | siphon put " +
                             shell_word(target.with_extent(source.extent).to_string()) + " -";
    return usage(
        "a folder's daemon cannot send to a pool: an OSD's daemon has no secret to show it", step);
  }
  if (source.extent.empty() && !target.extent.empty()) {
    return usage("many extents cannot become the one " + target.to_string(),
                 "name a store as the target");
  }
  return {};
}

// Whether two sealed extents can be the same at all, their contents aside.
bool same_lengths(const SealedHeader& a, const SealedHeader& b) {
  return a.content_bytes == b.content_bytes && a.block_count == b.block_count;
}

// Under what an extent is found in a listing: its namespace and its name.
using Name = std::pair<std::string, std::string>;
Name name_of(const Address& address) { return {address.location.nspace, address.extent}; }

// What is at the target already, where it was listed as a whole.
using TargetList = std::map<Name, ExtentInfo>;

// A plan of many extents lists the target once instead of asking for each. Nothing: too few, or
// the client may not list.
constexpr std::ptrdiff_t kListFrom = 64;
std::optional<TargetList> list_target(Session& session, const CopyPlan& plan,
                                      const Address& target) {
  const auto looked_at = std::ranges::count(plan.items, false, &CopyItem::by_name);
  if (target.where != Where::kCeph || session.options().replace || looked_at < kListFrom) {
    return std::nullopt;
  }
  auto listed = list_store(session, Role::kTarget, target);
  if (!listed) return std::nullopt;
  TargetList list;
  for (ListedExtent& item : *listed) {
    if (item.info.state != ExtentState::kNone) list[name_of(item.address)] = std::move(item.info);
  }
  return list;
}

// What the target shows under the item's name. NOT_FOUND: nothing.
Result<ExtentInfo> look_at_target(Session& session, const CopyItem& item,
                                  const std::optional<TargetList>& list) {
  if (list) {
    auto it = list->find(name_of(item.target));
    if (it != list->end()) return it->second;
    return fail(Code::kNotFound, "not there");
  }
  auto store = session.store(item.target, Role::kTarget);
  if (!store) return fail(std::move(store).error());
  return (*store)->stat(item.target.extent);
}

// To look at an extent costs one read of its head: a tenth of what it costs to copy a small one
// (docs/benchmarks.md), nothing beside a large one.
constexpr std::size_t kNamesAloneFrom = 256;
constexpr std::size_t kSample = 32;
constexpr std::uint64_t kSmallBytes = kMiB;

// Whether some of `extents`, spread over all of them, are small on the average.
bool look_small(Session& session, const std::vector<ListedExtent>& extents) {
  std::uint64_t bytes = 0, seen = 0;
  Mutex mutex;
  run_parallel(kSample, kLookThreads, [&](std::size_t i) {
    const Address& address = extents[i * extents.size() / kSample].address;
    auto store = session.store(address, Role::kSource);
    if (!store) return;
    const auto info = (*store)->stat(address.extent);
    const MutexLock lock(mutex);
    if (!info || info->state != ExtentState::kSealed) return;
    bytes += info->header.extent_bytes;
    ++seen;
  });
  return seen > 0 && bytes / seen < kSmallBytes;
}

// The names at the target, as far as this client may list them; not all, once they are not
// `wanted`.
std::set<Name> names_at(Session& session, const Address& target, const std::atomic<bool>& wanted) {
  std::set<Name> names;
  auto there = list_store(session, Role::kTarget, target, Listing::kNames,
                          [&](std::size_t) { return wanted.load(); });
  if (!there) return names;
  for (const ListedExtent& one : *there) names.insert(name_of(one.address));
  return names;
}

// The extents of a whole store; by their names alone where that saves something and is enough.
struct SourceList {
  std::vector<ListedExtent> extents;
  bool by_name = false;
};
Result<SourceList> list_source(Session& session, const Address& source, const Address& target,
                               bool look_at_all) {
  if (!look_at_all && source.where == Where::kCeph && target.where == Where::kCeph) {
    std::atomic<bool> wanted{true};
    std::future<std::set<Name>> there;  // listed meanwhile, once it is of use
    auto names =
        list_store(session, Role::kSource, source, Listing::kNames, [&](std::size_t names_so_far) {
          if (names_so_far >= kNamesAloneFrom && !there.valid()) {
            there =
                std::async(std::launch::async, [&] { return names_at(session, target, wanted); });
          }
          return true;
        });
    if (!names) {
      wanted = false;
      return fail(std::move(names).error());
    }
    if (there.valid() && look_small(session, *names)) {
      const std::set<Name> taken = there.get();
      const auto is_taken = [&](const ListedExtent& one) {
        Address there_too = target.with_extent(one.address.extent);
        if (target.all_namespaces) there_too.location.nspace = one.address.location.nspace;
        return taken.contains(name_of(there_too));
      };
      if (std::ranges::none_of(*names, is_taken)) return SourceList{std::move(*names), true};
    }
    wanted = false;
  }
  auto listed = list_store(session, Role::kSource, source);
  if (!listed) return fail(std::move(listed).error());
  return SourceList{std::move(*listed), false};
}

void differs(CopyItem& item) {
  item.fail_with({Code::kAlreadyExists,
                  "extent " + item.target.to_string() + " is there already and differs",
                  Side::kTarget, "choose another name, or --replace --yes-i-really-mean-it",
                  Reason::kDiffers});
}

// The same is at the target, and not all of it.
void damaged_there(CopyItem& item, const Error& found) {
  item.fail_with(found.with_context("it is at the target already, but damaged there"));
  item.error.suspect = Side::kTarget;
  item.error.next_step = "put the source's in its place: --replace --yes-i-really-mean-it";
}

// What a name that is taken at the target means, by what both heads say.
void compare_headers(CopyItem& item, ExtentState state, const SealedHeader& there) {
  const bool both_sealed = item.info && state == ExtentState::kSealed;
  if (!both_sealed || !same_lengths(there, item.info->header)) return differs(item);
  if (there.has_digest() && item.info->header.has_digest()) {
    if (!same_content(there, item.info->header)) return differs(item);
    item.state = ItemState::kAlreadyThere;
  } else {
    item.undecided = true;
  }
}

// Folders' daemons list nothing, and are asked for what they record of the names. In earnest only
// for the sizes, which the progress goes by, and which need not come: the devices look by
// themselves.
constexpr std::chrono::seconds kAskInEarnest{5};
constexpr std::chrono::seconds kAskForAPlan{30};

// What a daemon says of one extent, and not why it could not be asked.
bool is_of_the_extent(const Error& error) {
  return error.code == Code::kNotFound || error.code == Code::kFailedPrecondition ||
         error.code == Code::kDataLoss;
}

void look_at_daemon_sources(Session& session, CopyPlan& plan) {
  const bool dry_run = session.options().dry_run;
  if (!dry_run && !session.meter().shown()) return;
  std::vector<std::size_t> items;
  std::vector<Address> sources;
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    const CopyItem& item = plan.items[i];
    if (item.source.where != Where::kDaemon || item.state != ItemState::kPending) continue;
    items.push_back(i);
    sources.push_back(item.source);
  }
  const auto headers = daemon_headers(session, sources, dry_run ? kAskForAPlan : kAskInEarnest);
  for (std::size_t i = 0; i < items.size(); ++i) {
    CopyItem& item = plan.items[items[i]];
    const auto& [header, status] = headers[i];
    if (!status && is_of_the_extent(status.error())) {
      item.source_problem = Error(status.error()).with_suspect(Side::kSource);
    }
    if (header) item.said_bytes = header->extent_bytes;
    if (!dry_run) continue;
    if (!header) {
      item.fail_with(Error(status.error()).with_suspect(Side::kSource));
      continue;
    }
    item.info.emplace();
    item.info->name = item.source.extent;
    item.info->state = ExtentState::kSealed;
    item.info->header = *header;
  }
}

void look_at_daemon_targets(Session& session, CopyPlan& plan) {
  if (!session.options().dry_run || session.options().replace) return;
  std::vector<std::size_t> items;
  std::vector<Address> targets;
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    const CopyItem& item = plan.items[i];
    if (item.target.where != Where::kDaemon || item.state != ItemState::kPending) continue;
    items.push_back(i);
    targets.push_back(item.target);
  }
  const auto headers = daemon_headers(session, targets, kAskForAPlan);
  for (std::size_t i = 0; i < items.size(); ++i) {
    CopyItem& item = plan.items[items[i]];
    const auto& [header, status] = headers[i];
    if (header) {
      if (!item.info) continue;  // it is for the devices to find out
      compare_headers(item, ExtentState::kSealed, *header);
      if (item.state != ItemState::kFailed && !status) damaged_there(item, status.error());
      continue;
    }
    Error error = status.error();
    if (error.code == Code::kNotFound) continue;
    if (error.code == Code::kFailedPrecondition && error.reason == Reason::kNone) {
      differs(item);  // open
      continue;
    }
    error.suspect = Side::kTarget;  // which was asked as sources are
    item.fail_with(std::move(error));
  }
}

// What is left to be copied must be there as a whole. In earnest that shows as it is read.
void look_at_source_parts(Session& session, CopyPlan& plan) {
  if (!session.options().dry_run) return;
  run_parallel(plan.items.size(), kLookThreads, [&](std::size_t i) {
    CopyItem& item = plan.items[i];
    if (item.state != ItemState::kPending || session.interrupted()) return;
    if (item.source_problem) return item.fail_with(*item.source_problem);
    if (item.source.where != Where::kCeph || !item.info) return;
    auto store = session.store(item.source, Role::kSource);
    Status whole = store ? (*store)->check_parts(*item.info) : Status(fail(store.error()));
    if (!whole) item.fail_with(std::move(whole).error().with_suspect(Side::kSource));
  });
}

// What the source and the target say of one item; `how` the target is asked: beside the source, if
// there is a thread to be had, or after it. A client without the right to look leaves that to the
// devices.
void look(Session& session, CopyItem& item, const std::optional<TargetList>& list,
          std::launch how) {
  if (item.by_name || item.state != ItemState::kPending) return;
  std::future<Result<ExtentInfo>> there;
  if (item.target.where == Where::kCeph && !session.options().replace) {
    there = std::async(how, [&] { return look_at_target(session, item, list); });
  }
  if (item.source.where == Where::kCeph && !item.info) {
    auto store = session.store(item.source, Role::kSource);
    if (!store) return item.fail_with(store.error());
    auto info = (*store)->stat(item.source.extent);
    if (info) {
      item.info = *info;
    } else if (info.error().code != Code::kPermissionDenied) {
      return item.fail_with(std::move(info).error().with_suspect(Side::kSource));
    } else {
      item.not_looked = std::move(info).error();
    }
  }
  if (item.info && item.info->state != ExtentState::kSealed) {
    item.info.reset();  // nobody has measured it
    return item.fail_with(
        {Code::kFailedPrecondition,
         "extent " + item.source.to_string() + " is open: only sealed ones move", Side::kSource,
         session.command("seal " + shell_word(item.source.to_string()), Role::kSource)});
  }
  if (!there.valid()) return;
  const auto found = there.get();
  if (!found) {
    if (found.error().code != Code::kNotFound) item.not_looked = found.error();
    return;
  }
  compare_headers(item, found->state, found->header);
  if (item.state == ItemState::kFailed) return;
  auto store = session.store(item.target, Role::kTarget);
  const Status whole = store ? (*store)->check_parts(*found) : Status(fail(store.error()));
  if (!whole) damaged_there(item, whole.error());
}

// Extents without a digest (format version 1), and with --check all that is there already: read
// beside both devices, which find the digests.
void read_what_is_there(Session& session, CopyPlan& plan) {
  std::vector<std::size_t> items;
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    const CopyItem& item = plan.items[i];
    const bool undecided = item.undecided && item.state == ItemState::kPending;
    const bool check = (session.options().check || session.options().deep) &&
                       item.state == ItemState::kAlreadyThere;
    if (!undecided && !check) continue;
    items.push_back(i);
  }
  if (items.empty()) return;
  const BothEnds both = verify_both_ends(session, plan, items);
  const std::vector<Verified>&left = both.source, &right = both.target;
  session.meter().begin_anew();  // what was read for this is nothing of what is to be copied
  for (std::size_t i = 0; i < items.size(); ++i) {
    CopyItem& item = plan.items[items[i]];
    const auto cannot_tell = [&](const Verified& end, Side side) {
      // Who may not read there leaves it to the devices, as whoever may not look.
      if (item.undecided && end.outcome.status.error().code == Code::kPermissionDenied) return;
      item.fail_with(
          Error(end.outcome.status.error())
              .with_suspect(side)
              .with_context(item.target.to_string() + " is there already and was to be compared"));
    };
    if (!left[i].outcome.status) {
      cannot_tell(left[i], Side::kSource);
    } else if (!right[i].outcome.status) {
      cannot_tell(right[i], Side::kTarget);
    } else if (same_content(left[i].outcome, right[i].outcome)) {
      item.state = ItemState::kAlreadyThere;
      item.read_crc32 = {left[i].outcome.crc32, right[i].outcome.crc32};
    } else {
      differs(item);
    }
  }
}

// Pools must exist and be tagged; that they are not is said once, not per extent.
Status check_stores(Session& session, const std::vector<Address>& sources, const Address& target) {
  auto check = [&](const Address& address, Role role, bool writable) -> Status {
    if (address.where != Where::kCeph) return {};
    auto store = session.store(address, role);
    if (!store) return fail(std::move(store).error());
    Status ready = (*store)->check_ready(writable);
    if (!ready && ready.error().code == Code::kPermissionDenied) return {};
    return ready;
  };
  std::set<std::string> seen;
  for (const Address& source : sources) {
    if (seen.insert(source.store()).second) SIPHON_TRY(check(source, Role::kSource, false));
  }
  return check(target, Role::kTarget, true);
}

// What the names stand for is found out once; from here on all go by that. Nothing becomes itself.
Status resolve_ends(Session& session, std::vector<Address>& sources, Address& target,
                    CopyPlan& plan) {
  for (Address& source : sources) widen(session, source);
  // A whole pool keeps its namespaces, unless the target names one.
  if (std::ranges::any_of(sources, &Address::all_namespaces) || session.options().nspace) {
    widen(session, target);
  }
  SIPHON_TRY(bind(session, Role::kTarget, target));
  auto target_store = identify(session, Role::kTarget, target);
  if (!target_store) return fail(std::move(target_store).error());
  plan.target_store = std::move(*target_store);
  std::map<std::string, std::pair<Location, StoreIdentity>> known;  // by how the store is written
  for (Address& source : sources) {
    auto seen = known.find(source.store());
    if (seen == known.end()) {
      SIPHON_TRY(bind(session, Role::kSource, source));
      auto store = identify(session, Role::kSource, source);
      if (!store) return fail(std::move(store).error());
      seen = known.emplace(source.store(), std::pair(source.location, std::move(*store))).first;
    }
    source.location = seen->second.first;
    SIPHON_TRY(check_distinct(source, seen->second.second, target, plan.target_store));
  }
  return {};
}

}  // namespace

std::string_view to_string(ItemState state) {
  switch (state) {
    case ItemState::kPending:
      return "pending";
    case ItemState::kCopied:
      return "copied";
    case ItemState::kAlreadyThere:
      return "already there";
    case ItemState::kFailed:
      return "failed";
    case ItemState::kGoesOn:
      return "goes on";
    case ItemState::kGone:
      return "gone";
  }
  return "";
}

BothEnds verify_both_ends(Session& session, const CopyPlan& plan,
                          const std::vector<std::size_t>& items) {
  VerifyEnd source{Role::kSource, {}, {}}, target{Role::kTarget, {}, {}};
  for (const std::size_t i : items) {
    const CopyItem& item = plan.items[i];
    source.addresses.push_back(item.source);
    target.addresses.push_back(item.target);
    const std::uint64_t bytes = item.receipt ? item.receipt->bytes : item.bytes();
    source.bytes.push_back(bytes);
    target.bytes.push_back(bytes);
  }
  auto ends = verify_all(session, {std::move(source), std::move(target)});
  return {std::move(ends[0]), std::move(ends[1])};
}

Json receipt_json(const CopyItem& item) {
  if (!item.receipt) return {};
  Json json = to_json(*item.receipt);
  if (item.read_crc32) {
    json["source_crc32"] = crc32_hex(item.read_crc32->source);
    json["target_crc32"] = crc32_hex(item.read_crc32->target);
  }
  return json;
}

std::optional<std::uint64_t> pending_bytes(const CopyPlan& plan) {
  std::uint64_t bytes = 0;
  for (const CopyItem& item : plan.items) {
    if (item.state != ItemState::kPending) continue;
    if (item.bytes() == 0 && !item.source_problem) return std::nullopt;
    bytes += item.bytes_to_come();
  }
  return bytes;
}

Result<CopyPlan> plan_copy(Session& session, bool look_at_all) {
  const std::vector<std::string>& names = session.options().names;
  if (names.size() < 2) return usage("a copy needs a source and a target", "siphon copy --help");
  auto target = parse_end(names.back());
  if (!target) return fail(std::move(target).error());
  std::vector<Address> sources;
  for (std::size_t i = 0; i + 1 < names.size(); ++i) {
    auto source = parse_end(names[i]);
    if (!source) return fail(std::move(source).error());
    SIPHON_TRY(check_ends(*source, *target));
    sources.push_back(std::move(*source));
  }
  if (sources.size() > 1 && !target->extent.empty()) {
    return usage("many extents cannot become the one " + target->to_string(),
                 "name a store as the target");
  }
  CopyPlan plan;
  SIPHON_TRY(resolve_ends(session, sources, *target, plan));
  SIPHON_TRY(check_stores(session, sources, *target));

  std::set<std::string> targets;
  for (const Address& source : sources) {
    SourceList list{{{source, {}}}, false};
    if (source.extent.empty()) {
      plan.whole_sources.push_back(source);
      auto listed = list_source(session, source, *target, look_at_all);
      if (!listed) return fail(std::move(listed).error());
      list = std::move(*listed);
    }
    for (ListedExtent& extent : list.extents) {
      CopyItem item;
      item.by_name = list.by_name;
      item.target = target->extent.empty() ? target->with_extent(extent.address.extent) : *target;
      item.target.all_namespaces = false;
      item.source = std::move(extent.address);
      const std::string& nspace = item.source.location.nspace;
      if (source.all_namespaces && target->all_namespaces) {
        item.target.location.nspace = nspace;
      } else if (source.all_namespaces && !nspace.empty()) {
        return usage(source.store() + " has extents in namespaces, " + item.source.store() +
                         " for one, and the target is a single place",
                     "copy them one by one: name POOL/NAMESPACE/, or --namespace NS");
      }
      if (extent.info.state == ExtentState::kSealed) item.info = std::move(extent.info);
      if (Status named = check_extent_name(item.source.extent); !named) {
        // Somebody's object that looks like a head: no transfer may name it.
        item.fail_with(std::move(named).error().with_suspect(Side::kSource));
      }
      if (!targets.insert(item.target.to_string()).second) {
        return usage("two sources would become " + item.target.to_string(),
                     "copy them one by one, under different names");
      }
      plan.items.push_back(std::move(item));
    }
  }
  look_at_daemon_sources(session, plan);
  const auto target_list = list_target(session, plan, *target);
  // Many items are looked at side by side anyway; few of them wait for every answer.
  const auto how = plan.items.size() < kLookThreads ? std::launch::async | std::launch::deferred
                                                    : std::launch::deferred;
  run_parallel(plan.items.size(), kLookThreads, [&](std::size_t i) {
    if (!session.interrupted()) look(session, plan.items[i], target_list, how);
  });
  look_at_daemon_targets(session, plan);
  read_what_is_there(session, plan);
  look_at_source_parts(session, plan);
  plan.total_bytes = pending_bytes(plan).value_or(0);
  return plan;
}

Result<PlacementMap*> CopyRouter::placement(Role role) {
  auto cluster = session_.cluster(role);
  if (!cluster) return fail(std::move(cluster).error());
  const MutexLock lock(mutex_);
  auto& placement = placements_[role];
  if (!placement) placement = std::make_unique<PlacementMap>(**cluster);
  return placement.get();
}

Result<Device> CopyRouter::device_of(Role role, const Address& address) {
  if (address.where == Where::kDaemon) return Device{address.device, address.device};
  auto map = placement(role);
  if (!map) return fail(std::move(map).error());
  auto device = (*map)->device_of(address.location, address.extent);
  const Side side = role == Role::kSource ? Side::kSource : Side::kTarget;
  if (device) return device;
  Error error = std::move(device).error();
  if (error.code == Code::kFailedPrecondition || error.code == Code::kUnavailable) {
    error = std::move(error).with_suspect(side);
  }
  return fail(std::move(error));
}

std::vector<CopyGroup> CopyRouter::route(CopyPlan& plan) {
  run_parallel(plan.items.size(), kLookThreads, [&](std::size_t i) {
    CopyItem& item = plan.items[i];
    if (item.state != ItemState::kPending || session_.interrupted()) return;
    auto source = device_of(Role::kSource, item.source);
    auto target = source ? device_of(Role::kTarget, item.target) : source;
    if (!target) {
      item.fail_with(target.error());
      if (item.error.code == Code::kPermissionDenied) {
        auto cluster = session_.cluster(source ? Role::kTarget : Role::kSource);
        if (cluster) {
          item.error.next_step = caps_command((*cluster)->name(), item.source, item.target);
        }
      }
      return;
    }
    item.source_device = std::move(*source);
    item.target_device = std::move(*target);
  });
  using Key = std::tuple<Device, Device, Location, Location>;
  std::map<Key, std::vector<std::size_t>> sorted;
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    const CopyItem& item = plan.items[i];
    if (item.state != ItemState::kPending || item.target_device.address.empty()) continue;
    sorted[{item.source_device, item.target_device, item.source.location, item.target.location}]
        .push_back(i);
  }
  // What takes longest begins first, so that no long transfer is left alone at the end.
  const auto work = [&](const CopyGroup& group) {
    std::uint64_t bytes = 0;
    for (const std::size_t i : group.items) bytes += plan.items[i].bytes();
    return std::pair(bytes, group.items.size());
  };
  std::vector<CopyGroup> groups;
  for (auto& [key, items] : sorted) {
    for (std::size_t from = 0; from < items.size(); from += kMaxExtentsPerTransfer) {
      const std::size_t to = std::min(items.size(), from + kMaxExtentsPerTransfer);
      groups.push_back({std::get<0>(key),
                        std::get<1>(key),
                        {items.begin() + static_cast<std::ptrdiff_t>(from),
                         items.begin() + static_cast<std::ptrdiff_t>(to)},
                        from / kMaxExtentsPerTransfer});
    }
  }
  std::ranges::stable_sort(groups, std::greater{}, work);
  return groups;
}

void CopyRouter::forget() {
  const MutexLock lock(mutex_);
  for (auto& [role, placement] : placements_) placement->forget();
}

std::string caps_command(const std::string& name, const Address& source, const Address& target) {
  std::string caps = "allow class siphon hello";
  if (source.where == Where::kCeph) {
    caps += fmt::format(", allow class siphon grant_read pool={0}, allow r pool={0}",
                        source.location.pool);
  }
  if (target.where == Where::kCeph) {
    caps += fmt::format(", allow class siphon grant_write pool={0}, allow r pool={0}",
                        target.location.pool);
  }
  return fmt::format(
      "give it these caps, with what else it needs (the command replaces all it has): ceph auth "
      "caps "
      "{} mon 'allow r' osd '{}'",
      name, caps);
}

}  // namespace siphon::cli
