#include "adapters/posix/posix_store.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "adapters/posix/posix_extent.h"
#include "adapters/posix/posix_store_impl.h"
#include "adapters/store_util.h"
#include "plugin/base/text.h"
#include "plugin/core/le.h"
#include "plugin/format/extent_format.h"

namespace siphon {
namespace {

using posix::data_name;
using posix::file_error;
using posix::Folder;
using posix::HeadFile;
using posix::hidden_name;
using posix::load_head;
using posix::LockMode;
using posix::store_head;

// Makes a full disk show now rather than in the middle of a transfer.
Status reserve_space(int fd, std::uint64_t bytes, std::string_view name) {
  if (bytes == 0) return {};
  const std::string what = "reserve " + std::to_string(bytes) + " bytes for " + std::string(name);
  struct statfs fs {};
  if (::fstatfs(fd, &fs) != 0) return fail(file_error(errno, what));
  if (bytes / static_cast<std::uint64_t>(fs.f_bsize) >= fs.f_bavail) {
    return fail(file_error(ENOSPC, what));
  }
  if (fs.f_type == TMPFS_MAGIC) return {};  // allocating there means zeroing memory
  int rc;
  do {
    rc = ::fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes));
  } while (rc != 0 && errno == EINTR);
  if (rc == 0 || errno == EOPNOTSUPP || errno == ENOSYS) return {};
  return fail(file_error(errno, what));
}

Error foreign_file(const Folder& folder, std::string_view name, bool displaced = false) {
  if (displaced) {
    return {Code::kFailedPrecondition,
            folder.path() + "/" + std::string(name) +
                " is not the file that its head names (a head from a backup? a file laid over "
                "it?): what the head names is in the trash; nothing was touched",
            Side::kNone, "move that file away, then: siphon trash ls; siphon trash restore",
            Reason::kNotSiphons};
  }
  return {Code::kFailedPrecondition,
          std::string(name) + " in " + folder.path() +
              " is not Siphon's: it is a file without a register; it was not touched",
          Side::kNone, "choose another name, or move the file away", Reason::kNotSiphons};
}

// Of a file that has not the length of its extent: damaged, it begins like one all the same, or has
// nothing left to lose.
bool begins_like_an_extent(std::span<const std::byte> first) {
  for (const std::uint32_t magic : {kBlockMagic, kFooterMagic}) {
    std::array<std::byte, sizeof magic> wanted;
    LeWriter(wanted).put(magic);
    if (std::equal(first.begin(), first.end(), wanted.begin())) return true;
  }
  return false;
}

}  // namespace

// ---- lookups ---------------------------------------------------------------------------------

Status PosixStore::check_ready(bool writable) {
  struct stat st {};
  struct statvfs fs {};
  if (::fstat(folder_->root(), &st) != 0 || ::fstatvfs(folder_->root(), &fs) != 0) {
    return fail(file_error(errno, "folder " + folder_->path()));
  }
  if (st.st_nlink == 0) return fail(Code::kNotFound, "folder " + folder_->path() + " was removed");
  if (!writable) return {};
  if ((fs.f_flag & ST_RDONLY) != 0) {
    return fail(Code::kFailedPrecondition, "folder " + folder_->path() + " is read-only",
                Side::kNone, "mount it read-write");
  }
  if (::faccessat(folder_->root(), ".", W_OK, AT_EACCESS) != 0) {
    return fail(file_error(errno, "write to folder " + folder_->path()));
  }
  if (fs.f_bavail == 0) {
    return fail(Code::kResourceExhausted, "folder " + folder_->path() + " is full", Side::kNone,
                "free some space");
  }
  return {};
}

std::string PosixStore::address_word(std::string_view name) const {
  return shell_word("posix:" + folder_->path() + "/" + std::string(name));
}

// What a new extent's file gets, less the umask: the folder's own mode, as it is now.
unsigned PosixStore::file_mode() const {
  struct stat st {};
  return ::fstat(folder_->root(), &st) == 0 ? (st.st_mode & 0666) | 0600 : 0600;
}

