// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "pesc/core/error.hpp"
#include "pesc/io/detail/json_value.hpp"
#include "pesc/io/quoted.hpp"

namespace pesc {

/// \brief Reads the keys of one object by type; errors name the file and the key. Keeps no copy of the object.
///
/// A key whose value is `null` counts as absent.
class json_fields {
 public:
  /// \throws format_error when `object` is not an object
  /// \param path  keys that lead to this object, for messages: "rope_parameters."
  json_fields(const json& object, std::string file, std::string path = {})
      : object_{&object}, file_{std::move(file)}, path_{std::move(path)} {
    if (!object.is_object())
      fail(detail::concat(
          path_.empty() ? std::string{"the text"} : "key " + in_quotes(path_.substr(0, path_.size() - 1)),
          " is ", object.type_name(), ", expected an object"));
  }

  [[nodiscard]] const std::string& file() const { return file_; }

  /// \brief The value under `key`; null when it is absent or `null`.
  [[nodiscard]] const json* find(std::string_view key) const {
    const json* value = object_->find(key);
    return value != nullptr && !value->is_null() ? value : nullptr;
  }
  /// \brief Whether the key is there with the value `null`.
  [[nodiscard]] bool is_null(std::string_view key) const {
    const json* value = object_->find(key);
    return value != nullptr && value->is_null();
  }
  [[nodiscard]] bool has(std::string_view key) const { return find(key) != nullptr; }

  [[nodiscard]] std::int64_t get_int(std::string_view key) const {
    return as_int(key, required(key, "an integer"));
  }
  [[nodiscard]] std::int64_t get_int(std::string_view key, std::int64_t otherwise) const {
    const json* value = find(key);
    return value != nullptr ? as_int(key, *value) : otherwise;
  }

  [[nodiscard]] double get_double(std::string_view key) const {
    return as_double(key, required(key, "a number"));
  }
  [[nodiscard]] double get_double(std::string_view key, double otherwise) const {
    const json* value = find(key);
    return value != nullptr ? as_double(key, *value) : otherwise;
  }

  [[nodiscard]] bool get_bool(std::string_view key) const {
    return as_bool(key, required(key, "true or false"));
  }
  [[nodiscard]] bool get_bool(std::string_view key, bool otherwise) const {
    const json* value = find(key);
    return value != nullptr ? as_bool(key, *value) : otherwise;
  }

  [[nodiscard]] std::string get_string(std::string_view key) const {
    return as_string(key, required(key, "a string"));
  }
  [[nodiscard]] std::string get_string(std::string_view key, std::string_view otherwise) const {
    const json* value = find(key);
    return value != nullptr ? as_string(key, *value) : std::string{otherwise};
  }

  /// \brief The object under `key`.
  [[nodiscard]] json_fields get_object(std::string_view key) const {
    return {required(key, "an object"), file_, path_ + std::string{key} + '.'};
  }

  /// \brief The list under `key`.
  [[nodiscard]] const std::vector<json>& get_list(std::string_view key) const {
    const json& value = required(key, "a list");
    if (!value.is_array()) wrong_type(key, value, "a list");
    return value.items();
  }

  /// \brief "file: key "name"", the start of a message about one key.
  [[nodiscard]] std::string where(std::string_view key) const {
    return file_ + ": key " + in_quotes(path_ + std::string{key});
  }

  [[noreturn]] void wrong_type(std::string_view key, const json& value, const char* expected) const {
    detail::raise<format_error>(
        detail::concat(where(key), " is ", value.type_name(), ", expected ", expected));
  }

 private:
  [[nodiscard]] const json& required(std::string_view key, const char* expected) const {
    const json* value = find(key);
    if (value == nullptr)
      detail::raise<format_error>(detail::concat(where(key), " is missing, expected ", expected));
    return *value;
  }

  [[nodiscard]] std::int64_t as_int(std::string_view key, const json& value) const {
    const auto number = value.to_int();
    if (!number && value.to_uint())
      detail::raise<format_error>(
          detail::concat(where(key), " is ", *value.to_uint(), ", expected less than 2^63"));
    if (!number) wrong_type(key, value, "an integer");
    return *number;
  }
  [[nodiscard]] double as_double(std::string_view key, const json& value) const {
    const auto number = value.to_double();
    if (!number) wrong_type(key, value, "a number");
    return *number;
  }
  [[nodiscard]] bool as_bool(std::string_view key, const json& value) const {
    const auto truth = value.to_bool();
    if (!truth) wrong_type(key, value, "true or false");
    return *truth;
  }
  [[nodiscard]] std::string as_string(std::string_view key, const json& value) const {
    const std::string* text = value.if_string();
    if (text == nullptr) wrong_type(key, value, "a string");
    return *text;
  }

  [[noreturn]] void fail(const std::string& what) const { detail::raise<format_error>(file_ + ": " + what); }

  const json* object_;
  std::string file_;
  std::string path_;
};

}  // namespace pesc
