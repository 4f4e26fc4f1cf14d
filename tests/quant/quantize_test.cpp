// SPDX-License-Identifier: Apache-2.0
#include "pesc/quant/quantize.hpp"

#include <bit>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/quant/fp4.hpp"
#include "pesc/quant/nf4.hpp"
#include "pesc/quant/unquantized.hpp"
#include "support/message_of.hpp"
#include "support/quant_vectors.hpp"
#include "support/random.hpp"

namespace {

using namespace pesc;
using quant_vectors::weights;
using reference::list;

template <class T>
list<std::remove_const_t<T>> copy_of(vector_view<T> v) {
  return list<std::remove_const_t<T>>(std::vector<std::remove_const_t<T>>(v.begin(), v.end()));
}

template <class Format = nf4<>, class T>
quantized_matrix<Format, row_blocks> quantized(const std::vector<T>& values, index_t rows = 1) {
  return quantize<Format>(
      matrix_view<const T>{values.data(), rows, static_cast<index_t>(values.size()) / rows});
}

template <class T, class Format>
list<T> decoded(const quantized_matrix<Format, row_blocks>& m) {
  list<T> values(m.rows() * m.cols());
  dequantize(m.view(), matrix_view<T>{values.data(), m.rows(), m.cols()});
  return values;
}

struct checksums {
  std::uint32_t packed, f32, bf16, f16;
};

template <class Format>
void check(const quantized_matrix<Format, row_blocks>& m, const checksums& expected) {
  CHECK(support::crc32(copy_of(m.codes())) == expected.packed);
  CHECK(support::crc32(decoded<float>(m)) == expected.f32);
  CHECK(support::crc32(decoded<bf16>(m)) == expected.bf16);
  CHECK(support::crc32(decoded<f16>(m)) == expected.f16);
}

TEST_CASE("evenly spaced values") {
  std::vector<float> x;
  for (int i = 0; i < 64; ++i) x.push_back(static_cast<float>(2 * i - 63) / 64);
  const auto m = quantized(x);
  CHECK(quant_vectors::hex(copy_of(m.codes())) ==
        "00000111111112222233344445556667788899aaabbbccccddddeeeeeeefffff");
  CHECK(quant_vectors::bits(copy_of(m.absmax())) == list<std::uint32_t>{0x3f7c0000});
  check(m, {0xb85c8231, 0xd4b0d108, 0x96a6961d, 0x7a4ba902});
}

TEST_CASE("zeros, ties and signs") {
  CHECK(quant_vectors::hex(copy_of(quantized(std::vector<float>(64)).codes())) == std::string(64, '7'));
  CHECK(copy_of(quantized(std::vector<float>(65)).absmax()) == list<float>{0, 1e-38f});
  std::vector<float> ties, above;
  for (const float t : nf4<>::info().thresholds) {
    ties.push_back(t);
    above.push_back(std::nextafter(t, 2.0f));
  }
  ties.push_back(1);
  above.push_back(1);
  CHECK(quant_vectors::hex(copy_of(quantized(ties).codes())) == "0123456789abcdef");
  CHECK(quant_vectors::hex(copy_of(quantized(above).codes())) == "123456789abcdeff");
  check(quantized(std::vector<float>{-2, 1, 0.5f, -0.5f, 0.25f, -0.25f, 1.9375f, -1.9375f}),
        {0x2f454a98, 0xf078bbd1, 0x5179c432, 0x1cba8ece});
  std::vector<float> tiny(64);
  tiny[63] = 1e-30f;
  CHECK(quant_vectors::hex(copy_of(quantized(tiny).codes())) == std::string(62, '7') + "7f");
}

TEST_CASE("partial last blocks, an unused half byte, blocks across rows, 16-bit inputs") {
  check(quantized(weights(0, 70)), {0xfc66d0a5, 0x22f82dbd, 0x6e61f14c, 0x40be5d0e});
  check(quantized(weights(0, 67)), {0xda4500f0, 0x76ca1df0, 0x65d1aedf, 0xf9768401});
  check(quantized(weights(1000, 1120), 3), {0xf893f8d4, 0x1d818893, 0x685aa0c4, 0x4089432c});
  std::vector<bf16> wide;
  std::vector<f16> half;
  for (const float w : weights(0, 64)) {
    wide.push_back(to_bf16(w));
    half.push_back(to_f16(w));
  }
  check(quantized(wide), {0xb211aeaf, 0xcf7ac7ca, 0x80c163d3, 0x9d3a75d4});
  check(quantized(half), {0xb211aeaf, 0xc55fd424, 0x08749c59, 0x3cc1067a});
}

TEST_CASE("the same values in blocks of 32 to 256") {
  const auto values = weights(0, 256);
  const auto check_block = [&](const auto& m, std::uint32_t packed, std::uint32_t f32) {
    CHECK(support::crc32(copy_of(m.codes())) == packed);
    CHECK(support::crc32(decoded<float>(m)) == f32);
  };
  check_block(quantized<nf4<32>>(values), 0x1e6d5d69, 0x3168523e);
  check_block(quantized<nf4<64>>(values), 0xad7bad44, 0x1ea1719d);
  check_block(quantized<nf4<128>>(values), 0x1fe08d50, 0x208b2767);
  check_block(quantized<nf4<256>>(values), 0x1fe08d50, 0xfa060d1f);
}

TEST_CASE("double quantisation gives the published codes, scales and weights, unfused") {
  std::vector<bf16> x;
  for (const float w : weights(0, 32768)) x.push_back(to_bf16(w));
  const auto plain = quantized(x);
  CHECK(support::crc32(copy_of(plain.absmax())) == 0xccd0cf20u);
  CHECK(support::crc32(decoded<float>(plain)) == 0xf777e94eu);
  const auto m = quantized<nf4<64, double_quant<>>>(x, 512);
  CHECK(support::crc32(copy_of(m.codes())) == 0x9078e61cu);
  CHECK(std::bit_cast<std::uint32_t>(m.offset()) == 0x3d673280u);
  CHECK(quant_vectors::bits(copy_of(m.nested_absmax())) == list<std::uint32_t>{0x3c859b00, 0x3c959b00});
  const std::uint8_t first[] = {35, 201, 47, 200, 24, 201, 204, 193, 227, 218, 216, 192, 208, 190, 44, 18};
  for (index_t i = 0; i < 16; ++i) CHECK(m.scale_codes()[i] == first[i]);
  CHECK(support::crc32(copy_of(m.scale_codes())) == 0xc505c832u);
  list<float> restored;
  for (index_t b = 0; b < 512; ++b)
    restored.push_back(decode_scale(scale_kind::double_quant, m.view().scales, b));
  CHECK(support::crc32(restored) == 0x5c926d28u);
  check(m, {0x9078e61c, 0x8413b00a, 0xfd6f0551, 0x28b80665});
}

TEST_CASE("small second-level blocks") {
  const float absmax[] = {0.5f, 0.25f, 0.75f, 1.0f};
  std::vector<float> x(256);
  for (std::size_t b = 0; b < 4; ++b) x[64 * b] = absmax[b];
  const auto m = quantized<nf4<64, double_quant<>>>(x);
  CHECK(m.offset() == 0.625f);
  CHECK(m.nested_absmax()[0] == 0.375f);
  CHECK(copy_of(m.scale_codes()) == list<std::uint8_t>{47, 0, 207, 255});
  list<float> restored;
  for (index_t b = 0; b < 4; ++b)
    restored.push_back(decode_scale(scale_kind::double_quant, m.view().scales, b));
  CHECK(quant_vectors::bits(restored) == list<std::uint32_t>{0x3f002000, 0x3e81599a, 0x3f3fe000, 0x3f800000});
}

TEST_CASE_TEMPLATE("random weights of every format and block agree with the definition", Format, nf4<32>,
                   nf4<64>, nf4<4096>, fp4<64>, fp4<128>) {
  for (const index_t n : {1, 31, 64, 65, 1000, 8192}) {
    const std::vector<float> x = support::normal_floats(n, 5, 0.02);
    const auto m = quantized<Format>(x);
    const auto book =
        std::string(Format::info().name) == "nf4" ? reference::code_book::nf4 : reference::code_book::fp4;
    const auto exact = reference::quantise4(book, x.data(), n, Format::block);
    CHECK(copy_of(m.codes()) == exact.packed);
    CHECK(copy_of(m.absmax()) == exact.absmax);
    CHECK(decoded<float>(m) == reference::dequantise4(exact));
  }
}

TEST_CASE("the error of nf4 on normal weights is that of its levels") {
  const std::vector<float> x = support::normal_floats(100000, 6, 0.02);
  const list<float> y = decoded<float>(quantized(x));
  double error = 0, power = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    error += std::pow(static_cast<double>(x[i] - y.data()[i]), 2);
    power += std::pow(static_cast<double>(x[i]), 2);
  }
  const double decibels = 10 * std::log10(power / error);
  CHECK(decibels > 20.3);
  CHECK(decibels < 21.3);
}