Result<PosixStore::Locked> PosixStore::lock_and_load(std::string_view name, LockMode mode) const {
  SIPHON_TRY(check_extent_name(name));
  auto lock = folder_->lock(name, mode, options_.lock_timeout);
  if (!lock) return fail(std::move(lock).error());
  auto head = load_head(*folder_, std::string(name));
  if (!head) return fail(std::move(head).error());
  return Locked{std::move(*lock), std::move(*head)};
}

Status PosixStore::require_no_foreign_file(std::string_view name, const HeadFile& head) const {
  if (head.reg.state == ExtentState::kNone && head.public_file) {
    return fail(foreign_file(*folder_, name, head.displaced));
  }
  return {};
}

// A file that was moved over the name of a sealed extent is not taken for it: not put into the
// trash, not replaced. One of the very same length cannot be told from it without reading it all.
Status PosixStore::require_not_foreign(std::string_view name, const HeadFile& head) const {
  const HeadRegister& reg = head.reg;
  if (reg.state != ExtentState::kSealed || !head.public_file) return {};
  const auto size = static_cast<std::uint64_t>(head.public_file->st_size);
  if (size == reg.header.extent_bytes) return {};
  auto file = posix::open_file(folder_->root(), std::string(name), O_RDONLY);
  if (!file) return fail(std::move(file).error());
  std::array<std::byte, sizeof kBlockMagic> first;
  auto got = posix::read_some(file->get(), 0, first, name);
  if (!got) return fail(std::move(got).error());
  if (begins_like_an_extent(std::span(first).first(*got))) return {};
  return fail(Error{Code::kFailedPrecondition,
                    folder_->path() + "/" + std::string(name) +
                        " is not the file that its head names, but no extent's at all, of " +
                        std::to_string(size) + " bytes where the head promises " +
                        std::to_string(reg.header.extent_bytes) + "; it was not touched",
                    Side::kNone,
                    "move that file away; what its head says then goes with: siphon trash purge "
                    "--private-id " +
                        to_hex(reg.current) + " " + address_word(name),
                    Reason::kNotSiphons});
}

Status PosixStore::require_current(std::string_view name, const HeadFile& head) const {
  SIPHON_TRY(require_no_foreign_file(name, head));
  if (head.reg.state == ExtentState::kNone) {
    return fail(Code::kNotFound, "extent " + std::string(name) + " does not exist");
  }
  return require_not_foreign(name, head);
}

Result<ExtentInfo> PosixStore::stat(std::string_view name) {
  auto locked = lock_and_load(name, LockMode::kShared);
  if (!locked) return fail(std::move(locked).error());
  SIPHON_TRY(require_current(name, locked->head));
  return info_from_register(name, locked->head.reg);
}

// Without locks: a name that changes meanwhile may or may not be on the page.
Status PosixStore::check_parts(const ExtentInfo& info) {
  const auto file = posix::look(folder_->root(), info.name);
  if (!file) return fail(file.error());
  const std::uint64_t there = *file ? static_cast<std::uint64_t>((*file)->st_size) : 0;
  if (there == info.header.extent_bytes) return {};
  return fail(parts_missing("extent " + info.name, there, info.header.extent_bytes));
}

Status PosixStore::check_kept(std::string_view name, const TrashEntry& entry) {
  const auto file = posix::look(folder_->data(), data_name(name, entry.id));
  if (!file) return fail(file.error());
  std::optional<std::uint64_t> there;
  if (*file) there = static_cast<std::uint64_t>((*file)->st_size);
  const bool sealed = entry.state == ExtentState::kSealed;
  if (there && (!sealed || *there == entry.header.extent_bytes)) return {};
  const auto head = load_head(*folder_, std::string(name));
  const bool vanished = head && head->vanished == entry.id;
  const std::string place =
      folder_->path() +
      (vanished ? "/" + std::string(name) : "/.siphon/data/" + data_name(name, entry.id));
  return fail(kept_not_whole("extent " + std::string(name), entry, there,
                             there ? "what is left of it is the file " + place + ": look at that"
                                   : "if somebody moved its file away, move that to " + place,
                             address_word(name)));
}

