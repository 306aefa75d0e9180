#include "plugin/cli/copy_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <future>

#include "adapters/posix/folder.h"
#include "plugin/base/text.h"
#include "plugin/cli/bottleneck.h"
#include "plugin/cli/commands.h"
#include "plugin/cli/verify.h"

namespace siphon::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint32_t kMaxAttempts = 3;
constexpr int kMaxRejoins = 5;
constexpr seconds kMaxBusyWait{600};
constexpr seconds kMaxBackoff{15};

bool is_busy(const Error& error) { return error.reason == Reason::kBusy; }

// A grant is gone when its OSD has been started again, and is elsewhere when the primary has moved
// between hello and grant: another round looks the devices up and asks for new ones.
bool may_try_again(const Error& error) {
  return is_retryable(error.code) || error.reason == Reason::kGrantUnknown;
}

// A call that ended so: whatever the transfer has done until then, or does still, was not told.
bool may_have_run(const Error& error) {
  return error.code == Code::kUnavailable || error.code == Code::kDeadlineExceeded ||
         error.code == Code::kCancelled;
}

// Without checksums: nothing was read for it.
Receipt receipt_of_what_is_there(const CopyItem& item, const SealedHeader& header) {
  Receipt there;
  there.source_extent = item.source.extent;
  there.target_extent = item.target.extent;
  there.source = item.source.location;
  there.target = item.target.location;
  there.header = header;
  there.bytes = header.extent_bytes;
  there.finished_unix_ms = there.started_unix_ms = now_unix_ms();
  there.attempts = 0;
  there.already_there = true;
  return there;
}

}  // namespace

CopyRun::CopyRun(Session& session, CopyPlan& plan)
    : session_(session), plan_(plan), router_(session) {}

CopyRun::~CopyRun() = default;

void CopyRun::write_receipt(CopyItem& item) {
  if (!receipts_.is_open() || !item.receipt) return;
  const std::string line = receipt_json(item).dump(-1, ' ', false, Json::error_handler_t::replace);
  item.receipt_lost = !receipts_.write(line);
}

// What is there already has its line, too; then everything is on the disk, or counted as lost.
void CopyRun::keep_receipts() {
  const MutexLock lock(mutex_);
  if (!receipts_.is_open()) return;
  for (CopyItem& item : plan_.items) {
    if (item.state != ItemState::kAlreadyThere) continue;
    if (!item.receipt && item.info)
      item.receipt = receipt_of_what_is_there(item, item.info->header);
    write_receipt(item);
  }
  const bool synced = receipts_.sync();
  const bool safe = receipts_.close() && synced;
  for (CopyItem& item : plan_.items) {
    const bool has_one = item.state == ItemState::kCopied || item.state == ItemState::kAlreadyThere;
    if (!safe || !item.receipt) item.receipt_lost = has_one;
    totals_.receipts_lost += item.receipt_lost;
  }
  if (totals_.receipts_lost == 0) return;
  if (receipts_.error()) totals_.receipts_error = receipts_.error()->message;
  const std::vector<std::string>& names = session_.options().names;
  const std::string both =
      names.size() == 2 ? shell_word(names[0]) + " " + shell_word(names[1]) : "SOURCE TARGET";
  session_.meter().note(fmt::format(
      "siphon: {} could not be written: {}; what was copied is at its target and proven\n"
      "next: make room, then: {}",
      counted(totals_.receipts_lost, "receipt"), totals_.receipts_error,
      session_.command("verify " + both)));
}

const std::string& CopyRun::transfer_id_of(const CopyGroup& group) {
  const CopyItem& first = plan_.items[group.items.front()];
  const MutexLock lock(mutex_);
  std::string& id = ids_[{group.source.name + fmt::format("#{}", group.number), group.target.name,
                          first.source.location, first.target.location}];
  if (id.empty()) id = new_transfer_id();
  return id;
}

