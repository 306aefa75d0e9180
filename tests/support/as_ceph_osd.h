// Makes /proc/self/cmdline say that this process is a ceph-osd without an id: one in which the
// class does its work and starts no companion.
#pragma once

#include <cerrno>
#include <cstring>
#include <string>

namespace siphon::test {

// For as long as it lives; one at a time.
class AsCephOsd {
 public:
  AsCephOsd() : saved_(program_invocation_name) {
    std::memset(program_invocation_name, 0, saved_.size());
    std::string("ceph-osd").copy(program_invocation_name, saved_.size());
  }
  ~AsCephOsd() { saved_.copy(program_invocation_name, saved_.size()); }
  AsCephOsd(const AsCephOsd&) = delete;
  AsCephOsd& operator=(const AsCephOsd&) = delete;

 private:
  const std::string saved_;  // argv[0], which lies where the kernel finds the command line
};

}  // namespace siphon::test
