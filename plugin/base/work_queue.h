// Tasks, and the threads that they need: one more whenever a task comes and no thread is idle, up
// to a limit. So the depth follows what is slow. Tasks that come no faster than they are done keep
// one thread busy; when they pile up, more of them are under way at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "plugin/core/mutex.h"

namespace siphon {

template <typename Task>
class WorkQueue {
 public:
  // `work` runs on the queue's threads, several at once, and must not throw. Starts the first
  // thread; throws std::system_error when there is none to be had.
  WorkQueue(std::uint32_t most_threads, std::function<void(Task)> work)
      : most_threads_(most_threads), work_(std::move(work)) {
    start();
  }
  ~WorkQueue() { finish(); }
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  // From any thread, but not after finish(). Does not block.
  void push(Task task) {
    {
      const MutexLock lock(mutex_);
      tasks_.push_back(std::move(task));
      if (idle_ < tasks_.size() && threads_.size() < most_threads_) {
        try {
          start();
        } catch (const std::system_error&) {  // those that run have to do
        }
      }
    }
    wake_.notify_one();  // without the lock, which the thread needs first
  }

  // Blocks until everything that was pushed is done; ends the threads. More than once is fine.
  void finish() {
    std::vector<std::thread> threads;  // all: nobody pushes any more
    {
      const MutexLock lock(mutex_);
      closed_ = true;
      threads.swap(threads_);
    }
    wake_.notify_all();
    for (std::thread& thread : threads) thread.join();
  }

  // Threads that there are.
  std::size_t threads() const {
    const MutexLock lock(mutex_);
    return threads_.size();
  }

 private:
  void start() SIPHON_REQUIRES(mutex_) {
    threads_.emplace_back([this] { run(); });
    ++idle_;
  }
  void run() {
    MutexLock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this]() SIPHON_REQUIRES(mutex_) { return !tasks_.empty() || closed_; });
      --idle_;
      if (tasks_.empty()) return;
      Task task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      work_(std::move(task));
      lock.lock();
      ++idle_;
    }
  }

  const std::uint32_t most_threads_;
  const std::function<void(Task)> work_;
  mutable Mutex mutex_;
  Condition wake_;
  std::deque<Task> tasks_ SIPHON_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ SIPHON_GUARDED_BY(mutex_);
  std::size_t idle_ SIPHON_GUARDED_BY(mutex_) = 0;  // that wait, or will as soon as they run
  bool closed_ SIPHON_GUARDED_BY(mutex_) = false;
};

}  // namespace siphon
