// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/moe/balance.hpp"
#include "pesc/moe/switch_router.hpp"
#include "router_case.hpp"

namespace golden {

/// \brief A switch router over sequences.
struct switch_input : router_input {
  index_t batch = 0;
  index_t length = 0;
  bool low = false;  ///< the reference computes in bfloat16
  std::vector<float> dgates;
  std::vector<char> open;  ///< sequences with a choice that the reference leaves open

  explicit switch_input(const golden_case& c);
};

/// \brief Compares which tokens go where.
///
/// \param all  with room for every token
/// \param kept  with the capacity of the case
void compare_dispatch(const golden_case& c, outcome& out, const switch_input& in, const router_result& all,
                      const router_result& kept, const std::string& where);

/// \brief Switch loss and z-loss over sequences and the gradient of their logits.
template <class X>
void compare_switch_losses(X& ctx, const golden_case& c, outcome& out, const switch_input& in,
                           const router_result& r, const std::string& where) {
  using space = typename X::memory_space;
  const index_t experts = in.shape.experts;
  placed all_logits(ctx, r.logits);
  std::vector<std::int32_t> order(static_cast<std::size_t>(in.length));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
  placed token(ctx, order), expert(ctx, std::vector<std::int32_t>(r.experts.begin(), r.experts.end()));
  placed<X, float> daux(ctx, in.tokens * experts), dz(ctx, in.tokens * experts);
  double aux = 0;
  double z = 0;
  double terms = 0;
  // The reference takes the mean over sequences of a loss of each; its own pool for each gives that.
  for (index_t b = 0; b < in.batch; ++b) {
    pesc::balance_pool<pesc::resource_of<X>> pool(experts, 1);
    const auto part = [&](placed<X, float>& list) {
      return list.matrix(in.tokens, experts).row_range(b * in.length, in.length);
    };
    const auto logits = as_const(part(all_logits));
    const auto chosen = as_const(expert.list().part(b * in.length, in.length));
    with_workspace(ctx, [&](pesc::workspace<space>& ws) {
      if (!ws.counting()) pool.clear(ctx);
      balance_accumulate(ctx, logits, as_const(token.list()), chosen, {}, pool.sums(), ws);
    });
    const float share = 1.0f / static_cast<float>(in.batch);
    const pesc::balance_options options{.coefficient = share, .z_coefficient = share};
    aux += pool.values(ctx, options).balance / static_cast<double>(in.batch);
    z += pool.values(ctx, {}).z / static_cast<double>(in.batch);
    const pesc::balance_gradient<space> g = pool.gradient(ctx, options);
    terms = std::fmax(terms, balance_terms(ctx, g));
    balance_backward(ctx, logits, {}, g.fractions, g.scale, 0.0f, part(daux), g.rows);
    balance_backward(ctx, logits, {}, g.fractions, 0.0f, g.z_scale, part(dz), g.rows);
  }
  out.near("aux_loss" + where, std::vector<double>{aux}, c.floats("expected.aux_loss"), 1e-6);
  out.near("grad_aux.logits" + where, daux.values(), c.floats("expected.grad_aux.logits"), 1e-6, terms);
  out.near("z_loss" + where, std::vector<double>{z}, c.floats("expected.z_loss"), 1e-5);
  out.near("grad_z.logits" + where, dz.values(), c.floats("expected.grad_z.logits"), 1e-5);
}

/// \brief Kind router_switch on a backend.
template <class X>
void compare_switch(X& ctx, const golden_case& c, outcome& out, const switch_input& in,
                    const std::string& where) {
  pesc::switch_router router(in.shape);
  router.group = in.length;
  router.capacity = in.tokens;  // the reference's weights are those of all tokens, dropped or not
  const router_result all = run_router(ctx, router, in, in.dgates);
  const double single = product_tolerance<X>(1e-6);
  out.near("weights" + where, all.gates, c.floats("expected.weights"), in.low ? 4e-3 : single);
  out.near("grad.logits" + where, all.dx, c.floats("expected.grad.logits"), in.low ? 1e-2 : single,
           largest(in.dgates));
  router.capacity = c.integer("capacity");
  compare_dispatch(c, out, in, all, run_router(ctx, router, in, in.dgates), where);
  compare_switch_losses(ctx, c, out, in, all, where);
}

}  // namespace golden
