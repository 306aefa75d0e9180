// The object class "siphon": what an OSD runs of Siphon in its own process.
//
// The registration block at the end is the table of contents. Every method is entered through
// `entry`, which lets no exception out and never returns an errno that would leave the caller
// without a reply. A method takes fixed-size little-endian input (exchange.h, head_register.h),
// checks all of it first, waits for nothing, may be run again at any time, and copies at most
// exchange::kMaxCopyBytes. It runs on an op thread with its placement group locked.
//
// Flags: a WR method runs on an object that does not exist (an RD one is answered -ENOENT by the
// OSD), also when, like hello and the grants, it writes nothing. It has a price: the OSD notes
// every WR operation in the placement group's log, on all replicas, so the RD one is asked where it
// can be.
#include <array>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "plugin/core/head_register.h"
#include "plugin/exchange/exchange.h"
#include "plugin/osd/ceph_build.h"
#include "plugin/osd/ceph_layouts.h"
#include "plugin/osd/operated_object.h"
#include "plugin/osd/osd_identity.h"
#include "plugin/osd/region.h"
#include "plugin/osd/supervisor.h"
#include "plugin/osd/weak_ceph_symbols.h"
#include "rados/objclass.h"

// Exported by ceph-osd, not declared in the SDK.
extern int cls_cxx_read2(cls_method_context_t hctx, int ofs, int len, ceph::bufferlist* bl,
                         std::uint32_t op_flags);
extern int cls_cxx_write2(cls_method_context_t hctx, int ofs, int len, ceph::bufferlist* bl,
                          std::uint32_t op_flags);
extern int cls_cxx_write_full(cls_method_context_t hctx, ceph::bufferlist* bl);
extern int cls_cxx_getxattrs(cls_method_context_t hctx,
                             std::map<std::string, ceph::bufferlist>* attributes);
extern int cls_cxx_map_read_header(cls_method_context_t hctx, ceph::bufferlist* header);
extern int cls_cxx_map_get_keys(cls_method_context_t hctx, const std::string& start_after,
                                std::uint64_t max_to_get, std::set<std::string>* keys, bool* more);

// The same, but in C; where it is missing no client is told from another. It fills an
// entity_inst_t, which begins with what the OSD calls the connection: one byte of type, then, at 8,
// a number that the mons give each connection anew.
extern "C" int cls_get_request_origin(cls_method_context_t hctx, void* entity_inst)
    __attribute__((weak));

// Four symbols every class exports; CLS_VER and CLS_NAME do not set their visibility.
#pragma GCC visibility push(default)
CLS_VER(1, 0)
CLS_NAME(siphon)
#pragma GCC visibility pop

