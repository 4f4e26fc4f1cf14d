// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/quantized_tensors.hpp"

#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/io/safetensors.hpp"
#include "pesc/quant/quantize.hpp"
#include "pesc/quant/unquantized.hpp"
#include "support/data.hpp"
#include "support/message_of.hpp"
#include "support/random.hpp"

namespace {

using pesc::index_t;

pesc::format_info format_of(const std::string& type, int block, bool nested) {
  return pesc::quant_state{type, block, "float32", 1, 1, nested, 0}.format();
}

std::vector<std::byte> stored_bytes(const pesc::quantized_matrix<pesc::any_format, pesc::row_blocks>& weight,
                                    const pesc::stored_form& form = {}) {
  pesc::safetensors_writer out;
  pesc::add_weight(out, "w", weight, form);
  return out.to_bytes();
}

pesc::quantized_matrix<pesc::any_format, pesc::row_blocks> random_weight(const pesc::format_info& format,
                                                                         index_t rows, index_t cols) {
  const auto values = support::normal_floats(rows * cols, 7);
  return pesc::quantize<pesc::any_format>(format, pesc::matrix_view<const float>{values.data(), rows, cols});
}

/// A stored weight whose tensors can be damaged before it is read.
struct damaged {
  pesc::safetensors_file file = pesc::safetensors_file::from_bytes(
      "m.safetensors", stored_bytes(random_weight(format_of("nf4", 64, true), 20, 30)));
  std::string left_out{};
  std::string changed{};
  std::vector<float> values{};
  std::string type{};
  pesc::tensor_info copy{};

  const pesc::tensor_info* find(const std::string& name) {
    if (!left_out.empty() && name.ends_with(left_out)) return nullptr;
    const pesc::tensor_info* found = file.find(name);
    if (found == nullptr || changed.empty() || name != changed) return found;
    copy = *found;
    if (!values.empty()) {
      copy.bytes = std::as_bytes(std::span{values});
      copy.size = static_cast<index_t>(copy.bytes.size());
      copy.shape = {static_cast<index_t>(values.size())};
    }
    if (!type.empty()) copy.dtype = pesc::element_type_named(type), copy.dtype_name = type;
    return &copy;
  }
  std::string refusal() {
    return support::message_of([&] { static_cast<void>(pesc::read_quantized(*this, "w", "m.safetensors")); });
  }
};

}  // namespace

