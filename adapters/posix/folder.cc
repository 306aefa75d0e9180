#include "adapters/posix/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <thread>

#include "plugin/base/held_file.h"
#include "plugin/base/text.h"

namespace siphon::posix {
namespace {

constexpr const char* kMetaDir = ".siphon";
constexpr const char* kLockFile = "lock";
constexpr const char* kIdFile = "id";
constexpr const char* kDaemonFile = "daemon";
constexpr const char* kSpareFile = "spare";
constexpr std::size_t kSpareBytes = 64 << 10;

int open_beneath(int dir, const char* name, int flags, unsigned mode) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return static_cast<int>(::syscall(SYS_openat2, dir, name, &how, sizeof how));
}

// No descriptor when it is not there and is not to be made.
Result<Fd> open_dir(int parent, const char* name, const std::string& what, bool make) {
  constexpr int kFlags = O_RDONLY | O_DIRECTORY;
  Fd dir(open_beneath(parent, name, kFlags, 0));
  if (dir.get() < 0 && errno == ENOENT) {
    if (!make) return Fd();
    if (::mkdirat(parent, name, 0700) != 0 && errno != EEXIST) {
      return fail(file_error(errno, "create " + what));
    }
    SIPHON_TRY(sync_dir(parent, what));
    dir = Fd(open_beneath(parent, name, kFlags, 0));
  }
  if (dir.get() < 0) return fail(file_error(errno, "open " + what));
  return dir;
}

// FNV-1a: which byte of the lock file stands for a name. Two names may share one.
std::int64_t lock_offset(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return static_cast<std::int64_t>(hash >> 2);
}

// A name that nothing else has: what is made under it gets its real one in a single step.
std::string passing_name(const char* of) {
  return std::string(of) + "." + to_hex(new_private_id());
}

// The store's own id; empty when there is none. One that is not an id is an error: a folder that
// cannot be told from others is not to be taken for another one.
Result<std::string> read_store_id(int meta, const std::string& what) {
  auto file = open_file(meta, kIdFile, O_RDONLY);
  if (!file && file.error().code == Code::kNotFound) return std::string();
  if (!file) return fail(std::move(file).error());
  std::array<std::byte, 64> bytes{};
  auto got = read_some(file->get(), 0, bytes, what);
  if (!got) return fail(std::move(got).error());
  std::string text(reinterpret_cast<const char*>(bytes.data()), *got);
  while (text.ends_with('\n')) text.pop_back();
  PrivateId id;
  if (from_hex(text, id.bytes)) return to_hex(id);
  return fail(Code::kDataLoss, what + " is not a store's id", Side::kNone,
              "remove it: the next writer makes a new one");
}

// Gives the store its id, unless another process was faster. Nobody ever sees half of one.
Status make_store_id(int meta, const std::string& what) {
  const std::string passing = passing_name(kIdFile);
  const std::string text = to_hex(new_private_id()) + "\n";
  {
    auto file = open_file(meta, passing, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (!file) return fail(std::move(file).error());
    SIPHON_TRY(write_all(file->get(), 0, std::as_bytes(std::span(text)), what));
    if (::fsync(file->get()) != 0) return fail(file_error(errno, "sync " + what));
  }
  const int linked = ::linkat(meta, passing.c_str(), meta, kIdFile, 0) == 0 ? 0 : errno;
  SIPHON_TRY(remove_file(meta, passing));
  if (linked != 0 && linked != EEXIST) return fail(file_error(linked, "create " + what));
  return sync_dir(meta, what);
}

// Where a folder is on this host, whatever path or mount led to it.
std::string node_of(int dir) {
  struct stat st {};
  if (::fstat(dir, &st) != 0) return {};
  std::array<char, 64> boot{};
  const Fd file(::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
  const ssize_t got = file.get() < 0 ? -1 : ::read(file.get(), boot.data(), boot.size());
  if (got <= 1) return {};
  return std::string(boot.data(), static_cast<std::size_t>(got) - 1) + ":" +
         std::to_string(st.st_dev) + ":" + std::to_string(st.st_ino);
}

// A store that has no id yet gets one, where it can be written.
Result<StoreIdentity> identify(int root, int meta, const std::string& what) {
  auto id = read_store_id(meta, what);
  if (id && id->empty()) {
    const Status made = make_store_id(meta, what);
    const bool cannot = !made && (made.error().code == Code::kPermissionDenied ||
                                  made.error().code == Code::kFailedPrecondition);
    if (!made && !cannot) return fail(made.error());
    if (made) id = read_store_id(meta, what);
  }
  if (!id) return fail(std::move(id).error());
  return StoreIdentity{id->empty() ? "" : "folder:" + *id, node_of(root)};
}

}  // namespace

Error file_error(int errno_value, std::string_view what) {
  Error error = error_from_errno(errno_value, what);
  switch (errno_value) {
    case EIO:
      error.code = Code::kDataLoss;
      error.next_step = "look at the kernel log: the disk reports damage";
      break;
    case EROFS:
      error.code = Code::kFailedPrecondition;
      break;
    case ELOOP:
      error.code = Code::kFailedPrecondition;
      error.message = std::string(what) + ": a symbolic link is in the way";
      break;
    case EOPNOTSUPP:
      error.code = Code::kFailedPrecondition;
      error.next_step = "use a file system with hard links";
      break;
    case ENOTDIR:
    case EISDIR:
    case EXDEV:  // openat2: the path would leave the folder
      error.code = Code::kFailedPrecondition;
      break;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      error.code = Code::kResourceExhausted;
      break;
    case EACCES:
    case EPERM:
      error.code = Code::kPermissionDenied;
      break;
    case ENOENT:
      error.code = Code::kNotFound;
      break;
    case ENOSYS:
      error.code = Code::kFailedPrecondition;
      error.next_step = "a folder store needs Linux 5.6 or later (openat2)";
      break;
    default:
      break;
  }
  return error;
}

Result<std::unique_ptr<Folder>> Folder::open(const std::string& dir) {
  std::unique_ptr<Folder> folder(new Folder);
  folder->path_ = dir;
  folder->root_ = Fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder->root_.get() < 0) return fail(file_error(errno, "open folder " + dir));
  auto in_use = folder->in_use();  // says at once what is in the way
  if (!in_use) return fail(std::move(in_use).error());
  if (*in_use) {
    SIPHON_TRY(read_store_id(folder->meta_.get(), dir + "/" + kMetaDir + "/" + kIdFile));
  }
  return folder;
}

Result<bool> Folder::in_use() const {
  if (in_use_) return true;
  const MutexLock lock(mutex_);
  SIPHON_TRY(open_meta(/*make=*/false));
  return in_use_.load();
}

Status Folder::prepare() const {
  if (prepared_) return {};
  const MutexLock lock(mutex_);
  SIPHON_TRY(open_meta(/*make=*/true));
  auto identity = identify(root(), meta_.get(), path_ + "/" + kMetaDir + "/" + kIdFile);
  if (!identity) return fail(std::move(identity).error());
  identity_ = std::move(*identity);
  keep_spare();
  prepared_ = true;
  return {};
}

StoreIdentity Folder::identity() const {
  const auto used = in_use();
  const MutexLock lock(mutex_);
  if (prepared_) return identity_;
  StoreIdentity found{{}, node_of(root())};
  if (used && *used) {
    const auto id = read_store_id(meta_.get(), path_ + "/" + kMetaDir + "/" + kIdFile);
    if (id && !id->empty()) found.id = "folder:" + *id;
  }
  return found;
}

// Under mutex_.
Status Folder::open_meta(bool make) const {
  if (in_use_) return {};
  const std::string meta_path = path_ + "/" + kMetaDir;
  auto meta = open_dir(root(), kMetaDir, meta_path, make);
  if (!meta) return fail(std::move(meta).error());
  if (meta->get() < 0) return {};
  struct {
    const char* name;
    Fd* fd;
  } const parts[] = {{"head", &heads_}, {"data", &data_}, {"tmp", &tmp_}};
  for (const auto& part : parts) {
    auto fd = open_dir(meta->get(), part.name, meta_path + "/" + part.name, make);
    if (!fd) return fail(std::move(fd).error());
    if (fd->get() < 0) return {};  // somebody is making it, or was ended while he did
    *part.fd = std::move(*fd);
  }
  // Made once here, so that a reader of a folder that became read-only finds it.
  if (make) {
    Fd lock(open_beneath(meta->get(), kLockFile, O_RDWR | O_CREAT, 0600));
    if (lock.get() < 0 && errno != EROFS) return fail(file_error(errno, "open " + meta_path));
  }
  meta_ = std::move(*meta);
  in_use_ = true;
  return {};
}

Status Folder::spend_spare() const {
  SIPHON_TRY(remove_file(meta_.get(), kSpareFile));
  return sync_dir(meta_.get(), path_);
}

// Zeros that are written, not a hole: the room is taken. What fits of it is kept.
void Folder::keep_spare() const {
  const auto there = look(meta_.get(), kSpareFile);
  if (!there || (*there && static_cast<std::size_t>((*there)->st_size) >= kSpareBytes)) return;
  const auto file = open_file(meta_.get(), kSpareFile, O_WRONLY | O_CREAT, 0600);
  if (!file) return;
  static constexpr std::array<std::byte, 4 << 10> kZeros{};
  for (std::size_t at = 0; at < kSpareBytes; at += kZeros.size()) {
    if (!write_all(file->get(), at, kZeros, path_)) return;
  }
}

bool Folder::disk_is_full() const {
  struct statvfs fs {};
  if (::fstatvfs(root(), &fs) != 0) return false;
  return fs.f_bavail * fs.f_frsize < kSpareBytes || (fs.f_files > 0 && fs.f_favail == 0);
}

Status Folder::take_for_daemon() {
  SIPHON_TRY(prepare());
  Fd file(open_beneath(meta_.get(), kDaemonFile, O_RDWR | O_CREAT, 0600));
  if (file.get() < 0) return fail(file_error(errno, "open " + path_ + "/.siphon/daemon"));
  SIPHON_TRY(hold_file(file.get(), "folder " + path_,
                       "one siphond serves a folder: stop that one, or name another folder"));
  daemon_ = std::move(file);
  return {};
}

Result<NameLock> Folder::lock(std::string_view name, LockMode mode,
                              std::chrono::milliseconds timeout) const {
  const bool exclusive = mode == LockMode::kExclusive;
  if (exclusive) SIPHON_TRY(prepare());
  if (auto used = in_use(); !used) {
    return fail(std::move(used).error());
  } else if (!*used) {
    return NameLock(Fd());
  }
  Fd fd(open_beneath(meta_.get(), kLockFile, exclusive ? O_RDWR : O_RDONLY, 0));
  if (fd.get() < 0) {
    // Its maker was ended before it came so far: there is no extent yet.
    if (!exclusive && errno == ENOENT) return NameLock(Fd());
    return fail(file_error(errno, "lock extent " + std::string(name)));
  }
  struct flock range {};
  range.l_type = exclusive ? F_WRLCK : F_RDLCK;
  range.l_whence = SEEK_SET;
  range.l_start = lock_offset(name);
  range.l_len = 1;
  // No file lock call has a timeout, so ask again: the holder needs a few fsyncs at most.
  const Deadline deadline = deadline_in(timeout);
  auto pause = std::chrono::microseconds(100);
  while (::fcntl(fd.get(), F_OFD_SETLK, &range) != 0) {
    if (errno != EAGAIN && errno != EACCES && errno != EINTR) {
      return fail(file_error(errno, "lock extent " + std::string(name)));
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      return fail(Code::kUnavailable,
                  "extent " + std::string(name) + " is locked by another process or thread",
                  Side::kNone, "see who holds " + path_ + "/.siphon/lock, then retry");
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::microseconds(5000));
  }
  return NameLock(std::move(fd));
}

Status check_outside_of_stores(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  fs::path file = path;
  // Also a link that leads to nothing yet: whoever writes there makes what it names.
  constexpr int kMostLinks = 40;
  for (int links = 0; links < kMostLinks && fs::is_symlink(file, ignored); ++links) {
    file = file.parent_path() / fs::read_symlink(file, ignored);
  }
  file = fs::weakly_canonical(fs::absolute(file, ignored), ignored);
  const auto is_store = [&](const fs::path& dir) {
    return fs::is_directory(dir / kMetaDir / "head", ignored);
  };
  bool refused = is_store(file.parent_path());
  std::string next_step = "name a file elsewhere";
  if (refused) {
    next_step += "; an extent is made there by siphon put " + shell_word("posix:" + file.string()) +
                 " FILE, or by siphon copy to the folder's daemon";
  }
  for (fs::path dir = file.parent_path(); dir != dir.parent_path(); dir = dir.parent_path()) {
    refused = refused || (dir.filename() == kMetaDir && is_store(dir.parent_path()));
  }
  if (!refused) return {};
  return fail(
      Code::kInvalidArgument,
      path + " lies in a Siphon folder, whose store would not know of what is written there",
      Side::kRequester, next_step);
}

std::string data_name(std::string_view name, const PrivateId& id) {
  return std::string(name) + "." + to_hex(id);
}

std::string hidden_name(std::string_view name, const PrivateId& id) {
  return "." + data_name(name, id);
}

std::optional<DataFile> parse_data_name(std::string_view file_name) {
  constexpr std::size_t kHexDigits = 32;
  const bool hidden = file_name.starts_with('.');
  if (hidden) file_name.remove_prefix(1);
  if (file_name.size() < kHexDigits + 2) return std::nullopt;
  const std::size_t dot = file_name.size() - kHexDigits - 1;
  DataFile file{std::string(file_name.substr(0, dot)), {}, hidden};
  if (file_name[dot] != '.' || !from_hex(file_name.substr(dot + 1), file.id.bytes) ||
      !check_extent_name(file.extent)) {
    return std::nullopt;
  }
  return file;
}

Result<std::vector<DataFile>> data_files(int dir) {
  auto names = entry_names(dir);
  if (!names) return fail(std::move(names).error());
  std::vector<DataFile> files;
  for (const std::string& name : *names) {
    if (auto file = parse_data_name(name)) files.push_back(std::move(*file));
  }
  return files;
}

Result<Fd> open_file(int dir, const std::string& name, int flags, unsigned mode) {
  // O_NONBLOCK: a pipe put there by somebody must not hang us. Regular files ignore it.
  // A mode without O_CREAT is an error to openat2.
  Fd fd(open_beneath(dir, name.c_str(), flags | O_NONBLOCK | O_NOFOLLOW,
                     (flags & O_CREAT) != 0 ? mode : 0));
  if (fd.get() < 0) return fail(file_error(errno, "open " + name));
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return fail(file_error(errno, "open " + name));
  if (!S_ISREG(st.st_mode)) {
    return fail(Code::kFailedPrecondition, "open " + name + ": not a regular file");
  }
  return fd;
}

Result<std::optional<struct stat>> look(int dir, const std::string& name) {
  struct stat st {};
  if (::fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) return std::optional(st);
  if (errno == ENOENT) return std::optional<struct stat>();
  return fail(file_error(errno, "stat " + name));
}

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int rename_new(int from_dir, const std::string& from, int to_dir, const std::string& to) {
  if (::renameat2(from_dir, from.c_str(), to_dir, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  // A file system without that flag. A link does not take another file's place either.
  if (::linkat(from_dir, from.c_str(), to_dir, to.c_str(), 0) != 0) {
    return errno == EPERM || errno == ENOSYS ? EOPNOTSUPP : errno;
  }
  (void)::unlinkat(from_dir, from.c_str(), 0);  // it has its new name, whatever becomes of the old
  return 0;
}

Status hide_file(int dir, const std::string& name) {
  const std::string hidden = "." + name;
  if (::renameat(dir, name.c_str(), dir, hidden.c_str()) != 0 && errno != ENOENT) {
    return fail(file_error(errno, "take away " + name));
  }
  return sync_dir(dir, name);
}

Status remove_file(int dir, const std::string& name) {
  if (::unlinkat(dir, name.c_str(), 0) != 0 && errno != ENOENT) {
    return fail(file_error(errno, "remove " + name));
  }
  return {};
}

Status sync_dir(int dir, std::string_view what) {
  if (::fsync(dir) != 0) return fail(file_error(errno, "sync the folder of " + std::string(what)));
  return {};
}

Status write_all(int fd, std::uint64_t offset_bytes, std::span<const std::byte> in,
                 std::string_view what) {
  while (!in.empty()) {
    ssize_t n = ::pwrite(fd, in.data(), in.size(), static_cast<off_t>(offset_bytes));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail(file_error(n < 0 ? errno : ENOSPC, "write " + std::string(what)));
    in = in.subspan(static_cast<std::size_t>(n));
    offset_bytes += static_cast<std::uint64_t>(n);
  }
  return {};
}

Result<std::size_t> read_some(int fd, std::uint64_t offset_bytes, std::span<std::byte> out,
                              std::string_view what) {
  std::size_t done = 0;
  while (done < out.size()) {
    ssize_t n =
        ::pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset_bytes + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(file_error(errno, "read " + std::string(what)));
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

Result<std::vector<std::string>> extent_names(int dir) {
  auto names = entry_names(dir);
  if (names)
    std::erase_if(*names, [](const std::string& name) { return !check_extent_name(name); });
  return names;
}

Result<std::vector<std::string>> entry_names(int dir) {
  // A description of its own: the position of a directory stream is shared by duplicates.
  Fd fd(open_beneath(dir, ".", O_RDONLY | O_DIRECTORY, 0));
  if (fd.get() < 0) return fail(file_error(errno, "list the folder"));
  struct CloseDir {
    void operator()(DIR* dir) const { ::closedir(dir); }
  };
  std::unique_ptr<DIR, CloseDir> stream(::fdopendir(fd.get()));
  if (!stream) return fail(file_error(errno, "list the folder"));
  fd.release();
  std::vector<std::string> names;
  while (true) {
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (!entry) break;
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  if (errno != 0) return fail(file_error(errno, "list the folder"));
  return names;
}

}  // namespace siphon::posix
