// copy and move.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "plugin/base/text.h"
#include "plugin/cli/commands.h"
#include "plugin/cli/copy_plan.h"
#include "plugin/cli/copy_run.h"
#include "plugin/cli/ends.h"
#include "plugin/cli/redundancy.h"
#include "plugin/cli/verbs.h"
#include "plugin/cli/verify.h"
#include "plugin/core/mutex.h"

namespace siphon::cli {
namespace {

using cli::to_json;  // beside the overloads here

constexpr std::size_t kMaxTableRows = 20;
constexpr std::size_t kMaxErrorsShown = 20;

std::string way(const CopyItem& item) {
  if (item.source_device.name.empty()) return "-";
  return item.source_device.name + " -> " + item.target_device.name;
}

const Error* problem_of(const CopyItem& item) {
  if (item.state == ItemState::kFailed) return &item.error;
  return item.stays ? &*item.stays : nullptr;
}

Json to_json(const CopyItem& item) {
  Json json{{"source", item.source.to_string()},
            {"target", item.target.to_string()},
            {"status", to_string(item.state)},
            {"source_device", item.source_device.name},
            {"target_device", item.target_device.name},
            {"transfer_id", item.transfer_id},
            {"attempts", item.attempts}};
  json["bytes"] =
      item.receipt ? Json(item.receipt->bytes) : (item.info ? Json(item.bytes()) : Json());
  json["receipt"] = receipt_json(item);
  const Error* problem = problem_of(item);
  json["problem"] = problem != nullptr ? to_json(*problem) : Json();
  json["refused"] = item.refused();
  json["left_for_good"] = gone_json(item.left_for_good);
  if (!item.source_left_for_good.empty()) {
    json["source_left_for_good"] = gone_json(item.source_left_for_good);
  }
  const bool unseen = item.not_looked && item.state == ItemState::kPending;
  if (unseen) json["not_looked_at"] = to_json(*item.not_looked);
  return json;
}

Rows rows_of(const CopyPlan& plan) {
  return {"extents", plan.items.size(), [&plan](std::size_t i) { return to_json(plan.items[i]); }};
}

Json to_json(const CopyTotals& t) {
  const auto told = [&](std::uint64_t n) { return t.accounts_complete ? Json(n) : Json(); };
  return Json{{"bytes", t.bytes},
              {"seconds", t.seconds},
              {"transfers", t.transfers.size()},
              {"retried", t.retried},
              {"receipts_lost", t.receipts_lost},
              {"lane_bytes", told(t.lane_bytes)},
              {"rpc_bytes", told(t.rpc_bytes)},
              {"rejected_connections", told(t.rejected_connections)},
              {"fallback_parts", told(t.fallback_parts)},
              {"data_endpoints", t.data_endpoints}};
}

// What became of the copies, whether their sources stay or not.
Tally tally_of(const CopyPlan& plan) {
  Tally tally;
  for (const CopyItem& item : plan.items) {
    if (item.state == ItemState::kCopied) {
      ++tally.done;
    } else if (item.state == ItemState::kAlreadyThere) {
      ++tally.already_there;
    } else if (item.state == ItemState::kFailed) {
      tally.fail(item.error);
    }
  }
  return tally;
}

std::size_t stays_of(const CopyPlan& plan) {
  return static_cast<std::size_t>(std::ranges::count_if(
      plan.items, [](const CopyItem& item) { return item.stays.has_value(); }));
}

// A store that has nothing to give makes nothing to do. A source that stays was not moved.
Exit exit_of(Session& session, const CopyPlan& plan) {
  if (session.interrupted()) return Exit::kInterrupted;
  if (plan.items.empty()) return Exit::kNothingToDo;
  Tally tally;
  for (const CopyItem& item : plan.items) {
    if (const Error* problem = problem_of(item)) {
      tally.fail(*problem);
    } else if (item.state == ItemState::kCopied) {
      ++tally.done;
    } else if (item.state == ItemState::kAlreadyThere) {
      ++tally.already_there;
    }
  }
  return exit_for(tally);
}

void print_errors(Session& session, const CopyPlan& plan) {
  // The same words for many extents are said once.
  std::vector<std::pair<std::string, std::size_t>> said;  // and for how many more
  std::size_t not_shown = 0;
  for (const CopyItem& item : plan.items) {
    const Error* problem = problem_of(item);
    if (problem == nullptr) continue;
    const std::string text = error_text(*problem);
    const auto known =
        std::ranges::find_if(said, [&](const auto& entry) { return entry.first == text; });
    if (known != said.end()) {
      ++known->second;
    } else if (said.size() < kMaxErrorsShown) {
      said.emplace_back(text, 0);
      session.meter().note("siphon: " + escaped(item.source.to_string()) + ": " + text);
    } else {
      ++not_shown;
    }
  }
  for (const auto& [text, more] : said) {
    if (more == 0) continue;
    session.meter().note(fmt::format("siphon: the same happened to {}: {}",
                                     counted(more, "more extent"),
                                     text.substr(0, text.find('\n'))));
  }
  if (not_shown > 0) {
    session.meter().note(
        fmt::format("siphon: and {} more; -f json tells every extent's", not_shown));
  }
}

// Generations that nobody can bring back any more.
void print_gone(Session& session, const CopyPlan& plan) {
  std::size_t shown = 0, not_shown = 0;
  const auto print = [&](const Address& address, const std::vector<TrashEntry>& gone) {
    for (const TrashEntry& entry : gone) {
      if (shown == kMaxErrorsShown) {
        ++not_shown;
        continue;
      }
      ++shown;
      session.meter().note("siphon: " + escaped(address.to_string()) + ": " + gone_text(entry));
    }
  };
  for (const CopyItem& item : plan.items) {
    print(item.target, item.left_for_good);
    print(item.source, item.source_left_for_good);
  }
  if (not_shown == 0) return;
  session.meter().note(fmt::format("siphon: and {} left the trash; -f json tells each",
                                   counted(not_shown, "more older generation")));
}

// What this run has computed; a header's word stays with the header (siphon stat).
std::pair<std::string, std::string> computed_crc32(const CopyItem& item) {
  if (item.read_crc32) {
    return {crc32_hex(item.read_crc32->source), crc32_hex(item.read_crc32->target)};
  }
  if (!item.receipt || item.receipt->already_there) return {"-", "-"};
  return {crc32_hex(item.receipt->source_crc32), crc32_hex(item.receipt->target_crc32)};
}

void print_table(const Output& out, const CopyPlan& plan) {
  if (plan.items.size() > kMaxTableRows) {
    out.line(fmt::format(
        "{}: too many for a table here; -f json tells each of them, --receipts FILE keeps it",
        counted(plan.items.size(), "extent")));
    return;
  }
  Table table({{"EXTENT"},
               {"TARGET"},
               {"BYTES", true},
               {"SOURCE CRC32"},
               {"TARGET CRC32"},
               {"DEVICES"},
               {"STATUS"}});
  for (const CopyItem& item : plan.items) {
    const bool proven = item.receipt.has_value();
    const std::uint64_t bytes = proven ? item.receipt->bytes : item.bytes();
    const auto [source_crc32, target_crc32] = computed_crc32(item);
    table.add({item.source.to_string(), item.target.to_string(),
               bytes > 0 ? std::to_string(bytes) : "-", source_crc32, target_crc32, way(item),
               std::string(to_string(item.state))});
  }
  out.table(table);
}

// "8388608 bytes (8.00 MiB)"
std::string exact_bytes(std::uint64_t bytes) {
  const std::string exact = counted(bytes, "byte");
  return bytes < kKiB ? exact : exact + " (" + human_bytes(bytes) + ")";
}

std::size_t refused_of(const CopyPlan& plan) {
  return static_cast<std::size_t>(std::ranges::count_if(plan.items, &CopyItem::refused));
}

// Left to their devices by Ctrl-C.
std::size_t going_on_of(const CopyPlan& plan) {
  return static_cast<std::size_t>(std::ranges::count_if(
      plan.items, [](const CopyItem& item) { return item.state == ItemState::kGoesOn; }));
}

// ListedExtent by their names, and left by Ctrl-C before anybody looked: some may be names of
// nothing but trash.
std::size_t names_alone_of(const CopyPlan& plan) {
  return static_cast<std::size_t>(std::ranges::count_if(plan.items, [](const CopyItem& item) {
    const bool not_tried = item.state == ItemState::kFailed && item.attempts == 0;
    return item.by_name && (not_tried || item.state == ItemState::kGoesOn);
  }));
}

void print_summary(Session& session, const CopyPlan& plan, const CopyTotals& totals) {
  const Output& out = session.out();
  const Tally tally = tally_of(plan);
  const std::size_t refused = refused_of(plan);
  const std::size_t going_on = going_on_of(plan);
  const std::size_t names_alone = names_alone_of(plan);
  out.line(fmt::format(
      "{} listed: {} copied and proven, {} already there, {} refused, {} failed{}; {} in {}",
      counted(plan.items.size(), names_alone > 0 ? "name" : "extent"), tally.done,
      tally.already_there, refused, tally.failed - refused,
      going_on > 0 ? fmt::format(", {} going on", going_on) : "", exact_bytes(totals.bytes),
      pace_text(totals.bytes, totals.seconds)));
  if (names_alone > 0) {
    out.line(fmt::format("{} of these names nobody has looked at: some may have no extent",
                         names_alone));
  }
  if (tally.done > 0) {
    out.line(session.options().deep
                 ? "proven: every block's SHA-256, length and crc32, of what the target has stored"
                 : "proven: length and crc32, computed at both ends, are the sealed header's; "
                   "--deep checks every block's SHA-256");
  }
  if (totals.transfers.empty()) return;
  std::string endpoints;
  for (const std::string& endpoint : totals.data_endpoints) {
    endpoints += (endpoints.empty() ? "" : ", ") + endpoint;
  }
  const std::string transfers = counted(totals.transfers.size(), "transfer");
  if (!totals.accounts_complete) {
    out.line(fmt::format(
        "{}; data ports: {}; what went over the wire is not known: a target's account is missing",
        transfers, endpoints.empty() ? "not known" : endpoints));
    return;
  }
  out.line(fmt::format("{}; data ports: {}; {} on the data lanes, {} on gRPC; {}, {}", transfers,
                       endpoints.empty() ? "none" : endpoints, counted(totals.lane_bytes, "byte"),
                       totals.rpc_bytes,
                       counted(totals.rejected_connections, "rejected connection"),
                       counted(totals.fallback_parts, "fallback part")));
}

// What Ctrl-C leaves running.
void note_going_on(Session& session, const CopyTotals& totals) {
  for (const auto& [id, where] : totals.going_on) {
    const std::string words = id + " " + shell_word(where);
    session.meter().note(fmt::format("siphon: transfer {} goes on at its target\nnext: {}, or {}",
                                     id, session.command("watch " + words, Role::kTarget),
                                     session.command("cancel " + words, Role::kTarget)));
  }
}

// Sources that a move would trash, if all went well.
bool would_go(const CopyItem& item) {
  if (item.stays) return false;
  return item.state == ItemState::kPending || item.state == ItemState::kAlreadyThere;
}

// Their sources would stay, as the target's placement groups are now.
void look_at_redundancy(Session& session, CopyPlan& plan) {
  if (session.options().accept_degraded) return;
  std::vector<std::size_t> items;
  std::vector<Address> targets;
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    if (!would_go(plan.items[i])) continue;
    items.push_back(i);
    targets.push_back(plan.items[i].target);
  }
  for (const auto& [i, why] : not_yet_safe(session, targets)) {
    CopyItem& item = plan.items[items[i]];
    item.stays = why.with_context("the source would stay: " + item.source.to_string());
  }
}

// What there would be to do is done, as far as a plan can say.
Exit exit_of_plan(const CopyPlan& plan, bool is_move) {
  if (plan.items.empty()) return Exit::kNothingToDo;
  Tally tally;
  for (const CopyItem& item : plan.items) {
    if (const Error* problem = problem_of(item)) {
      tally.fail(*problem);
    } else if (is_move || item.state == ItemState::kPending) {
      ++tally.done;
    } else {
      ++tally.already_there;
    }
  }
  return exit_for(tally);
}

std::string plan_of(const CopyItem& item, bool is_move) {
  std::string text =
      item.state == ItemState::kPending ? "copy" : std::string(to_string(item.state));
  if (is_move && would_go(item)) text += ", then trash the source";
  if (item.stays) text += ", the source stays";
  if (item.not_looked) text += " (not looked at)";
  return text;
}

// What this plan could not know, which the devices will.
void note_not_looked(Session& session, const CopyPlan& plan) {
  const auto unseen = [](const CopyItem& item) {
    return item.not_looked && item.state == ItemState::kPending;
  };
  const auto first = std::ranges::find_if(plan.items, unseen);
  if (first == plan.items.end()) return;
  const auto count = static_cast<std::size_t>(std::ranges::count_if(plan.items, unseen));
  session.meter().note(fmt::format(
      "siphon: {} not looked at from here; the devices look when it is done in "
      "earnest. {}: {}",
      counted(count, "extent"), first->source.to_string(), error_text(*first->not_looked)));
}

Result<int> show_plan(Session& session, CopyPlan& plan, bool is_move) {
  CopyRouter router(session);
  const std::vector<CopyGroup> groups = router.route(plan);
  if (session.interrupted())
    return fail(Session::interrupted_error("interrupted: no plan was made"));
  if (is_move) look_at_redundancy(session, plan);
  const auto pending = static_cast<std::size_t>(
      std::ranges::count(plan.items, ItemState::kPending, &CopyItem::state));
  const auto going = static_cast<std::size_t>(std::ranges::count_if(plan.items, would_go));
  const Exit exit = session.exit_of_listed(exit_of_plan(plan, is_move));
  const std::optional<std::uint64_t> bytes = pending_bytes(plan);
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["dry_run"] = true;
    doc["extents"] = nullptr;
    doc["unlisted"] = session.unlisted();
    if (is_move) {
      doc["would_trash"] = Json::array();
      for (const CopyItem& item : plan.items) {
        if (would_go(item)) doc["would_trash"].push_back(item.source.to_string());
      }
    }
    doc["transfers"] = groups.size();
    doc["total_bytes"] = bytes ? Json(*bytes) : Json();
    session.out().document(std::move(doc), exit, rows_of(plan));
  } else {
    Table table({{"EXTENT"}, {"TARGET"}, {"BYTES", true}, {"DEVICES"}, {"PLAN"}});
    for (const CopyItem& item : plan.items) {
      table.add({item.source.to_string(), item.target.to_string(),
                 item.info ? std::to_string(item.bytes()) : "-", way(item),
                 plan_of(item, is_move)});
    }
    session.out().table(table);
    session.out().line(fmt::format("would copy {}, {}, in {}; nothing was changed",
                                   counted(pending, "extent"),
                                   bytes ? human_bytes(*bytes) : "of a size not known here",
                                   counted(groups.size(), "transfer")));
    if (is_move) {
      session.out().line(fmt::format("would then verify both ends of {0} and trash the source",
                                     counted(going, "extent")));
    }
  }
  print_errors(session, plan);
  note_not_looked(session, plan);
  return static_cast<int>(exit);
}

