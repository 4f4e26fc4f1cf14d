// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"
#include "pesc/io/detail/json_sink.hpp"

namespace pesc::detail {

/// \brief Text in quotes for a message: cut at 80 bytes, bytes outside printable ASCII as \xNN.
inline std::string quoted_excerpt(std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text.substr(0, 80)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7F) {
      out += "\\x";
      out += digits[byte >> 4];
      out += digits[byte & 15u];
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
  }
  out += text.size() > 80 ? "...\"" : "\"";
  return out;
}

/// \brief What a JSON value is, in the words of a message.
enum class json_kind : std::uint8_t { text, number, boolean, null, list, object };

inline std::string_view name_of(json_kind kind) {
  constexpr std::string_view names[] = {"text", "a number", "a boolean", "null", "a list", "an object"};
  return names[static_cast<int>(kind)];
}

/// \brief A member of the record, or `input`/`output` of its first instance.
struct record_field {
  std::string key;
  json_kind kind = json_kind::null;
  std::string text;
  index_t integer = -1;
};

/// \brief Takes the members of one JSON object out of its text without building a tree.
class record_fields final : public json_sink {
 public:
  std::vector<record_field> members;   ///< of the object itself
  std::vector<record_field> instance;  ///< of the first object in the list `instances`
  std::string error;                   ///< empty when the text was one well-formed object

  explicit record_fields(std::string_view text) {
    const char* seen = nullptr;
    const bool good = read_json_text<json_sink>(text, seen, *this);
    if (!good && error.empty()) error = "not well-formed JSON";
    if (good && !object_) error = concat("found ", name_of(top_), ", expected an object");
  }

  [[nodiscard]] static const record_field* find(const std::vector<record_field>& fields,
                                                std::string_view key) {
    for (const record_field& field : fields)
      if (field.key == key) return &field;
    return nullptr;
  }

  // The calls of the parser.
  bool null() override { return value(json_kind::null); }
  bool boolean(bool) override { return value(json_kind::boolean); }
  bool integer(std::int64_t number) override { return value(json_kind::number, number); }
  bool natural(std::uint64_t number) override {
    constexpr std::uint64_t most = std::uint64_t{1} << 62;
    return value(json_kind::number, static_cast<index_t>(number < most ? number : most));
  }
  bool real(double) override { return value(json_kind::number); }
  bool text(std::string& text) override {
    record_field* field = value_field(json_kind::text);
    if (field != nullptr) field->text = std::move(text);
    return error.empty();
  }
  bool key(std::string& name) override {
    if (std::vector<record_field>* fields = open_fields()) {
      if (find(*fields, name) != nullptr)
        return fail(concat("field ", quoted_excerpt(name), " appears twice"));
      if (fields->size() >= max_fields) return fail(concat("more than ", max_fields, " fields"));
      fields->push_back({std::move(name), json_kind::null, {}, -1});
    }
    return true;
  }
  bool open(bool object) override {
    if (object) {
      if (depth_ == 2 && in_instances_) ++instances_;
      if (depth_ == 0) object_ = true;
      return enter(json_kind::object);
    }
    if (depth_ == 1) in_instances_ = !members.empty() && members.back().key == "instances";
    return enter(json_kind::list);
  }
  bool close(bool object) override {
    if (!object && depth_ == 2) in_instances_ = false;
    --depth_;
    return true;
  }
  bool invalid(std::size_t position, std::string_view what) override {
    // The parser's own words begin after "... at line 1, column 18: ".
    if (const std::size_t column = what.find("column "); column != std::string_view::npos)
      if (const std::size_t begin = what.find(": ", column); begin != std::string_view::npos)
        what.remove_prefix(begin + 2);
    std::string text{what.substr(0, 160)};
    for (char& c : text)
      if (static_cast<unsigned char>(c) < 0x20) c = ' ';
    return fail(concat("not JSON at byte ", position, " (", text, ")"));
  }

 private:
  static constexpr std::size_t max_fields = 256;
  static constexpr int max_depth = 64;

  /// \brief Where the members of the innermost open object are kept, if they are.
  std::vector<record_field>* open_fields() {
    if (depth_ == 1 && object_) return &members;
    if (depth_ == 3 && in_instances_ && instances_ == 1) return &instance;
    return nullptr;
  }

  record_field* value_field(json_kind kind) {
    if (depth_ == 0) top_ = kind;
    std::vector<record_field>* fields = open_fields();
    if (fields == nullptr || fields->empty()) return nullptr;
    fields->back().kind = kind;
    return &fields->back();
  }

  bool value(json_kind kind, index_t integer = -1) {
    if (record_field* field = value_field(kind)) field->integer = integer;
    return true;
  }

  bool enter(json_kind kind) {
    value(kind);
    if (++depth_ > max_depth) return fail(concat("nested deeper than ", max_depth));
    return true;
  }

  bool fail(std::string message) {
    error = std::move(message);
    return false;
  }

  int depth_ = 0;
  index_t instances_ = 0;
  bool in_instances_ = false;
  bool object_ = false;
  json_kind top_ = json_kind::null;
};

}  // namespace pesc::detail
