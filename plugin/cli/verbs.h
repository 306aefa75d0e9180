// The verbs. Each prints its result and returns the process's exit status, or an error for main to
// print. All run on the main thread.
#pragma once

#include "plugin/base/status.h"
#include "plugin/cli/session.h"

namespace siphon::cli {

// verbs_data.cc
Result<int> run_put(Session& session);
Result<int> run_get(Session& session);
Result<int> run_seal(Session& session);
Result<int> run_rm(Session& session);
// verbs_look.cc
Result<int> run_ls(Session& session);
Result<int> run_stat(Session& session);
Result<int> run_blocks(Session& session);
Result<int> run_verify(Session& session);
Result<int> run_config_show(Session& session);
// verbs_copy.cc
Result<int> run_copy(Session& session);
Result<int> run_move(Session& session);
// verbs_devices.cc
Result<int> run_daemons(Session& session);
Result<int> run_transfers(Session& session);
Result<int> run_watch(Session& session);
Result<int> run_cancel(Session& session);
// verbs_doctor.cc
Result<int> run_doctor(Session& session);
// verbs_trash.cc
Result<int> run_trash_ls(Session& session);
Result<int> run_trash_restore(Session& session);
Result<int> run_trash_purge(Session& session);
Result<int> run_scratch_ls(Session& session);
Result<int> run_scratch_purge(Session& session);

}  // namespace siphon::cli