Error the_two_differ(const CopyItem& item) {
  return {Code::kDataLoss, "the two ends differ", Side::kNone,
          "siphon verify " + shell_word(item.source.to_string()) + " " +
              shell_word(item.target.to_string())};
}

Error one_and_the_same(const CopyItem& item) {
  return {Code::kInvalidArgument,
          item.target.to_string() +
              " has the source's own private id: it is the source under another name, or a clone "
              "of its objects, and no copy that Siphon has made",
          Side::kRequester, "name another target", Reason::kSameThing};
}

// Which stores the ends of a move are, found out again after the copy.
struct EndsNow {
  Session& session;
  Mutex mutex;
  std::map<std::pair<Role, Location>, StoreIdentity> known SIPHON_GUARDED_BY(mutex);

  Result<StoreIdentity> of(Role role, const Address& address) {
    if (address.where != Where::kCeph) return identify(session, role, address);
    const MutexLock lock(mutex);
    auto found = known.find({role, address.location});
    if (found == known.end()) {
      auto store = identify(session, role, address);
      if (!store) return store;
      found = known.emplace(std::pair(role, address.location), std::move(*store)).first;
    }
    return found->second;
  }
};

Error no_longer_what_was_verified(const Address& address, Side side) {
  return {Code::kAborted, address.to_string() + " is no longer what was verified", side,
          "look at it, then run the same command again", Reason::kSourceChanged};
}

