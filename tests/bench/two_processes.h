// Runs the two ends of a bulk path as two processes, as they are in life, and reports one line of
// JSON: throughput, CPU seconds and peak memory of both. For the benchmarks only.
#pragma once

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace siphon::bench {

// What the payload is cut from: larger than the caches, made once.
inline constexpr std::size_t kPatternBytes = 64u << 20;

inline std::vector<std::byte> make_pattern() {
  std::vector<std::byte> out(kPatternBytes);
  std::uint64_t x = 88172645463325252ull;  // xorshift64, Marsaglia 2003
  for (std::size_t i = 0; i < out.size(); i += 8) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    std::memcpy(out.data() + i, &x, 8);
  }
  return out;
}

[[noreturn]] inline void die(const std::string& what) {
  std::fprintf(stderr, "bench_wire: %s\n", what.c_str());
  std::exit(1);
}

struct Options {
  std::string mode;
  int lanes = 1;
  std::uint64_t bytes = 2ull << 30;
  std::size_t message_bytes = 1u << 20;  // of a frame, a write, a gRPC message
};

inline Options parse_options(int argc, char** argv, const char* modes) {
  Options options;
  const auto usage = [&] {
    std::fprintf(stderr,
                 "usage: %s MODE [--lanes N] [--bytes N] [--message N]\n  MODE: %s\n"
                 "Prints one line of JSON. --message: bytes of a write, frame or message.\n",
                 argv[0], modes);
    std::exit(2);
  };
  if (argc < 2 || argc % 2 != 0) usage();
  options.mode = argv[1];
  for (int i = 2; i < argc; i += 2) {
    const std::string name = argv[i];
    const auto value = std::strtoull(argv[i + 1], nullptr, 10);
    if (value == 0) usage();
    if (name == "--lanes") {
      options.lanes = static_cast<int>(value);
    } else if (name == "--bytes") {
      options.bytes = value;
    } else if (name == "--message") {
      options.message_bytes = value;
    } else {
      usage();
    }
  }
  return options;
}

// What one end tells the other before the start: fixed size, through a pipe.
struct Introduction {
  std::uint16_t port = 0;
  unsigned char ticket_id[16] = {};
  unsigned char ticket_key[32] = {};
};

struct Usage {
  double cpu_seconds = 0;
  std::uint64_t peak_rss_kib = 0;
};

inline double cpu_now() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](timeval t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// VmHWM is the process's own; ru_maxrss would include what it had before an exec.
inline std::uint64_t peak_rss_kib() {
  std::FILE* file = std::fopen("/proc/self/status", "r");
  char line[256];
  unsigned long long value = 0;
  while (file != nullptr && std::fgets(line, sizeof line, file) != nullptr) {
    if (std::sscanf(line, "VmHWM: %llu", &value) == 1) break;
  }
  if (file != nullptr) std::fclose(file);
  return value;
}

template <typename T>
void write_pod(int fd, const T& value) {
  if (::write(fd, &value, sizeof value) != static_cast<ssize_t>(sizeof value)) die("pipe: write");
}
template <typename T>
T read_pod(int fd) {
  T value;
  if (::read(fd, &value, sizeof value) != static_cast<ssize_t>(sizeof value)) {
    die("the other end ended early");
  }
  return value;
}

// The end that listens introduces itself with `ready`, which starts the clock, then serves; `wait`
// returns when the other end is done. The end that connects gets the introduction. Both return
// when their part is done.
struct OtherEnd {
  std::function<void(const Introduction&)> ready;
  std::function<void()> wait;
};
using ListeningEnd = std::function<void(const OtherEnd&)>;
using ConnectingEnd = std::function<void(const Introduction&)>;

// The listening end is the parent; `target_listens` only names who is who in the report.
inline void run_two_processes(const Options& options, bool target_listens,
                              const ListeningEnd& listening, const ConnectingEnd& connecting) {
  int there[2], back[2];
  if (::pipe(there) != 0 || ::pipe(back) != 0) die("pipe");
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) die("fork");
  if (child == 0) {
    ::close(there[1]);
    const auto introduction = read_pod<Introduction>(there[0]);
    const double before = cpu_now();
    connecting(introduction);
    write_pod(back[1], Usage{cpu_now() - before, peak_rss_kib()});
    ::_exit(0);
  }
  ::close(back[1]);
  std::chrono::steady_clock::time_point start;
  double cpu_before = 0;
  std::optional<Usage> other_usage;
  OtherEnd other_end;
  other_end.ready = [&](const Introduction& introduction) {
    cpu_before = cpu_now();
    start = std::chrono::steady_clock::now();
    write_pod(there[1], introduction);
  };
  other_end.wait = [&] {
    if (!other_usage) other_usage = read_pod<Usage>(back[0]);
  };
  listening(other_end);
  other_end.wait();
  const Usage other = *other_usage;
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  const Usage own{cpu_now() - cpu_before, peak_rss_kib()};
  int status = 0;
  ::waitpid(child, &status, 0);
  if (status != 0) die("the other end failed");

  const Usage& target = target_listens ? own : other;
  const Usage& source = target_listens ? other : own;
  const double gib = static_cast<double>(options.bytes) / (1ull << 30);
  std::printf(
      "{\"mode\": \"%s\", \"lanes\": %d, \"message_bytes\": %zu, \"bytes\": %llu, "
      "\"seconds\": %.4f, \"mb_per_s\": %.1f, \"source_cpu_s\": %.3f, \"target_cpu_s\": %.3f, "
      "\"cpu_s_per_gib\": %.4f, \"source_rss_kib\": %llu, \"target_rss_kib\": %llu}\n",
      options.mode.c_str(), options.lanes, options.message_bytes,
      static_cast<unsigned long long>(options.bytes), elapsed.count(),
      static_cast<double>(options.bytes) / 1e6 / elapsed.count(), source.cpu_seconds,
      target.cpu_seconds, (source.cpu_seconds + target.cpu_seconds) / gib,
      static_cast<unsigned long long>(source.peak_rss_kib),
      static_cast<unsigned long long>(target.peak_rss_kib));
}

}  // namespace siphon::bench
