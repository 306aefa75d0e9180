// bench_copy_from: every object of one pool into another by RADOS' own `copy_from` (OSD to OSD),
// --depth objects in flight: the best that librados offers, as a peer to compare with.
#include "tests/bench/rados_connection.h"

int main(int argc, char** argv) {
  using namespace siphon::bench;
  const Options options(argc, argv,
                        {{"--conf", "-"}, {"--src", "-"}, {"--dst", "-"}, {"--depth", "8"}});
  librados::Rados rados;
  connect(rados, options.text("--conf"));
  librados::IoCtx source = open_pool(rados, options.text("--src"));
  librados::IoCtx target = open_pool(rados, options.text("--dst"));
  InFlight in_flight(options.number("--depth"));
  const StopWatch watch;
  std::uint64_t count = 0;
  for (auto it = source.nobjects_begin(); it != source.nobjects_end(); ++it, ++count) {
    librados::ObjectWriteOperation operation;
    operation.copy_from(it->get_oid(), source, 0, 0);
    in_flight.run([&](librados::AioCompletion* completion) {
      return target.aio_operate(it->get_oid(), completion, &operation);
    });
  }
  in_flight.drain();
  std::printf("{\"objects\": %llu, \"seconds\": %.3f}\n", static_cast<unsigned long long>(count),
              watch.seconds());
  return 0;
}
