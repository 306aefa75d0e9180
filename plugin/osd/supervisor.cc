#include "plugin/osd/supervisor.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <thread>
#include <utility>

#include "plugin/core/fd.h"

namespace siphon::osd {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kShortestDelay{200};
constexpr milliseconds kLongestDelay{30'000};
constexpr milliseconds kGoodLife{60'000};
constexpr std::uint64_t kRetirePatienceMs = 5'000;
constexpr int kFirstFreeFd = 64;  // out of the way of the numbers the companion is given

// posix_spawn's two settings objects, destroyed on every path.
struct SpawnSettings {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  SpawnSettings() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
};

// 0 or an errno. The two descriptors are numbered kFirstFreeFd or above.
int prepare(SpawnSettings& settings, int region_fd, int socket_fd) {
  auto* actions = &settings.actions;
  int error = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
  for (const int fd : {1, 2}) {  // an OSD may have been started with them closed
    if (error == 0 && fcntl(fd, F_GETFD) < 0) {
      error = posix_spawn_file_actions_addopen(actions, fd, "/dev/null", O_WRONLY, 0);
    }
  }
  if (error == 0) error = posix_spawn_file_actions_adddup2(actions, region_fd, exchange::kRegionFd);
  if (error == 0) error = posix_spawn_file_actions_adddup2(actions, socket_fd, exchange::kSocketFd);
  // Above all the OSD's block device, which it opens without close-on-exec and holds a lock by.
  if (error == 0)
    error = posix_spawn_file_actions_addclosefrom_np(actions, exchange::kSocketFd + 1);

  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  auto* attributes = &settings.attributes;
  if (error == 0) error = posix_spawnattr_setsigmask(attributes, &none);
  if (error == 0) error = posix_spawnattr_setsigdefault(attributes, &all);
  if (error == 0) error = posix_spawnattr_setpgroup(attributes, 0);
  if (error == 0) {
    error = posix_spawnattr_setflags(
        attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  }
  return error;
}

}  // namespace

milliseconds RestartDelay::after(milliseconds lifetime, bool configuration_error) {
  if (configuration_error) return kLongestDelay;
  if (lifetime >= kGoodLife) next_ = kShortestDelay;
  const milliseconds delay = next_;
  next_ = std::min(next_ * 2, kLongestDelay);
  return delay;
}

Supervisor::Supervisor(Region& region, std::string program, std::vector<std::string> arguments,
                       LogFunction log)
    : region_(region), program_(std::move(program)), arguments_(std::move(arguments)), log_(log) {}

Supervisor::~Supervisor() {
  hang_up();
  if (pidfd_ >= 0) close(pidfd_);
}

void Supervisor::hang_up() {
  if (socket_fd_ >= 0) close(std::exchange(socket_fd_, -1));
}

int Supervisor::spawn() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return errno;
  Fd ours(pair[0]);
  const Fd theirs(pair[1]);
  const Fd theirs_moved(fcntl(theirs.get(), F_DUPFD_CLOEXEC, kFirstFreeFd));
  const Fd region_moved(fcntl(region_.fd(), F_DUPFD_CLOEXEC, kFirstFreeFd));
  if (theirs_moved.get() < 0 || region_moved.get() < 0) return errno;

  SpawnSettings settings;
  if (const int error = prepare(settings, region_moved.get(), theirs_moved.get())) return error;
  std::vector<char*> arguments;
  for (std::string& argument : arguments_) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  pid_t pid = -1;
  if (const int error = posix_spawn(&pid, program_.c_str(), &settings.actions, &settings.attributes,
                                    arguments.data(), environ)) {
    return error;
  }
  pid_ = pid;
  pidfd_ = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  socket_fd_ = ours.release();
  return 0;
}

CompanionEnd Supervisor::wait() {
  int status = 0;
  pid_t reaped;
  do {
    reaped = waitpid(pid_, &status, 0);
  } while (reaped < 0 && errno == EINTR);
  pollfd gone{pidfd_, POLLIN, 0};
  while (reaped < 0 && pidfd_ >= 0 && poll(&gone, 1, -1) < 0 && errno == EINTR) {
    // Another part of the process reaps its children; the pidfd still tells when this one is gone.
  }
  if (pidfd_ >= 0) close(std::exchange(pidfd_, -1));
  pid_ = -1;
  hang_up();
  region_.forget_companion();
  const bool all_retired = region_.retire_descriptors(kRetirePatienceMs);

  CompanionEnd end;
  if (reaped < 0) {
    end.description = "ended, reaped by another part of the process";
  } else if (WIFSIGNALED(status)) {
    end.description = "killed by signal " + std::to_string(WTERMSIG(status));
  } else {
    const int code = WEXITSTATUS(status);
    end.configuration_error = code == EX_USAGE || code == EX_CONFIG;
    end.description = "exited with code " + std::to_string(code) +
                      (end.configuration_error ? " (configuration error)" : "");
  }
  if (!all_retired) end.description += ", while a copy of its buffers has not ended";
  return end;
}

CompanionEnd Supervisor::live_once() {
  if (const int error = spawn()) {
    return {"companion " + program_ + " could not start: " + std::strerror(error),
            error == ENOENT || error == EACCES || error == ENOEXEC};
  }
  log("companion started, pid " + std::to_string(pid_) + ": " + program_);
  const std::string who = "companion " + std::to_string(pid_) + " ";
  CompanionEnd end = wait();
  end.description = who + end.description;
  return end;
}

void Supervisor::run() noexcept {
  RestartDelay restart;
  for (;;) {
    milliseconds delay = kLongestDelay;
    try {
      const std::uint64_t started_ms = monotonic_ms();
      if (pid_ > 0) wait();  // memory ran out between the last spawn and its wait
      const CompanionEnd end = live_once();
      delay = restart.after(milliseconds(monotonic_ms() - started_ms), end.configuration_error);
      log(end.description + "; next start in " + std::to_string(delay.count()) + " ms");
    } catch (const std::exception&) {
      log_("supervisor out of memory; trying again in 30 s");
    }
    std::this_thread::sleep_for(delay);
  }
}

std::string companion_program() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&companion_program), &info) == 0 ||
      info.dli_fname == nullptr) {
    return {};
  }
  const std::string library = info.dli_fname;
  const std::size_t slash = library.rfind('/');
  return slash == std::string::npos ? std::string() : library.substr(0, slash + 1) + "siphond";
}

bool start_supervisor(Supervisor* supervisor) noexcept {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0) return false;
  pthread_t thread;
  const int error = pthread_create(
      &thread, nullptr,
      [](void* argument) -> void* {
        pthread_setname_np(pthread_self(), "siphon-watch");
        static_cast<Supervisor*>(argument)->run();
      },
      supervisor);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error == 0) pthread_detach(thread);
  return error == 0;
}

}  // namespace siphon::osd
