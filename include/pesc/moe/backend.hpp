// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/random.hpp"
#include "pesc/core/workspace.hpp"
#include "pesc/moe/shape.hpp"
#include "pesc/nn/activation.hpp"
#include "pesc/nn/adamw.hpp"
#include "pesc/nn/attention_types.hpp"
#include "pesc/nn/rope.hpp"
#include "pesc/quant/nf4.hpp"
#include "pesc/quant/quantized_matrix.hpp"

namespace pesc {
namespace detail {

/// \brief Stand-ins for the arguments of operations on backend `X`.
template <class X>
struct backend_arguments {
  using space = typename X::memory_space;
  X& ctx;
  matrix_view<const float, space> in;
  matrix_view<float, space> out;
  batch_view<const float, space> in_stack;
  batch_view<float, space> out_stack;
  vector_view<const float, space> values;
  vector_view<float, space> out_values;
  vector_view<const std::int32_t, space> indices;
  vector_view<std::int32_t, space> out_indices;
  vector_view<const std::uint8_t, space> flags;
  vector_view<const attention_span, space> spans;
  vector_view<double, space> doubles;
  vector_view<const float> host_values;
  vector_view<float> out_host_values;
  quantized_view<nf4<>, kernel_layout<space>, space> weight;
  slot_groups<space> groups;
  balance_sums<space> sums;
  workspace<space>& ws;
};

}  // namespace detail

/// \brief A type of context whose operations run the five stages forward; the list of what a backend must have.
template <class X>
concept InferenceBackend = requires(X& ctx, detail::backend_arguments<X> a) {
  typename X::memory_space;
  ctx.resource();
  ctx.synchronize();
  upload(ctx, a.host_values, a.out_values);
  download(ctx, a.values, a.out_host_values);
  fill(ctx, a.out, 0.0f);
  copy(ctx, a.in, a.out);
  matmul(ctx, a.in, a.in, a.out, {}, a.ws);
  grouped_matmul(ctx, a.indices, a.in, a.in_stack, a.out, {}, a.ws);
  quantized_matmul(ctx, a.in, a.weight, a.out, {}, a.ws);
  top_k_softmax(ctx, a.in, 2, gate_options{}, a.out_indices, a.out_values);
  number_slots(ctx, 2, a.out_indices);
  group_by_expert(ctx, a.indices, a.indices, a.groups, a.ws);
  gather_rows(ctx, a.in, a.indices, a.out);
  combine_rows(ctx, a.in, a.in, a.values, a.groups, false, a.out);
  activate(ctx, gelu{}, a.in, a.out);
  gated_activate(ctx, silu{}, a.in, a.in, a.out);
  add_bias(ctx, a.values, a.out);
  add_scaled(ctx, a.in, 1.0f, a.out);
};

/// \brief A backend that also runs the stages backward, the auxiliary losses and the optimiser.
template <class X>
concept TrainingBackend = InferenceBackend<X> && requires(X& ctx, detail::backend_arguments<X> a) {
  grouped_outer(ctx, a.indices, a.in, a.in, a.out_stack, 1.0f, a.ws);
  top_k_softmax_backward(ctx, a.in, 2, gate_options{}, a.indices, a.values, a.values, a.out);
  combine_rows_backward(ctx, a.in, a.in, a.values, a.groups, false, a.out, a.out_values);
  gather_values(ctx, a.values, a.indices, a.out_values);
  scatter_values(ctx, a.values, a.indices, a.out_values);
  scale_rows(ctx, a.values, a.out);
  sum_slots(ctx, a.groups, a.in, a.out);
  row_dot(ctx, a.in, a.in, a.out_values);
  activate_backward(ctx, gelu{}, a.in, a.in, a.out);
  gated_activate_backward(ctx, silu{}, a.in, a.in, a.in, a.out, a.out);
  dropout(ctx, a.in, 0.1f, random_stream{}, a.out);
  dropout_rows(ctx, a.in, a.indices, 0.1f, random_stream{}, a.out);
  balance_accumulate(ctx, a.in, a.indices, a.indices, a.flags, a.sums, a.ws);
  balance_backward(ctx, a.in, a.flags, a.values, 1.0f, 1.0f, a.out, as_const(a.doubles));
  expert_load(ctx, a.indices, a.indices, a.flags, a.out_indices);
  balance_fractions(ctx, a.sums, 1.0, a.out_values);
  squared_norm(ctx, a.values, a.doubles, a.ws);
  adamw_step(ctx, a.out_values, a.values, a.out_values, a.out_values, adamw_coefficients{},
             as_const(a.doubles), 1.0);
};

/// \brief A backend that runs a whole Llama-type model.
template <class X>
concept ModelBackend = TrainingBackend<X> && requires(X& ctx, detail::backend_arguments<X> a) {
  embedding(ctx, a.in, a.indices, a.out);
  rms_norm(ctx, a.in, a.values, 1e-5f, a.out, a.out_values);
  rms_norm_backward(ctx, a.in, a.values, a.values, a.in, a.out);
  rope(ctx, a.out, a.indices, a.values, rope_pairing::halves, 1.0f);
  attention(ctx, a.in, a.in, a.in, a.spans, attention_shape{}, a.out, a.out, a.ws);
  attention_backward(ctx, a.in, a.in, a.in, a.spans, attention_shape{}, a.in, a.in, a.in, a.out, a.out, a.out,
                     a.ws);
  cross_entropy(ctx, a.in, a.indices, 1.0f, a.out_values, a.out);
};

}  // namespace pesc
