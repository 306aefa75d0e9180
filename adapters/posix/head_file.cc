#include "adapters/posix/head_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "plugin/base/text.h"
#include "plugin/core/le.h"

namespace siphon::posix {
namespace {

constexpr std::uint32_t kMagic = 0x46485053;  // "SPHF"
constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kPreludeBytes = 16;
constexpr std::size_t kMaxHeadFileBytes = kPreludeBytes + 2 * HeadRegister::kMaxEncodedBytes;

struct Decoded {
  HeadRegister base;
  std::optional<HeadRegister> pending;
};

bool decode(std::span<const std::byte> in, Decoded& out) {
  LeReader r(in);
  if (r.get<std::uint32_t>() != kMagic || r.get<std::uint16_t>() != kVersion) return false;
  r.skip(2);
  const std::size_t base_bytes = r.get<std::uint32_t>();
  const std::size_t pending_bytes = r.get<std::uint32_t>();
  if (!r.ok() || base_bytes > HeadRegister::kMaxEncodedBytes ||
      pending_bytes > HeadRegister::kMaxEncodedBytes ||
      in.size() != kPreludeBytes + base_bytes + pending_bytes) {
    return false;
  }
  if (!decode_head(in.subspan(kPreludeBytes, base_bytes), out.base)) return false;
  if (pending_bytes == 0) return true;
  out.pending.emplace();
  return decode_head(in.subspan(kPreludeBytes + base_bytes), *out.pending) &&
         out.pending->state != ExtentState::kNone;
}

// A publish has happened when its data file, a small put's hidden one, is gone from data/, or (a
// crash on a file system whose rename across folders is two steps) is the public file as well.
Result<bool> publish_happened(const Folder& folder, const std::string& name, const PrivateId& id,
                              const std::optional<struct stat>& public_file) {
  for (const std::string& file : {data_name(name, id), hidden_name(name, id)}) {
    auto data_file = look(folder.data(), file);
    if (!data_file) return fail(std::move(data_file).error());
    if (*data_file) return public_file && same_file(**data_file, *public_file);
  }
  return true;
}

// Whether the public file is not the one that `reg` names as current: the file of that private id
// lies in data/. (Never as the same file but for a moment of ours, or a crash then.)
Result<bool> is_displaced(const Folder& folder, const std::string& name, const HeadRegister& reg,
                          const struct stat& public_file) {
  auto kept = look(folder.data(), data_name(name, reg.current));
  if (!kept) return fail(std::move(kept).error());
  return *kept && !same_file(**kept, public_file);
}

// The public file was renamed away (our trash step, before it could say so), removed by hand, or is
// another one.
void condemn_vanished(HeadRegister& reg, std::uint64_t since_unix_ms) {
  TransitionRequest request;
  request.kind = Transition::kCondemn;
  request.id = reg.current;
  request.expected_generation = TransitionRequest::kAnyGeneration;
  request.now_unix_ms = since_unix_ms;
  if (apply(reg, true, request) == 0) return;
  reg.state = ExtentState::kNone;  // the trash list is full: give up the entry, not the truth
  reg.current = {};
  reg.header = {};
  reg.is_inline = false;
  ++reg.generation;
}

std::uint64_t unix_ms(const timespec& time) {
  return static_cast<std::uint64_t>(time.tv_sec) * 1000 +
         static_cast<std::uint64_t>(time.tv_nsec) / 1'000'000;
}

Status replace_head(const Folder& folder, const std::string& name,
                    std::span<const std::byte> bytes) {
  const std::string what = "head of extent " + name;
  SIPHON_TRY(remove_file(folder.tmp(), name));  // left by a crash
  auto fd = open_file(folder.tmp(), name, O_WRONLY | O_CREAT | O_EXCL, 0600);
  if (!fd) return fail(std::move(fd).error().with_context(what));
  Status written = write_all(fd->get(), 0, bytes, what);
  if (written && ::fsync(fd->get()) != 0) written = fail(file_error(errno, "sync " + what));
  if (!written) {
    (void)remove_file(folder.tmp(), name);  // what it has is needed
    return written;
  }
  if (::renameat(folder.tmp(), name.c_str(), folder.heads(), name.c_str()) != 0) {
    return fail(file_error(errno, "replace " + what));
  }
  return sync_dir(folder.heads(), name);
}

}  // namespace

Result<HeadFile> load_head(const Folder& folder, const std::string& name) {
  HeadFile head;
  auto public_file = look(folder.root(), name);
  if (!public_file) return fail(std::move(public_file).error());
  head.public_file = *public_file;
  auto in_use = folder.in_use();
  if (!in_use) return fail(std::move(in_use).error());
  if (!*in_use) return head;
  auto fd = open_file(folder.heads(), name, O_RDONLY);
  if (!fd) {
    if (fd.error().code == Code::kNotFound) return head;
    return fail(std::move(fd).error().with_context("head of extent"));
  }
  std::array<std::byte, kMaxHeadFileBytes + 1> buffer;
  auto bytes = read_some(fd->get(), 0, buffer, "head of extent " + name);
  if (!bytes) return fail(std::move(bytes).error());
  Decoded decoded;
  if (!decode(std::span(buffer).first(*bytes), decoded)) {
    return fail(Code::kDataLoss, "the head file of extent " + name + " is damaged", Side::kNone,
                "restore " + folder.path() + "/.siphon/head/" + name +
                    " from a backup; or give it up: siphon rm --corrupt-head --save FILE " +
                    shell_word("posix:" + folder.path() + "/" + name));
  }
  head.exists = true;
  head.reg = std::move(decoded.base);
  if (decoded.pending) {
    head.settled = false;
    head.intended = decoded.pending->current;
    auto happened = publish_happened(folder, name, decoded.pending->current, head.public_file);
    if (!happened) return fail(std::move(happened).error());
    if (*happened) head.reg = std::move(*decoded.pending);
    // Not happened, says its file in data/; and who began it has seen to it that DIR/NAME is what
    // `base` names. If it is not, this head is an old one: the file may be there because it was
    // replaced since, and is no attempt to be collected.
    if (!*happened && head.public_file) {
      auto displaced = head.reg.state == ExtentState::kNone
                           ? Result<bool>(true)
                           : is_displaced(folder, name, head.reg, *head.public_file);
      if (!displaced) return fail(std::move(displaced).error());
      head.displaced = *displaced;
      if (head.displaced) head.reg = std::move(*decoded.pending);
    }
  } else if (head.reg.state != ExtentState::kNone && head.public_file) {
    auto displaced = is_displaced(folder, name, head.reg, *head.public_file);
    if (!displaced) return fail(std::move(displaced).error());
    head.displaced = *displaced;
  }
  if (head.reg.state != ExtentState::kNone && (!head.public_file || head.displaced)) {
    head.settled = false;
    // A time that stays, until the head file says so: whoever looked at the entry purges that one.
    auto kept = look(folder.data(), data_name(name, head.reg.current));
    if (!kept) return fail(std::move(kept).error());
    struct stat written {};
    if (::fstat(fd->get(), &written) != 0) return fail(file_error(errno, "stat head of " + name));
    if (!head.public_file && !*kept) head.vanished = head.reg.current;
    condemn_vanished(head.reg, unix_ms(*kept ? (*kept)->st_ctim : written.st_mtim));
  }
  return head;
}

Result<std::vector<std::byte>> raw_head(const Folder& folder, const std::string& name) {
  auto fd = open_file(folder.heads(), name, O_RDONLY);
  if (!fd) return fail(std::move(fd).error());
  std::vector<std::byte> bytes(64 << 10);
  auto got = read_some(fd->get(), 0, bytes, "head of extent " + name);
  if (!got) return fail(std::move(got).error());
  bytes.resize(*got);
  return bytes;
}

Status store_head(const Folder& folder, const std::string& name, const HeadRegister& reg,
                  const HeadRegister* pending) {
  if (reg.blank() && !pending) {
    SIPHON_TRY(remove_file(folder.heads(), name));
    return sync_dir(folder.heads(), name);
  }
  std::array<std::byte, HeadRegister::kMaxEncodedBytes> base_out, pending_out;
  const std::size_t base_bytes = encode_head(reg, base_out);
  const std::size_t pending_bytes = pending ? encode_head(*pending, pending_out) : 0;
  if (base_bytes == 0 || (pending && pending_bytes == 0)) {
    return fail(Code::kInternal, "the register of extent " + name + " does not encode");
  }
  std::array<std::byte, kMaxHeadFileBytes> buffer;
  LeWriter w(buffer);
  w.put(kMagic);
  w.put(kVersion);
  w.put_zeros(2);
  w.put(static_cast<std::uint32_t>(base_bytes));
  w.put(static_cast<std::uint32_t>(pending_bytes));
  w.put_bytes(std::span(base_out).first(base_bytes));
  w.put_bytes(std::span(pending_out).first(pending_bytes));

  const auto bytes = std::span<const std::byte>(buffer).first(w.used());
  Status stored = replace_head(folder, name, bytes);
  if (stored || stored.error().code != Code::kResourceExhausted) return stored;
  SIPHON_TRY(folder.spend_spare());
  stored = replace_head(folder, name, bytes);
  folder.keep_spare();
  if (stored || !folder.disk_is_full()) return stored;
  return fail(std::move(stored).error().with_next_step(
      "the disk of " + folder.path() + " is full: siphon trash purge --yes-i-really-mean-it " +
      shell_word("posix:" + folder.path()) +
      " works all the same; where the trash is empty, free 64 KiB there by other means"));
}

}  // namespace siphon::posix
