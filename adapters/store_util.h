// What every adapter says the same way: bounds of one read or write, and the register's answers.
// Pure functions, thread safe, header only.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "adapters/extent_store.h"
#include "plugin/base/status.h"

namespace siphon {

// The bounds of ExtentReader::read and ScratchExtent::write: at most `operation_bytes`, within
// one part, and not beyond `end_bytes`.
inline Status check_io_bounds(std::uint64_t offset_bytes, std::size_t length_bytes,
                              std::uint64_t end_bytes, std::uint32_t part_bytes,
                              std::uint32_t operation_bytes) {
  if (offset_bytes > end_bytes || length_bytes > end_bytes - offset_bytes) {
    return fail(Code::kOutOfRange, std::to_string(length_bytes) + " bytes at offset " +
                                       std::to_string(offset_bytes) + " end beyond the extent's " +
                                       std::to_string(end_bytes) + " bytes");
  }
  if (length_bytes > operation_bytes) {
    return fail(Code::kInvalidArgument, std::to_string(length_bytes) +
                                            " bytes in one operation; the limit is " +
                                            std::to_string(operation_bytes));
  }
  if (part_bytes == 0 || length_bytes > part_bytes - offset_bytes % part_bytes) {
    return fail(Code::kInvalidArgument, std::to_string(length_bytes) + " bytes at offset " +
                                            std::to_string(offset_bytes) +
                                            " cross a part boundary");
  }
  return {};
}

// Length of the largest operation that may start at `offset_bytes`, with `left_bytes` to do.
inline std::size_t operation_length(std::uint64_t offset_bytes, std::size_t left_bytes,
                                    std::uint32_t part_bytes, std::uint32_t operation_bytes) {
  std::uint64_t length = part_bytes - offset_bytes % part_bytes;
  if (length > operation_bytes) length = operation_bytes;
  return length < left_bytes ? static_cast<std::size_t>(length) : left_bytes;
}

// Reads any range of an extent, one operation after the other (a ByteSource for the decoders).
inline Status read_range(ExtentReader& reader, const StoreLimits& limits,
                         std::uint64_t offset_bytes, std::span<std::byte> out) {
  while (!out.empty()) {
    const std::size_t length = operation_length(
        offset_bytes, out.size(), reader.info().header.part_bytes, limits.operation_bytes);
    SIPHON_TRY(reader.read(offset_bytes, out.first(length)));
    offset_bytes += length;
    out = out.subspan(length);
  }
  return {};
}

// Writes any range of a scratch extent, one operation after the other.
inline Status write_range(ScratchExtent& scratch, const StoreLimits& limits,
                          std::uint64_t offset_bytes, std::span<const std::byte> in) {
  while (!in.empty()) {
    const std::size_t length =
        operation_length(offset_bytes, in.size(), scratch.part_bytes(), limits.operation_bytes);
    SIPHON_TRY(scratch.write(offset_bytes, in.first(length)));
    offset_bytes += length;
    in = in.subspan(length);
  }
  return {};
}

// For who would collect an attempt: it is one no more.
inline Error was_published(const std::string& what) {
  return {Code::kFailedPrecondition, what + ": this private id was published and is in the trash",
          Side::kNone, "siphon trash ls shows it; siphon trash purge removes it"};
}

// What `siphon::apply` (here or in the class) answered, as an Error. `rc` is not 0.
inline Error transition_error(int rc, Transition kind, std::string_view name) {
  std::string extent = "extent " + std::string(name);
  switch (rc) {
    case -EEXIST:
      if (kind == Transition::kCondemn) return was_published(extent);
      return {kind == Transition::kSeal ? Code::kAborted : Code::kAlreadyExists,
              extent + (kind == Transition::kSeal ? " was sealed otherwise meanwhile"
                                                  : " already exists"),
              Side::kNone,
              kind == Transition::kPublish   ? "replace it, or choose another name"
              : kind == Transition::kRestore ? "trash the current one first"
                                             : ""};
    case -ESTALE:
      return {Code::kAborted, extent + " was changed by somebody else meanwhile", Side::kNone,
              "look at it again, then retry"};
    case -ENOENT:
      if (kind == Transition::kSeal) return transition_error(-ESTALE, kind, name);
      if (kind == Transition::kPublish) {
        return {Code::kAborted, extent + ": this attempt is no longer known there", Side::kNone,
                "start a new attempt"};
      }
      if (kind == Transition::kRestore) {
        return {Code::kNotFound, extent + ": the trash does not hold this generation", Side::kNone,
                "look at what it holds"};
      }
      return {Code::kNotFound, extent + ": no such attempt", Side::kNone, ""};
    case -ECANCELED:
      if (kind == Transition::kSeal) return transition_error(-ESTALE, kind, name);
      return {Code::kAborted, extent + ": this attempt was condemned", Side::kNone,
              "start a new attempt"};
    case -EUSERS:
      return {Code::kResourceExhausted, extent + " has too many attempts or trashed generations",
              Side::kNone, "collect its leftovers, or purge its trash"};
    case -EINVAL:
      if (kind == Transition::kReserve) return transition_error(-ECANCELED, kind, name);
      return {Code::kInvalidArgument, extent + ": the request contradicts itself", Side::kNone, ""};
    default:
      return error_from_errno(-rc, extent);
  }
}

// Arguments of ExtentStore::begin.
inline Status check_begin(const BeginOptions& options, const StoreLimits& limits) {
  if (options.private_id.empty()) return fail(Code::kInvalidArgument, "begin: no private id");
  if (options.extent_bytes > limits.max_extent_bytes) {
    return fail(Code::kInvalidArgument,
                std::to_string(options.extent_bytes) + " bytes are above max_extent_bytes, " +
                    std::to_string(limits.max_extent_bytes),
                Side::kNone, "put it in pieces, or raise transfer.max_extent_bytes at the target");
  }
  return {};
}

// What ExtentStore::begin asks of the register. A renewal names no part size, without which nothing
// new is reserved.
inline TransitionRequest reserve_request(const BeginOptions& options, const StoreLimits& limits) {
  TransitionRequest request;
  request.kind = Transition::kReserve;
  request.id = options.private_id;
  request.header.extent_bytes = options.extent_bytes;
  request.header.part_bytes = options.renews ? 0 : limits.part_bytes;
  request.lease_unix_ms = options.lease_unix_ms;
  return request;
}

// What ScratchExtent::publish asks of the register; `generation` is what `begin` saw.
inline TransitionRequest publish_request(const PrivateId& id, std::uint64_t generation,
                                         const SealedHeader& header, std::uint32_t part_bytes,
                                         bool replace, ExtentState as_state) {
  TransitionRequest request;
  request.kind = Transition::kPublish;
  request.id = id;
  request.replace = replace;
  request.open = as_state == ExtentState::kOpen;
  request.expected_generation = generation;
  request.header = header;
  request.header.part_bytes = part_bytes;
  request.now_unix_ms = now_unix_ms();
  return request;
}

// What ExtentStore::put_inline asks of it.
inline TransitionRequest inline_request(const PrivateId& id, const SealedHeader& header,
                                        const StoreLimits& limits) {
  TransitionRequest request =
      publish_request(id, TransitionRequest::kAnyGeneration, header, limits.part_bytes,
                      /*replace=*/false, ExtentState::kSealed);
  request.is_inline = true;
  return request;
}

// What ExtentStore::seal asks of it.
inline TransitionRequest seal_request(const ExtentInfo& seen, const SealedHeader& header,
                                      const HeadRegister& reg) {
  TransitionRequest request;
  request.kind = Transition::kSeal;
  request.id = seen.private_id;
  request.expected_generation = seen.generation;
  request.header = header;
  request.header.part_bytes = reg.header.part_bytes;
  return request;
}

// A step of `id` towards its end: condemn, discard, forget. Refused when the name shows another
// generation by then.
inline TransitionRequest removal_request(Transition kind, const PrivateId& id,
                                         std::uint64_t generation) {
  TransitionRequest request;
  request.kind = kind;
  request.id = id;
  request.expected_generation = generation;
  request.now_unix_ms = now_unix_ms();
  return request;
}

// Arguments of ExtentStore::put_inline.
inline Status check_inline(const PrivateId& id, std::size_t bytes, const SealedHeader& header,
                           const StoreLimits& limits) {
  if (id.empty()) return fail(Code::kInvalidArgument, "put_inline: no private id");
  if (bytes > limits.inline_max_bytes) {
    return fail(Code::kInvalidArgument, std::to_string(bytes) + " bytes inline; the limit is " +
                                            std::to_string(limits.inline_max_bytes));
  }
  if (bytes != header.extent_bytes) {
    return fail(Code::kInvalidArgument, std::to_string(bytes) + " bytes inline; the header says " +
                                            std::to_string(header.extent_bytes));
  }
  return {};
}

// The current extent is the one that ExtentStore::seal or trash is to change. Said again by the
// private id in the transition, for what happens in between.
inline Status check_seen(std::string_view name, const HeadRegister& reg, const ExtentInfo& seen) {
  if (reg.current == seen.private_id) return {};
  return fail(transition_error(-ESTALE, Transition::kCondemn, name));
}

// Arguments of ExtentStore::seal; `available_bytes` is what the open extent holds.
inline Status check_seal(std::string_view name, std::uint64_t offset_bytes, std::size_t tail_bytes,
                         std::uint64_t available_bytes, const SealedHeader& header) {
  if (offset_bytes > available_bytes) {
    return fail(Code::kOutOfRange, "seal " + std::string(name) + ": the tail would leave a hole");
  }
  if (tail_bytes > header.extent_bytes || offset_bytes != header.extent_bytes - tail_bytes) {
    return fail(Code::kInvalidArgument,
                "seal " + std::string(name) + ": offset and tail do not make the header's length");
  }
  return {};
}

// ExtentInfo as the register has it.
inline ExtentInfo info_from_register(std::string_view name, const HeadRegister& reg) {
  ExtentInfo info;
  info.name = std::string(name);
  info.generation = reg.generation;
  info.state = reg.state;
  info.is_inline = reg.is_inline;
  info.private_id = reg.current;
  info.header = reg.header;
  info.scratch_count = static_cast<std::uint32_t>(reg.reservations.size());
  info.trash_count = static_cast<std::uint32_t>(reg.trash.size());
  return info;
}

// What brings the trashed `id` back.
inline TransitionRequest restore_request(const HeadRegister& reg, const PrivateId& id) {
  TransitionRequest request;
  request.kind = Transition::kRestore;
  request.id = id;
  request.expected_generation = TransitionRequest::kAnyGeneration;
  request.now_unix_ms = now_unix_ms();
  for (const TrashEntry& entry : reg.trash) {
    if (entry.id != id || entry.state != ExtentState::kNone) continue;
    request.open = true;  // its header is not known: sealing it again finds it
    request.header = entry.header;
  }
  return request;
}

// Whether the register knows of `id`, in whatever role.
inline bool names_id(const HeadRegister& reg, const PrivateId& id) {
  const auto is_it = [&](const auto& entry) { return entry.id == id; };
  return (reg.state != ExtentState::kNone && reg.current == id) ||
         std::any_of(reg.reservations.begin(), reg.reservations.end(), is_it) ||
         std::any_of(reg.trash.begin(), reg.trash.end(), is_it);
}

// What purge_trash removes: all trash, and attempts whose lease is over.
struct Purgeable {
  PrivateId id;
  std::optional<std::uint64_t> trashed_unix_ms;  // of what is in the trash
};
inline std::vector<Purgeable> purgeable(const HeadRegister& reg, std::uint64_t now_unix_ms) {
  std::vector<Purgeable> all;
  for (const TrashEntry& entry : reg.trash) all.push_back({entry.id, entry.trashed_unix_ms});
  for (const Reservation& entry : reg.reservations) {
    if (entry.lease_unix_ms < now_unix_ms) all.push_back({entry.id, std::nullopt});
  }
  return all;
}

// Whether what was published of `id` may go: only as an entry of the trash that is still the one
// which was seen, at its time. An attempt may always.
inline Status check_removal(const HeadRegister& reg, const PrivateId& id,
                            std::optional<std::uint64_t> trashed_unix_ms, const std::string& what) {
  if (reg.state != ExtentState::kNone && reg.current == id) {
    return fail(Code::kFailedPrecondition, what + ": this private id is its current one");
  }
  for (const TrashEntry& entry : reg.trash) {
    if (entry.id != id || !entry.was_published || entry.trashed_unix_ms == trashed_unix_ms)
      continue;
    if (!trashed_unix_ms) return fail(was_published(what));
    return fail(Code::kFailedPrecondition,
                what +
                    ": this generation has been restored, and trashed again, since it was "
                    "looked at",
                Side::kNone, "siphon trash ls shows it; siphon trash purge removes it");
  }
  return {};
}

// What ScratchExtent::read says when there is less than it was asked for.
inline Error scratch_is_short(std::string_view name) {
  return {Code::kDataLoss,
          "what was written of extent " + std::string(name) + " is not there, or not all of it",
          Side::kTarget, "run the copy again"};
}

// What ExtentStore::corrupt_head says of one that is not.
inline Error register_in_order(std::string_view name) {
  return {Code::kFailedPrecondition,
          "extent " + std::string(name) + ": its head register is in order; nothing was removed",
          Side::kRequester, "siphon stat, siphon rm, siphon trash ls"};
}

// "whole up to byte 3 alone, of the 9 that its head promises: ..."
inline std::string how_much_is_there(std::uint64_t whole_bytes, std::uint64_t promised_bytes) {
  const std::string there = std::to_string(whole_bytes), promised = std::to_string(promised_bytes);
  if (whole_bytes > promised_bytes) {
    return there + " bytes are there, where its head promises " + promised;
  }
  return "whole up to byte " + there + " alone, of the " + promised +
         " bytes that its head promises: a part is missing or short";
}

// `whole_bytes`: up to where nothing is missing; what lies behind that nobody has counted.
inline Error parts_missing(const std::string& what, std::uint64_t whole_bytes,
                           std::uint64_t promised_bytes) {
  return {Code::kDataLoss, what + ": " + how_much_is_there(whole_bytes, promised_bytes),
          Side::kNone, "see what is left of it: siphon verify"};
}

// Of a generation in the trash. `whole_bytes` as above, of a sealed one; none: nothing is left.
// `first`: what to do before the entry is removed; `address`: the extent, for a command.
inline Error kept_not_whole(const std::string& what, const TrashEntry& entry,
                            std::optional<std::uint64_t> whole_bytes, const std::string& first,
                            const std::string& address) {
  const std::string id = to_hex(entry.id);
  const std::string which = what + ": the generation in the trash, private id " + id;
  return {Code::kDataLoss,
          whole_bytes ? which + ": " + how_much_is_there(*whole_bytes, entry.header.extent_bytes)
                      : which + ": its bytes are gone",
          Side::kNone,
          first + "; or remove the entry: siphon trash purge --private-id " + id + " " + address};
}

}  // namespace siphon
