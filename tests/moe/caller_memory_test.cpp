// SPDX-License-Identifier: Apache-2.0
// A layer inside another program: rows with any stride and alignment in float or bf16, weights and parameters in the
// caller's memory.

#include <cstring>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/pesc.hpp"
#include "support/layer_run.hpp"
#include "support/message_of.hpp"
#include "support/near.hpp"

namespace {

using pesc::bf16;
using pesc::index_t;
using backend = pesc::cpu_backend;

template <class Activation, class Weight>
struct layer_config : pesc::moe_defaults {
  static constexpr int experts = 4;
  using expert = pesc::adapter_expert<5>;
  using lora = pesc::lora<3>;
  using activation = Activation;
  using weight = Weight;
};
template <class Activation, class Weight = pesc::nf4<64, pesc::double_quant<>>>
using layer_of = pesc::moe_layer<layer_config<Activation, Weight>, backend>;

constexpr index_t hidden = 37;
constexpr index_t intermediate = 54;
constexpr pesc::moe_shape shape{.hidden = hidden, .intermediate = intermediate};
constexpr index_t tokens = 11;

/// Rows `gap` elements apart, the first one element into its memory; the bytes between them must stay as they are.
template <class T>
class loose_rows {
 public:
  explicit loose_rows(index_t gap)
      : stride_{hidden + gap},
        bytes_(static_cast<std::size_t>(tokens * stride_) * sizeof(T) + sizeof(T) + 1, 0x5A) {
    for (index_t t = 0; t < tokens; ++t)
      for (index_t i = 0; i < hidden; ++i) set(t, i, 0.0f);
  }

  [[nodiscard]] pesc::matrix_view<T> view() {
    return {reinterpret_cast<T*>(bytes_.data() + sizeof(T)), tokens, hidden, stride_};
  }
  void set(index_t t, index_t i, float value) { view()(t, i) = pesc::from_float<T>(value); }

  [[nodiscard]] std::vector<float> values() {
    std::vector<float> out;
    for (index_t t = 0; t < tokens; ++t)
      for (index_t i = 0; i < hidden; ++i) out.push_back(pesc::to_float(view()(t, i)));
    return out;
  }
  [[nodiscard]] bool gaps_kept() {
    std::vector<unsigned char> copy = bytes_;
    const auto begin = [&](index_t t) {
      return copy.begin() +
             static_cast<std::ptrdiff_t>(sizeof(T) * static_cast<std::size_t>(1 + t * stride_));
    };
    for (index_t t = 0; t < tokens; ++t)
      std::fill_n(begin(t), static_cast<std::size_t>(hidden) * sizeof(T), 0x5A);
    return std::all_of(copy.begin(), copy.end(), [](unsigned char byte) { return byte == 0x5A; });
  }

 private:
  index_t stride_;
  std::vector<unsigned char> bytes_;
};

template <class T>
struct outcome {
  std::vector<float> y, dx, gradients;
  bool gaps_kept = false;
};

/// One forward and backward over rows with this gap, of inputs rounded to bf16.
template <class T>
outcome<T> run(const layer_of<T>& layer, index_t gap) {
  backend ctx(2);
  loose_rows<T> x(gap), y(gap + 1), dy(gap + 2), dx(gap + 3);
  const auto xs = support::normal_floats(tokens * hidden, 1);
  const auto dys = support::normal_floats(tokens * hidden, 2);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t i = 0; i < hidden; ++i) {
      const auto at = static_cast<std::size_t>(t * hidden + i);
      x.set(t, i, pesc::to_float(pesc::to_bf16(xs[at])));
      dy.set(t, i, pesc::to_float(pesc::to_bf16(dys[at])));
    }
  auto buffers = layer.prepare(ctx, tokens);
  auto gradients = layer.make_gradients();
  layer.forward(ctx, x.view(), y.view(), buffers);
  layer.backward(ctx, dy.view(), dx.view(), gradients, buffers);
  const auto arena = gradients.arena();
  return {y.values(),
          dx.values(),
          {arena.begin(), arena.end()},
          x.gaps_kept() && y.gaps_kept() && dy.gaps_kept() && dx.gaps_kept()};
}

template <class T, class Weight = pesc::nf4<64, pesc::double_quant<>>>
layer_of<T, Weight> make_layer() {
  backend ctx;
  layer_of<T, Weight> layer(ctx, shape, {.expert_scale = 0.5f}, 3);
  support::fill_trainables(layer.parameters(), 7);
  return layer;
}

struct dense_weights {
  std::vector<float> gate = support::normal_floats(intermediate * hidden, 1, 0.2);
  std::vector<float> up = support::normal_floats(intermediate * hidden, 2, 0.2);
  std::vector<float> down = support::normal_floats(hidden * intermediate, 3, 0.2);

  [[nodiscard]] pesc::dense_ffn<float> view() const {
    return {{gate.data(), intermediate, hidden},
            {up.data(), intermediate, hidden},
            {down.data(), hidden, intermediate}};
  }
};

