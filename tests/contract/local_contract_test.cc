// The contract suite over the adapters that need nothing but this machine.
#include <fstream>

#include "adapters/memory/memory_store.h"
#include "adapters/posix/posix_store.h"
#include "tests/contract/extent_store_contract.h"
#include "tests/contract/inline_extent_contract.h"
#include "tests/contract/temp_folder.h"

namespace siphon::contract {
namespace {

StoreLimits small_limits() {
  StoreLimits limits;
  limits.part_bytes = 64 * kKiB;
  limits.operation_bytes = 48 * kKiB;  // does not divide a part
  limits.inline_max_bytes = 16 * kKiB;
  return limits;
}

StoreFactory memory_factory(std::string name, Location location) {
  return {std::move(name), [location] {
            auto provider = std::make_shared<MemoryProvider>(
                std::vector<std::string>{location.pool}, small_limits());
            StoreUnderTest store;
            store.provider = provider;
            store.location = location;
            store.raw_count = [=](const std::string& extent) {
              return provider->raw_count(location, extent);
            };
            store.damage = [=](const std::string& extent, std::uint64_t offset_bytes) {
              EXPECT_TRUE(provider->flip_byte(location, extent, offset_bytes));
            };
            return store;
          }};
}

StoreFactory posix_factory() {
  return {"Posix", [] {
            // Shared: the folder lives as long as whatever still looks into it.
            auto folder = std::make_shared<TempFolder>();
            PosixOptions options;
            options.limits = small_limits();
            auto provider = PosixProvider::create(folder->path(), options);
            StoreUnderTest store;
            if (!provider) {
              ADD_FAILURE() << provider.error().message;
              return store;
            }
            store.provider = std::move(*provider);
            store.raw_count = [folder](const std::string& extent) {
              return count_files_of(folder->path(), extent);
            };
            store.damage = [folder](const std::string& extent, std::uint64_t offset_bytes) {
              std::fstream file(*folder / extent, std::ios::in | std::ios::out | std::ios::binary);
              file.seekg(static_cast<std::streamoff>(offset_bytes));
              const char flipped = static_cast<char>(~file.get());
              file.seekp(static_cast<std::streamoff>(offset_bytes));
              file.put(flipped);
            };
            store.make_foreign = [folder](const std::string& name, int way) {
              if (way == 0) write_file(*folder / name, "precious");
              return way == 0;
            };
            store.foreign_content = [folder](const std::string& name) {
              const Bytes bytes = read_file(*folder / name);
              return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
            };
            return store;
          }};
}

INSTANTIATE_TEST_SUITE_P(Local, ExtentStoreContract,
                         testing::Values(memory_factory("Memory", {}),
                                         memory_factory("MemoryPool", {"pool", "space"}),
                                         posix_factory()),
                         factory_name);

}  // namespace
}  // namespace siphon::contract
