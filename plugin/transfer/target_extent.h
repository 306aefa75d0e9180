// One extent of a transfer at the target's store: its scratch, from the reservation to the publish
// or to its end. What the transfer knows of it beside that (frames, claims, outcome) is its
// ExtentSession.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "adapters/extent_store.h"
#include "plugin/transfer/journal.h"
#include "plugin/transfer/types.h"

namespace siphon {

// What the extents of one transfer have in common. Outlives them.
struct TargetPlace {
  ExtentStore& store;
  AttemptJournal& journal;
  const TransferSpec& spec;
  std::chrono::milliseconds scratch_lease;
  // Told of scratch that could not be removed; its row stays in the journal. May be empty.
  std::function<void(Attempt)> left_behind;
};

// Thread safe where it says so. Everything blocks for as long as the store does.
class TargetExtent {
 public:
  // `name`: at the target; outlives it, as does `place`.
  TargetExtent(const TargetPlace& place, const std::string& name) : place_(place), name_(name) {}

  // Makes the scratch, journalled first, unless it is there: the first caller begins, the others
  // wait for it. Frames agree on the extent's size, so at most the plan was wrong (begin_early):
  // then it is made anew, before anybody writes to it. Thread safe.
  Status begin(std::uint64_t extent_bytes);
  // By the size that the requester saw, unless a frame was faster. Thread safe.
  void begin_early(std::uint64_t planned_bytes);
  // After begin. A piece across our parts' boundaries becomes several writes. Thread safe.
  Status write(std::uint64_t offset_bytes, std::span<const std::byte> bytes);
  // After the last write.
  Status publish(const SealedHeader& header);
  // One operation writes and publishes all of a small extent, without scratch: this one, for
  // ExtentStore::put_inline_many.
  InlinePut inline_put(std::span<const std::byte> bytes, const SealedHeader& header);
  // And what is left to do when it came to `end`: a head that is already there (an earlier
  // generation in the trash, another attempt) takes the larger ones' way.
  Status finish_inline(const InlinePut& put, Status end);
  // Condemns and removes the scratch, if there is one; what cannot be removed is left behind. When
  // nobody writes any more.
  void drop();

  const PrivateId& private_id() const { return private_id_; }

 private:
  void begin_locked(std::uint64_t extent_bytes);  // with begin_mutex_
  Status make_scratch(std::uint64_t extent_bytes);
  void leave_behind() const;

  const TargetPlace& place_;
  const std::string& name_;
  PrivateId private_id_;
  std::mutex begin_mutex_;
  std::uint64_t begun_bytes_ = 0;  // guarded by begin_mutex_, as is begin_status_
  Status begin_status_;
  std::unique_ptr<ScratchExtent> scratch_;  // valid when begin() has returned
};

}  // namespace siphon
