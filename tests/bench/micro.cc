// bench_micro: the pieces that touch every byte or every frame, one at a time (Google Benchmark).
#include <benchmark/benchmark.h>
#include <isa-l/crc.h>
#include <zlib.h>

#include <thread>

#include "plugin/base/buffer_pool.h"
#include "plugin/base/crc32.h"
#include "plugin/stream/frame.h"

namespace siphon {
namespace {

std::vector<std::byte> bytes_of(std::int64_t size) {
  std::vector<std::byte> out(static_cast<std::size_t>(size));
  std::uint32_t x = 2463534242u;
  for (std::byte& b : out) {
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    b = static_cast<std::byte>(x);
  }
  return out;
}

template <typename Sum>
void sum_bytes(benchmark::State& state, Sum sum) {
  const std::vector<std::byte> bytes = bytes_of(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(sum(bytes));
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * state.range(0));
}

void crc32_zlib(benchmark::State& state) {
  sum_bytes(state, [](const std::vector<std::byte>& b) {
    return ::crc32(0, reinterpret_cast<const Bytef*>(b.data()), static_cast<uInt>(b.size()));
  });
}
void crc32_isal(benchmark::State& state) {
  sum_bytes(state, [](const std::vector<std::byte>& b) {
    return ::crc32_gzip_refl(0, reinterpret_cast<const unsigned char*>(b.data()), b.size());
  });
}
void crc32_siphon(benchmark::State& state) {
  sum_bytes(state, [](const std::vector<std::byte>& b) { return siphon::crc32(b); });
}
void crc32c_siphon(benchmark::State& state) {
  sum_bytes(state, [](const std::vector<std::byte>& b) { return siphon::ceph_crc32c(b); });
}
BENCHMARK(crc32_zlib)->Arg(4 << 10)->Arg(256 << 10)->Arg(16 << 20);
BENCHMARK(crc32_isal)->Arg(4 << 10)->Arg(256 << 10)->Arg(16 << 20);
BENCHMARK(crc32_siphon)->Arg(4 << 10)->Arg(256 << 10)->Arg(16 << 20);
BENCHMARK(crc32c_siphon)->Arg(4 << 10)->Arg(256 << 10)->Arg(16 << 20);

void join_two(benchmark::State& state) {
  std::uint32_t crc = 0x12345678;
  for (auto _ : state) {
    crc = crc32_join(crc, 0x9abcdef0, 4u << 20);
    benchmark::DoNotOptimize(crc);
  }
}
BENCHMARK(join_two);

// A whole extent of 1 GiB in frames of 4 MiB, the even ones first: what two lanes make of it.
void crc32_assembly(benchmark::State& state) {
  constexpr std::uint64_t kFrame = 4u << 20, kFrames = 256;
  for (auto _ : state) {
    Crc32Assembly assembly;
    for (std::uint64_t odd = 0; odd < 2; ++odd) {
      for (std::uint64_t i = odd; i < kFrames; i += 2) {
        benchmark::DoNotOptimize(assembly.add(i * kFrame, kFrame, 1, kFrames * kFrame));
      }
    }
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * kFrames));
}
BENCHMARK(crc32_assembly);

FrameHeader sample_header() {
  FrameHeader header;
  header.extent_index = 3;
  header.length_bytes = 4u << 20;
  header.offset_bytes = 8u << 20;
  header.extent_bytes = 1u << 30;
  header.sequence = 17;
  return header;
}
void frame_encode(benchmark::State& state) {
  const FrameHeader header = sample_header();
  std::array<std::byte, kFrameHeaderBytes> raw;
  for (auto _ : state) {
    encode_frame_header(header, raw);
    benchmark::DoNotOptimize(raw);
  }
}
void frame_decode(benchmark::State& state) {
  std::array<std::byte, kFrameHeaderBytes> raw;
  encode_frame_header(sample_header(), raw);
  for (auto _ : state) benchmark::DoNotOptimize(decode_frame_header(raw));
}
BENCHMARK(frame_encode);
BENCHMARK(frame_decode);

// Four buffers out of a pool of eight at a time, given back in another request.
void buffer_pool(benchmark::State& state) {
  static auto arena = ArenaMemory::allocate(32u << 20);
  static BufferPool pool(arena->span());
  const auto size = static_cast<std::size_t>(state.range(0));
  const Deadline deadline = deadline_in(std::chrono::hours(1));
  for (auto _ : state) {
    auto a = pool.acquire(size, deadline), b = pool.acquire(size, deadline);
    auto c = pool.acquire(size, deadline), d = pool.acquire(size, deadline);
    for (auto* buffer : {&c, &a, &d, &b}) (*buffer)->reset();
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()) * 4);
}
BENCHMARK(buffer_pool)->Arg(64 << 10)->Arg(4 << 20);

}  // namespace
}  // namespace siphon

BENCHMARK_MAIN();