Result<ExtentPage> PosixStore::list(std::string_view cursor, std::size_t max_names,
                                    Listing listing) {
  if (max_names == 0) return fail(Code::kInvalidArgument, "list: max_names is 0");
  auto in_use = folder_->in_use();
  if (!in_use) return fail(std::move(in_use).error());
  if (!*in_use) return ExtentPage{};
  auto names = posix::extent_names(folder_->heads());
  if (!names) return fail(std::move(names).error());
  const bool everything = listing == Listing::kEverything;
  std::map<std::string, std::vector<PartsSeen>> parts;
  if (everything) {  // names with no more than a file in data/, too
    auto files = posix::data_files(folder_->data());
    if (!files) return fail(std::move(files).error());
    for (const posix::DataFile& file : *files) {
      names->push_back(file.extent);
      if (!file.hidden) parts[file.extent].push_back({file.id, 1});
    }
  }
  std::erase_if(*names, [&](const std::string& name) { return name <= cursor; });
  std::sort(names->begin(), names->end());
  names->erase(std::unique(names->begin(), names->end()), names->end());
  ExtentPage page;
  for (std::string& name : *names) {
    auto head = load_head(*folder_, name);
    // One that cannot be read is listed, with what is wrong with it.
    if (!everything && head && head->reg.state == ExtentState::kNone) continue;
    if (page.names.size() == max_names) {
      page.next_cursor = page.names.back();
      break;
    }
    if (!head) page.errors.emplace(page.names.size(), head.error());
    page.infos.push_back(head ? info_from_register(name, head->reg) : ExtentInfo{});
    if (const auto seen = parts.find(name); seen != parts.end()) {
      if (head)
        std::erase_if(seen->second, [&](const auto& one) { return names_id(head->reg, one.id); });
      if (!seen->second.empty()) page.parts.emplace(name, std::move(seen->second));
    }
    page.names.push_back(std::move(name));
  }
  return page;
}

Result<std::unique_ptr<ExtentReader>> PosixStore::open(std::string_view name,
                                                       std::span<std::byte> prefetch,
                                                       bool allow_open) {
  ExtentInfo info;
  Fd fd;
  {
    auto locked = lock_and_load(name, LockMode::kShared);
    if (!locked) return fail(std::move(locked).error());
    SIPHON_TRY(require_current(name, locked->head));
    info = info_from_register(name, locked->head.reg);
    if (info.state == ExtentState::kOpen && !allow_open) {
      return fail(Code::kFailedPrecondition, "extent " + info.name + " is open", Side::kNone,
                  "seal it first");
    }
    auto file = posix::open_file(folder_->root(), info.name, O_RDONLY);
    if (!file) return fail(std::move(file).error());
    fd = std::move(*file);
  }
  if (info.state == ExtentState::kOpen) {
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return fail(file_error(errno, "stat " + info.name));
    info.header.extent_bytes = static_cast<std::uint64_t>(st.st_size);
  }
  (void)::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  auto reader =
      std::make_unique<PosixReader>(std::move(fd), std::move(info), limits().operation_bytes);
  SIPHON_TRY(reader->prefetch(prefetch));
  return reader;
}

// ---- attempts --------------------------------------------------------------------------------

