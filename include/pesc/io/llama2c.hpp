// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/io/element_type.hpp"
#include "pesc/io/file.hpp"
#include "pesc/io/file_kind.hpp"
#include "pesc/io/tensor_info.hpp"

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

/// \brief A run of the numbers of a llama2.c file; each kind of weight is one, all layers one after the other.
struct llama2c_part {
  index_t first = 0;  ///< number before it, behind the header
  index_t count = 0;
};

/// \brief An open llama2.c file: float weights, row-major [out][in].
///
/// Query and key rows are in the order of rotary pairs of neighbours (2j, 2j + 1).
class llama2c_file {
 public:
  static constexpr std::size_t header_bytes = 28;

  /// \brief Reads the header; the values stay in the file.
  /// \throws io_error, format_error
  [[nodiscard]] static llama2c_file open(const std::string& path) {
    llama2c_file out;
    index_t size = 0;
    std::tie(out.file_, size) = detail::open_to_read(path);
    std::vector<std::byte> start(static_cast<std::size_t>(std::min<index_t>(size, 512)));
    detail::read_exactly(out.file_.get(), start, path);
    out.header = read_header(path, start, size);
    out.place();
    return out;
  }

  /// \param name  stands for the file's name in messages
  /// \throws format_error
  [[nodiscard]] static llama2c_file from_bytes(const std::string& name, std::span<const std::byte> bytes) {
    llama2c_file out;
    out.header = read_header(name, bytes, static_cast<index_t>(bytes.size()));
    out.owned_.assign(bytes.begin() + header_bytes, bytes.end());
    out.place();
    return out;
  }

  llama2c_header header;
  llama2c_part embedding;       ///< [vocab, hidden]
  llama2c_part attention_norm;  ///< [layers, hidden]
  llama2c_part query;           ///< [layers, hidden, hidden]
  llama2c_part key;             ///< [layers, kv_width, hidden]
  llama2c_part value;           ///< [layers, kv_width, hidden]
  llama2c_part output;          ///< [layers, hidden, hidden]
  llama2c_part ffn_norm;        ///< [layers, hidden]
  llama2c_part gate;            ///< [layers, intermediate, hidden]
  llama2c_part down;            ///< [layers, hidden, intermediate]
  llama2c_part up;              ///< [layers, intermediate, hidden]
  llama2c_part final_norm;      ///< [hidden]
  llama2c_part head;            ///< [vocab, hidden]; the embedding when tied

  /// \brief Part `index` of `of` equal ones of a run, as a tensor.
  [[nodiscard]] tensor_info tensor(std::string name, const llama2c_part& all, index_t index, index_t of,
                                   std::vector<index_t> shape) const {
    const index_t count = all.count / of;
    tensor_info out{std::move(name), element_type::f32, "F32", std::move(shape)};
    out.offset = 4 * (all.first + index * count);
    out.size = 4 * count;
    if (!owned_.empty())
      out.bytes = std::span<const std::byte>{owned_}.subspan(static_cast<std::size_t>(out.offset),
                                                             static_cast<std::size_t>(out.size));
    out.file = file_.get();
    out.position = static_cast<index_t>(header_bytes) + out.offset;
    return out;
  }

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

  detail::descriptor file_;
  std::vector<std::byte> owned_;  ///< the values, where they are in memory
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
  index_t next = 0;
  const auto take = [&](index_t a, index_t b, index_t c) {
    const llama2c_part out{next, a * b * c};
    next += out.count;
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
