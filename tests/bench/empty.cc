// bench_empty: removes every object of a pool, whatever its locator key, many at a time, so that
// the next run finds the pool as empty as the one before did.
#include "tests/bench/rados_connection.h"

int main(int argc, char** argv) {
  using namespace siphon::bench;
  const Options options(argc, argv, {{"--conf", "-"}, {"--pool", "-"}, {"--depth", "32"}});
  librados::Rados rados;
  connect(rados, options.text("--conf"));
  librados::IoCtx pool = open_pool(rados, options.text("--pool"));
  std::vector<std::pair<std::string, std::string>> objects;
  for (auto it = pool.nobjects_begin(); it != pool.nobjects_end(); ++it) {
    objects.emplace_back(it->get_oid(), it->get_locator());
  }
  InFlight in_flight(options.number("--depth"));
  for (const auto& [name, locator] : objects) {
    // librados keeps the locator key in the context.
    librados::IoCtx io;
    io.dup(pool);
    io.locator_set_key(locator);
    in_flight.run(
        [&](librados::AioCompletion* completion) { return io.aio_remove(name, completion); });
  }
  in_flight.drain();
  std::printf("{\"objects\": %zu}\n", objects.size());
  return 0;
}
