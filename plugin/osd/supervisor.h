// Starts the companion siphond, waits for its end, starts it again.
//
// What the companion gets: descriptor 0 on /dev/null, the OSD's own 1 and 2, the region as
// exchange::kRegionFd, one end of a stream socket pair as exchange::kSocketFd, and no other; an
// empty signal mask and default dispositions; its own process group; the OSD's environment. The
// other end of the pair stays open in the OSD for as long as the companion is to live: however
// the OSD ends, the companion reads end of file.
//
// One thread runs `run`; nothing else is called concurrently. It never returns and owns no lock an
// op thread takes. No Ceph header here: it is tested with ordinary programs.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "plugin/osd/region.h"

namespace siphon::osd {

using LogFunction = void (*)(const char* text);

// How long to wait before the next start: 200 ms, doubling to 30 s, back to 200 ms after a run of
// 60 s; 30 s at once when starting again cannot help (a wrong configuration, no such program).
class RestartDelay {
 public:
  std::chrono::milliseconds after(std::chrono::milliseconds lifetime, bool configuration_error);

 private:
  std::chrono::milliseconds next_{200};
};

// How a companion ended.
struct CompanionEnd {
  std::string description;  // "exited with code 1", "killed by signal 9", "could not start: ..."
  bool configuration_error = false;  // exit code 64 (EX_USAGE) or 78 (EX_CONFIG), or no program
};

class Supervisor {
 public:
  // `program` is an absolute path; `region` must outlive the process's last thread.
  Supervisor(Region& region, std::string program, std::vector<std::string> arguments,
             LogFunction log);
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  // For ever: spawn, wait, clean up after it, pause.
  [[noreturn]] void run() noexcept;

  // The steps of `run`. `spawn` returns 0 or an errno; `wait` blocks until the companion has ended
  // and been reaped, then takes its hello and its descriptors out of use.
  int spawn();
  CompanionEnd wait();

  pid_t pid() const { return pid_; }
  // Closes the OSD's end of the pair, which the companion reads as the OSD's end. For tests.
  void hang_up();

 private:
  CompanionEnd live_once();
  void log(const std::string& text) { log_(text.c_str()); }

  Region& region_;
  const std::string program_;
  std::vector<std::string> arguments_;
  const LogFunction log_;
  pid_t pid_ = -1;
  int pidfd_ = -1;
  int socket_fd_ = -1;
};

// Where siphond is: in the folder this library was loaded from, and nowhere else. Empty when the
// loader does not know.
std::string companion_program();

// Starts a detached thread that supervises for the rest of the process's life, with every signal
// blocked in it. Both objects are leaked on purpose: exit handlers must not pull them away.
// False when the thread cannot be made.
bool start_supervisor(Supervisor* supervisor) noexcept;

}  // namespace siphon::osd
