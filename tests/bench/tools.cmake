# Peers, sources and clients for tests/bench/run, and the micro benchmarks.
add_executable(bench_copy_from copy_from.cc)
target_link_libraries(bench_copy_from PRIVATE siphon_options rados)
add_executable(bench_client_writes client_writes.cc)
target_link_libraries(bench_client_writes PRIVATE siphon_options rados)
add_executable(bench_fill fill.cc)
target_link_libraries(bench_fill PRIVATE siphon_format siphon_adapters_rados)
find_package(benchmark REQUIRED)
add_executable(bench_micro micro.cc)
target_link_libraries(bench_micro PRIVATE siphon_stream ZLIB::ZLIB PkgConfig::ISAL
  benchmark::benchmark)
add_executable(bench_empty empty.cc)
target_link_libraries(bench_empty PRIVATE siphon_options rados)

# That they run and print; what they print is nobody's business here.
if(NOT SIPHON_SANITIZE)
  add_test(NAME process.bench_smoke COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/run all --quick
    --bin $<TARGET_FILE_DIR:siphon> --out ${CMAKE_BINARY_DIR}/bench_smoke)
  set_tests_properties(process.bench_smoke PROPERTIES LABELS process TIMEOUT 900)
endif()
