// TransferManager: the transfers of one target device, by id.
//
// At most settings.max_transfers run at once, the others wait in line. Ended ones stay known (so
// that a lost reply gives the same receipt again) until kMaxEnded newer ones have ended, or their
// outcomes are too many together; then the largest goes first, so that one of 10,000 extents pushes
// out its like and not everybody's. Receipts outlast that, and this process, in the journal.
//
// Asking again with an id whose transfer has ended without all of its receipts is the next try of
// it: what has a receipt is told again, the rest is copied.
// Thread safe.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "plugin/core/mutex.h"
#include "plugin/transfer/target.h"

namespace siphon {

class TransferManager {
 public:
  static constexpr std::size_t kMaxEnded = 64;
  // A receipt takes about a kilobyte.
  static constexpr std::size_t kMaxEndedExtents = 2 * kMaxExtentsPerTransfer;
  static constexpr std::size_t kMaxWaiting = 256;
  // Of all that wait together: each takes about a kilobyte from the beginning.
  static constexpr std::size_t kMaxWaitingExtents = 5 * kMaxExtentsPerTransfer;

  explicit TransferManager(TargetEnvironment environment);
  ~TransferManager();  // cancels what runs and waits for it

  // The transfer of spec.id: a new one, its next try, or the one that is there, if spec names some
  // or all of its extents (ALREADY_EXISTS if it goes elsewhere; ABORTED while it runs and was asked
  // for other extents). Reason::kBusy: the line is full. Shared: a watcher may outlast it here.
  Result<std::shared_ptr<TargetTransfer>> submit(TransferSpec spec, ExtentStore& store);
  // NOT_FOUND: never heard of, or long ended.
  Result<std::shared_ptr<TargetTransfer>> find(const std::string& id);
  std::vector<std::shared_ptr<TargetTransfer>> all();

 private:
  void work(std::stop_token stop);
  Status add_worker_locked() SIPHON_REQUIRES(mutex_);
  void prune_waiting_locked() SIPHON_REQUIRES(mutex_);
  void remember_locked(const TargetTransfer& ended) SIPHON_REQUIRES(mutex_);
  void forget_locked(const std::string& id) SIPHON_REQUIRES(mutex_);

  const TargetEnvironment env_;
  Mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::string, std::shared_ptr<TargetTransfer>> transfers_ SIPHON_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<TargetTransfer>> waiting_ SIPHON_GUARDED_BY(mutex_);
  // Id, extents; oldest first.
  std::deque<std::pair<std::string, std::size_t>> ended_ SIPHON_GUARDED_BY(mutex_);
  std::size_t ended_extents_ SIPHON_GUARDED_BY(mutex_) = 0;
  std::vector<std::jthread> workers_ SIPHON_GUARDED_BY(mutex_);
};

}  // namespace siphon
