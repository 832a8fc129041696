#include "host/ntu_skeleton.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>

namespace skelops {
namespace {

constexpr int kExactDigits = 15;  // below 2^53
constexpr double kPowers[kExactDigits + 1] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                              1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};

bool IsSpace(char c) { return c == ' ' || ('\t' <= c && c <= '\r'); }

bool IsDigit(char c) { return '0' <= c && c <= '9'; }

// The tokens of one line.
class Tokens {
 public:
  explicit Tokens(std::string_view line) : at_(line.data()), end_(at_ + line.size()) {}

  // True if only white space is left.
  bool Done() {
    while (at_ != end_ && IsSpace(*at_)) ++at_;
    return at_ == end_;
  }

  // An integer of at most `max_digits` decimal digits without a sign.
  bool Integer(int max_digits, uint64_t* value) {
    if (Done()) return false;
    const char* begin = at_;
    for (*value = 0; at_ != end_ && IsDigit(*at_); ++at_) {
      if (at_ - begin == max_digits) return false;
      *value = 10 * *value + static_cast<uint64_t>(*at_ - '0');
    }
    return at_ != begin && AtDelimiter();
  }

  // What Python's float() reads, without digit separators and numbers beyond double.
  bool Number(double* value) {
    if (Done()) return false;
    if (Decimal(value)) return true;
    const char* begin = at_;
    if (*begin == '+' && ++begin != end_ && *begin == '-') return false;
    const auto [stop, error] = std::from_chars(begin, end_, *value);
    at_ = stop;
    if (error == std::errc::invalid_argument || !AtDelimiter() || stop[-1] == ')') return false;
    if (error == std::errc::result_out_of_range && !Subnormal({begin, stop}, value)) return false;
    return !std::isinf(*value) || (stop[-1] | 0x20) == 'f' || (stop[-1] | 0x20) == 'y';
  }

 private:
  // A short decimal without an exponent: both parts of the quotient are exact, so it is the double
  // next to the number. Leaves anything else as it was.
  bool Decimal(double* value) {
    const char* p = at_;
    const bool negative = *p == '-';
    if (negative) ++p;
    const char* begin = p;
    uint64_t digits = 0;
    for (; p != end_ && IsDigit(*p); ++p) digits = 10 * digits + static_cast<uint64_t>(*p - '0');
    ptrdiff_t length = p - begin, decimals = 0;
    if (p != end_ && *p == '.') {
      const char* point = ++p;
      for (; p != end_ && IsDigit(*p); ++p) digits = 10 * digits + static_cast<uint64_t>(*p - '0');
      decimals = p - point;
      length += decimals;
    }
    if (length == 0 || length > kExactDigits || !(p == end_ || IsSpace(*p))) return false;
    const double size = static_cast<double>(digits) / kPowers[decimals];
    *value = negative ? -size : size;
    at_ = p;
    return true;
  }

  bool AtDelimiter() const { return at_ == end_ || IsSpace(*at_); }

  // from_chars may leave tiny numbers to us; of huge ones the stream reports a failure.
  static bool Subnormal(std::string token, double* value) {
    std::istringstream stream(token);
    stream.imbue(std::locale::classic());
    return static_cast<bool>(stream >> *value);
  }

  const char* at_;
  const char* end_;
};

class Lines {
 public:
  explicit Lines(std::string_view text) : at_(text.data()), end_(at_ + text.size()) {}

  // The tokens of the next line; none at the end of the text.
  Tokens Next() {
    ++number_;
    ended_ = at_ == end_;
    const void* newline = ended_ ? nullptr : std::memchr(at_, '\n', end_ - at_);
    const char* stop = newline ? static_cast<const char*>(newline) : end_;
    line_ = std::string_view(at_, stop - at_);
    at_ = newline ? stop + 1 : end_;
    return Tokens(line_);
  }

  bool Ended() const { return at_ == end_; }

  [[noreturn]] void Fail(const std::string& expected) const {
    throw std::invalid_argument("expected " + expected + ", got " + Shown() + " at line " +
                                std::to_string(number_));
  }

 private:
  std::string Shown() const {
    if (ended_) return "the end of the file";
    std::string_view line = line_;
    while (!line.empty() && IsSpace(line.front())) line.remove_prefix(1);
    while (!line.empty() && IsSpace(line.back())) line.remove_suffix(1);
    std::string shown(line.substr(0, 40));
    for (char& c : shown) {
      if (c < ' ' || c > '~') c = '?';
    }
    return "'" + shown + "'";
  }

  const char* at_;
  const char* end_;
  std::string_view line_;
  bool ended_ = false;
  int64_t number_ = 0;
};

int64_t ReadCount(Lines& lines, const char* expected) {
  Tokens tokens = lines.Next();
  uint64_t count;
  if (!tokens.Integer(18, &count) || !tokens.Done()) lines.Fail(expected);
  return static_cast<int64_t>(count);
}

bool ReadNumbers(Tokens& tokens, double* values, int count) {
  for (int i = 0; i < count; ++i) {
    if (!tokens.Number(values + i)) return false;
  }
  return tokens.Done();
}

void ReadBody(Lines& lines, NtuSkeleton& out) {
  Tokens tokens = lines.Next();
  uint64_t id;
  double state[kBodyNumbers];
  if (!tokens.Integer(19, &id) || !ReadNumbers(tokens, state, kBodyNumbers)) {
    lines.Fail("a body id and 9 numbers");
  }
  if (ReadCount(lines, "25 joints") != kJoints) lines.Fail("25 joints");
  double joints[kJoints * kJointNumbers];
  for (int j = 0; j < kJoints; ++j) {
    double* joint = joints + j * kJointNumbers;
    Tokens numbers = lines.Next();
    if (!ReadNumbers(numbers, joint, kJointNumbers)) lines.Fail("12 numbers of a joint");
    for (int axis = 0; axis < 3; ++axis) {
      if (!(std::fabs(joint[axis]) <= std::numeric_limits<float>::max())) {
        lines.Fail("x, y and z of a joint in the range of float32");
      }
    }
  }
  out.id.push_back(id);
  out.state.insert(out.state.end(), std::begin(state), std::end(state));
  out.joints.insert(out.joints.end(), std::begin(joints), std::end(joints));
}

}  // namespace

NtuSkeleton ParseNtuSkeleton(std::string_view text) {
  NtuSkeleton out;
  out.joints.reserve(text.size() / 8);  // one number takes about nine bytes of text
  Lines lines(text);
  const int64_t frames = ReadCount(lines, "a number of frames");
  for (int64_t t = 0; t < frames; ++t) {
    const int64_t bodies = ReadCount(lines, "a number of bodies");
    for (int64_t b = 0; b < bodies; ++b) ReadBody(lines, out);
    out.bodies.push_back(bodies);
  }
  while (!lines.Ended()) {
    if (!lines.Next().Done()) lines.Fail("the end of the file");
  }
  return out;
}

}  // namespace skelops
