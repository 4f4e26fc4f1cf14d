// SPDX-License-Identifier: Apache-2.0
#include "gpu/device_tensor.hpp"
#include "pesc/gpu/attention.cuh"
#include "support/exact_attention.hpp"

namespace {

using namespace pesc;
using support::attend;
using support::device_tensor;
using support::exact_attention;
using support::placement;

void check(const std::vector<attention_span>& spans, const attention_shape& shape, index_t tokens,
           index_t keys, double deviation = 1, placement where = placement::aligned) {
  CAPTURE(shape.heads);
  CAPTURE(shape.kv_heads);
  CAPTURE(shape.head_dim);
  CAPTURE(tokens);
  CAPTURE(keys);
  cuda_backend ctx;
  const index_t wide = shape.heads * shape.head_dim, narrow = shape.kv_heads * shape.head_dim;
  const auto q = support::normal_floats(tokens * wide, 1, deviation),
             k = support::normal_floats(keys * narrow, 2, deviation),
             v = support::normal_floats(keys * narrow, 3), d = support::normal_floats(tokens * wide, 4);
  const exact_attention exact =
      attend(support::exact(tokens, wide, q), support::exact(keys, narrow, k),
             support::exact(keys, narrow, v), support::exact(tokens, wide, d), spans, shape);
  device_tensor queries(ctx, tokens, wide, q, where), key_rows(ctx, keys, narrow, k, where),
      values(ctx, keys, narrow, v, where), dout(ctx, tokens, wide, d, where), out(ctx, tokens, wide, where),
      lse(ctx, tokens, shape.heads);
  support::on_device<attention_span> places(ctx, spans);
  support::with_device_scratch([&](workspace<device_space>& ws) {
    attention(ctx, queries.in(), key_rows.in(), values.in(), as_const(places.view()), shape, out.view(),
              lse.view(), ws);
  });
  CHECK(support::near(lse.values(), exact.lse.values, 1e-5));
  CHECK(support::near(out.values(), exact.out.values, 1e-5));
  CHECK(out.gaps_kept());
  CHECK(lse.gaps_kept());

  // What is outside all spans stays; what is inside must not depend on what was there.
  std::vector<float> old_dq(q.size(), 0.0f), old_dk(k.size(), 0.0f);
  for (const attention_span& span : spans) {
    std::fill(old_dq.begin() + span.query_begin * wide, old_dq.begin() + span.query_end * wide, NAN);
    const index_t end = span.key_begin + span.past + span.query_end - span.query_begin;
    std::fill(old_dk.begin() + span.key_begin * narrow, old_dk.begin() + end * narrow, NAN);
  }
  device_tensor dq(ctx, tokens, wide, old_dq, where), dk(ctx, keys, narrow, old_dk, where),
      dv(ctx, keys, narrow, old_dk, where);
  support::with_device_scratch([&](workspace<device_space>& ws) {
    attention_backward(ctx, queries.in(), key_rows.in(), values.in(), as_const(places.view()), shape,
                       out.in(), lse.in(), dout.in(), dq.view(), dk.view(), dv.view(), ws);
  });
  // The rounding of a score is an error of its probability.
  const double tolerance = deviation > 1 ? 4e-5 : 2e-5;
  CHECK(support::near(dq.values(), exact.dq.values, tolerance));
  CHECK(support::near(dk.values(), exact.dk.values, tolerance));
  CHECK(support::near(dv.values(), exact.dv.values, tolerance));
}

/// Forward and backward operation on fixed numbers; what they write.
class fixed_run {
 public:
  fixed_run(cuda_backend& ctx, index_t tokens, const attention_shape& shape)
      : ctx_{&ctx},
        shape_{shape},
        q_(ctx, tokens, wide(), support::normal_floats(tokens * wide(), 1), placement::dense),
        k_(ctx, tokens, narrow(), support::normal_floats(tokens * narrow(), 2), placement::dense),
        v_(ctx, tokens, narrow(), support::normal_floats(tokens * narrow(), 3), placement::dense),
        dout_(ctx, tokens, wide(), support::normal_floats(tokens * wide(), 4), placement::dense),
        out_(ctx, tokens, wide(), placement::dense),
        lse_(ctx, tokens, shape.heads, placement::dense),
        dq_(ctx, tokens, wide(), placement::dense),
        dk_(ctx, tokens, narrow(), placement::dense),
        dv_(ctx, tokens, narrow(), placement::dense),
        spans_(ctx, std::vector<attention_span>{{0, tokens, 0, 0}}) {
    workspace<device_space> counting;
    run(counting);
    scratch_ = device_buffer<std::byte>(counting.peak());
  }

  void run() {
    workspace<device_space> ws(scratch_.data(), scratch_.size());
    run(ws);
  }

