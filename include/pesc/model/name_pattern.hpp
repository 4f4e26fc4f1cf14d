// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"
#include "pesc/io/quoted.hpp"

namespace pesc {

/// \brief A pattern of module names as PEFT's `rank_pattern` and `alpha_pattern` have them: a regular expression.
///
/// Literals, `.`, `\d`, `\w`, escaped characters, sets, groups, `|`, `*`, `+`, `?`, `^` and `$` are known; what else
/// the language of Python has is refused. Matching takes time in the product of both lengths at most, whatever the
/// pattern is.
class name_pattern {
 public:
  /// \param where  file and key, for messages
  /// \throws format_error
  [[nodiscard]] static name_pattern parse(std::string text, const std::string& where);

  [[nodiscard]] const std::string& text() const { return text_; }

  /// \brief Whether the pattern matches the whole path, or all of it behind one of its dots.
  [[nodiscard]] bool matches(std::string_view path) const {
    if (matches_from(path, 0)) return true;
    for (std::size_t i = 0; i < path.size(); ++i)
      if (path[i] == '.' && matches_from(path, i + 1)) return true;
    return false;
  }

  friend bool operator==(const name_pattern& a, const name_pattern& b) { return a.text_ == b.text_; }

 private:
  enum class operation : std::uint8_t { one_of, fork, begin, end };

  /// \brief One step of the automaton; `first` and `second` are distances to the steps that may follow.
  struct step {
    operation kind = operation::one_of;
    int first = 1, second = 1;
    std::array<std::uint64_t, 4> bytes{};

    [[nodiscard]] bool holds(unsigned char c) const { return (bytes[c / 64] >> (c % 64) & 1u) != 0; }
    void put(unsigned char c) { bytes[c / 64] |= std::uint64_t{1} << (c % 64); }
  };
  using steps = std::vector<step>;
  class parser;

  [[nodiscard]] bool matches_from(std::string_view path, std::size_t first) const {
    std::vector<std::uint8_t> now(steps_.size() + 1), next(steps_.size() + 1);
    reach(path, first, 0, now);
    for (std::size_t i = first; i < path.size(); ++i) {
      next.assign(next.size(), 0);
      for (std::size_t s = 0; s < steps_.size(); ++s)
        if (now[s] != 0 && steps_[s].kind == operation::one_of &&
            steps_[s].holds(static_cast<unsigned char>(path[i])))
          reach(path, i + 1, s + 1, next);
      now.swap(next);
    }
    return now.back() != 0;
  }

  /// \brief Marks `state` and all that follow from it without taking a character at position `at`.
  void reach(std::string_view path, std::size_t at, std::size_t state,
             std::vector<std::uint8_t>& marks) const {
    std::vector<std::size_t> open{state};
    while (!open.empty()) {
      const std::size_t s = open.back();
      open.pop_back();
      if (std::exchange(marks[s], std::uint8_t{1}) != 0 || s == steps_.size()) continue;
      const step& it = steps_[s];
      if (it.kind == operation::fork) {
        open.push_back(static_cast<std::size_t>(static_cast<index_t>(s) + it.first));
        open.push_back(static_cast<std::size_t>(static_cast<index_t>(s) + it.second));
      } else if ((it.kind == operation::begin && at == 0) ||
                 (it.kind == operation::end && at == path.size())) {
        open.push_back(s + 1);
      }
    }
  }

  std::string text_;
  steps steps_;
};

/// \brief Turns the text into steps, by descent.
class name_pattern::parser {
 public:
  parser(std::string_view text, const std::string& where) : text_{text}, where_{where} {}

  steps all() {
    steps out = alternatives(0);
    if (at_ < text_.size()) refuse("has a bracket that was not opened");
    return out;
  }

 private:
  [[noreturn]] void refuse(const char* what) const {
    detail::raise<format_error>(detail::concat(where_, ": pattern ", in_quotes(text_), ' ', what));
  }

