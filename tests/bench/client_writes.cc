// bench_client_writes: a client that other work must not hurt. A closed loop of 4 KiB writes at
// random places of --objects objects of 1 MiB, --depth in flight, for --seconds; prints one line of
// JSON with the latencies' percentiles in milliseconds.
#include <algorithm>
#include <memory>
#include <random>
#include <thread>

#include "tests/bench/rados_connection.h"

namespace siphon::bench {
namespace {

constexpr std::size_t kWriteBytes = 4096;
constexpr std::size_t kObjectBytes = 1u << 20;

std::string object_name(std::uint64_t number) { return "client." + std::to_string(number); }

void prepare(librados::IoCtx& io, std::uint64_t objects) {
  InFlight in_flight(4);
  librados::bufferlist data;
  data.append(std::string(kObjectBytes, 's'));
  for (std::uint64_t n = 0; n < objects; ++n) {
    in_flight.run([&](librados::AioCompletion* completion) {
      return io.aio_write_full(object_name(n), completion, data);
    });
  }
  in_flight.drain();
}

// One place in the queue: the next write starts when the one before is acknowledged.
void write_loop(librados::IoCtx io, const Options& options, std::uint64_t seed,
                std::vector<double>& latencies_ms) {
  std::mt19937_64 random(seed);
  const std::uint64_t objects = options.number("--objects");
  const double seconds = static_cast<double>(options.number("--seconds"));
  librados::bufferlist data;
  data.append(std::string(kWriteBytes, static_cast<char>('a' + seed)));
  const StopWatch whole;
  while (whole.seconds() < seconds) {
    const std::uint64_t place = random();
    const std::uint64_t offset = place / objects % (kObjectBytes / kWriteBytes) * kWriteBytes;
    const StopWatch one;
    const int result = io.write(object_name(place % objects), data, kWriteBytes, offset);
    if (result != 0) die("write", result);
    latencies_ms.push_back(one.seconds() * 1e3);
  }
}

double percentile(const std::vector<double>& sorted, double share) {
  const auto at = static_cast<std::size_t>(share * static_cast<double>(sorted.size()));
  return sorted[std::min(at, sorted.size() - 1)];
}

}  // namespace
}  // namespace siphon::bench

int main(int argc, char** argv) {
  using namespace siphon::bench;
  const Options options(argc, argv,
                        {{"--conf", "-"},
                         {"--pool", "-"},
                         {"--seconds", "10"},
                         {"--depth", "2"},
                         {"--objects", "64"}});
  librados::Rados rados;
  connect(rados, options.text("--conf"));
  librados::IoCtx io = open_pool(rados, options.text("--pool"));
  prepare(io, options.number("--objects"));
  std::printf("ready\n");
  std::fflush(stdout);
  std::vector<std::vector<double>> latencies(std::max<std::uint64_t>(1, options.number("--depth")));
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < latencies.size(); ++i) {
    threads.emplace_back([&, i] { write_loop(io, options, i, latencies[i]); });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<double> all;
  for (const auto& some : latencies) all.insert(all.end(), some.begin(), some.end());
  if (all.empty()) die("no write was done");
  std::sort(all.begin(), all.end());
  std::printf(
      "{\"writes\": %zu, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"p999_ms\": %.3f, "
      "\"max_ms\": %.3f}\n",
      all.size(), percentile(all, 0.5), percentile(all, 0.99), percentile(all, 0.999), all.back());
  return 0;
}
