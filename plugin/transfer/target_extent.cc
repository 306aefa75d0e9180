#include "plugin/transfer/target_extent.h"

#include <algorithm>

#include "plugin/base/crc32.h"
#include "plugin/base/log.h"
#include "plugin/core/mutex.h"
#include "plugin/format/extent_format.h"
#include "plugin/transfer/pooled_read.h"

namespace siphon {

namespace {

using std::chrono::milliseconds;

// By then the OSDs have done, or forgotten, the writes that they did not answer for.
constexpr milliseconds kSettleTime = std::chrono::minutes(5);
constexpr milliseconds kFirstPause{100}, kLongestPause{2000};

// No answer, or none that says whether it was done.
bool is_doubtful(const Error& error) {
  return error.code == Code::kDeadlineExceeded || error.code == Code::kUnavailable ||
         error.code == Code::kUnknown || error.code == Code::kCancelled;
}

// An answer that says why something broke, and not how far it came. The head knows.
bool may_be_done(const Error& error) {
  return error.code == Code::kResourceExhausted || error.code == Code::kDataLoss ||
         error.code == Code::kInternal;
}

Result<std::uint32_t> crc32_of(const ByteSource& bytes, std::uint64_t length_bytes) {
  std::vector<std::byte> piece(std::min<std::uint64_t>(length_bytes, kMiB));
  std::uint32_t crc = 0;
  for (std::uint64_t at = 0; at < length_bytes; at += piece.size()) {
    piece.resize(std::min<std::uint64_t>(piece.size(), length_bytes - at));
    SIPHON_TRY(bytes(at, piece));
    crc = crc32(piece, crc);
  }
  return crc;
}

// Its length and crc32 were compared before, so these bytes are the ones that were sealed, or a
// header was made for them afterwards.
Error source_is_damaged(Error found) {
  found.message +=
      "; its sealed header's crc32 fits these bytes all the same, so that was written after the "
      "damage; the source is untouched, nothing was published";
  found.suspect = Side::kSource;
  found.next_step = "siphon verify it at the source, and bring it back from another copy";
  return found;
}

Error target_is_damaged(Error found) {
  found.message = "what the target has stored is not what it received: " + found.message +
                  "; the source is untouched, nothing was published";
  found.suspect = Side::kTarget;
  found.next_step = "run the copy again; if it happens again, test that device";
  return found;
}

}  // namespace

Status TargetExtent::check_blocks(const SealedHeader& header, BufferPool& pool,
                                  const std::function<Status()>& go_on) {
  const CountFallbackParts count(fallback_parts_);
  const std::uint32_t operation_bytes = place_.store.limits().operation_bytes;
  const ByteSource stored = [&](std::uint64_t offset, std::span<std::byte> out) -> Status {
    return read_pooled(pool, operation_bytes, scratch_->part_bytes(), offset, out,
                       [&](std::uint64_t at, std::span<std::byte> piece) -> Status {
                         SIPHON_TRY(go_on());
                         return scratch_->read(at, piece);
                       });
  };
  auto checked = verify_extent(stored, header, {});
  Status status;
  if (!checked && checked.error().code == Code::kDataLoss) {
    auto crc = crc32_of(stored, header.extent_bytes);
    if (!crc) {  // nobody is to blame then
      status = fail(std::move(crc).error());
    } else if (*crc == header.crc32) {
      status = fail(source_is_damaged(std::move(checked).error()));
    } else {
      status = fail(target_is_damaged(std::move(checked).error()));
    }
  } else if (!checked) {
    status = fail(std::move(checked).error());
  }
  return status;
}

Status TargetExtent::check_blocks_of(std::span<const std::byte> bytes, const SealedHeader& header) {
  const ByteSource memory = [&](std::uint64_t offset, std::span<std::byte> out) -> Status {
    if (offset > bytes.size() || out.size() > bytes.size() - offset) {
      return fail(Code::kDataLoss, "the extent is cut short");
    }
    std::ranges::copy(bytes.subspan(offset, out.size()), out.begin());
    return {};
  };
  auto checked = verify_extent(memory, header, {});
  if (!checked) return fail(source_is_damaged(std::move(checked).error()));
  return {};
}

Status TargetExtent::begin(std::uint64_t extent_bytes) {
  const MutexLock lock(begin_mutex_);
  if (begun_bytes_ != extent_bytes) begin_locked(extent_bytes);
  return begin_status_;
}

void TargetExtent::begin_early(std::uint64_t planned_bytes) {
  const MutexLock lock(begin_mutex_);
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
  SIPHON_TRY(place_.store.make_room(name_, false));
  private_id_ = new_private_id();
  SIPHON_TRY(place_.journal.add({place_.store.location(), name_, private_id_}));
  const auto lease = static_cast<std::uint64_t>(place_.scratch_lease.count());
  auto begun = place_.store.begin(
      name_, {extent_bytes, private_id_, now_unix_ms() + lease, place_.spec.replace, place_.stop});
  if (!begun) {
    // A reservation whose reply was lost may exist: collect() decides.
    if (place_.store.collect(name_, private_id_)) {
      place_.journal.remove(private_id_);
    } else {
      leave_behind();
    }
    if (begun.error().code == Code::kAlreadyExists) (void)look();
    return fail(std::move(begun).error());
  }
  scratch_ = std::move(*begun);
  return {};
}

// A frame respects the source's part boundaries; where ours are elsewhere it becomes two writes.
Status TargetExtent::write(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  const CountFallbackParts count(fallback_parts_);
  return write_all(offset_bytes, bytes);
}

Status TargetExtent::write_all(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
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
  // Not before: a copy that fails should have cost nothing.
  const bool replace = place_.spec.replace;
  const auto on_gone = [this](const TrashEntry& entry) { left_for_good_.push_back(entry); };
  const auto try_it = [&]() -> Status {
    if (replace) SIPHON_TRY(place_.store.make_room(name_, true, on_gone));
    return scratch_->publish(header, replace, ExtentState::kSealed);
  };
  SIPHON_TRY(settle(try_it(), try_it));
  place_.journal.remove(private_id_);  // a row too many costs one look
  if (replace) {
    if (Status trimmed = place_.store.trim_trash(name_, on_gone); !trimmed) {
      log::warn("the trash of extent {} keeps more than it should for now: {}", name_,
                trimmed.error().message);
    }
  }
  // An ended transfer stays known for long; what it has open (a file, for a folder) must not.
  scratch_.reset();
  return {};
}

InlinePut TargetExtent::inline_put(std::span<const std::byte> bytes, const SealedHeader& header) {
  private_id_ = new_private_id();
  return {name_, private_id_, bytes, header, &fallback_parts_};
}

Status TargetExtent::finish_inline(const InlinePut& put, Status end) {
  if (end || end.error().code != Code::kAlreadyExists) return end;
  if (look()) return end;
  SIPHON_TRY(make_scratch(put.bytes.size()));
  SIPHON_TRY(scratch_->write(0, put.bytes));
  return publish(put.header);
}

Status TargetExtent::settle(Status end, const std::function<Status()>& again) {
  const auto until = place_.clock.now() + place_.settle_timeout;
  for (auto pause = kFirstPause; !end && is_doubtful(end.error()) && place_.clock.now() < until &&
                                 !place_.stop.stop_requested();
       pause = std::min(2 * pause, kLongestPause)) {
    place_.clock.pause_until(place_.clock.now() + pause, place_.stop);
    end = again();
  }
  if (end) return end;
  if (is_doubtful(end.error())) return withdraw(std::move(end).error(), again);
  if (!may_be_done(end.error()) || !look() || occupant_->private_id != private_id_) return end;
  return again();  // public: and durable, when this says so
}

Status TargetExtent::withdraw(Error lost, const std::function<Status()>& again,
                              bool store_answers) {
  if (store_answers) {
    const Status fenced = place_.store.fence(name_, private_id_);
    if (fenced) {
      lost.message += "; it was withdrawn before it could take effect";
      return fail(std::move(lost));
    }
    if (fenced.error().code == Code::kFailedPrecondition) {
      if (Status known = again()) return known;
    }
  }
  leave_behind();
  scratch_.reset();  // the collector's now
  return fail(Error{Code::kUnavailable,
                    "whether it was published is not known, the store does not answer (" +
                        lost.message + "); it is there as a whole or not at all",
                    Side::kTarget,
                    "run the same command again when the store answers: it finds what is there, "
                    "and copies what is not",
                    Reason::kOutcomeUnknown});
}

std::vector<Status> TargetExtent::put_inline_many(const TargetPlace& place,
                                                  std::span<TargetExtent* const> extents,
                                                  std::span<const InlinePut> puts) {
  std::vector<Status> ends = place.store.put_inline_many(puts);
  const auto lost = [](const Status& end) { return !end && is_doubtful(end.error()); };
  const auto until = place.clock.now() + place.settle_timeout;
  for (auto pause = kFirstPause;
       std::ranges::any_of(ends, lost) && place.clock.now() < until && !place.stop.stop_requested();
       pause = std::min(2 * pause, kLongestPause)) {
    place.clock.pause_until(place.clock.now() + pause, place.stop);
    std::vector<InlinePut> again;
    std::vector<std::size_t> which;
    for (std::size_t i = 0; i < puts.size(); ++i) {
      if (!lost(ends[i])) continue;
      again.push_back(puts[i]);
      which.push_back(i);
    }
    std::vector<Status> second = place.store.put_inline_many(again);
    for (std::size_t i = 0; i < which.size(); ++i) ends[which[i]] = std::move(second[i]);
  }
  bool store_answers = true;
  for (std::size_t i = 0; i < puts.size(); ++i) {
    if (ends[i]) continue;
    const auto once_more = [&] {
      return place.store.put_inline(puts[i].name, puts[i].id, puts[i].bytes, puts[i].header);
    };
    TargetExtent& extent = *extents[i];
    if (is_doubtful(ends[i].error())) {
      // The head is about to name it: so that a crash leaves a trace to collect by.
      Status named = place.journal.add({place.store.location(), extent.name_, extent.private_id_});
      if (!named) log::warn("{}", named.error().message);
      Status end = extent.withdraw(std::move(ends[i]).error(), once_more, store_answers);
      if (!end && end.error().reason == Reason::kOutcomeUnknown) store_answers = false;
      // What the fence left in the head is the collector's, or the row is of no use any more.
      if (end) {
        place.journal.remove(extent.private_id_);
      } else if (end.error().reason != Reason::kOutcomeUnknown) {
        extent.leave_behind();
      }
      ends[i] = std::move(end);
    } else if (may_be_done(ends[i].error()) && extent.look() &&
               extent.occupant_->private_id == extent.private_id_) {
      ends[i] = once_more();
    }
  }
  return ends;
}

Status TargetExtent::look() {
  occupant_.reset();
  auto info = place_.store.stat(name_);
  if (!info) return fail(std::move(info).error());
  occupant_ = std::move(*info);
  return {};
}

void TargetExtent::drop_later() {
  if (!scratch_) return;
  leave_behind();
  scratch_.reset();
}

void TargetExtent::drop() {
  if (!scratch_) return;
  Status gone = scratch_->abort();
  if (gone && !scratch_->settled()) {
    leave_behind(kSettleTime);
  } else if (gone) {
    place_.journal.remove(private_id_);
  } else {
    log::warn("transfer {}: scratch {} of extent {} is left for the collector: {}", place_.spec.id,
              to_hex(private_id_), name_, gone.error().message);
    leave_behind();
  }
  scratch_.reset();
}

void TargetExtent::leave_behind(milliseconds settle_time) const {
  if (!place_.left_behind) return;
  place_.left_behind(
      {place_.store.location(), name_, private_id_, place_.clock.now() + settle_time});
}

}  // namespace siphon
