// Preloaded into a siphon under test: a file system that cannot rename without replacing (EINVAL),
// as some network file systems. With SIPHON_TEST_APPEARS set, somebody else makes a file of the
// new name just before: "mine".
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

extern "C" int renameat2(int from_dir, const char* from, int to_dir, const char* to,
                         unsigned flags) noexcept {
  using Rename = int (*)(int, const char*, int, const char*, unsigned);
  static const auto real = reinterpret_cast<Rename>(dlsym(RTLD_NEXT, "renameat2"));
  if (flags == 0) return real(from_dir, from, to_dir, to, flags);
  if (std::getenv("SIPHON_TEST_APPEARS") != nullptr) {
    const int fd = ::openat(to_dir, to, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0 || ::write(fd, "mine", 4) != 4) std::abort();
    ::close(fd);
  }
  errno = EINVAL;
  return -1;
}
