// SIPHON_CEPH_VERSION and SIPHON_CEPH_COMMIT come from CMake: what `ceph-osd --version` said when
// the build was configured.
#include "plugin/osd/ceph_build.h"

#include <dlfcn.h>

namespace siphon::osd {
namespace {

// Both are C++ functions of ceph-osd without arguments, hence the mangled names. By dlsym, not by
// linking: an OSD without them must still be able to load this library.
constexpr const char* kVersionSymbol = "_Z19ceph_version_to_strv";
constexpr const char* kCommitSymbol = "_Z18git_version_to_strv";

std::string ask_process(const char* symbol) {
  using Function = const char* (*)();
  auto function = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, symbol));
  const char* answer = function != nullptr ? function() : nullptr;
  return answer != nullptr ? answer : "unknown";
}

}  // namespace

CephBuild running_ceph_build() { return {ask_process(kVersionSymbol), ask_process(kCommitSymbol)}; }

CephBuild expected_ceph_build() { return {SIPHON_CEPH_VERSION, SIPHON_CEPH_COMMIT}; }

}  // namespace siphon::osd
