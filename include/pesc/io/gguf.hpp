// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/io/block_types.hpp"
#include "pesc/io/detail/gguf_reader.hpp"
#include "pesc/io/detail/gguf_types.hpp"
#include "pesc/io/file.hpp"
#include "pesc/io/file_kind.hpp"
#include "pesc/io/json.hpp"
#include "pesc/io/mapped_file.hpp"
#include "pesc/io/safetensors.hpp"
#include "pesc/io/tensor_info.hpp"

namespace pesc {

namespace detail {

inline constexpr std::string_view gguf_mark = "GGUF";  ///< first bytes of every such file

}  // namespace detail

/// \brief Whether the file begins as a GGUF file does, whatever it is called.
/// \throws io_error where it cannot be read
[[nodiscard]] inline bool is_gguf(const std::string& path) {
  return detail::begins_with(path, detail::gguf_mark);
}

/// \brief An open GGUF file (versions 2 and 3): keys with their values, and tensors with the outer dimension first.
///
/// Everything is checked on opening. Tensors of types that are not read are listed with the type's name; only asking for their
/// values is an error.
class gguf_file {
 public:
  gguf_file() = default;

  /// \throws io_error, format_error
  [[nodiscard]] static gguf_file open(const std::string& path, open_options options = {}) {
    gguf_file out;
    out.name_ = path;
    if (options.map) {
      out.mapped_ = mapped_file{path};
      detail::gguf_reader in(path, out.mapped_.bytes());
      out.parse(in);
      out.bind(out.mapped_.bytes());
      return out;
    }
    index_t size = 0;
    std::tie(out.file_, size) = detail::open_to_read(path);
    detail::gguf_reader in(path, out.file_.get(), size);
    out.parse(in);
    if (!options.on_demand) {
      out.owned_.resize(static_cast<std::size_t>(size));
      detail::read_exactly_at(out.file_.get(), 0, out.owned_, path);
      out.bind(out.owned_);
    }
    return out;
  }

  /// \param name  stands for the file's name in messages
  /// \throws format_error
  [[nodiscard]] static gguf_file from_bytes(std::string name, std::vector<std::byte> bytes) {
    gguf_file out;
    out.name_ = std::move(name);
    out.owned_ = std::move(bytes);
    detail::gguf_reader in(out.name_, out.owned_);
    out.parse(in);
    out.bind(out.owned_);
    return out;
  }

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::uint32_t version() const { return version_; }
  [[nodiscard]] index_t alignment() const { return alignment_; }

  /// \brief The keys with one value, an object in the order of the file; those with lists are apart.
  [[nodiscard]] const json& keys() const { return keys_; }
  [[nodiscard]] json_fields fields() const { return json_fields{keys_, name_}; }

  /// \brief Names of the keys with a list, and how many elements each has.
  [[nodiscard]] std::map<std::string, index_t> lists() const {
    std::map<std::string, index_t> out;
    for (const auto& [key, list] : lists_) out.emplace(key, list.count);
    return out;
  }
  [[nodiscard]] bool has_list(std::string_view key) const { return lists_.find(key) != lists_.end(); }

  /// \brief The texts of a list; valid while this object is.
  /// \throws format_error when there is no such list, or it holds something else
  [[nodiscard]] std::vector<std::string_view> strings(std::string_view key) const {
    const list_place& list = find_list(key, detail::gguf_value::string, "texts");
    std::vector<std::string_view> out;
    out.reserve(static_cast<std::size_t>(list.count));
    const std::byte* at = front_.data() + list.first;
    for (index_t i = 0; i < list.count; ++i) {
      const auto length = static_cast<std::size_t>(load_unaligned<std::uint64_t>(at));
      out.emplace_back(reinterpret_cast<const char*>(at + 8), length);
      at += 8 + length;
    }
    return out;
  }

  /// \brief The numbers of a list of 32-bit floats.
  /// \throws format_error
  [[nodiscard]] std::vector<float> floats(std::string_view key) const {
    return numbers<float>(find_list(key, detail::gguf_value::f32, "32-bit floats"));
  }

  /// \brief The numbers of a list of 32-bit integers.
  /// \throws format_error
  [[nodiscard]] std::vector<std::int32_t> integers(std::string_view key) const {
    return numbers<std::int32_t>(find_list(key, detail::gguf_value::i32, "32-bit integers"));
  }

  /// \brief All tensors in the order of the file; `dtype_name` tells the type also where it is not read.
  [[nodiscard]] const std::vector<tensor_info>& tensors() const { return tensors_; }

  /// \brief The tensor of that name, or null.
  [[nodiscard]] const tensor_info* find(std::string_view name) const {
    const auto at = by_name_.find(name);
    return at == by_name_.end() ? nullptr : &tensors_[at->second];
  }

 private:
  struct list_place {
    detail::gguf_value type = detail::gguf_value::u8;
    index_t count = 0;
    index_t first = 0;  ///< offset of the first element
  };

