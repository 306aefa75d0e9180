// One extent of a transfer at the target's store: its scratch, from the reservation to the publish
// or to its end. What the transfer knows of it beside that (frames, claims, outcome) is its
// ExtentMachine.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "adapters/extent_store.h"
#include "plugin/base/buffer_pool.h"
#include "plugin/base/clock.h"
#include "plugin/core/mutex.h"
#include "plugin/transfer/journal.h"
#include "plugin/transfer/types.h"

namespace siphon {

// What the extents of one transfer have in common. Outlives them.
struct TargetPlace {
  ExtentStore& store;
  AttemptJournal& journal;
  const TransferSpec& spec;
  std::chrono::milliseconds scratch_lease;
  // How long a publish without an answer is asked about.
  std::chrono::milliseconds settle_timeout;
  // Ends what waits; a publish is asked about once more, then left to the collector.
  std::stop_token stop;
  // Told of scratch that could not be removed; its row stays in the journal. May be empty.
  std::function<void(Attempt)> left_behind;
  const Clock& clock;
};

// Thread safe where it says so. Everything blocks for as long as the store does.
class TargetExtent {
 public:
  // `name`: at the target; outlives it, as does `place`.
  TargetExtent(const TargetPlace& place, const std::string& name) : place_(place), name_(name) {}

  // Makes the scratch unless it is there; its row in the journal comes first. The first caller
  // makes it, the others wait for that. Where begin_early has made it for another size, it is made
  // anew, before anybody writes to it: all frames name one size. Thread safe.
  Status begin(std::uint64_t extent_bytes);
  // The same by the size that the requester saw, before the first frame; nothing when a frame has
  // come meanwhile. Thread safe.
  void begin_early(std::uint64_t planned_bytes);
  // After begin. A piece across our parts' boundaries becomes several writes. Thread safe.
  Status write(std::uint64_t offset_bytes, std::span<const std::byte> bytes);
  // After the last write, before publish: reads back what is stored, through buffers of `pool`, and
  // compares every block's SHA-256, the index and the digest. DATA_LOSS names the first thing that
  // is wrong, and the side: bytes that are not those that were received are the target's, bytes
  // that came so are the source's. `go_on` is asked now and then; its error ends it.
  Status check_blocks(const SealedHeader& header, BufferPool& pool,
                      const std::function<Status()>& go_on);
  // The same of an extent that is in memory as it came.
  static Status check_blocks_of(std::span<const std::byte> bytes, const SealedHeader& header);
  // After the last write. Success: it is public and durable. An error is one that is known to be
  // true, also when answers were lost on the way; but for Reason::kOutcomeUnknown.
  Status publish(const SealedHeader& header);
  // One operation writes and publishes all of a small extent, without scratch: this one, for
  // ExtentStore::put_inline_many.
  InlinePut inline_put(std::span<const std::byte> bytes, const SealedHeader& header);
  // And what is left to do when it came to `end`: a head that is already there (an earlier
  // generation in the trash, another attempt) takes the larger ones' way. ALREADY_EXISTS: see
  // occupant().
  Status finish_inline(const InlinePut& put, Status end);
  // Puts several, and finds out what became of those that got no answer. One result for each.
  static std::vector<Status> put_inline_many(const TargetPlace& place,
                                             std::span<TargetExtent* const> extents,
                                             std::span<const InlinePut> puts);
  // Who had the name when it was found to be taken.
  const std::optional<ExtentInfo>& occupant() const { return occupant_; }
  // Looks who has the name now. NOT_FOUND: nobody.
  Status look();
  // Condemns and removes the scratch, if there is one; what cannot be removed is left behind. When
  // nobody writes any more.
  void drop();
  // Leaves all of that to the collector.
  void drop_later();

  const PrivateId& private_id() const { return private_id_; }
  // Published generations of the name that left the trash, so that there is room for this one. When
  // nobody writes any more.
  const std::vector<TrashEntry>& left_for_good() const { return left_for_good_; }
  // Operations of this extent's that went another way than planned.
  std::uint64_t fallback_parts() const { return fallback_parts_; }

 private:
  Status write_all(std::uint64_t offset_bytes, std::span<const std::byte> bytes);
  void begin_locked(std::uint64_t extent_bytes) SIPHON_REQUIRES(begin_mutex_);
  Status make_scratch(std::uint64_t extent_bytes);
  void leave_behind(std::chrono::milliseconds settle_time = {}) const;
  // Asks again until it is known what became of a publish that ended so; `again` repeats it.
  Status settle(Status end, const std::function<Status()>& again);
  // When asking again did not help: fences it, unless the store is known not to answer.
  Status withdraw(Error lost, const std::function<Status()>& again, bool store_answers = true);

  const TargetPlace& place_;
  const std::string& name_;
  PrivateId private_id_;
  Mutex begin_mutex_;
  std::uint64_t begun_bytes_ SIPHON_GUARDED_BY(begin_mutex_) = 0;
  Status begin_status_ SIPHON_GUARDED_BY(begin_mutex_);
  std::unique_ptr<ScratchExtent> scratch_;  // valid when begin() has returned
  std::optional<ExtentInfo> occupant_;
  std::vector<TrashEntry> left_for_good_;
  std::atomic<std::uint64_t> fallback_parts_{0};
};

}  // namespace siphon
