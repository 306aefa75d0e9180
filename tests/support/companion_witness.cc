// Stands in front of siphond: writes down what it was started with, at its first instruction, and
// becomes the real one.
//
// The report goes to $SIPHON_CLUSTER_DIR/witness.PID, one "KEY VALUE" per line: `fd N` with what it
// is, `blocked` and `handled` with signal numbers, `pgid`. The real program is ARGV0.real.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

void report_descriptors(std::FILE* out, int own) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const int count = limit.rlim_cur > 1'000'000 ? 1'000'000 : static_cast<int>(limit.rlim_cur);
  for (int fd = 0; fd < count; ++fd) {
    if (fd == own || fcntl(fd, F_GETFD) < 0) continue;
    char target[4096] = "";
    const std::string link = "/proc/self/fd/" + std::to_string(fd);
    const ssize_t length = readlink(link.c_str(), target, sizeof(target) - 1);
    std::fprintf(out, "fd %d %s\n", fd, length > 0 ? target : "?");
  }
}

void report_signals(std::FILE* out) {
  sigset_t blocked;
  sigprocmask(SIG_BLOCK, nullptr, &blocked);
  for (int number = 1; number <= SIGRTMAX; ++number) {
    if (sigismember(&blocked, number) == 1) std::fprintf(out, "blocked %d\n", number);
    struct sigaction action {};
    if (sigaction(number, nullptr, &action) == 0 && action.sa_handler != SIG_DFL) {
      std::fprintf(out, "handled %d\n", number);
    }
  }
}

}  // namespace

int main(int, char** argv) {
  const char* folder = std::getenv("SIPHON_CLUSTER_DIR");
  if (folder == nullptr) return 1;
  const std::string path = std::string(folder) + "/witness." + std::to_string(getpid());
  const std::string unfinished = path + ".new";
  std::FILE* out = std::fopen(unfinished.c_str(), "we");
  if (out == nullptr) return 1;
  report_descriptors(out, fileno(out));
  report_signals(out);
  std::fprintf(out, "pgid %d\n", getpgrp());
  std::fclose(out);
  std::rename(unfinished.c_str(), path.c_str());
  execv((std::string(argv[0]) + ".real").c_str(), argv);
  return 1;
}
