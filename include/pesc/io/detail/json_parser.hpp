// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "pesc/core/error.hpp"
#include "pesc/io/detail/json_value.hpp"
#include "pesc/io/file_kind.hpp"
#include "pesc/io/quoted.hpp"

namespace pesc {

/// \brief What a JSON text from outside may cost: nesting, bytes of text, number of values in it.
struct json_limits {
  std::size_t depth = 64;
  std::size_t bytes = std::size_t{64} << 20;
  std::size_t values = 4'000'000;
};

namespace detail {

/// \brief Reads characters and leaves behind how far it came: the parser's events do not carry positions.
class counting_iterator {
 public:
  using iterator_category = std::forward_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  counting_iterator() = default;
  counting_iterator(const char* at, const char** seen) : at_{at}, seen_{seen} {}

  reference operator*() const { return *at_; }
  counting_iterator& operator++() {
    *seen_ = ++at_;
    return *this;
  }
  counting_iterator operator++(int) {
    const counting_iterator before = *this;
    ++*this;
    return before;
  }
  friend bool operator==(const counting_iterator& a, const counting_iterator& b) { return a.at_ == b.at_; }
  friend bool operator!=(const counting_iterator& a, const counting_iterator& b) { return a.at_ != b.at_; }

 private:
  const char* at_ = nullptr;
  const char** seen_ = nullptr;
};

/// \brief The words NaN and Infinity around `offset`, which Python writes into JSON; empty for other text.
inline std::string_view python_number_at(std::string_view text, std::size_t offset) {
  const auto in_word = [&](std::size_t i) {
    const char c = text[i];
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-';
  };
  std::size_t first = std::min(offset, text.size());
  std::size_t last = first;
  while (first > 0 && offset - first < 10 && in_word(first - 1)) --first;
  while (last < text.size() && last - offset < 10 && in_word(last)) ++last;
  const std::string_view word = text.substr(first, last - first);
  return word == "NaN" || word == "Infinity" || word == "-Infinity" ? word : std::string_view{};
}

/// \brief The parser's own sentence without its prefix and without the text it quotes, which may be megabytes.
inline std::string shortened_reason(std::string_view what) {
  what.remove_prefix(std::min(what.find("] ") + 2, what.size()));
  if (what.starts_with("parse error")) what.remove_prefix(std::min(what.find(": ") + 2, what.size()));
  std::string out{what};
  const std::size_t quote = out.find("; last read: '");
  if (quote != std::string::npos) {
    const std::size_t rest = out.rfind("'; expected ");
    out = out.substr(0, quote) + (rest != std::string::npos && rest > quote ? out.substr(rest + 1) : "");
  }
  return one_line(out);
}

/// \brief Stands between the parser and a handler: limits, positions, and one wording of errors.
template <class Handler>
class json_events {
 public:
  using library = nlohmann::json;

  json_events(std::string_view text, const std::string& file, const json_limits& limits, Handler& handler,
              std::size_t offset)
      : text_{text}, seen_{text.data()}, file_{file}, limits_{limits}, handler_{handler}, offset_{offset} {}

  void run() {
    if (text_.size() > limits_.bytes)
      raise<format_error>(
          concat(file_, ": ", text_.size(), " bytes of JSON, at most ", limits_.bytes, " are read"));
    // The parser takes a zero byte for the end and would not look at what follows.
    if (const std::size_t zero = text_.find('\0'); zero != std::string_view::npos)
      fail(zero + offset_, "a zero byte, expected JSON text");
    const counting_iterator first{text_.data(), &seen_};
    const counting_iterator last{text_.data() + text_.size(), &seen_};
    library::sax_parse(first, last, this);
  }

  bool null() { return scalar(json{}); }
  bool boolean(bool value) { return scalar(json{value}); }
  bool number_integer(std::int64_t value) { return scalar(json{value}); }
  bool number_unsigned(std::uint64_t value) { return scalar(json{value}); }
  bool number_float(double value, const std::string&) { return scalar(json{value}); }
  bool string(std::string& value) { return scalar(json{std::move(value)}); }
  bool binary(library::binary_t&) { return false; }

  bool start_object(std::size_t) { return open(true); }
  bool start_array(std::size_t) { return open(false); }
  bool end_object() { return close(true); }
  bool end_array() { return close(false); }
  bool key(std::string& name) {
    handler_.key(std::move(name), position());
    return true;
  }

