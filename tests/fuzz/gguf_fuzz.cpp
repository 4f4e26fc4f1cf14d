// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "fuzz/mutation.hpp"
#include "pesc/model/gguf_model.hpp"
#include "pesc/text/gguf_tokenizer.hpp"

namespace {

/// Places of numbers that steer the reader: counts, lengths, types, dimensions, offsets.
class field_finder {
 public:
  field_finder(const std::uint8_t* data, std::size_t size) : data_{data}, size_{size} {
    if (size < 24) return;
    note(4, 4);
    at_ = 8;
    const std::uint64_t tensors = take(8), keys = take(8);
    for (std::uint64_t i = 0; i < keys && whole_; ++i) key();
    for (std::uint64_t i = 0; i < tensors && whole_; ++i) tensor();
  }

  [[nodiscard]] const std::vector<fuzz::field>& fields() const { return fields_; }

 private:
  void note(std::size_t at, std::size_t bytes) { fields_.push_back({at, bytes}); }

  std::uint64_t take(std::size_t bytes) {
    std::uint64_t value = 0;
    if (!whole_ || size_ - at_ < bytes) return whole_ = false;
    std::memcpy(&value, data_ + at_, bytes);
    note(at_, bytes);
    at_ += bytes;
    return value;
  }
  void skip(std::uint64_t bytes) {
    if (whole_ && size_ - at_ >= bytes)
      at_ += bytes;
    else
      whole_ = false;
  }
  void text() { skip(take(8)); }

  void value(std::uint64_t type) {
    constexpr std::size_t widths[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type == 8) return text();
    if (type == 9) {
      const std::uint64_t element = take(4), count = take(8);
      for (std::uint64_t i = 0; i < count && whole_; ++i) value(element == 9 ? 99 : element);
      return;
    }
    if (type > 12) whole_ = false;
    if (whole_) take(widths[type]);
  }
  void key() {
    text();
    value(take(4));
  }
  void tensor() {
    text();
    const std::uint64_t rank = take(4);
    for (std::uint64_t i = 0; i < rank && whole_; ++i) take(8);
    take(4);
    take(8);
  }

  const std::uint8_t* data_;
  std::size_t size_, at_ = 0;
  bool whole_ = true;
  std::vector<fuzz::field> fields_;
};

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  fuzz::chooser choose{seed};
  const field_finder found(data, size);
  if (choose.below(2) == 0 || found.fields().empty()) return LLVMFuzzerMutate(data, size, max_size);
  fuzz::set_to_border(data, found.fields(), choose);
  return size;
}

// What is accepted has tensors that lie one behind the other in the file and lists that can be read; a model in it is
// described or refused, and so is its tokenizer.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto* first = reinterpret_cast<const std::byte*>(data);
  std::size_t read = 0;
  try {
    const auto file = pesc::gguf_file::from_bytes("fuzz", {first, first + size});
    pesc::index_t end = 0;
    for (const pesc::tensor_info& t : file.tensors()) {
      if (t.offset < end || static_cast<pesc::index_t>(t.bytes.size()) != t.size) std::abort();
      end = t.offset + t.size;
      for (const std::byte b : t.bytes) read += static_cast<std::size_t>(b);
      if (t.dtype != pesc::element_type::unknown && (pesc::is_block_type(t.dtype) || bits_of(t.dtype) >= 16))
        try {
          if (static_cast<pesc::index_t>(to_floats(t, "fuzz").size()) != t.count()) std::abort();
        } catch (const pesc::format_error&) {
        }
    }
    for (const auto& [key, count] : file.lists()) try {
        if (static_cast<pesc::index_t>(file.strings(key).size()) != count) std::abort();
        for (const std::string_view text : file.strings(key))
          for (const char c : text) read += static_cast<unsigned char>(c);
      } catch (const pesc::format_error&) {
      }
    try {
      static_cast<void>(pesc::config_of(file));
      static_cast<void>(pesc::named_tensors(file));
    } catch (const pesc::format_error&) {
    }
    try {
      const auto t = pesc::gguf_tokenizer::from(file);
      for (const std::int32_t id : t.encode("Hello, world 123"))
        if (id < 0 || id >= t.size()) std::abort();
    } catch (const pesc::format_error&) {
    }
  } catch (const pesc::format_error&) {
  }
  // What was read must not be optimised away; no file is so long that the sum wraps to this.
  if (read == ~std::size_t{0}) std::abort();
  return 0;
}
