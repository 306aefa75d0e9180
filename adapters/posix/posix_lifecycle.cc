// PosixStore: how extents leave. What is left of attempts, the trash, registers that do not decode.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "adapters/posix/posix_store_impl.h"
#include "adapters/store_util.h"

namespace siphon {
namespace {

using posix::data_name;
using posix::HeadFile;
using posix::hidden_name;
using posix::load_head;
using posix::LockMode;
using posix::store_head;

}  // namespace

// On a full disk there may be no room for the head file until the attempt's bytes have gone. They
// go only when nothing can publish them any more: the register says so on disk, or their file has
// no name that a publish or a resumed attempt would look for (a rename takes no room). A writer
// that still lives goes on writing to what nobody will see. Not those of a publish that is written
// down (head.intended): there, a missing file means that it has happened. Other entries of the
// trash are emptied so as well: whoever reads the register meanwhile sees one whose bytes are gone.
Status PosixStore::store_condemned(const std::string& name, const HeadFile& head,
                                   const HeadRegister& next, const PrivateId& id) {
  Status stored = store_head(*folder_, name, next);
  if (stored || stored.error().code != Code::kResourceExhausted || id == head.intended) {
    return stored;
  }
  const std::string file = data_name(name, id);
  SIPHON_TRY(posix::hide_file(folder_->data(), file));
  step("collect:hidden");
  // Emptied as well: while a writer has it open, a removal alone gives no room back.
  // Not where it has another link: its bytes are somebody else's as well, and stay anyway.
  auto hidden = posix::open_file(folder_->data(), "." + file, O_WRONLY);
  struct stat there {};
  if (hidden && ::fstat(hidden->get(), &there) == 0 && there.st_nlink == 1 &&
      ::ftruncate(hidden->get(), 0) != 0) {
    return stored;
  }
  SIPHON_TRY(posix::remove_file(folder_->data(), "." + file));
  return store_head(*folder_, name, next);
}

// Condemn, remove the bytes, forget; each step durable before the next.
Status PosixStore::drop(const std::string& name, HeadFile& head, const PrivateId& id) {
  TransitionRequest request = removal_request(Transition::kCondemn, id, head.reg.generation);
  HeadRegister next = head.reg;
  const int rc = apply(next, head.exists, request);
  if (rc != 0 && rc != -ENOENT) return fail(transition_error(rc, request.kind, name));
  request.kind = Transition::kDiscard;  // from here on no restore brings it back
  if (int discard = apply(next, true, request); discard != 0) {
    return fail(transition_error(discard, request.kind, name));
  }
  if (next != head.reg || !head.settled) {
    SIPHON_TRY(store_condemned(name, head, next, id));
  }
  step("collect:condemned");
  SIPHON_TRY(posix::remove_file(folder_->data(), hidden_name(name, id)));
  // What no register names may be an extent whose head was lost: remove_unnamed is for that.
  if (rc == -ENOENT) return {};
  SIPHON_TRY(posix::remove_file(folder_->data(), data_name(name, id)));
  SIPHON_TRY(posix::sync_dir(folder_->data(), name));
  step("collect:removed");
  request.kind = Transition::kForget;
  if (int forget = apply(next, true, request); forget != 0) {
    return fail(transition_error(forget, request.kind, name));
  }
  SIPHON_TRY(store_head(*folder_, name, next));
  head.reg = std::move(next);
  head.settled = true;
  return {};
}

Status PosixStore::collect(std::string_view name, const PrivateId& id) {
  auto locked = lock_and_load(name, LockMode::kExclusive);
  if (!locked) return fail(std::move(locked).error());
  HeadFile& head = locked->head;
  SIPHON_TRY(check_removal(head.reg, id, std::nullopt, "extent " + std::string(name)));
  return drop(std::string(name), head, id);
}

Status PosixStore::purge(std::string_view name, const PrivateId& id,
                         std::uint64_t trashed_unix_ms) {
  auto locked = lock_and_load(name, LockMode::kExclusive);
  if (!locked) return fail(std::move(locked).error());
  HeadFile& head = locked->head;
  SIPHON_TRY(check_removal(head.reg, id, trashed_unix_ms, "extent " + std::string(name)));
  return drop(std::string(name), head, id);
}

// With what is hidden, as attempts without a lease: nobody has published that. Any other file that
// the register does not name is none: perhaps its head was lost (find_unnamed).
Result<HeadRegister> PosixStore::inspect(std::string_view name) {
  auto locked = lock_and_load(name, LockMode::kShared);
  if (!locked) return fail(std::move(locked).error());
  HeadRegister reg = std::move(locked->head.reg);
  auto in_use = folder_->in_use();
  if (!in_use) return fail(std::move(in_use).error());
  if (!*in_use) return reg;
  auto files = posix::data_files(folder_->data());
  if (!files) return fail(std::move(files).error());
  for (const posix::DataFile& file : *files) {
    if (!file.hidden || file.extent != name || names_id(reg, file.id)) continue;
    auto st = posix::look(folder_->data(), hidden_name(name, file.id));
    if (!st || !*st) continue;
    reg.reservations.push_back(
        {file.id, static_cast<std::uint64_t>((*st)->st_size), limits().part_bytes, 0});
  }
  return reg;
}

Result<std::vector<PartsSeen>> PosixStore::parts_under(std::string_view name) {
  std::vector<PartsSeen> parts;
  auto in_use = folder_->in_use();
  if (!in_use) return fail(std::move(in_use).error());
  if (!*in_use) return parts;
  auto files = posix::data_files(folder_->data());
  if (!files) return fail(std::move(files).error());
  for (const posix::DataFile& file : *files) {
    if (!file.hidden && file.extent == name) parts.push_back({file.id, 1});
  }
  return parts;
}

Result<std::optional<UnnamedParts>> PosixStore::find_unnamed(std::string_view name,
                                                             const PartsSeen& seen) {
  auto locked = lock_and_load(name, LockMode::kShared);
  if (!locked) return fail(std::move(locked).error());
  if (names_id(locked->head.reg, seen.id)) return std::optional<UnnamedParts>();
  auto file = posix::look(folder_->data(), data_name(name, seen.id));
  if (!file) return fail(std::move(file).error());
  if (!*file) return std::optional<UnnamedParts>();
  return UnnamedParts{static_cast<std::uint64_t>((*file)->st_size),
                      static_cast<std::uint64_t>((*file)->st_mtim.tv_sec) * 1000,
                      locked->head.exists};
}

Status PosixStore::remove_unnamed(std::string_view name, const PartsSeen& seen) {
  auto locked = lock_and_load(name, LockMode::kExclusive);
  if (!locked) return fail(std::move(locked).error());
  if (names_id(locked->head.reg, seen.id)) {
    return fail(Code::kFailedPrecondition,
                "extent " + std::string(name) + ": its head names this private id");
  }
  SIPHON_TRY(posix::remove_file(folder_->data(), data_name(name, seen.id)));
  return posix::sync_dir(folder_->data(), name);
}

// The steps of a publish: the rename of the kept file to its public name is the one that counts.
Status PosixStore::restore(std::string_view name, const PrivateId& id) {
  const std::string extent(name);
  auto locked = lock_and_load(name, LockMode::kExclusive);
  if (!locked) return fail(std::move(locked).error());
  const HeadFile& head = locked->head;
  HeadRegister next = head.reg;
  const TransitionRequest request = restore_request(head.reg, id);
  if (int rc = apply(next, head.exists, request); rc != 0) {
    return fail(transition_error(rc, request.kind, name));
  }
  if (next == head.reg) return posix::sync_dir(folder_->root(), name);
  const auto entry = std::ranges::find(head.reg.trash, id, &TrashEntry::id);
  if (entry != head.reg.trash.end()) SIPHON_TRY(check_kept(name, *entry));
  return make_public(extent, head, head.reg, next, data_name(extent, id));
}

// ---- a register that does not decode ---------------------------------------------------------

Result<CorruptHead> PosixStore::load_corrupt(const std::string& name) const {
  auto head = load_head(*folder_, name);
  if (head) {
    return head->exists ? fail(register_in_order(name))
                        : fail(Code::kNotFound, "extent " + name + " has no head file");
  }
  if (head.error().code != Code::kDataLoss) return fail(std::move(head).error());
  auto bytes = posix::raw_head(*folder_, name);
  if (!bytes) return fail(std::move(bytes).error());
  return CorruptHead{std::move(*bytes),
                     {},
                     "the file " + folder_->path() + "/" + name +
                         ", if there is one, stays as it is, nobody's extent: move it away to use "
                         "the name again (siphon put makes an extent of its content)"};
}

Result<CorruptHead> PosixStore::corrupt_head(std::string_view name) {
  SIPHON_TRY(check_extent_name(name));
  auto lock = folder_->lock(name, LockMode::kShared, options_.lock_timeout);
  if (!lock) return fail(std::move(lock).error());
  return load_corrupt(std::string(name));
}

Status PosixStore::remove_corrupt_head(std::string_view name, const CorruptHead& seen) {
  SIPHON_TRY(check_extent_name(name));
  auto lock = folder_->lock(name, LockMode::kExclusive, options_.lock_timeout);
  if (!lock) return fail(std::move(lock).error());
  auto there = load_corrupt(std::string(name));
  if (!there) return fail(std::move(there).error());
  if (*there != seen) return fail(transition_error(-ESTALE, Transition::kForget, name));
  SIPHON_TRY(posix::remove_file(folder_->heads(), std::string(name)));
  return posix::sync_dir(folder_->heads(), name);
}

Result<std::size_t> PosixStore::purge_trash(std::string_view name) {
  auto locked = lock_and_load(name, LockMode::kExclusive);
  if (!locked) return fail(std::move(locked).error());
  HeadFile& head = locked->head;
  const std::vector<Purgeable> all = purgeable(head.reg, now_unix_ms());
  std::size_t gone = 0;
  Status failed;
  for (const Purgeable& p : all) {  // all are tried: one makes room for another
    Status dropped = drop(std::string(name), head, p.id);
    gone += dropped.has_value();
    if (!dropped && failed) failed = std::move(dropped);
  }
  if (!failed) return fail(std::move(failed).error());
  const std::string kept = data_name(name, head.reg.current);
  if (head.reg.state != ExtentState::kNone && require_second_link(std::string(name), kept)) {
    SIPHON_TRY(posix::remove_file(folder_->data(), kept));  // left by a crash in keep_replaced
  }
  return gone;
}

}  // namespace siphon
