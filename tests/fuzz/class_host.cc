#include "tests/fuzz/class_host.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "tests/fuzz/fuzz.h"
#include "tests/support/as_ceph_osd.h"

using ceph::bufferlist;
using siphon::fuzz::ClassHost;

extern "C" void __cls_init();

namespace siphon::fuzz {

ClassHost& ClassHost::get() {
  static ClassHost* host = nullptr;
  if (host == nullptr) {
    host = new ClassHost;
    const test::AsCephOsd as_ceph_osd;
    __cls_init();
  }
  return *host;
}

int ClassHost::next_failure() { return calls_++ == fail_at ? fail_with : 0; }

int ClassHost::call(const std::string& method, const std::string& input, std::string& output) {
  const StoredObject before = object;
  test::FakeOperation operation{};
  operation.op = operation.ops = &operation;
  operation.obs = &name;
  operation.new_obs = name;
  test::FakeOperation* context = &operation;
  bufferlist in, out;
  in.append(input);
  calls_ = 0;
  const auto& [flags, function] = methods_.at(method);
  const int result = function(&context, &in, &out);
  object.created_now = false;
  if (result < 0) object = before;
  // Without the write flag nothing may be written.
  if ((flags & CLS_METHOD_WR) == 0) HOLDS(object == before);
  output = out.to_str();
  return result;
}

}  // namespace siphon::fuzz

// ---- what a class method calls in its ceph-osd -----------------------------------------------

namespace {

// The object, unless this call of the store fails; then `error`.
siphon::fuzz::StoredObject* stored(int& error) {
  ClassHost& host = ClassHost::get();
  error = host.next_failure();
  return error < 0 ? nullptr : &host.object;
}

}  // namespace

extern "C" {

int cls_log(int, const char*, ...) { return 0; }

int cls_register(const char*, cls_handle_t* handle) {
  static int any;
  *handle = &any;
  return 1;
}

int cls_get_request_origin(cls_method_context_t, void* entity_inst) {
  const std::uint64_t number = ClassHost::get().client;
  std::memcpy(static_cast<char*>(entity_inst) + 8, &number, sizeof number);
  return 0;
}

}  // extern "C"

int cls_register_cxx_method(cls_handle_t, const char* name, int flags, cls_method_cxx_call_t call,
                            cls_method_handle_t* method) {
  static int any;
  *method = &any;
  ClassHost::get().methods_.emplace(name, ClassHost::Method{flags, call});
  return 1;
}

int cls_cxx_stat(cls_method_context_t, std::uint64_t* size, std::time_t* changed_at) {
  int error = 0;
  const auto* object = stored(error);
  if (object == nullptr) return error;
  if (!object->exists) return -ENOENT;
  *size = object->data.size();
  *changed_at = object->created_now ? 0 : 1'700'000'000;
  return 0;
}

int cls_cxx_read2(cls_method_context_t, int offset, int length, bufferlist* out, std::uint32_t) {
  HOLDS(offset >= 0 && length > 0);
  int error = 0;
  const auto* object = stored(error);
  if (object == nullptr) return error;
  if (!object->exists) return -ENOENT;
  const auto from = std::min(static_cast<std::size_t>(offset), object->data.size());
  const std::string piece = object->data.substr(from, static_cast<std::size_t>(length));
  out->append(piece);
  return static_cast<int>(piece.size());
}

int cls_cxx_write2(cls_method_context_t, int offset, int length, bufferlist* in, std::uint32_t) {
  HOLDS(offset >= 0 && length > 0 && in->length() == static_cast<unsigned>(length));
  int error = 0;
  auto* object = stored(error);
  if (object == nullptr) return error;
  if (offset > (1 << 20)) return -EFBIG;  // the OSD's own limit, a small one
  const auto end = static_cast<std::size_t>(offset) + static_cast<std::size_t>(length);
  object->exists = true;
  if (object->data.size() < end) object->data.resize(end);
  in->begin().copy(in->length(), object->data.data() + offset);
  return 0;
}

int cls_cxx_write_full(cls_method_context_t, bufferlist* in) {
  int error = 0;
  auto* object = stored(error);
  if (object == nullptr) return error;
  object->exists = true;
  object->data = in->to_str();
  return 0;
}

int cls_cxx_remove(cls_method_context_t) {
  int error = 0;
  auto* object = stored(error);
  if (object == nullptr) return error;
  if (!object->exists) return -ENOENT;
  *object = {};
  return 0;
}

int cls_cxx_getxattr(cls_method_context_t, const char* name, bufferlist* out) {
  int error = 0;
  const auto* object = stored(error);
  if (object == nullptr) return error;
  if (!object->exists) return -ENOENT;
  const auto found = object->attributes.find(name);
  if (found == object->attributes.end()) return -ENODATA;
  out->append(found->second);
  return static_cast<int>(found->second.size());
}

int cls_cxx_getxattrs(cls_method_context_t, std::map<std::string, bufferlist>* attributes) {
  int error = 0;
  const auto* object = stored(error);
  if (object == nullptr) return error;
  if (!object->exists) return -ENOENT;
  for (const auto& [name, value] : object->attributes) (*attributes)[name].append(value);
  return 0;
}

int cls_cxx_setxattr(cls_method_context_t, const char* name, bufferlist* in) {
  int error = 0;
  auto* object = stored(error);
  if (object == nullptr) return error;
  object->exists = true;
  object->attributes[name] = in->to_str();
  return 0;
}

int cls_cxx_map_read_header(cls_method_context_t, bufferlist*) {
  int error = 0;
  return stored(error) == nullptr ? error : 0;
}

int cls_cxx_map_get_keys(cls_method_context_t, const std::string&, std::uint64_t,
                         std::set<std::string>* keys, bool* more) {
  int error = 0;
  const auto* object = stored(error);
  if (object == nullptr) return error;
  for (const auto& [key, value] : object->omap) keys->insert(key);
  *more = false;
  return 0;
}
