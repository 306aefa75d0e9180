// Leftovers: scratch that could not be removed when its transfer ended, because the store did not
// answer, or the daemon's previous run was cut short. Tried again until it is gone.
//
// Thread safe. `run` is one background thread; the store's guarded methods decide what may go.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <stop_token>
#include <string>
#include <vector>

#include "adapters/extent_store.h"
#include "plugin/base/clock.h"
#include "plugin/core/mutex.h"
#include "plugin/transfer/journal.h"

namespace siphon {

class Leftovers {
 public:
  static constexpr std::chrono::milliseconds kShortestPause{500};
  static constexpr std::chrono::milliseconds kLongestPause{15000};

  // `from_before`: what the journal held before this run of the device began any of its own.
  Leftovers(StoreProvider& stores, AttemptJournal& journal, std::vector<Attempt> from_before,
            const Clock& clock = Clock::system())
      : stores_(stores), journal_(journal), clock_(clock), waiting_(std::move(from_before)) {}

  // Its row is in the journal, and nobody writes to it any more. Does not block.
  void add(Attempt attempt);
  // Adds what no row names: what a crash left in a folder of an attempt that no register names yet.
  // Looks at every name of the store.
  void find(ExtentStore& folder);
  // Takes from every name of a folder whose time is over: attempts beyond their lease
  // (ExtentStore::make_room), and generations that have been seen in the trash for the grace time.
  // That is time that daemons of the folder have spent, told by a monotonic clock and kept in the
  // journal: what a host's clock says, or said, removes nothing. `since_last`: what has passed
  // since the last call of this run, 0 at the first. Says in the log what left for good. Returns
  // how many names it looked at. From one thread at a time.
  std::size_t tidy(ExtentStore& folder, std::chrono::milliseconds since_last,
                   const std::stop_token& stop);
  // Until stopped. Gentle: one at a time, with pauses that grow while nothing can be removed.
  void run(std::stop_token stop);
  // One round over all of them; returns how many are left. Blocks for the store.
  std::size_t collect();

 private:
  Result<std::vector<Watched>> age(ExtentStore& folder, const std::string& name,
                                   const std::map<PrivateId, Watched>& known,
                                   std::chrono::milliseconds since_last);
  bool collect_one(const Attempt& attempt);

  StoreProvider& stores_;
  AttemptJournal& journal_;
  const Clock& clock_;
  Mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<Attempt> waiting_ SIPHON_GUARDED_BY(mutex_);
  bool news_ SIPHON_GUARDED_BY(mutex_) = false;
};

}  // namespace siphon
