// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/attention.hpp"

#include "cpu/op_test.hpp"
#include "support/exact_attention.hpp"

namespace {

using namespace pesc;
using support::attend;
using support::exact_attention;
using support::tensor;

void check(const std::vector<attention_span>& spans, const attention_shape& shape, index_t tokens,
           index_t keys, bool backward, double deviation = 1) {
  CAPTURE(shape.heads);
  CAPTURE(shape.kv_heads);
  CAPTURE(shape.head_dim);
  CAPTURE(tokens);
  CAPTURE(keys);
  const tensor q = tensor::random(tokens, shape.heads * shape.head_dim, 1, deviation);
  const tensor k = tensor::random(keys, shape.kv_heads * shape.head_dim, 2, deviation);
  const tensor v = tensor::random(keys, shape.kv_heads * shape.head_dim, 3);
  const tensor dout = tensor::random(tokens, shape.heads * shape.head_dim, 4);
  const exact_attention exact = attend(q.exact(), k.exact(), v.exact(), dout.exact(), spans, shape);
  const vector_view<const attention_span> where(spans.data(), static_cast<index_t>(spans.size()));
  const auto forward = [&](cpu_backend& ctx, tensor& out, tensor& lse) {
    support::with_scratch([&](workspace<>& ws) {
      attention(ctx, q.view(), k.view(), v.view(), where, shape, out.view(), lse.view(), ws);
    });
    CHECK(out.gaps_kept());
    CHECK(lse.gaps_kept());
  };
  support::check_on_every_context(
      [&](cpu_backend& ctx) {
        tensor out(tokens, shape.heads * shape.head_dim), lse(tokens, shape.heads);
        forward(ctx, out, lse);
        CHECK(support::near(lse.values(), exact.lse.values, 1e-5));
        return out.values();
      },
      exact.out.values, 1e-5);
  if (!backward) return;
  std::vector<double> expected = exact.dq.values;
  expected.insert(expected.end(), exact.dk.values.begin(), exact.dk.values.end());
  expected.insert(expected.end(), exact.dv.values.begin(), exact.dv.values.end());
  support::check_on_every_context(
      [&](cpu_backend& ctx) {
        tensor out(tokens, shape.heads * shape.head_dim), lse(tokens, shape.heads);
        forward(ctx, out, lse);
        tensor dq = dout, dk = v, dv = k;  // old contents must not matter
        for (index_t j = 0; j < keys; ++j)
          for (index_t c = 0; c < shape.kv_heads * shape.head_dim; ++c)
            dk.view()(j, c) = dv.view()(j, c) = 0.0f;
        for (const attention_span& span : spans)
          for (index_t j = span.key_begin; j < span.key_begin + span.past + span.query_end - span.query_begin;
               ++j)
            dk.view()(j, 0) = dv.view()(j, 0) = NAN;
        for (index_t t = 0; t < tokens; ++t)
          for (index_t c = 0; c < shape.heads * shape.head_dim; ++c) dq.view()(t, c) = 0.0f;
        support::with_scratch([&](workspace<>& ws) {
          attention_backward(ctx, q.view(), k.view(), v.view(), where, shape, as_const(out.view()),
                             as_const(lse.view()), dout.view(), dq.view(), dk.view(), dv.view(), ws);
        });
        CHECK(dq.gaps_kept());
        CHECK(dk.gaps_kept());
        CHECK(dv.gaps_kept());
        return support::together(dq, dk, dv);
      },
      expected, 2e-5);
}

TEST_CASE("attention and its gradients agree with double precision for every head size") {
  for (const index_t head_dim : {2, 6, 8, 12, 16, 20, 64, 80})
    for (const index_t kv_heads : {1, 2, 4}) check({{0, 37, 0, 0}}, {4, kv_heads, head_dim}, 37, 37, true);
}

TEST_CASE("attention handles lengths at every edge of tiles and blocks") {
  for (const index_t tokens : {1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129, 200})
    check({{0, tokens, 0, 0}}, {3, 1, 8}, tokens, tokens, true);
  check({{0, 600, 0, 0}}, {2, 2, 8}, 600, 600, true);
}

TEST_CASE("spans do not see one another, and may leave rows out") {
  check({{0, 5, 0, 0}, {5, 6, 5, 0}, {6, 70, 6, 0}, {75, 90, 75, 0}}, {4, 2, 8}, 95, 95, true);
  check({{3, 3, 3, 0}, {0, 2, 0, 0}}, {2, 1, 4}, 4, 4, true);
  check({}, {2, 1, 4}, 3, 3, true);
}

TEST_CASE("queries after a cache see all that came before") {
  for (const index_t past : {0, 1, 15, 63, 64, 65, 1000})
    for (const index_t fresh : {1, 2, 7, 40})
      for (const index_t head_dim : {8, 64})
        check({{0, fresh, 0, past}}, {4, 2, head_dim}, fresh, past + fresh, true);
  check({{0, 1, 0, 9}, {1, 2, 20, 0}, {2, 3, 40, 33}}, {8, 4, 8}, 3, 80, true);
}

TEST_CASE("attention survives large scores") {
  check({{0, 70, 0, 0}}, {2, 1, 16}, 70, 70, true, 8);
  check({{0, 2, 0, 90}}, {2, 1, 16}, 2, 92, false, 8);
}

}  // namespace