Result<CopyTotals> CopyRun::run() {
  if (const std::string& path = session_.options().receipts; !path.empty()) {
    if (path != "-") SIPHON_TRY(posix::check_outside_of_stores(path));
    const MutexLock lock(mutex_);
    SIPHON_TRY(receipts_.open(path));
    if (path == "-") session_.out().data_on_stdout();
  }
  const auto start = std::chrono::steady_clock::now();
  for (std::uint32_t round = 0; !session_.interrupted(); ++round) {
    const std::vector<CopyGroup> groups = router_.route(plan_);
    const std::uint32_t at_once = transfers_at_once(groups.size());
    run_parallel(groups.size(), at_once, [&](std::size_t i) { run_group(i, groups[i]); });
    std::string reason;
    // Rounds are counted, too: an item whose device cannot be found is not attempted.
    const std::size_t again = round + 1 < kMaxAttempts ? requeue_retryable(reason) : 0;
    if (again == 0) break;
    router_.forget();
    session_.meter().note(
        fmt::format("siphon: trying {} again: {}", counted(again, "extent"), escaped(reason)));
    if (!session_.wait(seconds(1u << std::min(round, 4u)))) break;
  }
  for (CopyItem& item : plan_.items) {
    if (item.state != ItemState::kPending) continue;
    if (item.attempts > 0) {
      item.state = ItemState::kFailed;  // as its last try did
    } else {
      item.fail_with({Code::kCancelled, "not started: interrupted", Side::kRequester,
                      "run the same command again"});
    }
  }
  check_already_there();
  session_.meter().settle(progress_of_all());  // the total that was shown all along
  drop_gone();
  keep_receipts();
  const MutexLock lock(mutex_);
  for (const CopyItem& item : plan_.items) {
    if (item.state == ItemState::kCopied && item.receipt) totals_.bytes += item.receipt->bytes;
  }
  totals_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const bool complete =
      std::all_of(plan_.items.begin(), plan_.items.end(), [](const CopyItem& item) {
        return item.state == ItemState::kCopied || item.state == ItemState::kAlreadyThere;
      });
  session_.meter().finish(complete);
  return totals_;
}

// --bwlimit is the whole command's: its transfers have equal shares, none less than the least rate.
std::uint32_t CopyRun::transfers_at_once(std::size_t groups) {
  const Options& options = session_.options();
  std::uint64_t at_once = std::min<std::uint64_t>(options.max_transfers, std::max(groups, 1ul));
  share_bytes_per_second_ = 0;
  if (options.bwlimit == 0) return static_cast<std::uint32_t>(at_once);
  at_once = std::clamp<std::uint64_t>(options.bwlimit / kLeastBytesPerSecond, 1, at_once);
  share_bytes_per_second_ = options.bwlimit / at_once;
  return static_cast<std::uint32_t>(at_once);
}

// Failed items that another attempt may mend become pending again; returns how many, and why the
// first of them failed.
std::size_t CopyRun::requeue_retryable(std::string& reason) {
  std::size_t count = 0;
  const MutexLock lock(mutex_);
  for (CopyItem& item : plan_.items) {
    if (item.state != ItemState::kFailed || !may_try_again(item.error) || item.attempts == 0 ||
        item.attempts >= kMaxAttempts || session_.interrupted()) {
      continue;
    }
    item.state = ItemState::kPending;
    ++totals_.retried;
    if (count++ == 0) reason = item.error.message;
  }
  return count;
}

void CopyRun::run_group(std::size_t slot, const CopyGroup& group) {
  const auto until = std::chrono::steady_clock::now() + kMaxBusyWait;
  milliseconds backoff{500};
  bool said = false;
  Authority authority;  // kept from turn to turn: each new grant takes a place at both devices
  while (!session_.interrupted()) {
    if (run_transfer(slot, group, authority) == Ended::kDone) return;
    if (std::chrono::steady_clock::now() > until) return;
    {
      const MutexLock lock(mutex_);
      for (const std::size_t i : group.items) {
        CopyItem& item = plan_.items[i];
        if (item.state == ItemState::kFailed && is_busy(item.error)) {
          item.state = ItemState::kPending;
          --item.attempts;  // it was not tried, it was turned away
        }
      }
    }
    if (!said) {
      session_.meter().note(fmt::format("siphon: {} -> {}: busy; waiting for a turn",
                                        group.source.name, group.target.name));
    }
    said = true;
    if (!session_.wait(backoff)) return;
    backoff = std::min<milliseconds>(backoff * 2, kMaxBackoff);
  }
}

