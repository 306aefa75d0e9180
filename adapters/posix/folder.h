// Folder: the file system under the posix adapter. Every path is resolved beneath one open
// directory (openat2), names are single components, links are never followed.
//
//   DIR/NAME                     the bytes of the current extent NAME, nothing else
//   DIR/.siphon/head/NAME        its head file (head_file.h)
//   DIR/.siphon/data/NAME.HEX    bytes of a scratch or trashed private id
//   DIR/.siphon/data/.NAME.HEX   bytes that are nobody's: never published, or no more
//   DIR/.siphon/tmp/NAME         a head file being written
//   DIR/.siphon/id               which store this is: 32 hex digits, made once
//   DIR/.siphon/lock             one byte-range lock per name, for all processes
//   DIR/.siphon/daemon           held by the one siphond that serves the folder; its pid
//   DIR/.siphon/spare            64 KiB of room for head files when the disk is full
//
// docs/extent_format.md, "On a plain folder", says why. Thread safe. Looking creates nothing: what
// is missing of DIR/.siphon is made by the first change.
#pragma once

#include <sys/stat.h>

#include <atomic>
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
#include "plugin/core/fd.h"
#include "plugin/core/mutex.h"

namespace siphon::posix {

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
  // NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION (not a directory; a link in the way).
  static Result<std::unique_ptr<Folder>> open(const std::string& dir);

  const std::string& path() const { return path_; }
  // The id is made by the first change, as all that lies in DIR/.siphon; until then only the node.
  StoreIdentity identity() const;
  int root() const { return root_.get(); }
  // Whether there is a DIR/.siphon by now: nobody has made an extent here before. The three below
  // are valid from then on.
  Result<bool> in_use() const;
  int heads() const { return heads_.get(); }
  int data() const { return data_.get(); }
  int tmp() const { return tmp_.get(); }
  // Makes what is missing of DIR/.siphon.
  Status prepare() const;

  // UNAVAILABLE when another thread or process holds it for longer than `timeout`. An exclusive
  // lock prepares the folder; a shared one of a folder that is not in use locks nothing.
  Result<NameLock> lock(std::string_view name, LockMode mode,
                        std::chrono::milliseconds timeout) const;

  // Gives the spare room away, for a head file that found none. Success too when there was none:
  // somebody else may have given it away just now.
  Status spend_spare() const;
  // Lays up spare room, as far as there is some.
  void keep_spare() const;
  // Whether there is less free on its file system than the spare room is large.
  bool disk_is_full() const;

  // Takes the folder for this process, until the object goes: one daemon serves a folder.
  // FAILED_PRECONDITION names the process that has it.
  Status take_for_daemon();

 private:
  Folder() = default;
  Status open_meta(bool make) const SIPHON_REQUIRES(mutex_);

  std::string path_;
  Fd root_, daemon_;
  mutable Mutex mutex_;  // guards the making of those below
  mutable StoreIdentity identity_ SIPHON_GUARDED_BY(mutex_);
  mutable Fd meta_, heads_, data_, tmp_;
  mutable std::atomic<bool> in_use_{false};    // set last; the descriptors do not change any more
  mutable std::atomic<bool> prepared_{false};  // the id is there as well
};

// INVALID_ARGUMENT when a file that is written at `path` would lie in a Siphon folder, whose store
// would not know of it: as DIR/NAME, or anywhere in DIR/.siphon. Links are followed.
Status check_outside_of_stores(const std::string& path);

// "NAME.HEX", the file of a private id under data/.
std::string data_name(std::string_view name, const PrivateId& id);
// ".NAME.HEX", of bytes that no head may name as they are: a small put's until it is public, and
// what hide_file has taken away.
std::string hidden_name(std::string_view name, const PrivateId& id);

// A regular file beneath `dir`, never through a link. ELOOP, ENOENT... as file_error has them;
// FAILED_PRECONDITION when it is no regular file. `flags` as open(2).
Result<Fd> open_file(int dir, const std::string& name, int flags, unsigned mode = 0);
// What is at the name itself (links not followed); empty when nothing is.
Result<std::optional<struct stat>> look(int dir, const std::string& name);
bool same_file(const struct stat& a, const struct stat& b);
// Renames within a file system and never takes another file's place, not even one that appears
// meanwhile. Returns 0 or the errno: EEXIST, something has that name; EOPNOTSUPP, the file system
// knows neither such a rename nor hard links. A crash may leave both names.
int rename_new(int from_dir, const std::string& from, int to_dir, const std::string& to);
// Takes a name away from a file that stays, hidden, for its writer; durable. Needs no room, so it
// works on a full disk. Success when it is not there.
Status hide_file(int dir, const std::string& name);
// Removes a name; success when it is not there.
Status remove_file(int dir, const std::string& name);
Status sync_dir(int dir, std::string_view what);
Status write_all(int fd, std::uint64_t offset_bytes, std::span<const std::byte> in,
                 std::string_view what);
// Reads until `out` is full or the file ends; returns the bytes read.
Result<std::size_t> read_some(int fd, std::uint64_t offset_bytes, std::span<std::byte> out,
                              std::string_view what);
// All names in a directory but "." and "..", unsorted.
Result<std::vector<std::string>> entry_names(int dir);
// Those of them that are valid extent names.
Result<std::vector<std::string>> extent_names(int dir);

// A file of data/, by its name.
struct DataFile {
  std::string extent;
  PrivateId id;
  bool hidden = false;  // see hidden_name
};
// nullopt when it is none of ours.
std::optional<DataFile> parse_data_name(std::string_view file_name);
// All of them, unsorted.
Result<std::vector<DataFile>> data_files(int dir);

}  // namespace siphon::posix
