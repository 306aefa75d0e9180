#include "adapters/objclass/exchange_client.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>

#include "plugin/base/types.h"

namespace siphon {
namespace {

using exchange::Descriptor;
using exchange::DescriptorState;
using exchange::Grant;
using exchange::RegionHeader;

// Looks at a copy that goes on before the next one waits a millisecond.
constexpr int kQuickLooks = 1000;

// The clock that grants expire by; one host, so one clock.
std::uint64_t monotonic_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1000 +
         static_cast<std::uint64_t>(now.tv_nsec) / 1000000;
}

tl::unexpected<Error> refuse(const std::string& why) {
  return fail(Code::kFailedPrecondition, "the shared region cannot be used: " + why, Side::kNone,
              "install libcls_siphon.so and siphond of the same version, then restart the OSD");
}

Status check_header(const RegionHeader& header, std::uint64_t file_bytes) {
  if (header.magic != exchange::kRegionMagic) return refuse("it is none of siphon's");
  if (header.abi_version != exchange::kAbiVersion) {
    return refuse("its version is " + std::to_string(header.abi_version) + ", not " +
                  std::to_string(exchange::kAbiVersion));
  }
  if (header.descriptor_count == 0 || header.descriptor_count > exchange::kDescriptorCount ||
      header.grant_count != exchange::kGrantCount || header.data_offset != exchange::kDataOffset ||
      header.region_bytes != file_bytes || header.data_bytes < exchange::kMinDataBytes ||
      header.data_bytes > exchange::kMaxDataBytes || header.data_bytes % 8192 != 0 ||
      header.data_offset + header.data_bytes > file_bytes) {
    return refuse("its geometry contradicts itself");
  }
  return {};
}

// A copy of `grant` that the class did not change meanwhile; false when it is none to look at.
struct GrantCopy {
  std::array<std::byte, 16> nonce;
  std::array<std::byte, 16> key_id;
  std::int64_t pool_id;
  std::uint64_t expires_ms;
  std::uint32_t right;
  std::uint64_t client;
  std::uint32_t namespace_bytes;
  char nspace[kMaxNamespaceBytes + 1];
};
bool copy_grant(const Grant& grant, GrantCopy& copy) {
  const std::uint32_t seq = grant.seq.load(std::memory_order_acquire);
  const bool ready = grant.state.load(std::memory_order_acquire) == Grant::kReady;
  std::memcpy(copy.nonce.data(), grant.nonce, copy.nonce.size());
  std::memcpy(copy.key_id.data(), grant.key_id, copy.key_id.size());
  copy.pool_id = grant.pool_id;
  copy.expires_ms = grant.expires_ms;
  copy.right = grant.right;
  copy.client = grant.client;
  copy.namespace_bytes = grant.namespace_bytes;
  std::memcpy(copy.nspace, grant.nspace, sizeof(copy.nspace));
  std::atomic_thread_fence(std::memory_order_acquire);
  return ready && grant.state.load(std::memory_order_relaxed) == Grant::kReady &&
         grant.seq.load(std::memory_order_relaxed) == seq &&
         copy.namespace_bytes <= kMaxNamespaceBytes;
}

}  // namespace

Result<std::unique_ptr<ExchangeClient>> ExchangeClient::map(int fd,
                                                            std::chrono::milliseconds patience) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return fail(error_from_errno(errno, "look at the shared region"));
  const auto file_bytes = static_cast<std::uint64_t>(info.st_size);
  if (file_bytes < exchange::kDataOffset + exchange::kMinDataBytes ||
      file_bytes > exchange::kDataOffset + exchange::kMaxDataBytes) {
    return refuse("it has " + std::to_string(file_bytes) + " bytes");
  }
  void* base = ::mmap(nullptr, file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) return fail(error_from_errno(errno, "map the shared region"));
  // Payload is no matter for a core file, and a child has no business here.
  (void)::madvise(base, file_bytes, MADV_DONTDUMP);
  (void)::madvise(base, file_bytes, MADV_DONTFORK);
  const std::span<std::byte> mapping(static_cast<std::byte*>(base), file_bytes);
  const auto& header = *reinterpret_cast<const RegionHeader*>(base);
  if (Status status = check_header(header, file_bytes); !status) {
    ::munmap(base, file_bytes);
    return fail(std::move(status).error());
  }
  return std::unique_ptr<ExchangeClient>(new ExchangeClient(mapping, header, patience));
}