// What stands under the name, seen once more: sealed still, and what was verified a moment ago.
Result<ExtentInfo> look_again(Session& session, Role role, const Address& address,
                              const Verified& verified) {
  const Side side = role == Role::kSource ? Side::kSource : Side::kTarget;
  auto store = session.store(address, role);
  if (!store) return fail(std::move(store).error().with_suspect(side));
  auto info = (*store)->stat(address.extent);
  if (!info) return fail(std::move(info).error().with_suspect(side));
  const bool same_digest = !info->header.has_digest() || !verified.outcome.header.has_digest() ||
                           same_content(info->header, verified.outcome.header);
  if (info->state == ExtentState::kSealed && info->private_id == verified.outcome.private_id &&
      same_digest) {
    return info;
  }
  return fail(no_longer_what_was_verified(address, side));
}

// Who may not list the target has its device's word, of a moment ago; so has a move to a daemon,
// which is asked again once its sources are in the trash (look_again_at_daemons).
Status copy_is_still_there(Session& session, const CopyItem& item, const Verified& verified) {
  if (item.target.where != Where::kCeph) return {};
  const auto there = look_again(session, Role::kTarget, item.target, verified);
  if (!there && there.error().code != Code::kPermissionDenied) return fail(there.error());
  return {};
}

// The last step before a source goes: neither end has changed since it was verified, both pools are
// those of the plan, and the copy is not the source itself. The source as it is, for the trash
// step, which refuses any other.
Result<ExtentInfo> may_be_trashed(Session& session, const CopyItem& item, const Verified& left,
                                  const Verified& right, EndsNow& ends) {
  if (!left.outcome.status) {
    return fail(Error(left.outcome.status.error()).with_suspect(Side::kSource));
  }
  if (!right.outcome.status) {
    return fail(Error(right.outcome.status.error()).with_suspect(Side::kTarget));
  }
  if (!same_content(left.outcome, right.outcome)) return fail(the_two_differ(item));
  auto source = ends.of(Role::kSource, item.source);
  if (!source) return fail(std::move(source).error().with_suspect(Side::kSource));
  auto target = ends.of(Role::kTarget, item.target);
  if (!target) return fail(std::move(target).error().with_suspect(Side::kTarget));
  // A private id is drawn for one generation of one extent: two ends that share it are one, even
  // where nobody could see that their pools are.
  if ((item.source.extent == item.target.extent && source->same_as(*target)) ||
      left.outcome.private_id == right.outcome.private_id) {
    return fail(one_and_the_same(item));
  }
  SIPHON_TRY(copy_is_still_there(session, item, right));
  return look_again(session, Role::kSource, item.source, left);
}

