// daemons, transfers, watch, cancel: what the devices say and do.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <optional>
#include <set>

#include "plugin/base/text.h"
#include "plugin/cli/bottleneck.h"
#include "plugin/cli/commands.h"
#include "plugin/cli/devices.h"
#include "plugin/cli/verbs.h"
#include "plugin/transfer/manager.h"

namespace siphon::cli {
namespace {

using cli::to_json;  // beside the overloads here

// A device as a verb found it. Ceph: `cluster` and one locator per location; a folder's daemon:
// neither.
struct Peer {
  RadosCluster* cluster = nullptr;
  FoundDevice found;
};

struct Peers {
  std::vector<Peer> peers;
  std::vector<Discovery::Silent> silent;
};

// The devices behind the WHERE arguments: daemons by address, and those of the named (or, without
// any argument, all tagged) pools.
Result<Peers> find_peers(Session& session, const std::vector<std::string>& names) {
  Peers result;
  std::vector<Address> where;
  bool any_ceph = names.empty();
  for (const std::string& name : names) {
    auto address = parse_address(name, Want::kStore);
    if (!address) return fail(std::move(address).error());
    if (address->where == Where::kFolder) {
      return fail(Code::kInvalidArgument, name + " is a folder, not a daemon", Side::kRequester,
                  "name its daemon: HOST:PORT/");
    }
    if (address->where == Where::kDaemon) {
      Peer peer;
      peer.found.device = {address->device, address->device};
      result.peers.push_back(std::move(peer));
    } else {
      any_ceph = true;
    }
    where.push_back(std::move(*address));
  }
  if (!any_ceph) return result;
  auto cluster = session.cluster(Role::kOnly);
  if (!cluster) return fail(std::move(cluster).error());
  auto locations = locations_of(**cluster, where);
  if (!locations) return fail(std::move(locations).error());
  if (locations->empty()) {
    return fail(Code::kNotFound, "no pool carries the application tag siphon", Side::kNone,
                "ceph osd pool application enable POOL siphon");
  }
  Discovery discovery = discover(**cluster, *locations);
  for (FoundDevice& found : discovery.devices) {
    result.peers.push_back({*cluster, std::move(found)});
  }
  result.silent = std::move(discovery.silent);
  if (result.peers.empty() && !result.silent.empty()) return fail(result.silent.front().error);
  return result;
}

void note_silent(Session& session, const std::vector<Discovery::Silent>& silent) {
  for (const auto& s : silent) {
    session.meter().note(fmt::format("siphon: pool {}: {} could not be asked: {}", s.pool,
                                     counted(s.groups, "placement group"), error_text(s.error)));
  }
}

// Who was not asked is no device that has nothing to tell.
void count_silent(Tally& tally, const std::vector<Discovery::Silent>& silent) {
  for (const auto& s : silent) tally.fail(s.error);
}

Json to_json(const std::vector<Discovery::Silent>& silent) {
  Json list = Json::array();
  for (const auto& s : silent) {
    list.push_back(
        Json{{"pool", s.pool}, {"placement_groups", s.groups}, {"problem", to_json(s.error)}});
  }
  return list;
}

Json to_json(const DeviceDescription& d) {
  return Json{{"device", d.device},
              {"version", d.version},
              {"adapter", d.adapter},
              {"pid", d.pid},
              {"control_address", d.control_address},
              {"data_address", d.data_address},
              {"data_ports", d.data_ports},
              {"open_data_port", d.open_data_port},
              {"started_at", rfc3339(d.started_unix_ms)},
              {"region_bytes", d.region_bytes},
              {"bytes_in_flight", d.bytes_in_flight},
              {"transfers_in", d.transfers_in},
              {"transfers_out", d.transfers_out},
              {"bytes_received", d.bytes_received},
              {"bytes_sent", d.bytes_sent},
              {"extents_published", d.extents_published},
              {"rejected_connections", d.rejected_connections},
              {"fallback_parts", d.fallback_parts}};
}

std::string pools_text(const FoundDevice& found) {
  std::string text;
  for (const auto& [location, locator] : found.locators) {
    text += (text.empty() ? "" : ",") + location.to_string();
  }
  return text.empty() ? "-" : text;
}

// The rights to look at the transfers into one location of a device.
Result<Authority> watch_authority(const Peer& peer, const Location& location,
                                  const std::string& locator,
                                  std::chrono::seconds ttl = kGrantTtl) {
  Authority authority;
  Status write = request_grant(*peer.cluster, location, locator, exchange::Right::kWrite,
                               authority.write_nonce, ttl);
  if (write) return authority;
  if (write.error().reason == Reason::kLayout) return fail(std::move(write).error());
  const Status read = request_grant(*peer.cluster, location, locator, exchange::Right::kRead,
                                    authority.read_nonce, ttl);
  if (!read) return fail(std::move(write).error());
  return authority;
}

// What a device says of itself. Nearly nothing (no name) to a key without a right on any of the
// pools that led there.
Result<DeviceDescription> describe(Session& session, const Peer& peer) {
  auto client = session.device(peer.found.device.address);
  if (!client) return fail(std::move(client).error());
  // One look at it, however often: the grants are few.
  constexpr std::chrono::seconds kLook{5};
  for (const auto& [location, locator] : peer.found.locators) {
    auto authority = watch_authority(peer, location, locator, kLook);
    if (!authority && authority.error().reason == Reason::kLayout) break;
    if (!authority) continue;
    auto description = (*client)->describe(*authority);
    if (description || description.error().reason != Reason::kGrantUnknown) return description;
  }
  return (*client)->describe({});
}

// Whether an OSD gives grants, after it was asked for one. Nothing: a folder's daemon, or it does
// not say.
std::optional<exchange::LayoutState> layout_of(const Peer& peer) {
  if (peer.cluster == nullptr || peer.found.locators.empty()) return std::nullopt;
  const auto& [location, locator] = *peer.found.locators.begin();
  const auto hello = peer.cluster->hello(location, locator);
  if (!hello) return std::nullopt;
  return hello->layout;
}

bool refuses_grants(const std::optional<exchange::LayoutState>& layout) {
  return layout == exchange::LayoutState::kDoesNotFit ||
         layout == exchange::LayoutState::kUnverified;
}

// What stands where a device's version would.
std::string not_described(Code why) {
  switch (why) {
    case Code::kUnavailable:
    case Code::kDeadlineExceeded:
      return "no answer";
    case Code::kPermissionDenied:
    case Code::kUnauthenticated:
      return "refused";
    case Code::kFailedPrecondition:  // one's own files, or no TLS where it must be
    case Code::kInvalidArgument:
    case Code::kCancelled:
      return "not asked";
    default:
      return "error";
  }
}

struct ListedTransfer {
  Peer peer;
  TransferInfo info;
};

// The transfers of one device, over every location by which it is reachable. `elsewhere`: what
// their pools have besides.
Status list_peer(Session& session, const Peer& peer, bool finished,
                 std::vector<ListedTransfer>& out, std::set<Location>& elsewhere) {
  auto client = session.device(peer.found.device.address);
  if (!client) return fail(std::move(client).error());
  std::vector<Authority> authorities;
  std::optional<Error> refused;
  if (peer.cluster == nullptr) authorities.emplace_back();
  for (const auto& [location, locator] : peer.found.locators) {
    auto authority = watch_authority(peer, location, locator);
    if (authority)
      authorities.push_back(*authority);
    else if (!refused)
      refused = authority.error();
  }
  if (authorities.empty() && refused) return fail(*refused);
  for (const Authority& authority : authorities) {
    auto list = (*client)->list(authority, finished);
    if (!list) return fail(std::move(list).error());
    for (TransferInfo& info : list->transfers) out.push_back({peer, std::move(info)});
    for (Location& place : list->elsewhere) {  // a device may name namespaces, not pools
      if (peer.found.locator_of({place.pool, ""}) != nullptr) elsewhere.insert(std::move(place));
    }
  }
  return {};
}

// Unnamed namespaces that one command looks into: each costs a question per placement group.
constexpr std::size_t kMaxNamespaces = 64;

struct TransferListing {
  std::vector<ListedTransfer> transfers;
  std::vector<Discovery::Silent> silent;
  std::vector<std::pair<std::string, Error>> failures;  // by device
  std::size_t answered = 0;
  std::map<std::string, std::uint64_t> known_since;  // by device that said so: its start
};

// The transfers at the devices behind the WHERE arguments; without any, those into the pools'
// namespaces as well, as far as the key may see them. `only`: looks no further once it has that id.
// CANCELLED when interrupted.
Result<TransferListing> list_transfers(Session& session, bool finished,
                                       const std::string& only = "") {
  auto peers = find_peers(session, session.options().names);
  if (!peers) return fail(std::move(peers).error());
  TransferListing listing;
  listing.silent = std::move(peers->silent);
  const auto found_it = [&] {
    return std::any_of(listing.transfers.begin(), listing.transfers.end(),
                       [&](const ListedTransfer& t) { return t.info.id == only; });
  };
  std::map<Device, std::set<Location>> elsewhere;
  for (const Peer& peer : peers->peers) {
    if (session.interrupted()) return fail(Session::interrupted_error("interrupted"));
    std::set<Location> places;
    const Status ok = list_peer(session, peer, finished, listing.transfers, places);
    if (ok) {
      ++listing.answered;
      if (only.empty()) {
        if (const auto described = describe(session, peer); described) {
          listing.known_since[described->device] = described->started_unix_ms;
        }
      }
    } else {
      listing.failures.emplace_back(peer.found.device.name, ok.error());
    }
    if (found_it()) return listing;
    if (!places.empty()) elsewhere.emplace(peer.found.device, std::move(places));
  }
  if (!session.options().names.empty() || elsewhere.empty()) return listing;
  RadosCluster* cluster = peers->peers.front().cluster;
  std::set<Location> all;
  for (const auto& [device, places] : elsewhere) all.insert(places.begin(), places.end());
  if (all.size() > kMaxNamespaces) {
    session.meter().note(fmt::format(
        "siphon: looking at {} of {} namespaces with transfers; name the others: POOL/NAMESPACE/",
        kMaxNamespaces, all.size()));
    all.erase(std::next(all.begin(), kMaxNamespaces), all.end());
  }
  for (FoundDevice& found : discover(*cluster, {all.begin(), all.end()}).devices) {
    if (session.interrupted()) return fail(Session::interrupted_error("interrupted"));
    // Each grant takes a slot at its device: none where there is nothing to see.
    const std::set<Location>& places = elsewhere[found.device];
    std::erase_if(found.locators, [&](const auto& entry) { return !places.contains(entry.first); });
    const std::string name = found.device.name;
    std::set<Location> none;
    const Status ok =
        list_peer(session, {cluster, std::move(found)}, finished, listing.transfers, none);
    // A namespace that is not this key's is nobody's failure.
    if (!ok && ok.error().code != Code::kPermissionDenied) {
      listing.failures.emplace_back(name, ok.error());
    }
    if (found_it()) break;
  }
  return listing;
}

Json to_json(const ListedTransfer& listed) {
  const TransferInfo& t = listed.info;
  Json json{{"id", t.id},
            {"source", to_json(t.source)},
            {"target", to_json(t.target)},
            {"source_device", t.source_device},
            {"target_device", t.target_device},
            {"started_at", rfc3339(t.started_unix_ms)},
            {"progress", to_json(t.progress)}};
  json["problem"] = t.status ? Json() : to_json(t.status.error());
  return json;
}

std::string place_text(const Location& location) {
  return location.pool.empty() ? "-" : location.to_string();
}

std::string percent_text(const Progress& p) {
  if (p.phase == Phase::kSucceeded) return "100%";
  if (p.total_bytes == 0) return "-";
  const auto share = static_cast<long double>(std::min(p.durable_bytes, p.total_bytes)) /
                     static_cast<long double>(p.total_bytes);
  return fmt::format("{}%", std::min(99, static_cast<int>(share * 100)));
}

// Where the transfer `id` is, and the right to deal with it.
struct Found {
  std::unique_ptr<rpc::DeviceClient> client;
  Authority authority;
  TransferInfo info;
};

Result<Found> find_transfer(Session& session, const std::string& id) {
  auto listing = list_transfers(session, true, id);
  if (!listing) return fail(std::move(listing).error());
  for (const auto& [peer, info] : listing->transfers) {
    if (info.id != id) continue;
    const std::string* locator = peer.found.locator_of(info.target);
    if (peer.cluster != nullptr && locator == nullptr) continue;  // of a place nobody asked for
    Found found;
    found.info = info;
    if (peer.cluster != nullptr) {
      SIPHON_TRY(request_grant(*peer.cluster, info.target, *locator, exchange::Right::kWrite,
                               found.authority.write_nonce));
    }
    auto client = session.device(peer.found.device.address);
    if (!client) return fail(std::move(client).error());
    found.client = std::move(*client);
    return found;
  }
  note_silent(session, listing->silent);
  if (!listing->failures.empty()) return fail(listing->failures.front().second);
  if (!listing->silent.empty()) {
    Error error = listing->silent.front().error;
    error.message = "no device that could be asked knows a transfer " + id;
    return fail(std::move(error));
  }
  std::string where;
  for (const std::string& name : session.options().names) where += " " + shell_word(name);
  return fail(
      Code::kNotFound,
      "no device knows a transfer " + id +
          fmt::format(
              "; a device forgets its transfers when it is started again, and of those that "
              "have ended it knows the last {} at most",
              TransferManager::kMaxEnded),
      Side::kRequester,
      "siphon transfers --all" + where + " lists those that are known" +
          (where.empty() ? "; a folder's daemon must be named: siphon watch " + id + " HOST:PORT/"
                         : ""));
}

}  // namespace

Result<int> run_daemons(Session& session) {
  auto peers = find_peers(session, session.options().names);
  if (!peers) return fail(std::move(peers).error());
  std::vector<Result<DeviceDescription>> described(peers->peers.size());
  std::vector<std::optional<exchange::LayoutState>> layouts(described.size());
  run_parallel(described.size(), 8, [&](std::size_t i) {
    described[i] = describe(session, peers->peers[i]);
    layouts[i] = layout_of(peers->peers[i]);
  });
  Tally tally;
  Json list = Json::array();
  Table table({{"DEVICE"},
               {"CONTROL"},
               {"DATA PORTS"},
               {"VERSION"},
               {"ADAPTER"},
               {"POOLS"},
               {"IN", true},
               {"OUT", true},
               {"IN FLIGHT", true},
               {"STRANGERS", true},
               {"FALLBACK", true}});
  for (std::size_t i = 0; i < described.size(); ++i) {
    const FoundDevice& found = peers->peers[i].found;
    Json entry{{"device", found.device.name}, {"control_address", found.device.address}};
    if (described[i] && described[i]->device.empty()) {
      ++tally.done;
      entry["version"] = described[i]->version;
      entry["adapter"] = described[i]->adapter;
      const bool refuses = refuses_grants(layouts[i]);
      table.add({found.device.name, found.device.address, "-", described[i]->version,
                 described[i]->adapter + (refuses ? ", no grants" : ""), pools_text(found)});
      session.meter().note(
          "siphon: " + found.device.name +
          (refuses ? " refuses every grant, layout " + std::string(to_string(*layouts[i])) +
                         ": siphon doctor says what to do"
                   : " tells no more to who has no right there (grant_read, grant_write, a "
                     "secret)"));
    } else if (described[i]) {
      ++tally.done;
      const DeviceDescription& d = *described[i];
      entry = to_json(d);
      table.add({d.device, found.device.address, d.data_address + ":" + d.data_ports, d.version,
                 d.adapter, pools_text(found), std::to_string(d.transfers_in),
                 std::to_string(d.transfers_out),
                 human_bytes(d.bytes_in_flight) + "/" + human_bytes(d.region_bytes),
                 std::to_string(d.rejected_connections), std::to_string(d.fallback_parts)});
    } else {
      tally.fail(described[i].error());
      entry["problem"] = to_json(described[i].error());
      table.add({found.device.name, found.device.address, "-",
                 not_described(described[i].error().code), "-", pools_text(found)});
      session.meter().note("siphon: " + found.device.name + ": " +
                           error_text(described[i].error()));
    }
    if (layouts[i]) entry["layout"] = to_string(*layouts[i]);
    entry["pools"] = Json::array();
    for (const auto& [location, locator] : found.locators) {
      entry["pools"].push_back(location.to_string());
    }
    list.push_back(std::move(entry));
  }
  count_silent(tally, peers->silent);
  const Exit exit = session.interrupted() ? Exit::kInterrupted : exit_for(tally);
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["devices"] = std::move(list);
    doc["silent"] = to_json(peers->silent);
    session.out().document(std::move(doc), exit);
  }
  session.out().table(table);
  note_silent(session, peers->silent);
  return static_cast<int>(exit);
}

