// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/io/detail/json_parser.hpp"
#include "pesc/io/element_type.hpp"
#include "pesc/io/file_kind.hpp"
#include "pesc/io/quoted.hpp"
#include "pesc/io/tensor_info.hpp"

// A safetensors file: 8 bytes little-endian N, N bytes of JSON, data to the end. The JSON maps tensor names to
// {"dtype", "shape", "data_offsets": [begin, end)}; offsets count from the start of the data.

namespace pesc::detail {

inline constexpr std::size_t safetensors_max_header = 100'000'000;
inline constexpr std::size_t safetensors_max_rank = 8;

struct safetensors_header {
  std::map<std::string, std::string, std::less<>> metadata;
  std::vector<tensor_info> tensors;  // sorted by name
};

/// \brief Turns the events of the header's JSON into tensors; no tree in between, so memory stays near the text's.
class safetensors_events {
 public:
  struct entry {
    tensor_info info;
    std::vector<index_t> offsets;
    bool has_dtype = false, has_shape = false, has_offsets = false;
  };

  safetensors_events(const std::string& file, safetensors_header& out) : file_{file}, out_{out} {}

  void open(bool object, std::size_t at) {
    if (depth_ == 0 && !object) fail(at, "the header is a list, expected an object");
    if (depth_ == 1 && !object) fail(at, concat(subject(), " is a list, expected an object"));
    if (depth_ == 2) {
      if (object || list_ == nullptr)
        fail(at, concat(subject(), ": ", in_quotes(key_), " has the wrong type"));
    }
    if (depth_ == 3)
      fail(at, concat(subject(), ": ", in_quotes(key_), " holds a list or object, expected integers"));
    ++depth_;
  }

  void close(bool, std::size_t at) {
    --depth_;
    list_ = nullptr;
    if (depth_ != 1 || in_metadata_) return void(in_metadata_ = in_metadata_ && depth_ > 1);
    const entry& done = entries.back();
    const char* missing = !done.has_dtype     ? "dtype"
                          : !done.has_shape   ? "shape"
                          : !done.has_offsets ? "data_offsets"
                                              : nullptr;
    if (missing != nullptr) fail(at, concat(subject(), " has no \"", missing, "\""));
    if (done.offsets.size() != 2)
      fail(at, concat(subject(), ": data_offsets has ", done.offsets.size(), " numbers, expected 2"));
  }

  void key(std::string name, std::size_t at) {
    if (depth_ == 1) return begin_entry(std::move(name), at);
    key_ = std::move(name);
    key_at_ = at;
    if (in_metadata_) return;
    entry& now = entries.back();
    list_ = nullptr;
    if (key_ == "dtype") {
      once(now.has_dtype);
    } else if (key_ == "shape") {
      once(now.has_shape);
      list_ = &now.info.shape;
    } else if (key_ == "data_offsets") {
      once(now.has_offsets);
      list_ = &now.offsets;
    } else {
      fail(at, concat(subject(), " has an unknown key ", in_quotes(key_)));
    }
  }

  void scalar(json value, std::size_t at) {
    if (depth_ == 0) fail(at, concat("the header is ", value.type_name(), ", expected an object"));
    if (depth_ == 1) fail(at, concat(subject(), " is ", value.type_name(), ", expected an object"));
    if (in_metadata_) return metadata(value, at);
    if (depth_ == 3) return number(value, at);
    const std::string* text = value.if_string();
    if (list_ != nullptr || text == nullptr)
      fail(at, concat(subject(), ": ", in_quotes(key_), " is ", value.type_name(), ", expected ",
                      list_ != nullptr ? "a list" : "a string"));
    entries.back().info.dtype_name = *text;
    entries.back().info.dtype = element_type_named(*text);
  }

  std::vector<entry> entries;

 private:
  void begin_entry(std::string name, std::size_t at) {
    in_metadata_ = name == "__metadata__";
    if (in_metadata_ && std::exchange(seen_metadata_, true)) fail(at, "\"__metadata__\" appears twice");
    if (in_metadata_) return;
    entries.emplace_back();
    entries.back().info.name = std::move(name);
  }

  void metadata(const json& value, std::size_t at) {
    const std::string* text = value.if_string();
    if (text == nullptr || depth_ != 2)
      fail(at, concat("metadata ", in_quotes(key_), " is ", value.type_name(), ", expected a string"));
    if (!out_.metadata.emplace(key_, *text).second)
      fail(at, concat("metadata ", in_quotes(key_), " appears twice"));
  }

  void number(const json& value, std::size_t at) {
    const auto number = value.to_int();
    if (!number || *number < 0)
      fail(at,
           concat(subject(), ": ", in_quotes(key_), " holds ",
                  number ? "a negative number" : value.type_name(), ", expected integers from 0 to 2^63-1"));
    const std::size_t limit = list_ == &entries.back().offsets ? 2 : safetensors_max_rank;
    if (list_->size() == limit)
      fail(at, concat(subject(), ": ", in_quotes(key_), " has more than ", limit, " numbers"));
    list_->push_back(*number);
  }

  void once(bool& seen) const {
    if (std::exchange(seen, true))
      fail(key_at_, concat(subject(), ": key ", in_quotes(key_), " appears twice"));
  }

  [[nodiscard]] std::string subject() const {
    if (in_metadata_) return "\"__metadata__\"";
    return entries.empty() ? std::string{"the header"} : "tensor " + in_quotes(entries.back().info.name);
  }

  [[noreturn]] void fail(std::size_t at, const std::string& what) const {
    raise<format_error>(concat(file_, ": byte ", at, ": ", what));
  }

