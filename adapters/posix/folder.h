// Folder: the file system under the posix adapter. Every path is resolved beneath one open
// directory (openat2), names are single components, links are never followed.
//
//   DIR/NAME                     the bytes of the current extent NAME, nothing else
//   DIR/.siphon/head/NAME        its head file (head_file.h)
//   DIR/.siphon/data/NAME.HEX    bytes of a scratch or trashed private id
//   DIR/.siphon/tmp/NAME         a head file being written
//   DIR/.siphon/id               which store this is: 32 hex digits, made once
//   DIR/.siphon/lock             one byte-range lock per name, for all processes
//
// docs/extent_format.md, "On a plain folder", says why. Thread safe: nothing changes after open.
#pragma once

#include <sys/stat.h>

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "plugin/base/status.h"
#include "plugin/base/types.h"

namespace siphon::posix {

// Owns a file descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd();
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

// Like error_from_errno, with what errno means to a file store: EIO is DATA_LOSS, EROFS and
// ELOOP (a symbolic link) are FAILED_PRECONDITION, ENOSPC, EDQUOT and EMFILE RESOURCE_EXHAUSTED.
Error file_error(int errno_value, std::string_view what);

// A held lock on one name; released on destruction, and by the kernel when the process dies.
class NameLock {
 public:
  explicit NameLock(Fd fd) : fd_(std::move(fd)) {}

 private:
  Fd fd_;  // the lock belongs to this open file description (F_OFD_SETLK)
};

enum class LockMode { kShared, kExclusive };

class Folder {
 public:
  // Opens `dir` and makes what is missing of DIR/.siphon. NOT_FOUND, PERMISSION_DENIED,
  // FAILED_PRECONDITION (not a directory; a link in the way; read-only and never used).
  static Result<std::unique_ptr<Folder>> open(const std::string& dir);

  const std::string& path() const { return path_; }
  const StoreIdentity& identity() const { return identity_; }
  int root() const { return root_.get(); }
  int heads() const { return heads_.get(); }
  int data() const { return data_.get(); }
  int tmp() const { return tmp_.get(); }

  // UNAVAILABLE when another thread or process holds it for longer than `timeout`.
  Result<NameLock> lock(std::string_view name, LockMode mode,
                        std::chrono::milliseconds timeout) const;

 private:
  Folder() = default;
  std::string path_;
  StoreIdentity identity_;
  Fd root_, meta_, heads_, data_, tmp_;
};

// "NAME.HEX", the file of a private id under data/.
std::string data_name(std::string_view name, const PrivateId& id);

// A regular file beneath `dir`, never through a link. ELOOP, ENOENT... as file_error has them;
// FAILED_PRECONDITION when it is no regular file. `flags` as open(2).
Result<Fd> open_file(int dir, const std::string& name, int flags, unsigned mode = 0);
// What is at the name itself (links not followed); empty when nothing is.
Result<std::optional<struct stat>> look(int dir, const std::string& name);
// Removes a name; success when it is not there.
Status remove_file(int dir, const std::string& name);
Status sync_dir(int dir, std::string_view what);
Status write_all(int fd, std::uint64_t offset_bytes, std::span<const std::byte> in,
                 std::string_view what);
// Reads until `out` is full or the file ends; returns the bytes read.
Result<std::size_t> read_some(int fd, std::uint64_t offset_bytes, std::span<std::byte> out,
                              std::string_view what);
// The names in a directory that are valid extent names, unsorted.
Result<std::vector<std::string>> extent_names(int dir);

}  // namespace siphon::posix
