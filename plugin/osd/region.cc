#include "plugin/osd/region.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <new>

namespace siphon::osd {
namespace {

using exchange::Descriptor;
using exchange::DescriptorState;
using exchange::Grant;
using exchange::LayoutState;
using exchange::RegionHeader;

constexpr int kHelloTries = 64;

// No early exit: the time taken tells nothing about where the first difference is.
bool equal_in_constant_time(std::span<const std::byte, 16> a, std::span<const std::byte, 16> b) {
  unsigned char difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference |= std::to_integer<unsigned char>(a[i] ^ b[i]);
    asm volatile("" : "+r"(difference));  // keeps the compiler from leaving the loop early
  }
  return difference == 0;
}

std::string failed(const char* call) { return std::string(call) + ": " + std::strerror(errno); }

}  // namespace

std::uint64_t monotonic_ms() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

std::uint64_t data_bytes_from(const char* mebibytes_text) {
  if (mebibytes_text == nullptr) return exchange::kDefaultDataBytes;
  const std::string_view text(mebibytes_text);
  std::uint64_t mebibytes = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), mebibytes);
  if (error == std::errc::result_out_of_range) return exchange::kMaxDataBytes;
  if (error != std::errc{} || end != text.data() + text.size()) return exchange::kDefaultDataBytes;
  mebibytes = std::min(mebibytes, exchange::kMaxDataBytes >> 20);
  return std::max(mebibytes << 20, exchange::kMinDataBytes);
}

std::unique_ptr<Region> Region::create(std::uint64_t data_bytes, std::string& error) {
  const std::uint64_t region_bytes = exchange::kDataOffset + data_bytes;
  std::uint64_t boot_nonce = 0;
  while (boot_nonce == 0) {
    if (getrandom(&boot_nonce, sizeof boot_nonce, 0) != sizeof boot_nonce) {
      if (errno == EINTR) continue;
      error = failed("getrandom");
      return nullptr;
    }
  }
  const int fd = memfd_create("siphon-region", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) {
    error = failed("memfd_create");
    return nullptr;
  }
  // Pages are allocated here, so that no later access can end in SIGBUS, and sealed, so that the
  // companion cannot take them away.
  const char* step = nullptr;
  void* base = MAP_FAILED;
  if (ftruncate(fd, static_cast<off_t>(region_bytes)) != 0) {
    step = "ftruncate";
  } else if (fallocate(fd, 0, 0, static_cast<off_t>(region_bytes)) != 0) {
    step = "fallocate";
  } else if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    step = "F_ADD_SEALS";
  } else {
    base = mmap(nullptr, region_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) step = "mmap";
  }
  if (step != nullptr) {
    error = failed(step);
    close(fd);
    return nullptr;
  }
  madvise(base, region_bytes, MADV_DONTDUMP);  // user data stays out of an OSD's core; best effort

  auto* header = new (base) RegionHeader{};
  header->magic = exchange::kRegionMagic;
  header->abi_version = exchange::kAbiVersion;
  header->descriptor_count = exchange::kDescriptorCount;
  header->grant_count = exchange::kGrantCount;
  header->region_bytes = region_bytes;
  header->data_offset = exchange::kDataOffset;
  header->data_bytes = data_bytes;
  header->boot_nonce = boot_nonce;
  return std::unique_ptr<Region>(
      new Region(fd, static_cast<std::byte*>(base), data_bytes, boot_nonce));
}

Region::Region(int fd, std::byte* base, std::uint64_t data_bytes, std::uint64_t boot_nonce)
    : fd_(fd), base_(base), data_bytes_(data_bytes), boot_nonce_(boot_nonce) {}

Region::~Region() {
  munmap(base_, exchange::kDataOffset + data_bytes_);
  close(fd_);
}

void Region::set_bulk_methods(bool registered) { header()->bulk_methods = registered ? 1 : 0; }

std::span<Grant> Region::grants() {
  return {reinterpret_cast<Grant*>(base_ + exchange::kGrantsOffset), exchange::kGrantCount};
}

std::span<Descriptor> Region::descriptors() {
  return {reinterpret_cast<Descriptor*>(base_ + exchange::kDescriptorsOffset),
          exchange::kDescriptorCount};
}

// ---- layout ----------------------------------------------------------------------------------

