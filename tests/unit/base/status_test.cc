#include "plugin/base/status.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>
#include <string>

namespace siphon {
namespace {

TEST(BaseStatus, CodesAreNumberedAndNamedAsGrpcs) {
  std::set<std::string_view> names;
  for (int code = 0; code <= 16; ++code) names.insert(to_string(static_cast<Code>(code)));
  EXPECT_EQ(names.size(), 17u);
  EXPECT_EQ(to_string(static_cast<Code>(5)), "NOT_FOUND");
  EXPECT_EQ(to_string(static_cast<Code>(15)), "DATA_LOSS");
  EXPECT_EQ(to_string(static_cast<Code>(16)), "UNAUTHENTICATED");
  EXPECT_EQ(to_string(static_cast<Code>(99)), "UNKNOWN");
}

TEST(BaseStatus, SidesHaveNames) {
  EXPECT_EQ(to_string(Side::kNone), "none");
  EXPECT_EQ(to_string(Side::kSource), "source");
  EXPECT_EQ(to_string(Side::kTarget), "target");
  EXPECT_EQ(to_string(Side::kWire), "wire");
  EXPECT_EQ(to_string(Side::kRequester), "requester");
}

Status inner(bool works) {
  if (!works) return fail(Code::kDataLoss, "bad block", Side::kSource, "run verify");
  return {};
}
Result<int> middle(bool works) {
  SIPHON_TRY(inner(works));
  return 7;
}
Status outer(bool works) {
  SIPHON_TRY(middle(works));
  return {};
}

TEST(BaseStatus, TryPassesErrorsOnWhole) {
  EXPECT_TRUE(outer(true));
  EXPECT_EQ(middle(true).value(), 7);
  const Status failed = outer(false);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Code::kDataLoss);
  EXPECT_EQ(failed.error().message, "bad block");
  EXPECT_EQ(failed.error().suspect, Side::kSource);
  EXPECT_EQ(failed.error().next_step, "run verify");
}

TEST(BaseStatus, ContextGoesInFrontAndASuspectIsKept) {
  const Error error{Code::kDataLoss, "bad block", Side::kNone, {}};
  const Error wider = error.with_context("extent e1");
  EXPECT_EQ(wider.message, "extent e1: bad block");
  EXPECT_EQ(error.message, "bad block");
  Error named = Error(wider).with_context("copy").with_suspect(Side::kSource);
  EXPECT_EQ(named.message, "copy: extent e1: bad block");
  EXPECT_EQ(named.suspect, Side::kSource);
  EXPECT_EQ(Error(named).with_suspect(Side::kTarget).suspect, Side::kSource);
  EXPECT_EQ(Error(named).with_next_step("look").next_step, "look");
}

TEST(BaseStatus, OnlyTransientCodesAreRetryable) {
  std::set<Code> retryable;
  for (int code = 0; code <= 16; ++code) {
    if (is_retryable(static_cast<Code>(code))) retryable.insert(static_cast<Code>(code));
  }
  EXPECT_EQ(retryable,
            (std::set<Code>{Code::kDeadlineExceeded, Code::kAborted, Code::kUnavailable}));
}

TEST(BaseStatus, ErrnosBecomeCodesAndSentences) {
  const Error error = error_from_errno(ENOENT, "open x", Side::kTarget);
  EXPECT_EQ(error.code, Code::kNotFound);
  EXPECT_EQ(error.message, "open x: No such file or directory");
  EXPECT_EQ(error.suspect, Side::kTarget);
  EXPECT_EQ(code_from_errno(0), Code::kOk);
  EXPECT_EQ(code_from_errno(EEXIST), Code::kAlreadyExists);
  EXPECT_EQ(code_from_errno(EACCES), Code::kPermissionDenied);
  EXPECT_EQ(code_from_errno(ENOSPC), Code::kResourceExhausted);
  EXPECT_EQ(code_from_errno(EDQUOT), Code::kResourceExhausted);
  EXPECT_EQ(code_from_errno(EROFS), Code::kFailedPrecondition);
  EXPECT_EQ(code_from_errno(EIO), Code::kDataLoss);
  EXPECT_EQ(code_from_errno(ESTALE), Code::kAborted);
  EXPECT_EQ(code_from_errno(ETIMEDOUT), Code::kDeadlineExceeded);
  EXPECT_EQ(code_from_errno(ECONNRESET), Code::kUnavailable);
  EXPECT_EQ(code_from_errno(EOPNOTSUPP), Code::kUnimplemented);
  EXPECT_EQ(code_from_errno(-1), Code::kUnknown);
}

}  // namespace
}  // namespace siphon