// Whether the copy is at its target, for all that is known, though its source could not go.
bool copy_is_there(const Error& why) {
  if (why.reason == Reason::kSameThing) return false;  // it is the source itself
  if (why.suspect == Side::kSource || why.suspect == Side::kRequester) return true;
  const bool is_no_copy = why.code == Code::kNotFound || why.code == Code::kDataLoss ||
                          why.code == Code::kAborted || why.code == Code::kFailedPrecondition;
  return !is_no_copy || why.reason == Reason::kDegraded;
}

void keep_source(CopyItem& item, Error why) {
  const std::string stays = "the source stays: " + item.source.to_string();
  if (copy_is_there(why)) {
    item.stays = std::move(why).with_context(stays + " (" + item.target.to_string() + " is there)");
  } else {
    item.fail_with(std::move(why).with_context(stays));
  }
}

// A source that is in the trash comes back: its copy cannot be seen any more.
void bring_back(Session& session, CopyItem& item, const Verified& left, Error why) {
  auto store = session.store(item.source, Role::kSource);
  const Status back = store ? (*store)->restore(item.source.extent, left.outcome.private_id)
                            : Status(fail(store.error()));
  if (back) {
    return item.fail_with(
        std::move(why).with_context("the source stays: " + item.source.to_string()));
  }
  item.fail_with(std::move(why).with_context(
      "the source is in the trash, and could not be brought back (" + back.error().message + "); " +
      session.command("trash restore " + shell_word(item.source.to_string()), Role::kSource)));
}

