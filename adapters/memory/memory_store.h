// The reference ExtentStore: everything in maps, under one mutex. Read this one to learn the
// contract; the other adapters do the same with objects, files and class methods.
//
// A store is a map of public name -> head register, and a map of (name, private id) -> bytes.
// Only siphon::apply changes a register. Nothing survives the provider.
//
// For tests: a fault hook that runs before each operation, and helpers that look at and damage
// what is stored. Thread safe; a hook is called without a lock held and may come from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "adapters/extent_store.h"
#include "plugin/core/mutex.h"

namespace siphon {

// One operation about to happen. `operation` is the name of the interface's function: "stat",
// "open", "read", "begin", "write", "publish", "abort", "put_inline", "seal", "trash", "collect",
// "inspect", "restore", "purge_trash", "list", "check_ready", "check_parts"; "read scratch" for
// ScratchExtent::read; and once more, as "publish done" and "put_inline done", when the name is
// public and its caller has not heard of it.
struct MemoryOperation {
  std::string_view operation;
  std::string_view name;           // empty: no single extent
  std::uint64_t offset_bytes = 0;  // read and write only
  std::uint64_t length_bytes = 0;
};
// An error makes the operation fail with it, before it has done anything.
using MemoryFaultHook = std::function<Status(const MemoryOperation&)>;

class MemoryStore;

class MemoryProvider final : public StoreProvider {
 public:
  // The pools that exist; their numbers are their places in the list, from 1 (0 for the unnamed
  // pool). Every namespace exists.
  explicit MemoryProvider(std::vector<std::string> pools = {""}, StoreLimits limits = {});
  ~MemoryProvider() override;

  Result<ExtentStore*> open(const Location& location) override;
  Result<std::int64_t> pool_id(const std::string& pool) override;

  // Replaces the hook of every store, those already opened included. Empty: no faults.
  void set_fault_hook(MemoryFaultHook hook);

  // Flips every bit of one byte of what `private_id` holds (empty id: the current one). NOT_FOUND
  // when there is no such byte.
  Status flip_byte(const Location& location, std::string_view name, std::uint64_t offset_bytes,
                   const PrivateId& private_id = {});
  // How many things the store holds for `name`, visible or not: its register and one per private
  // id with bytes. 0 when nothing is left.
  std::size_t raw_count(const Location& location, std::string_view name);

 private:
  friend class MemoryStore;
  Status check_fault(const MemoryOperation& operation);
  MemoryStore* find_or_create(const Location& location);

  const std::vector<std::string> pools_;
  const StoreLimits limits_;
  Mutex mutex_;
  std::map<Location, std::unique_ptr<MemoryStore>> stores_ SIPHON_GUARDED_BY(mutex_);
  MemoryFaultHook hook_ SIPHON_GUARDED_BY(mutex_);
};

}  // namespace siphon
