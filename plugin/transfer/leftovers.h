// Leftovers: scratch that could not be removed when its transfer ended, because the store did not
// answer, or the daemon's earlier life was cut short. Tried again until it is gone.
//
// Thread safe. `run` is one background thread; the store's guarded methods decide what may go.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stop_token>
#include <vector>

#include "adapters/extent_store.h"
#include "plugin/transfer/journal.h"

namespace siphon {

class Leftovers {
 public:
  static constexpr std::chrono::milliseconds kShortestPause{500};
  static constexpr std::chrono::milliseconds kLongestPause{15000};

  // `from_before`: what the journal held before this life of the device began any of its own.
  Leftovers(StoreProvider& stores, AttemptJournal& journal, std::vector<Attempt> from_before)
      : stores_(stores), journal_(journal), waiting_(std::move(from_before)) {}

  // Its row is in the journal, and nobody writes to it any more. Does not block.
  void add(Attempt attempt);
  // Adds what no row names: files that a crash left in a folder before any register named them.
  // Looks at every name of the store.
  void find(ExtentStore& folder);
  // Takes from every name of a folder whose time is over: generations in the trash beyond the grace
  // time, attempts beyond their lease (ExtentStore::make_room). Returns how many names it looked
  // at.
  static std::size_t tidy(ExtentStore& folder, const std::stop_token& stop);
  // Until stopped. Gentle: one at a time, with pauses that grow while nothing can be removed.
  void run(std::stop_token stop);
  // One round over all of them; returns how many are left. Blocks for the store.
  std::size_t collect();

 private:
  bool collect_one(const Attempt& attempt);

  StoreProvider& stores_;
  AttemptJournal& journal_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<Attempt> waiting_;
  bool news_ = false;
};

}  // namespace siphon