TEST_CASE("rows that lie apart give the bytes of the dense matrix") {
  const std::vector<float> x = support::normal_floats(5 * 50, 7);
  std::vector<float> dense;
  for (std::size_t r = 0; r < 5; ++r)
    dense.insert(dense.end(), x.begin() + static_cast<std::ptrdiff_t>(r * 50),
                 x.begin() + static_cast<std::ptrdiff_t>(r * 50 + 37));
  const auto a = quantize<nf4<>>(matrix_view<const float>{x.data(), 5, 37, 50});
  const auto b = quantized(dense, 5);
  CHECK(copy_of(a.codes()) == copy_of(b.codes()));
  CHECK(copy_of(a.absmax()) == copy_of(b.absmax()));
}

TEST_CASE("numbers that are not finite are refused with their position") {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> x(100, 1.0f);
    x[77] = bad;
    CHECK(support::contains(support::message_of<numeric_error>([&] { static_cast<void>(quantized(x)); }),
                            "77"));
  }
}

TEST_CASE("dequantising to bf16 by way of half rounds twice") {
  const auto m = quantized(weights(0, 512));
  list<bf16> once(512), twice(512);
  dequantize<bf16>(m.view(), matrix_view<bf16>{once.data(), 1, 512});
  dequantize<bf16, f16>(m.view(), matrix_view<bf16>{twice.data(), 1, 512});
  const auto exact = decoded<float>(m);
  index_t differ = 0;
  for (index_t i = 0; i < 512; ++i) {
    CHECK(twice[i] == to_bf16(to_float(to_f16(exact[i]))));
    differ += once[i] != twice[i];
  }
  CHECK(differ < 512);
  CHECK(support::contains(support::message_of<shape_error>([&] {
                            dequantize(m.view(), matrix_view<bf16>{once.data(), 2, 256});
                          }),
                          "256"));
}

}  // namespace
