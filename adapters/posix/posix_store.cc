#include "adapters/posix/posix_store.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <map>
#include <utility>

#include "adapters/posix/folder.h"
#include "adapters/posix/head_file.h"
#include "adapters/store_util.h"
#include "plugin/base/extent_format.h"
#include "plugin/base/text.h"
#include "plugin/exchange/le.h"

namespace siphon {
namespace {

using posix::data_name;
using posix::Fd;
using posix::file_error;
using posix::Folder;
using posix::HeadFile;
using posix::hidden_name;
using posix::load_head;
using posix::LockMode;
using posix::NameLock;
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

class PosixStore final : public ExtentStore {
 public:
  PosixStore(std::unique_ptr<Folder> folder, PosixOptions options)
      : folder_(std::move(folder)), options_(std::move(options)) {}

  const Location& location() const override { return location_; }
  StoreIdentity identity() const override { return folder_->identity(); }
  StoreLimits limits() const override { return options_.limits; }

  Status check_ready(bool writable) override;
  Result<ExtentInfo> stat(std::string_view name) override;
  Status check_parts(const ExtentInfo& info) override;
  Status check_kept(std::string_view name, const TrashEntry& entry) override;
  Result<ExtentPage> list(std::string_view cursor, std::size_t max_names, Listing listing) override;
  Result<std::unique_ptr<ExtentReader>> open(std::string_view name, std::span<std::byte> prefetch,
                                             bool allow_open) override;
  Result<std::unique_ptr<ScratchExtent>> begin(std::string_view name,
                                               const BeginOptions& options) override;
  Status put_inline(std::string_view name, const PrivateId& id, std::span<const std::byte> bytes,
                    const SealedHeader& header) override;
  Status seal(std::string_view name, const ExtentInfo& seen, std::uint64_t offset_bytes,
              std::span<const std::byte> tail, const SealedHeader& header) override;
  Status trash(std::string_view name, const ExtentInfo& seen) override;
  Status collect(std::string_view name, const PrivateId& id) override;
  Status purge(std::string_view name, const PrivateId& id, std::uint64_t trashed_unix_ms) override;
  Result<HeadRegister> inspect(std::string_view name) override;
  Result<std::vector<PartsSeen>> parts_under(std::string_view name) override;
  Result<std::optional<UnnamedParts>> find_unnamed(std::string_view name,
                                                   const PartsSeen& seen) override;
  Status remove_unnamed(std::string_view name, const PartsSeen& seen) override;
  Status restore(std::string_view name, const PrivateId& id) override;
  Result<CorruptHead> corrupt_head(std::string_view name) override;
  Status remove_corrupt_head(std::string_view name, const CorruptHead& seen) override;
  Result<std::size_t> purge_trash(std::string_view name) override;

  // For the scratch: the part of a publish that needs the name's lock.
  Status publish(const std::string& name, const TransitionRequest& request);
  void step(std::string_view name) const {
    if (options_.step_hook) options_.step_hook(name);
  }

 private:
  // A name's head file with the lock that keeps it true.
  struct Locked {
    NameLock lock;
    HeadFile head;
  };
  Result<Locked> lock_and_load(std::string_view name, LockMode mode) const;
  // Under the name's lock.
  Status require_no_stranger(std::string_view name, const HeadFile& head) const;
  Result<CorruptHead> load_corrupt(const std::string& name) const;
  Status require_current(std::string_view name, const HeadFile& head) const;
  Status require_no_foreign_file(std::string_view name, const HeadFile& head) const;
  // The rest under the exclusive lock.
  Status make_public(const std::string& name, const HeadFile& head, const HeadRegister& base,
                     const HeadRegister& next, const std::string& from);
  Status require_complete(const std::string& name, const HeadRegister& next);
  Status keep_replaced(const std::string& name, const HeadFile& head);
  Status require_second_link(const std::string& name, const std::string& kept) const;
  Status store_condemned(const std::string& name, const HeadFile& head, const HeadRegister& next,
                         const PrivateId& id);
  Status write_inline_file(const std::string& name, const std::string& hidden,
                           std::span<const std::byte> bytes);
  Status drop(const std::string& name, HeadFile& head, const PrivateId& id);
  unsigned file_mode() const;
  std::string address_word(std::string_view name) const;  // for commands that are pasted

  const std::unique_ptr<Folder> folder_;
  const PosixOptions options_;
  const Location location_;
};

namespace {

class PosixReader final : public ExtentReader {
 public:
  PosixReader(Fd fd, ExtentInfo info, std::uint32_t operation_bytes)
      : fd_(std::move(fd)), info_(std::move(info)), operation_bytes_(operation_bytes) {}

  const ExtentInfo& info() const override { return info_; }
  std::size_t prefetched_bytes() const override { return prefetched_bytes_; }
  Status read(std::uint64_t offset_bytes, std::span<std::byte> out) override {
    SIPHON_TRY(check_io_bounds(offset_bytes, out.size(), info_.header.extent_bytes,
                               info_.header.part_bytes, operation_bytes_));
    return fill(offset_bytes, out);
  }
  // Reads all of an inline extent when it fits.
  Status prefetch(std::span<std::byte> out) {
    if (!info_.is_inline || info_.header.extent_bytes > out.size()) return {};
    SIPHON_TRY(fill(0, out.first(info_.header.extent_bytes)));
    prefetched_bytes_ = info_.header.extent_bytes;
    return {};
  }

 private:
  Status fill(std::uint64_t offset_bytes, std::span<std::byte> out) {
    auto bytes = posix::read_some(fd_.get(), offset_bytes, out, "extent " + info_.name);
    if (!bytes) return fail(std::move(bytes).error());
    if (*bytes < out.size()) {
      return fail(Code::kDataLoss, "extent " + info_.name + " ends after " +
                                       std::to_string(offset_bytes + *bytes) + " of " +
                                       std::to_string(info_.header.extent_bytes) + " bytes");
    }
    return {};
  }

