// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/io/element_type.hpp"
#include "pesc/io/file.hpp"
#include "pesc/io/file_kind.hpp"

namespace pesc {

/// \brief The seven numbers at the start of a llama2.c weight file, and which output matrix it has.
struct llama2c_header {
  index_t hidden = 0;
  index_t intermediate = 0;
  index_t layers = 0;
  index_t heads = 0;
  index_t kv_heads = 0;
  index_t vocab = 0;
  index_t max_positions = 0;
  bool tied = true;  ///< the output matrix is the embedding; stored as a positive vocabulary size

  [[nodiscard]] index_t head_dim() const { return hidden / heads; }
  [[nodiscard]] index_t kv_width() const { return kv_heads * head_dim(); }
};

/// \brief The weights of a llama2.c file, float, row-major [out][in]; each kind holds all layers one after the other.
///
/// Query and key rows are in the order of rotary pairs of neighbours (2j, 2j + 1).
class llama2c_file {
 public:
  static constexpr std::size_t header_bytes = 28;

  /// \throws io_error, format_error
  [[nodiscard]] static llama2c_file open(const std::string& path) {
    const auto [file, size] = detail::open_to_read(path);
    std::vector<std::byte> start(static_cast<std::size_t>(std::min<index_t>(size, 512)));
    detail::read_exactly(file.get(), start, path);
    llama2c_file out;
    out.header = read_header(path, start, size);
    out.values_.resize(static_cast<std::size_t>(size) / sizeof(float) - header_bytes / sizeof(float));
    const std::span<std::byte> values = std::as_writable_bytes(std::span{out.values_});
    std::copy(start.begin() + header_bytes, start.end(), values.begin());
    detail::read_exactly(file.get(), values.subspan(start.size() - header_bytes), path);
    out.place();
    return out;
  }

  /// \param name  stands for the file's name in messages
  /// \throws format_error
  [[nodiscard]] static llama2c_file from_bytes(const std::string& name, std::span<const std::byte> bytes) {
    llama2c_file out;
    out.header = read_header(name, bytes, static_cast<index_t>(bytes.size()));
    out.values_.resize((bytes.size() - header_bytes) / sizeof(float));
    std::memcpy(out.values_.data(), bytes.data() + header_bytes, out.values_.size() * sizeof(float));
    out.place();
    return out;
  }

  llama2c_file(const llama2c_file&) = delete;
  llama2c_file& operator=(const llama2c_file&) = delete;
  llama2c_file(llama2c_file&&) noexcept = default;
  llama2c_file& operator=(llama2c_file&&) noexcept = default;

  llama2c_header header;
  std::span<const float> embedding;       ///< [vocab, hidden]
  std::span<const float> attention_norm;  ///< [layers, hidden]
  std::span<const float> query;           ///< [layers, hidden, hidden]
  std::span<const float> key;             ///< [layers, kv_width, hidden]
  std::span<const float> value;           ///< [layers, kv_width, hidden]
  std::span<const float> output;          ///< [layers, hidden, hidden]
  std::span<const float> ffn_norm;        ///< [layers, hidden]
  std::span<const float> gate;            ///< [layers, intermediate, hidden]
  std::span<const float> down;            ///< [layers, hidden, intermediate]
  std::span<const float> up;              ///< [layers, intermediate, hidden]
  std::span<const float> final_norm;      ///< [hidden]
  std::span<const float> head;            ///< [vocab, hidden]; the embedding when tied

 private:
  llama2c_file() = default;

  [[nodiscard]] static llama2c_header read_header(const std::string& name, std::span<const std::byte> start,
                                                  index_t file_size);

