// SPDX-License-Identifier: Apache-2.0
//
// Quantises a weight to 4 bits with plain and with double-quantised scales, decodes it and prints what it costs: bits per
// weight and error. Then multiplies by the packed weight without decoding it first.

#include <cmath>
#include <cstdio>
#include <vector>

#include "pesc/pesc.hpp"

namespace {

using pesc::index_t;

constexpr index_t rows = 512;
constexpr index_t cols = 1024;

// Normal numbers of deviation 0.02, as weights of pretrained networks are distributed.
std::vector<float> normal_weights() {
  const pesc::random_stream stream{.seed = 7};
  std::vector<float> out(rows * cols);
  for (std::uint32_t i = 0; i < out.size(); ++i) {
    const float radius = std::sqrt(-2.0f * std::log(1.0f - stream.uniform(0, i)));
    out[i] = 0.02f * radius * std::cos(6.2831853f * stream.uniform(1, i));
  }
  return out;
}

struct statistics {
  double bits = 0;      // per weight, scales included
  double relative = 0;  // root mean square error over root mean square of the weights
  double largest = 0;   // error in units of the scale of its block
};

template <class Format>
statistics round_trip(const std::vector<float>& weights) {
  const auto stored = pesc::quantize<Format>(pesc::matrix_view<const float>{weights.data(), rows, cols});
  std::vector<float> decoded(weights.size());
  pesc::dequantize(stored.view(), pesc::matrix_view<float>{decoded.data(), rows, cols});

  statistics out;
  double error = 0.0;
  double power = 0.0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const auto weight = static_cast<double>(weights[i]);
    const double difference = std::fabs(static_cast<double>(decoded[i]) - weight);
    const auto block = static_cast<index_t>(i) / Format::block;
    const float scale = pesc::decode_scale(Format::info().scales, stored.view().scales, block);
    error += difference * difference;
    power += weight * weight;
    out.largest = std::fmax(out.largest, difference / static_cast<double>(scale));
  }
  out.relative = std::sqrt(error / power);
  out.bits = 8.0 * static_cast<double>(stored.bytes()) / static_cast<double>(rows * cols);
  return out;
}

template <class Format>
statistics report(const char* name, const std::vector<float>& weights) {
  const statistics s = round_trip<Format>(weights);
  std::printf("%-34s %6.3f bits/weight  error %5.2f %%, at most %.3f of a scale\n", name, s.bits,
              100.0 * s.relative, s.largest);
  return s;
}

// y = x Wᵀ from the packed weight against the product with the decoded one; the largest difference over the largest value.
double product_error(const std::vector<float>& weights) {
  using format = pesc::nf4<64, pesc::double_quant<>>;
  pesc::cpu_backend ctx;
  const auto stored = pesc::quantize<format>(pesc::matrix_view<const float>{weights.data(), rows, cols});
  const auto packed = pesc::pack(stored);  // the order of the kernels, lossless
  pesc::buffer<float> x(cols);
  pesc::buffer<float> y(rows);
  for (index_t k = 0; k < cols; ++k) x[k] = std::sin(0.1f * static_cast<float>(k));

  pesc::workspace<> counting;  // the call itself tells how much scratch it needs
  const pesc::matrix_view<const float> in{x.data(), 1, cols};
  const pesc::matrix_view<float> out{y.data(), 1, rows};
  quantized_matmul(ctx, in, packed.view(), out, {}, counting);
  pesc::buffer<std::byte> memory(counting.peak() + 1);
  pesc::workspace<> scratch(memory.data(), memory.size());
  quantized_matmul(ctx, in, packed.view(), out, {}, scratch);

  double worst = 0.0;
  double largest = 0.0;
  for (index_t r = 0; r < rows; ++r) {
    double expected = 0.0;
    for (index_t k = 0; k < cols; ++k)
      expected +=
          static_cast<double>(x[k]) * static_cast<double>(pesc::dequantized(stored.view(), r * cols + k));
    worst = std::fmax(worst, std::fabs(expected - static_cast<double>(y[r])));
    largest = std::fmax(largest, std::fabs(expected));
  }
  return worst / largest;
}

}  // namespace

int main() {
  const std::vector<float> weights = normal_weights();
  const auto plain = report<pesc::nf4<64>>("nf4, block 64", weights);
  const auto nested = report<pesc::nf4<64, pesc::double_quant<>>>("nf4, block 64, double-quantised", weights);
  const auto coarse =
      report<pesc::nf4<256, pesc::double_quant<>>>("nf4, block 256, double-quantised", weights);
  const auto fp4 = report<pesc::fp4<64>>("fp4, block 64", weights);
  const double product = product_error(weights);
  std::printf("product with the packed weight: error %.1e\n", product);

  // The widest gap between two levels of nf4 is 0.304, so no weight is further than half of it from its level.
  const bool bounded = plain.largest < 0.153 && plain.relative < 0.1 && fp4.relative > plain.relative;
  const bool cheaper = plain.bits == 4.5 && nested.bits < 4.2 && coarse.bits < nested.bits;
  return bounded && cheaper && nested.relative < 1.02 * plain.relative && product < 1e-5 ? 0 : 1;
}
