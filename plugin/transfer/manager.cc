#include "plugin/transfer/manager.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <system_error>

#include "plugin/base/log.h"
#include "plugin/base/text.h"

namespace siphon {

namespace {

bool same_way(const TransferSpec& a, const TransferSpec& b) {
  return a.source == b.source && a.target == b.target && a.replace == b.replace;
}

// Whether `part` names nothing that `whole` does not.
bool is_part_of(const TransferSpec& part, const TransferSpec& whole) {
  std::set<std::pair<std::string_view, std::string_view>> names;
  for (const ExtentPair& e : whole.extents) names.insert({e.source, e.target});
  return std::ranges::all_of(part.extents, [&](const ExtentPair& e) {
    return names.contains({e.source, e.target});
  });
}

}  // namespace

TransferManager::TransferManager(TargetEnvironment environment) : env_(environment) {
  const MutexLock lock(mutex_);
  (void)add_worker_locked();  // those that are missing are tried again when they are needed
}

TransferManager::~TransferManager() {
  for (std::jthread& w : workers_) w.request_stop();
  for (auto& transfer : all()) transfer->cancel();
  workers_.clear();
  for (auto& transfer : waiting_) {
    transfer->refuse({Code::kUnavailable, env_.settings.device + " is shutting down", Side::kTarget,
                      "run the copy again"});
  }
}

// All of them, as far as there are threads; at least one, or an error.
Status TransferManager::add_worker_locked() {
  try {
    while (workers_.size() < env_.settings.max_transfers) {
      workers_.emplace_back([this](std::stop_token stop) { work(std::move(stop)); });
    }
  } catch (const std::system_error& e) {
    log::warn("{} of {} threads for transfers: {}", workers_.size(), env_.settings.max_transfers,
              e.what());
  }
  if (!workers_.empty()) return {};
  return fail_busy(env_.settings.device + " has no thread for a transfer: busy", Side::kTarget,
                   "try again in a minute, or raise the limit of its tasks");
}

// Those that were cancelled in line have ended.
void TransferManager::prune_waiting_locked() {
  std::erase_if(waiting_, [this](const auto& transfer) SIPHON_REQUIRES(mutex_) {
    if (!is_final(transfer->info().progress.phase)) return false;
    remember_locked(*transfer);
    return true;
  });
}

Result<std::shared_ptr<TargetTransfer>> TransferManager::submit(TransferSpec spec,
                                                                ExtentStore& store) {
  SIPHON_TRY(check_spec(spec));
  auto known = env_.journal.receipts_of(spec.id);
  if (!known) return fail(std::move(known).error().with_suspect(Side::kTarget));
  std::shared_ptr<TargetTransfer> transfer;
  {
    const MutexLock lock(mutex_);
    if (auto it = transfers_.find(spec.id); it != transfers_.end()) {
      TargetTransfer& there = *it->second;
      if (!same_way(there.spec(), spec)) {
        return fail(Code::kAlreadyExists,
                    "transfer " + spec.id + " is already known here and asked for something else",
                    Side::kRequester, "choose a new transfer id");
      }
      const Phase phase = there.info().progress.phase;
      const bool part = is_part_of(spec, there.spec());
      if (part && (!is_final(phase) || phase == Phase::kSucceeded)) return it->second;
      if (!is_final(phase)) {
        return fail(Code::kAborted, "transfer " + spec.id + " still runs here, with other extents",
                    Side::kTarget, "try again when it has ended: siphon transfers");
      }
      std::vector<Receipt> earned = there.receipts();
      known->insert(known->end(), std::make_move_iterator(earned.begin()),
                    std::make_move_iterator(earned.end()));
    }
    prune_waiting_locked();
    std::size_t extents = spec.extents.size();
    for (const auto& waiting : waiting_) extents += waiting->spec().extents.size();
    if (waiting_.size() >= kMaxWaiting || extents > kMaxWaitingExtents) {
      return fail_busy(env_.settings.device + " has " + counted(waiting_.size(), "transfer") +
                           " of " + counted(extents - spec.extents.size(), "extent") +
                           " waiting: busy",
                       Side::kTarget, "try again in a minute");
    }
    SIPHON_TRY(add_worker_locked());
    forget_locked(spec.id);
    transfer = std::make_shared<TargetTransfer>(std::move(spec), store, env_, std::move(*known));
    transfers_.emplace(transfer->spec().id, transfer);
    waiting_.push_back(transfer);
  }
  changed_.notify_one();
  return transfer;
}

Result<std::shared_ptr<TargetTransfer>> TransferManager::find(const std::string& id) {
  const MutexLock lock(mutex_);
  if (auto it = transfers_.find(id); it != transfers_.end()) return it->second;
  return fail(Code::kNotFound, env_.settings.device + " knows no transfer " + id, Side::kRequester,
              "siphon transfers lists those that are known");
}

std::vector<std::shared_ptr<TargetTransfer>> TransferManager::all() {
  const MutexLock lock(mutex_);
  std::vector<std::shared_ptr<TargetTransfer>> list;
  for (auto& [id, transfer] : transfers_) list.push_back(transfer);
  return list;
}

void TransferManager::work(std::stop_token stop) {
  for (;;) {
    std::shared_ptr<TargetTransfer> transfer;
    {
      MutexLock lock(mutex_);
      if (!changed_.wait(lock, stop,
                         [this]() SIPHON_REQUIRES(mutex_) { return !waiting_.empty(); }))
        return;
      if (stop.stop_requested()) return;
      transfer = std::move(waiting_.front());
      waiting_.pop_front();
    }
    env_.counters.transfers_in.fetch_add(1);
    transfer->run();
    env_.counters.transfers_in.fetch_sub(1);
    const MutexLock lock(mutex_);
    remember_locked(*transfer);
  }
}

void TransferManager::remember_locked(const TargetTransfer& ended) {
  const auto it = transfers_.find(ended.spec().id);
  if (it == transfers_.end() || it->second.get() != &ended) return;  // its next try is there
  ended_.emplace_back(ended.spec().id, ended.spec().extents.size());
  ended_extents_ += ended_.back().second;
  while (ended_.size() > kMaxEnded) forget_locked(std::string(ended_.front().first));
  while (ended_extents_ > kMaxEndedExtents && ended_.size() > 1) {
    const auto largest = std::max_element(
        ended_.begin(), std::prev(ended_.end()),
        [](const auto& a, const auto& b) { return a.second < b.second; });  // the oldest of these
    forget_locked(std::string(largest->first));
  }
}

void TransferManager::forget_locked(const std::string& id) {
  const auto it = std::ranges::find(ended_, id, [](const auto& entry) { return entry.first; });
  if (it != ended_.end()) {
    ended_extents_ -= it->second;
    ended_.erase(it);
  }
  transfers_.erase(id);
}

}  // namespace siphon
