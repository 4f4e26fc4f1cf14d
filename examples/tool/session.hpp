// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "pesc/core/function_ref.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/model/load_model.hpp"
#include "pesc/model/sampling.hpp"
#include "pesc/train/evaluate.hpp"
#include "pesc/train/trainer.hpp"
#include "tool/tuning.hpp"

namespace pesc::tool {

/// \brief A model that is ready to run, whatever its types are.
///
/// Each combination of layer type and compute type is compiled in a file of its own behind this interface.
class session {
 public:
  virtual ~session() = default;

  [[nodiscard]] virtual const loaded_model<>& source() const = 0;
  [[nodiscard]] virtual index_t trainable_count() const = 0;

  /// \brief Loss on records; asks between batches whether to go on.
  [[nodiscard]] virtual evaluation evaluate(const token_records& records,
                                            function_ref<bool()> keep_going) = 0;

  /// \brief Continues a prompt; see `pesc::generate`.
  virtual index_t generate(std::span<const std::int32_t> prompt, index_t max_tokens,
                           const sampling_options& options, std::span<const std::int32_t> stop,
                           function_ref<bool(std::int32_t)> emit) = 0;

  /// \brief Continues a conversation, all of it in `ids`; what the last call held already is not computed again.
  /// \param places  most tokens that the conversation may grow to; the same in every call
  virtual index_t converse(std::span<const std::int32_t> ids, index_t places, index_t max_tokens,
                           const sampling_options& options, std::span<const std::int32_t> stop,
                           function_ref<bool(std::int32_t)> emit) = 0;

  /// \brief What tuning with these options would allocate.
  [[nodiscard]] virtual memory_estimate estimate(const tuning_plan& plan) = 0;

  /// \brief Runs the steps of a plan; the trainable tensors change.
  virtual tuning_result tune(const tuning_plan& plan, const tuning_hooks& hooks) = 0;

  /// \brief Writes the model as the only state of a folder, with its tokenizer file.
  /// \param extra  goes under the key "pesc" of config.json
  virtual void save(const std::string& folder, const std::string& tokenizer, const json& extra) = 0;
};

/// \brief How and on what a session computes.
struct machine {
  int threads = 0;           ///< 0: one per hardware thread
  std::string isa = "auto";  ///< instruction set
  std::string compute = "float";
  bool map = false;
  std::string device = "cpu";
};

/// \brief Low-rank updates that are read with a model.
struct adapter_choice {
  std::string folder;       ///< of PEFT; empty: those in the model's own folder, if any
  bool merge = false;       ///< into the frozen weights
  bool requantize = false;  ///< 4-bit weights that they are merged into
};

/// \brief Reads a model, and says on stderr what is odd about it.
/// \param format  of the projections; nothing: as they are stored
[[nodiscard]] loaded_model<> open_model(const std::string& path, const machine& m, bool quiet,
                                        const weight_options& format = {},
                                        const adapter_choice& adapter = {});

/// \brief Makes the session that fits the model and the machine: dense or sparse, float or bf16, CPU or CUDA.
/// \param seed  of the trainable tensors that the model does not bring
/// \throws usage_error for a machine that is not there
[[nodiscard]] std::unique_ptr<session> make_session(const machine& m, loaded_model<> model,
                                                    std::uint64_t seed);

/// \brief The instruction set that a machine description asks for.
/// \throws usage_error where this processor lacks it
[[nodiscard]] cpu::isa instruction_set(const machine& m);

std::unique_ptr<session> make_dense_float(const machine& m, loaded_model<> model, std::uint64_t seed);
std::unique_ptr<session> make_dense_bf16(const machine& m, loaded_model<> model, std::uint64_t seed);
std::unique_ptr<session> make_sparse_float(const machine& m, loaded_model<> model, std::uint64_t seed);
std::unique_ptr<session> make_sparse_bf16(const machine& m, loaded_model<> model, std::uint64_t seed);

/// \brief Any of the four on the CUDA device; in a build with CUDA only.
std::unique_ptr<session> make_cuda(const machine& m, loaded_model<> model, std::uint64_t seed);

}  // namespace pesc::tool
