// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "pesc/io/detail/json_sink.hpp"

namespace pesc::detail {

/// \brief Reads characters and leaves behind how far it came: the library's events do not carry positions.
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

/// \brief Hands the library's events on.
template <class Sink>
class json_library_events {
 public:
  using library = nlohmann::json;

  explicit json_library_events(Sink& to) : to_{to} {}

  bool null() { return to_.null(); }
  bool boolean(bool value) { return to_.boolean(value); }
  bool number_integer(std::int64_t value) { return to_.integer(value); }
  bool number_unsigned(std::uint64_t value) { return to_.natural(value); }
  bool number_float(double value, const std::string&) { return to_.real(value); }
  bool string(std::string& value) { return to_.text(value); }
  bool binary(library::binary_t&) { return false; }
  bool start_object(std::size_t) { return to_.open(true); }
  bool start_array(std::size_t) { return to_.open(false); }
  bool end_object() { return to_.close(true); }
  bool end_array() { return to_.close(false); }
  bool key(std::string& name) { return to_.key(name); }
  bool parse_error(std::size_t read, const std::string&, const library::exception& reason) {
    return to_.invalid(read, reason.what());
  }

 private:
  Sink& to_;
};

template <class Sink>
bool read_json_text(std::string_view text, const char*& seen, Sink& to) {
  seen = text.data();
  const counting_iterator first{text.data(), &seen};
  const counting_iterator last{text.data() + text.size(), &seen};
  json_library_events<Sink> events{to};
  return nlohmann::json::sax_parse(first, last, &events);
}

}  // namespace pesc::detail
