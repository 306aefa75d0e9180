// The local end of put and get: a file, standard input or output.
#pragma once

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
  std::optional<std::uint64_t> size_bytes() const { return size_bytes_; }  // regular files only
  // Up to out.size() bytes, 0 at the end. CANCELLED when a signal came in between.
  Result<std::size_t> read(std::span<std::byte> out);

 private:
  InputFile(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}
  int fd_;
  std::string name_;
  std::optional<std::uint64_t> size_bytes_;
};

// Writes a file under a temporary name beside it, or standard output ("-"), or something that is
// no regular file (a pipe, /dev/null), directly. Not thread safe.
class OutputFile {
 public:
  static Result<OutputFile> open(const std::string& path);
  OutputFile(OutputFile&& other) noexcept;
  // Removes the temporary file unless it was committed.
  ~OutputFile();
  Status write(std::span<const std::byte> bytes);
  // Syncs and renames: from here on the file is there under its name.
  Status commit();

 private:
  OutputFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  int fd_;
  std::string path_;
  std::string temporary_;  // empty: written directly
};

}  // namespace siphon::cli
