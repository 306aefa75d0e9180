// bench_fill: what the benchmarks copy, made quickly. --kind extents: sealed extents named
// e00000..., each exactly --bytes long with block headers, index and footer, through the rados
// adapter; --kind objects: plain objects of the same length, for the peers. The content does not
// compress. --groups N, the pool's placement groups: the names go round them, so that none holds
// more than another by more than one. --rate: objects' bytes a second, 0 for no limit.
#include <atomic>
#include <cstring>
#include <thread>

#include "adapters/rados/rados_cluster.h"
#include "adapters/rados/rados_provider.h"
#include "plugin/base/throttle.h"
#include "plugin/format/extent_format.h"
#include "tests/bench/rados_connection.h"

namespace siphon::bench {
namespace {

constexpr std::size_t kPatternBytes = 16u << 20;

std::vector<std::byte> make_pattern() {
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

std::string name_of(const std::string& prefix, std::uint64_t number) {
  char text[32];
  std::snprintf(text, sizeof text, "%05llu", static_cast<unsigned long long>(number));
  return prefix + text;
}

// `count` names. Where `groups` is not 0, the nth lies in the placement group n modulo `groups`.
std::vector<std::string> names_in(librados::IoCtx& io, const std::string& prefix,
                                  std::uint64_t count, std::uint64_t groups) {
  std::vector<std::string> names;
  for (std::uint64_t n = 0; n < count; ++n) {
    const std::string first = name_of(prefix, n);
    names.push_back(first);
    std::uint32_t group = 0;
    for (int variant = 1; groups != 0; ++variant) {
      if (io.get_object_pg_hash_position2(names.back(), &group) != 0) die("no such group");
      if (group == n % groups) break;
      names.back() = first + "-" + std::to_string(variant);
    }
  }
  return names;
}

void check(const Status& status) {
  if (!status) die(status.error().message);
}

// The content whose sealed extent is `extent_bytes` long, in blocks of at most kMaxBlockBytes.
std::uint64_t content_for(std::uint64_t extent_bytes) {
  for (std::uint64_t blocks = 1; blocks <= kMaxBlockCount; ++blocks) {
    const std::uint64_t overhead = sealed_extent_bytes(0, static_cast<std::uint32_t>(blocks));
    if (extent_bytes <= overhead) break;
    if (extent_bytes - overhead <= blocks * kMaxBlockBytes) return extent_bytes - overhead;
  }
  die("no extent has that length");
}

// Collects the encoder's bytes into whole store operations.
class Writer {
 public:
  Writer(ExtentStore& store, const std::string& name, std::uint64_t extent_bytes)
      : store_(store), name_(name), id_(new_private_id()) {
    is_inline_ = extent_bytes <= store.limits().inline_max_bytes;
    if (is_inline_) return;
    BeginOptions begin;
    begin.extent_bytes = extent_bytes;
    begin.private_id = id_;
    begin.lease_unix_ms = now_unix_ms() + 3600 * 1000;
    auto scratch = store.begin(name, begin);
    if (!scratch) die(scratch.error().message);
    scratch_ = std::move(*scratch);
  }
  Status take(std::span<const std::byte> bytes) {
    held_.insert(held_.end(), bytes.begin(), bytes.end());
    const std::size_t operation = store_.limits().operation_bytes;
    std::size_t at = 0;
    for (; !is_inline_ && held_.size() - at >= operation; at += operation) {
      check(scratch_->write(written_, std::span(held_).subspan(at, operation)));
      written_ += operation;
    }
    held_.erase(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(at));
    return {};
  }
  void commit(const SealedHeader& header) {
    if (is_inline_) return check(store_.put_inline(name_, id_, held_, header));
    if (!held_.empty()) check(scratch_->write(written_, held_));
    check(scratch_->publish(header, false, ExtentState::kSealed));
  }

 private:
  ExtentStore& store_;
  const std::string name_;
  const PrivateId id_;
  bool is_inline_ = false;
  std::unique_ptr<ScratchExtent> scratch_;
  std::vector<std::byte> held_;
  std::uint64_t written_ = 0;
};

void put_extent(ExtentStore& store, const std::string& name, std::uint64_t extent_bytes,
                std::span<const std::byte> pattern, std::uint64_t seed) {
  Writer writer(store, name, extent_bytes);
  ExtentEncoder encoder([&](std::span<const std::byte> bytes) { return writer.take(bytes); });
  std::uint64_t left = content_for(extent_bytes);
  std::uint64_t at = seed * 4096 % (pattern.size() - kMaxBlockBytes);
  while (left > 0) {
    const std::uint64_t piece = std::min<std::uint64_t>(left, kMaxBlockBytes);
    check(encoder.append(pattern.subspan(at, piece)));
    at = (at + 4096) % (pattern.size() - kMaxBlockBytes);
    left -= piece;
  }
  auto header = encoder.seal();
  if (!header) die(header.error().message);
  header->part_bytes = store.limits().part_bytes;
  header->sealed_unix_ms = now_unix_ms();
  writer.commit(*header);
}

void fill_extents(const Options& options, const std::vector<std::string>& names,
                  std::span<const std::byte> pattern) {
  RadosOptions rados;
  rados.conf_path = options.text("--conf");
  auto cluster = RadosCluster::connect(rados);
  if (!cluster) die(cluster.error().message);
  RadosProvider provider(**cluster);
  auto store = provider.open({options.text("--pool"), ""});
  if (!store) die(store.error().message);
  std::atomic<std::uint64_t> next{0};
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < options.number("--depth"); ++i) {
    threads.emplace_back([&] {
      for (std::uint64_t n = next++; n < names.size(); n = next++) {
        put_extent(**store, names[n], options.number("--bytes"), pattern, n);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void fill_objects(const Options& options, librados::IoCtx& io,
                  const std::vector<std::string>& names, std::span<const std::byte> pattern) {
  const std::uint64_t bytes = options.number("--bytes");
  if (bytes > pattern.size() / 2) die("objects of at most half the pattern");
  InFlight in_flight(options.number("--depth"));
  Throttle throttle(options.number("--rate"));
  for (std::uint64_t n = 0; n < names.size(); ++n) {
    check(throttle.take(bytes, deadline_in(std::chrono::minutes(10))));
    librados::bufferlist data;
    const auto* from = reinterpret_cast<const char*>(pattern.data()) + n * 4096 % (bytes + 1);
    data.append(from, static_cast<unsigned>(bytes));
    in_flight.run([&](librados::AioCompletion* completion) {
      return io.aio_write_full(names[n], completion, data);
    });
  }
  in_flight.drain();
}

}  // namespace
}  // namespace siphon::bench

int main(int argc, char** argv) {
  using namespace siphon::bench;
  const Options options(argc, argv,
                        {{"--conf", "-"},
                         {"--pool", "-"},
                         {"--kind", "extents"},
                         {"--count", "-"},
                         {"--bytes", "-"},
                         {"--prefix", "e"},
                         {"--groups", "0"},
                         {"--depth", "8"},
                         {"--rate", "0"}});
  const std::vector<std::byte> pattern = make_pattern();
  librados::Rados rados;
  connect(rados, options.text("--conf"));
  librados::IoCtx io = open_pool(rados, options.text("--pool"));
  const std::vector<std::string> names =
      names_in(io, options.text("--prefix"), options.number("--count"), options.number("--groups"));
  if (options.text("--kind") == "extents") {
    fill_extents(options, names, pattern);
  } else if (options.text("--kind") == "objects") {
    fill_objects(options, io, names, pattern);
  } else {
    die("--kind is extents or objects");
  }
  return 0;
}
