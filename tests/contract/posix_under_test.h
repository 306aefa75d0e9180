// The posix adapter over a folder, for its tests.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "adapters/posix/posix_store.h"
#include "adapters/store_util.h"
#include "tests/contract/samples.h"
#include "tests/contract/temp_folder.h"

namespace siphon::contract {

namespace fs = std::filesystem;

inline PosixOptions small_options() {
  PosixOptions options;
  options.limits.part_bytes = 64 * kKiB;
  options.limits.inline_max_bytes = 16 * kKiB;
  return options;
}

// A provider and its one store.
struct Opened {
  std::unique_ptr<PosixProvider> provider;
  ExtentStore* store = nullptr;
  ExtentStore* operator->() const { return store; }
};

inline Opened open_store(const std::string& dir, PosixOptions options = small_options()) {
  auto provider = PosixProvider::create(dir, std::move(options));
  EXPECT_TRUE(provider) << provider.error().message;
  if (!provider) return {};
  auto store = (*provider)->open({});
  EXPECT_TRUE(store);
  return {std::move(*provider), store.value_or(nullptr)};
}

inline Status put(ExtentStore& store, const std::string& name, const Sample& sample,
                  const PrivateId& id = new_private_id(),
                  ExtentState state = ExtentState::kSealed) {
  BeginOptions options;
  options.private_id = id;
  options.extent_bytes = sample.bytes.size();
  options.replace = true;
  auto scratch = store.begin(name, options);
  if (!scratch) return fail(std::move(scratch).error());
  SIPHON_TRY(write_range(**scratch, store.limits(), 0, sample.bytes));
  return (*scratch)->publish(sample.header, true, state);
}

inline Result<Bytes> read_all(ExtentStore& store, const std::string& name,
                              bool allow_open = false) {
  auto reader = store.open(name, {}, allow_open);
  if (!reader) return fail(std::move(reader).error());
  Bytes bytes((*reader)->info().header.extent_bytes);
  SIPHON_TRY(read_range(**reader, store.limits(), 0, bytes));
  return bytes;
}

inline bool holds(ExtentStore& store, const std::string& name, const Sample& sample) {
  auto bytes = read_all(store, name, true);
  return bytes && *bytes == sample.bytes;
}

inline int store_code(const Status& status) { return status ? 0 : 1; }

// Runs `body` in a child process; returns its exit code, or minus the signal that ended it.
inline int in_child(const std::function<int()>& body) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(body());
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace siphon::contract
