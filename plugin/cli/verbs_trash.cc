// trash ls, trash restore, trash purge; scratch ls, scratch purge: what lies behind the public
// names.
//
// Everything is read from the registers of the names (ExtentStore::inspect); what goes, goes
// through collect, which condemns an attempt before it removes a byte of it.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "adapters/store_util.h"
#include "plugin/base/text.h"
#include "plugin/cli/commands.h"
#include "plugin/cli/devices.h"
#include "plugin/cli/ends.h"
#include "plugin/cli/extent_io.h"
#include "plugin/cli/verbs.h"
#include "plugin/cli/verify.h"

namespace siphon::cli {
namespace {

constexpr std::size_t kInspectThreads = 8;
constexpr std::size_t kToldTogether = 500;  // removals: what they came to is told so many at a time

// One entry behind a name: a generation in the trash, or an attempt.
struct Entry {
  Address address;
  PrivateId id{};
  std::uint64_t bytes = 0;          // 0: not known
  std::uint64_t since_unix_ms = 0;  // trash: when it got there
  std::uint64_t lease_unix_ms = 0;  // attempts: until when nobody else may remove it
  ExtentState state = ExtentState::kNone;
  SealedHeader header{};
  bool restorable = false;
  bool in_trash = false;
  bool has_head = true;
  std::optional<Error> gone{};         // trash: its bytes are not there any more, or not all
  std::optional<PartsSeen> unnamed{};  // parts that the register does not name
};

struct Found {
  std::vector<Entry> entries;
  std::size_t looked = 0;  // names that could be looked at
  std::vector<std::pair<Address, Error>> failed;
};

void add_trash(const Address& address, const HeadRegister& reg, std::vector<Entry>& entries) {
  for (const TrashEntry& e : reg.trash) {
    entries.push_back({.address = address,
                       .id = e.id,
                       .bytes = e.header.extent_bytes,
                       .since_unix_ms = e.trashed_unix_ms,
                       .state = e.state,
                       .header = e.header,
                       .restorable = e.was_published,
                       .in_trash = true});
  }
}

// Attempts that have not ended, and what is still to be removed of those that have.
void add_scratch(const Address& address, const HeadRegister& reg, std::vector<Entry>& entries) {
  for (const Reservation& r : reg.reservations) {
    entries.push_back({.address = address,
                       .id = r.id,
                       .bytes = r.extent_bytes,
                       .lease_unix_ms = r.lease_unix_ms});
  }
  for (const TrashEntry& e : reg.trash) {
    if (e.was_published) continue;
    entries.push_back({.address = address,
                       .id = e.id,
                       .bytes = e.header.extent_bytes,
                       .since_unix_ms = e.trashed_unix_ms,
                       .header = e.header,
                       .in_trash = true});
  }
}

Json entry_json(const Entry& e) {
  Json json{{"extent", e.address.to_string()},
            {"private_id", to_hex(e.id)},
            {"bytes", e.bytes > 0 ? Json(e.bytes) : Json()}};
  if (e.in_trash || e.unnamed) json["since"] = rfc3339(e.since_unix_ms);
  if (!e.in_trash) json["named"] = !e.unnamed.has_value();
  if (!e.in_trash)
    json["lease_until"] = e.lease_unix_ms > 0 ? Json(rfc3339(e.lease_unix_ms)) : Json();
  json["restorable"] = e.restorable;
  if (e.gone) json["problem"] = to_json(*e.gone);
  if (e.state == ExtentState::kSealed) json["header"] = to_json(e.header);
  return json;
}

std::string age_text(std::uint64_t since_unix_ms, std::uint64_t now_unix_ms) {
  const std::uint64_t seconds =
      now_unix_ms > since_unix_ms ? (now_unix_ms - since_unix_ms) / 1000 : 0;
  if (seconds >= 2 * 86400) return fmt::format("{} d", seconds / 86400);
  if (seconds >= 2 * 3600) return fmt::format("{} h", seconds / 3600);
  if (seconds >= 120) return fmt::format("{} min", seconds / 60);
  return fmt::format("{} s", seconds);
}

// "90s", "30m", "12h", "7d"
Result<std::uint64_t> parse_age_ms(const std::string& text) {
  std::uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  static const std::map<std::string, std::uint64_t> kUnits = {
      {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}};
  const auto unit = kUnits.find(std::string(stop, end));
  if (error != std::errc() || unit == kUnits.end() || value > 100'000'000) {
    return fail(Code::kInvalidArgument, "'" + text + "' is no age: write 90s, 30m, 12h or 7d",
                Side::kRequester);
  }
  return value * unit->second;
}

using Collect = void (*)(const Address&, const HeadRegister&, std::vector<Entry>&);

// Each name once, with whose parts were seen under it.
Result<std::vector<ListedExtent>> names_of(Session& session, Address address) {
  if (!address.extent.empty()) return std::vector<ListedExtent>{{std::move(address), {}, {}}};
  widen(session, address);
  auto listed = list_store(session, Role::kOnly, address, Listing::kEverything);
  if (!listed) return listed;
  std::vector<ListedExtent> names;
  for (ListedExtent& item : *listed) {
    if (names.empty() || names.back().address != item.address) {
      names.push_back(std::move(item));
    } else if (!item.parts.empty()) {
      names.back().parts = std::move(item.parts);
    }
  }
  return names;
}

// Those of the parts that were seen under a name which its register, looked at now, does not name.
Status add_unnamed(ExtentStore& store, const ListedExtent& name, const HeadRegister& reg,
                   std::vector<Entry>& entries) {
  for (const PartsSeen& seen : name.parts) {
    if (names_id(reg, seen.id)) continue;
    auto found = store.find_unnamed(name.address.extent, seen);
    if (!found) return fail(std::move(found).error());
    if (!*found) continue;
    entries.push_back({.address = name.address,
                       .id = seen.id,
                       .bytes = (*found)->bytes,
                       .since_unix_ms = (*found)->written_unix_ms,
                       .has_head = (*found)->has_head,
                       .unnamed = seen});
  }
  return {};
}

// Which of them a restore could bring back. What cannot be looked at now may be.
void look_at_bytes(ExtentStore& store, const std::string& name, const HeadRegister& reg,
                   std::vector<Entry>& entries) {
  for (Entry& e : entries) {
    const auto kept = std::ranges::find(reg.trash, e.id, &TrashEntry::id);
    if (!e.restorable || kept == reg.trash.end()) continue;
    Status there = store.check_kept(name, *kept);
    if (there || there.error().code != Code::kDataLoss) continue;
    e.gone = std::move(there).error();
    e.restorable = false;
  }
}

// Of a name that was given: there is no extent, no trash and no attempt.
Error nothing_there(const Address& address) {
  const std::string store = shell_word(address.store());
  Error error{Code::kNotFound,
              "there is no extent " + address.to_string() + ", and no trash or attempt of one",
              Side::kRequester,
              "see what is there: siphon ls " + store + "; siphon scratch ls " + store};
  if (address.where == Where::kCeph && address.location.nspace.empty()) {
    error.next_step +=
        "; a whole namespace is written --namespace " + shell_word(address.extent) + " " + store;
  }
  return error;
}

enum class Bytes { kAreLookedAt, kAreNot };

Result<Found> look(Session& session, const std::string& what, Collect collect,
                   Bytes bytes = Bytes::kAreNot) {
  auto address = parse_extent_or_store(what);
  if (!address) return fail(std::move(address).error());
  auto names = names_of(session, *address);
  if (!names) return fail(std::move(names).error());
  std::vector<Status> looked(names->size());
  std::vector<std::vector<Entry>> entries(names->size());
  run_parallel(names->size(), kInspectThreads, [&](std::size_t i) {
    ListedExtent& name = (*names)[i];
    looked[i] = [&]() -> Status {
      auto store = session.store(name.address);
      if (!store) return fail(std::move(store).error());
      auto reg = (*store)->inspect(name.address.extent);
      if (!reg) return fail(std::move(reg).error());
      collect(name.address, *reg, entries[i]);
      if (!address->extent.empty()) {  // it was not listed
        auto parts = (*store)->parts_under(name.address.extent);
        if (!parts) return fail(std::move(parts).error());
        name.parts = std::move(*parts);
        if (reg->blank() && name.parts.empty()) return fail(nothing_there(name.address));
      }
      if (bytes == Bytes::kAreLookedAt) {
        look_at_bytes(**store, name.address.extent, *reg, entries[i]);
      }
      return collect == add_scratch ? add_unnamed(**store, name, *reg, entries[i]) : Status{};
    }();
  });
  Found found;
  for (std::size_t i = 0; i < names->size(); ++i) {
    std::ranges::move(entries[i], std::back_inserter(found.entries));
    if (looked[i]) {
      ++found.looked;
    } else {
      found.failed.emplace_back((*names)[i].address, looked[i].error());
    }
  }
  if (!address->extent.empty() && found.looked == 0 &&
      found.failed.front().second.code == Code::kNotFound) {
    return fail(found.failed.front().second);
  }
  return found;
}

// Tells what could not be looked at; the exit status of a listing.
Exit note_failures(Session& session, const Found& found, Json& doc) {
  Json failed = Json::array();
  Tally tally;
  tally.done = found.looked;
  for (const auto& [address, error] : found.failed) {
    const Error whole = error.with_context(address.to_string());
    session.meter().note("siphon: " + error_text(whole));
    failed.push_back(Json{{"extent", address.to_string()}, {"problem", to_json(whole)}});
    tally.fail(error);
  }
  doc["failed"] = std::move(failed);
  return exit_for(tally);
}

// How much the entries are together. What a stream brought that was broken off has no size.
struct Sizes {
  std::uint64_t bytes = 0;  // of those that have one
  std::size_t unknown = 0;