Result<std::unique_ptr<ScratchExtent>> PosixStore::begin(std::string_view name,
                                                         const BeginOptions& options) {
  SIPHON_TRY(check_begin(options, limits()));
  const std::string extent(name);
  std::uint64_t generation = 0;
  Fd fd;
  {
    auto locked = lock_and_load(name, LockMode::kExclusive);
    if (!locked) return fail(std::move(locked).error());
    SIPHON_TRY(require_no_foreign_file(name, locked->head));
    HeadRegister next = locked->head.reg;
    const bool resumes = std::ranges::any_of(next.reservations, [&](const Reservation& entry) {
      return entry.id == options.private_id;
    });
    if (next.state != ExtentState::kNone &&
        (!options.replace || next.current == options.private_id)) {
      return fail(transition_error(-EEXIST, Transition::kPublish, name));
    }
    const TransitionRequest request = reserve_request(options, limits());
    if (int rc = apply(next, locked->head.exists, request); rc != 0) {
      return fail(transition_error(rc, request.kind, name));
    }
    SIPHON_TRY(store_head(*folder_, extent, next));
    step("begin:reserved");
    generation = next.generation;
    // What was reserved before and has no file any more was taken away (see store_condemned).
    auto file = posix::open_file(folder_->data(), data_name(name, options.private_id),
                                 O_RDWR | (resumes ? 0 : O_CREAT), file_mode());
    if (!file && resumes && file.error().code == Code::kNotFound) {
      return fail(transition_error(-ECANCELED, Transition::kReserve, name));
    }
    if (!file) return fail(std::move(file).error());
    fd = std::move(*file);
  }
  if (Status room = reserve_space(fd.get(), options.extent_bytes, name); !room) {
    (void)collect(name, options.private_id);  // the first error counts; the lease does the rest
    return fail(std::move(room).error());
  }
  return std::make_unique<PosixScratch>(*this, extent, options, generation, std::move(fd));
}

Status PosixStore::publish(const std::string& name, const TransitionRequest& request) {
  auto locked = lock_and_load(name, LockMode::kExclusive);
  if (!locked) return fail(std::move(locked).error());
  const HeadFile& head = locked->head;
  HeadRegister next = head.reg;
  if (int rc = apply(next, head.exists, request); rc != 0) {
    return fail(transition_error(rc, request.kind, name));
  }
  // Already public, perhaps by an attempt that failed to sync the folder.
  if (next == head.reg) return posix::sync_dir(folder_->root(), name);
  SIPHON_TRY(require_complete(name, next));
  return make_public(name, head, head.reg, next, data_name(name, next.current));
}

// Under the lock, because a collector may have taken the file away (see store_condemned). Before
// the publish is written down: a missing file would then say that it has happened.
Status PosixStore::require_complete(const std::string& name, const HeadRegister& next) {
  auto file = posix::look(folder_->data(), data_name(name, next.current));
  if (!file) return fail(std::move(file).error());
  if (!*file) return fail(transition_error(-ECANCELED, Transition::kPublish, name));
  if (next.state == ExtentState::kOpen) return {};
  const auto size = static_cast<std::uint64_t>((*file)->st_size);
  if (size == next.header.extent_bytes) return {};
  return fail(Code::kFailedPrecondition, "publish " + name + ": " + std::to_string(size) + " of " +
                                             std::to_string(next.header.extent_bytes) +
                                             " bytes were written");
}

// The steps of every publish. Until the rename of data/`from` `base` holds, from then on `next`
// (head_file.h).
Status PosixStore::make_public(const std::string& name, const HeadFile& head,
                               const HeadRegister& base, const HeadRegister& next,
                               const std::string& from) {
  SIPHON_TRY(require_no_foreign_file(name, head));
  const bool replaces = head.reg.state != ExtentState::kNone;
  if (replaces) {
    SIPHON_TRY(require_not_foreign(name, head));
    SIPHON_TRY(keep_replaced(name, head));
  }
  SIPHON_TRY(store_head(*folder_, name, base, &next));
  step("publish:intended");
  int error = 0;
  if (!replaces) {
    error = posix::rename_new(folder_->data(), from, folder_->root(), name);
  } else if (::renameat(folder_->data(), from.c_str(), folder_->root(), name.c_str()) != 0) {
    error = errno;
  }
  if (error != 0) {
    SIPHON_TRY(store_head(*folder_, name, base));  // no more than an attempt, as before
    if (error == EEXIST) return fail(foreign_file(*folder_, name));
    if (error == ENOENT) {
      return fail(Code::kAborted, "publish " + name + ": the attempt's bytes were removed");
    }
    return fail(file_error(error, "publish " + name));
  }
  step("publish:renamed");
  return posix::sync_dir(folder_->root(), name);
}

