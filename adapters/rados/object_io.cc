#include "adapters/rados/object_io.h"

#include <array>
#include <cerrno>
#include <utility>

namespace siphon {
namespace {

using librados::bufferlist;

// Somebody else's change per round; each of them made progress.
constexpr int kMaxGuardRounds = 32;

// A copy, on purpose: an operation that timed out is cancelled, but the messenger may still hold
// its bytes when the caller uses the buffer for something else.
bufferlist copy_of(std::span<const std::byte> bytes) {
  bufferlist list;
  list.append(reinterpret_cast<const char*>(bytes.data()), static_cast<unsigned>(bytes.size()));
  return list;
}

// 0 and `out`, or -EUSERS when a list is over its limit.
int encode(const HeadRegister& reg, bufferlist& out) {
  std::array<std::byte, HeadRegister::kMaxEncodedBytes> bytes;
  const std::size_t length = encode_head(reg, bytes);
  if (length == 0) return -EUSERS;
  out = copy_of(std::span(bytes).first(length));
  return 0;
}

bool is_inline_trash(const HeadRegister& reg, const PrivateId& id) {
  for (const TrashEntry& entry : reg.trash) {
    if (entry.id == id) return entry.is_inline;
  }
  return false;
}

}  // namespace

int decode_stored(int result, bufferlist&& stored, StoredHead& head) {
  head = {};
  if (result == -ENOENT || result == -ENODATA) return 0;
  if (result < 0) return result;
  head.stored = std::move(stored);
  const auto bytes =
      std::as_bytes(std::span<const char>(head.stored.c_str(), head.stored.length()));
  if (!decode_head(bytes, head.reg)) return -EUCLEAN;
  head.present = true;
  return 0;
}

// Not straight into `out`: librados lands data in a buffer of the caller's only for operations
// without a timeout, and ours all have one.
int ObjectIo::read(librados::IoCtx& io, const std::string& object, std::uint64_t offset_bytes,
                   std::span<std::byte> out, std::size_t& got) try {
  got = 0;
  librados::ObjectReadOperation operation;
  operation.read(offset_bytes, out.size(), nullptr, nullptr);
  operation.set_op_flags2(librados::OP_FADVISE_SEQUENTIAL | librados::OP_FADVISE_NOCACHE);
  bufferlist data;
  const int result = io.operate(object, &operation, &data);
  if (result < 0) return result;
  if (data.length() > out.size()) return -EIO;
  data.begin().copy(data.length(), reinterpret_cast<char*>(out.data()));
  got = data.length();
  return 0;
} catch (const std::exception&) {
  return -ENOMEM;
}

int ObjectIo::write(librados::IoCtx& io, const std::string& object, std::uint64_t offset_bytes,
                    std::span<const std::byte> in, std::uint64_t expected_bytes) try {
  const bufferlist data = copy_of(in);
  librados::ObjectWriteOperation operation;
  operation.set_alloc_hint2(expected_bytes, in.size(), kAllocHints);
  if (whole_objects_ && offset_bytes == 0) {
    operation.write_full(data);
  } else {
    operation.write(offset_bytes, data);
  }
  operation.set_op_flags2(librados::OP_FADVISE_DONTNEED);
  return io.operate(object, &operation, librados::OPERATION_FULL_TRY);
} catch (const std::exception&) {
  return -ENOMEM;
}

int ObjectIo::read_head(librados::IoCtx& io, const std::string& object, StoredHead& head,
                        std::span<std::byte> prefetch, std::size_t& got) try {
  got = 0;
  bufferlist stored, data;
  librados::ObjectReadOperation operation;
  operation.getxattr(kHeadXattr, &stored, nullptr);
  if (!prefetch.empty()) operation.read(0, prefetch.size(), &data, nullptr);
  const int result = io.operate(object, &operation, nullptr);
  if (const int error = decode_stored(result, std::move(stored), head)) return error;
  if (!head.present || data.length() > prefetch.size()) return 0;
  data.begin().copy(data.length(), reinterpret_cast<char*>(prefetch.data()));
  got = data.length();
  return 0;
} catch (const std::exception&) {
  return -ENOMEM;
}

// Read, decide, write back guarded by a compare of the old bytes: what the class method does under
// the placement group's lock. The compare is of whole byte strings (cmpxattr, EQ, string mode).
int ObjectIo::transition(librados::IoCtx& io, const std::string& object,
                         const TransitionRequest& request) try {
  for (int round = 0; round < kMaxGuardRounds; ++round) {
    StoredHead head;
    std::size_t ignored = 0;
    if (const int error = ObjectIo::read_head(io, object, head, {}, ignored)) return error;
    HeadRegister next = head.reg;
    if (const int error = apply(next, head.present, request)) return error;
    if (next == head.reg) return 0;

    librados::ObjectWriteOperation operation;
    if (head.present) {
      operation.cmpxattr(kHeadXattr, LIBRADOS_CMPXATTR_OP_EQ, head.stored);
    } else {
      operation.create(true);
    }
    if (next.blank()) {
      operation.remove();
    } else {
      bufferlist encoded;
      if (const int error = encode(next, encoded)) return error;
      operation.setxattr(kHeadXattr, encoded);
      if (request.kind == Transition::kForget && is_inline_trash(head.reg, request.id)) {
        operation.write_full(bufferlist());  // its bytes were the head's own data
      }
    }
    const int result = io.operate(object, &operation, librados::OPERATION_FULL_TRY);
    // Changed, removed or created since it was read: look again.
    if (result != -ECANCELED && result != -ENOENT && result != -EEXIST) return result;
  }
  return -EBUSY;
} catch (const std::exception&) {
  return -ENOMEM;
}

int ObjectIo::put_inline(librados::IoCtx& io, const std::string& object,
                         std::span<const std::byte> in, const TransitionRequest& publish) try {
  HeadRegister reg;
  bufferlist encoded;
  if (const int error = apply(reg, false, publish)) return error;
  if (const int error = encode(reg, encoded)) return error;
  librados::ObjectWriteOperation operation;
  operation.create(true);
  operation.set_alloc_hint2(in.size(), in.size(), kAllocHints);
  operation.write_full(copy_of(in));
  operation.set_op_flags2(librados::OP_FADVISE_DONTNEED);
  operation.setxattr(kHeadXattr, encoded);
  return io.operate(object, &operation, librados::OPERATION_FULL_TRY);
} catch (const std::exception&) {
  return -ENOMEM;
}

}  // namespace siphon
