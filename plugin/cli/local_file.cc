#include "plugin/cli/local_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "adapters/posix/folder.h"
#include "plugin/base/types.h"
#include "plugin/cli/stdio.h"

namespace siphon::cli {
namespace {

bool same_time(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

tl::unexpected<Error> exists(const std::string& what) {
  return fail(Code::kAlreadyExists, what, Side::kRequester,
              "choose another name; or --force, to replace what is there");
}

std::string folder_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// What stdout does not take is told as for every verb, whatever the reason: not as a store's limit.
Error not_taken(Error error) {
  if (error.reason == Reason::kNone && error.code != Code::kCancelled) error.code = Code::kUnknown;
  return error;
}

// Makes the name itself durable.
Status sync_folder(const std::string& path) {
  const std::string folder = folder_of(path);
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::fsync(fd) == 0;
  const int why = errno;
  if (fd >= 0) ::close(fd);
  if (synced) return {};
  return fail(
      error_from_errno(why, path + " is written, but may not outlast a power cut: sync " + folder,
                       Side::kRequester));
}

}  // namespace

Result<InputFile> InputFile::open(const std::string& path) {
  const bool standard = path == "-";
  const int fd = standard ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail(error_from_errno(errno, "open " + path, Side::kRequester));
  // What a program inherits never closes on exec: this is a file of our own (a library opens one
  // before main) on the number of a standard input that was closed.
  if (standard && (::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0) {
    return fail(error_from_errno(EBADF, "read standard input", Side::kRequester));
  }
  InputFile file(fd, standard ? "standard input" : path);
  if (::fstat(fd, &file.opened_) != 0) {
    return fail(error_from_errno(errno, "look at " + file.name_, Side::kRequester));
  }
  if (S_ISDIR(file.opened_.st_mode)) {
    return fail(Code::kInvalidArgument, file.name_ + " is a directory", Side::kRequester,
                "tar c " + path + " | siphon put EXTENT -");
  }
  if (S_ISREG(file.opened_.st_mode)) {
    file.start_ = std::max<off_t>(::lseek(fd, 0, SEEK_CUR), 0);
    const off_t rest = std::max<off_t>(file.opened_.st_size - file.start_, 0);
    file.size_bytes_ = static_cast<std::uint64_t>(rest);
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  }
  return file;
}

InputFile::InputFile(InputFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      name_(std::move(other.name_)),
      size_bytes_(other.size_bytes_),
      opened_(other.opened_),
      start_(other.start_) {}

InputFile::~InputFile() {
  if (fd_ > STDIN_FILENO) ::close(fd_);
}

Result<std::size_t> InputFile::read(std::span<std::byte> out) {
  for (;;) {
    // A signal may come to another thread, or just before the read: no read waits for long.
    pollfd wait{fd_, POLLIN, 0};
    if (!size_bytes_ && ::poll(&wait, 1, 100) <= 0) {
      if (interrupt_flag().load()) return fail(Code::kCancelled, "interrupted");
      continue;
    }
    const ssize_t n = ::read(fd_, out.data(), out.size());
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno == EINTR && interrupt_flag().load()) return fail(Code::kCancelled, "interrupted");
    if (errno == EINTR || errno == EAGAIN) continue;
    return fail(error_from_errno(errno, "read " + name_, Side::kRequester));
  }
}

InputFile::Changed InputFile::changed() const {
  if (!size_bytes_) return {};
  struct stat now {};
  if (::fstat(fd_, &now) != 0) {
    return {Change::kContent, error_from_errno(errno, "look at " + name_, Side::kRequester)};
  }
  std::string what;
  if (now.st_size != opened_.st_size) {
    what = fmt::format("it had {} bytes and has {}", opened_.st_size, now.st_size);
  } else if (!same_time(now.st_mtim, opened_.st_mtim)) {
    const auto ms = [](const timespec& t) {
      return static_cast<std::uint64_t>(t.tv_sec) * 1000 +
             static_cast<std::uint64_t>(t.tv_nsec) / 1'000'000;
    };
    what = "it was written to at " + rfc3339(ms(now.st_mtim));
  }
  if (!what.empty()) {
    return {Change::kContent, source_changed(name_ + " changed while it was read: " + what)};
  }
  return {same_time(now.st_ctim, opened_.st_ctim) ? Change::kNone : Change::kMaybe, {}};
}

Status InputFile::rewind() {
  if (::lseek(fd_, start_, SEEK_SET) == start_) return {};
  return fail(error_from_errno(errno, "read " + name_ + " again", Side::kRequester));
}

Error source_changed(const std::string& what) {
  return Error{Code::kAborted, what, Side::kRequester,
               "nothing was published: put it again when nobody writes to it, or from a snapshot; "
               "--allow-changing takes what was read",
               Reason::kSourceChanged};
}

Result<OutputFile> OutputFile::open_directly(const std::string& path, const struct stat& there,
                                             bool force) {
  const bool block = S_ISBLK(there.st_mode);
  if (block && !force) return exists(path + " is a block device");
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return fail(error_from_errno(errno, "open " + path, Side::kRequester));
  OutputFile file(fd, path);
  file.is_block_device_ = block;
  return file;
}

Result<OutputFile> OutputFile::open(const std::string& path, bool force) {
  if (path == "-") return OutputFile(STDOUT_FILENO, path);
  std::string final_path = path;
  struct stat there {};
  const bool is_there = ::stat(path.c_str(), &there) == 0;
  if (is_there && !S_ISREG(there.st_mode)) return open_directly(path, there, force);
  struct stat link {};
  const bool is_link = ::lstat(path.c_str(), &link) == 0 && S_ISLNK(link.st_mode);
  if (is_link && is_there) {
    char* real = ::realpath(path.c_str(), nullptr);
    if (real == nullptr) return fail(error_from_errno(errno, "follow " + path, Side::kRequester));
    final_path = real;
    std::free(real);
  }
  SIPHON_TRY(posix::check_outside_of_stores(path));
  if (is_there && !force) return exists(path + " exists");
  if (is_link && !is_there) return exists(path + " is a symbolic link that leads nowhere");
  std::string temporary = final_path + ".siphon-XXXXXX";
  const int fd = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0) return fail(error_from_errno(errno, "create " + temporary, Side::kRequester));
  OutputFile file(fd, final_path);
  file.temporary_ = std::move(temporary);
  file.replaces_ = force;
  if (is_there) {
    SIPHON_TRY(file.keep_mode_and_owner(there));
  } else {
    // mkostemp makes it private; give it what a new file would have.
    const mode_t mask = ::umask(0);
    ::umask(mask);
    ::fchmod(fd, 0666 & ~mask);
  }
  return file;
}

Status OutputFile::keep_mode_and_owner(const struct stat& there) {
  struct stat own {};
  if (::fstat(fd_, &own) != 0) return fail(error_from_errno(errno, "look at " + temporary_));
  const bool same_owner = own.st_uid == there.st_uid && own.st_gid == there.st_gid;
  if ((same_owner || ::fchown(fd_, there.st_uid, there.st_gid) == 0) &&
      ::fchmod(fd_, there.st_mode & 07777) == 0) {
    return {};
  }
  return fail(error_from_errno(errno, "keep the owner and mode of " + path_, Side::kRequester)
                  .with_next_step("it is as it was: write to another name, or as its owner"));
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      replaces_(other.replaces_),
      is_block_device_(other.is_block_device_) {}

OutputFile::~OutputFile() {
  if (fd_ > STDOUT_FILENO) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Status OutputFile::write(std::span<const std::byte> bytes) {
  if (path_ != "-") return write_all(fd_, bytes, "write to " + path_);
  Status written = write_all(fd_, bytes, "write to stdout");
  if (!written) return fail(not_taken(std::move(written).error()));
  return written;
}

Status OutputFile::commit() {
  if (temporary_.empty()) {
    // Pipes and the like cannot be synced; a device and a redirected file can.
    if (::fsync(fd_) == 0 || (!is_block_device_ && errno != EIO && errno != ENOSPC)) return {};
    Error error =
        error_from_errno(errno, path_ == "-" ? "sync stdout" : "sync " + path_, Side::kRequester);
    return fail(path_ == "-" ? not_taken(std::move(error)) : std::move(error));
  }
  if (::fsync(fd_) != 0) {
    return fail(error_from_errno(errno, "sync " + temporary_, Side::kRequester));
  }
  int error = 0;
  if (!replaces_) {
    error = posix::rename_new(AT_FDCWD, temporary_, AT_FDCWD, path_);
    if (error == EEXIST) return exists(path_ + " has appeared meanwhile");
    if (error == EOPNOTSUPP) {
      return fail(Code::kFailedPrecondition,
                  "the file system of " + path_ +
                      " can make no file there without the risk to replace another",
                  Side::kRequester, "--force, which takes that risk; or write to another one");
    }
  } else if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    error = errno;
  }
  if (error != 0) return fail(error_from_errno(error, "rename to " + path_, Side::kRequester));
  temporary_.clear();
  return sync_folder(path_);
}

}  // namespace siphon::cli