// A second name for the bytes that the rename is about to take the first one from.
Status PosixStore::keep_replaced(const std::string& name, const HeadFile& head) {
  const std::string kept = data_name(name, head.reg.current);
  if (::linkat(folder_->root(), name.c_str(), folder_->data(), kept.c_str(), 0) != 0) {
    if (errno != EEXIST) return fail(file_error(errno, "keep the replaced " + name));
    SIPHON_TRY(require_second_link(name, kept));  // left by a crash
  }
  SIPHON_TRY(posix::sync_dir(folder_->data(), name));
  step("publish:linked");
  return {};
}

// Under the lock: whether the file in data/ is DIR/NAME itself, under a second name.
Status PosixStore::require_second_link(const std::string& name, const std::string& kept) const {
  const auto there = posix::look(folder_->data(), kept), shown = posix::look(folder_->root(), name);
  if (!there) return fail(there.error());
  if (!shown) return fail(shown.error());
  if (*there && *shown && posix::same_file(**there, **shown)) return {};
  return fail(foreign_file(*folder_, name, /*displaced=*/true));
}

// Hidden, because no head names it yet: so what a crash leaves is known for an attempt.
Status PosixStore::write_inline_file(const std::string& name, const std::string& hidden,
                                     std::span<const std::byte> bytes) {
  auto fd = posix::open_file(folder_->data(), hidden, O_WRONLY | O_CREAT | O_TRUNC, file_mode());
  if (!fd) return fail(std::move(fd).error());
  SIPHON_TRY(posix::write_all(fd->get(), 0, bytes, "extent " + name));
  if (::fdatasync(fd->get()) != 0) return fail(file_error(errno, "sync " + name));
  step("inline:written");
  return {};
}

Status PosixStore::put_inline(std::string_view name, const PrivateId& id,
                              std::span<const std::byte> bytes, const SealedHeader& header) {
  SIPHON_TRY(check_inline(id, bytes.size(), header, limits()));
  const std::string extent(name);
  auto locked = lock_and_load(name, LockMode::kExclusive);
  if (!locked) return fail(std::move(locked).error());
  const HeadFile& head = locked->head;
  SIPHON_TRY(require_no_foreign_file(name, head));

  const TransitionRequest request = inline_request(id, header, limits());
  HeadRegister next = head.reg;
  if (int rc = apply(next, head.exists, request); rc != 0) {
    return fail(transition_error(rc, request.kind, name));
  }
  if (next == head.reg) return posix::sync_dir(folder_->root(), name);
  // Not published: the base register names the attempt, so that its file can be collected.
  HeadRegister base = head.reg;
  if (!names_id(base, id)) {
    base.reservations.push_back(
        {id, header.extent_bytes, request.header.part_bytes, request.now_unix_ms});
  }
  const std::string hidden = hidden_name(extent, id);
  Status done = write_inline_file(extent, hidden, bytes);
  if (done) done = make_public(extent, head, base, next, hidden);
  if (done) return {};
  auto after = load_head(*folder_, extent);
  if (after && after->reg.current != id) (void)drop(extent, *after, id);
  return done;
}

// ---- the current extent ----------------------------------------------------------------------

