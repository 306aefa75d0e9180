// What watchers of a TargetTransfer see: progress, outcomes as they come, and what limits it.
#include <algorithm>

#include "plugin/transfer/target_impl.h"

namespace siphon {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

Progress TargetTransfer::progress_locked() const {
  Progress p;
  p.phase = phase_;
  p.extents_total = static_cast<std::uint32_t>(spec_.extents.size());
  p.extents_done = done_count_;
  p.extents_already_there = there_count_;
  p.extents_failed = failed_count_;
  if (sized_count_ == wanted_count_) p.total_bytes = sized_bytes_;
  p.received_bytes = received_bytes_;
  p.durable_bytes = std::min(durable_bytes_, received_bytes_);
  p.bottleneck = bottleneck_;
  p.data_endpoint = data_endpoint_;
  const auto end = summary_ ? milliseconds(summary_->elapsed_ms)
                            : duration_cast<milliseconds>(steady_clock::now() - started_at_);
  p.elapsed_ms = static_cast<std::uint64_t>(end.count());
  return p;
}

TargetTransfer::Update TargetTransfer::wait_update(std::size_t* cursor, milliseconds timeout) {
  MutexLock lock(mutex_);
  const Phase seen = phase_;
  changed_.wait_for(lock, timeout,
                    [&]() SIPHON_REQUIRES(mutex_) { return summary_ || phase_ != seen; });
  Update update;
  update.progress = progress_locked();
  while (*cursor < outcomes_.size() && update.outcomes.size() < 1000) {
    update.outcomes.push_back(outcomes_[(*cursor)++]);
  }
  if (*cursor == outcomes_.size()) update.summary = summary_;
  return update;
}

TransferInfo TargetTransfer::info() const {
  const MutexLock lock(mutex_);
  TransferInfo i{spec_.id,
                 spec_.source,
                 spec_.target,
                 source_device_,
                 env_.settings.device,
                 started_unix_ms_,
                 progress_locked(),
                 {}};
  if (summary_ && !summary_->status) i.status = fail(summary_->status.error());
  return i;
}

std::vector<Receipt> TargetTransfer::receipts() const {
  const MutexLock lock(mutex_);
  std::vector<Receipt> receipts;
  for (const ExtentOutcome& o : outcomes_) {
    if (o.result) receipts.push_back(*o.result);
  }
  return receipts;
}

// Where did the lanes' threads spend their time since the last look?
void TargetTransfer::look_for_bottleneck(LastLook& last) {
  const std::uint64_t buffer_ns = times_.waiting_for_buffer_ns.load();
  const std::uint64_t socket_ns = times_.in_socket_ns.load();
  const auto now = steady_clock::now();
  const MutexLock lock(mutex_);
  const LastLook before =
      std::exchange(last, LastLook{true, now, buffer_ns, socket_ns, received_bytes_});
  if (!before.was_one) return;
  const double seconds = std::chrono::duration<double>(now - before.at).count();
  const double rate = static_cast<double>(received_bytes_ - before.bytes) / seconds;
  const Bottleneck setting =
      reached_setting(rate, spec_.bytes_per_second, env_.settings.bytes_per_second);
  if (source_bottleneck_ == Bottleneck::kSetting ||
      source_bottleneck_ == Bottleneck::kSourceSetting) {
    bottleneck_ = source_bottleneck_;  // its lanes waited for that; here it is told by the rate
  } else if (setting != Bottleneck::kNone) {
    bottleneck_ = setting;
  } else if (buffer_ns - before.buffer_ns > socket_ns - before.socket_ns) {
    bottleneck_ = Bottleneck::kTargetStore;
  } else {
    bottleneck_ = source_bottleneck_ == Bottleneck::kNone ? Bottleneck::kLanes : source_bottleneck_;
  }
}

}  // namespace siphon
