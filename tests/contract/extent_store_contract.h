// The contract of adapters/extent_store.h as one GoogleTest suite, for every adapter.
//
// To run it over an adapter: include this header in one .cc file of a test program and
//
//   INSTANTIATE_TEST_SUITE_P(Mine, ExtentStoreContract, testing::Values(my_factory()),
//                            siphon::contract::factory_name);
//
// The suite takes sizes from the store's limits; small parts (64 KiB) and operations (48 KiB)
// make it quick. Its buffers are plain heap memory.
#pragma once

#include "tests/contract/contract_attempts.h"
#include "tests/contract/contract_content.h"
#include "tests/contract/contract_names.h"