// A folder's daemon has one way to say what it holds: it reads it. So a copy at one is read once
// more after its source has gone, all of them in as few calls as there are daemons. Of `trashed`
// (indices into `items`) those stay whose copies are still what was verified before.
void look_again_at_daemons(Session& session, CopyPlan& plan, const std::vector<std::size_t>& items,
                           const std::vector<Verified>& left, const std::vector<Verified>& right,
                           std::vector<std::size_t>& trashed) {
  std::vector<std::size_t> asked;
  std::vector<Address> targets;
  for (const std::size_t i : trashed) {
    const CopyItem& item = plan.items[items[i]];
    if (item.target.where != Where::kDaemon) continue;
    asked.push_back(i);
    targets.push_back(item.target);
  }
  if (asked.empty()) return;
  const auto now = verify_all(session, {{Role::kTarget, targets, {}}}).front();
  for (std::size_t k = 0; k < asked.size(); ++k) {
    const std::size_t i = asked[k];
    const VerifyOutcome& outcome = now[k].outcome;
    if (outcome.status && outcome.private_id == right[i].outcome.private_id &&
        same_content(outcome, right[i].outcome)) {
      continue;
    }
    Error why = outcome.status ? no_longer_what_was_verified(targets[k], Side::kTarget)
                               : Error(outcome.status.error()).with_suspect(Side::kTarget);
    bring_back(session, plan.items[items[i]], left[i], std::move(why));
    std::erase(trashed, i);
  }
}

