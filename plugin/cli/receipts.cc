#include "plugin/cli/receipts.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <span>
#include <utility>

#include "plugin/cli/stdio.h"

namespace siphon::cli {
namespace {

// Whether what the file holds ends within a line: a run before this one was torn there. One that
// may be written and not read is taken to: an empty line costs less than a lost one.
bool ends_within_a_line(const std::string& path, int fd) {
  struct stat st {};
  if (::fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0) return false;
  const int reader = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (reader < 0) return true;
  char last = 0;
  const bool whole = ::pread(reader, &last, 1, st.st_size - 1) == 1 && last == '\n';
  ::close(reader);
  return !whole;
}

}  // namespace

ReceiptFile::~ReceiptFile() {
  if (own_) ::close(fd_);
}

Status ReceiptFile::open(const std::string& path) {
  path_ = path == "-" ? "stdout" : path;
  if (path == "-") {
    fd_ = STDOUT_FILENO;
    return {};
  }
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  own_ = fd_ >= 0;
  if (own_) {
    torn_ = ends_within_a_line(path, fd_);
    return {};
  }
  Error error = error_from_errno(errno, "open " + path + " for the receipts", Side::kRequester);
  error.code = Code::kInternal;  // nothing of the extents' is missing or forbidden
  error.message += "; nothing was copied";
  error.next_step = "name a file that can be written: --receipts FILE";
  return fail(std::move(error));
}

bool ReceiptFile::write(const std::string& line) {
  if (stuck_) return false;
  const std::string text = (torn_ ? "\n" : "") + line + "\n";
  std::size_t taken = 0;
  Status written =
      write_all(fd_, std::as_bytes(std::span(text)), "write a receipt to " + path_, &taken);
  torn_ = !written && (torn_ || taken > 0);
  if (written) return true;
  stuck_ = written.error().code == Code::kCancelled;
  note(std::move(written).error());
  return false;
}

bool ReceiptFile::sync() {
  if (fd_ < 0) return true;
  // A pipe or a terminal has nothing to sync.
  if (::fsync(fd_) == 0 || errno == EINVAL || errno == ENOTSUP || errno == EROFS) return true;
  note(error_from_errno(errno, "sync the receipts in " + path_, Side::kRequester));
  return false;
}

bool ReceiptFile::close() {
  const int fd = std::exchange(fd_, -1);
  if (!std::exchange(own_, false)) return true;
  if (::close(fd) == 0 || errno == EINTR) return true;
  note(error_from_errno(errno, "close the receipts in " + path_, Side::kRequester));
  return false;
}

void ReceiptFile::note(Error error) {
  if (!error_) error_ = std::move(error);
}

}  // namespace siphon::cli
