// The head file of one name, DIR/.siphon/head/NAME: the register, and while a publish is under
// way also the register that will hold once the data file has been renamed to its public name.
//
//   offset  size  field (little-endian)
//        0     4  magic "SPHF"
//        4     2  version, 1
//        6     2  reserved, zero
//        8     4  b = bytes of the base register
//       12     4  p = bytes of the pending register, 0: none
//       16     b  base register, as the xattr `siphon.head` has it on RADOS
//     16+b     p  pending register
//
// Which of the two is in force is decided by the file system itself, in `load_head`, and so the
// rename of the data file is the one atomic step of a publish. Callers hold the name's lock.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "adapters/posix/folder.h"
#include "plugin/core/head_register.h"

namespace siphon::posix {

struct HeadFile {
  bool exists = false;  // false: no head file; reg is blank
  bool settled = true;  // false: the file on disk says this in another way (see settle)
  HeadRegister reg;     // in force
  PrivateId intended;   // of a publish on disk: its data file says whether that has happened
  // DIR/NAME is another file than the one that was current: that one is in data/, and `reg` has it
  // in the trash.
  bool displaced = false;
  // `reg` has it in the trash because DIR/NAME is gone: as soon as its file is back there, it is
  // current again.
  PrivateId vanished;
  std::optional<struct stat> public_file;  // DIR/NAME, whatever it is
};

// Under a shared or exclusive lock. DATA_LOSS: the head file is damaged.
Result<HeadFile> load_head(const Folder& folder, const std::string& name);
// The head file's bytes as they are, decodable or not (64 KiB at most). NOT_FOUND: there is none.
Result<std::vector<std::byte>> raw_head(const Folder& folder, const std::string& name);
// Under the exclusive lock: replaces the head file durably by `reg` (removes it when blank). On a
// full disk it takes the folder's spare room for that; RESOURCE_EXHAUSTED says what else to do.
Status store_head(const Folder& folder, const std::string& name, const HeadRegister& reg,
                  const HeadRegister* pending = nullptr);

}  // namespace siphon::posix
