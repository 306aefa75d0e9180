#include "plugin/cli/receipts.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <utility>

namespace siphon::cli {

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
  if (own_) return {};
  Error error = error_from_errno(errno, "open " + path + " for the receipts", Side::kRequester);
  error.code = Code::kInternal;  // nothing of the extents' is missing or forbidden
  error.message += "; nothing was copied";
  error.next_step = "name a file that can be written: --receipts FILE";
  return fail(std::move(error));
}

bool ReceiptFile::write(const std::string& line) {
  const std::string text = (torn_ ? "\n" : "") + line + "\n";
  std::string_view left = text;
  while (!left.empty()) {
    const ssize_t put = ::write(fd_, left.data(), left.size());
    if (put >= 0) {
      left.remove_prefix(static_cast<std::size_t>(put));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN) {
      pollfd ready{fd_, POLLOUT, 0};
      (void)::poll(&ready, 1, -1);
      continue;
    }
    note(errno, "write a receipt to ");
    torn_ = torn_ || left.size() < text.size();
    return false;
  }
  torn_ = false;
  return true;
}

bool ReceiptFile::sync() {
  if (fd_ < 0) return true;
  // A pipe or a terminal has nothing to sync.
  if (::fsync(fd_) == 0 || errno == EINVAL || errno == ENOTSUP || errno == EROFS) return true;
  note(errno, "sync the receipts in ");
  return false;
}

bool ReceiptFile::close() {
  const int fd = std::exchange(fd_, -1);
  if (!std::exchange(own_, false)) return true;
  if (::close(fd) == 0 || errno == EINTR) return true;
  note(errno, "close the receipts in ");
  return false;
}

void ReceiptFile::note(int errno_value, const char* what) {
  if (!error_) error_ = error_from_errno(errno_value, what + path_, Side::kRequester);
}

}  // namespace siphon::cli
