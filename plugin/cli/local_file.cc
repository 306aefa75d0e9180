#include "plugin/cli/local_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "plugin/cli/stdio.h"

namespace siphon::cli {

Result<InputFile> InputFile::open(const std::string& path) {
  if (path == "-") return InputFile(STDIN_FILENO, "standard input");
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail(error_from_errno(errno, "open " + path, Side::kRequester));
  InputFile file(fd, path);
  struct stat st {};
  if (::fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
    file.size_bytes_ = static_cast<std::uint64_t>(st.st_size);
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  } else if (S_ISDIR(st.st_mode)) {
    return fail(Code::kInvalidArgument, path + " is a directory", Side::kRequester);
  }
  return file;
}

InputFile::InputFile(InputFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      name_(std::move(other.name_)),
      size_bytes_(other.size_bytes_) {}

InputFile::~InputFile() {
  if (fd_ > STDIN_FILENO) ::close(fd_);
}

Result<std::size_t> InputFile::read(std::span<std::byte> out) {
  const ssize_t n = ::read(fd_, out.data(), out.size());
  if (n >= 0) return static_cast<std::size_t>(n);
  if (errno == EINTR) return fail(Code::kCancelled, "interrupted");
  return fail(error_from_errno(errno, "read " + name_, Side::kRequester));
}

Result<OutputFile> OutputFile::open(const std::string& path) {
  if (path == "-") return OutputFile(STDOUT_FILENO, path);
  struct stat st {};
  if (::stat(path.c_str(), &st) == 0 && !S_ISREG(st.st_mode)) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) return fail(error_from_errno(errno, "open " + path, Side::kRequester));
    return OutputFile(fd, path);
  }
  std::string temporary = path + ".siphon-XXXXXX";
  const int fd = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0) return fail(error_from_errno(errno, "create " + temporary, Side::kRequester));
  // mkostemp makes it private; give it what a new file would have.
  const mode_t mask = ::umask(0);
  ::umask(mask);
  ::fchmod(fd, 0666 & ~mask);
  OutputFile file(fd, path);
  file.temporary_ = std::move(temporary);
  return file;
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})) {}

OutputFile::~OutputFile() {
  if (fd_ > STDOUT_FILENO) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Status OutputFile::write(std::span<const std::byte> bytes) {
  return write_all(fd_, bytes, path_ == "-" ? "stdout" : path_);
}

Status OutputFile::commit() {
  if (temporary_.empty()) return {};
  if (::fsync(fd_) != 0) return fail(error_from_errno(errno, "sync " + temporary_));
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    return fail(error_from_errno(errno, "rename to " + path_, Side::kRequester));
  }
  temporary_.clear();
  return {};
}

}  // namespace siphon::cli