  const std::string& file_;
  safetensors_header& out_;
  std::vector<index_t>* list_ = nullptr;
  std::string key_;
  std::size_t key_at_ = 0;
  int depth_ = 0;
  bool in_metadata_ = false;
  bool seen_metadata_ = false;
};

/// \brief The number of bytes of JSON, checked against the size of the file.
/// \param start  the file, or at least its first 512 bytes
inline std::size_t safetensors_json_size(std::span<const std::byte> start, index_t file_size,
                                         const std::string& file) {
  // A length field may look like the mark of another format; a brace behind it decides.
  const bool plausible = start.size() > 8 && start[8] == std::byte{'{'};
  const std::string foreign = plausible ? std::string{} : describe_foreign_file(start, file_size);
  if (!foreign.empty()) raise<format_error>(file + ": " + foreign);
  if (file_size < 8)
    raise<format_error>(concat(file, ": the file has ", file_size,
                               " bytes, expected at least 8 for the length of the "
                               "header. The download may be cut short."));
  const auto length = load_unaligned<std::uint64_t>(start.data());
  const auto rest = static_cast<std::uint64_t>(file_size - 8);
  if (length > safetensors_max_header && length >> 40 != 0 && __builtin_bswap64(length) <= rest)
    raise<format_error>(file + ": the header length is in big-endian order, expected little-endian");
  if (length > safetensors_max_header)
    raise<format_error>(concat(file, ": header claims ", length, " bytes, at most ", safetensors_max_header,
                               " are allowed. This is no safetensors file, or it is damaged."));
  if (length > rest)
    raise<format_error>(concat(file, ": header claims ", length, " bytes, file has ", rest,
                               " after the length field. The download may be cut short."));
  if (length == 0) raise<format_error>(file + ": the header is empty, expected a JSON object");
  if (!plausible)
    raise<format_error>(concat(file, ": byte 8: the header starts with ",
                               in_quotes(as_text(start.subspan(8, 1))), ", expected \"{\""));
  return static_cast<std::size_t>(length);
}

/// \brief Checks the size that a tensor's shape and type ask for.
inline void check_tensor_size(const tensor_info& info, const std::string& file) {
  const auto subject = [&] { return concat(file, ": tensor ", in_quotes(info.name)); };
  const bool known = info.dtype != element_type::unknown;
  const auto count = checked_count(info.shape);
  const auto bits = count ? checked_product(*count, bits_of(info.dtype)) : count;
  if (!bits)
    raise<format_error>(concat(subject(), ": shape ", shape_text(info.shape), " of ",
                               one_line(info.dtype_name, 40), " overflows"));
  // The element size of an unknown type is unknown too; such a tensor is refused when somebody asks for it.
  if (!known) return;
  if (*bits % 8 != 0)
    raise<format_error>(concat(subject(), ": shape ", shape_text(info.shape), " of ", info.dtype_name, " is ",
                               *bits, " bits, expected whole bytes"));
  if (*bits / 8 != info.size)
    raise<format_error>(concat(subject(), " has ", info.size, " bytes but ", shape_text(info.shape), " ",
                               info.dtype_name, " needs ", *bits / 8));
}

/// \brief Checks that the tensors, in the order of their offsets, fill the data without hole or overlap.
inline void check_safetensors_layout(std::vector<tensor_info>& tensors, index_t data_size,
                                     const std::string& file) {
  std::sort(tensors.begin(), tensors.end(), [](const tensor_info& a, const tensor_info& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.size < b.size;
  });
  index_t end = 0;
  const tensor_info* before = nullptr;
  for (const tensor_info& info : tensors) {
    const std::string name = in_quotes(info.name);
    if (info.size < 0)
      raise<format_error>(concat(file, ": tensor ", name, " ends at data byte ", info.offset + info.size,
                                 " before it begins at ", info.offset));
    if (info.size > data_size - info.offset)
      raise<format_error>(concat(file, ": tensor ", name, " ends at data byte ", info.offset + info.size,
                                 ", the file has ", data_size,
                                 " bytes of data. The download may be cut short."));
    if (info.offset < end)
      raise<format_error>(concat(file, ": tensors ", in_quotes(before->name), " and ", name,
                                 " overlap at data byte ", info.offset));
    if (info.offset > end)
      raise<format_error>(concat(file, ": data bytes ", end, " to ", info.offset, " before tensor ", name,
                                 " belong to no tensor"));
    check_tensor_size(info, file);
    end = info.offset + info.size;
    before = &info;
  }
  if (end != data_size)
    raise<format_error>(
        concat(file, ": the last ", data_size - end, " of ", data_size, " data bytes belong to no tensor"));
}

/// \brief Reads and checks the JSON of a header in front of `data_size` bytes of data.
inline safetensors_header parse_safetensors(std::string_view text, index_t data_size,
                                            const std::string& file) {
  safetensors_header out;
  safetensors_events events{file, out};
  const json_limits limits{8, safetensors_max_header, 16'000'000};
  parse_json_events(text, file, limits, events, 8);
  out.tensors.reserve(events.entries.size());
  for (auto& entry : events.entries) {
    entry.info.offset = entry.offsets[0];
    // Both are from 0 to 2^63-1, so the difference fits.
    entry.info.size = entry.offsets[1] - entry.offsets[0];
    out.tensors.push_back(std::move(entry.info));
  }
  const auto by_name = [](const tensor_info& a, const tensor_info& b) { return a.name < b.name; };
  std::sort(out.tensors.begin(), out.tensors.end(), by_name);
  for (std::size_t i = 1; i < out.tensors.size(); ++i)
    if (out.tensors[i - 1].name == out.tensors[i].name)
      raise<format_error>(concat(file, ": tensor ", in_quotes(out.tensors[i].name), " appears twice"));
  check_safetensors_layout(out.tensors, data_size, file);
  std::sort(out.tensors.begin(), out.tensors.end(), by_name);
  return out;
}

}  // namespace pesc::detail
