// What a call's thread answers when there is no memory at all.
#include "plugin/rpc/outermost.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <stdexcept>

// A sanitizer has operators of its own, and compares who gave memory with who takes it.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define SIPHON_CAN_LACK_MEMORY
namespace {

thread_local bool no_memory = false;

// Memory of this thread is gone while this lives.
struct NoMemory {
  NoMemory() { no_memory = true; }
  ~NoMemory() { no_memory = false; }
};

}  // namespace

void* operator new(std::size_t bytes) {
  if (!no_memory) {
    if (void* memory = std::malloc(bytes > 0 ? bytes : 1)) return memory;
  }
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
#endif

namespace siphon::rpc {
namespace {

TEST(Outermost, TellsHowItEnded) {
  EXPECT_TRUE(outermost([]() -> Status { return {}; }).ok());
  const auto failed = outermost(
      []() -> Status { return fail(Code::kNotFound, "no such thing", Side::kSource, "look"); });
  EXPECT_EQ(failed.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(from_grpc(failed, "here").next_step, "look");
  const auto thrown = outermost([]() -> Status { throw std::runtime_error("why"); });
  EXPECT_EQ(thrown.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_NE(thrown.error_message().find("why"), std::string::npos);
  const auto lacking = outermost([]() -> Status { throw std::bad_alloc(); });
  EXPECT_EQ(from_grpc(lacking, "here").reason, Reason::kBusy);
}

#ifdef SIPHON_CAN_LACK_MEMORY
TEST(Outermost, WithoutMemoryForAnErrorThereIsStillAnAnswer) {
  std::string words;
  grpc::Status answer;
  Error error{Code::kNotFound, std::string(100, 'x'), Side::kSource, std::string(100, 'y')};
  grpc::Status told;
  {
    const NoMemory here;
    answer = outermost([&]() -> Status {
      words.assign(1000, 'x');  // throws
      return {};
    });
    told = outermost([&]() -> Status { return fail(std::move(error)); });
  }
  EXPECT_TRUE(words.empty());
  for (const grpc::Status& status : {answer, told}) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_EQ(status.error_message(), "out of memory");
    EXPECT_TRUE(status.error_details().empty());
  }
}
#endif

TEST(Outermost, NothingIsThrownThroughIt) {
  EXPECT_EQ(outermost([]() -> Status { throw 1; }).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

}  // namespace
}  // namespace siphon::rpc
