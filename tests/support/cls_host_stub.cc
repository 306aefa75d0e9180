// As much of ceph-osd as libcls_siphon.so needs to be loaded by a unit test: it records what is
// registered. No bufferlist in it: methods cannot be called here.
#include <string>
#include <vector>

namespace ceph::buffer {
inline namespace v15_2_0 {
class list;
}
}  // namespace ceph::buffer

namespace {
const char* version = "";
const char* commit = "";
std::vector<std::string>* registered = nullptr;
}  // namespace

extern "C" {
// What the next library to be loaded sees and reports to.
void stub_prepare(const char* new_version, const char* new_commit,
                  std::vector<std::string>* new_registered) {
  version = new_version;
  commit = new_commit;
  registered = new_registered;
}
int cls_log(int, const char*, ...) { return 0; }
int cls_register(const char* name, void** handle) {
  registered->push_back(name);
  *handle = registered;
  return 0;
}
}

const char* ceph_version_to_str() { return version; }
const char* git_version_to_str() { return commit; }

int cls_register_cxx_method(void*, const char* name, int flags,
                            int (*)(void*, ceph::buffer::list*, ceph::buffer::list*), void**) {
  registered->push_back(std::string(name) + " " + std::to_string(flags));
  return 0;
}
