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
bool refuses = false;
}  // namespace

extern "C" {
// What the next library to be loaded sees and reports to.
void stub_prepare(const char* new_version, const char* new_commit,
                  std::vector<std::string>* new_registered) {
  version = new_version;
  commit = new_commit;
  registered = new_registered;
  refuses = false;
}
// As ceph-osd does with a library whose file is not named after its class: no handle.
void stub_refuse_class() { refuses = true; }
int cls_log(int, const char*, ...) { return 0; }
int cls_register(const char* name, void** handle) {
  registered->push_back(name);
  *handle = refuses ? nullptr : registered;
  return refuses ? 0 : 1;  // as the OSD's own
}
}

const char* ceph_version_to_str() { return version; }
const char* git_version_to_str() { return commit; }

// ceph-osd dereferences the handle, and so does this.
int cls_register_cxx_method(void* handle, const char* name, int flags,
                            int (*)(void*, ceph::buffer::list*, ceph::buffer::list*),
                            void** method) {
  static_cast<std::vector<std::string>*>(handle)->push_back(std::string(name) + " " +
                                                            std::to_string(flags));
  *method = handle;
  return 1;
}
