// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "pesc/model/llama_shape.hpp"
#include "pesc/moe/shared_ffn.hpp"
#include "pesc/nn/linear.hpp"

namespace pesc {

/// \brief The frozen projections of one attention block: q [heads · size, H], k and v [kv_heads · size, H], o [H, heads · size].
template <QuantFormat Format, class Space = host_space>
struct attention_frozen {
  frozen_linear<Format, Space> q, k, v, o;

  /// \throws shape_error naming the projection whose size does not fit
  void check(const llama_shape& shape) const {
    const std::array<const char*, 4> names{"q_proj", "k_proj", "v_proj", "o_proj"};
    const std::array<const frozen_linear<Format, Space>*, 4> all{&q, &k, &v, &o};
    const std::array<index_t, 4> out{shape.query_width(), shape.kv_width(), shape.kv_width(), shape.hidden};
    for (std::size_t i = 0; i < 4; ++i) {
      const index_t in = i == 3 ? shape.query_width() : shape.hidden;
      PESC_EXPECTS(all[i]->out() == out[i] && all[i]->in() == in, names[i], " is ", all[i]->out(), " x ",
                   all[i]->in(), ", expected ", out[i], " x ", in);
    }
  }
};

/// \brief The low-rank updates of the four projections.
template <class Space = host_space>
struct attention_trainables {
  lora_parameters<Space> q, k, v, o;

  [[nodiscard]] static attention_trainables carve(parameter_arena<Space>& arena, const llama_shape& s,
                                                  index_t rank) {
    return {lora_parameters<Space>::carve(arena, rank, s.hidden, s.query_width()),
            lora_parameters<Space>::carve(arena, rank, s.hidden, s.kv_width()),
            lora_parameters<Space>::carve(arena, rank, s.hidden, s.kv_width()),
            lora_parameters<Space>::carve(arena, rank, s.query_width(), s.hidden)};
  }

  template <class F>
  void for_each(F&& f) const {
    q.for_each("q_proj.", f);
    k.for_each("k_proj.", f);
    v.for_each("v_proj.", f);
    o.for_each("o_proj.", f);
  }

  void initialize(random_stream stream) const {
    for (const auto* p : {&q, &k, &v, &o}) {
      pesc::initialize(*p, stream);
      ++stream.part;
    }
  }
};

/// \brief What the block keeps for backward.
template <class Space = host_space>
struct attention_state {
  matrix_view<const float, Space> x;  ///< [T, H], the normalised input
  matrix_view<float, Space> q, k, v;  ///< after the rotation
  matrix_view<float, Space> out;      ///< [T, heads · size], before o
  matrix_view<float, Space> lse;      ///< [T, heads]
  linear_state<Space> q_lora, k_lora, v_lora, o_lora;