Result<int> run_transfers(Session& session) {
  auto listing = list_transfers(session, session.options().finished);
  if (!listing) return fail(std::move(listing).error());
  Tally tally;
  tally.done = listing->answered;
  for (const auto& [device, error] : listing->failures) {
    tally.fail(error);
    session.meter().note("siphon: " + device + ": " + error_text(error));
  }
  count_silent(tally, listing->silent);
  const Exit exit = session.interrupted() ? Exit::kInterrupted : exit_for(tally);
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["transfers"] = Json::array();
    for (const ListedTransfer& entry : listing->transfers)
      doc["transfers"].push_back(to_json(entry));
    doc["known_since"] = Json::object();
    for (const auto& [device, since] : listing->known_since) {
      doc["known_since"][device] = rfc3339(since);
    }
    doc["silent"] = to_json(listing->silent);
    session.out().document(std::move(doc), exit);
  }
  Table table({{"TRANSFER"},
               {"SOURCE"},
               {"TARGET"},
               {"FROM"},
               {"TO"},
               {"PHASE"},
               {"DURABLE", true},
               {"", true},
               {"DONE", true},
               {"ALREADY THERE", true},
               {"FAILED", true},
               {"STARTED"}});
  for (const ListedTransfer& entry : listing->transfers) {
    const TransferInfo& t = entry.info;
    table.add({t.id, place_text(t.source), place_text(t.target), t.source_device, t.target_device,
               std::string(to_string(t.progress.phase)), human_bytes(t.progress.durable_bytes),
               percent_text(t.progress),
               fmt::format("{}/{}", t.progress.extents_done, t.progress.extents_total),
               std::to_string(t.progress.extents_already_there),
               std::to_string(t.progress.extents_failed), rfc3339(t.started_unix_ms)});
  }
  if (!table.empty()) {
    session.out().table(table);
  } else if (tally.done > 0) {
    session.out().line(
        fmt::format("no transfers{}{}{}", session.options().finished ? "" : " under way",
                    tally.failed > 0 ? " at the devices that answered" : "",
                    session.options().finished ? "" : "; --all lists those that have ended, too"));
  }
  if (session.options().finished) {
    for (const auto& [device, since] : listing->known_since) {
      session.out().line(fmt::format(
          "{} knows those since its start at {}, and of those that have ended the last {} at most",
          device, rfc3339(since), TransferManager::kMaxEnded));
    }
  }
  note_silent(session, listing->silent);
  return static_cast<int>(exit);
}

