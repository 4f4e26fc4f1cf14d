// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/run_state.hpp"

#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/decoder.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

namespace {

/// A small crafted model with moments of random values.
struct run_model {
  support::temporary_folder folder;
  pesc::loaded_model<> base;
  support::decoder<support::sparse_layer> decoder;
  pesc::buffer<float> m, v;

  run_model()
      : base(load()), decoder(base.weights, shape(), {}), m(decoder.arena.size()), v(decoder.arena.size()) {
    decoder.randomize(1);
    fill(m, 50);
    fill(v, 90);
  }

  pesc::loaded_model<> load() const {
    const pesc::model_config config{support::tiny_llama(), {}, {}, ""};
    support::write_folder(folder.path("base"), config, support::make_tensors(config));
    return pesc::load_model({.path = folder.path("base")},
                            {.format = pesc::nf4<64, pesc::double_quant<>>::info()});
  }
  pesc::moe_shape shape() const {
    auto out = base.ffn_shape();
    out.experts = 3, out.top_k = 2, out.rank = 5, out.lora_rank = 2;
    return out;
  }
  void fill(pesc::buffer<float>& arena, std::uint64_t seed) {
    pesc::for_each_trainable(decoder.model.views_over(arena.view()),
                             [&](const std::string&, pesc::trainable_kind, auto matrix) {
                               const auto values = support::normal_floats(matrix.size(), ++seed);
                               std::copy(values.begin(), values.end(), matrix.data);
                             });
  }
  void save(const pesc::json& run, pesc::index_t steps, pesc::checkpoint_options options = {}) {
    options.step = steps;
    pesc::save_run(folder.path("run"), decoder.model, {.llama = base.config.llama},
                   {m.view(), v.view(), steps}, run, options);
  }
};

std::vector<float> list(const pesc::buffer<float>& b) { return {b.data(), b.data() + b.size()}; }

}  // namespace

TEST_SUITE("model/run_state") {
  TEST_CASE("parameters, both moments, the step count and the run's own numbers come back to the bit") {
    run_model r;
    pesc::json run = pesc::json::object();
    run.set("seed", std::numeric_limits<std::uint64_t>::max())
        .set("rate", 1e-3 / 3)
        .set("counter", pesc::index_t{-5});
    run.set("options", pesc::json::object().set("data", "a.jsonl:0.3"));
    r.save(run, 17);
    const auto found = pesc::load_run(r.folder.path("run"));
    CHECK(found.run == run);
    CHECK(found.run.find("rate")->to_double() == 1e-3 / 3);
    CHECK(found.place.manifest->step == 17);

    const auto loaded = pesc::load_model({.path = found.place.folder});
    CHECK(loaded.step == 17);
    support::decoder<support::sparse_layer> again(loaded);
    CHECK(again.values() == r.decoder.values());
    pesc::buffer<float> m(again.arena.size()), v(again.arena.size());
    CHECK(pesc::load_optimizer(found.place.folder, again.model, m.view(), v.view()) == 17);
    CHECK(list(m) == list(r.m));
    CHECK(list(v) == list(r.v));
  }

  TEST_CASE("the last two kept states and the newest one are there") {
    run_model r;
    for (pesc::index_t i = 1; i <= 3; ++i) r.save(pesc::json::object().set("i", i), 100 * i, {.keep = true});
    r.save(pesc::json::object().set("i", pesc::index_t{4}), 350);
    CHECK(pesc::detail::names_in(r.folder.path("run/checkpoints")) ==
          std::vector<std::string>{"step-000200", "step-000300"});
    CHECK(pesc::load_run(r.folder.path("run")).run.find("i")->to_int() == 4);
    CHECK(pesc::load_run(r.folder.path("run/checkpoints/step-000200")).run.find("i")->to_int() == 2);
    pesc::write_file(r.folder.path("run/optimizer.safetensors"), std::string_view{"x"});
    const auto fallback = pesc::load_run(r.folder.path("run"));
    CHECK(fallback.run.find("i")->to_int() == 3);
    CHECK(fallback.place.folder == r.folder.path("run/checkpoints/step-000300"));
  }

  TEST_CASE("a model without a run cannot be resumed") {
    run_model r;
    CHECK(support::contains(
        support::message_of([&] { static_cast<void>(pesc::load_run(r.folder.path("base"))); }),
        "base: holds no training run (no run.json)"));
    pesc::save_model(r.folder.path("model"), r.decoder.model, {.llama = r.base.config.llama});
    CHECK(support::contains(
        support::message_of([&] { static_cast<void>(pesc::load_run(r.folder.path("model"))); }),
        "holds no training run"));
  }

  TEST_CASE("the optimiser state of another model is refused") {
    run_model r;
    r.save(pesc::json::object(), 1);
    auto narrow = r.shape();
    narrow.rank = 4;
    support::decoder<support::sparse_layer> other(r.base.weights, narrow, {});
    pesc::buffer<float> m(other.arena.size()), v(other.arena.size());
    const auto load = [&](auto& model) {
      return support::message_of(
          [&] { static_cast<void>(pesc::load_optimizer(r.folder.path("run"), model, m.view(), v.view())); });
    };
    CHECK(support::contains(load(other.model), "expected [4, 24]"));
    auto fewer = r.shape();
    fewer.lora_rank = 0;
    support::decoder<support::sparse_layer> third(r.base.weights, fewer, {});
    m = pesc::buffer<float>(third.arena.size()), v = pesc::buffer<float>(third.arena.size());
    CHECK(support::contains(load(third.model), "lora_A.weight\" is not of this model"));
  }

  TEST_CASE("data that changed since the run began is refused") {
    const support::temporary_folder t;
    const std::string path = t.write("a.jsonl", "one line\n");
    const pesc::json description = pesc::describe_file(path);
    pesc::check_described_file(description, "run.json");
    t.write("a.jsonl", "one time\n");
    const auto check = [&] { pesc::check_described_file(description, "run.json"); };
    CHECK(support::contains(support::message_of(check), "a.jsonl: checksum "));
    t.write("a.jsonl", "x");
    CHECK(support::contains(support::message_of(check),
                            "has 1 bytes, the run began with 9. Resuming needs the same data."));
    std::filesystem::remove(path);
    CHECK(support::contains(support::message_of<pesc::io_error>(check), "there is no such file"));
    CHECK(support::contains(
        support::message_of([&] { pesc::check_described_file(pesc::json::object(), "run.json"); }),
        "run.json: key \"path\" is missing"));
  }
}
