// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "pesc/core/error.hpp"

namespace pesc {

class json;

namespace detail {

/// \brief One entry of an object; a template, so that it may be named while `json` is still incomplete.
template <class Json>
struct json_member {
  std::string key;
  Json value;
};

/// \brief Members in the order of the text, and their positions in the order of the keys.
struct json_members {
  std::vector<json_member<json>> list;
  std::vector<std::uint32_t> by_key;
};

}  // namespace detail

/// \brief One JSON value that owns what is below it. Objects keep the order of their keys.
///
/// Integers stay integers: 64 bits, signed or unsigned, apart from numbers written with a point or an exponent.
class json {
 public:
  using member = detail::json_member<json>;

  json() = default;
  json(bool value) : value_{value} {}
  template <std::integral Integer>
    requires(!std::is_same_v<Integer, bool> && !std::is_same_v<Integer, char>)
  json(Integer value) {
    if constexpr (std::is_signed_v<Integer>)
      value_ = std::int64_t{value};
    else
      value_ = std::uint64_t{value};
  }
  json(double value) : value_{value} {}
  json(std::string value) : value_{std::move(value)} {}
  json(std::string_view value) : value_{std::string{value}} {}
  json(const char* value) : value_{std::string{value}} {}

  /// \brief An empty `[]`.
  [[nodiscard]] static json array() {
    json out;
    out.value_ = std::vector<json>{};
    return out;
  }

  /// \brief An empty `{}`.
  [[nodiscard]] static json object() {
    json out;
    out.value_ = detail::json_members{};
    return out;
  }

  [[nodiscard]] bool is_null() const { return value_.index() == 0; }
  [[nodiscard]] bool is_array() const { return if_type<std::vector<json>>() != nullptr; }
  [[nodiscard]] bool is_object() const { return if_type<detail::json_members>() != nullptr; }
  [[nodiscard]] bool is_string() const { return if_type<std::string>() != nullptr; }

  /// \brief The type with its article, as messages put it: "a string".
  [[nodiscard]] const char* type_name() const {
    constexpr const char* names[] = {"null",     "a truth value", "an integer", "an integer",
                                     "a number", "a string",      "a list",     "an object"};
    return names[value_.index()];
  }

  [[nodiscard]] std::optional<bool> to_bool() const {
    if (const bool* value = if_type<bool>()) return *value;
    return {};
  }

