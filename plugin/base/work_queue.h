// Tasks, and the threads that they need: one more whenever a task comes and no thread is idle, up
// to a limit. So the depth follows what is slow. Tasks that come no faster than they are done keep
// one thread busy; when they pile up, more of them are under way at once.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

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
      const std::lock_guard lock(mutex_);
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
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();  // nobody pushes any more
    threads_.clear();
  }

  // Threads that there are.
  std::size_t threads() const {
    const std::lock_guard lock(mutex_);
    return threads_.size();
  }

 private:
  void start() {
    threads_.emplace_back([this] { run(); });
    ++idle_;
  }
  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return !tasks_.empty() || closed_; });
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
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::deque<Task> tasks_;
  std::vector<std::thread> threads_;
  std::size_t idle_ = 0;  // that wait, or will as soon as they run
  bool closed_ = false;
};

}  // namespace siphon