// The last step of a move: verify both ends anew, then trash at the source what is proven.
void trash_sources(Session& session, CopyPlan& plan, std::vector<std::size_t>& trashed) {
  std::vector<std::size_t> items;
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    const CopyItem& item = plan.items[i];
    if (item.state != ItemState::kCopied && item.state != ItemState::kAlreadyThere) continue;
    if (!item.stays) items.push_back(i);
  }
  if (session.interrupted()) {
    for (const std::size_t i : items) {
      keep_source(plan.items[i], Session::interrupted_error("interrupted"));
    }
    return;
  }
  const BothEnds ends_now = verify_both_ends(session, plan, items);
  const std::vector<Verified>&left = ends_now.source, &right = ends_now.target;
  std::vector<Address> targets;
  for (const std::size_t i : items) targets.push_back(plan.items[i].target);
  const auto unsafe = session.options().accept_degraded ? std::map<std::size_t, Error>{}
                                                        : not_yet_safe(session, targets);
  EndsNow ends{session, {}, {}};
  Mutex mutex;  // trashed
  run_parallel(items.size(), kLookThreads, [&](std::size_t i) {
    CopyItem& item = plan.items[items[i]];
    const auto refuse = [&](Error error) { keep_source(item, std::move(error)); };
    if (session.interrupted()) return refuse(Session::interrupted_error("interrupted"));
    const auto seen = may_be_trashed(session, item, left[i], right[i], ends);
    if (!seen) return refuse(seen.error());
    if (const auto found = unsafe.find(i); found != unsafe.end()) return refuse(found->second);
    auto store = session.store(item.source, Role::kSource);
    Status gone = store ? (*store)->trash(item.source.extent, *seen) : Status(fail(store.error()));
    if (!gone && gone.error().code == Code::kResourceExhausted) {  // so much is kept of the name
      gone = (*store)->make_room(item.source.extent, true, [&](const TrashEntry& entry) {
        item.source_left_for_good.push_back(entry);
      });
      if (gone) gone = (*store)->trash(item.source.extent, *seen);
    }
    if (!gone) return refuse(std::move(gone).error().with_suspect(Side::kSource));
    // Somebody may have moved the copy the other way meanwhile. Everybody trashes first and looks
    // afterwards, so whoever is the last one sees that nothing would be left.
    if (Status kept = copy_is_still_there(session, item, right[i]); !kept) {
      return bring_back(session, item, left[i], std::move(kept).error());
    }
    const MutexLock lock(mutex);
    trashed.push_back(i);
  });
  look_again_at_daemons(session, plan, items, left, right, trashed);
  for (std::size_t& i : trashed) i = items[i];
  std::ranges::sort(trashed);
}

