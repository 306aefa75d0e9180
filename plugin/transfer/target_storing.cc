// What the writers of a TargetTransfer do: store frames, check blocks, publish.
#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "plugin/core/mutex.h"
#include "plugin/transfer/target_impl.h"

namespace siphon {
namespace {

// So many writers publish small extents at once before others wait to go together.
constexpr std::size_t kFirstPublishers = 2;

}  // namespace

using std::chrono::steady_clock;

void TargetTransfer::do_task(Task task) {
  const CountFallbackParts count(fallback_parts_);
  if (task.frame.payload) {
    store_frame(std::move(task.frame));
  } else if (task.complete != nullptr) {
    publish_if_complete(*task.complete);
  } else {
    publish_ready();
  }
}

void TargetTransfer::store_frame(ReceivedFrame frame) {
  const FrameHeader header = frame.header;
  Extent& extent = *wanted_[header.extent_index];
  {
    const MutexLock lock(mutex_);
    if (extent.machine.done()) return;
  }
  Status stored = extent.stored.begin(header.extent_bytes);
  if (stored) stored = extent.stored.write(header.offset_bytes, frame.payload.span());
  frame.payload.reset();
  if (!stored) {
    {
      const MutexLock lock(mutex_);
      extent.on_error(std::move(stored)
                          .error()
                          .with_context("extent " + extent.pair.target)
                          .with_suspect(Side::kTarget));
    }
    return give_up_if_hopeless();
  }
  {
    const MutexLock lock(mutex_);
    extent.machine.on_durable(header.length_bytes);
    durable_bytes_ += header.length_bytes;
    last_durable_at_ = steady_clock::now();
  }
  publish_if_complete(extent);
}

void TargetTransfer::begin_first_extents() {
  const CountFallbackParts count(fallback_parts_);
  for (Extent* extent : wanted_) {
    if (!extent->begins_early || stop_.stop_requested()) continue;
    {
      const MutexLock lock(mutex_);
      if (extent->machine.done()) continue;
    }
    extent->stored.begin_early(extent->pair.planned_bytes);
  }
}

void TargetTransfer::publish_if_complete(Extent& extent) {
  {
    const MutexLock lock(mutex_);
    if (!extent.machine.start_publishing(/*durable_needed=*/true)) return;
  }
  Status published = check_blocks(extent);
  if (published) published = extent.stored.publish(extent.machine.claim()->header);
  const MutexLock lock(mutex_);
  published_locked(extent, std::move(published));
  if (done_count_ == spec_.extents.size()) changed_.notify_all();
}

Status TargetTransfer::check_blocks(Extent& extent) {
  if (!spec_.check_blocks) return {};
  block_checks_.acquire();
  Status checked =
      extent.stored.check_blocks(extent.machine.claim()->header, *pool_, [this]() -> Status {
        if (!cancel_requested_) return {};
        return fail(Code::kCancelled, "the transfer was cancelled while its blocks were checked");
      });
  block_checks_.release();
  return checked;
}

// Small extents that one writer publishes together: each is one operation, and what a thread waits
// for together costs it one wait. A quarter of the lease at most, or receiving and publishing would
// take turns.
std::size_t TargetTransfer::group_locked() const {
  const std::uint64_t bytes = std::max<std::uint64_t>(1, ready_.front()->machine.extent_bytes());
  const std::uint64_t most = std::max(1u, store_limits_.small_together);
  return std::clamp<std::uint64_t>(env_.settings.max_frame_bytes / 2 / bytes, 1, most);
}

// A writer for every group that is full. Once a few are at work, the last that are ready are left
// to them.
void TargetTransfer::start_publishers() {
  std::size_t more = 0;
  {
    const MutexLock lock(mutex_);
    if (ready_.empty()) return;
    std::size_t wanted = ready_.size() / group_locked();
    if (publishers_ < kFirstPublishers) wanted = std::max<std::size_t>(wanted, 1);
    if (wanted > publishers_to_start_) more = wanted - publishers_to_start_;
    publishers_ += more;
    publishers_to_start_ += more;
  }
  for (; more > 0; --more) writers_->push({});
}

std::vector<TargetTransfer::Extent*> TargetTransfer::take_ready_locked() {
  std::vector<Extent*> taken;
  const std::size_t most = ready_.empty() ? 0 : group_locked();
  while (!ready_.empty() && taken.size() < most) {
    Extent* extent = ready_.front();
    ready_.pop_front();
    if (extent->machine.start_publishing(/*durable_needed=*/false)) {
      taken.push_back(extent);
    } else {
      extent->let_go_if_failed();
    }
  }
  return taken;
}

void TargetTransfer::publish_ready() {
  MutexLock lock(mutex_);
  --publishers_to_start_;
  for (;;) {
    std::vector<Extent*> extents = take_ready_locked();
    if (extents.empty()) break;
    lock.unlock();
    std::vector<InlinePut> puts;
    std::vector<TargetExtent*> stored;
    std::vector<std::pair<Extent*, Status>> damaged;
    if (spec_.check_blocks) {
      std::erase_if(extents, [&](Extent* extent) {
        Status checked = TargetExtent::check_blocks_of(extent->held.payload.span(),
                                                       extent->machine.claim()->header);
        if (checked) return false;
        extent->held.payload.reset();
        damaged.emplace_back(extent, std::move(checked));
        return true;
      });
    }
    for (Extent* extent : extents) {
      stored.push_back(&extent->stored);
      puts.push_back(
          extent->stored.inline_put(extent->held.payload.span(), extent->machine.claim()->header));
    }
    std::vector<Status> ends = TargetExtent::put_inline_many(place_, stored, puts);
    for (std::size_t i = 0; i < extents.size(); ++i) {
      ends[i] = extents[i]->stored.finish_inline(puts[i], std::move(ends[i]));
      extents[i]->held.payload.reset();
    }
    lock.lock();
    for (auto& [extent, status] : damaged) published_locked(*extent, std::move(status));
    for (std::size_t i = 0; i < extents.size(); ++i) {
      published_locked(*extents[i], std::move(ends[i]));
    }
    if (done_count_ == spec_.extents.size()) changed_.notify_all();
  }
  --publishers_;
}

void TargetTransfer::published_locked(Extent& extent, Status status) {
  if (!status) {
    Error error = std::move(status).error().with_suspect(Side::kTarget);
    const bool sources = error.suspect == Side::kSource;
    extent.machine.on_publish_failed(std::move(error).with_context(
        "extent " + (sources ? extent.pair.source : extent.pair.target)));
    return;
  }
  if (extent.inline_candidate) {
    durable_bytes_ += extent.machine.extent_bytes();
    last_durable_at_ = steady_clock::now();
  }
  extent.machine.on_published();
  published_bytes_ += extent.machine.claim()->bytes;
  env_.counters.extents_published.fetch_add(1, std::memory_order_relaxed);
  add_outcome_locked(extent);
}

}  // namespace siphon
