// SPDX-License-Identifier: Apache-2.0
#include "tool/session.hpp"

#include "tool/program.hpp"

namespace pesc::tool {

std::unique_ptr<cpu_backend> make_context(const machine& m) {
  if (m.isa == "auto") return std::make_unique<cpu_backend>(m.threads);
  for (const cpu::isa level : {cpu::isa::scalar, cpu::isa::avx2, cpu::isa::avx512, cpu::isa::avx512_bf16}) {
    if (m.isa != cpu::name_of(level)) continue;
    if (level > cpu::detect_isa())
      refuse_usage("--isa ", m.isa, ": this processor has ", cpu::name_of(cpu::detect_isa()), " at most");
    return std::make_unique<cpu_backend>(m.threads, cpu::runtime_isa{level});
  }
  refuse_usage("--isa ", m.isa, ": expected auto, scalar, avx2, avx512 or avx512_bf16");
}

loaded_model<> open_model(const std::string& path, const machine& m, bool quiet,
                          const weight_options& format) {
  try {
    loaded_model<> out = load_model<>({.path = path, .adapter = {}, .map = m.map}, format);
    warn(out.warnings, quiet);
    return out;
  } catch (const numeric_error& e) {
    // Weights that are not finite are a bad file, not a computation that went wrong.
    pesc::detail::raise<format_error>(e.what());
  }
}

std::unique_ptr<session> make_session(cpu_backend& ctx, loaded_model<> model, const std::string& compute,
                                      std::uint64_t seed) {
  const bool sparse = model.sparse();
  if (compute == "bf16")
    return sparse ? make_sparse_bf16(ctx, std::move(model), seed)
                  : make_dense_bf16(ctx, std::move(model), seed);
  return sparse ? make_sparse_float(ctx, std::move(model), seed)
                : make_dense_float(ctx, std::move(model), seed);
}

}  // namespace pesc::tool