// What a store that was to be moved as a whole still has; of a pool, all of it or one namespace.
struct StoreLeft {
  Address store;
  Result<std::size_t> extents = 0;
};
Json to_json(const StoreLeft& left) {
  return Json{{"store", left.store.store()},
              {"namespace", left.store.all_namespaces ? Json() : Json(left.store.location.nspace)},
              {"extents", left.extents ? Json(*left.extents) : Json()},
              {"problem", left.extents ? Json() : to_json(left.extents.error())}};
}
std::string text_of(const StoreLeft& left) {
  std::string name = left.store.store();
  if (!left.store.all_namespaces && left.store.location.nspace.empty()) {
    name = "the default namespace of " + name;
  }
  if (!left.extents) {
    return name +
           ": whether it is empty of extents now cannot be seen: " + left.extents.error().message;
  }
  if (*left.extents == 0) return name + " is empty of extents now";
  return name + " still has " + counted(*left.extents, "extent");
}

std::vector<StoreLeft> what_is_left(Session& session, const CopyPlan& plan) {
  // What could not be listed a moment ago is not waited for again.
  const auto count_extents = [&session](const Address& store) -> Result<std::size_t> {
    if (session.listed_all()) {
      auto listed = list_store(session, Role::kSource, store);
      if (!listed) return fail(std::move(listed).error());
      if (session.listed_all()) return listed->size();
    }
    return fail(Code::kUnavailable, "not all of it could be listed");
  };
  std::vector<StoreLeft> stores;
  for (const Address& source : plan.whole_sources) {
    stores.push_back({source, count_extents(source)});
  }
  return stores;
}

