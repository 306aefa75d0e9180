// libFuzzer's entries, for every target. With SIPHON_FUZZ_SEEDS=FOLDER a target writes its seeds
// there and ends.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/fuzz/fuzz.h"

extern "C" {

const char* __asan_default_options() { return "detect_stack_use_after_return=1"; }
const char* __ubsan_default_options() { return "halt_on_error=1:print_stacktrace=1"; }

int LLVMFuzzerInitialize(int*, char***) {
  const char* folder = std::getenv("SIPHON_FUZZ_SEEDS");
  if (folder == nullptr) return 0;
  int number = 0;
  for (const siphon::fuzz::Bytes& seed : siphon::fuzz::seeds()) {
    const auto file = std::filesystem::path(folder) / ("seed-" + std::to_string(number++));
    std::ofstream out(file, std::ios::binary);
    out.write(reinterpret_cast<const char*>(seed.data()),
              static_cast<std::streamsize>(seed.size()));
    if (!out.flush()) {
      std::fprintf(stderr, "cannot write %s\n", file.c_str());
      std::_Exit(1);
    }
  }
  std::_Exit(0);
}

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  siphon::fuzz::run({reinterpret_cast<const std::byte*>(data), size});
  return 0;
}

}  // extern "C"
