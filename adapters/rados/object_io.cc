#include "adapters/rados/object_io.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <exception>
#include <map>
#include <set>
#include <utility>

#include "adapters/rados/aio_window.h"

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

std::string Holdings::to_string() const {
  std::string text;
  for (const auto& [there, what] :
       {std::pair{data, "data"}, {attributes, "attributes"}, {omap, "omap entries"}}) {
    if (there) text += (text.empty() ? "" : " and ") + std::string(what);
  }
  return text.empty() ? "nothing" : text;
}

int look_at_object(const librados::IoCtx& io, const std::string& object, Holdings& found) try {
  librados::IoCtx own;  // the last version is the context's
  own.dup(io);
  std::uint64_t size_bytes = 0;
  std::map<std::string, bufferlist> attributes;
  librados::ObjectReadOperation look;
  look.stat2(&size_bytes, nullptr, nullptr);
  look.getxattrs(&attributes, nullptr);
  const int looked = own.operate(object, &look, nullptr);
  if (looked == -ENOENT) return 0;
  if (looked < 0) return looked;
  found.exists = true;
  found.version = own.get_last_version();
  found.data = size_bytes > 0;
  attributes.erase(kHeadXattr);
  found.attributes = !attributes.empty();

  bufferlist header;
  std::set<std::string> keys;
  bool more = false;
  librados::ObjectReadOperation omap;
  omap.omap_get_header(&header, nullptr);
  omap.omap_get_keys2({}, 1, &keys, &more, nullptr);
  const int listed = own.operate(object, &omap, nullptr);
  if (listed < 0 && listed != -ENOENT && listed != -EOPNOTSUPP) return listed;  // EC: has no omap
  found.omap = header.length() > 0 || !keys.empty();
  return 0;
} catch (const std::exception&) {
  return -ENOMEM;
}

void decode_stored(int result, bufferlist&& stored, HeadRead& read) {
  read.head = {};
  read.result = 0;
  if (result == -ENOENT) return;
  if (result == -ENODATA) {
    Holdings holdings;
    read.result = look_at_object(read.io, read.object, holdings);
    if (read.result == 0 && holdings.foreign()) read.result = exchange::kNotSiphons;
    read.head.empty_object = holdings.exists && !holdings.foreign();
    return;
  }
  read.result = result;
  if (result < 0) return;
  StoredHead& head = read.head;
  head.stored = std::move(stored);
  const auto bytes =
      std::as_bytes(std::span<const char>(head.stored.c_str(), head.stored.length()));
  head.present = decode_head(bytes, head.reg);
  if (!head.present) read.result = -EUCLEAN;
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
                    std::span<const std::byte> in, std::uint64_t expected_bytes,
                    const std::stop_token&) try {
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

void ObjectIo::read_heads(std::span<HeadRead> reads) try {
  for (; !reads.empty(); reads = reads.subspan(std::min(reads.size(), kAioWindow))) {
    const std::size_t count = std::min(reads.size(), kAioWindow);
    std::array<bufferlist, kAioWindow> stored, data;
    std::array<int, kAioWindow> results{};
    run_window(count, results, [&](std::size_t i, librados::AioCompletion* completion) {
      HeadRead& read = reads[i];
      librados::ObjectReadOperation operation;
      operation.getxattr(kHeadXattr, &stored[i], nullptr);
      if (!read.prefetch.empty()) operation.read(0, read.prefetch.size(), &data[i], nullptr);
      return read.io.aio_operate(read.object, completion, &operation, nullptr);
    });
    for (std::size_t i = 0; i < count; ++i) {
      HeadRead& read = reads[i];
      read.got = 0;
      decode_stored(results[i], std::move(stored[i]), read);
      if (read.result < 0 || !read.head.present || data[i].length() > read.prefetch.size()) {
        continue;
      }
      data[i].begin().copy(data[i].length(), reinterpret_cast<char*>(read.prefetch.data()));
      read.got = data[i].length();
    }
  }
} catch (const std::exception&) {
  for (HeadRead& one : reads) one.result = -ENOMEM;  // those not done yet
}

// Read, decide, write back guarded by a compare of the old bytes: what the class method does under
// the placement group's lock. The compare is of whole byte strings (cmpxattr, EQ, string mode).
int ObjectIo::transition(librados::IoCtx& io, const std::string& object,
                         const TransitionRequest& request) try {
  for (int round = 0; round < kMaxGuardRounds; ++round) {
    HeadRead read{io, object};
    ObjectIo::read_heads({&read, 1});
    if (read.result < 0) return read.result;
    const StoredHead& head = read.head;
    HeadRegister next = head.reg;
    if (const int error = apply(next, head.present, request)) return error;
    if (next == head.reg) return 0;

    // The last one's object goes with it, unless somebody else has put something there.
    Holdings holdings;
    const bool was_inline =
        request.kind == Transition::kForget && is_inline_trash(head.reg, request.id);
    if (next.blank() || head.empty_object) {
      if (const int error = look_at_object(io, object, holdings)) return error;
    }
    const bool ours_alone =
        !holdings.attributes && !holdings.omap && (was_inline || !holdings.data);
    librados::ObjectWriteOperation operation;
    if (holdings.exists) operation.assert_version(holdings.version);
    if (head.present) {
      operation.cmpxattr(kHeadXattr, LIBRADOS_CMPXATTR_OP_EQ, head.stored);
    } else if (!head.empty_object) {
      operation.create(true);
    } else if (holdings.foreign() || !holdings.exists) {
      continue;
    }
    if (next.blank() && ours_alone) {
      operation.remove();
    } else {
      bufferlist encoded;
      if (const int error = encode(next, encoded)) return error;
      operation.setxattr(kHeadXattr, encoded);
      if (was_inline) operation.write_full(bufferlist());  // its bytes were the head's own data
    }
    const int result = io.operate(object, &operation, librados::OPERATION_FULL_TRY);
    // Changed, removed or created since it was read: look again.
    if (result != -ECANCELED && result != -ENOENT && result != -EEXIST && result != -ERANGE &&
        result != -EOVERFLOW) {
      return result;
    }
  }
  return -EBUSY;
} catch (const std::exception&) {
  return -ENOMEM;
}

void ObjectIo::put_heads(std::span<HeadPut> puts) try {
  for (; !puts.empty(); puts = puts.subspan(std::min(puts.size(), kAioWindow))) {
    const std::size_t count = std::min(puts.size(), kAioWindow);
    std::array<int, kAioWindow> results{};
    run_window(count, results, [&](std::size_t i, librados::AioCompletion* completion) {
      HeadPut& put = puts[i];
      HeadRegister reg;
      bufferlist encoded;
      if (const int error = apply(reg, false, put.publish)) return error;
      if (const int error = encode(reg, encoded)) return error;
      librados::ObjectWriteOperation operation;
      operation.create(true);
      operation.set_alloc_hint2(put.bytes.size(), put.bytes.size(), kAllocHints);
      operation.write_full(copy_of(put.bytes));
      operation.set_op_flags2(librados::OP_FADVISE_DONTNEED);
      operation.setxattr(kHeadXattr, encoded);
      return put.io.aio_operate(put.object, completion, &operation, librados::OPERATION_FULL_TRY);
    });
    for (std::size_t i = 0; i < count; ++i) puts[i].result = results[i];
  }
} catch (const std::exception&) {
  for (HeadPut& one : puts) one.result = -ENOMEM;  // those not done yet
}

}  // namespace siphon
