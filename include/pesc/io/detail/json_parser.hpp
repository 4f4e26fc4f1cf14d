// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/io/detail/json_sink.hpp"
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
class json_events final : public json_sink {
 public:
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
    static_cast<void>(read_json_text<json_sink>(text_, seen_, *this));
  }

  bool null() override { return scalar(json{}); }
  bool boolean(bool value) override { return scalar(json{value}); }
  bool integer(std::int64_t value) override { return scalar(json{value}); }
  bool natural(std::uint64_t value) override { return scalar(json{value}); }
  bool real(double value) override { return scalar(json{value}); }
  bool text(std::string& value) override { return scalar(json{std::move(value)}); }
  bool key(std::string& name) override {
    handler_.key(std::move(name), position());
    return true;
  }
  bool open(bool object) override {
    count();
    if (++depth_ > limits_.depth)
      fail(position(), concat("JSON nested deeper than ", limits_.depth, " levels"));
    handler_.open(object, position());
    return true;
  }
  bool close(bool object) override {
    --depth_;
    handler_.close(object, position());
    return true;
  }
  bool invalid(std::size_t read, std::string_view reason) override {
    // The end of the text counts as one character more.
    const std::size_t offset = read > 0 ? read - 1 : 0;
    const std::string_view word = python_number_at(text_, offset);
    if (!word.empty())
      fail(offset + offset_,
           concat(word, " is not a JSON number. Python writes it for values that are not finite"));
    if (offset >= text_.size())
      fail(text_.size() + offset_,
           text_.empty() ? "the text is empty, expected JSON" : "the JSON text ends too early");
    fail(offset + offset_, shortened_reason(reason));
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
