// What the benchmark programs over librados share: options of the form --name VALUE, a connection
// as a plain client, a clock, a bound on operations in flight. For the benchmarks only.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "rados/librados.hpp"

namespace siphon::bench {

[[noreturn]] inline void die(const std::string& what, int error = 0) {
  std::fprintf(
      stderr, "bench: %s%s%s\n", what.c_str(), error != 0 ? ": " : "",
      error != 0 ? std::generic_category().message(error < 0 ? -error : error).c_str() : "");
  std::exit(1);
}

// --name VALUE pairs; every name must be one of `defaults`.
class Options {
 public:
  Options(int argc, char** argv, std::map<std::string, std::string> defaults)
      : values_(std::move(defaults)) {
    for (int i = 1; i < argc; i += 2) {
      const std::string name = argv[i];
      if (i + 1 >= argc || !values_.contains(name)) usage(argv[0]);
      values_[name] = argv[i + 1];
    }
    for (const auto& [name, value] : values_) {
      if (value == "-") usage(argv[0]);
    }
  }
  const std::string& text(const std::string& name) const { return values_.at(name); }
  std::uint64_t number(const std::string& name) const {
    return std::strtoull(values_.at(name).c_str(), nullptr, 10);
  }

 private:
  [[noreturn]] void usage(const char* program) const {
    std::fprintf(stderr, "usage: %s", program);
    for (const auto& [name, value] : values_) {
      std::fprintf(stderr, value == "-" ? " %s VALUE" : " [%s %s]", name.c_str(), value.c_str());
    }
    std::fprintf(stderr, "\n");
    std::exit(2);
  }
  std::map<std::string, std::string> values_;  // "-": has to be given
};

inline void connect(librados::Rados& rados, const std::string& conf) {
  int result = rados.init2("client.admin", "ceph", 0);
  if (result == 0) result = rados.conf_read_file(conf.c_str());
  if (result == 0) result = rados.connect();
  if (result != 0) die("connect with " + conf, result);
}

inline librados::IoCtx open_pool(librados::Rados& rados, const std::string& pool) {
  librados::IoCtx io;
  if (const int result = rados.ioctx_create(pool.c_str(), io); result != 0) {
    die("pool " + pool, result);
  }
  return io;
}

class StopWatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// At most `depth` operations in flight; the first failure ends the program.
class InFlight {
 public:
  explicit InFlight(std::size_t depth) : depth_(depth) {}

  // Starts `start(completion)`, having waited for a free place.
  template <typename Start>
  void run(Start start) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return count_ < depth_; });
      ++count_;
    }
    librados::AioCompletion* completion =
        librados::Rados::aio_create_completion(this, &InFlight::on_done);
    if (const int result = start(completion); result != 0) die("start an operation", result);
    completion->release();
  }
  void drain() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return count_ == 0; });
  }

 private:
  static void on_done(rados_completion_t raw, void* self_pointer) {
    auto* self = static_cast<InFlight*>(self_pointer);
    if (const int result = rados_aio_get_return_value(raw); result < 0) {
      die("an operation failed", result);
    }
    const std::lock_guard lock(self->mutex_);
    --self->count_;
    self->changed_.notify_all();
  }

  const std::size_t depth_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t count_ = 0;
};

}  // namespace siphon::bench