  void add(const Entry& e) {
    bytes += e.bytes;
    unknown += e.bytes == 0;
  }
  Json json() const { return unknown == 0 ? Json(bytes) : Json(); }
  std::string text() const {
    if (unknown == 0) return human_bytes(bytes);
    const std::string rest = fmt::format("{} of a size not known", unknown);
    return bytes == 0 ? rest : human_bytes(bytes) + " and " + rest;
  }
};

int show(Session& session, const Found& found, bool trash) {
  const std::uint64_t now = now_unix_ms();
  Table table(
      {{"EXTENT"}, {"PRIVATE ID"}, {"BYTES", true}, {"AGE", true}, {trash ? "STATE" : "LEASE"}});
  Json rows = Json::array();
  Sizes total;
  for (const Entry& e : found.entries) {
    total.add(e);
    rows.push_back(entry_json(e));
    std::string last = "attempt";
    if (trash) last = e.state == ExtentState::kNone ? "version 1" : state_name(e.state);
    if (e.gone) {
      last += ", not whole";
      session.meter().note("siphon: " + error_text(*e.gone));
    }
    if (!trash) {
      last = e.unnamed                ? (e.has_head ? "unnamed" : "no head")
             : e.in_trash             ? "ended"
             : e.lease_unix_ms == 0   ? "none"
             : e.lease_unix_ms <= now ? "over"
                                      : "until " + rfc3339(e.lease_unix_ms);
    }
    table.add({e.address.to_string(), to_hex(e.id), e.bytes > 0 ? std::to_string(e.bytes) : "-",
               e.since_unix_ms > 0 ? age_text(e.since_unix_ms, now) : "-", last});
  }
  Json doc = session.out().new_document();
  const Exit exit = session.exit_of_listed(note_failures(session, found, doc));
  doc["unlisted"] = session.unlisted();
  doc["entries"] = std::move(rows);
  doc["bytes"] = total.json();
  if (session.out().json()) {
    session.out().document(std::move(doc), exit);
  } else if (table.empty()) {
    const std::string nothing =
        trash ? "the trash is empty" : "no attempts in progress or left over";
    const bool all = session.listed_all() && found.failed.empty();
    if (all || found.looked > 0) {
      session.out().line(nothing + (all ? "" : ", as far as it could be looked at"));
    }
  } else {
    session.out().table(table);
    session.out().line(fmt::format("{} {}, {}", found.entries.size(),
                                   found.entries.size() == 1 ? "entry" : "entries", total.text()));
  }
  return static_cast<int>(exit);
}

Status remove_entry(Session& session, const Entry& e) {
  auto store = session.store(e.address);
  if (!store) return fail(std::move(store).error());
  const std::string& name = e.address.extent;
  if (e.unnamed) return (*store)->remove_unnamed(name, *e.unnamed);
  return e.in_trash ? (*store)->purge(name, e.id, e.since_unix_ms) : (*store)->collect(name, e.id);
}

// Removes the entries, or says which would go.
int remove_all(Session& session, Found found, const std::string& what) {
  Tally tally;
  Json rows = Json::array();
  Sizes gone;
  const bool dry_run = session.options().dry_run;
  for (std::size_t from = 0; from < found.entries.size(); from += kToldTogether) {
    const std::span<const Entry> some =
        std::span(found.entries)
            .subspan(from, std::min(kToldTogether, found.entries.size() - from));
    std::vector<Address> addresses;
    for (const Entry& e : some) addresses.push_back(e.address);
    std::vector<std::optional<Status>> ends(some.size());  // none: interrupted before
    run_by_name(addresses, kInspectThreads, [&](std::size_t i) {
      if (!session.interrupted()) ends[i] = dry_run ? Status{} : remove_entry(session, some[i]);
    });
    for (std::size_t i = 0; i < some.size(); ++i) {
      if (!ends[i]) continue;
      const Entry& e = some[i];
      Json row = entry_json(e);
      if (*ends[i]) {
        ++tally.done;
        gone.add(e);
        session.out().line(fmt::format("{} {} {}", dry_run ? "would remove" : "removed",
                                       e.address.to_string(), to_hex(e.id)));
      } else {
        tally.fail(ends[i]->error());
        const Error error = ends[i]->error().with_context(e.address.to_string());
        session.meter().note("siphon: " + error_text(error));
        row["problem"] = to_json(error);
      }
      rows.push_back(std::move(row));
    }
  }
  Json doc = session.out().new_document();
  Exit exit = note_failures(session, {{}, 0, found.failed}, doc);
  if (tally.failed > 0 || found.failed.empty()) exit = exit_for(tally);
  if (tally.done > 0 && !found.failed.empty()) exit = Exit::kPartial;
  if (tally.done + tally.failed == 0 && found.failed.empty()) {
    exit = Exit::kNothingToDo;
    session.out().line("nothing to remove: " + what +
                       (session.listed_all() ? "" : ", as far as it could be listed"));
  }
  exit = session.exit_of_listed(exit);
  if (session.interrupted()) exit = Exit::kInterrupted;
  doc["dry_run"] = dry_run;
  doc["unlisted"] = session.unlisted();
  doc["entries"] = std::move(rows);
  doc["bytes"] = gone.json();
  if (session.out().json()) session.out().document(std::move(doc), exit);
  return static_cast<int>(exit);
}

// --private-id, or nothing.
Result<std::optional<PrivateId>> wanted_id(const Options& options) {
  if (options.private_id.empty()) return std::optional<PrivateId>();
  PrivateId id;
  if (from_hex(options.private_id, id.bytes)) return std::optional(id);
  return fail(Code::kInvalidArgument,
              "'" + options.private_id + "' is no private id: 32 hex digits", Side::kRequester,
              "siphon trash ls " + shell_word(options.names.at(0)) + " shows them");
}

}  // namespace

Result<int> run_trash_ls(Session& session) {
  auto found = look(session, session.options().names.at(0), add_trash, Bytes::kAreLookedAt);
  if (!found) return fail(std::move(found).error());
  std::erase_if(found->entries, [](const Entry& e) { return !e.restorable && !e.gone; });
  return show(session, *found, true);
}

Result<int> run_trash_restore(Session& session) {
  const Options& options = session.options();
  auto id = wanted_id(options);
  if (!id) return fail(std::move(id).error());
  auto address = parse_address(options.names.at(0), Want::kExtent);
  if (!address) return fail(std::move(address).error());
  auto found = look(session, options.names.at(0), add_trash, Bytes::kAreLookedAt);
  if (!found) return fail(std::move(found).error());
  if (!found->failed.empty()) return fail(found->failed.front().second);
  const Entry* chosen = nullptr;  // the youngest, or the one that was named
  const Entry* whole = nullptr;   // the youngest that can come back
  for (const Entry& e : found->entries) {
    if (!e.restorable && !e.gone) continue;
    if (e.restorable && (whole == nullptr || e.since_unix_ms >= whole->since_unix_ms)) whole = &e;
    if (*id && e.id != **id) continue;
    if (chosen == nullptr || e.since_unix_ms >= chosen->since_unix_ms) chosen = &e;
  }
  if (chosen == nullptr) {
    return fail(Code::kNotFound,
                *id ? "the trash of " + address->to_string() + " does not hold that private id"
                    : "there is nothing of " + address->to_string() + " in the trash",
                Side::kRequester, "siphon trash ls " + shell_word(address->store()));
  }
  if (chosen->gone) {
    Error error = *chosen->gone;
    if (whole != nullptr) {
      error.next_step = "siphon trash restore --private-id " + to_hex(whole->id) + " " +
                        shell_word(address->to_string()) +
                        " brings back the youngest that is whole";
    }
    return fail(std::move(error));
  }
  auto store = session.store(*address);
  if (!store) return fail(std::move(store).error());
  if (options.dry_run) {
    auto there = (*store)->stat(address->extent);
    if (there) {
      return fail(Code::kAlreadyExists, "extent " + address->to_string() + " exists",
                  Side::kRequester, "trash the current one first");
    }
    if (there.error().code != Code::kNotFound) return fail(there.error());
  } else {
    SIPHON_TRY((*store)->restore(address->extent, chosen->id));
    if (chosen->state == ExtentState::kNone) {  // of a register that kept no header
      const auto plan = plan_seal(**store, address->extent, {&session.stop(), {}});
      if (!plan) return fail(plan.error());
      if (plan->seen.private_id != chosen->id) {
        return fail(transition_error(-ESTALE, Transition::kSeal, address->extent));
      }
      if (plan->is_damaged()) {
        return fail(
            seal_is_refused(address->extent, *plan).with_context("restored, and left open"));
      }
      SIPHON_TRY(seal_extent(**store, address->extent, *plan));
    }
  }
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["dry_run"] = options.dry_run;
    doc["restored"] = entry_json(*chosen);
    session.out().document(std::move(doc), Exit::kOk);
  }
  session.out().line(fmt::format(
      "{} {} as it was until {}, private id {}", options.dry_run ? "would restore" : "restored",
      address->to_string(), rfc3339(chosen->since_unix_ms), to_hex(chosen->id)));
  return 0;
}

