// The decisions of a transfer, without I/O, threads or clocks: what phase it is in, whether an
// extent's evidence suffices, and what the operator is told when it does not.
//
//   queued -> reserve -> listen -> stream -> compare -> publish -> succeeded
//        any of them --error, peer lost, timeout--> failed
//        any of them --cancel--> cancelled          a final phase never changes
//
// On disk: until `listen` nothing; then the reservations of the first large extents (the others'
// are made with their first frames); in `stream` and `compare` scratch under private ids; from
// `publish` on, what has its receipt is public, and the rest is scratch until it is removed.
// Not thread safe; the target's transfer guards its sessions with one mutex.
#pragma once

#include <cstdint>
#include <optional>

#include "plugin/base/crc32.h"
#include "plugin/transfer/types.h"

namespace siphon {

enum class Event : int {
  kStarted,       // left the queue
  kReserved,      // authority, store and buffers are in order
  kLanesProven,   // every lane has shown the ticket
  kAllReceived,   // the lanes have ended
  kAllCompared,   // the second call has returned
  kAllPublished,  // every extent has its receipt or its error
  kError,
  kPeerLost,
  kTimeout,
  kCancel,
};

// The phase after `event`. Events that do not fit the phase (late, repeated) leave it alone.
// kAllPublished with a failed extent ends in kFailed.
Phase next_phase(Phase phase, Event event, bool any_failed);

// What one extent's source said in the return of the second call.
struct SourceClaim {
  SealedHeader header;
  std::uint64_t bytes = 0;
  std::uint32_t crc32 = 0;
};

// Everything that success needs, gathered for one extent.
struct Evidence {
  std::string extent;                         // for the error's sentence
  std::uint64_t received_bytes = 0;           // verified against the frames' own checksums
  std::optional<std::uint32_t> target_crc32;  // of exactly [0, claim.bytes), once covered
  SourceClaim claim;
};
// Pure: OK when the claimed header is sound and has a content digest, and lengths and the three
// checksums agree. DATA_LOSS otherwise, naming the suspect.
Status compare(const Evidence& evidence);

// One extent at the target, from its first frame to its receipt.
class ExtentMachine {
 public:
  enum class State : int { kWaiting, kReceiving, kPublishing, kPublished, kFailed };

  explicit ExtentMachine(std::string name) : name_(std::move(name)) {}

  // Frames that an extent may come in, whatever their length; beyond them each must have brought
  // kLeastMeanBytes in the mean. A store's smallest operations bring far more.
  static constexpr std::uint64_t kFreeFrames = 1024, kLeastMeanBytes = 1024;

  // A frame has arrived and its checksum holds. OUT_OF_RANGE: overlap, a size that contradicts
  // the frames before, or frames so small that they cost more than they bring; the extent has
  // failed then.
  Status on_frame(std::uint64_t extent_bytes, std::uint64_t offset_bytes,
                  std::uint64_t length_bytes, std::uint32_t crc);
  void on_durable(std::uint64_t length_bytes) { durable_bytes_ += length_bytes; }
  // Kept of a failed one, too: it tells what the source has.
  void on_claim(const SourceClaim& claim);
  // The first error stays; nothing changes once published (or while publishing).
  void on_error(Error error);

  // All bytes are in and the source has spoken, so it can be compared now.
  bool complete() const;
  // Compares; equal: moves to kPublishing and returns true, exactly once. An unequal one
  // moves to kFailed. `durable_needed`: false for an inline extent, whose write is its publish.
  bool start_publishing(bool durable_needed);
  void on_published();
  void on_publish_failed(Error error);
  // It is at the target already: by an earlier try, or by somebody else with the same content. Not
  // while publishing.
  void on_found_there();
  // What failed because its name is taken has failed for this reason.
  void on_differs(Error error);

  State state() const { return state_; }
  bool done() const { return state_ == State::kPublished || state_ == State::kFailed; }
  const std::string& name() const { return name_; }
  const std::optional<Error>& error() const { return error_; }
  const std::optional<SourceClaim>& claim() const { return claim_; }
  std::uint64_t extent_bytes() const { return extent_bytes_; }
  std::uint64_t durable_bytes() const { return durable_bytes_; }
  std::uint64_t received_bytes() const { return assembly_.covered_bytes(); }
  std::size_t pieces() const { return assembly_.pieces(); }
  std::uint32_t target_crc32() const { return target_crc32_; }

 private:
  std::string name_;
  State state_ = State::kWaiting;
  Crc32Assembly assembly_;
  std::uint64_t extent_bytes_ = 0;
  std::uint64_t durable_bytes_ = 0;
  std::uint64_t frames_ = 0;
  std::uint32_t target_crc32_ = 0;
  std::optional<SourceClaim> claim_;
  std::optional<Error> error_;
};

}  // namespace siphon
