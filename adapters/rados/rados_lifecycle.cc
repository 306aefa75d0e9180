// RadosStore: how extents leave. The trash, what is left of attempts, registers that do not decode.
#include <algorithm>
#include <array>
#include <cerrno>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "adapters/rados/aio_window.h"
#include "adapters/rados/parts.h"
#include "adapters/rados/pool_state.h"
#include "adapters/rados/rados_internal.h"
#include "adapters/rados/rados_store.h"
#include "adapters/store_util.h"
#include "plugin/base/text.h"

namespace siphon {
namespace {

using rados_internal::head_object;
using rados_internal::is_decision;
using rados_internal::to_error;

}  // namespace

Status RadosStore::trash(std::string_view name, const ExtentInfo& seen) {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  if (head->reg.state == ExtentState::kNone) return fail(no_extent(name));
  SIPHON_TRY(check_seen(name, head->reg, seen));
  const TransitionRequest request =
      removal_request(Transition::kCondemn, seen.private_id, seen.generation);
  return transition(io, name, request);
}

// Looks again before anybody goes on to what cannot be undone: the class of an older build answers
// 0 for whatever is in the trash. An attempt that is condemned once stays that.
Status RadosStore::condemn_attempt(librados::IoCtx& io, std::string_view name, const PrivateId& id,
                                   const HeadRegister& seen) {
  // The generation refuses what was published just now.
  Status condemned =
      transition(io, name, removal_request(Transition::kCondemn, id, seen.generation));
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  SIPHON_TRY(check_removal(head->reg, id, std::nullopt, describe(name)));
  return condemned;
}

Status RadosStore::drop(std::string_view name, const PrivateId& id, std::uint64_t at_least,
                        bool keep_entry, std::optional<std::uint64_t> trashed_unix_ms) {
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head && head.error().reason == Reason::kNotSiphons) {
    head = StoredHead{};  // the parts of a private id are ours all the same
  }
  if (!head) return fail(std::move(head).error());
  const HeadRegister& reg = head->reg;
  SIPHON_TRY(check_removal(reg, id, trashed_unix_ms, describe(name)));
  TransitionRequest request;
  request.id = id;
  request.now_unix_ms = now_unix_ms();
  // Without a trace of it, and without a size, the parts are looked for.
  bool in_register = false, is_inline = false;
  bool look_further = false;
  std::uint64_t known_parts = 0;
  for (const Reservation& entry : reg.reservations) {
    if (entry.id != id) continue;
    in_register = true;
    known_parts = believable_parts(entry.extent_bytes, entry.part_bytes, limits_.max_extent_bytes,
                                   look_further);
    SIPHON_TRY(condemn_attempt(io, name, id, reg));
  }
  for (const TrashEntry& entry : reg.trash) {
    if (entry.id != id) continue;
    in_register = true;
    is_inline = entry.is_inline;
    known_parts = believable_parts(entry.header.extent_bytes, entry.header.part_bytes,
                                   limits_.max_extent_bytes, look_further);
    if (!entry.was_published) continue;
    request.kind = Transition::kDiscard;           // from here on no restore brings it back
    request.expected_generation = reg.generation;  // refuses if it was restored just now
    SIPHON_TRY(transition(io, name, request));
  }
  if (!is_inline) {
    const int result =
        remove_parts(io, id, std::max(known_parts, at_least), look_further || known_parts == 0);
    if (result < 0) return fail(to_error(result, "remove what is left of " + describe(name)));
  }
  if (!in_register || keep_entry) return {};
  request.kind = Transition::kForget;
  return transition(io, name, request);
}

Status RadosStore::collect(std::string_view name, const PrivateId& id) {
  SIPHON_TRY(check_extent_name(name));
  return drop(name, id, 0, false);
}

Status RadosStore::purge(std::string_view name, const PrivateId& id,
                         std::uint64_t trashed_unix_ms) {
  SIPHON_TRY(check_extent_name(name));
  return drop(name, id, 0, false, trashed_unix_ms);
}

// The register decides, whatever still is on its way to the OSD: with a reservation in the head an
// exclusive create of it fails, and with the id condemned a publish does.
Status RadosStore::fence(std::string_view name, const PrivateId& id) {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  TransitionRequest request;
  request.kind = Transition::kReserve;
  request.id = id;
  request.header.part_bytes = limits_.part_bytes;
  request.now_unix_ms = now_unix_ms();
  request.lease_unix_ms = request.now_unix_ms;
  const int reserved = io_->transition(io, head_object(name), request);
  const bool in_trash = reserved == -ECANCELED;
  if (reserved < 0 && is_decision(reserved) && !in_trash) {
    return fail(transition_error(reserved, request.kind, name));
  }
  if (reserved < 0 && !in_trash) {
    return fail(to_error(reserved, "change the head of " + describe(name)));
  }
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  SIPHON_TRY(check_removal(head->reg, id, std::nullopt, describe(name)));
  if (in_trash) return {};  // condemned already
  return condemn_attempt(io, name, id, head->reg);
}

Result<HeadRegister> RadosStore::inspect(std::string_view name) {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  return std::move(head->reg);
}