  /// \brief Bytes of a file with this header; nothing when they do not fit 63 bits.
  [[nodiscard]] static std::optional<index_t> file_bytes(const llama2c_header& h) {
    index_t floats = 0;
    const auto add = [&](index_t a, index_t b, index_t c) {
      const auto ab = checked_product(a, b);
      const auto abc = ab ? checked_product(*ab, c) : ab;
      return abc && !__builtin_add_overflow(floats, *abc, &floats);
    };
    const index_t d = h.hidden;
    const bool fits = add(h.tied ? 1 : 2, h.vocab, d) && add(2, h.layers, d) && add(d, h.layers, d) &&
                      add(d, h.layers, d) && add(h.kv_width(), h.layers, d) &&
                      add(h.kv_width(), h.layers, d) && add(h.intermediate, h.layers, d) &&
                      add(h.intermediate, h.layers, d) && add(h.intermediate, h.layers, d) && add(1, 1, d) &&
                      add(2, h.max_positions, h.head_dim() / 2);
    const auto bytes = fits ? checked_product(floats, sizeof(float)) : std::nullopt;
    if (!bytes || *bytes > (index_t{1} << 62)) return {};
    return *bytes + static_cast<index_t>(header_bytes);
  }

  void place();

  std::vector<float> values_;
};

inline llama2c_header llama2c_file::read_header(const std::string& name, std::span<const std::byte> start,
                                                index_t file_size) {
  const auto fail = [&](const std::string& what) {
    const std::string foreign = describe_foreign_file(start, file_size);
    detail::raise<format_error>(name + ": " + (foreign.empty() ? what : foreign));
  };
  if (start.size() < header_bytes)
    fail(detail::concat("the file has ", file_size, " bytes, expected at least ", header_bytes,
                        " for a llama2.c header"));
  index_t numbers[7];
  for (std::size_t i = 0; i < 7; ++i) numbers[i] = load_unaligned<std::int32_t>(start.data() + 4 * i);
  constexpr const char* names[7] = {"dim",        "hidden_dim", "n_layers", "n_heads",
                                    "n_kv_heads", "vocab_size", "seq_len"};
  const bool tied = numbers[5] > 0;
  if (!tied) numbers[5] = -numbers[5];
  for (std::size_t i = 0; i < 7; ++i)
    if (numbers[i] <= 0)
      fail(detail::concat("byte ", 4 * i, ": ", names[i], " is ", numbers[i],
                          ", expected at least 1. This is no llama2.c weight file, or it is damaged."));
  const llama2c_header h{numbers[0], numbers[1], numbers[2], numbers[3],
                         numbers[4], numbers[5], numbers[6], tied};
  if (h.hidden % h.heads != 0 || h.head_dim() % 2 != 0 || h.heads % h.kv_heads != 0)
    fail(detail::concat(
        "dim ", h.hidden, ", n_heads ", h.heads, ", n_kv_heads ", h.kv_heads,
        " do not divide into heads of even size. This is no llama2.c weight file, or it is damaged."));
  const auto expected = file_bytes(h);
  if (!expected) fail("the sizes in the header overflow. This is no llama2.c weight file, or it is damaged.");
  if (*expected != file_size)
    fail(detail::concat("the file has ", file_size, " bytes, its header asks for ", *expected,
                        file_size < *expected ? ". The download may be cut short."
                                              : ". It may be of a newer llama2.c version."));
  return h;
}

inline void llama2c_file::place() {
  const float* at = values_.data();
  const auto take = [&](index_t a, index_t b, index_t c) {
    const auto count = static_cast<std::size_t>(a * b * c);
    const std::span<const float> out{at, count};
    at += count;
    return out;
  };
  const auto& h = header;
  embedding = take(1, h.vocab, h.hidden);
  attention_norm = take(1, h.layers, h.hidden);
  query = take(h.layers, h.hidden, h.hidden);
  key = take(h.layers, h.kv_width(), h.hidden);
  value = take(h.layers, h.kv_width(), h.hidden);
  output = take(h.layers, h.hidden, h.hidden);
  ffn_norm = take(1, h.layers, h.hidden);
  gate = take(h.layers, h.intermediate, h.hidden);
  down = take(h.layers, h.hidden, h.intermediate);
  up = take(h.layers, h.intermediate, h.hidden);
  final_norm = take(1, 1, h.hidden);
  // Old files carry rotary tables, which follow from the sizes.
  static_cast<void>(take(2, h.max_positions, h.head_dim() / 2));
  head = h.tied ? embedding : take(1, h.vocab, h.hidden);
}

}  // namespace pesc
