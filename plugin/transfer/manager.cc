#include "plugin/transfer/manager.h"

#include <algorithm>

#include "plugin/base/log.h"

namespace siphon {

namespace {

bool same_request(const TransferSpec& a, const TransferSpec& b) {
  return a.source == b.source && a.target == b.target && a.source_address == b.source_address &&
         a.extents.size() == b.extents.size() && a.replace == b.replace &&
         std::equal(a.extents.begin(), a.extents.end(), b.extents.begin(),
                    [](const ExtentPair& x, const ExtentPair& y) {
                      return x.source == y.source && x.target == y.target;
                    });
}

}  // namespace

TransferManager::TransferManager(TargetEnvironment environment) : env_(environment) {
  for (std::uint32_t i = 0; i < env_.settings.max_transfers; ++i) {
    workers_.emplace_back([this](std::stop_token stop) { work(std::move(stop)); });
  }
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

Result<std::shared_ptr<TargetTransfer>> TransferManager::submit(TransferSpec spec,
                                                                ExtentStore& store) {
  SIPHON_TRY(check_spec(spec));
  std::shared_ptr<TargetTransfer> transfer;
  {
    std::lock_guard lock(mutex_);
    if (auto it = transfers_.find(spec.id); it != transfers_.end()) {
      if (same_request(it->second->spec(), spec)) return it->second;
      return fail(Code::kAlreadyExists,
                  "transfer " + spec.id + " is already known here and asked for something else",
                  Side::kRequester, "choose a new transfer id");
    }
    if (waiting_.size() >= kMaxWaiting) {
      return fail_busy(env_.settings.device + " has " + std::to_string(waiting_.size()) +
                           " transfers waiting: busy",
                       Side::kTarget, "try again in a minute");
    }
    transfer = std::make_shared<TargetTransfer>(std::move(spec), store, env_);
    transfers_.emplace(transfer->spec().id, transfer);
    waiting_.push_back(transfer);
  }
  changed_.notify_one();
  return transfer;
}

Result<std::shared_ptr<TargetTransfer>> TransferManager::find(const std::string& id) {
  std::lock_guard lock(mutex_);
  if (auto it = transfers_.find(id); it != transfers_.end()) return it->second;
  return fail(Code::kNotFound, env_.settings.device + " knows no transfer " + id, Side::kRequester,
              "siphon transfers lists those that are known");
}

std::vector<std::shared_ptr<TargetTransfer>> TransferManager::all() {
  std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<TargetTransfer>> list;
  for (auto& [id, transfer] : transfers_) list.push_back(transfer);
  return list;
}

void TransferManager::work(std::stop_token stop) {
  for (;;) {
    std::shared_ptr<TargetTransfer> transfer;
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [this] { return !waiting_.empty(); })) return;
      if (stop.stop_requested()) return;
      transfer = std::move(waiting_.front());
      waiting_.pop_front();
    }
    env_.counters.transfers_in.fetch_add(1);
    transfer->run();
    env_.counters.transfers_in.fetch_sub(1);
    std::lock_guard lock(mutex_);
    remember_locked(*transfer);
  }
}

void TransferManager::remember_locked(const TargetTransfer& ended) {
  const std::size_t count = ended.spec().extents.size();
  while (ended_.size() >= kMaxEnded ||
         (!ended_.empty() && ended_extents_ + count > kMaxEndedExtents)) {
    ended_extents_ -= ended_.front().second;
    transfers_.erase(ended_.front().first);
    ended_.pop_front();
  }
  ended_.emplace_back(ended.spec().id, count);
  ended_extents_ += count;
}

}  // namespace siphon