ExchangeClient::ExchangeClient(std::span<std::byte> mapping, const RegionHeader& header,
                               std::chrono::milliseconds patience)
    : mapping_(mapping),
      data_(mapping.subspan(header.data_offset, header.data_bytes)),
      region_bytes_(header.region_bytes),
      boot_nonce_(header.boot_nonce),
      descriptor_count_(header.descriptor_count),
      bulk_methods_(header.bulk_methods == 1),
      patience_(patience) {
  free_.reserve(descriptor_count_);
  held_.reserve(descriptor_count_);
  for (std::uint32_t i = descriptor_count_; i > 0; --i) {
    const std::uint64_t word = descriptors()[i - 1].word.load(std::memory_order_acquire);
    if (exchange::state_of(word) == DescriptorState::kCopying) {
      hold(i - 1, exchange::epoch_of(word));  // a predecessor's
    } else {
      free_.push_back(i - 1);
    }
  }
}

ExchangeClient::~ExchangeClient() { ::munmap(mapping_.data(), mapping_.size()); }

std::span<Grant> ExchangeClient::grants() const {
  return {reinterpret_cast<Grant*>(mapping_.data() + exchange::kGrantsOffset),
          exchange::kGrantCount};
}

std::span<Descriptor> ExchangeClient::descriptors() const {
  return {reinterpret_cast<Descriptor*>(mapping_.data() + exchange::kDescriptorsOffset),
          descriptor_count_};
}

bool ExchangeClient::contains(std::span<const std::byte> bytes) const {
  const auto begin = reinterpret_cast<std::uintptr_t>(data_.data());
  const auto at = reinterpret_cast<std::uintptr_t>(bytes.data());
  return at >= begin && at - begin <= data_.size() && bytes.size() <= data_.size() - (at - begin);
}

// ---- what is held ------------------------------------------------------------------------------

void ExchangeClient::hold(std::uint32_t index, std::uint64_t epoch) {
  const Descriptor& d = descriptors()[index];
  const std::uint64_t begin = std::min<std::uint64_t>(d.buffer_offset, data_.size());
  const std::uint64_t bytes = std::min<std::uint64_t>(d.buffer_bytes, data_.size() - begin);
  const MutexLock lock(mutex_);
  held_.push_back({index, epoch, data_.subspan(begin, bytes)});
  held_count_.store(held_.size(), std::memory_order_release);
}

// And the class cannot begin it again: it does so from DONE.
bool ExchangeClient::has_ended(const Held& held) {
  std::atomic<std::uint64_t>& word = descriptors()[held.index].word;
  std::uint64_t seen = word.load(std::memory_order_acquire);
  while (exchange::epoch_of(seen) == held.epoch &&
         exchange::state_of(seen) != DescriptorState::kFree) {
    if (exchange::state_of(seen) == DescriptorState::kCopying) return false;
    const std::uint64_t free_word = exchange::pack(held.epoch, DescriptorState::kFree);
    if (word.compare_exchange_weak(seen, free_word, std::memory_order_acq_rel)) return true;
  }
  return true;
}

void ExchangeClient::release_ended_locked() {
  std::erase_if(held_, [this](const Held& held) SIPHON_REQUIRES(mutex_) {
    if (!has_ended(held)) return false;
    free_.push_back(held.index);
    return true;
  });
  held_count_.store(held_.size(), std::memory_order_release);
}