  [[nodiscard]] static attention_state carve(workspace<Space>& ws, const llama_shape& s, index_t tokens,
                                             index_t rank) {
    attention_state out;
    out.q = ws.template take<float>(tokens, s.query_width());
    out.k = ws.template take<float>(tokens, s.kv_width());
    out.v = ws.template take<float>(tokens, s.kv_width());
    out.out = ws.template take<float>(tokens, s.query_width());
    out.lse = ws.template take<float>(tokens, s.heads);
    for (linear_state<Space>* l : {&out.q_lora, &out.k_lora, &out.v_lora, &out.o_lora})
      *l = linear_state<Space>::carve(ws, tokens, rank);
    return out;
  }
};

/// \brief Where the tokens of a call stand: their positions and the runs of keys that they see.
template <class Space = host_space>
struct attention_places {
  vector_view<const std::int32_t, Space> positions;  ///< [tokens]
  vector_view<const attention_span, Space> spans;    ///< every token belongs to one
  vector_view<const float, Space> frequencies;       ///< [head_dim / 2]
};

/// \brief Causal grouped-query attention with rotary embedding over frozen projections with LoRA.
///
/// With a cache, `keys` and `values` hold earlier rows and the last rows receive those of this call; without one they are
/// the rows of the state.
/// \param y  [T, H], written
template <Compute C, class X, QuantFormat F, class Space>
void attention_forward(X& ctx, matrix_view<const float, Space> x, const attention_frozen<F, Space>& w,
                       const attention_trainables<Space>& p, attention_state<Space>& s,
                       const attention_places<Space>& places, matrix_view<const float, Space> keys,
                       matrix_view<const float, Space> values, const llama_shape& shape,
                       const moe_shape& lora_shape, const moe_options& options, const moe_run& run,
                       matrix_view<float, Space> y, workspace<Space>& ws) {
  s.x = x;
  const auto lora_of = [&](std::uint8_t i) {
    return detail::ffn_lora_run(lora_shape, options, run,
                                static_cast<std::uint8_t>(detail::attention_lora_part + i));
  };
  linear_forward<C>(ctx, x, w.q, p.q, lora_of(0), s.q, s.q_lora, ws);
  linear_forward<C>(ctx, x, w.k, p.k, lora_of(1), s.k, s.k_lora, ws);
  linear_forward<C>(ctx, x, w.v, p.v, lora_of(2), s.v, s.v_lora, ws);
  if (!ws.counting()) {
    rope(ctx, s.q, places.positions, places.frequencies, shape.rope.pairing, 1.0f);
    rope(ctx, s.k, places.positions, places.frequencies, shape.rope.pairing, 1.0f);
  }
  attention(ctx, as_const(s.q), keys, values, places.spans, shape.attention(), s.out, s.lse, ws);
  linear_forward<C>(ctx, as_const(s.out), w.o, p.o, lora_of(3), y, s.o_lora, ws);
}

/// \brief Writes dx; adds to the low-rank gradients.
template <Compute C, class X, QuantFormat F, class Space>
void attention_block_backward(X& ctx, const attention_frozen<F, Space>& w,
                              const attention_trainables<Space>& p, const attention_state<Space>& s,
                              const attention_places<Space>& places, const llama_shape& shape,
                              const moe_shape& lora_shape, const moe_options& options, const moe_run& run,
                              matrix_view<const float, Space> dy, matrix_view<float, Space> dx,
                              const attention_trainables<Space>& gradient, workspace<Space>& ws) {
  const typename workspace<Space>::scope scratch(ws);
  const auto lora_of = [&](std::uint8_t i) {
    return detail::ffn_lora_run(lora_shape, options, run,
                                static_cast<std::uint8_t>(detail::attention_lora_part + i));
  };
  auto dout = ws.template take<float>(dy.rows, shape.query_width());
  auto dq = ws.template take<float>(dy.rows, shape.query_width());
  auto dk = ws.template take<float>(dy.rows, shape.kv_width());
  auto dv = ws.template take<float>(dy.rows, shape.kv_width());
  linear_backward<C>(ctx, as_const(s.out), w.o, p.o, lora_of(3), dy, dout, false, gradient.o, s.o_lora, ws);
  attention_backward(ctx, as_const(s.q), as_const(s.k), as_const(s.v), places.spans, shape.attention(),
                     as_const(s.out), as_const(s.lse), as_const(dout), dq, dk, dv, ws);
  if (!ws.counting()) {
    rope(ctx, dq, places.positions, places.frequencies, shape.rope.pairing, -1.0f);
    rope(ctx, dk, places.positions, places.frequencies, shape.rope.pairing, -1.0f);
  }
  linear_backward<C>(ctx, s.x, w.q, p.q, lora_of(0), as_const(dq), dx, false, gradient.q, s.q_lora, ws);
  linear_backward<C>(ctx, s.x, w.k, p.k, lora_of(1), as_const(dk), dx, true, gradient.k, s.k_lora, ws);
  linear_backward<C>(ctx, s.x, w.v, p.v, lora_of(2), as_const(dv), dx, true, gradient.v, s.v_lora, ws);
}

}  // namespace pesc