  bool parse_error(std::size_t read, const std::string&, const library::exception& reason) {
    // The end of the text counts as one character more.
    const std::size_t offset = read > 0 ? read - 1 : 0;
    const std::string_view word = python_number_at(text_, offset);
    if (!word.empty())
      fail(offset + offset_,
           concat(word, " is not a JSON number. Python writes it for values that are not finite"));
    if (offset >= text_.size())
      fail(text_.size() + offset_,
           text_.empty() ? "the text is empty, expected JSON" : "the JSON text ends too early");
    fail(offset + offset_, shortened_reason(reason.what()));
    return false;
  }

 private:
  [[nodiscard]] std::size_t position() const {
    return static_cast<std::size_t>(seen_ - text_.data()) + offset_;
  }

  [[noreturn]] void fail(std::size_t at, const std::string& what) const {
    raise<format_error>(concat(file_, ": byte ", at, ": ", what));
  }

  void count() {
    if (++values_ > limits_.values) fail(position(), concat("more than ", limits_.values, " JSON values"));
  }

  bool scalar(json value) {
    count();
    handler_.scalar(std::move(value), position());
    return true;
  }
  bool open(bool object) {
    count();
    if (++depth_ > limits_.depth)
      fail(position(), concat("JSON nested deeper than ", limits_.depth, " levels"));
    handler_.open(object, position());
    return true;
  }
  bool close(bool object) {
    --depth_;
    handler_.close(object, position());
    return true;
  }

  std::string_view text_;
  const char* seen_;
  const std::string& file_;
  json_limits limits_;
  Handler& handler_;
  std::size_t offset_;
  std::size_t depth_ = 0;
  std::size_t values_ = 0;
};

/// \brief Parses `text` and calls `handler.scalar(json, byte)`, `.key(string, byte)`, `.open(is_object, byte)`
/// and `.close(is_object, byte)` in the order of the text.
/// \param offset  bytes of the file before the text, so that positions are those of the file
template <class Handler>
void parse_json_events(std::string_view text, const std::string& file, const json_limits& limits,
                       Handler& handler, std::size_t offset = 0) {
  json_events<Handler>{text, file, limits, handler, offset}.run();
}

/// \brief Puts the events together to one value; refuses equal keys in one object.
class json_builder {
 public:
  explicit json_builder(const std::string& file) : file_{file} {}

  void scalar(json value, std::size_t) { put(std::move(value)); }
  void key(std::string name, std::size_t at) {
    open_.back().members.push_back({std::move(name), json{}});
    open_.back().positions.push_back(at);
  }
  void open(bool object, std::size_t) {
    open_.emplace_back();
    open_.back().is_object = object;
  }
  void close(bool object, std::size_t) {
    level done = std::move(open_.back());
    open_.pop_back();
    if (!object) return put(json_builder_access::array(std::move(done.items)));
    std::vector<std::uint32_t> order = sorted(done);
    put(json_builder_access::object(std::move(done.members), std::move(order)));
  }

  [[nodiscard]] json take() { return std::move(root_); }

 private:
  struct level {
    bool is_object = false;
    std::vector<json> items;
    std::vector<json::member> members;
    std::vector<std::size_t> positions;
  };

  void put(json value) {
    if (open_.empty())
      root_ = std::move(value);
    else if (open_.back().is_object)
      open_.back().members.back().value = std::move(value);
    else
      open_.back().items.push_back(std::move(value));
  }

  [[nodiscard]] std::vector<std::uint32_t> sorted(const level& object) const;

  const std::string& file_;
  std::vector<level> open_;
  json root_;
};

inline std::vector<std::uint32_t> json_builder::sorted(const level& object) const {
  const auto& members = object.members;
  std::vector<std::uint32_t> order(members.size());
  std::iota(order.begin(), order.end(), std::uint32_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return members[a].key < members[b].key; });
  for (std::size_t i = 1; i < order.size(); ++i)
    if (members[order[i - 1]].key == members[order[i]].key)
      raise<format_error>(concat(file_, ": byte ", object.positions[order[i]], ": key ",
                                 in_quotes(members[order[i]].key), " appears twice in one object"));
  return order;
}

}  // namespace detail

/// \brief Parses one JSON text of a file from outside.
///
/// Refused with the byte position: what the standard refuses, text that is not UTF-8, NaN and Infinity, equal
/// keys in one object, and more than the limits.
/// \param file  name for messages
/// \throws format_error
[[nodiscard]] inline json parse_json(std::string_view text, const std::string& file,
                                     const json_limits& limits = {}) {
  const std::string foreign = describe_foreign_file(as_bytes(text));
  if (!foreign.empty()) detail::raise<format_error>(file + ": " + foreign);
  detail::json_builder builder{file};
  detail::parse_json_events(text, file, limits, builder);
  return builder.take();
}

}  // namespace pesc