  /// \brief The value of an integer that fits 64 signed bits; nothing for 1.0 and 2^63.
  [[nodiscard]] std::optional<std::int64_t> to_int() const {
    if (const auto* value = if_type<std::int64_t>()) return *value;
    if (const auto* value = if_type<std::uint64_t>())
      if (*value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        return static_cast<std::int64_t>(*value);
    return {};
  }

  /// \brief The value of an integer that fits 64 unsigned bits.
  [[nodiscard]] std::optional<std::uint64_t> to_uint() const {
    if (const auto* value = if_type<std::uint64_t>()) return *value;
    if (const auto* value = if_type<std::int64_t>())
      if (*value >= 0) return static_cast<std::uint64_t>(*value);
    return {};
  }

  /// \brief The value of any number, integers rounded to double.
  [[nodiscard]] std::optional<double> to_double() const {
    if (const auto* value = if_type<double>()) return *value;
    if (const auto* value = if_type<std::int64_t>()) return static_cast<double>(*value);
    if (const auto* value = if_type<std::uint64_t>()) return static_cast<double>(*value);
    return {};
  }

  /// \brief The text of a string, null for every other type.
  [[nodiscard]] const std::string* if_string() const { return if_type<std::string>(); }

  /// \brief The elements of a list; empty for every other type.
  [[nodiscard]] const std::vector<json>& items() const;

  /// \brief Key and value pairs of an object in the order of the text; empty for every other type.
  [[nodiscard]] const std::vector<member>& members() const;

  /// \brief The value under `key`, null when there is none or this is no object.
  [[nodiscard]] const json* find(std::string_view key) const;

  /// \brief Sets the value under `key` of an object (null becomes one); a new key goes to the end.
  json& set(std::string_view key, json value);

  /// \brief Adds an element to a list (null becomes one).
  json& push_back(json value);

  friend bool operator==(const json& a, const json& b);

 private:
  friend class json_builder_access;

  template <class T>
  [[nodiscard]] const T* if_type() const {
    return std::get_if<T>(&value_);
  }

  std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double, std::string, std::vector<json>,
               detail::json_members>
      value_;
};

inline const std::vector<json>& json::items() const {
  static const std::vector<json> none;
  const auto* list = if_type<std::vector<json>>();
  return list != nullptr ? *list : none;
}

inline const std::vector<json::member>& json::members() const {
  static const std::vector<member> none;
  const auto* object = if_type<detail::json_members>();
  return object != nullptr ? object->list : none;
}

inline const json* json::find(std::string_view key) const {
  const auto* object = if_type<detail::json_members>();
  if (object == nullptr) return nullptr;
  const auto at =
      std::lower_bound(object->by_key.begin(), object->by_key.end(), key,
                       [&](std::uint32_t i, std::string_view k) { return object->list[i].key < k; });
  if (at == object->by_key.end() || object->list[*at].key != key) return nullptr;
  return &object->list[*at].value;
}

inline json& json::set(std::string_view key, json value) {
  if (is_null()) value_ = detail::json_members{};
  auto* object = std::get_if<detail::json_members>(&value_);
  PESC_EXPECTS(object != nullptr, "json: a key can be set in an object only, this is ", type_name());
  const auto at =
      std::lower_bound(object->by_key.begin(), object->by_key.end(), key,
                       [&](std::uint32_t i, std::string_view k) { return object->list[i].key < k; });
  if (at != object->by_key.end() && object->list[*at].key == key) {
    object->list[*at].value = std::move(value);
  } else {
    object->by_key.insert(at, static_cast<std::uint32_t>(object->list.size()));
    object->list.push_back({std::string{key}, std::move(value)});
  }
  return *this;
}

inline json& json::push_back(json value) {
  if (is_null()) value_ = std::vector<json>{};
  auto* list = std::get_if<std::vector<json>>(&value_);
  PESC_EXPECTS(list != nullptr, "json: an element can be added to a list only, this is ", type_name());
  list->push_back(std::move(value));
  return *this;
}

/// \brief Equal types and values; the order of keys does not count, 1 and 1u are equal, 1 and 1.0 are not.
inline bool operator==(const json& a, const json& b) {
  if (const auto x = a.to_int(), y = b.to_int(); x || y) return x == y;
  if (a.value_.index() != b.value_.index()) return false;
  if (a.is_array()) return a.items() == b.items();
  if (!a.is_object()) {
    if (const auto* x = a.if_type<std::string>()) return *x == *b.if_type<std::string>();
    if (const auto* x = a.if_type<double>()) return *x == *b.if_type<double>();
    if (const auto* x = a.if_type<bool>()) return *x == *b.if_type<bool>();
    if (const auto* x = a.if_type<std::uint64_t>()) return *x == *b.if_type<std::uint64_t>();
    return true;
  }
  if (a.members().size() != b.members().size()) return false;
  for (const auto& [key, value] : a.members()) {
    const json* other = b.find(key);
    if (other == nullptr || !(value == *other)) return false;
  }
  return true;
}

/// \brief Builds values from a list of events without a search for every key; for the parser.
class json_builder_access {
 public:
  /// \brief Takes over members already known to have different keys; `by_key` sorts them.
  static json object(std::vector<json::member> members, std::vector<std::uint32_t> by_key) {
    json out;
    out.value_ = detail::json_members{std::move(members), std::move(by_key)};
    return out;
  }

  static json array(std::vector<json> items) {
    json out;
    out.value_ = std::move(items);
    return out;
  }
};

}  // namespace pesc
