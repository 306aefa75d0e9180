// One object in the place of a ceph-osd's: what libcls_siphon's methods read and write, with an
// operation that fails when it is told to. Thread: the target's only one.
#pragma once

#include <rados/objclass.h>

#include <cstdint>
#include <map>
#include <string>

#include "tests/support/fake_operation.h"

namespace siphon::fuzz {

struct StoredObject {
  bool exists = false;
  bool created_now = false;  // by the operation that is under way
  std::string data;
  std::map<std::string, std::string> attributes;
  std::map<std::string, std::string> omap;

  bool operator==(const StoredObject&) const = default;
};

class ClassHost {
 public:
  // Loads the class, once in a process.
  static ClassHost& get();

  // Runs a method on `object` as an OSD does: what it wrote counts only when it succeeds.
  // Its answer, which is 0 or a negative errno; `output` is what it returned beside.
  int call(const std::string& method, const std::string& input, std::string& output);
  bool has(const std::string& method) const { return methods_.contains(method); }

  StoredObject object;
  test::FakeObject name;     // what the OSD says that the object is
  std::uint64_t client = 0;  // and who asks
  int fail_at = -1;          // the store's call, counted from 0, that fails ...
  int fail_with = 0;         // ... with this errno (negative)

  // For the store's calls and the registration.
  int next_failure();
  struct Method {
    int flags;
    cls_method_cxx_call_t call;
  };
  std::map<std::string, Method> methods_;

 private:
  ClassHost() = default;
  int calls_ = 0;
};

}  // namespace siphon::fuzz
