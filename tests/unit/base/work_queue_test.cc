#include "plugin/base/work_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>

namespace siphon {
namespace {

// Tasks that say when they have begun, and end when told to.
class Gate {
 public:
  void work() {
    std::unique_lock lock(mutex_);
    ++begun_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void wait_begun(int count) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(30), [&] { return begun_ >= count; }))
        << begun_ << " of " << count;
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int begun_ = 0;
  bool open_ = false;
};

TEST(WorkQueue, ThreadsComeWithTheTasksThatWait) {
  Gate gate;
  WorkQueue<int> queue(3, [&](int) { gate.work(); });
  EXPECT_EQ(queue.threads(), 1u);
  for (int i = 1; i <= 3; ++i) {
    queue.push(i);
    gate.wait_begun(i);  // a task that finds every thread busy gets one of its own
    EXPECT_EQ(queue.threads(), static_cast<std::size_t>(i));
  }
  queue.push(4);
  EXPECT_EQ(queue.threads(), 3u) << "no more than it may";
  gate.open();
  queue.finish();
}

TEST(WorkQueue, FinishDoesEverythingThatWasPushedAndMayBeRepeated) {
  std::atomic<int> sum{0};
  WorkQueue<std::unique_ptr<int>> queue(4, [&](std::unique_ptr<int> i) { sum += *i; });
  for (int i = 1; i <= 1000; ++i) queue.push(std::make_unique<int>(i));
  queue.finish();
  EXPECT_EQ(sum, 500500);
  queue.finish();
}

}  // namespace
}  // namespace siphon