namespace siphon::osd {
namespace {

using ceph::bufferlist;
using exchange::LayoutState;
using exchange::OperationKind;
using exchange::OperationRequest;

// As in Ceph's include/rados.h, CEPH_OSD_OP_FLAG_FADVISE_*.
constexpr std::uint32_t kSequential = 0x8;
constexpr std::uint32_t kDontNeed = 0x20;
constexpr std::uint32_t kNoCache = 0x40;

// Made by __cls_init before the first method can be called, never destroyed. Null when it could
// not be made.
Region* region = nullptr;
// The layout of the Ceph that runs; null when nobody has verified one.
const CephLayout* layout = nullptr;

using Method = int (*)(cls_method_context_t, bufferlist*, bufferlist*);

template <Method method>
int entry(cls_method_context_t context, bufferlist* in, bufferlist* out) noexcept {
  try {
    const int result = method(context, in, out);
    // An OSD sends no reply to these. When they come from the store (a read that found a damaged
    // copy parks the operation until it is repaired), the caller must hear about it all the same.
    return result == -EAGAIN || result == -EINPROGRESS ? -EIO : result;
  } catch (...) {
    return -EIO;
  }
}

// Decodes the whole of `in` as a Request. False unless it has exactly the right length.
template <typename Request>
bool decode_input(const bufferlist& in, Request& request) {
  std::array<std::byte, Request::kEncodedBytes> bytes;
  if (in.length() != bytes.size()) return false;
  in.begin().copy(bytes.size(), reinterpret_cast<char*>(bytes.data()));
  return Request::decode(bytes, request);
}

void append_bytes(bufferlist& out, std::span<const std::byte> bytes) {
  out.append(reinterpret_cast<const char*>(bytes.data()), static_cast<unsigned>(bytes.size()));
}

void log_line(const char* text) { cls_log(0, "siphon: %s", text); }

// ---- discovery and authority -----------------------------------------------------------------

int hello(cls_method_context_t, bufferlist* in, bufferlist* out) {
  if (in->length() != 0) return -EINVAL;
  if (region == nullptr) return -EHOSTDOWN;
  std::array<std::byte, exchange::Hello::kEncodedBytes> bytes;
  const int result = region->read_hello(bytes);
  if (result == 0) append_bytes(*out, bytes);
  return result;
}

// "siphon.grant." + hex(id)
std::string object_name(const char* prefix, std::span<const std::byte> id) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string name = prefix;
  for (const std::byte b : id) {
    name += kDigits[std::to_integer<unsigned>(b) >> 4];
    name += kDigits[std::to_integer<unsigned>(b) & 0xf];
  }
  return name;
}

bool find_object(cls_method_context_t context, OperatedObject& object) {
  return layout != nullptr && find_operated_object(layout->operation, context, object);
}

// 0: grants may be given.
int layout_error() {
  switch (region->layout()) {
    case LayoutState::kUnproven:
      return exchange::kLayoutUnproven;
    case LayoutState::kFits:
      return 0;
    case LayoutState::kDoesNotFit:
      return exchange::kLayoutDoesNotFit;
    case LayoutState::kUnverified:
      return exchange::kLayoutUnverified;
  }
  return exchange::kLayoutUnverified;
}

// For the log; what was read by a wrong layout may be anything.
std::string text_of(const OperatedObject& object) {
  const auto shown = [](const std::string& name) {
    std::string text;
    for (const char c : name.substr(0, 64)) text += c > ' ' && c < 0x7f ? c : '?';
    return text;
  };
  return "pool " + std::to_string(object.pool_id) + ", namespace '" + shown(object.nspace) +
         "', object '" + shown(object.name) + "'";
}

// The connection that the operation came by; 0: not known.
std::uint64_t client_of(cls_method_context_t context) {
  alignas(16) std::array<std::byte, 512> entity{};  // an entity_inst_t has some 60 bytes
  if (cls_get_request_origin == nullptr) return 0;
  if (cls_get_request_origin(context, entity.data()) != 0) return 0;
  std::uint64_t number = 0;
  std::memcpy(&number, entity.data() + 8, sizeof number);
  return number;
}

int grant(cls_method_context_t context, const bufferlist& in, exchange::Right right) {
  exchange::GrantRequest request;
  if (!decode_input(in, request)) return -EINVAL;
  if (region == nullptr) return -EHOSTDOWN;
  if (const int error = layout_error()) {
    if (error == exchange::kLayoutUnproven) {
      region->want_probe(request.pool_id, request.placement_group);
    }
    return error;
  }
  OperatedObject object;
  if (!find_object(context, object) ||
      object.name != object_name("siphon.grant.", request.key_id) ||
      object.pool_id != request.pool_id ||
      object.nspace != std::string_view(request.nspace.data(), request.namespace_bytes)) {
    return -EPERM;
  }
  return region->give_grant(request, right, client_of(context), monotonic_ms());
}

int grant_read(cls_method_context_t context, bufferlist* in, bufferlist*) {
  return grant(context, *in, exchange::Right::kRead);
}

int grant_write(cls_method_context_t context, bufferlist* in, bufferlist*) {
  return grant(context, *in, exchange::Right::kWrite);
}

// The companion tries out the layout: it says what this call runs on. The first answer holds for as
// long as the OSD runs; a wrong layout that fits once by chance is no right one the next time.
int probe(cls_method_context_t context, bufferlist* in, bufferlist*) {
  exchange::ProbeRequest request;
  if (!decode_input(*in, request)) return -EINVAL;
  if (region == nullptr) return -EHOSTDOWN;
  if (!region->probe_expected(request.ticket)) return -EPERM;
  if (region->layout() != LayoutState::kUnproven) return layout_error();
  const OperatedObject said{object_name("siphon.probe.", request.name_id),
                            exchange::kProbeNamespace, request.pool_id};
  OperatedObject seen;
  const bool found = find_object(context, seen);
  const bool fits = found && seen == said;
  if (region->settle_layout(fits ? LayoutState::kFits : LayoutState::kDoesNotFit)) {
    const std::string row = std::string("layout ") + layout->name + " of ceph-osd " +
                            layout->version + " (" + layout->commit + ")";
    if (fits) {
      log_line((row + " fits").c_str());
    } else {
      cls_log(0, "siphon: %s does not fit: grants are refused. Expected %s, seen %s", row.c_str(),
              text_of(said).c_str(), found ? text_of(seen).c_str() : "nothing like an operation");
    }
  }
  return layout_error();
}

// ---- parts -----------------------------------------------------------------------------------

// The checks both have in common; 0 or a negative errno.
int begin_operation(const bufferlist& in, OperationKind kind, OperationRequest& request,
                    Operation& operation) {
  if (!decode_input(in, request)) return -EINVAL;
  if (region == nullptr) return -ENXIO;
  if (const int error = region->find(request, kind, operation)) return error;
  // The SDK's offsets are int.
  if (request.object_offset > static_cast<std::uint64_t>(INT_MAX) - request.length_bytes) {
    return -EINVAL;
  }
  return 0;
}

// Store to buffer. The store is read before the buffer is claimed: its owner can cancel meanwhile.
int read_part(cls_method_context_t context, bufferlist* in, bufferlist* out) {
  OperationRequest request;
  Operation operation;
  if (const int error = begin_operation(*in, OperationKind::kRead, request, operation)) {
    return error;
  }
  bufferlist data;
  const int result =
      cls_cxx_read2(context, static_cast<int>(request.object_offset),
                    static_cast<int>(request.length_bytes), &data, kSequential | kNoCache);
  if (result < 0) return result;
  if (data.length() > operation.length_bytes) return -EIO;

  if (!region->claim(operation)) return -ENXIO;
  std::byte* to = operation.buffer;
  for (const auto& piece : data.buffers()) {
    std::memcpy(to, piece.c_str(), piece.length());
    to += piece.length();
  }
  region->finish(operation);
  region->count_read();

  std::array<std::byte, exchange::OperationReply::kEncodedBytes> reply;
  exchange::OperationReply{data.length()}.encode(reply);
  append_bytes(*out, reply);
  return 0;
}

// Buffer to store. The bytes are copied out before they are looked at: what is checked is what is
// written, and the buffer's owner cannot change it in between.
int write_part(cls_method_context_t context, bufferlist* in, bufferlist*) {
  OperationRequest request;
  Operation operation;
  if (const int error = begin_operation(*in, OperationKind::kWrite, request, operation)) {
    return error;
  }
  ceph::bufferptr copy(ceph::buffer::create_page_aligned(operation.length_bytes));
  if (!region->claim(operation)) return -ENXIO;
  std::memcpy(copy.c_str(), operation.buffer, operation.length_bytes);
  region->finish(operation);
  if (!region->still_wanted(operation, request)) return -ENXIO;

  bufferlist data;
  data.append(std::move(copy));
  if (data.crc32c(~0u) != request.crc32c) return -EBADMSG;
  const int result = cls_cxx_write2(context, static_cast<int>(request.object_offset),
                                    static_cast<int>(request.length_bytes), &data, kDontNeed);
  if (result < 0) return result;
  region->count_write();
  return 0;
}

// ---- the head's lifecycle --------------------------------------------------------------------

// Names the operated object in the OSD's log.
void log_object(cls_method_context_t context, const char* what, int detail) {
  OperatedObject object;
  const bool known = find_object(context, object);
  cls_log(0, "siphon: %.*s of pool %lld: %s (%d)", known ? static_cast<int>(object.name.size()) : 1,
          known ? object.name.data() : "?", static_cast<long long>(known ? object.pool_id : -1),
          what, detail);
}

// What an object holds beside the register. A pool that keeps no omap answers -EOPNOTSUPP.
struct Holdings {
  bool exists = false;
  bool created_now = false;  // by this very operation, before the method
  bool data = false;
  bool attributes = false;
  bool omap = false;

