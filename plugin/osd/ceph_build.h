// Whether the ceph-osd that loaded this library is the build it was compiled for.
//
// A bufferlist's layout changes between Ceph builds under one symbol version, and operated_object.h
// knows one layout of the OSD's internals. On any other build the class must touch neither.
#pragma once

#include <string>

namespace siphon::osd {

// True when this process's own ceph_version_to_str() and git_version_to_str() say what this library
// was compiled for. `explanation` names both, for the log.
bool is_expected_ceph_build(std::string& explanation);

}  // namespace siphon::osd