  [[nodiscard]] const list_place& find_list(std::string_view key, detail::gguf_value type,
                                            const char* what) const {
    const auto at = lists_.find(key);
    if (at == lists_.end())
      detail::raise<format_error>(
          detail::concat(name_, ": key ", in_quotes(key), " is missing, expected a list of ", what));
    if (at->second.type != type)
      detail::raise<format_error>(detail::concat(name_, ": key ", in_quotes(key), " is a list of ",
                                                 detail::name_of(at->second.type), ", expected ", what));
    return at->second;
  }

  template <class T>
  [[nodiscard]] std::vector<T> numbers(const list_place& list) const {
    std::vector<T> out(static_cast<std::size_t>(list.count));
    if (!out.empty()) std::memcpy(out.data(), front_.data() + list.first, out.size() * sizeof(T));
    return out;
  }

  void parse(detail::gguf_reader& in);
  void read_key(detail::gguf_reader& in);
  void read_list(detail::gguf_reader& in, const std::string& key);
  [[nodiscard]] json read_value(detail::gguf_reader& in, detail::gguf_value type, const std::string& key);
  void read_tensor(detail::gguf_reader& in, index_t& data_end);

  void bind(std::span<const std::byte> whole) {
    for (tensor_info& tensor : tensors_)
      tensor.bytes =
          whole.subspan(static_cast<std::size_t>(tensor.position), static_cast<std::size_t>(tensor.size));
  }