template <class Layer>
std::vector<float> output_of(const Layer& layer) {
  backend ctx(1);
  auto buffers = layer.prepare(ctx, tokens);
  support::layer_run io(layer, tokens);
  io.forward(ctx, layer, buffers);
  io.backward(ctx, layer, buffers);
  return io.results();
}

}  // namespace

TEST_SUITE("moe/caller_memory") {
  TEST_CASE(
      "rows of any stride and alignment give the bits of dense rows, and nothing between them is touched") {
    const auto floats = make_layer<float>();
    const auto halves = make_layer<bf16>();
    const auto dense = run(floats, 0);
    const auto dense_half = run(halves, 0);
    for (const index_t gap : {1, 3, 8}) {
      CAPTURE(gap);
      const auto loose = run(floats, gap);
      CHECK(loose.gaps_kept);
      CHECK(support::same_bits(loose.y, dense.y));
      CHECK(support::same_bits(loose.dx, dense.dx));
      CHECK(support::same_bits(loose.gradients, dense.gradients));
      const auto loose_half = run(halves, gap);
      CHECK(loose_half.gaps_kept);
      CHECK(support::same_bits(loose_half.y, dense_half.y));
      CHECK(support::same_bits(loose_half.dx, dense_half.dx));
      CHECK(support::same_bits(loose_half.gradients, dense_half.gradients));
    }
  }

  TEST_CASE(
      "bf16 activations are the float results rounded once, and gradients of parameters are not rounded at "
      "all") {
    const auto exact = run(make_layer<float>(), 0);
    const auto rounded = run(make_layer<bf16>(), 0);
    for (std::size_t i = 0; i < exact.y.size(); ++i) {
      CHECK(rounded.y[i] == pesc::to_float(pesc::to_bf16(exact.y[i])));
      CHECK(rounded.dx[i] == pesc::to_float(pesc::to_bf16(exact.dx[i])));
    }
    CHECK(support::same_bits(rounded.gradients, exact.gradients));
  }

  TEST_CASE("backward writes dx and adds to the gradients") {
    backend ctx(2);
    const auto layer = make_layer<float>();
    auto buffers = layer.prepare(ctx, tokens);
    support::layer_run once(layer, tokens);
    once.forward(ctx, layer, buffers);
    once.backward(ctx, layer, buffers);
    support::layer_run twice(layer, tokens);
    twice.forward(ctx, layer, buffers);
    twice.backward(ctx, layer, buffers);
    twice.backward(ctx, layer, buffers);
    CHECK(support::same_bits(once.dx, twice.dx));
    std::vector<float> doubled(once.gradients.arena().begin(), once.gradients.arena().end());
    for (float& value : doubled) value *= 2.0f;
    const std::vector<float> sum(twice.gradients.arena().begin(), twice.gradients.arena().end());
    CHECK(support::near(sum, doubled, 1e-6));

    // What a caller had in the gradients stays in the sum.
    support::layer_run added(layer, tokens);
    for (float& value : added.gradients.arena()) value = 3.0f;
    added.forward(ctx, layer, buffers);
    added.backward(ctx, layer, buffers);
    bool everywhere = true;
    added.gradients.views().for_each([&](const std::string&, pesc::batch_view<float> tensor) {
      const index_t offset = tensor.data - added.gradients.arena().data;
      for (index_t i = 0; i < tensor.size(); ++i)
        everywhere =
            everywhere && std::abs(tensor.data[i] - 3.0f - once.gradients.arena()[offset + i]) < 1e-5f;
    });
    CHECK(everywhere);
  }

  TEST_CASE("routing and expert load can be read after forward") {
    backend ctx;
    const auto layer = make_layer<float>();
    auto buffers = layer.prepare(ctx, tokens + 5);
    support::layer_run io(layer, tokens);
    io.forward(ctx, layer, buffers);
    const auto& routing = buffers.routing();
    REQUIRE(routing.logits.rows == tokens);
    REQUIRE(routing.slots() == 2 * tokens);
    std::vector<index_t> load(4, 0);
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t e = 0; e < 4; ++e) {
        double logit = 0;
        for (index_t i = 0; i < hidden; ++i)
          logit += static_cast<double>(io.x[static_cast<std::size_t>(t * hidden + i)]) *
                   static_cast<double>(layer.parameters().router.weight(e, i));
        CHECK(static_cast<double>(routing.logits(t, e)) == doctest::Approx(logit).epsilon(1e-4));
      }
      CHECK(routing.gate[2 * t] + routing.gate[2 * t + 1] == doctest::Approx(1.0));
      CHECK(routing.gate[2 * t] >= routing.gate[2 * t + 1]);
      for (index_t slot = 2 * t; slot < 2 * t + 2; ++slot) {
        CHECK(routing.token[slot] == t);
        ++load[static_cast<std::size_t>(routing.expert[slot])];
      }
    }
    for (index_t e = 0; e < 4; ++e) CHECK(buffers.load(e) == load[static_cast<std::size_t>(e)]);
  }

  TEST_CASE("float and bf16 pointers with the same values make the same layer") {
    backend ctx;
    dense_weights weights;
    const auto round = [](std::vector<float>& list) {
      std::vector<bf16> out;
      for (float& value : list) {
        out.push_back(pesc::to_bf16(value));
        value = pesc::to_float(out.back());
      }
      return out;
    };
    const auto gate = round(weights.gate);
    const auto up = round(weights.up);
    const auto down = round(weights.down);
    const pesc::dense_ffn<bf16> halves{{gate.data(), intermediate, hidden},
                                       {up.data(), intermediate, hidden},
                                       {down.data(), hidden, intermediate}};
    CHECK(support::same_bits(output_of(layer_of<float>(ctx, shape, weights.view())),
                             output_of(layer_of<float>(ctx, shape, halves))));
    using exact = pesc::unquantized<bf16>;
    CHECK(support::same_bits(output_of(layer_of<float, exact>(ctx, shape, weights.view())),
                             output_of(layer_of<float, exact>(ctx, shape, halves))));
  }

  TEST_CASE_TEMPLATE("4-bit bytes in the caller's memory make the same layer as the weights they stand for",
                     Format, pesc::nf4<64, pesc::double_quant<>>, pesc::nf4<32>, pesc::fp4<128>) {
    backend ctx;
    const dense_weights weights;
    const auto expected = output_of(layer_of<float, Format>(ctx, shape, weights.view()));

    struct bytes {
      std::vector<std::uint8_t> codes, scale_codes;
      std::vector<float> absmax, nested, map;
      float offset;
      index_t rows, cols;
      [[nodiscard]] pesc::quantized_view<Format, pesc::row_blocks> view() const {
        return {Format::info(),
                codes.data(),
                {absmax.data(), scale_codes.data(), nested.data(), map.data(), offset},
                rows,
                cols};
      }
    };
    const auto file = [](pesc::matrix_view<const float> w) {
      const auto q = pesc::quantize<Format>(w);
      const auto list = [](auto view) { return std::vector(view.begin(), view.end()); };
      return bytes{list(q.codes()),  list(q.scale_codes()),
                   list(q.absmax()), list(q.nested_absmax()),
                   list(q.map()),    q.offset(),
                   w.rows,           w.cols};
    };
    auto gate = file(weights.view().gate);
    auto up = file(weights.view().up);
    auto down = file(weights.view().down);
    const layer_of<float, Format> layer(ctx, shape, {ctx, gate.view(), up.view(), down.view()});
    for (auto* part : {&gate, &up, &down}) std::fill(part->codes.begin(), part->codes.end(), std::uint8_t{0});
    CHECK(support::same_bits(output_of(layer), expected));
  }

  TEST_CASE("a layer over frozen and trainable memory of the caller gives the bits of one that owns both") {
    backend ctx;
    using config = layer_config<float, pesc::nf4<64, pesc::double_quant<>>>;
    const dense_weights weights;
    const layer_of<float> owning(ctx, shape, weights.view(), {}, 5);

    const pesc::frozen_ffn<config::weight> frozen(ctx, config::weight::info(), weights.view());
    const pesc::moe_shape full = pesc::complete<config>(shape);
    std::vector<float> arena(static_cast<std::size_t>(pesc::moe_trainables<config>::size(full)) + 1, -7.0f);
    pesc::parameter_arena<> parts(arena.data(), static_cast<index_t>(arena.size()) - 1);
    const auto trainables = pesc::moe_trainables<config>::carve(parts, full);
    trainables.initialize(5);
    const layer_of<float> borrowing(shape, frozen.view<pesc::moe_frozen<config>>(), trainables);
    CHECK(support::same_bits(output_of(borrowing), output_of(owning)));

    // The layer reads that memory: a change shows.
    trainables.experts.up.data[0] += 1.0f;
    CHECK_FALSE(support::same_bits(output_of(borrowing), output_of(owning)));
    CHECK(arena.back() == -7.0f);
    // Both may share one frozen network.
    const layer_of<float> sibling(shape, owning.weights(), owning.parameters());
    CHECK(support::same_bits(output_of(sibling), output_of(owning)));
  }

  TEST_CASE("4-bit bytes without one of their tensors are refused by name") {
    using plain = pesc::nf4<64>;
    using nested = pesc::nf4<64, pesc::double_quant<>>;
    const std::vector<std::uint8_t> codes(32 * 64);
    const auto refused = [](auto view) {
      return support::message_of<pesc::shape_error>([&] { static_cast<void>(pesc::pack(view)); });
    };
    CHECK(refused(pesc::quantized_view<plain, pesc::row_blocks>(plain::info(), nullptr, {}, 64, 64)) ==
          "weight of 64 x 64 without codes");
    CHECK(refused(pesc::quantized_view<plain, pesc::row_blocks>(plain::info(), codes.data(), {}, 64, 64)) ==
          "nf4 weight without its scales (absmax)");
    CHECK(refused(pesc::quantized_view<nested, pesc::row_blocks>(nested::info(), codes.data(), {}, 64, 64)) ==
          "nf4 weight with double-quantised scales needs their codes, nested_absmax and map");
    CHECK(refused(pesc::quantized_view<plain, pesc::row_blocks>(plain::info(), nullptr, {}, 0, 64)) ==
          "no error");
  }
}
