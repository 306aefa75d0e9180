// Preloaded by a test: to sync a file fails as on a disk that has lost what was written.
//
//   SIPHON_TEST_FAIL_SYNC   of files and folders whose path is like this pattern (fnmatch)
#include <dlfcn.h>
#include <fnmatch.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <string>

namespace {

bool fails(int fd) {
  const char* wanted = std::getenv("SIPHON_TEST_FAIL_SYNC");
  if (wanted == nullptr) return false;
  std::array<char, 4096> path;
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t size = ::readlink(link.c_str(), path.data(), path.size());
  if (size <= 0) return false;
  const std::string is(path.data(), static_cast<std::size_t>(size));
  return ::fnmatch(wanted, is.c_str(), 0) == 0;
}

int sync(const char* name, int fd) {
  if (fails(fd)) {
    errno = EIO;
    return -1;
  }
  return reinterpret_cast<int (*)(int)>(::dlsym(RTLD_NEXT, name))(fd);
}

}  // namespace

extern "C" int fsync(int fd) { return sync("fsync", fd); }
extern "C" int fdatasync(int fd) { return sync("fdatasync", fd); }