Status CopyRun::authorise(const CopyGroup& group, Authority& authority) {
  const CopyItem& first = plan_.items[group.items.front()];
  auto grant = [&](Role role, const Address& address, exchange::Right right,
                   std::optional<Nonce>& nonce) -> Status {
    if (address.where != Where::kCeph) return {};
    auto cluster = session_.cluster(role);
    if (!cluster) return fail(std::move(cluster).error());
    Status granted = request_grant(**cluster, address.location, address.extent, right, nonce);
    if (granted) return {};
    Error error = std::move(granted).error();
    if (error.code == Code::kPermissionDenied) {
      error.next_step = caps_command((*cluster)->name(), first.source, first.target);
    }
    if (error.reason == Reason::kLayout) {
      error.suspect = role == Role::kSource ? Side::kSource : Side::kTarget;
    }
    return fail(std::move(error));
  };
  // A grant is answered when a placement group's log has been written: both at once.
  auto to_read = std::async([&] {
    return grant(Role::kSource, first.source, exchange::Right::kRead, authority.read_nonce);
  });
  Status to_write =
      grant(Role::kTarget, first.target, exchange::Right::kWrite, authority.write_nonce);
  SIPHON_TRY(to_read.get());
  return to_write;
}

CopyRun::Ended CopyRun::run_transfer(std::size_t slot, const CopyGroup& group,
                                     Authority& authority) {
  Pending pending;
  TransferSpec spec;
  {
    const MutexLock lock(mutex_);
    for (const std::size_t i : group.items) {
      CopyItem& item = plan_.items[i];
      if (item.state != ItemState::kPending) continue;
      ++item.attempts;
      spec.attempt = std::max(spec.attempt, item.attempts);
      pending.emplace(item.target.extent, i);
      spec.extents.push_back({item.source.extent, item.target.extent, item.bytes()});
    }
    if (pending.empty()) return Ended::kDone;
    slots_[slot] = {{}, group.source.name, group.target.name};
  }
  const Options& options = session_.options();
  const CopyItem& first = plan_.items[pending.begin()->second];
  spec.id = transfer_id_of(group);
  spec.source_address = group.source.address;
  spec.source = first.source.location;
  spec.target = first.target.location;
  spec.replace = options.replace;
  spec.check_blocks = options.deep;
  spec.lanes = static_cast<std::uint16_t>(options.lanes);
  spec.bytes_per_second = share_bytes_per_second_;

  Result<Summary> result;
  auto connecting = std::async([&] { return session_.device(group.target.address); });
  Status ready = authorise(group, authority);
  spec.authority = authority;
  auto granted_at = std::chrono::steady_clock::now();
  auto client = connecting.get();
  if (!client) ready = fail(client.error());
  if (!ready) {
    result = fail(ready.error());
  } else {
    const auto on_event = [&](const rpc::TransferEvent& event) {
      // It may wait in the target's queue for longer than a grant lasts.
      if (std::chrono::steady_clock::now() - granted_at > kGrantRenewal) {
        (void)authorise(group, authority);  // without it the transfer says what it lacks
        granted_at = std::chrono::steady_clock::now();
      }
      if (const auto* progress = std::get_if<Progress>(&event)) show(slot, *progress);
      if (const auto* outcome = std::get_if<ExtentOutcome>(&event)) on_outcome(*outcome, pending);
    };
    result = (*client)->transfer(spec, on_event);
    if (!result && result.error().code == Code::kUnavailable && !is_busy(result.error())) {
      result = rejoin(group, spec, result.error(), on_event);
    }
  }
  return settle(slot, group, pending, spec, result, ready.has_value());
}

Result<Summary> CopyRun::rejoin(const CopyGroup& group, TransferSpec& spec, Error broken,
                                const std::function<void(const rpc::TransferEvent&)>& on_event) {
  for (int i = 0; i < kMaxRejoins && session_.wait(seconds(1)); ++i) {
    auto client = session_.device(group.target.address);
    if (!client) continue;
    (void)authorise(group, spec.authority);  // what it had may be good still
    bool is_there = false;
    auto result = (*client)->watch(spec.id, spec.authority, [&](const rpc::TransferEvent& event) {
      is_there = true;
      on_event(event);
    });
    if (result || (is_there && result.error().code == Code::kCancelled)) return result;
    if (result.error().code == Code::kNotFound) break;  // it was never begun, or is long over
  }
  if (!session_.interrupted()) return fail(std::move(broken));
  const Address& target = plan_.items[group.items.front()].target;
  return fail(std::move(broken)
                  .with_context("interrupted; transfer " + spec.id +
                                " was at its target, and whether it goes on is not known")
                  .with_suspect(Side::kTarget)
                  .with_next_step(session_.command(
                      "watch " + spec.id + " " + shell_word(target.store() + "/"), Role::kTarget)));
}