Result<std::optional<UnnamedParts>> RadosStore::find_unnamed(std::string_view name,
                                                             const PartsSeen& seen) try {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  if (names_id(head->reg, seen.id)) return std::nullopt;
  UnnamedParts found;
  found.has_head = head->present;
  bool any = false;
  for (std::uint64_t next = 0; next < seen.end; next += kAioWindow) {
    const auto count =
        static_cast<std::size_t>(std::min<std::uint64_t>(kAioWindow, seen.end - next));
    std::array<int, kAioWindow> results{};
    std::array<std::uint64_t, kAioWindow> sizes{};
    std::array<timespec, kAioWindow> times{};
    run_window(count, results, [&](std::size_t i, librados::AioCompletion* completion) {
      librados::ObjectReadOperation operation;
      operation.stat2(&sizes[i], &times[i], nullptr);
      return io.aio_operate(part_object(seen.id, next + i), completion, &operation, nullptr);
    });
    for (std::size_t i = 0; i < count; ++i) {
      if (results[i] == -ENOENT) continue;
      if (results[i] < 0) return fail(to_error(results[i], "look at parts of " + describe(name)));
      any = true;
      found.bytes += sizes[i];
      found.written_unix_ms =
          std::max(found.written_unix_ms, static_cast<std::uint64_t>(times[i].tv_sec) * 1000);
    }
  }
  if (!any) return std::nullopt;
  return found;
} catch (const std::exception& e) {
  return fail(Code::kUnavailable, "look at parts of " + describe(name) + ": " + e.what());
}

// A private id is reserved in the head before its first part exists, and never twice: one that the
// head does not name has ended, and no attempt comes back to it.
Status RadosStore::remove_unnamed(std::string_view name, const PartsSeen& seen) {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  if (names_id(head->reg, seen.id)) {
    return fail(Code::kFailedPrecondition,
                describe(name) + ": its head names private id " + to_hex(seen.id) +
                    " now; nothing was removed",
                Side::kNone, "look again: siphon scratch ls");
  }
  const int result = remove_parts(io, seen.id, seen.end, false);
  if (result < 0) return fail(to_error(result, "remove what is left of " + describe(name)));
  return {};
}

Status RadosStore::restore(std::string_view name, const PrivateId& id) {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  for (const TrashEntry& entry : head->reg.trash) {
    if (entry.id != id || !entry.was_published || !entry.is_inline ||
        entry.state != ExtentState::kNone) {
      continue;
    }
    return fail(Code::kFailedPrecondition,
                describe(name) +
                    ": an older version of Siphon put it into the trash without its header, and "
                    "it lies in its head alone: it cannot be made current again",
                Side::kNone,
                "its bytes are still there: " + rados_command(name) + " get " +
                    shell_word(head_object(name)) + " FILE");
  }
  return transition(io, name, restore_request(head->reg, id));
}

// ---- a register that does not decode ---------------------------------------------------------

Result<CorruptHead> RadosStore::corrupt_head(std::string_view name) try {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  HeadRead read{io, head_object(name)};
  io_->ObjectIo::read_heads({&read, 1});
  if (read.result != -EUCLEAN) {
    auto head = head_of(name, read);
    if (!head) return fail(std::move(head).error());
    return head->present ? fail(register_in_order(name)) : fail(no_extent(name));
  }
  const auto bytes_of = [](librados::bufferlist& list) {
    const auto bytes = std::as_bytes(std::span<const char>(list.c_str(), list.length()));
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  librados::bufferlist reg, data;
  librados::ObjectReadOperation operation;
  operation.getxattr(kHeadXattr, &reg, nullptr);
  operation.read(0, exchange::kMaxOperationBytes, &data, nullptr);
  const int result = io.operate(head_object(name), &operation, nullptr);
  if (result < 0) return fail(to_error(result, "read the head of " + describe(name)));
  return CorruptHead{bytes_of(reg), bytes_of(data),
                     "its parts, if it had any, stay in the pool as siphon.ID.NUMBER with the "
                     "locator key " +
                         std::string(name) +
                         "; ID is bytes 16 to 31 of the register, where those are sound"};
} catch (const std::exception& e) {
  return fail(Code::kResourceExhausted, "read the head of " + describe(name) + ": " + e.what());
}

// Guarded by the object's version: what was seen is what goes. Attributes and omap entries of
// somebody else's keep the object.
Status RadosStore::remove_corrupt_head(std::string_view name, const CorruptHead& seen) try {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  Holdings holdings;
  const int looked = look_at_object(io, head_object(name), holdings);
  if (looked < 0) return fail(to_error(looked, "look at the head of " + describe(name)));
  auto there = corrupt_head(name);
  if (!there) return fail(std::move(there).error());
  if (*there != seen) return fail(transition_error(-ESTALE, Transition::kForget, name));
  librados::ObjectWriteOperation operation;
  operation.assert_version(holdings.version);
  if (holdings.attributes || holdings.omap) {
    operation.rmxattr(kHeadXattr);
  } else {
    operation.remove();
  }
  const int result = io.operate(head_object(name), &operation, librados::OPERATION_FULL_TRY);
  if (result == -ERANGE || result == -EOVERFLOW || result == -ENOENT) {
    return fail(transition_error(-ESTALE, Transition::kForget, name));
  }
  if (result < 0) return fail(to_error(result, "remove the head of " + describe(name)));
  return {};
} catch (const std::exception& e) {
  return fail(Code::kResourceExhausted, "remove the head of " + describe(name) + ": " + e.what());
}

Result<std::size_t> RadosStore::purge_trash(std::string_view name) {
  SIPHON_TRY(check_extent_name(name));
  librados::IoCtx io = context(name);
  auto head = read_head(io, name);
  if (!head) return fail(std::move(head).error());
  const std::vector<Purgeable> all = purgeable(head->reg, now_unix_ms());
  for (const Purgeable& p : all) SIPHON_TRY(drop(name, p.id, 0, false, p.trashed_unix_ms));
  return all.size();
}

}  // namespace siphon
