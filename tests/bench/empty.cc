// bench_empty: removes every object of a pool, whatever its namespace and locator key, many at a
// time, so that the next run finds the pool as empty as the one before did.
#include <array>

#include "tests/bench/rados_connection.h"

int main(int argc, char** argv) {
  using namespace siphon::bench;
  const Options options(argc, argv, {{"--conf", "-"}, {"--pool", "-"}, {"--depth", "32"}});
  librados::Rados rados;
  connect(rados, options.text("--conf"));
  librados::IoCtx pool = open_pool(rados, options.text("--pool"));
  pool.set_namespace(librados::all_nspaces);
  std::vector<std::array<std::string, 3>> objects;
  for (auto it = pool.nobjects_begin(); it != pool.nobjects_end(); ++it) {
    objects.push_back({it->get_oid(), it->get_nspace(), it->get_locator()});
  }
  InFlight in_flight(options.number("--depth"));
  for (const auto& [name, nspace, locator] : objects) {
    // librados keeps namespace and locator key in the context.
    librados::IoCtx io;
    io.dup(pool);
    io.set_namespace(nspace);
    io.locator_set_key(locator);
    in_flight.run(
        [&](librados::AioCompletion* completion) { return io.aio_remove(name, completion); });
  }
  in_flight.drain();
  std::printf("{\"objects\": %zu}\n", objects.size());
  return 0;
}