void CopyRun::on_outcome(const ExtentOutcome& outcome, const Pending& pending) {
  const MutexLock lock(mutex_);
  const auto it = pending.find(outcome.target_extent);
  if (it == pending.end()) return;
  CopyItem& item = plan_.items[it->second];
  if (item.source.extent != outcome.source_extent) return;
  if (item.state != ItemState::kPending) return;  // a second telling, after a rejoin
  const std::vector<TrashEntry>& gone = outcome.all_left_for_good();
  item.left_for_good.insert(item.left_for_good.end(), gone.begin(), gone.end());
  if (!outcome.result) {
    item.fail_with(outcome.result.error());
    if (item.error.code == Code::kDataLoss && item.error.suspect == Side::kSource) {
      // The device does not know by which words its extent is found from here.
      item.error.next_step =
          session_.command("verify " + shell_word(item.source.to_string()), Role::kSource) +
          ", and bring it back from another copy";
    }
    const bool gone = item.error.code == Code::kNotFound && item.error.suspect == Side::kSource;
    if (item.by_name && gone) item.state = ItemState::kGone;
    return;
  }
  item.receipt = *outcome.result;
  item.receipt->attempts = item.attempts;
  if (session_.options().deep && !item.receipt->already_there && !item.receipt->blocks_checked) {
    // The request's field is unknown there.
    return item.fail_with(
        {Code::kUnimplemented,
         item.receipt->target_device +
             " published it without a look at its blocks: its daemon is of an "
             "older release, which has no --deep",
         Side::kTarget,
         session_.command("verify " + shell_word(item.target.to_string()), Role::kTarget) +
             ", and upgrade that daemon"});
  }
  item.state = item.receipt->already_there ? ItemState::kAlreadyThere : ItemState::kCopied;
  // What is there already may still be read at both ends (--check), and found damaged.
  if (item.state == ItemState::kCopied) write_receipt(item);
}

CopyRun::Ended CopyRun::settle(std::size_t slot, const CopyGroup& group, const Pending& pending,
                               const TransferSpec& spec, const Result<Summary>& result,
                               bool asked) {
  const bool not_asked = !result && result.error().reason == Reason::kNotAsked;
  const bool stopped = !result && result.error().code == Code::kCancelled;
  Error reason{Code::kInternal, group.target.name + " said nothing of this extent", Side::kTarget,
               ""};
  if (!result) reason = result.error();
  if (result && !result->status) reason = result->status.error();
  bool busy = is_busy(reason);
  bool goes_on = false;
  const MutexLock lock(mutex_);
  slots_.erase(slot);
  if (not_asked) {  // they stay pending, which is "not started" in the end
    for (const auto& [name, i] : pending) --plan_.items[i].attempts;
    return Ended::kDone;
  }
  if (asked) totals_.transfers.insert(spec.id);
  for (const auto& [name, i] : pending) {
    CopyItem& item = plan_.items[i];
    item.transfer_id = spec.id;
    if (item.state == ItemState::kPending) {
      if (stopped)
        item.state = ItemState::kGoesOn;
      else
        item.fail_with(reason);
      goes_on = goes_on || stopped;
    }
    busy = busy || (item.state == ItemState::kFailed && is_busy(item.error));
    if (item.state == ItemState::kCopied) settled_bytes_ += item.receipt->bytes;
  }
  if (goes_on) {
    const Address& target = plan_.items[pending.begin()->second].target;
    totals_.going_on.push_back({spec.id, target.store() + "/"});
  }
  if (result) {
    totals_.lane_bytes += result->lane_bytes;
    totals_.rpc_bytes += result->rpc_bytes;
    totals_.rejected_connections += result->rejected_connections;
    totals_.fallback_parts += result->fallback_parts;
    if (!result->data_endpoint.empty()) totals_.data_endpoints.insert(result->data_endpoint);
  } else if (asked && !busy && may_have_run(result.error())) {
    totals_.accounts_complete = false;
  }
  return busy ? Ended::kBusy : Ended::kDone;
}

