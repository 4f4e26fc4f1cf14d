// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "pesc/model/llama.hpp"
#include "pesc/model/load_model.hpp"

namespace pesc {

/// \brief Stands in for a backend where a model only holds tensors: to fill them from files, and to save them.
struct no_backend {
  using memory_space = host_space;
  [[nodiscard]] static host_resource resource() { return {}; }
};

/// \brief A loaded model in the memory of a backend, ready to run.
///
/// Files are read and written through `files()`, a model over host memory with the same trainable tensors; `to_backend` and
/// `to_host` carry these over. Where the backend computes in host memory both are views of the same tensors.
/// \tparam Layer  `moe_layer<Config, X>` or `dense_layer<Config, X>`
template <class Layer>
class placed_model {
 public:
  using model = llama<Layer>;
  using file_model = llama<typename Layer::template on<no_backend>>;
  using X = typename Layer::backend;
  using space = typename X::memory_space;
  using resource = resource_of<X>;
  using format = typename Layer::config::weight;

  /// \param loaded  must outlive this object
  /// \param seed  of the trainable tensors that the model does not bring
  /// \throws format_error when sizes do not fit
  placed_model(X& ctx, const loaded_model<format>& loaded, std::uint64_t seed)
      : host_arena_(file_model::parameter_count(loaded.weights.shape, loaded.ffn_shape())),
        files_(loaded.weights, loaded.ffn_shape(), loaded.ffn_options(), host_arena_.view()),
        weights_{bring(ctx, loaded.weights)},
        arena_(on_host ? 0 : host_arena_.size()),
        model_(ctx, weights_of(loaded), loaded.ffn_shape(), loaded.ffn_options(), arena()) {
    files_.initialize(seed);
    static_cast<void>(load_trainables(files_, loaded));
    to_backend(ctx);
  }

  placed_model(const placed_model&) = delete;
  placed_model& operator=(const placed_model&) = delete;

  [[nodiscard]] model& operator*() { return model_; }
  [[nodiscard]] const model& operator*() const { return model_; }
  [[nodiscard]] model* operator->() { return &model_; }

  /// \brief The trainable tensors where the backend computes.
  [[nodiscard]] vector_view<float, space> arena() {
    if constexpr (on_host)
      return host_arena_.view();
    else
      return arena_.view();
  }

  [[nodiscard]] const file_model& files() const { return files_; }
  [[nodiscard]] index_t trainable_count() const { return host_arena_.size(); }

  /// \brief The trainable tensors of `files()` to the backend.
  void to_backend(X& ctx) {
    if constexpr (!on_host) upload(ctx, std::as_const(host_arena_).view(), arena_.view());
  }

  /// \brief Those of the backend to `files()`; waits for the backend.
  void to_host(X& ctx) {
    if constexpr (!on_host) download(ctx, as_const(arena_.view()), host_arena_.view());
  }

 private:
  static constexpr bool on_host = std::is_same_v<space, host_space>;
  struct nothing {};
  using brought = std::conditional_t<on_host, nothing, model_weights<format, resource>>;

  static brought bring(X& ctx, const model_weights<format>& from) {
    if constexpr (on_host)
      return {};
    else
      return pesc::to_backend(ctx, from);
  }

  [[nodiscard]] const model_weights<format, resource>& weights_of(const loaded_model<format>& loaded) const {
    if constexpr (on_host)
      return loaded.weights;
    else
      return weights_;
  }

  buffer<float> host_arena_;
  file_model files_;
  [[no_unique_address]] brought weights_;
  buffer<float, resource> arena_;
  model model_;
};

}  // namespace pesc
