// AttemptJournal: what this device must not forget when it ends, however it ends.
//
//   attempts   which scratch extents it has begun and not yet ended: the collector tries just these
//              after a crash, never a scan of a pool. A row is on the disk before the scratch is.
//   watched    what lies in its folder's trash, and for how long it has seen that lie there.
//   receipts   what it has published lately, by transfer: whoever asks again gets the same receipt.
//              Written soon after, in batches: what a crash takes of them the heads still tell.
//
// The head's guarded methods decide; a row too many costs one look. SQLite in WAL mode. One daemon
// per file: the second is refused. A file that is damaged is set aside. Thread safe; `add` blocks
// for the disk, as long as the others that wait for it do together.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "plugin/base/status.h"
#include "plugin/base/types.h"
#include "plugin/transfer/types.h"

namespace siphon {

struct Attempt {
  Location location;
  std::string extent;
  PrivateId private_id;
  // Of this process alone: not to be collected before, because a write may still be under way.
  Deadline not_before{};
};

// Whether a journal in `folder` would be there after the host has been started again: not in one
// that is in memory (tmpfs, ramfs), or cannot be looked at.
bool outlasts_the_host(const std::string& folder);

// A generation in the trash of a folder.
struct Watched {
  std::string extent;
  PrivateId private_id;
  std::uint64_t trashed_unix_ms = 0;
  std::uint64_t watched_ms = 0;  // that a daemon has been there for, all its runs together
};

class AttemptJournal {
 public:
  // Receipts are kept until there are so many newer ones, or for so long.
  static constexpr std::size_t kMaxReceipts = 100'000;
  static constexpr std::uint64_t kKeepReceiptsMs = 7ull * 24 * 3600 * 1000;

  // Creates the file, and its folder, when missing. ":memory:" keeps it in memory (tests).
  // FAILED_PRECONDITION: another daemon has it, and which. `set_aside`: told where a damaged file
  // went, if there was one.
  static Result<std::unique_ptr<AttemptJournal>> open(const std::string& file,
                                                      std::string* set_aside = nullptr);
  ~AttemptJournal();  // writes what waits
  AttemptJournal(const AttemptJournal&) = delete;
  AttemptJournal& operator=(const AttemptJournal&) = delete;

  // On the disk when it returns.
  Status add(const Attempt& attempt);
  // Soon. Does not block.
  void remove(const PrivateId& private_id);
  Result<std::vector<Attempt>> all();

  // All that the last one gave. Both block for the disk.
  Result<std::vector<Watched>> watched();
  Status keep_watched(const std::vector<Watched>& all);

  // Soon. Does not block.
  void note(Receipt receipt);
  // In the order in which they were noted.
  Result<std::vector<Receipt>> receipts_of(const std::string& transfer_id);

 private:
  class Impl;
  explicit AttemptJournal(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace siphon
