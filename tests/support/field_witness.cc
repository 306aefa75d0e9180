// Preloaded into siphond and siphon by a test: writes down which fields of their messages they set.
// They are the ones that ship, linked with the shared libprotobuf, whose ways to serialize a whole
// message are taken over here: what a process sends passes one of them.
//
//   SIPHON_TEST_FIELDS   a file, appended to: "has NAME" for each field of the contract, "set NAME"
//                        for each that has been sent with another value than its default; each
//                        process says each of them once
#include <dlfcn.h>
#include <fcntl.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace pb = google::protobuf;

namespace {

constexpr char kPackage[] = "siphon.v1";

class Witness {
 public:
  void saw(const pb::MessageLite& lite) {
    const auto* message = dynamic_cast<const pb::Message*>(&lite);
    if (message == nullptr || message->GetDescriptor()->file()->package() != kPackage) return;
    const std::lock_guard lock(mutex_);
    std::string lines;
    if (set_.empty()) say_all(*message->GetDescriptor()->file(), lines);
    look_at(*message, lines);
    write_down(lines);
  }

 private:
  static void say_all(const pb::FileDescriptor& file, std::string& lines) {
    for (int m = 0; m < file.message_type_count(); ++m) {
      const pb::Descriptor& type = *file.message_type(m);
      for (int f = 0; f < type.field_count(); ++f)
        lines += "has " + type.field(f)->full_name() + "\n";
    }
  }
  void look_at(const pb::Message& message, std::string& lines) {
    const pb::Reflection& reflection = *message.GetReflection();
    std::vector<const pb::FieldDescriptor*> fields;
    reflection.ListFields(message, &fields);
    for (const pb::FieldDescriptor* field : fields) {
      if (set_.insert(field).second) lines += "set " + field->full_name() + "\n";
      if (field->cpp_type() != pb::FieldDescriptor::CPPTYPE_MESSAGE) continue;
      if (!field->is_repeated()) {
        look_at(reflection.GetMessage(message, field), lines);
        continue;
      }
      for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
        look_at(reflection.GetRepeatedMessage(message, field, i), lines);
      }
    }
  }
  static void write_down(const std::string& lines) {
    const char* path = std::getenv("SIPHON_TEST_FIELDS");
    if (lines.empty() || path == nullptr) return;
    const int fd = ::open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || ::write(fd, lines.data(), lines.size()) != static_cast<ssize_t>(lines.size())) {
      std::abort();  // the test would call a field unset
    }
    ::close(fd);
  }

  std::mutex mutex_;
  std::set<const pb::FieldDescriptor*> set_;
};

void saw(const pb::MessageLite& message) {
  static auto& witness = *new Witness;  // outlives every thread
  witness.saw(message);
}

template <typename Function>
Function* next(const char* symbol) {
  void* found = ::dlsym(RTLD_NEXT, symbol);
  if (found == nullptr) std::abort();
  return reinterpret_cast<Function*>(found);
}

}  // namespace

namespace google::protobuf {

std::string MessageLite::SerializeAsString() const {
  static auto* const real = next<std::string(const MessageLite*)>(
      "_ZNK6google8protobuf11MessageLite17SerializeAsStringB5cxx11Ev");
  saw(*this);
  return real(this);
}

bool MessageLite::SerializeToZeroCopyStream(io::ZeroCopyOutputStream* output) const {
  static auto* const real = next<bool(const MessageLite*, io::ZeroCopyOutputStream*)>(
      "_ZNK6google8protobuf11MessageLite25SerializeToZeroCopyStreamEPNS0_"
      "2io20ZeroCopyOutputStreamE");
  saw(*this);
  return real(this, output);
}

std::uint8_t* MessageLite::SerializeWithCachedSizesToArray(std::uint8_t* target) const {
  static auto* const real = next<std::uint8_t*(const MessageLite*, std::uint8_t*)>(
      "_ZNK6google8protobuf11MessageLite31SerializeWithCachedSizesToArrayEPh");
  saw(*this);
  return real(this, target);
}

}  // namespace google::protobuf