  const Fd fd_;  // pins the file, whatever happens to its name
  const ExtentInfo info_;
  const std::uint32_t operation_bytes_;
  std::size_t prefetched_bytes_ = 0;
};

class PosixScratch final : public ScratchExtent {
 public:
  PosixScratch(PosixStore& store, std::string name, const BeginOptions& options,
               std::uint64_t generation, Fd fd)
      : store_(store),
        name_(std::move(name)),
        id_(options.private_id),
        declared_bytes_(options.extent_bytes),
        generation_(generation),
        fd_(std::move(fd)) {}

  const PrivateId& private_id() const override { return id_; }
  std::uint32_t part_bytes() const override { return store_.limits().part_bytes; }
  Status write(std::uint64_t offset_bytes, std::span<const std::byte> in) override;
  Status read(std::uint64_t offset_bytes, std::span<std::byte> out) override;
  Status publish(const SealedHeader& header, bool replace, ExtentState as_state) override;
  Status abort() override {
    SIPHON_TRY(store_.collect(name_, id_));
    finished_ = true;
    return {};
  }

 private:
  Status make_durable();

  PosixStore& store_;
  const std::string name_;
  const PrivateId id_;
  const std::uint64_t declared_bytes_;  // 0: unknown
  const std::uint64_t generation_;      // what begin saw
  const Fd fd_;
  std::atomic<bool> finished_{false};
  // A failed fdatasync drops the dirty pages: the next one would succeed and prove nothing.
  bool sync_failed_ = false;
};

Status PosixScratch::write(std::uint64_t offset_bytes, std::span<const std::byte> in) {
  const StoreLimits limits = store_.limits();
  const std::uint64_t end = declared_bytes_ ? declared_bytes_ : limits.max_extent_bytes;
  SIPHON_TRY(check_io_bounds(offset_bytes, in.size(), end, part_bytes(), limits.operation_bytes));
  if (finished_) return fail(Code::kFailedPrecondition, "write after publish or abort");
  SIPHON_TRY(posix::write_all(fd_.get(), offset_bytes, in, "extent " + name_));
  // Starts write-back, so that publish finds little left to do. Only a hint.
  (void)::sync_file_range(fd_.get(), static_cast<off_t>(offset_bytes),
                          static_cast<off_t>(in.size()), SYNC_FILE_RANGE_WRITE);
  return {};
}

Status PosixScratch::read(std::uint64_t offset_bytes, std::span<std::byte> out) {
  const StoreLimits limits = store_.limits();
  const std::uint64_t end = declared_bytes_ ? declared_bytes_ : limits.max_extent_bytes;
  SIPHON_TRY(check_io_bounds(offset_bytes, out.size(), end, part_bytes(), limits.operation_bytes));
  auto bytes = posix::read_some(fd_.get(), offset_bytes, out, "extent " + name_);
  if (!bytes) return fail(std::move(bytes).error());
  if (*bytes < out.size()) return fail(scratch_is_short(name_));
  return {};
}

Status PosixScratch::make_durable() {
  struct stat st {};
  if (::fstat(fd_.get(), &st) != 0) return fail(file_error(errno, "publish " + name_));
  if (static_cast<std::uint64_t>(st.st_size) < declared_bytes_ &&
      ::ftruncate(fd_.get(), st.st_size) != 0) {  // gives back the rest
    return fail(file_error(errno, "publish " + name_));
  }
  if (!sync_failed_ && ::fdatasync(fd_.get()) == 0) return {};
  const int error = sync_failed_ ? EIO : errno;
  sync_failed_ = true;
  return fail(file_error(error, "sync " + name_));
}

Status PosixScratch::publish(const SealedHeader& header, bool replace, ExtentState as_state) {
  if (as_state == ExtentState::kNone) {
    return fail(Code::kInvalidArgument, "publish as neither open nor sealed");
  }
  if (!finished_) SIPHON_TRY(make_durable());
  TransitionRequest request;
  request.kind = Transition::kPublish;
  request.id = id_;
  request.replace = replace;
  request.open = as_state == ExtentState::kOpen;
  request.expected_generation = generation_;
  request.header = header;
  request.header.part_bytes = part_bytes();
  request.now_unix_ms = now_unix_ms();
  SIPHON_TRY(store_.publish(name_, request));
  finished_ = true;
  return {};
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
Status PosixStore::require_no_stranger(std::string_view name, const HeadFile& head) const {
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
  return require_no_stranger(name, head);
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
    SIPHON_TRY(require_no_stranger(name, head));
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

  TransitionRequest request;
  request.kind = Transition::kPublish;
  request.id = id;
  request.is_inline = true;
  request.expected_generation = TransitionRequest::kAnyGeneration;
  request.header = header;
  request.header.part_bytes = limits().part_bytes;
  request.now_unix_ms = now_unix_ms();
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
  TransitionRequest request;
  request.kind = Transition::kSeal;
  request.id = seen.private_id;
  request.expected_generation = seen.generation;
  request.header = header;
  request.header.part_bytes = head.reg.header.part_bytes;
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
  TransitionRequest request;
  request.kind = Transition::kCondemn;
  request.id = seen.private_id;
  request.expected_generation = seen.generation;
  request.now_unix_ms = now_unix_ms();
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

// ---- leftovers -------------------------------------------------------------------------------

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
  TransitionRequest request;
  request.kind = Transition::kCondemn;
  request.id = id;
  request.expected_generation = head.reg.generation;
  request.now_unix_ms = now_unix_ms();
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
