// Part of every program of the preset coverage. gcc's counters are written when a program returns
// from main; tests also kill programs, and some of ours end by _exit. So they are written all the
// time, and before that.
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

extern "C" {  // gcov.h does not say so
void __gcov_dump();
void __gcov_reset();
}

namespace {

std::timed_mutex writing;

void write_counters() {
  __gcov_dump();
  __gcov_reset();  // else the next time adds them once more
}

class Writer {
 public:
  Writer() {
    ::setenv("GCOV_ERROR_FILE", "/dev/null", 1);  // some programs may not write there
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      thread_ = std::jthread([](const std::stop_token& stop) {
        std::mutex mutex;
        std::condition_variable_any ended;
        std::unique_lock lock(mutex);
        while (!ended.wait_for(lock, stop, std::chrono::milliseconds(250), [] { return false; }) &&
               !stop.stop_requested()) {
          const std::lock_guard hold(writing);
          write_counters();
        }
      });
    } catch (const std::system_error&) {
      // no thread is to be had: what is written at the end has to do
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

 private:
  std::jthread thread_;  // ends before the counters are written for the last time
};

Writer writer;

}  // namespace

// In the place of the C library's.
extern "C" [[noreturn]] void _exit(int status) {
  if (writing.try_lock_for(std::chrono::seconds(1))) write_counters();
  ::syscall(SYS_exit_group, status);
  __builtin_unreachable();
}
