#include "plugin/transfer/target_extent.h"

#include <algorithm>

#include "plugin/base/log.h"

namespace siphon {

Status TargetExtent::begin(std::uint64_t extent_bytes) {
  const std::lock_guard lock(begin_mutex_);
  if (begun_bytes_ != extent_bytes) begin_locked(extent_bytes);
  return begin_status_;
}

void TargetExtent::begin_early(std::uint64_t planned_bytes) {
  const std::lock_guard lock(begin_mutex_);
  if (begun_bytes_ != 0) return;  // a writer was faster, and writes to it by now
  begin_locked(planned_bytes);    // the first writer hears of an error
}

void TargetExtent::begin_locked(std::uint64_t extent_bytes) {
  drop();
  begun_bytes_ = extent_bytes;
  begin_status_ = make_scratch(extent_bytes);
}

// Reserves the private id, journalled first so that a crash leaves a trace to collect by.
Status TargetExtent::make_scratch(std::uint64_t extent_bytes) {
  private_id_ = new_private_id();
  SIPHON_TRY(place_.journal.add({place_.spec.target, name_, private_id_}));
  const auto lease = static_cast<std::uint64_t>(place_.scratch_lease.count());
  auto begun = place_.store.begin(
      name_, {extent_bytes, private_id_, now_unix_ms() + lease, place_.spec.replace});
  if (!begun) {
    // A reservation whose reply was lost may exist: collect() decides.
    if (place_.store.collect(name_, private_id_)) {
      (void)place_.journal.remove(private_id_);
    } else {
      leave_behind();
    }
    return fail(std::move(begun).error());
  }
  scratch_ = std::move(*begun);
  return {};
}

// A frame respects the source's part boundaries; where ours are elsewhere it becomes two writes.
Status TargetExtent::write(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  const std::uint32_t part_bytes = scratch_->part_bytes();
  while (!bytes.empty()) {
    const std::uint64_t room = part_bytes - offset_bytes % part_bytes;
    const auto piece = bytes.first(std::min<std::uint64_t>(bytes.size(), room));
    SIPHON_TRY(scratch_->write(offset_bytes, piece));
    offset_bytes += piece.size();
    bytes = bytes.subspan(piece.size());
  }
  return {};
}

Status TargetExtent::publish(const SealedHeader& header) {
  SIPHON_TRY(scratch_->publish(header, place_.spec.replace, ExtentState::kSealed));
  (void)place_.journal.remove(private_id_);  // a row too many costs one look
  // An ended transfer stays known for long; what it has open (a file, for a folder) must not.
  scratch_.reset();
  return {};
}

InlinePut TargetExtent::inline_put(std::span<const std::byte> bytes, const SealedHeader& header) {
  private_id_ = new_private_id();
  return {name_, private_id_, bytes, header};
}

Status TargetExtent::finish_inline(const InlinePut& put, Status end) {
  if (end || end.error().code != Code::kAlreadyExists) return end;
  SIPHON_TRY(make_scratch(put.bytes.size()));
  SIPHON_TRY(scratch_->write(0, put.bytes));
  return publish(put.header);
}

void TargetExtent::drop() {
  if (!scratch_) return;
  Status gone = scratch_->abort();
  if (gone) {
    (void)place_.journal.remove(private_id_);
  } else {
    log::warn("transfer {}: scratch {} of extent {} is left for the collector: {}", place_.spec.id,
              to_hex(private_id_), name_, gone.error().message);
    leave_behind();
  }
  scratch_.reset();
}

void TargetExtent::leave_behind() const {
  if (place_.left_behind) place_.left_behind({place_.spec.target, name_, private_id_});
}

}  // namespace siphon
