// SPDX-License-Identifier: Apache-2.0
#include "tool/weights.hpp"

#include "pesc/quant/fp4.hpp"
#include "pesc/quant/nf4.hpp"
#include "pesc/quant/unquantized.hpp"
#include "tool/common_options.hpp"

namespace pesc::tool {

std::optional<format_info> format_named(const std::string& weights, index_t block) {
  if (weights == "keep") return {};
  if (weights == "bf16") return unquantized<bf16>::info();
  if (weights == "float") return unquantized<float>::info();
  if ((block & (block - 1)) != 0)
    refuse_usage("--block ", block, ": expected a power of two from 32 to 4096");
  const scale_kind scales = weights == "nf4-dq" ? scale_kind::double_quant : scale_kind::plain;
  const int size = static_cast<int>(block);
  return weights == "fp4" ? make_code4_info(fp4<>::levels(), size, scales, "fp4")
                          : make_code4_info(nf4<>::levels(), size, scales, "nf4");
}

void add_weights_option(CLI::App& app, std::string& weights) {
  add_choice(app, "--weights", weights, {"keep", "nf4-dq", "nf4", "fp4", "bf16", "float"},
             "Frozen projections in memory; keep: as the file has them");
}

}  // namespace pesc::tool
