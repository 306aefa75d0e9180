#include "plugin/transfer/machine.h"

#include "plugin/format/extent_format.h"

namespace siphon {

Phase next_phase(Phase phase, Event event, bool any_failed) {
  if (is_final(phase)) return phase;
  switch (event) {
    case Event::kCancel:
      return Phase::kCancelled;
    case Event::kError:
    case Event::kPeerLost:
    case Event::kTimeout:
      return Phase::kFailed;
    case Event::kStarted:
      return phase == Phase::kQueued ? Phase::kReserve : phase;
    case Event::kReserved:
      return phase == Phase::kReserve ? Phase::kListen : phase;
    case Event::kLanesProven:
      return phase == Phase::kListen ? Phase::kStream : phase;
    case Event::kAllReceived:
      return phase == Phase::kStream ? Phase::kCompare : phase;
    case Event::kAllCompared:
      return phase == Phase::kCompare ? Phase::kPublish : phase;
    case Event::kAllPublished:
      if (phase != Phase::kPublish) return phase;
      return any_failed ? Phase::kFailed : Phase::kSucceeded;
  }
  return phase;
}

Status compare(const Evidence& e) {
  const SealedHeader& sealed = e.claim.header;
  const std::string who = "extent " + e.extent + ": ";
  const std::string safe = "; the source is untouched";
  // What is published under this header is what others decide by, so it has to be true in itself.
  if (Status sound = check_sealed_header(sealed); !sound) {
    return fail(Code::kDataLoss,
                who + "the source names a sealed header that cannot be: " + sound.error().message +
                    "; nothing was published",
                Side::kSource, "siphon verify on the source, then restore the extent there");
  }
  if (!sealed.has_digest()) {
    return fail(Code::kFailedPrecondition,
                who + "the source names no content digest; nothing was published", Side::kSource,
                "its siphond is older than this one: update it, then run the copy again");
  }
  if (e.claim.bytes != sealed.extent_bytes || e.claim.crc32 != sealed.crc32) {
    return fail(Code::kDataLoss,
                who + "the source read " + std::to_string(e.claim.bytes) + " bytes with crc32 " +
                    crc32_hex(e.claim.crc32) + ", but it was sealed with " +
                    std::to_string(sealed.extent_bytes) + " bytes and crc32 " +
                    crc32_hex(sealed.crc32) + ": rot at the source, not propagated",
                Side::kSource, "siphon verify on the source, then restore the extent there");
  }
  if (e.received_bytes != e.claim.bytes || !e.target_crc32) {
    return fail(Code::kDataLoss,
                who + "the target has received " + std::to_string(e.received_bytes) + " of " +
                    std::to_string(e.claim.bytes) + " bytes" + safe,
                Side::kWire, "run the copy again");
  }
  if (*e.target_crc32 != e.claim.crc32) {
    return fail(Code::kDataLoss,
                who + "checksum mismatch (source " + crc32_hex(e.claim.crc32) + ", target " +
                    crc32_hex(*e.target_crc32) + ")" + safe,
                Side::kWire, "run the copy again");
  }
  return {};
}

Status ExtentMachine::on_frame(std::uint64_t extent_bytes, std::uint64_t offset_bytes,
                               std::uint64_t length_bytes, std::uint32_t crc) {
  if (state_ != State::kWaiting && state_ != State::kReceiving) {
    return fail(Code::kAborted, "extent " + name_ + ": a frame after its end", Side::kSource);
  }
  auto refuse = [&](Error error) -> Status {
    on_error(error);
    return fail(std::move(error));
  };
  if (state_ == State::kWaiting) {
    extent_bytes_ = extent_bytes;
    state_ = State::kReceiving;
  } else if (extent_bytes != extent_bytes_) {
    return refuse({Code::kOutOfRange,
                   "extent " + name_ + ": one frame says it has " + std::to_string(extent_bytes_) +
                       " bytes, another " + std::to_string(extent_bytes),
                   Side::kSource,
                   {}});
  }
  if (++frames_ > kFreeFrames + assembly_.covered_bytes() / kLeastMeanBytes) {
    return refuse({Code::kOutOfRange,
                   "extent " + name_ + ": " + std::to_string(frames_) + " frames brought only " +
                       std::to_string(assembly_.covered_bytes()) + " bytes",
                   Side::kSource,
                   {}});
  }
  Status added = assembly_.add(offset_bytes, length_bytes, crc, extent_bytes_);
  if (!added) return refuse(std::move(added.error()).with_context("extent " + name_));
  if (auto whole = assembly_.complete(extent_bytes_)) target_crc32_ = *whole;
  return {};
}

void ExtentMachine::on_claim(const SourceClaim& claim) {
  if (state_ != State::kPublished && !claim_) claim_ = claim;
}

void ExtentMachine::on_error(Error error) {
  if (state_ == State::kPublishing || done()) return;
  error_ = std::move(error);
  state_ = State::kFailed;
}

bool ExtentMachine::complete() const {
  return state_ == State::kReceiving && claim_ && assembly_.complete(extent_bytes_);
}

bool ExtentMachine::start_publishing(bool durable_needed) {
  if (!complete() || (durable_needed && durable_bytes_ != extent_bytes_)) return false;
  Status equal =
      compare({name_, assembly_.covered_bytes(), assembly_.complete(extent_bytes_), *claim_});
  if (!equal) {
    on_error(std::move(equal).error());
    return false;
  }
  state_ = State::kPublishing;
  return true;
}

void ExtentMachine::on_published() {
  if (state_ == State::kPublishing) state_ = State::kPublished;
}

void ExtentMachine::on_found_there() {
  if (state_ == State::kPublishing) return;
  state_ = State::kPublished;
  error_.reset();
}

void ExtentMachine::on_differs(Error error) {
  if (state_ == State::kFailed) error_ = std::move(error);
}

void ExtentMachine::on_publish_failed(Error error) {
  if (state_ != State::kPublishing) return;
  error_ = std::move(error);
  state_ = State::kFailed;
}

}  // namespace siphon