  [[nodiscard]] bool more() const { return at_ < text_.size(); }
  bool take(char c) {
    if (!more() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  static steps join(steps a, const steps& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  }
  static steps fork(int first, int second) { return {{operation::fork, first, second, {}}}; }
  static int size(const steps& s) { return static_cast<int>(s.size()); }

  steps alternatives(int depth) {
    if (depth > 32) refuse("nests too deeply");
    steps out = sequence(depth);
    while (take('|')) {
      const steps other = sequence(depth);
      out = join(fork(1, size(out) + 2), join(join(out, fork(size(other) + 1, size(other) + 1)), other));
    }
    return out;
  }

  steps sequence(int depth) {
    steps out;
    while (more() && text_[at_] != '|' && text_[at_] != ')') out = join(std::move(out), repeated(depth));
    return out;
  }

  steps repeated(int depth) {
    steps out = atom(depth);
    const int n = size(out);
    if (take('*'))
      out = join(join(fork(1, n + 2), out), fork(-(n + 1), -(n + 1)));
    else if (take('+'))
      out = join(std::move(out), fork(-n, 1));
    else if (take('?'))
      return join(fork(1, n + 1), out);
    else
      return out;
    take('?');  // the shortest match is a match as well
    return out;
  }

  steps atom(int depth) {
    const char c = text_[at_++];
    step out;
    switch (c) {
      case '(': {
        if (take('?') && !take(':')) refuse("holds \"(?\", which is not read");
        steps inside = alternatives(depth + 1);
        if (!take(')')) refuse("has a bracket that is not closed");
        return inside;
      }
      case '*':
      case '+':
      case '?':
      case '{':
        refuse("repeats in a way that is not read");
      case '^':
        return {{operation::begin, 1, 1, {}}};
      case '$':
        return {{operation::end, 1, 1, {}}};
      case '.':
        out.bytes.fill(~std::uint64_t{0});
        return {out};
      case '[':
        return {set()};
      case '\\':
        escaped(out);
        return {out};
      default:
        out.put(static_cast<unsigned char>(c));
        return {out};
    }
  }

  /// \brief What follows a backslash.
  void escaped(step& out) {
    if (!more()) refuse("ends with a backslash");
    const char c = text_[at_++];
    const auto range = [&](char first, char last) {
      for (char x = first; x <= last; ++x) out.put(static_cast<unsigned char>(x));
    };
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter && c != 'd' && c != 'w') refuse("holds a backslash and a letter or digit that is not read");
    if (c == 'd' || c == 'w') range('0', '9');
    if (c == 'w') range('a', 'z'), range('A', 'Z'), out.put('_');
    if (!letter) out.put(static_cast<unsigned char>(c));
  }

  step set() {
    step out;
    const bool others = take('^');
    for (bool first = true; first || !take(']'); first = false) {
      if (!more()) refuse("has a bracket that is not closed");
      const char c = text_[at_++];
      if (c == '\\') {
        escaped(out);
        continue;
      }
      char last = c;
      if (at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']') {
        last = text_[at_ + 1];
        at_ += 2;
        if (last == '\\' || last < c) refuse("has a range that is not read");
      }
      for (int x = static_cast<unsigned char>(c); x <= static_cast<unsigned char>(last); ++x)
        out.put(static_cast<unsigned char>(x));
    }
    if (others)
      for (std::uint64_t& word : out.bytes) word = ~word;
    return out;
  }

  std::string_view text_;
  const std::string& where_;
  std::size_t at_ = 0;
};

inline name_pattern name_pattern::parse(std::string text, const std::string& where) {
  constexpr std::size_t longest = 512;
  if (text.size() > longest)
    detail::raise<format_error>(
        detail::concat(where, ": a pattern of ", text.size(), " characters, expected at most ", longest));
  name_pattern out;
  out.steps_ = parser(text, where).all();
  out.text_ = std::move(text);
  return out;
}

}  // namespace pesc
