// ObjectIo: the handful of operations on single objects that an extent store needs, through
// librados alone. The objclass adapter overrides what the OSD's class does better (bulk bytes
// through the exchange, the register's transitions).
//
// All functions return 0 or a negative errno, let no exception out, block for at most the
// connection's OSD timeout, and are thread safe. Every mutation carries FULL_TRY: a full pool
// answers -ENOSPC or -EDQUOT at once, where a default operation waits for ever.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stop_token>
#include <string>

#include "adapters/extent_store.h"
#include "plugin/core/head_register.h"
#include "plugin/exchange/exchange.h"
#include "rados/librados.hpp"

namespace siphon {

// An extent's register as it was read. `present` is false (and `reg` blank) when the object or
// its xattr is not there.
struct StoredHead {
  bool present = false;
  bool empty_object = false;  // there, and nothing in it: no register, data, attributes, omap
  HeadRegister reg;
  librados::bufferlist stored;  // the very bytes, for the guard of a change
};

// What an object holds beside the register.
struct Holdings {
  bool exists = false;
  bool data = false;
  bool attributes = false;
  bool omap = false;
  std::uint64_t version = 0;  // of the object, to guard a change by

  bool foreign() const { return data || attributes || omap; }
  std::string to_string() const;  // "data and attributes"
};

// 0 and `found`, or a negative errno. Two operations.
int look_at_object(const librados::IoCtx& io, const std::string& object, Holdings& found);

// One of several heads to be read, and what was found.
struct HeadRead {
  librados::IoCtx io;
  std::string object;
  std::span<std::byte> prefetch = {};  // filled with the head's own first bytes; may be empty
  // -EUCLEAN: a register that does not decode; exchange::kNotSiphons: somebody else's object.
  int result = 0;
  StoredHead head = {};
  std::size_t got = 0;  // bytes in `prefetch`
};

// One of several heads to be created with data and register in one exclusive operation.
struct HeadPut {
  librados::IoCtx io;
  std::string object;
  std::span<const std::byte> bytes;
  TransitionRequest publish;
  int result = 0;                                        // -EEXIST: there is a head
  std::atomic<std::uint64_t>* fallback_parts = nullptr;  // counted here, too
};

class ObjectIo {
 public:
  // `whole_objects`: the pool takes no overwrites and only aligned appends (erasure-coded without
  // overwrites), so that a write from offset 0 has to be the whole object.
  explicit ObjectIo(bool whole_objects) : whole_objects_(whole_objects) {}
  virtual ~ObjectIo() = default;
  ObjectIo(const ObjectIo&) = delete;
  ObjectIo& operator=(const ObjectIo&) = delete;

  // Reads up to out.size() bytes; `got` is less only at the object's end. -ENOENT: no object.
  virtual int read(librados::IoCtx& io, const std::string& object, std::uint64_t offset_bytes,
                   std::span<std::byte> out, std::size_t& got);
  // Writes all of `in` at the offset, and tells the store to expect `expected_bytes` in all,
  // written once and read in order. `stop` ends a wait for its turn, not what is under way.
  virtual int write(librados::IoCtx& io, const std::string& object, std::uint64_t offset_bytes,
                    std::span<const std::byte> in, std::uint64_t expected_bytes,
                    const std::stop_token& stop);

  // Registers, and the first bytes of the heads' own data, one operation for each, all under way
  // at once. Results in the requests.
  virtual void read_heads(std::span<HeadRead> reads);
  // Applies `request` to the register, atomically; answers as siphon::apply. Idempotent.
  // -EBUSY: others changed it again and again meanwhile. exchange::kNotSiphons: the object is
  // somebody else's and was not touched.
  virtual int transition(librados::IoCtx& io, const std::string& object,
                         const TransitionRequest& request);
  // Creates heads, one operation for each, all under way at once. Results in the requests.
  virtual void put_heads(std::span<HeadPut> puts);

  // Operations that had to go another way than planned. Monotonic.
  std::uint64_t fallback_parts() const { return fallback_parts_.load(std::memory_order_relaxed); }

 protected:
  void count_fallback() {
    fallback_parts_.fetch_add(1, std::memory_order_relaxed);
    ++fallback_parts_of_this_thread();
  }
  bool whole_objects() const { return whole_objects_; }

 private:
  const bool whole_objects_;
  std::atomic<std::uint64_t> fallback_parts_{0};
};

// The allocation hint of everything that Siphon writes.
inline constexpr std::uint32_t kAllocHints = librados::ALLOC_HINT_FLAG_SEQUENTIAL_READ |
                                             librados::ALLOC_HINT_FLAG_APPEND_ONLY |
                                             librados::ALLOC_HINT_FLAG_IMMUTABLE;

// What a compound read of a head returned, into read.head and read.result. `result` is the
// operation's; an object without a register is looked at more closely.
void decode_stored(int result, librados::bufferlist&& stored, HeadRead& read);

}  // namespace siphon
