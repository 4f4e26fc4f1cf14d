// SPDX-License-Identifier: Apache-2.0
#include "tool/session.hpp"

#include "tool/load_progress.hpp"
#include "tool/program.hpp"

namespace pesc::tool {

cpu::isa instruction_set(const machine& m) {
  if (m.isa == "auto") return cpu::detect_isa();
  for (const cpu::isa level : {cpu::isa::scalar, cpu::isa::avx2, cpu::isa::avx512, cpu::isa::avx512_bf16}) {
    if (m.isa != cpu::name_of(level)) continue;
    if (level > cpu::detect_isa())
      refuse_usage("--isa ", m.isa, ": this processor has ", cpu::name_of(cpu::detect_isa()), " at most");
    return level;
  }
  refuse_usage("--isa ", m.isa, ": expected auto, scalar, avx2, avx512 or avx512_bf16");
}

loaded_model<> open_model(const std::string& path, const machine& m, bool quiet, const weight_options& format,
                          const adapter_choice& adapter) {
  try {
    load_progress progress(path, quiet);
    weight_options options = format;
    options.requantize = adapter.requantize;
    const auto show = [&](index_t done, index_t all) { progress.update(done, all); };
    const function_ref<void(index_t, index_t)> on_layer(show);
    options.on_layer = &on_layer;
    loaded_model<> out = load_model<>(
        {.path = path, .adapter = adapter.folder, .merge = adapter.merge, .map = m.map}, options);
    warn(out.warnings, quiet);
    return out;
  } catch (const numeric_error& e) {
    // Weights that are not finite are a bad file, not a computation that went wrong.
    pesc::detail::raise<format_error>(e.what());
  }
}

std::unique_ptr<session> make_session(const machine& m, loaded_model<> model, std::uint64_t seed) {
  if (m.device == "cuda") {
    if (model.weights.format.is_read_only())
      refuse_usage("--device cuda: weights kept as ", model.weights.format.name,
                   " are for the CPU. Choose another form: --weights nf4-dq, bf16 or float");
#if defined(PESC_TOOL_CUDA)
    return make_cuda(m, std::move(model), seed);
#else
    refuse_usage("--device cuda: this program was built without CUDA (configure with -DPESC_CUDA=ON)");
#endif
  }
  const bool sparse = model.sparse();
  if (m.compute == "bf16")
    return sparse ? make_sparse_bf16(m, std::move(model), seed) : make_dense_bf16(m, std::move(model), seed);
  return sparse ? make_sparse_float(m, std::move(model), seed) : make_dense_float(m, std::move(model), seed);
}

}  // namespace pesc::tool
