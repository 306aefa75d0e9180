// Whether the ceph-osd that loaded this library is the build it was compiled for.
//
// A bufferlist's layout changes between Ceph builds under one symbol version, and operated_object.h
// knows one layout of the OSD's internals. On any other build the class must touch neither.
#pragma once

#include <string>

namespace siphon::osd {

struct CephBuild {
  std::string version;  // "16.2.15"
  std::string commit;   // "618f44..."
  bool operator==(const CephBuild&) const = default;
};

// What this process's own ceph_version_to_str() and git_version_to_str() say; "unknown" where it
// has none.
CephBuild running_ceph_build();
// What this library was compiled for.
CephBuild expected_ceph_build();

}  // namespace siphon::osd