bool ExchangeClient::is_held(std::span<const std::byte> bytes) {
  if (held_count_.load(std::memory_order_acquire) == 0) return false;
  const MutexLock lock(mutex_);
  release_ended_locked();
  return std::any_of(held_.begin(), held_.end(), [&](const Held& held) {
    return held.bytes.data() < bytes.data() + bytes.size() &&
           bytes.data() < held.bytes.data() + held.bytes.size();
  });
}

std::vector<std::span<std::byte>> ExchangeClient::held() {
  const MutexLock lock(mutex_);
  release_ended_locked();
  std::vector<std::span<std::byte>> all;
  for (const Held& held : held_) all.push_back(held.bytes);
  return all;
}

ExchangeCounters ExchangeClient::counters() const {
  const RegionHeader& h = *header();
  return {h.reads_done.load(std::memory_order_relaxed),
          h.writes_done.load(std::memory_order_relaxed),
          h.stale_refused.load(std::memory_order_relaxed),
          h.grants_given.load(std::memory_order_relaxed)};
}

exchange::LayoutState ExchangeClient::layout() const {
  return static_cast<exchange::LayoutState>(header()->layout.load(std::memory_order_acquire));
}

std::optional<ExchangeClient::WantedProbe> ExchangeClient::wanted_probe() {
  const RegionHeader& h = *header();
  const std::uint64_t wanted = h.probes_wanted.load(std::memory_order_acquire);
  if (probes_seen_.exchange(wanted, std::memory_order_relaxed) == wanted) return std::nullopt;
  return WantedProbe{h.probe_pool.load(std::memory_order_relaxed),
                     h.probe_group.load(std::memory_order_relaxed)};
}

void ExchangeClient::announce_probe(std::span<const std::byte, 16> ticket) {
  RegionHeader& h = *header();
  withdraw_probe();
  std::atomic_thread_fence(std::memory_order_release);
  std::memcpy(h.probe_ticket, ticket.data(), ticket.size());
  h.probe_armed.store(1, std::memory_order_release);
}

void ExchangeClient::withdraw_probe() { header()->probe_armed.store(0, std::memory_order_release); }

