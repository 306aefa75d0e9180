#include "adapters/rados/cluster_questions.h"

#include <array>
#include <cerrno>

#include "adapters/rados/rados_internal.h"
#include "plugin/exchange/exchange.h"

namespace siphon {
namespace {

using rados_internal::open_pool;
using rados_internal::to_error;
using rados_internal::with_locator;

Result<std::string> answer(int result, librados::bufferlist& out, const std::string& status,
                           const std::string& whom) {
  if (result < 0) {
    Error error = to_error(result, "ask " + whom);
    if (!status.empty()) error.message += " (" + status + ")";
    return fail(std::move(error));
  }
  return std::string(out.c_str(), out.length());
}

constexpr int kPastTiers = librados::OPERATION_FULL_TRY | librados::OPERATION_IGNORE_CACHE |
                           librados::OPERATION_IGNORE_OVERLAY;

// Without an effect whatever it answers: see the callers.
int call(librados::IoCtx& io, const std::string& object, const char* method,
         const librados::bufferlist& input) {
  librados::ObjectReadOperation operation;
  librados::bufferlist in(input), out;
  operation.exec(exchange::kClassName, method, in);
  return io.operate(object, &operation, &out, kPastTiers);
}

// A name that no object has.
std::string nobody() {
  std::array<std::byte, 16> id;
  fill_random(id);
  return "siphon.doctor." + to_hex(id);
}

bool denied(int result) { return result == -EPERM || result == -EACCES; }

}  // namespace

Result<std::string> ask_mons(RadosCluster& cluster, const std::string& command) {
  librados::bufferlist out;
  std::string status;
  const int result = cluster.impl().rados.mon_command(command, {}, &out, &status);
  return answer(result, out, status, "the mons");
}

Result<std::string> ask_mgr(RadosCluster& cluster, const std::string& command) {
  librados::bufferlist out;
  std::string status;
  const int result = cluster.impl().rados.mgr_command(command, {}, &out, &status);
  return answer(result, out, status, "the mgr");
}

Result<std::string> ask_osd(RadosCluster& cluster, int osd, const std::string& command) {
  librados::bufferlist out;
  std::string status;
  const int result = cluster.impl().rados.osd_command(osd, command, {}, &out, &status);
  return answer(result, out, status, "osd." + std::to_string(osd));
}

// The OSD looks for the class first (EPERM: it may not load it), then for the method (EOPNOTSUPP),
// then at the caps (EPERM), then for the object (ENOENT, as the method only reads).
Result<LoadedClass> loaded_class(RadosCluster& cluster, const Location& location,
                                 std::string_view locator) {
  auto pool = open_pool(cluster, location);
  if (!pool) return fail(std::move(pool).error());
  librados::IoCtx io = with_locator(*pool, locator);
  const std::string object = nobody();
  const int result = call(io, object, "hello_head", {});
  if (result == -ENOENT || result >= 0) return LoadedClass::kMethods;
  if (result == -EOPNOTSUPP) return LoadedClass::kNoMethods;
  if (!denied(result)) return fail(to_error(result, "ask for the class siphon"));
  const int other = call(io, object, "no_such_method", {});
  if (other == -EOPNOTSUPP) return LoadedClass::kMethods;  // so it was the caps
  if (denied(other)) return LoadedClass::kAbsent;
  return fail(to_error(other, "ask for the class siphon"));
}

Result<bool> may(RadosCluster& cluster, const Location& location, std::string_view locator,
                 Act act) {
  auto pool = open_pool(cluster, location);
  if (!pool) return fail(std::move(pool).error());
  librados::IoCtx io = with_locator(*pool, locator);
  const std::string object = nobody();
  librados::bufferlist no_input;  // that any method takes: each wants more, or less
  no_input.append("?");
  int result = 0;
  switch (act) {
    case Act::kRead: {
      librados::ObjectReadOperation operation;
      librados::bufferlist out;
      operation.stat(nullptr, nullptr, nullptr);
      result = io.operate(object, &operation, &out, kPastTiers);
      break;
    }
    case Act::kWrite: {
      // Two conditions that exclude each other: no object there, and one there.
      librados::ObjectWriteOperation operation;
      operation.assert_exists();
      operation.create(true);
      result = io.operate(object, &operation, kPastTiers);
      break;
    }
    case Act::kHello:
      result = call(io, object, "hello", no_input);
      break;
    case Act::kGrantRead:
      result = call(io, object, "grant_read", no_input);
      break;
    case Act::kGrantWrite:
      result = call(io, object, "grant_write", no_input);
      break;
  }
  if (denied(result)) return false;
  // Refused for another reason than the rights: it got that far.
  const bool got_there = result >= 0 || result == -ENOENT || result == -EEXIST ||
                         result == -EINVAL || result == -EHOSTDOWN || result == -EROFS ||
                         result == -ENOSPC || result == -EDQUOT;
  if (got_there) return true;
  return fail(to_error(result, "try what this key may do in pool " + location.pool));
}

}  // namespace siphon
