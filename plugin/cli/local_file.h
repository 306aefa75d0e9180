// The local end of put and get: a file, standard input or output.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "plugin/base/status.h"

namespace siphon::cli {

// Reads a file or ("-") standard input. Not thread safe.
class InputFile {
 public:
  static Result<InputFile> open(const std::string& path);
  InputFile(InputFile&& other) noexcept;
  ~InputFile();
  // Of a regular file, as it was when it was opened.
  std::optional<std::uint64_t> size_bytes() const { return size_bytes_; }
  // Its mode bits, likewise.
  std::optional<mode_t> mode() const {
    return size_bytes_ ? std::optional(opened_.st_mode & 07777) : std::nullopt;
  }
  // Up to out.size() bytes, 0 at the end. Waits for a stream, whether or not it is set to block.
  // CANCELLED when it was interrupted.
  Result<std::size_t> read(std::span<std::byte> out);

  // Whether a regular file is as it was when it was opened: size, time of change of the content,
  // time of change of the file. A stream is taken as it comes.
  enum class Change {
    kNone,
    kMaybe,    // renamed, linked, given to somebody else; or written to and its times put back
    kContent,  // written to, grown, cut
  };
  struct Changed {
    Change change = Change::kNone;
    Error error;  // kContent: ABORTED, Reason::kSourceChanged, says what changed
  };
  Changed changed() const;
  // Back to where reading began: to read all of it again.
  Status rewind();

 private:
  InputFile(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}
  int fd_;
  std::string name_;
  std::optional<std::uint64_t> size_bytes_;
  struct stat opened_ {};
  off_t start_ = 0;
};

// Reason::kSourceChanged with its next step.
Error source_changed(const std::string& what);

// Writes a file under a temporary name beside it, or standard output ("-"), or something that is
// no regular file (a pipe, /dev/null, a block device), directly. Not thread safe.
class OutputFile {
 public:
  // A file of a Siphon folder is refused: its store would not know of it.
  // A file or block device that is there is ALREADY_EXISTS, unless `force`: then the file keeps its
  // mode and owner, and a symbolic link leads to the file that is replaced.
  static Result<OutputFile> open(const std::string& path, bool force);
  OutputFile(OutputFile&& other) noexcept;
  // Removes the temporary file unless it was committed.
  ~OutputFile();
  Status write(std::span<const std::byte> bytes);
  // Syncs, renames, syncs the folder: from here on the file is there under its name, and durable.
  Status commit();
  const std::string& temporary() const { return temporary_; }  // empty: there is none

 private:
  OutputFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  static Result<OutputFile> open_directly(const std::string& path, const struct stat& there,
                                          bool force);
  Status keep_mode_and_owner(const struct stat& there);
  int fd_;
  std::string path_;
  std::string temporary_;  // empty: written directly
  bool replaces_ = false;
  bool is_block_device_ = false;
};

}  // namespace siphon::cli
