// What a TargetTransfer settles before the first byte: receipts of an earlier try, extents that are
// too large, names that are taken. The last again when the publishes are over.
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "plugin/core/mutex.h"
#include "plugin/transfer/target_impl.h"

namespace siphon {

Error too_large(const std::string& extent, std::uint64_t bytes, std::uint64_t limit) {
  return {Code::kInvalidArgument,
          "extent " + extent + " has " + std::to_string(bytes) +
              " bytes; the target takes no more than " + std::to_string(limit) +
              "; the source is untouched",
          Side::kTarget,
          "raise transfer.max_extent_bytes at the target: one placement group holds all"
          " of an extent"};
}

namespace {

// A folder has no name but its device's.
std::string already_at(const std::string& extent, const Location& place) {
  const std::string in = place.pool.empty() ? "" : "in " + place.to_string() + " ";
  return "extent " + extent + " is already " + in + "at the target";
}

Error name_taken(const std::string& extent, const Location& place) {
  return {Code::kAlreadyExists, already_at(extent, place) + "; nothing was copied", Side::kTarget,
          "copy with --replace, or remove it first"};
}

Error differs(const std::string& extent, const Location& place, ExtentState state) {
  return {Code::kAlreadyExists,
          already_at(extent, place) + " and " + (state == ExtentState::kOpen ? "open" : "differs") +
              "; nothing was copied",
          Side::kTarget, "choose another name, or --replace --yes-i-really-mean-it",
          Reason::kDiffers};
}

// It is the source's fault then that nothing was copied, whoever else has the name.
Error cannot_compare(const Error& why, const std::string& extent, const Location& place) {
  return why.with_context(already_at(extent, place) + ", and was to be compared with the source's")
      .with_suspect(Side::kSource);
}

Error damaged_there(const Error& found) {
  Error error = found.with_context("it is at the target already, but damaged there");
  error.suspect = Side::kTarget;
  error.next_step = "put the source's in its place: --replace --yes-i-really-mean-it";
  return error;
}

}  // namespace

// Extents that have their receipts from an earlier try: the same ones again.
void TargetTransfer::settle_known() {
  std::map<std::pair<std::string_view, std::string_view>, const Receipt*> known;
  for (const Receipt& r : known_) {
    if (spec_.check_blocks && !r.blocks_checked) continue;  // of a try that asked for less
    if (r.source == spec_.source && r.target == spec_.target) {
      known.try_emplace({r.source_extent, r.target_extent}, &r);
    }
  }
  if (known.empty()) return;
  const MutexLock lock(mutex_);
  for (auto& extent : extents_) {
    const auto it = known.find({extent->pair.source, extent->pair.target});
    if (it == known.end()) continue;
    extent->receipt = *it->second;
    extent->machine.on_found_there();
    add_outcome_locked(*extent);
  }
  known_.clear();
}

// What the requester says is too large, and the source, too. Of others it shows with the first
// frame.
void TargetTransfer::refuse_too_large() {
  const std::uint64_t most = env_.settings.max_extent_bytes;
  std::vector<Extent*> large;
  for (auto& extent : extents_) {
    if (!extent->machine.done() && extent->pair.planned_bytes > most) large.push_back(extent.get());
  }
  if (large.empty()) return;
  ask_headers(large);
  const MutexLock lock(mutex_);
  for (Extent* extent : large) {
    if (extent->source_header && extent->source_header->extent_bytes > most) {
      extent->on_error(too_large(extent->pair.source, extent->source_header->extent_bytes, most));
    }
  }
}

// Looks for names that are taken, before the first byte. A look per extent pays when extents are
// few or large; of the others the publish finds out.
void TargetTransfer::look_at_names() {
  constexpr std::size_t kLookFirst = 64;
  constexpr int kSilences = 2;
  int silences = 0;
  for (auto& extent : extents_) {
    const bool large = extent->pair.planned_bytes > store_limits_.inline_max_bytes;
    if (extents_.size() > kLookFirst && !large) continue;
    if (extent->machine.done() || stop_.stop_requested()) continue;
    Status taken = extent->stored.look();
    if (!taken && taken.error().code == Code::kNotFound) continue;
    const MutexLock lock(mutex_);
    if (!taken) {
      // It is this one's error alone; a store that does not answer is not asked for all of them.
      silences += is_retryable(taken.error().code);
      extent->on_error(std::move(taken).error().with_suspect(Side::kTarget));
      if (silences == kSilences) return;
    } else if (!spec_.replace) {
      extent->on_error(name_taken(extent->pair.target, spec_.target));
    }
  }
}

// Names that are taken: by the same content, which is success, or by another?
void TargetTransfer::settle_taken() {
  std::vector<Extent*> taken, unclaimed;
  {
    const MutexLock lock(mutex_);
    for (auto& extent : extents_) {
      if (extent->machine.state() != ExtentMachine::State::kFailed || extent->has_outcome) continue;
      const Code code = extent->machine.error()->code;
      if (code != Code::kAlreadyExists && code != Code::kAborted) continue;
      taken.push_back(extent.get());
      if (!extent->machine.claim() && !extent->source_header) unclaimed.push_back(extent.get());
    }
  }
  if (!unclaimed.empty() && !cancel_requested_) ask_headers(unclaimed);
  for (Extent* extent : taken) {
    // What made an attempt stale came after the last look.
    const bool stale = extent->machine.error()->code == Code::kAborted;
    if (stale || !extent->stored.occupant()) (void)extent->stored.look();
    const std::optional<ExtentInfo>& there = extent->stored.occupant();
    // The head's word is not enough: its parts may be missing or short.
    const Status whole =
        there && there->state == ExtentState::kSealed ? store_.check_parts(*there) : Status{};
    const MutexLock lock(mutex_);
    const std::optional<SourceClaim>& claim = extent->machine.claim();
    if (!claim && !extent->source_header) {
      if (extent->source_error && !stale && !cancel_requested_) {
        extent->machine.on_differs(
            cannot_compare(*extent->source_error, extent->pair.target, spec_.target));
      }
      continue;
    }
    if (!there) continue;
    const SealedHeader& ours = claim ? claim->header : *extent->source_header;
    const bool same = there->state == ExtentState::kSealed && same_content(ours, there->header);
    if (same && !whole) {
      extent->machine.on_differs(damaged_there(whole.error()));
    } else if (same) {
      // Proven by the digests; the checksums are those of the headers.
      Receipt r = receipt_of(*extent, {there->header, there->header.extent_bytes, ours.crc32},
                             there->header.crc32, there->private_id);
      r.already_there = true;
      r.blocks_checked = false;
      extent->receipt = std::move(r);
      extent->machine.on_found_there();
      add_outcome_locked(*extent);
    } else if (!stale && (there->state != ExtentState::kSealed ||
                          (ours.has_digest() && there->header.has_digest()))) {
      extent->machine.on_differs(differs(extent->pair.target, spec_.target, there->state));
    }
  }
}

// What the source's sealed headers say of extents whose bytes are not wanted.
void TargetTransfer::ask_headers(const std::vector<Extent*>& extents) {
  StreamCall call = second_call_for(extents);
  call.headers_only = true;
  call.data = {env_.settings.data_address, 0};
  call.deadline = env_.settings.second_call_timeout;
  call.ticket = Ticket::make(ticket_binding(call));
  const auto take = [&](const SourceReport& report) {
    const MutexLock lock(mutex_);
    if (!report.source_device.empty()) source_device_ = report.source_device;
    for (const SourceReport::Extent& e : report.extents) {
      if (e.index >= extents.size()) continue;
      if (e.claim) {
        extents[e.index]->source_header = e.claim->header;
      } else {
        extents[e.index]->source_error = e.claim.error();
      }
    }
  };
  const StreamEnd end = env_.caller.stream(call, take, cancel_.get_token());
  const MutexLock lock(mutex_);
  header_rpc_bytes_ += end.rpc_bytes;
  if (end.status) return;
  const Error& why = end.status.error();
  for (Extent* extent : extents) {
    if (why.reason == Reason::kSameThing) {
      extent->machine.on_differs(why);
    } else if (!extent->source_error) {
      extent->source_error = why;
    }
  }
}

}  // namespace siphon
