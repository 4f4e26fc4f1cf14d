// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/block_weights.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/quant/quantize.hpp"
#include "support/decoder.hpp"
#include "support/message_of.hpp"
#include "support/near.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_gguf.hpp"

namespace {

using pesc::element_type;

/// Any codes; scales (and minima) of ordinary size.
std::vector<std::byte> random_blocks(element_type type, pesc::index_t blocks, std::uint64_t seed) {
  const auto size = static_cast<std::size_t>(pesc::block_of(type).bytes);
  std::vector<std::byte> out(static_cast<std::size_t>(blocks) * size);
  const auto noise = support::normal_floats(static_cast<pesc::index_t>(out.size()), seed, 100.0);
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<std::byte>(static_cast<int>(noise[i]) & 255);
  for (std::size_t b = 0; b < static_cast<std::size_t>(blocks); ++b) {
    out[b * size + 1] = std::byte{0x2C};  // a half near 0.07
    if (type == element_type::q4_1) out[b * size + 3] = std::byte{0xB0};
  }
  return out;
}

constexpr std::pair<element_type, std::uint32_t> types[] = {
    {element_type::q4_0, 2}, {element_type::q4_1, 3}, {element_type::q8_0, 8}};

}  // namespace

TEST_SUITE("model/block_weights") {
  TEST_CASE("kept weights have the values that decoding gives, to the bit") {
    for (const auto& [type, number] : types) {
      const auto bytes = random_blocks(type, 10 * 3, number);
      pesc::tensor_info tensor{"w", type, std::string{name_of(type)}, {10, 96}};
      tensor.size = static_cast<pesc::index_t>(bytes.size());
      tensor.bytes = bytes;
      const auto expected = pesc::to_floats(tensor, "m");
      const auto kept = pesc::read_blocks(tensor);
      CHECK(kept.format() == *pesc::format_of_blocks(type));
      for (pesc::index_t i = 0; i < 960; ++i)
        REQUIRE(pesc::dequantized(kept.view(), i) == expected[static_cast<std::size_t>(i)]);
    }
    CHECK_FALSE(pesc::format_of_blocks(element_type::f16).has_value());
  }

  TEST_CASE("a model of block weights computes the same kept as decoded, and quantises to another format") {
    pesc::llama_config c = support::tiny_llama();
    c.hidden = 64;
    c.intermediate = 96;
    c.head_dim = 16;
    const support::temporary_folder folder;
    for (const auto& entry : types) {
      const element_type type = entry.first;
      const std::uint32_t number = entry.second;
      CAPTURE(number);
      pesc::model_config config;
      config.llama = c;
      support::gguf_builder b = support::gguf_keys(c);
      std::uint64_t seed = number;
      for (const auto& [name, tensor] : support::make_tensors(config)) {
        const auto dims = support::gguf_dims(tensor.shape);
        if (dims.size() == 1)
          b.floats(support::gguf_name(name), dims, tensor.values);
        else
          b.tensor(support::gguf_name(name), dims, number,
                   random_blocks(type, static_cast<pesc::index_t>(tensor.values.size()) / 32, ++seed));
      }
      const std::string path = folder.write("m.gguf", pesc::as_text(b.bytes()));
      const std::vector<std::int32_t> ids{1, 5, 9, 2, 30};
      const auto kept = pesc::load_model({.path = path});
      CHECK(kept.weights.format == *pesc::format_of_blocks(type));
      const auto numbers = pesc::load_model({.path = path}, {pesc::unquantized<float>::info()});
      const auto& a = kept.weights.layers[1].down.weight;
      CHECK(support::values_of(a) == support::values_of(numbers.weights.layers[1].down.weight));
      support::decoder<support::dense_layer> one(kept), two(numbers);
      CHECK(support::near(one.logits(ids), two.logits(ids), 1e-5));
      const auto nf4 = pesc::load_model({.path = path}, {pesc::nf4<>::info()});
      CHECK(nf4.weights.format == pesc::nf4<>::info());
    }
  }
}
