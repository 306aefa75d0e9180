#include "plugin/cli/stdio.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "plugin/base/text.h"

namespace siphon::cli {
namespace {

constexpr std::size_t kBufferBytes = 64 * 1024;
// What a pipe that is ready takes without blocking (POSIX: PIPE_BUF).
constexpr std::size_t kReadyBytes = 4096;
constexpr int kGraceMs = 1000;  // for the last words after an interrupt

// Waits until `fd` takes something. False: an interrupt came, and it took nothing for kGraceMs.
bool wait_writable(int fd) {
  for (;;) {
    const bool interrupted = interrupt_flag().load();
    pollfd wait{fd, POLLOUT, 0};
    // Another thread may have taken the signal: looked at again now and then.
    const int ready = ::poll(&wait, 1, interrupted ? kGraceMs : 200);
    if (ready > 0 || (ready < 0 && errno != EINTR)) return true;  // the write says what it is
    if (ready == 0 && interrupted) return false;
  }
}

}  // namespace

std::atomic<bool>& interrupt_flag() {
  static std::atomic<bool> flag{false};
  static_assert(std::atomic<bool>::is_always_lock_free);  // a signal handler sets it
  return flag;
}

Status write_all(int fd, std::span<const std::byte> bytes, std::string_view doing,
                 std::size_t* taken) {
  const auto stuck = [&] {
    return fail(Code::kCancelled, std::string(doing) + ": interrupted, and it takes nothing more");
  };
  // A signal goes to the main thread and ends a write there; another's would go on for ever.
  const bool ended_by_signals = ::gettid() == ::getpid();
  if (taken != nullptr) *taken = 0;
  while (!bytes.empty()) {
    std::size_t length = bytes.size();
    if (!ended_by_signals || interrupt_flag().load()) {
      if (!wait_writable(fd)) return stuck();
      length = std::min(length, kReadyBytes);
    }
    const ssize_t n = ::write(fd, bytes.data(), length);
    if (n >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(n));
      if (taken != nullptr) *taken += static_cast<std::size_t>(n);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!wait_writable(fd)) return stuck();
    } else if (errno != EINTR) {
      const int why = errno;
      return fail(error_from_errno(why, std::string(doing), Side::kRequester)
                      .with_reason(why == EPIPE ? Reason::kClosedPipe : Reason::kNone));
    }
  }
  return {};
}

void TextStream::write(std::string_view text) {
  const MutexLock lock(mutex_);
  held_ += text;
  if (!buffered_ || held_.size() >= kBufferBytes) write_held();
}

Status TextStream::flush() {
  const MutexLock lock(mutex_);
  write_held();
  return status_;
}

void TextStream::write_held() {
  if (status_ || !buffered_) {
    Status written = write_all(fd_, std::as_bytes(std::span(held_)), "write to " + what_);
    if (status_) status_ = std::move(written);
  }
  held_.clear();
}

TextStream& standard_output() {
  static TextStream stream(STDOUT_FILENO, "stdout", /*buffered=*/true);
  return stream;
}

TextStream& standard_error() {
  static TextStream stream(STDERR_FILENO, "stderr", /*buffered=*/false);
  return stream;
}

void complain(std::string_view text) {
  standard_error().write("siphon: " + escaped_lines(text) + "\n");
}

std::size_t error_columns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

void hold_standard_descriptors() {
  // The wrong way round on purpose: reading from this 0 and writing to this 1 are EBADF, as they
  // are for a closed one.
  for (const auto& [fd, mode] :
       {std::pair(STDIN_FILENO, O_WRONLY), std::pair(STDOUT_FILENO, O_RDONLY),
        std::pair(STDERR_FILENO, O_RDONLY)}) {
    if (::fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
    const int held = ::open("/dev/null", mode);  // the lowest free number: this one
    (void)held;
  }
}

}  // namespace siphon::cli