  [[nodiscard]] std::vector<float> values() const {
    std::vector<float> all;
    for (const device_tensor* part : {&out_, &lse_, &dq_, &dk_, &dv_}) {
      const std::vector<float> values = part->values();
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

 private:
  [[nodiscard]] index_t wide() const { return shape_.heads * shape_.head_dim; }
  [[nodiscard]] index_t narrow() const { return shape_.kv_heads * shape_.head_dim; }

  void run(workspace<device_space>& ws) {
    attention(*ctx_, q_.in(), k_.in(), v_.in(), as_const(spans_.view()), shape_, out_.view(), lse_.view(),
              ws);
    attention_backward(*ctx_, q_.in(), k_.in(), v_.in(), as_const(spans_.view()), shape_, out_.in(),
                       lse_.in(), dout_.in(), dq_.view(), dk_.view(), dv_.view(), ws);
  }

  cuda_backend* ctx_;
  attention_shape shape_;
  device_tensor q_, k_, v_, dout_, out_, lse_, dq_, dk_, dv_;
  support::on_device<attention_span> spans_;
  device_buffer<std::byte> scratch_;
};

TEST_SUITE("gpu/attention") {
  TEST_CASE("attention and its gradients agree with double precision for every head size") {
    for (const index_t head_dim : {2, 6, 8, 20, 64, 80, 128, 200, 256})
      check({{0, 37, 0, 0}}, {4, 2, head_dim}, 37, 37);
    for (const index_t kv_heads : {1, 4}) check({{0, 37, 0, 0}}, {4, kv_heads, 16}, 37, 37);
    for (const placement where : {placement::dense, placement::shifted})
      for (const index_t head_dim : {12, 7}) check({{0, 37, 0, 0}}, {3, 3, head_dim}, 37, 37, 1, where);
  }

  TEST_CASE("attention handles lengths at every edge of tiles") {
    for (const index_t tokens : {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129, 200})
      check({{0, tokens, 0, 0}}, {3, 1, 8}, tokens, tokens);
  }

  TEST_CASE("spans do not see one another, and may leave rows out") {
    check({{0, 5, 0, 0}, {5, 6, 5, 0}, {6, 70, 6, 0}, {75, 90, 75, 0}}, {4, 2, 8}, 95, 95);
    check({{3, 3, 3, 0}, {0, 2, 0, 0}}, {2, 1, 4}, 4, 4);
    check({{4, 4, 0, 3}, {4, 20, 3, 2}}, {2, 1, 4}, 25, 30);
    check({}, {2, 1, 4}, 3, 3);
    std::vector<attention_span> many;
    for (index_t i = 0; i < 70; ++i) many.push_back({3 * i, 3 * i + 1 + i % 3, 3 * i, 0});
    check(many, {2, 1, 8}, 210, 210);
  }

  TEST_CASE("queries after a cache see all that came before") {
    for (const index_t past : {0, 1, 63, 64, 300})
      for (const index_t fresh : {1, 2, 40})
        for (const index_t head_dim : {8, 96})
          check({{0, fresh, 0, past}}, {4, 2, head_dim}, fresh, past + fresh);
    check({{0, 1, 0, 9}, {1, 2, 20, 0}, {2, 3, 40, 33}}, {8, 4, 8}, 3, 80);
    check({{0, 1, 0, 9}, {1, 2, 20, 0}, {3, 4, 40, 33}}, {10, 2, 100}, 5, 80);
  }

  TEST_CASE("few queries over many keys are split, whatever the head size") {
    for (const index_t head_dim : {4, 64, 100, 128, 180}) check({{1, 2, 3, 700}}, {6, 2, head_dim}, 3, 710);
    check({{0, 3, 0, 5}, {3, 4, 300, 290}}, {5, 1, 36}, 4, 600, 1, placement::shifted);
  }

  TEST_CASE("every run gives the same bits, a replayed graph too") {
    cuda_backend ctx;
    fixed_run direct(ctx, 150, {4, 2, 72});
    direct.run();
    const std::vector<float> first = direct.values();
    for (int i = 0; i < 3; ++i) {
      direct.run();
      CHECK(direct.values() == first);
    }
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t program = nullptr;
    fixed_run captured(ctx, 150, {4, 2, 72});
    PESC_CUDA_TRY(cudaStreamBeginCapture(ctx.stream(), cudaStreamCaptureModeGlobal));
    captured.run();
    PESC_CUDA_TRY(cudaStreamEndCapture(ctx.stream(), &graph));
    PESC_CUDA_TRY(cudaGraphInstantiate(&program, graph, 0));
    PESC_CUDA_TRY(cudaGraphLaunch(program, ctx.stream()));
    CHECK(captured.values() == first);
    PESC_CUDA_TRY(cudaGraphExecDestroy(program));
    PESC_CUDA_TRY(cudaGraphDestroy(graph));
  }

  TEST_CASE("heads that no kernel is compiled for are refused") {
    cuda_backend ctx;
    workspace<device_space> ws;
    const matrix_view<float, device_space> none;
    CHECK_THROWS_AS(attention(ctx, none, none, none, {}, {2, 1, 257}, none, none, ws), shape_error);
    CHECK_THROWS_AS(attention(ctx, none, none, none, {}, {3, 2, 64}, none, none, ws), shape_error);
  }

  TEST_CASE("attention survives large scores") {
    check({{0, 70, 0, 0}}, {2, 1, 16}, 70, 70, 8);
    check({{0, 2, 0, 90}}, {2, 1, 16}, 2, 92, 8);
  }
}

}  // namespace