Result<int> run_watch(Session& session) {
  const std::string& id = session.options().transfer_id;
  auto found = find_transfer(session, id);
  if (!found) return fail(std::move(found).error());
  Json outcomes = Json::array();
  bool told_why = false;  // why some of the extents failed
  auto on_event = [&](const rpc::TransferEvent& event) {
    if (const auto* p = std::get_if<Progress>(&event)) {
      session.meter().update(progress_of(*p, found->info.source_device, found->info.target_device));
    } else if (const auto* outcome = std::get_if<ExtentOutcome>(&event)) {
      Json entry{{"source_extent", outcome->source_extent},
                 {"target_extent", outcome->target_extent}};
      if (outcome->result) {
        entry["receipt"] = to_json(*outcome->result);
      } else {
        entry["problem"] = to_json(outcome->result.error());
        told_why = true;
        session.meter().note("siphon: " + escaped(outcome->target_extent) + ": " +
                             error_text(outcome->result.error()));
      }
      entry["left_for_good"] = gone_json(outcome->all_left_for_good());
      for (const TrashEntry& gone : outcome->all_left_for_good()) {
        session.meter().note("siphon: " + escaped(outcome->target_extent) + ": " + gone_text(gone));
      }
      outcomes.push_back(std::move(entry));
    }
  };
  auto summary = found->client->watch(id, found->authority, on_event);
  session.meter().finish(summary && summary->phase == Phase::kSucceeded);
  if (!summary && session.interrupted()) {
    std::string words = id;
    for (const std::string& name : session.options().names) words += " " + shell_word(name);
    session.meter().note("siphon: the transfer goes on; end it with: " +
                         session.command("cancel " + words));
    return static_cast<int>(Exit::kInterrupted);
  }
  if (!summary) return fail(std::move(summary).error());
  const std::uint32_t already_there =
      std::min(summary->extents_already_there, summary->extents_done);
  const std::uint32_t published = summary->extents_done - already_there;
  const Tally tally{published, already_there, summary->extents_failed,
                    summary->status ? Exit::kOther : exit_for(summary->status.error())};
  Exit exit = exit_for(tally);
  if (!summary->status && exit == Exit::kOk) exit = exit_for(summary->status.error().code);
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["transfer"] = id;
    doc["phase"] = to_string(summary->phase);
    doc["extents"] = std::move(outcomes);
    doc["published"] = published;
    doc["already_there"] = already_there;
    doc["failed"] = summary->extents_failed;
    doc["bytes"] = summary->bytes;
    doc["error"] = summary->status ? Json() : to_json(summary->status.error());
    session.out().document(std::move(doc), exit);
  }
  session.out().line(fmt::format("{}: {}, {} published, {} already there, {} failed, {}", id,
                                 to_string(summary->phase), counted(published, "extent"),
                                 already_there, summary->extents_failed,
                                 human_bytes(summary->bytes)));
  if (!summary->status && !told_why) {
    session.meter().note("siphon: " + error_text(summary->status.error()));
  }
  return static_cast<int>(exit);
}

Result<int> run_cancel(Session& session) {
  const std::string& id = session.options().transfer_id;
  auto found = find_transfer(session, id);
  if (!found) return fail(std::move(found).error());
  Phase phase = found->info.progress.phase;
  if (!session.options().dry_run && !is_final(phase)) {
    auto cancelled = found->client->cancel(id, found->authority);
    if (!cancelled) return fail(std::move(cancelled).error());
    phase = *cancelled;
  }
  const bool was_over = is_final(found->info.progress.phase);
  const Exit exit = was_over ? Exit::kNothingToDo : Exit::kOk;
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["dry_run"] = session.options().dry_run;
    doc["transfer"] = id;
    doc["phase"] = to_string(phase);
    session.out().document(std::move(doc), exit);
  }
  if (was_over) {
    session.out().line(fmt::format("{}: it had ended before ({})", id, to_string(phase)));
  } else if (session.options().dry_run) {
    session.out().line(
        fmt::format("would cancel {} at {} ({})", id, found->info.target_device, to_string(phase)));
  } else {
    session.out().line(
        fmt::format("{}: {}; what was published before stays", id, to_string(phase)));
  }
  return static_cast<int>(exit);
}

}  // namespace siphon::cli