Result<int> run_trash_purge(Session& session) {
  const Options& options = session.options();
  auto id = wanted_id(options);
  if (!id) return fail(std::move(id).error());
  std::uint64_t age_ms = 0;
  if (!options.older_than.empty()) {
    auto parsed = parse_age_ms(options.older_than);
    if (!parsed) return fail(std::move(parsed).error());
    age_ms = *parsed;
  }
  if (const auto refused = session.refused("removing what is in the trash")) return *refused;
  auto found = look(session, options.names.at(0), add_trash);
  if (!found) return fail(std::move(found).error());
  const std::uint64_t now = now_unix_ms();
  const char* nothing = "the trash is empty";
  if (*id && !found->entries.empty()) {
    std::erase_if(found->entries, [&](const Entry& e) { return e.id != **id; });
    nothing = "no entry in the trash has that private id";
  }
  if (!options.older_than.empty() && !found->entries.empty()) {
    std::erase_if(found->entries, [&](const Entry& e) { return e.since_unix_ms + age_ms > now; });
    nothing = "nothing in the trash is as old as that";
  }
  return remove_all(session, std::move(*found), nothing);
}

Result<int> run_scratch_ls(Session& session) {
  auto found = look(session, session.options().names.at(0), add_scratch);
  if (!found) return fail(std::move(found).error());
  return show(session, *found, false);
}

Result<int> run_scratch_purge(Session& session) {
  const Options& options = session.options();
  if (options.finished) {
    if (const auto refused = session.refused("ending attempts that may still run")) return *refused;
  }
  const std::string& what = options.names.at(0);
  auto found = look(session, what, add_scratch);
  if (!found) return fail(std::move(found).error());
  const std::uint64_t now = now_unix_ms();
  std::size_t unnamed = 0;
  std::erase_if(found->entries, [&](const Entry& e) {
    if (options.finished) return false;
    unnamed += e.unnamed.has_value();
    return e.unnamed || (!e.in_trash && e.lease_unix_ms > now);
  });
  if (unnamed > 0) {
    session.meter().note(fmt::format(
        "siphon: left alone, {}: bytes that no head names, which may be all there is of an extent\n"
        "next: {}; scratch purge --all removes them",
        counted(unnamed, "private id"), session.command("scratch ls " + shell_word(what))));
  }
  return remove_all(session, std::move(*found), "no attempt's lease is over (--all: those too)");
}

}  // namespace siphon::cli
