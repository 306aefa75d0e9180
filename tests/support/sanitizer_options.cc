// Compiled into every program of the asan and tsan presets: the sanitizers' settings, wherever the
// program is started and by whom (a companion is started by ceph-osd). What a sanitizer finds goes
// into a file of SIPHON_SANITIZER_REPORTS, which `tests/run --preset` looks at in the end.

#define SIPHON_REPORTS_TO "exitcode=66:log_path=" SIPHON_SANITIZER_REPORTS

extern "C" {

// A test's preloaded library comes before the runtime; nothing in it allocates.
const char* __asan_default_options() {
  return SIPHON_REPORTS_TO "/address:verify_asan_link_order=0:detect_stack_use_after_return=1";
}

const char* __ubsan_default_options() {
  return "halt_on_error=1:print_stacktrace=1:log_path=" SIPHON_SANITIZER_REPORTS "/undefined";
}

// The packaged libraries (gRPC, spdlog, librados) are not instrumented: their own synchronisation
// is invisible, so what they do with their memory says nothing.
const char* __tsan_default_options() {
  return SIPHON_REPORTS_TO "/thread:ignore_noninstrumented_modules=1:report_thread_leaks=0";
}

// Nor does it see how gRPC hands a call from thread to thread (absl::Mutex, counts of its own): not
// the code of gRPC's that is inline in a reactor, and not what happens in a reactor's callbacks.
const char* __tsan_default_suppressions() {
  return "race:grpc::ServerBidiReactor\n"
         "race:siphon::rpc::ByteCall::OnDone\n"
         "race:siphon::rpc::ByteCall::OnReadDone\n"
         "race:siphon::rpc::ByteCall::OnWriteDone\n";
}

}  // extern "C"