void ExchangeClient::publish_hello(const exchange::Hello& hello) {
  RegionHeader& h = *header();
  // Odd while it is written; a predecessor may have died in between.
  const std::uint64_t seq = h.hello_seq.load(std::memory_order_relaxed) | 1;
  h.hello_seq.store(seq, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  hello.encode(std::span<std::byte, exchange::Hello::kEncodedBytes>(
      h.hello, exchange::Hello::kEncodedBytes));
  h.hello_seq.store(seq + 1, std::memory_order_release);
}

// ---- grants ----------------------------------------------------------------------------------

std::optional<std::array<std::byte, 16>> ExchangeClient::find_nonce(
    std::span<const std::byte, 16> key_id) const {
  const std::uint64_t now_ms = monotonic_ms();
  for (const Grant& grant : grants()) {
    GrantCopy copy;
    if (!copy_grant(grant, copy) || copy.expires_ms <= now_ms) continue;
    // The class takes a requester's word for the name, and names are no secret.
    if (std::ranges::equal(copy.key_id, key_id) && grant_key_id(copy.nonce) == copy.key_id) {
      return copy.nonce;
    }
  }
  return std::nullopt;
}

std::vector<ExchangeGrant> ExchangeClient::find_grants(std::span<const std::byte, 16> nonce) const {
  std::vector<ExchangeGrant> found;
  const std::uint64_t now_ms = monotonic_ms();
  for (const Grant& grant : grants()) {
    GrantCopy copy;
    const bool usable = copy_grant(grant, copy);
    const bool same = equal_constant_time(copy.nonce, nonce);
    if (!usable || !same || copy.expires_ms <= now_ms) continue;
    found.push_back({copy.pool_id, std::string(copy.nspace, copy.namespace_bytes),
                     static_cast<exchange::Right>(copy.right), copy.client});
  }
  return found;
}

bool ExchangeClient::allows(std::span<const std::byte, 16> nonce, exchange::Right right,
                            std::int64_t pool_id, std::string_view nspace) const {
  bool allowed = false;
  for (const ExchangeGrant& grant : find_grants(nonce)) {
    allowed |= grant.right == right && grant.pool_id == pool_id && grant.nspace == nspace;
  }
  return allowed;
}

// ---- descriptors -----------------------------------------------------------------------------

std::optional<ExchangeClient::Armed> ExchangeClient::arm(exchange::OperationKind kind,
                                                         std::span<const std::byte> buffer) {
  if (buffer.empty() || buffer.size() > exchange::kMaxOperationBytes || !contains(buffer)) {
    return std::nullopt;
  }
  std::uint32_t index = 0;
  {
    const MutexLock lock(mutex_);
    if (!held_.empty()) release_ended_locked();
    if (free_.empty()) return std::nullopt;
    index = free_.back();
    free_.pop_back();
  }
  std::array<std::byte, 16> ticket;
  fill_random(ticket);
  Descriptor& d = descriptors()[index];
  // The word says kFree, or names an epoch of ours that is over: the class touches nothing here
  // until the new word is stored. The epoch goes on where a predecessor stopped.
  const std::uint64_t epoch = exchange::epoch_of(d.word.load(std::memory_order_acquire)) + 1;
  std::memcpy(d.ticket, ticket.data(), ticket.size());
  d.buffer_offset = static_cast<std::uint64_t>(buffer.data() - data_.data());
  d.buffer_bytes = static_cast<std::uint32_t>(buffer.size());
  d.kind = static_cast<std::uint32_t>(kind);
  d.word.store(exchange::pack(epoch, DescriptorState::kArmed), std::memory_order_release);
  return Armed(*this, index, epoch, ticket);
}

ExchangeClient::Armed::Armed(Armed&& other) noexcept
    : client_(std::exchange(other.client_, nullptr)),
      index_(other.index_),
      epoch_(other.epoch_),
      ticket_(other.ticket_) {}

exchange::OperationRequest ExchangeClient::Armed::request(std::uint64_t object_offset_bytes,
                                                          std::uint32_t length_bytes,
                                                          std::uint32_t crc32c) const {
  exchange::OperationRequest request;
  request.boot_nonce = client_->boot_nonce_;
  request.descriptor = index_;
  request.epoch = epoch_;
  request.ticket = ticket_;
  request.object_offset = object_offset_bytes;
  request.length_bytes = length_bytes;
  request.crc32c = crc32c;
  return request;
}

bool ExchangeClient::Armed::retire() {
  if (client_ == nullptr) return true;
  ExchangeClient& client = *std::exchange(client_, nullptr);
  Descriptor& d = client.descriptors()[index_];
  const std::uint64_t free_word = exchange::pack(epoch_, DescriptorState::kFree);
  const auto give_up = std::chrono::steady_clock::now() + client.patience_;
  std::uint64_t word = d.word.load(std::memory_order_acquire);
  int looks = 0;
  while (exchange::epoch_of(word) == epoch_ && exchange::state_of(word) != DescriptorState::kFree) {
    if (exchange::state_of(word) == DescriptorState::kCopying) {
      // The class may finish that copy whenever the OSD goes on.
      if (std::chrono::steady_clock::now() > give_up) {
        client.hold(index_, epoch_);
        return false;
      }
      if (++looks < kQuickLooks) {
        ::sched_yield();
      } else {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      word = d.word.load(std::memory_order_acquire);
    } else if (d.word.compare_exchange_weak(word, free_word, std::memory_order_acq_rel)) {
      break;
    }
  }
  const MutexLock lock(client.mutex_);
  client.free_.push_back(index_);
  return true;
}

}  // namespace siphon
