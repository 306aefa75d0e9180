#include "plugin/osd/operated_object.h"

#include <cstddef>
#include <cstring>

namespace siphon::osd {
namespace {

constexpr std::size_t kMaxNameBytes = 4096;  // above osd_max_object_name_len (2048)

// The leading fields of three Ceph types, by size and order (v16.2.15: src/osd/PrimaryLogPG.h
// `struct OpContext`, src/osd/osd_types.h `ObjectState`, `object_info_t`, src/common/hobject.h
// `hobject_t`). Strings are libstdc++'s: pointer, length, 16 bytes of small buffer or capacity.
struct StringImage {
  const char* data;
  std::uint64_t length_bytes;
  std::byte local[16];
};
struct ObjectImage {  // hobject_t, which object_info_t and so ObjectState begin with
  StringImage name;
  std::uint64_t snap;
  std::uint32_t hash;
  std::uint8_t max;
  std::uint8_t padding[3];
  std::uint32_t hash_reverse_nibbles;
  std::uint32_t hash_reverse_bits;
  std::int64_t pool;
  StringImage nspace;
  StringImage key;
};
struct ContextImage {  // PrimaryLogPG::OpContext
  const void* op;
  std::byte request_id[32];
  const void* ops;
  const ObjectImage* obs;
  const void* snapset;
  ObjectImage new_obs;  // starts as a copy of *obs
};
static_assert(sizeof(StringImage) == 32);
static_assert(offsetof(ObjectImage, hash) == 0x28);
static_assert(offsetof(ObjectImage, hash_reverse_bits) == 0x34);
static_assert(offsetof(ObjectImage, pool) == 0x38);
static_assert(offsetof(ObjectImage, nspace) == 0x40);
static_assert(offsetof(ContextImage, obs) == 0x30);
static_assert(offsetof(ContextImage, new_obs) == 0x40);

bool plausible_pointer(const void* p) {
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  return address >= 0x10000 && address < (std::uintptr_t{1} << 47) && address % 8 == 0;
}

// A libstdc++ string points into itself when it is short, and to aligned memory when it is long.
bool plausible_string(const StringImage& s) {
  if (s.length_bytes > kMaxNameBytes) return false;
  if (s.length_bytes < sizeof s.local && reinterpret_cast<const std::byte*>(s.data) == s.local) {
    return s.data[s.length_bytes] == '\0';
  }
  std::uint64_t capacity = 0;
  std::memcpy(&capacity, s.local, sizeof capacity);
  return plausible_pointer(s.data) && capacity >= s.length_bytes &&
         capacity >= sizeof s.local - 1 && s.data[s.length_bytes] == '\0';
}

std::uint32_t reverse_bits(std::uint32_t v) {
  std::uint32_t reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= ((v >> i) & 1u) << (31 - i);
  return reversed;
}

std::uint32_t reverse_nibbles(std::uint32_t v) {
  std::uint32_t reversed = 0;
  for (int i = 0; i < 8; ++i) reversed |= ((v >> (4 * i)) & 0xfu) << (28 - 4 * i);
  return reversed;
}

// The two reversed hashes stand right before `pool`, and the namespace right after it: when they
// fit, `pool` is where we take it from.
bool plausible_object(const ObjectImage& o) {
  return o.max == 0 && o.hash_reverse_bits == reverse_bits(o.hash) &&
         o.hash_reverse_nibbles == reverse_nibbles(o.hash) && o.pool >= 0 &&
         plausible_string(o.name) && plausible_string(o.nspace);
}

std::string_view view(const StringImage& s) {
  return {s.data, static_cast<std::size_t>(s.length_bytes)};
}

}  // namespace

bool find_operated_object(void* context, OperatedObject& out) {
  if (!plausible_pointer(context)) return false;
  const ContextImage* operation = *static_cast<const ContextImage* const*>(context);
  if (!plausible_pointer(operation) || !plausible_pointer(operation->op) ||
      !plausible_pointer(operation->ops) || !plausible_pointer(operation->obs)) {
    return false;
  }
  const ObjectImage& object = *operation->obs;
  const ObjectImage& copy = operation->new_obs;
  if (!plausible_object(object) || !plausible_object(copy)) return false;
  if (object.pool != copy.pool || object.hash != copy.hash ||
      view(object.name) != view(copy.name) || view(object.nspace) != view(copy.nspace)) {
    return false;
  }
  out.name = view(object.name);
  out.nspace = view(object.nspace);
  out.pool_id = object.pool;
  return true;
}

}  // namespace siphon::osd