Result<int> finish(Session& session, const CopyPlan& plan, const CopyTotals& totals,
                   const std::vector<std::size_t>* trashed) {
  Exit exit = exit_of(session, plan);
  // What was there already has made its source go: that was something to do.
  if (exit == Exit::kNothingToDo && trashed != nullptr && !trashed->empty()) exit = Exit::kOk;
  const std::vector<StoreLeft> left =
      trashed != nullptr ? what_is_left(session, plan) : std::vector<StoreLeft>{};
  // What was asked for was not all done: the copies are there, their records are not.
  const bool unrecorded = totals.receipts_lost > 0;
  if (unrecorded && exit != Exit::kInterrupted) exit = Exit::kPartial;
  exit = session.exit_of_listed(exit);
  const Output& out = session.out();
  if (session.out().json()) {
    Json doc = session.out().new_document();
    doc["dry_run"] = false;
    doc["extents"] = nullptr;
    doc["unlisted"] = session.unlisted();
    if (trashed != nullptr) {
      doc["trashed_sources"] = Json::array();
      for (const std::size_t i : *trashed) {
        doc["trashed_sources"].push_back(plan.items[i].source.to_string());
      }
      doc["sources_left"] = Json::array();
      for (const StoreLeft& store : left) doc["sources_left"].push_back(to_json(store));
    }
    doc["summary"] = to_json(totals);
    if (trashed != nullptr) doc["summary"]["sources_staying"] = stays_of(plan);
    doc["summary"]["blocks_checked"] = session.options().deep;
    const Tally tally = tally_of(plan);
    doc["summary"]["listed"] = plan.items.size();
    doc["summary"]["copied"] = tally.done;
    doc["summary"]["already_there"] = tally.already_there;
    doc["summary"]["refused"] = refused_of(plan);
    doc["summary"]["failed"] = tally.failed - refused_of(plan);
    doc["summary"]["going_on"] = going_on_of(plan);
    doc["summary"]["names_alone"] = names_alone_of(plan);
    doc["going_on"] = Json::array();
    for (const auto& transfer : totals.going_on) doc["going_on"].push_back(transfer.id);
    session.out().document(std::move(doc), exit, rows_of(plan));
  } else {
    print_table(out, plan);
    print_summary(session, plan, totals);
    if (trashed != nullptr) {
      const std::size_t stays = stays_of(plan);
      std::string text = counted(trashed->size(), "source") + " now in the trash";
      if (stays == 1) text += "; 1 source stays, its copy is at the target";
      if (stays > 1)
        text += fmt::format("; {} sources stay, their copies are at the target", stays);
      out.line(text);
      for (const StoreLeft& store : left) out.line(text_of(store));
    }
  }
  print_gone(session, plan);
  print_errors(session, plan);
  note_going_on(session, totals);
  return static_cast<int>(exit);
}

// A pool without the tag, or read-only, is the cluster's fault and not an extent's.
Result<int> plan_failed(Session& session, const Error& error) {
  if (error.code == Code::kFailedPrecondition && error.reason == Reason::kNone)
    return session.out().error(error, Exit::kNotFit);
  return fail(error);
}

}  // namespace

Result<int> run_copy(Session& session) {
  if (session.options().replace) {
    if (const auto refused = session.refused("replacing extents at the target")) return *refused;
  }
  auto plan = plan_copy(session, /*look_at_all=*/session.options().dry_run);
  if (!plan) return plan_failed(session, plan.error());
  if (session.options().dry_run) return show_plan(session, *plan, /*is_move=*/false);
  CopyRun run(session, *plan);
  auto totals = run.run();
  if (!totals) return fail(std::move(totals).error());
  return finish(session, *plan, *totals, nullptr);
}

Result<int> run_move(Session& session) {
  if (const auto refused = session.refused("removing the sources after a verified copy")) {
    return *refused;
  }
  auto plan = plan_copy(session, /*look_at_all=*/true);
  if (!plan) return plan_failed(session, plan.error());
  for (CopyItem& item : plan->items) {
    const bool seen = item.info && item.source.where == Where::kCeph;
    if (item.state == ItemState::kFailed || seen) continue;
    item.fail_with({Code::kPermissionDenied,
                    "a move must see and trash the source, and this client may not (or it is a "
                    "folder's daemon)",
                    Side::kRequester, "copy, verify, then rm with the right key"});
  }
  if (session.options().dry_run) return show_plan(session, *plan, /*is_move=*/true);
  CopyRun run(session, *plan);
  auto totals = run.run();
  if (!totals) return fail(std::move(totals).error());
  for (CopyItem& item : plan->items) {
    if (!item.receipt_lost) continue;
    keep_source(
        item, {Code::kInternal, "its receipt could not be written (" + totals->receipts_error + ")",
               Side::kRequester, "make room for the receipts, and run the same command again"});
  }
  std::vector<std::size_t> trashed;
  trash_sources(session, *plan, trashed);
  return finish(session, *plan, *totals, &trashed);
}

}  // namespace siphon::cli