Status PosixStore::seal(std::string_view name, const ExtentInfo& seen, std::uint64_t offset_bytes,
                        std::span<const std::byte> tail, const SealedHeader& header) {
  const std::string extent(name);
  auto locked = lock_and_load(name, LockMode::kExclusive);
  if (!locked) return fail(std::move(locked).error());
  const HeadFile& head = locked->head;
  SIPHON_TRY(require_current(name, head));
  SIPHON_TRY(check_seen(name, head.reg, seen));
  const TransitionRequest request = seal_request(seen, header, head.reg);
  HeadRegister next = head.reg;
  if (int rc = apply(next, head.exists, request); rc != 0) {
    return fail(transition_error(rc, request.kind, name));
  }
  if (next == head.reg) return {};  // sealed so already
  SIPHON_TRY(check_seal(name, offset_bytes, tail.size(),
                        static_cast<std::uint64_t>(head.public_file->st_size), header));
  auto fd = posix::open_file(folder_->root(), extent, O_WRONLY);
  if (!fd) return fail(std::move(fd).error());
  // In place: until the register says sealed, a tail is only what a scan stops at.
  SIPHON_TRY(posix::write_all(fd->get(), offset_bytes, tail, "extent " + extent));
  if (::ftruncate(fd->get(), static_cast<off_t>(header.extent_bytes)) != 0 ||
      ::fdatasync(fd->get()) != 0) {
    return fail(file_error(errno, "seal " + extent));
  }
  step("seal:written");
  return store_head(*folder_, extent, next);
}

Status PosixStore::trash(std::string_view name, const ExtentInfo& seen) {
  const std::string extent(name);
  auto locked = lock_and_load(name, LockMode::kExclusive);
  if (!locked) return fail(std::move(locked).error());
  const HeadFile& head = locked->head;
  SIPHON_TRY(require_current(name, head));
  SIPHON_TRY(check_seen(name, head.reg, seen));
  const TransitionRequest request =
      removal_request(Transition::kCondemn, seen.private_id, seen.generation);
  HeadRegister next = head.reg;
  if (int rc = apply(next, head.exists, request); rc != 0) {
    return fail(transition_error(rc, request.kind, name));
  }
  // The rename is the atomic step: a register whose public file is gone means "in the trash". So
  // the head file must say plainly what was current.
  if (!head.settled) SIPHON_TRY(store_head(*folder_, extent, head.reg));
  const std::string kept = data_name(name, head.reg.current);
  const int error = posix::rename_new(folder_->root(), extent, folder_->data(), kept);
  if (error == EEXIST) {  // left by a crash in keep_replaced: the public name alone has to go
    SIPHON_TRY(require_second_link(extent, kept));
    SIPHON_TRY(posix::sync_dir(folder_->data(), name));
    SIPHON_TRY(posix::remove_file(folder_->root(), extent));
  } else if (error != 0) {
    return fail(file_error(error, "trash " + extent));
  }
  SIPHON_TRY(posix::sync_dir(folder_->data(), name));
  SIPHON_TRY(posix::sync_dir(folder_->root(), name));
  step("trash:renamed");
  // It is in the trash by now, and who reads the old head sees that: a full disk changes nothing.
  Status stored = store_head(*folder_, extent, next);
  if (!stored && stored.error().code == Code::kResourceExhausted) return {};
  return stored;
}

// ---- provider --------------------------------------------------------------------------------

PosixProvider::PosixProvider(std::unique_ptr<Folder> folder, PosixOptions options)
    : store_(std::make_unique<PosixStore>(std::move(folder), std::move(options))) {}
PosixProvider::~PosixProvider() = default;

Result<std::unique_ptr<PosixProvider>> PosixProvider::create(const std::string& dir,
                                                             PosixOptions options) {
  auto folder = Folder::open(dir);
  if (!folder) return fail(std::move(folder).error());
  if (options.daemon) SIPHON_TRY((*folder)->take_for_daemon());
  return std::unique_ptr<PosixProvider>(new PosixProvider(std::move(*folder), std::move(options)));
}

Result<ExtentStore*> PosixProvider::open(const Location& location) {
  if (location != Location{}) {
    return fail(Code::kInvalidArgument, "a folder store has neither pool nor namespace, but " +
                                            location.to_string() + " was asked for");
  }
  return store_.get();
}

Result<std::int64_t> PosixProvider::pool_id(const std::string& pool) {
  if (!pool.empty()) return fail(Code::kNotFound, "a folder store has no pool " + pool);
  return std::int64_t{0};
}

}  // namespace siphon