bool Region::settle_layout(LayoutState state) {
  LayoutState expected = LayoutState::kUnproven;
  if (!layout_.compare_exchange_strong(expected, state, std::memory_order_acq_rel)) return false;
  header()->layout.store(static_cast<std::uint32_t>(state), std::memory_order_release);
  return true;
}

void Region::want_probe(std::int64_t pool_id, std::uint32_t placement_group) {
  RegionHeader* shared = header();
  shared->probe_pool.store(pool_id, std::memory_order_relaxed);
  shared->probe_group.store(placement_group, std::memory_order_relaxed);
  shared->probes_wanted.fetch_add(1, std::memory_order_release);
}

bool Region::probe_expected(std::span<const std::byte, 16> ticket) {
  if (header()->probe_armed.load(std::memory_order_acquire) != 1) return false;
  std::byte announced[16];
  std::memcpy(announced, header()->probe_ticket, sizeof announced);
  return equal_in_constant_time(announced, ticket);
}

// ---- hello -----------------------------------------------------------------------------------

int Region::read_hello(std::span<std::byte, exchange::Hello::kEncodedBytes> out) {
  RegionHeader* shared = header();
  for (int i = 0; i < kHelloTries; ++i) {
    const std::uint64_t before = shared->hello_seq.load(std::memory_order_acquire);
    if (before == 0) return -EHOSTDOWN;
    if (before % 2 != 0) continue;
    std::memcpy(out.data(), shared->hello, out.size());
    // Adding nothing is a load that the copy before it cannot sink below.
    if (shared->hello_seq.fetch_add(0, std::memory_order_acq_rel) != before) continue;
    exchange::Hello hello;
    if (!exchange::Hello::decode(out, hello)) return -EHOSTDOWN;
    hello.layout = layout();
    hello.encode(out);
    return 0;
  }
  return -EHOSTDOWN;  // it keeps writing, or died half way: the caller asks again
}

void Region::forget_companion() {
  header()->hello_seq.store(0, std::memory_order_release);
  header()->probe_armed.store(0, std::memory_order_release);
}

// ---- grants ----------------------------------------------------------------------------------

int Region::give_grant(const exchange::GrantRequest& request, exchange::Right right,
                       std::uint64_t client, std::uint64_t now_ms) {
  if (request.namespace_bytes > kMaxNamespaceBytes) return -EINVAL;
  const MutexLock lock(grants_mutex_);
  Grant* same = nullptr;
  Grant* unused = nullptr;
  std::uint32_t of_client = 0;
  std::uint32_t of_pool = 0;
  for (Grant& entry : grants()) {
    const bool ready = entry.state.load(std::memory_order_relaxed) == Grant::kReady;
    if (!ready || entry.expires_ms <= now_ms) {
      if (unused == nullptr) unused = &entry;
      continue;
    }
    of_client += client != 0 && entry.client == client;
    of_pool += entry.pool_id == request.pool_id;
    if (std::memcmp(entry.nonce, request.nonce.data(), sizeof entry.nonce) == 0 &&
        std::memcmp(entry.key_id, request.key_id.data(), sizeof entry.key_id) == 0 &&
        entry.pool_id == request.pool_id && entry.right == static_cast<std::uint32_t>(right) &&
        entry.namespace_bytes == request.namespace_bytes &&
        std::memcmp(entry.nspace, request.nspace.data(), request.namespace_bytes) == 0) {
      same = &entry;
      break;
    }
  }
  if (same == nullptr &&
      (of_client >= exchange::kMaxGrantsPerClient || of_pool >= exchange::kMaxGrantsPerPool)) {
    return -EUSERS;
  }
  Grant* entry = same != nullptr ? same : unused;
  if (entry == nullptr) return -EUSERS;

  entry->state.exchange(Grant::kWriting, std::memory_order_acq_rel);
  entry->seq.fetch_add(1, std::memory_order_acq_rel);  // what follows cannot rise above it
  std::memcpy(entry->nonce, request.nonce.data(), sizeof entry->nonce);
  std::memcpy(entry->key_id, request.key_id.data(), sizeof entry->key_id);
  entry->client = client;
  entry->pool_id = request.pool_id;
  entry->expires_ms = now_ms + std::uint64_t{request.ttl_seconds} * 1000;
  entry->right = static_cast<std::uint32_t>(right);
  entry->namespace_bytes = request.namespace_bytes;
  std::memset(entry->nspace, 0, sizeof entry->nspace);
  std::memcpy(entry->nspace, request.nspace.data(), request.namespace_bytes);
  entry->state.store(Grant::kReady, std::memory_order_release);
  header()->grants_given.fetch_add(1, std::memory_order_relaxed);
  return 0;
}

