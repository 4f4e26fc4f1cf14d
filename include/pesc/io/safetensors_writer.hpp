// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/core/function_ref.hpp"
#include "pesc/io/detail/json_writer.hpp"
#include "pesc/io/detail/safetensors_header.hpp"
#include "pesc/io/file.hpp"
#include "pesc/io/tensor_info.hpp"

namespace pesc {

/// \brief Takes the bytes of a tensor, in one piece or several.
using byte_sink = function_ref<void(std::span<const std::byte>)>;

/// \brief Collects tensors and writes them as one safetensors file, streamed.
///
/// The layout is that of the reference writer, to the byte: larger element types first, then by name.
class safetensors_writer {
 public:
  /// \throws format_error when the key is taken
  void set_metadata(std::string key, std::string value) {
    if (!metadata_.emplace(std::move(key), std::move(value)).second)
      detail::raise<format_error>("safetensors: a metadata key was set twice");
  }

  /// \brief A tensor whose values stay where they are until the file is written.
  /// \throws format_error when the name is taken or the bytes do not fit the shape
  void add(std::string name, element_type type, std::vector<index_t> shape,
           std::span<const std::byte> bytes) {
    const index_t need = check(name, type, shape);
    if (need != static_cast<index_t>(bytes.size()))
      detail::raise<format_error>(detail::concat("safetensors: tensor ", in_quotes(name), " has ",
                                                 bytes.size(), " bytes but ", shape_text(shape), " ",
                                                 name_of(type), " needs ", need));
    entries_.push_back({std::move(name), type, std::move(shape), need, bytes, nullptr});
  }

  /// \brief A tensor of values in the caller's memory.
  template <class T, std::size_t Extent>
  void add(std::string name, std::vector<index_t> shape, std::span<T, Extent> values) {
    using element = std::remove_const_t<T>;
    static_assert(element_type_of<element> != element_type::unknown,
                  "pesc: no file type holds values of this C++ type");
    add(std::move(name), element_type_of<element>, std::move(shape),
        std::as_bytes(std::span<const element>{values}));
  }

  /// \brief A tensor whose bytes `provider(byte_sink)` makes when the file is written.
  template <class Provider>
    requires std::is_invocable_v<Provider&, byte_sink>
  void add(std::string name, element_type type, std::vector<index_t> shape, Provider provider) {
    const index_t need = check(name, type, shape);
    entries_.push_back({std::move(name),
                        type,
                        std::move(shape),
                        need,
                        {},
                        std::make_unique<callable<Provider>>(std::move(provider))});
  }

  /// \brief Bytes of all tensors added so far, without the header.
  [[nodiscard]] index_t data_bytes() const {
    index_t sum = 0;
    for (const entry& e : entries_) sum += e.bytes;
    return sum;
  }

  /// \brief Names of all tensors added so far, in that order.
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const entry& e : entries_) out.push_back(e.name);
    return out;
  }

  /// \brief Writes to a temporary file and renames it.
  /// \throws io_error, format_error
  void write(const std::string& path) const {
    atomic_file file{path};
    write_to([&](std::span<const std::byte> bytes) { file.write(bytes); });
    file.commit();
  }

  /// \brief The whole file in memory.
  [[nodiscard]] std::vector<std::byte> to_bytes() const {
    std::vector<std::byte> out;
    write_to([&](std::span<const std::byte> bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); });
    return out;
  }

 private:
  struct source {
    source() = default;
    source(const source&) = delete;
    source& operator=(const source&) = delete;
    virtual ~source() = default;
    virtual void produce(byte_sink sink) const = 0;
  };
  template <class Provider>
  struct callable final : source {
    explicit callable(Provider p) : provider{std::move(p)} {}
    void produce(byte_sink sink) const override { provider(sink); }
    mutable Provider provider;
  };
  struct entry {
    std::string name;
    element_type type;
    std::vector<index_t> shape;
    index_t bytes;
    std::span<const std::byte> values;
    std::unique_ptr<source> provider;
  };

  [[nodiscard]] static index_t check(const std::string& name, element_type type,
                                     const std::vector<index_t>& shape) {
    const auto need = type != element_type::unknown ? checked_bytes(type, shape) : std::nullopt;
    if (!need || name == "__metadata__" || shape.size() > detail::safetensors_max_rank)
      detail::raise<format_error>(detail::concat("safetensors: tensor ", in_quotes(name),
                                                 " cannot be written as ", shape_text(shape), " ",
                                                 name_of(type)));
    return *need;
  }

  [[nodiscard]] std::vector<const entry*> sorted() const {
    std::vector<const entry*> order;
    for (const entry& e : entries_) order.push_back(&e);
    std::sort(order.begin(), order.end(), [](const entry* a, const entry* b) {
      return a->type != b->type ? a->type > b->type : a->name < b->name;
    });
    std::vector<std::string_view> names;
    for (const entry& e : entries_) names.push_back(e.name);
    std::sort(names.begin(), names.end());
    if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
      detail::raise<format_error>(
          detail::concat("safetensors: tensor ", in_quotes(*twice), " was added twice"));
    return order;
  }

  [[nodiscard]] std::string header_text(const std::vector<const entry*>& order) const;
  void write_to(byte_sink sink) const;

  std::map<std::string, std::string> metadata_;
  std::vector<entry> entries_;
};

inline std::string safetensors_writer::header_text(const std::vector<const entry*>& order) const {
  std::string out = "{";
  if (!metadata_.empty()) {
    out += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata_) {
      if (out.back() != '{') out += ',';
      detail::write_json_string(out, key);
      out += ':';
      detail::write_json_string(out, value);
    }
    out += '}';
  }
  index_t offset = 0;
  for (const entry* e : order) {
    if (out.size() > 1) out += ',';
    detail::write_json_string(out, e->name);
    out += detail::concat(":{\"dtype\":\"", name_of(e->type), "\",\"shape\":[");
    for (std::size_t i = 0; i < e->shape.size(); ++i) out += (i > 0 ? "," : "") + std::to_string(e->shape[i]);
    out += detail::concat("],\"data_offsets\":[", offset, ",", offset + e->bytes, "]}");
    offset += e->bytes;
  }
  out += '}';
  out.append((8 - out.size() % 8) % 8, ' ');
  if (out.size() > detail::safetensors_max_header)
    detail::raise<format_error>(detail::concat("safetensors: the header would have ", out.size(),
                                               " bytes, at most ", detail::safetensors_max_header,
                                               " are allowed. Write several files."));
  return out;
}

inline void safetensors_writer::write_to(byte_sink sink) const {
  const std::vector<const entry*> order = sorted();
  const std::string header = header_text(order);
  const std::uint64_t length = header.size();
  sink(std::as_bytes(std::span{&length, 1}));
  sink(std::as_bytes(std::span{header.data(), header.size()}));
  for (const entry* e : order) {
    if (e->provider == nullptr) {
      sink(e->values);
      continue;
    }
    index_t count = 0;
    const auto counted = [&](std::span<const std::byte> bytes) {
      count += static_cast<index_t>(bytes.size());
      sink(bytes);
    };
    e->provider->produce(byte_sink{counted});
    if (count != e->bytes)
      detail::raise<format_error>(detail::concat("safetensors: tensor ", in_quotes(e->name), ": ", count,
                                                 " bytes were made, expected ", e->bytes));
  }
}

}  // namespace pesc