  bool foreign() const { return data || attributes || omap; }
};

// 0 and `found`, or a negative errno.
int look_at_object(cls_method_context_t context, Holdings& found) {
  std::uint64_t size_bytes = 0;
  std::time_t changed_at = 0;
  const int stated = cls_cxx_stat(context, &size_bytes, &changed_at);
  if (stated == -ENOENT) return 0;
  if (stated < 0) return stated;
  found.exists = true;
  found.data = size_bytes > 0;
  // The OSD stamps an object at the end of the operation that creates it.
  found.created_now = changed_at == 0;

  std::map<std::string, bufferlist> attributes;
  const int listed = cls_cxx_getxattrs(context, &attributes);
  if (listed < 0 && listed != -ENOENT && listed != -ENODATA) return listed;
  attributes.erase(kHeadXattr);
  found.attributes = !attributes.empty();

  bufferlist header;
  const int read = cls_cxx_map_read_header(context, &header);
  if (read < 0 && read != -ENOENT && read != -EOPNOTSUPP) return read;
  std::set<std::string> keys;
  bool more = false;
  const int found_keys = cls_cxx_map_get_keys(context, {}, 1, &keys, &more);
  if (found_keys < 0 && found_keys != -ENOENT && found_keys != -EOPNOTSUPP) return found_keys;
  found.omap = header.length() > 0 || !keys.empty();
  return 0;
}

// 0 and `present`, or a negative errno. The xattr is the register: an object without it is none,
// and if it holds anything, it is somebody else's. `makes_inline`: a publish whose operation may
// have created the object, and written its data, just before.
int load_head(cls_method_context_t context, bool makes_inline, HeadRegister& head, bool& present) {
  bufferlist stored;
  const int result = cls_cxx_getxattr(context, kHeadXattr, &stored);
  present = result >= 0;
  if (result == -ENODATA || result == -ENOENT) {
    Holdings holdings;
    if (const int error = look_at_object(context, holdings)) return error;
    if (makes_inline && holdings.created_now) return 0;
    if (makes_inline && holdings.exists)
      return holdings.foreign() ? exchange::kNotSiphons : -EEXIST;
    return holdings.foreign() ? exchange::kNotSiphons : 0;
  }
  if (result < 0) return result;
  std::array<std::byte, HeadRegister::kMaxEncodedBytes> bytes;
  const std::size_t length = stored.length();
  if (length <= bytes.size()) {
    stored.begin().copy(stored.length(), reinterpret_cast<char*>(bytes.data()));
    if (decode_head(std::span(bytes).first(length), head)) return 0;
  }
  log_object(context, "the head register does not decode; its bytes", static_cast<int>(length));
  return -EUCLEAN;
}

int store_head(cls_method_context_t context, const HeadRegister& head) {
  std::array<std::byte, HeadRegister::kMaxEncodedBytes> bytes;
  const std::size_t length = encode_head(head, bytes);
  if (length == 0) return -EIO;
  bufferlist encoded;
  append_bytes(encoded, std::span(bytes).first(length));
  return cls_cxx_setxattr(context, kHeadXattr, &encoded);
}

// What is left to do when a forgotten id was the last one, or its bytes were the head's own data.
// `removed` tells that there is no head to store any more: what somebody else has put there keeps
// its object, under an empty register.
int drop_leftovers(cls_method_context_t context, const HeadRegister& head, bool was_inline,
                   bool& removed) {
  removed = false;
  if (head.blank()) {
    Holdings holdings;
    if (const int error = look_at_object(context, holdings)) return error;
    const bool ours_alone =
        !holdings.attributes && !holdings.omap && (was_inline || !holdings.data);
    if (ours_alone) {
      const int result = cls_cxx_remove(context);
      removed = result == 0;
      return result;
    }
  }
  bufferlist nothing;
  return was_inline ? cls_cxx_write_full(context, &nothing) : 0;  // truncate fails on EC pools
}

// One transition per compound operation: a second one would not see the first one's register.
template <Transition kind>
int transition(cls_method_context_t context, bufferlist* in, bufferlist*) {
  TransitionRequest request;
  if (!decode_input(*in, request) || request.kind != kind) return -EINVAL;
  HeadRegister head;
  bool present = false;
  const bool makes_inline = kind == Transition::kPublish && request.is_inline;
  if (const int error = load_head(context, makes_inline, head, present)) return error;

  bool was_inline = false;
  for (const TrashEntry& entry : head.trash) {
    if (entry.id == request.id) was_inline = entry.is_inline;
  }
  const HeadRegister before = head;
  // A compound operation that creates the head and publishes inline has created it by now, so the
  // object's existence says nothing; its register does.
  if (const int error = apply(head, present, request)) return error;
  if (head == before) return 0;
  bool removed = false;
  if (kind == Transition::kForget) {
    if (const int error = drop_leftovers(context, head, was_inline, removed)) return error;
  }
  return removed ? 0 : store_head(context, head);
}

// ---- load ------------------------------------------------------------------------------------

void add_method(cls_handle_t handle, const char* name, int flags, cls_method_cxx_call_t call) {
  cls_method_handle_t method = nullptr;
  cls_register_cxx_method(handle, name, flags, call, &method);
  if (method == nullptr) cls_log(0, "siphon: method %s could not be registered", name);
}

void register_methods(cls_handle_t handle) {
  constexpr int kRead = CLS_METHOD_RD;
  constexpr int kWrite = CLS_METHOD_WR;
  add_method(handle, "hello", kWrite, entry<hello>);
  add_method(handle, "hello_head", kRead, entry<hello>);
  add_method(handle, "grant_read", kWrite, entry<grant_read>);
  add_method(handle, "grant_write", kWrite, entry<grant_write>);
  add_method(handle, "probe", kWrite, entry<probe>);
  add_method(handle, "read_part", kRead, entry<read_part>);
  add_method(handle, "write_part", kWrite, entry<write_part>);
  add_method(handle, "reserve", kRead | kWrite, entry<transition<Transition::kReserve>>);
  add_method(handle, "publish", kRead | kWrite, entry<transition<Transition::kPublish>>);
  add_method(handle, "condemn", kRead | kWrite, entry<transition<Transition::kCondemn>>);
  add_method(handle, "forget", kRead | kWrite, entry<transition<Transition::kForget>>);
  add_method(handle, "seal", kRead | kWrite, entry<transition<Transition::kSeal>>);
  add_method(handle, "restore", kRead | kWrite, entry<transition<Transition::kRestore>>);
  add_method(handle, "discard", kRead | kWrite, entry<transition<Transition::kDiscard>>);
}

// Only a serving ceph-osd gets a companion.
void start_companion(const OsdIdentity& identity) {
  if (!identity.is_osd) {
    log_line("this ceph-osd has no id: no companion is started");
    return;
  }
  const std::string program = companion_program();
  if (program.empty()) {
    log_line("the folder of this library is unknown: no companion is started");
    return;
  }
  auto* supervisor = new Supervisor(*region, program, companion_arguments(identity), log_line);
  if (!start_supervisor(supervisor)) log_line("no thread for the companion's supervisor");
}

// Whether this is the build that the library was compiled for. Says so, and whether there is a
// verified layout for it.
bool look_at_build() {
  const CephBuild expected = expected_ceph_build();
  const CephBuild running = running_ceph_build();
  std::string text = "compiled for Ceph " + expected.version + " (" + expected.commit +
                     "), running in " + running.version + " (" + running.commit + ")";
  if (running != expected) {
    log_line((text + ": no methods here, siphond goes through librados").c_str());
    return false;
  }
  log_line(text.c_str());
  layout = find_layout(running.version, running.commit);
  if (layout == nullptr) {
    text = "layout of ceph-osd " + running.version + " (" + running.commit +
           ") is not verified: grants are refused";
    log_line(text.c_str());
  }
  return true;
}

void load() {
  const OsdIdentity identity = parse_osd_identity(own_command_line(), std::getenv("CEPH_ARGS"));
  if (!identity.in_ceph_osd) {
    log_line("not in a ceph-osd: nothing is done here");
    return;
  }
  cls_handle_t handle = nullptr;
  cls_register(exchange::kClassName, &handle);
  if (handle == nullptr) {
    // The OSD gives no handle to a library whose file is not named after the class: a copy under
    // another name. It must not start a second companion, either.
    log_line(
        "class siphon is not to be registered now: is this a second copy of "
        "libcls_siphon.so under another name? Nothing of it is used; remove it");
    return;
  }
  const bool expected_build = look_at_build();
  const bool first_load = region == nullptr;  // an OSD may close the library, which stays, and
  if (first_load) {                           // open it again
    std::string error;
    region = Region::create(data_bytes_from(std::getenv("SIPHON_REGION_MIB")), error).release();
    if (region == nullptr) log_line(("no shared region: " + error).c_str());
  }
  if (expected_build) register_methods(handle);
  if (region == nullptr) return;
  region->set_bulk_methods(expected_build);
  if (layout == nullptr) region->settle_layout(LayoutState::kUnverified);
  if (first_load) start_companion(identity);
}

}  // namespace
}  // namespace siphon::osd

// Called by dlopen's caller, with the OSD's class lock held. The OSD opens no further class
// when one fails to load, so this does not.
CLS_INIT(siphon) {
  try {
    siphon::osd::load();
  } catch (...) {
    cls_log(0, "siphon: out of memory while loading");
  }
}
