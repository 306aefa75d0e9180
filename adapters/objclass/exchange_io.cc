#include "adapters/objclass/exchange_io.h"

#include <array>
#include <cerrno>
#include <exception>

#include "plugin/base/crc32.h"

namespace siphon {
namespace {

using exchange::OperationKind;
using exchange::OperationReply;
using exchange::OperationRequest;
using librados::bufferlist;

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
  }
  return "";
}

// The OSD that answered has no such class or method, or this key may not call it.
bool no_class(int result) { return result == -EOPNOTSUPP || result == -EPERM; }

}  // namespace

// A pool that takes whole objects only is erasure-coded: the class cannot read there, and a
// repeated write has to replace.
ExchangeIo::ExchangeIo(ExchangeClient& exchange, bool whole_objects)
    : ObjectIo(whole_objects),
      exchange_(exchange),
      reads_closed_(whole_objects || !exchange.bulk_methods()),
      writes_closed_(whole_objects || !exchange.bulk_methods()) {}

std::optional<ExchangeClient::Armed> ExchangeIo::arm(OperationKind kind,
                                                     std::span<const std::byte> buffer) {
  const bool closed = kind == OperationKind::kRead ? reads_closed_ : writes_closed_;
  if (!closed) {
    if (auto armed = exchange_.arm(kind, buffer)) return armed;
  }
  if (!buffer.empty() && exchange_.contains(buffer)) count_fallback();
  return std::nullopt;
}

bool ExchangeIo::go_round(int result, std::atomic<bool>& closed) {
  const bool another_way =
      result == -ENXIO || result == -EINVAL || result == -EIO || no_class(result);
  if (!another_way) return false;
  if (result == -EOPNOTSUPP) closed = true;
  count_fallback();
  return true;
}

int ExchangeIo::read_with_class(librados::IoCtx& io, const std::string& object,
                                std::uint64_t offset_bytes, ExchangeClient::Armed& armed,
                                std::span<std::byte> out, std::size_t& got, bufferlist* head) {
  bufferlist in = encoded(armed.request(offset_bytes, static_cast<std::uint32_t>(out.size())));
  bufferlist answer;
  librados::ObjectReadOperation operation;
  if (head != nullptr) operation.getxattr(kHeadXattr, head, nullptr);
  operation.exec(exchange::kClassName, "read_part", in, &answer, nullptr);
  const int result = io.operate(object, &operation, nullptr);
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

int ExchangeIo::read(librados::IoCtx& io, const std::string& object, std::uint64_t offset_bytes,
                     std::span<std::byte> out, std::size_t& got) try {
  got = 0;
  if (auto armed = arm(OperationKind::kRead, out)) {
    const int result = read_with_class(io, object, offset_bytes, *armed, out, got, nullptr);
    if (!go_round(result, reads_closed_)) return result;
  }
  return ObjectIo::read(io, object, offset_bytes, out, got);
} catch (const std::exception&) {
  return -ENOMEM;
}

int ExchangeIo::read_head(librados::IoCtx& io, const std::string& object, StoredHead& head,
                          std::span<std::byte> prefetch, std::size_t& got) try {
  got = 0;
  if (auto armed = arm(OperationKind::kRead, prefetch)) {
    bufferlist stored;
    const int result = read_with_class(io, object, 0, *armed, prefetch, got, &stored);
    if (!go_round(result, reads_closed_)) return decode_stored(result, std::move(stored), head);
  }
  return ObjectIo::read_head(io, object, head, prefetch, got);
} catch (const std::exception&) {
  return -ENOMEM;
}

int ExchangeIo::write(librados::IoCtx& io, const std::string& object, std::uint64_t offset_bytes,
                      std::span<const std::byte> in, std::uint64_t expected_bytes) try {
  if (auto armed = arm(OperationKind::kWrite, in)) {
    bufferlist request = encoded(
        armed->request(offset_bytes, static_cast<std::uint32_t>(in.size()), ceph_crc32c(in)));
    librados::ObjectWriteOperation operation;
    operation.set_alloc_hint2(expected_bytes, in.size(), kAllocHints);
    operation.exec(exchange::kClassName, "write_part", request);
    const int result = io.operate(object, &operation, librados::OPERATION_FULL_TRY);
    if (!armed->retire()) return -ETIMEDOUT;
    if (result == -EIO || !go_round(result, writes_closed_)) return result;
  }
  return ObjectIo::write(io, object, offset_bytes, in, expected_bytes);
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
  // The guarded way is just as atomic, and may be mixed with the method at will.
  return no_class(result) ? ObjectIo::transition(io, object, request) : result;
} catch (const std::exception&) {
  return -ENOMEM;
}

int ExchangeIo::put_inline(librados::IoCtx& io, const std::string& object,
                           std::span<const std::byte> in, const TransitionRequest& publish) try {
  if (auto armed = arm(OperationKind::kWrite, in)) {
    bufferlist request =
        encoded(armed->request(0, static_cast<std::uint32_t>(in.size()), ceph_crc32c(in)));
    bufferlist head = encoded(publish);
    librados::ObjectWriteOperation operation;
    operation.create(true);
    operation.set_alloc_hint2(in.size(), in.size(), kAllocHints);
    operation.exec(exchange::kClassName, "write_part", request);
    operation.exec(exchange::kClassName, "publish", head);
    const int result = io.operate(object, &operation, librados::OPERATION_FULL_TRY);
    if (!armed->retire()) return -ETIMEDOUT;
    if (result == -EIO || !go_round(result, writes_closed_)) return result;
  }
  return ObjectIo::put_inline(io, object, in, publish);
} catch (const std::exception&) {
  return -ENOMEM;
}

}  // namespace siphon
