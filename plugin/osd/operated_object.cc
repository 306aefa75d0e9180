#include "plugin/osd/operated_object.h"

#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstring>

namespace siphon::osd {
namespace {

constexpr std::size_t kMaxNameBytes = 4096;  // above osd_max_object_name_len (2048)

// A libstdc++ string: pointer, length, 16 bytes of small buffer or capacity.
struct StringImage {
  std::uint64_t data;
  std::uint64_t length_bytes;
  std::array<char, 16> local;
};
static_assert(sizeof(StringImage) == 32);

// Copies memory of this process. False: it is not there, or not all of it.
bool read_memory(std::uint64_t address, void* to, std::size_t bytes) {
  const iovec here{to, bytes};
  const iovec there{reinterpret_cast<void*>(address), bytes};  // NOLINT: an address is a number
  return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == static_cast<ssize_t>(bytes);
}

template <typename T>
bool read_at(std::uint64_t address, T& value) {
  return read_memory(address, &value, sizeof value);
}

bool plausible_pointer(std::uint64_t address) {
  return address >= 0x10000 && address < (std::uint64_t{1} << 47) && address % 8 == 0;
}

// A libstdc++ string points into itself when it is short, and to aligned memory when it is long.
bool read_string(std::uint64_t address, std::string& out) {
  StringImage image;
  if (!read_at(address, image) || image.length_bytes > kMaxNameBytes) return false;
  const std::size_t length = image.length_bytes;
  if (length < image.local.size() && image.data == address + offsetof(StringImage, local)) {
    out.assign(image.local.data(), length);
    return image.local[length] == '\0';
  }
  std::uint64_t capacity = 0;
  std::memcpy(&capacity, image.local.data(), sizeof capacity);
  if (!plausible_pointer(image.data) || capacity < length || capacity < image.local.size() - 1) {
    return false;
  }
  out.resize(length + 1);
  if (!read_memory(image.data, out.data(), length + 1) || out.back() != '\0') return false;
  out.pop_back();
  return true;
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

// An hobject_t. The two reversed hashes stand right before `pool`, and the namespace right after
// it: when they fit, `pool` is where we take it from.
bool read_object(const OperationLayout& layout, std::uint64_t address, OperatedObject& out,
                 std::uint32_t& hash) {
  std::uint8_t max = 0;
  std::uint32_t nibbles = 0, bits = 0;
  return read_at(address + layout.hash, hash) && read_at(address + layout.max, max) &&
         read_at(address + layout.hash_reverse_nibbles, nibbles) &&
         read_at(address + layout.hash_reverse_bits, bits) &&
         read_at(address + layout.pool, out.pool_id) && max == 0 && bits == reverse_bits(hash) &&
         nibbles == reverse_nibbles(hash) && out.pool_id >= 0 &&
         read_string(address + layout.name, out.name) &&
         read_string(address + layout.nspace, out.nspace);
}

}  // namespace

bool find_operated_object(const OperationLayout& layout, void* context, OperatedObject& out) {
  const auto begin = reinterpret_cast<std::uint64_t>(context);
  std::uint64_t operation = 0, op = 0, ops = 0, obs = 0;
  if (!plausible_pointer(begin) || !read_at(begin, operation) || !plausible_pointer(operation) ||
      !read_at(operation + layout.op, op) || !plausible_pointer(op) ||
      !read_at(operation + layout.ops, ops) || !plausible_pointer(ops) ||
      !read_at(operation + layout.obs, obs) || !plausible_pointer(obs)) {
    return false;
  }
  OperatedObject copy;
  std::uint32_t hash = 0, hash_of_copy = 0;
  return read_object(layout, obs, out, hash) &&
         read_object(layout, operation + layout.new_obs, copy, hash_of_copy) &&
         hash == hash_of_copy && out == copy;
}

}  // namespace siphon::osd
