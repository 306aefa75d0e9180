#include "plugin/base/held_file.h"

#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <string>

namespace siphon {

Status hold_file(int fd, std::string_view what, std::string_view next_step) {
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return fail(error_from_errno(errno, "lock " + std::string(what)));
    std::array<char, 16> text{};
    const ssize_t length = ::pread(fd, text.data(), text.size() - 1, 0);
    std::string pid(text.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0)));
    std::erase_if(pid, [](unsigned char c) { return std::isdigit(c) == 0; });
    return fail(
        Code::kFailedPrecondition,
        std::string(what) + " is in use by another process" + (pid.empty() ? "" : ", pid " + pid),
        Side::kNone, std::string(next_step));
  }
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(fd, 0) != 0 ||
      ::pwrite(fd, pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    // On a full disk it is held all the same, by a process without a name.
  }
  return {};
}

}  // namespace siphon
