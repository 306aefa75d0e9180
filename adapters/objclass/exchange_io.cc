#include "adapters/objclass/exchange_io.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <exception>
#include <optional>

#include "adapters/rados/aio_window.h"
#include "plugin/base/crc32.h"
#include "plugin/base/types.h"

namespace siphon {
namespace {

using exchange::OperationKind;
using exchange::OperationReply;
using exchange::OperationRequest;
using librados::bufferlist;

// The longest wait for the limiter: so long that only an OSD that does not get anywhere reaches it.
constexpr std::chrono::minutes kLongestTurn{2};

// Any record of exchange.h or head_register.h as a method's input.
template <typename Request>
bufferlist encoded(const Request& request) {
  std::array<std::byte, Request::kEncodedBytes> bytes;
  request.encode(bytes);
  bufferlist list;
  list.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return list;
}

const char* method_of(Transition kind) {
  switch (kind) {
    case Transition::kReserve:
      return "reserve";
    case Transition::kPublish:
      return "publish";
    case Transition::kCondemn:
      return "condemn";
    case Transition::kForget:
      return "forget";
    case Transition::kSeal:
      return "seal";
    case Transition::kRestore:
      return "restore";
    case Transition::kDiscard:
      return "discard";
  }
  return "";
}

// The class reads from the object's `offset_bytes` into `out`, and says how much into `answer`.
void add_read(librados::ObjectReadOperation& operation, const ExchangeClient::Armed& armed,
              std::uint64_t offset_bytes, std::span<std::byte> out, bufferlist& answer) {
  bufferlist in = encoded(armed.request(offset_bytes, static_cast<std::uint32_t>(out.size())));
  operation.exec(exchange::kClassName, "read_part", in, &answer, nullptr);
}

// Takes the buffer back. 0 and `got` bytes are in `out`, or a negative errno.
int finish_read(int result, ExchangeClient::Armed& armed, bufferlist& answer,
                std::span<std::byte> out, std::size_t& got) {
  if (!armed.retire()) return -ETIMEDOUT;
  if (result < 0) return result;
  OperationReply reply;
  const std::span<const char> bytes(answer.c_str(), answer.length());
  if (!OperationReply::decode(std::as_bytes(bytes), reply) || reply.length_bytes > out.size()) {
    return -EINVAL;
  }
  got = reply.length_bytes;
  return 0;
}

// The OSD that answered has no such class or method, or this key may not call it.
bool no_class(int result) { return result == -EOPNOTSUPP || result == -EPERM; }

}  // namespace

// A pool that takes whole objects only is erasure-coded: the class cannot read there, and a
// repeated write has to replace.
ExchangeIo::ExchangeIo(ExchangeClient& exchange, WriteLimiter& writes, bool whole_objects)
    : ObjectIo(whole_objects),
      exchange_(exchange),
      writes_(writes),
      reads_(whole_objects || !exchange.bulk_methods()),
      writes_way_(whole_objects || !exchange.bulk_methods()) {}

namespace {

// A part's object is "siphon.<private id>.<number>": the extent is what comes before.
std::string extent_of(const std::string& object) {
  const auto dot = object.rfind('.');
  return dot == std::string::npos || dot < sizeof("siphon") ? object : object.substr(0, dot);
}

constexpr std::chrono::seconds kClosedFor{60};
constexpr std::uint32_t kRefusalsThatCloseAPool = 4;
constexpr std::size_t kMostClosedExtents = 1024;

}  // namespace

bool ExchangeIo::Way::is_closed(const std::string& object) {
  if (never_) return true;
  const Time until = pool_until_.load(std::memory_order_relaxed);
  if (until != Time::min() && std::chrono::steady_clock::now() < until) return true;
  if (extents_.load(std::memory_order_relaxed) == 0) return false;
  const MutexLock lock(mutex_);
  const auto found = until_.find(extent_of(object));
  if (found == until_.end()) return false;
  if (std::chrono::steady_clock::now() < found->second) return true;
  until_.erase(found);
  extents_ = until_.size();
  return false;
}

void ExchangeIo::Way::note_refusal(const std::string& object) {
  const Time until = std::chrono::steady_clock::now() + kClosedFor;
  const MutexLock lock(mutex_);
  if (until_.size() >= kMostClosedExtents) until_.clear();  // they ask once more
  if (until_.insert_or_assign(extent_of(object), until).second) ++refusals_;
  extents_ = until_.size();
  if (refusals_ >= kRefusalsThatCloseAPool) pool_until_ = until;
}

void ExchangeIo::Way::note_success() {
  if (refusals_.load(std::memory_order_relaxed) != 0) refusals_ = 0;
}

std::optional<ExchangeClient::Armed> ExchangeIo::arm(OperationKind kind, const std::string& object,
                                                     std::span<const std::byte> buffer) {
  Way& way = kind == OperationKind::kRead ? reads_ : writes_way_;
  if (!way.is_closed(object)) {
    if (auto armed = exchange_.arm(kind, buffer)) return armed;
  }
  if (!buffer.empty() && exchange_.contains(buffer)) count_fallback();
  return std::nullopt;
}

bool ExchangeIo::falls_back(int result, Way& way, const std::string& object) {
  if (result == 0) way.note_success();
  const bool another_way =
      result == -ENXIO || result == -EINVAL || result == -EIO || no_class(result);
  if (!another_way) return false;
  if (result == -EOPNOTSUPP) way.note_refusal(object);
  count_fallback();
  return true;
}

int ExchangeIo::read(librados::IoCtx& io, const std::string& object, std::uint64_t offset_bytes,
                     std::span<std::byte> out, std::size_t& got) try {
  got = 0;
  if (auto armed = arm(OperationKind::kRead, object, out)) {
    bufferlist answer;
    librados::ObjectReadOperation operation;
    add_read(operation, *armed, offset_bytes, out, answer);
    const int operated = io.operate(object, &operation, nullptr);
    const int result = finish_read(operated, *armed, answer, out, got);
    if (!falls_back(result, reads_, object)) return result;
  }
  return ObjectIo::read(io, object, offset_bytes, out, got);
} catch (const std::exception&) {
  return -ENOMEM;
}

void ExchangeIo::read_heads(std::span<HeadRead> reads) try {
  for (; !reads.empty(); reads = reads.subspan(std::min(reads.size(), kAioWindow))) {
    const std::size_t count = std::min(reads.size(), kAioWindow);
    std::array<std::optional<ExchangeClient::Armed>, kAioWindow> armed;
    std::array<bufferlist, kAioWindow> stored, answers;
    std::array<int, kAioWindow> results{};
    for (std::size_t i = 0; i < count; ++i) {
      auto one = arm(OperationKind::kRead, reads[i].object, reads[i].prefetch);
      if (one) armed[i].emplace(std::move(*one));
    }
    if (std::none_of(armed.begin(), armed.end(), [](const auto& one) { return one.has_value(); })) {
      ObjectIo::read_heads(reads.first(count));
      continue;
    }
    run_window(count, results, [&](std::size_t i, librados::AioCompletion* completion) {
      if (!armed[i]) return -ENXIO;
      librados::ObjectReadOperation operation;
      operation.getxattr(kHeadXattr, &stored[i], nullptr);
      add_read(operation, *armed[i], 0, reads[i].prefetch, answers[i]);
      return reads[i].io.aio_operate(reads[i].object, completion, &operation, nullptr);
    });
    for (std::size_t i = 0; i < count; ++i) {
      HeadRead& read = reads[i];
      read.got = 0;
      int result = results[i];
      if (armed[i]) result = finish_read(result, *armed[i], answers[i], read.prefetch, read.got);
      if (!armed[i] || falls_back(result, reads_, read.object)) {
        ObjectIo::read_heads({&read, 1});
      } else {
        decode_stored(result, std::move(stored[i]), read);
      }
    }
  }
} catch (const std::exception&) {
  for (HeadRead& one : reads) one.result = -ENOMEM;  // those not done yet
}

int ExchangeIo::write(librados::IoCtx& io, const std::string& object, std::uint64_t offset_bytes,
                      std::span<const std::byte> in, std::uint64_t expected_bytes,
                      const std::stop_token& stop) try {
  const auto slot = writes_.acquire(std::max<std::uint64_t>(in.size(), kLeastCharge),
                                    deadline_in(kLongestTurn), stop);
  if (!slot) return stop.stop_requested() ? -EINTR : -ETIMEDOUT;
  if (auto armed = arm(OperationKind::kWrite, object, in)) {
    bufferlist request = encoded(
        armed->request(offset_bytes, static_cast<std::uint32_t>(in.size()), ceph_crc32c(in)));
    librados::ObjectWriteOperation operation;
    operation.set_alloc_hint2(expected_bytes, in.size(), kAllocHints);
    operation.exec(exchange::kClassName, "write_part", request);
    const int result = io.operate(object, &operation, librados::OPERATION_FULL_TRY);
    if (!armed->retire()) return -ETIMEDOUT;
    if (result == -EIO || !falls_back(result, writes_way_, object)) return result;
  }
  return ObjectIo::write(io, object, offset_bytes, in, expected_bytes, stop);
} catch (const std::exception&) {
  return -ENOMEM;
}

int ExchangeIo::transition(librados::IoCtx& io, const std::string& object,
                           const TransitionRequest& request) try {
  if (!exchange_.bulk_methods()) return ObjectIo::transition(io, object, request);
  bufferlist in = encoded(request);
  librados::ObjectWriteOperation operation;
  operation.exec(exchange::kClassName, method_of(request.kind), in);
  const int result = io.operate(object, &operation, librados::OPERATION_FULL_TRY);
  // The guarded way is just as atomic, and may be mixed with the method at will. It also says
  // whether the class of the OSD that answered is of another version (it knows neither this input
  // nor a register of version 2) or the request or the register is wrong.
  const bool ask_again = no_class(result) || result == -EINVAL || result == -EIO;
  return ask_again ? ObjectIo::transition(io, object, request) : result;
} catch (const std::exception&) {
  return -ENOMEM;
}

void ExchangeIo::put_heads(std::span<HeadPut> puts) try {
  for (; !puts.empty(); puts = puts.subspan(std::min(puts.size(), kAioWindow))) {
    const std::size_t count = std::min(puts.size(), kAioWindow);
    std::uint64_t charge = 0;
    for (const HeadPut& put : puts.first(count)) {
      charge += std::max<std::uint64_t>(put.bytes.size(), kLeastCharge);
    }
    const auto slot = writes_.acquire(charge, deadline_in(kLongestTurn));
    if (!slot) {
      for (HeadPut& put : puts) put.result = -ETIMEDOUT;  // nor would the others' turn come
      return;
    }
    std::array<std::optional<ExchangeClient::Armed>, kAioWindow> armed;
    std::array<int, kAioWindow> results{};
    const auto counted = [](HeadPut& put, std::uint64_t before) {
      if (put.fallback_parts != nullptr) {
        *put.fallback_parts += fallback_parts_of_this_thread() - before;
      }
    };
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t before = fallback_parts_of_this_thread();
      auto one = arm(OperationKind::kWrite, puts[i].object, puts[i].bytes);
      if (one) armed[i].emplace(std::move(*one));
      counted(puts[i], before);
    }
    if (std::none_of(armed.begin(), armed.end(), [](const auto& one) { return one.has_value(); })) {
      ObjectIo::put_heads(puts.first(count));
      continue;
    }
    run_window(count, results, [&](std::size_t i, librados::AioCompletion* completion) {
      if (!armed[i]) return -ENXIO;
      HeadPut& put = puts[i];
      const auto length = static_cast<std::uint32_t>(put.bytes.size());
      bufferlist request = encoded(armed[i]->request(0, length, ceph_crc32c(put.bytes)));
      bufferlist head = encoded(put.publish);
      librados::ObjectWriteOperation operation;
      operation.create(true);
      operation.set_alloc_hint2(length, length, kAllocHints);
      operation.exec(exchange::kClassName, "write_part", request);
      operation.exec(exchange::kClassName, "publish", head);
      return put.io.aio_operate(put.object, completion, &operation, librados::OPERATION_FULL_TRY);
    });
    for (std::size_t i = 0; i < count; ++i) {
      HeadPut& put = puts[i];
      const std::uint64_t before = fallback_parts_of_this_thread();
      put.result = results[i];
      if (armed[i] && !armed[i]->retire()) {
        put.result = -ETIMEDOUT;
      } else if (!armed[i] ||
                 (put.result != -EIO && falls_back(put.result, writes_way_, put.object))) {
        ObjectIo::put_heads({&put, 1});
      }
      counted(put, before);
    }
  }
} catch (const std::exception&) {
  for (HeadPut& one : puts) one.result = -ENOMEM;  // those not done yet
}

}  // namespace siphon