// A name that was listed and has no extent behind it is nothing to copy, and no failure. Looked at
// once more: its pool may have gone, or another extent may have its name by now.
void CopyRun::drop_gone() {
  const auto is_gone = [](const CopyItem& item) { return item.state == ItemState::kGone; };
  if (std::ranges::none_of(plan_.items, is_gone)) return;
  auto cluster = session_.cluster(Role::kSource);
  const Status fresh = cluster ? (*cluster)->refresh() : Status(fail(cluster.error()));
  run_parallel(plan_.items.size(), kLookThreads, [&](std::size_t i) {
    CopyItem& item = plan_.items[i];
    if (!is_gone(item)) return;
    auto store = session_.store(item.source, Role::kSource);
    const bool pool_is_there = fresh && store && (*store)->check_ready(/*writable=*/false);
    const auto info = pool_is_there ? (*store)->stat(item.source.extent)
                                    : Result<ExtentInfo>(fail(Code::kUnavailable, "not looked"));
    if (info || info.error().code != Code::kNotFound) {
      item.state = ItemState::kFailed;  // with the error that its device had
    }
  });
  std::erase_if(plan_.items, is_gone);
}

// A folder's daemon that could not compare (an extent without a digest) does not say what stands
// under a name that is taken: both ends are read there. With --check or --deep so is whatever a
// target found there by its digest.
void CopyRun::check_already_there() {
  std::vector<std::size_t> taken;
  for (std::size_t i = 0; i < plan_.items.size(); ++i) {
    const CopyItem& item = plan_.items[i];
    const bool unknown =
        item.state == ItemState::kFailed && item.error.code == Code::kAlreadyExists &&
        item.error.reason != Reason::kDiffers && item.target.where == Where::kDaemon;
    const bool unread = (session_.options().deep || session_.options().check) &&
                        item.state == ItemState::kAlreadyThere;
    if (!(unknown || unread) || item.attempts == 0 || session_.interrupted()) continue;
    taken.push_back(i);
  }
  if (taken.empty()) return;
  session_.meter().note("siphon: names are taken at the target: comparing both ends");
  session_.meter().begin_anew();
  const BothEnds both = verify_both_ends(session_, plan_, taken);
  const std::vector<Verified>&left = both.source, &right = both.target;
  session_.meter().begin_anew();
  for (std::size_t i = 0; i < taken.size(); ++i) {
    CopyItem& item = plan_.items[taken[i]];
    if (same_content(left[i].outcome, right[i].outcome)) {
      item.state = ItemState::kAlreadyThere;
      item.read_crc32 = {left[i].outcome.crc32, right[i].outcome.crc32};
      if (!item.receipt) item.receipt = receipt_of_what_is_there(item, left[i].outcome.header);
      continue;
    }
    const bool was_there = item.state == ItemState::kAlreadyThere;
    item.receipt.reset();
    const bool target_damaged = !right[i].outcome.status;
    const Status& bad = target_damaged ? right[i].outcome.status : left[i].outcome.status;
    if (bad && !was_there) continue;  // other content has the name, as was told
    item.fail_with(bad ? Error{Code::kDataLoss, "the two ends differ", Side::kNone, ""}
                       : bad.error());
    const bool damaged = item.error.code == Code::kDataLoss;  // else one end could not be read
    item.error =
        std::move(item.error)
            .with_suspect(target_damaged ? Side::kTarget : Side::kSource)
            .with_context(damaged ? "it is at the target already, but one end is damaged"
                                  : "it is at the target already, and both were to be read");
  }
}

void CopyRun::show(std::size_t slot, const Progress& progress) {
  {
    const MutexLock lock(mutex_);
    slots_[slot].progress = progress;
    // Its account may never come.
    if (!progress.data_endpoint.empty()) totals_.data_endpoints.insert(progress.data_endpoint);
  }
  if (session_.meter().due()) session_.meter().update(progress_of_all());
}

ProgressState CopyRun::progress_of_all() {
  const MutexLock lock(mutex_);
  ProgressState state;
  state.counts = true;
  state.done_bytes = settled_bytes_;
  for (const auto& [key, s] : slots_) {
    const ProgressState one = progress_of(s.progress, s.source, s.target);
    state.done_bytes += one.done_bytes;
    state.active += one.active;
    if (!one.bottleneck.empty()) state.bottleneck = one.bottleneck;
  }
  std::uint64_t found_there = 0;
  for (const CopyItem& item : plan_.items) {
    state.failed += item.state == ItemState::kFailed;
    state.done_extents += item.state != ItemState::kPending;
    if (item.state == ItemState::kAlreadyThere && item.attempts > 0) {
      found_there += item.bytes_to_come();
    }
  }
  state.total_extents = plan_.items.size();
  // What the transfers under way have together is no total: others are still to come. Where the
  // plan has none, the extents are counted.
  state.total_bytes = plan_.total_bytes - std::min(found_there, plan_.total_bytes);
  state.retried = totals_.retried;
  return state;
}

}  // namespace siphon::cli