TEST_SUITE("model/quantized_tensors") {
  TEST_CASE("state dicts of bitsandbytes load, decode to its values and save to their bytes") {
    int cases = 0;
    for (const auto& entry :
         std::filesystem::directory_iterator(support::test_data("golden/linear4bit_state"))) {
      const std::string path = entry.path().string();
      if (!path.ends_with(".state.safetensors")) continue;
      CAPTURE(path);
      ++cases;
      const auto stored = pesc::safetensors_file::open(path);
      const auto reference = pesc::safetensors_file::open(path.substr(0, path.size() - 18) + ".safetensors");
      const auto first = pesc::read_quantized(stored, "layer.weight", path);

      std::vector<float> decoded(static_cast<std::size_t>(first.weight.rows() * first.weight.cols()));
      pesc::dequantize(first.weight.view(),
                       pesc::matrix_view<float>{decoded.data(), first.weight.rows(), first.weight.cols()});
      CHECK(decoded == reference.read_floats("expected.dequant.f32"));

      // Through the order of kernels and back, into a file with the other tensors of the state.
      const auto packed = pack(first.weight);
      pesc::safetensors_writer out;
      for (const auto& [key, value] : stored.metadata()) out.set_metadata(key, value);
      pesc::add_weight(out, "layer.weight", packed, first.form);
      if (const auto* bias = stored.find("layer.bias"))
        out.add("layer.bias", bias->dtype, bias->shape, bias->bytes);
      const auto again = pesc::safetensors_file::from_bytes("again", out.to_bytes());
      REQUIRE(again.names() == stored.names());
      for (const auto& tensor : stored.tensors()) {
        CAPTURE(tensor.name);
        const auto& written = again.get(tensor.name);
        CHECK(written.dtype == tensor.dtype);
        CHECK(written.shape == tensor.shape);
        CHECK(pesc::as_text(written.bytes) == pesc::as_text(tensor.bytes));
      }
      // The whole file too, which its own writer laid out by the same rule.
      CHECK(pesc::as_text(out.to_bytes()).substr(8) == pesc::as_text(pesc::read_file(path)).substr(8));
    }
    CHECK(cases >= 4);
  }

  TEST_CASE("every format, block and odd size survives a write and a read to the bit") {
    for (const char* type : {"nf4", "fp4"})
      for (const int block : {32, 64, 256, 4096})
        for (const bool nested : {false, true})
          for (const auto& shape : {std::pair<index_t, index_t>{7, 9}, {64, 172}, {1, 1}, {33, 65}}) {
            const index_t rows = shape.first, cols = shape.second;
            CAPTURE(type);
            CAPTURE(block);
            CAPTURE(nested);
            CAPTURE(rows);
            const auto weight = random_weight(format_of(type, block, nested), rows, cols);
            const auto bytes = stored_bytes(weight, {"bfloat16", pesc::element_type::u8});
            const auto file = pesc::safetensors_file::from_bytes("m", bytes);
            const auto read = pesc::read_quantized(file, "w", "m");
            CHECK(read.form.dtype == "bfloat16");
            CHECK(read.weight.format() == weight.format());
            CHECK(stored_bytes(read.weight, read.form) == bytes);
          }
  }

  TEST_CASE("the unused half byte of an odd count is kept as the file has it") {
    auto weight = random_weight(format_of("nf4", 64, false), 7, 9);
    weight.codes()[31] = static_cast<std::uint8_t>((weight.codes()[31] & 0xF0) | 0x0D);
    const auto bytes = stored_bytes(weight);
    const auto file = pesc::safetensors_file::from_bytes("m", bytes);
    const auto packed = pack(pesc::read_quantized(file, "w", "m").weight);
    pesc::safetensors_writer out;
    pesc::add_weight(out, "w", packed);
    CHECK(out.to_bytes() == bytes);
  }

  TEST_CASE("codes may lie under another storage type, and are written there again where they fill it") {
    const auto weight = random_weight(format_of("nf4", 64, true), 8, 10);
    for (const auto type : {pesc::element_type::bf16, pesc::element_type::f32}) {
      const pesc::stored_form form{"float16", type};
      const auto file = pesc::safetensors_file::from_bytes("m", stored_bytes(weight, form));
      CHECK(file.get("w").dtype == type);
      CHECK(file.get("w").shape == std::vector<index_t>{40 / (pesc::bits_of(type) / 8), 1});
      CHECK(stored_bytes(pesc::read_quantized(file, "w", "m").weight) == stored_bytes(weight));
    }
    const auto odd = random_weight(format_of("nf4", 64, true), 7, 10);
    const auto file =
        pesc::safetensors_file::from_bytes("m", stored_bytes(odd, {"float32", pesc::element_type::f32}));
    CHECK(file.get("w").dtype == pesc::element_type::u8);
  }

  TEST_CASE("weights of numbers are written in their own type") {
    const auto values = support::normal_floats(6, 1);
    const auto weight =
        pesc::quantize<pesc::unquantized<pesc::bf16>>(pesc::matrix_view<const float>{values.data(), 2, 3});
    const auto packed = pack(weight);
    pesc::safetensors_writer out;
    pesc::add_weight(out, "w", packed);
    const auto file = pesc::safetensors_file::from_bytes("m", out.to_bytes());
    CHECK(file.get("w").dtype == pesc::element_type::bf16);
    for (std::size_t i = 0; i < 6; ++i) CHECK(file.read_floats("w")[i] == to_float(pesc::to_bf16(values[i])));
  }

  TEST_CASE("a fixed format refuses another one") {
    const auto file = pesc::safetensors_file::from_bytes(
        "m", stored_bytes(random_weight(format_of("nf4", 128, true), 8, 10)));
    const auto text = support::message_of<pesc::shape_error>([&] {
      static_cast<void>(pesc::read_quantized<pesc::nf4<64, pesc::double_quant<>>>(file, "w", "m"));
    });
    CHECK(support::contains(text, "128"));
  }

  TEST_CASE("a missing part, or half of the nested parts, is named") {
    using support::contains;
    CHECK(contains(damaged{.left_out = "quant_map"}.refusal(), "lacks \"w"));
    CHECK(contains(damaged{.left_out = ".absmax"}.refusal(), "4-bit tensor \"w\" lacks \"w.absmax\""));
    CHECK(contains(damaged{.left_out = ".nested_absmax"}.refusal(), "no \"nested_absmax\""));
    CHECK(contains(damaged{.left_out = ".quant_state.bitsandbytes__nf4"}.refusal(), "no quant_state"));
  }

  TEST_CASE("parts of another type, count or content are named") {
    using support::contains;
    const auto table = pesc::nf4<>::levels();
    std::vector<float> levels(table.begin(), table.end());
    levels[8] += 5e-7f;
    CHECK(damaged{.changed = "w.quant_map", .values = levels}.refusal() == "no error");
    levels[7] = 0.0911f;
    CHECK(contains(damaged{.changed = "w.quant_map", .values = levels}.refusal(),
                   "differs from nf4 at entry 7 (0.0911 vs 0)"));
    levels[7] = std::numeric_limits<float>::quiet_NaN();
    CHECK(contains(damaged{.changed = "w.quant_map", .values = levels}.refusal(), "at entry 7 (nan vs 0)"));
    CHECK(contains(damaged{.changed = "w.absmax", .values = {1, 2}}.refusal(), "has 2 entries, expected 10"));
    CHECK(contains(damaged{.changed = "w.absmax", .type = "I8"}.refusal(), "is [10] I8, expected 10 of U8"));
    CHECK(contains(
        damaged{.changed = "w.nested_absmax", .values = {std::numeric_limits<float>::infinity()}}.refusal(),
        "is inf at entry 0, expected finite numbers"));
    CHECK(contains(damaged{.changed = "w.nested_quant_map", .values = {1, 2}}.refusal(),
                   "expected 256 of F32"));
    CHECK(contains(damaged{.changed = "w", .values = {1, 2}}.refusal(),
                   "has 8 bytes, [20, 30] in 4 bits needs 300"));
    CHECK(contains(damaged{.changed = "w", .type = "I64"}.refusal(), "lists its 4-bit codes as I64"));
    CHECK(contains(damaged{.changed = "w.quant_state.bitsandbytes__nf4", .type = "F32"}.refusal(),
                   "expected U8"));
  }

  TEST_CASE("the kind in the name of the quant_state must be that in its text") {
    pesc::safetensors_writer out;
    const std::string text = to_string(pesc::quant_state{"nf4", 64, "float32", 1, 2, false, 0});
    out.add("w.quant_state.bitsandbytes__fp4", pesc::element_type::u8, {static_cast<index_t>(text.size())},
            pesc::as_bytes(text));
    const auto file = pesc::safetensors_file::from_bytes("m", out.to_bytes());
    const auto message =
        support::message_of([&] { static_cast<void>(pesc::read_quantized(file, "w", "m")); });
    CHECK(support::contains(message, "says \"nf4\", its name says otherwise"));
  }
}