  std::string name_;
  detail::descriptor file_;
  mapped_file mapped_;
  std::vector<std::byte> owned_;  ///< the whole file, where it was read at once
  std::vector<std::byte> front_;  ///< what lies before the tensors' values
  std::uint32_t version_ = 0;
  index_t alignment_ = 32;
  json keys_ = json::object();
  std::map<std::string, list_place, std::less<>> lists_;
  std::vector<tensor_info> tensors_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
};

inline void gguf_file::parse(detail::gguf_reader& in) {
  const auto start = in.front(512);
  if (!as_text(start).starts_with(detail::gguf_mark)) {
    const std::string foreign = describe_foreign_file(start, in.size());
    detail::raise<format_error>(
        name_ + ": " +
        (foreign.empty() ? "byte 0: a GGUF file begins with \"GGUF\", this one does not" : foreign));
  }
  in.skip(4, "the header");
  version_ = in.number<std::uint32_t>("the header");
  if (version_ != 2 && version_ != 3)
    detail::raise<format_error>(
        detail::concat(name_, ": byte 4: version ", version_, ", expected 2 or 3",
                       version_ != 0 && (version_ & 0xFFFFu) == 0
                           ? ". The file was written for machines of the other byte order."
                           : ". Convert the model again with a current program."));
  const auto tensors = in.number<std::uint64_t>("the header");
  const auto keys = in.number<std::uint64_t>("the header");
  // A tensor takes at least 24 bytes and a key 13: counts beyond that are damage, and cost nothing here.
  constexpr std::uint64_t most_keys = 65536;
  if (keys > most_keys || keys > static_cast<std::uint64_t>(in.left()) / 13)
    in.fail(detail::concat(keys, " keys, ", in.left(), " bytes are left of the file"));
  if (tensors > static_cast<std::uint64_t>(in.left()) / 24)
    in.fail(detail::concat(tensors, " tensors, ", in.left(), " bytes are left of the file"));
  for (std::uint64_t i = 0; i < keys; ++i) read_key(in);
  index_t data_end = 0;
  for (std::uint64_t i = 0; i < tensors; ++i) read_tensor(in, data_end);

  // The last tensor need not be padded.
  const index_t data = round_up(in.at(), alignment_);
  const index_t values_end = tensors_.empty() ? 0 : tensors_.back().offset + tensors_.back().size;
  if (values_end > in.size() - std::min(data, in.size()))
    detail::raise<format_error>(detail::concat(name_, ": the values of the tensors end at byte ",
                                               data + values_end, ", the file has ", in.size(),
                                               " bytes. The download may be cut short."));
  for (tensor_info& tensor : tensors_) {
    tensor.position = data + tensor.offset;
    tensor.file = file_.get();
  }
  front_ = std::move(in).take();
}

inline void gguf_file::read_key(detail::gguf_reader& in) {
  std::string key = in.string("the name of a key");
  if (keys_.find(key) != nullptr || lists_.find(key) != lists_.end())
    in.fail("key " + in_quotes(key) + " appears twice");
  const auto number = in.number<std::uint32_t>("the type of a key");
  if (number > static_cast<std::uint32_t>(detail::gguf_value::f64))
    in.fail(detail::concat("key ", in_quotes(key), " has the type ", number, ", expected 0 to 12"));
  const auto type = static_cast<detail::gguf_value>(number);
  if (type == detail::gguf_value::array) return read_list(in, key);
  json value = read_value(in, type, key);
  if (key == "general.alignment") {
    const index_t given = value.to_int().value_or(-1);
    if (type != detail::gguf_value::u32 || given < 8 || given > 65536 ||
        !std::has_single_bit(static_cast<std::uint64_t>(given)))
      in.fail(detail::concat("key \"general.alignment\" is ", given, " of type ", detail::name_of(type),
                             ", expected a power of two from 8 to 65536 of type u32"));
    alignment_ = given;
  }
  keys_.set(key, std::move(value));
}

inline json gguf_file::read_value(detail::gguf_reader& in, detail::gguf_value type, const std::string& key) {
  using enum detail::gguf_value;
  const char* what = "the value of a key";
  switch (type) {
    case u8:
      return in.number<std::uint8_t>(what);
    case i8:
      return in.number<std::int8_t>(what);
    case u16:
      return in.number<std::uint16_t>(what);
    case i16:
      return in.number<std::int16_t>(what);
    case u32:
      return in.number<std::uint32_t>(what);
    case i32:
      return in.number<std::int32_t>(what);
    case u64:
      return in.number<std::uint64_t>(what);
    case i64:
      return in.number<std::int64_t>(what);
    case f32:
      return static_cast<double>(in.number<float>(what));
    case f64:
      return in.number<double>(what);
    case boolean: {
      const auto byte = in.number<std::uint8_t>(what);
      if (byte > 1)
        in.fail(
            detail::concat("key ", in_quotes(key), " has the truth value ", int{byte}, ", expected 0 or 1"));
      return byte == 1;
    }
    default:
      return in.string(what);
  }
}

inline void gguf_file::read_list(detail::gguf_reader& in, const std::string& key) {
  const auto number = in.number<std::uint32_t>("the type of a list");
  const auto count = in.number<std::uint64_t>("the length of a list");
  if (number > static_cast<std::uint32_t>(detail::gguf_value::f64))
    in.fail(detail::concat("list ", in_quotes(key), " has elements of type ", number, ", expected 0 to 12"));
  const auto type = static_cast<detail::gguf_value>(number);
  if (type == detail::gguf_value::array)
    in.fail(detail::concat("list ", in_quotes(key), " holds lists, which no model of a known kind does"));
  const index_t least = type == detail::gguf_value::string ? 8 : detail::bytes_of(type);
  if (count > static_cast<std::uint64_t>(in.left() / least))
    in.fail(detail::concat("list ", in_quotes(key), " of ", count, " elements, ", in.left(),
                           " bytes are left of the file"));
  list_place list{type, static_cast<index_t>(count), in.at()};
  if (type == detail::gguf_value::string)
    for (std::uint64_t i = 0; i < count; ++i) static_cast<void>(in.text("a text of a list"));
  else
    in.skip(list.count * least, "a list");
  lists_.emplace(key, list);
}

inline void gguf_file::read_tensor(detail::gguf_reader& in, index_t& data_end) {
  tensor_info out;
  out.name = in.string("the name of a tensor");
  const auto where = [&] { return "tensor " + in_quotes(out.name); };
  if (out.name.size() > 256)
    in.fail(detail::concat(where(), " has a name of ", out.name.size(), " bytes, expected at most 256"));
  const auto rank = in.number<std::uint32_t>("a tensor");
  if (rank < 1 || rank > 4) in.fail(detail::concat(where(), " has ", rank, " dimensions, expected 1 to 4"));
  for (std::uint32_t i = 0; i < rank; ++i) {
    const auto dimension = in.number<std::uint64_t>("a tensor");
    if (dimension < 1 || dimension > std::uint64_t{1} << 62)
      in.fail(detail::concat(where(), " has a dimension of ", dimension));
    out.shape.insert(out.shape.begin(), static_cast<index_t>(dimension));
  }
  const auto number = in.number<std::uint32_t>("a tensor");
  const auto offset = in.number<std::uint64_t>("a tensor");
  const detail::gguf_tensor_type* type = detail::find_tensor_type(number);
  if (type == nullptr) in.fail(detail::concat(where(), " has the type ", number, ", which is not known"));
  out.dtype = type->type;
  out.dtype_name = type->name;
  const auto count = checked_count(out.shape);
  if (!count) in.fail(detail::concat(where(), ": shape ", shape_text(out.shape), " overflows"));
  if (out.shape.back() % type->weights != 0)
    in.fail(detail::concat(where(), ": rows of ", out.shape.back(), " are no whole number of blocks of ",
                           type->weights, " as ", type->name, " has"));
  const auto bytes = checked_product(*count / type->weights, type->bytes);
  if (!bytes || *bytes > in.size())
    in.fail(detail::concat(where(), ": shape ", shape_text(out.shape), " of ", type->name,
                           " is larger than the file"));
  out.size = *bytes;
  if (offset != static_cast<std::uint64_t>(data_end))
    in.fail(detail::concat(where(), " begins at data byte ", offset, ", expected ", data_end,
                           ": tensors follow one another, each at a multiple of ", alignment_));
  out.offset = data_end;
  if (!by_name_.emplace(out.name, tensors_.size()).second) in.fail(where() + " appears twice");
  // Both summands are at most the size of the file, so that nothing overflows.
  if (data_end + out.size > in.size())
    in.fail(where() + " ends behind the end of the file. The download may be cut short.");
  data_end = round_up(data_end + out.size, alignment_);
  tensors_.push_back(std::move(out));
}

}  // namespace pesc