// ---- operations ------------------------------------------------------------------------------

int Region::find(const exchange::OperationRequest& request, exchange::OperationKind kind,
                 Operation& out) {
  if (request.boot_nonce != boot_nonce_ || request.descriptor >= exchange::kDescriptorCount) {
    count_stale();
    return -ENXIO;
  }
  Descriptor& shared = descriptors()[request.descriptor];
  const std::uint64_t word = shared.word.load(std::memory_order_acquire);
  std::byte ticket[16];
  std::memcpy(ticket, shared.ticket, sizeof ticket);
  const std::uint64_t buffer_offset = shared.buffer_offset;
  const std::uint32_t buffer_bytes = shared.buffer_bytes;
  const std::uint32_t armed_kind = shared.kind;

  const bool ticket_matches = equal_in_constant_time(ticket, request.ticket);
  const DescriptorState state = exchange::state_of(word);
  if (!ticket_matches || exchange::epoch_of(word) != request.epoch ||
      (state != DescriptorState::kArmed && state != DescriptorState::kDone) ||
      armed_kind != static_cast<std::uint32_t>(kind)) {
    count_stale();
    return -ENXIO;
  }
  if (buffer_bytes > exchange::kMaxOperationBytes || buffer_bytes > data_bytes_ ||
      buffer_offset > data_bytes_ - buffer_bytes || request.length_bytes == 0 ||
      request.length_bytes > exchange::kMaxCopyBytes || request.length_bytes > buffer_bytes) {
    return -EINVAL;
  }
  out.descriptor = &shared;
  out.epoch = request.epoch;
  out.buffer = base_ + exchange::kDataOffset + buffer_offset;
  out.length_bytes = request.length_bytes;
  return 0;
}

bool Region::claim(const Operation& operation) {
  const std::uint64_t copying = exchange::pack(operation.epoch, DescriptorState::kCopying);
  for (const DescriptorState from : {DescriptorState::kArmed, DescriptorState::kDone}) {
    std::uint64_t expected = exchange::pack(operation.epoch, from);
    if (operation.descriptor->word.compare_exchange_strong(expected, copying,
                                                           std::memory_order_acq_rel)) {
      return true;
    }
  }
  count_stale();
  return false;
}

void Region::finish(const Operation& operation) {
  std::uint64_t expected = exchange::pack(operation.epoch, DescriptorState::kCopying);
  operation.descriptor->word.compare_exchange_strong(
      expected, exchange::pack(operation.epoch, DescriptorState::kDone), std::memory_order_acq_rel);
}

bool Region::still_wanted(const Operation& operation, const exchange::OperationRequest& request) {
  const std::uint64_t word = operation.descriptor->word.load(std::memory_order_acquire);
  std::byte ticket[16];
  std::memcpy(ticket, operation.descriptor->ticket, sizeof ticket);
  if (equal_in_constant_time(ticket, request.ticket) &&
      word == exchange::pack(operation.epoch, DescriptorState::kDone)) {
    return true;
  }
  count_stale();
  return false;
}

bool Region::retire_descriptors(std::uint64_t patience_ms) {
  const std::uint64_t deadline_ms = monotonic_ms() + patience_ms;
  bool all = true;
  for (Descriptor& descriptor : descriptors()) {
    std::uint64_t word = descriptor.word.load(std::memory_order_acquire);
    while (exchange::state_of(word) != DescriptorState::kFree) {
      if (exchange::state_of(word) == DescriptorState::kCopying) {
        if (monotonic_ms() >= deadline_ms) {
          all = false;
          break;
        }
        sched_yield();
        word = descriptor.word.load(std::memory_order_acquire);
        continue;
      }
      const std::uint64_t retired =
          exchange::pack(exchange::epoch_of(word) + 1, DescriptorState::kFree);
      if (descriptor.word.compare_exchange_weak(word, retired, std::memory_order_acq_rel)) break;
    }
  }
  return all;
}

}  // namespace siphon::osd
