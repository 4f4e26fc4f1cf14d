// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/placed_model.hpp"

#include <vector>

#include <doctest/doctest.h>

#include "pesc/pesc.hpp"
#include "support/data.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

TEST_SUITE("model/placed_model") {
  TEST_CASE("on the CPU the running model and the one of the files share their tensors") {
    using layer = pesc::moe_layer<pesc::moe_dynamic<>, pesc::cpu_backend>;
    pesc::cpu_backend ctx(1);
    pesc::loaded_model<> loaded = pesc::load_model({PESC_EXAMPLE_DATA "/stories260K.bin"});
    loaded.config.pesc = pesc::pesc_config{.experts = 3, .top_k = 2, .adapter_dim = 5, .moe_scaling = 1.0};
    pesc::placed_model<layer> placed(ctx, loaded, 1);
    CHECK(placed.trainable_count() == placed.arena().size);
    const auto& running = placed->parameters()[0].ffn.router.weight;
    const auto& stored = placed.files().parameters()[0].ffn.router.weight;
    CHECK(running.data == stored.data);
    running(0, 0) = 42.0f;
    placed.to_host(ctx);
    CHECK(stored(0, 0) == 42.0f);
    CHECK(&placed->weights() == &loaded.weights);
  }
}
