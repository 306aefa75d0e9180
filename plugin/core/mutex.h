// Mutex, MutexLock, Condition: std::mutex, std::unique_lock and std::condition_variable, with the
// words by which clang's -Wthread-safety checks who touches what a mutex guards. They cost what
// those cost; to gcc the words are nothing.
//
//   std::deque<Task> tasks_ SIPHON_GUARDED_BY(mutex_);          // a member
//   void start_locked() SIPHON_REQUIRES(mutex_);                // a function
//   wake_.wait(lock, [this]() SIPHON_REQUIRES(mutex_) { ... })  // what a wait asks
//
// It sees neither what a local variable's mutex guards nor, of a struct, what its owner's does:
// there a comment says it. Constructors and destructors are not checked.
#pragma once

#include <condition_variable>
#include <mutex>
#include <utility>

#ifdef __clang__
#define SIPHON_THREAD_SAFETY(x) __attribute__((x))
#else
#define SIPHON_THREAD_SAFETY(x)
#endif
#define SIPHON_GUARDED_BY(mutex) SIPHON_THREAD_SAFETY(guarded_by(mutex))
#define SIPHON_REQUIRES(...) SIPHON_THREAD_SAFETY(requires_capability(__VA_ARGS__))
#define SIPHON_ACQUIRE(...) SIPHON_THREAD_SAFETY(acquire_capability(__VA_ARGS__))
#define SIPHON_RELEASE(...) SIPHON_THREAD_SAFETY(release_capability(__VA_ARGS__))

namespace siphon {

class SIPHON_THREAD_SAFETY(capability("mutex")) Mutex {
 public:
  void lock() SIPHON_ACQUIRE() { mutex_.lock(); }
  void unlock() SIPHON_RELEASE() { mutex_.unlock(); }

 private:
  friend class MutexLock;
  std::mutex mutex_;
};

// Holds it until it goes, or in between not. A std::condition_variable_any waits with it as well.
class SIPHON_THREAD_SAFETY(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) SIPHON_ACQUIRE(mutex) : lock_(mutex.mutex_) {}
  ~MutexLock() SIPHON_RELEASE() {}
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;
  void lock() SIPHON_ACQUIRE() { lock_.lock(); }
  void unlock() SIPHON_RELEASE() { lock_.unlock(); }

 private:
  friend class Condition;
  std::unique_lock<std::mutex> lock_;
};

// For a function that is called with it: lets go of it until it goes.
class SIPHON_THREAD_SAFETY(scoped_lockable) MutexUnlock {
 public:
  explicit MutexUnlock(Mutex& mutex) SIPHON_RELEASE(mutex) : mutex_(mutex) { mutex_.unlock(); }
  ~MutexUnlock() SIPHON_RELEASE() { mutex_.lock(); }
  MutexUnlock(const MutexUnlock&) = delete;
  MutexUnlock& operator=(const MutexUnlock&) = delete;

 private:
  Mutex& mutex_;
};

// As std::condition_variable.
class Condition {
 public:
  void notify_one() noexcept { condition_.notify_one(); }
  void notify_all() noexcept { condition_.notify_all(); }
  template <typename... Until>
  void wait(MutexLock& lock, Until&&... until) {
    condition_.wait(lock.lock_, std::forward<Until>(until)...);
  }
  template <typename... Until>
  auto wait_for(MutexLock& lock, Until&&... until) {
    return condition_.wait_for(lock.lock_, std::forward<Until>(until)...);
  }
  template <typename... Until>
  auto wait_until(MutexLock& lock, Until&&... until) {
    return condition_.wait_until(lock.lock_, std::forward<Until>(until)...);
  }

 private:
  std::condition_variable condition_;
};

}  // namespace siphon
