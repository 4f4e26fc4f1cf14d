// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a training run adds to a checkpoint: optimizer.safetensors (both moments of every trainable tensor, by
// name, and the step count) and run.json (whatever the trainer wants to find again: counters, seeds, options,
// its data and their checksums).

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "pesc/io/safetensors.hpp"
#include "pesc/model/save_weights.hpp"

namespace pesc {

inline constexpr const char* optimizer_file = "optimizer.safetensors";
inline constexpr const char* run_file = "run.json";

/// \brief The moments of AdamW as flat arenas of the parameters' layout, and the steps taken.
struct optimizer_view {
  vector_view<float> m, v;
  index_t steps = 0;
};

namespace detail {

template <class Model, class F>
void for_each_moment(const Model& model, const optimizer_view& state, F&& f) {
  const auto visit = [&](const char* prefix, vector_view<float> arena) {
    for_each_trainable(model.views_over(arena), [&](const std::string& name, trainable_kind, auto matrix) {
      f(prefix + name, matrix);
    });
  };
  visit("m.", state.m);
  visit("v.", state.v);
}

}  // namespace detail

/// \brief Adds the state of the optimiser to a checkpoint.
/// \throws io_error
template <class Model>
void add_optimizer(checkpoint_writer& out, const Model& model, const optimizer_view& state) {
  safetensors_writer tensors;
  detail::for_each_moment(model, state, [&](const std::string& name, auto m) {
    tensors.add(name, std::vector{m.rows, m.cols},
                std::span<const float>{m.data, static_cast<std::size_t>(m.size())});
  });
  tensors.add("steps", std::vector<index_t>{}, std::span{&state.steps, 1});
  out.add(optimizer_file, tensors);
}

/// \brief Reads the moments back into arenas of the model's layout and tells the steps.
/// \param folder  the place of a complete state, see `find_checkpoint`
/// \throws io_error, format_error when the file is of another model
template <class Model>
[[nodiscard]] index_t load_optimizer(const std::string& folder, const Model& model, vector_view<float> m,
                                     vector_view<float> v) {
  const auto file = safetensors_file::open(folder + '/' + optimizer_file);
  std::set<std::string, std::less<>> known{"steps"};
  detail::for_each_moment(model, {m, v, 0}, [&](const std::string& name, auto matrix) {
    detail::fill_matrix(file.get(name), matrix, file.name());
    known.insert(name);
  });
  for (const tensor_info& tensor : file.tensors())
    if (!known.contains(tensor.name))
      detail::raise<format_error>(
          detail::concat(file.name(), ": tensor ", in_quotes(tensor.name),
                         " is not of this model; the optimiser state belongs to another run"));
  const std::vector<index_t> steps = file.read<index_t>("steps");
  if (steps.size() != 1 || steps[0] < 0)
    detail::raise<format_error>(file.name() + ": tensor \"steps\" is not one count, expected 0 or more");
  return steps[0];
}

/// \brief Saves a model with its training state as the newest state of a folder.
/// \param run  the trainer's state and the options of the run; comes back bit by bit from `load_run`
/// \throws io_error, format_error; the folder then holds what it held before
template <class Model>
void save_run(const std::string& folder, const Model& model, const model_description& about,
              const optimizer_view& state, const json& run, const checkpoint_options& options = {}) {
  checkpoint_writer out(folder, options);
  add_model(out, model, about);
  add_optimizer(out, model, state);
  out.add(run_file, run);
  out.commit();
}

/// \brief Where a run can be taken up again, and what it left there.
struct loaded_run {
  checkpoint_place place;  ///< read the model and the optimiser from `place.folder`
  json run;                ///< as it was given to `save_run`
};

/// \brief Finds the newest complete state of a run.
/// \throws io_error, format_error when the folder holds a model but no run
[[nodiscard]] inline loaded_run load_run(const std::string& folder, bool checksums = true) {
  loaded_run out{find_checkpoint(folder, checksums), {}};
  const std::string file = out.place.folder + '/' + run_file;
  const bool has_run = out.place.manifest && out.place.manifest->find(run_file) != nullptr;
  if (!has_run)
    detail::raise<format_error>(folder +
                                ": holds no training run (no run.json), so there is nothing to resume. "
                                "Start one from this model instead.");
  out.run = read_json(file);
  if (!out.run.is_object())
    detail::raise<format_error>(
        detail::concat(file, ": the text is ", out.run.type_name(), ", expected an object"));
  return out;
}

/// \brief Path, size and checksum of a data file, for `run.json`.
/// \throws io_error
[[nodiscard]] inline json describe_file(const std::string& path) {
  const file_checksum content = checksum_file(path);
  json out = json::object();
  out.set("path", path).set("bytes", content.bytes).set("xxh64", checksum_text(content.value));
  return out;
}

/// \brief Checks that a file described by `describe_file` is still what it was; resuming on other data would
/// not be the same run.
/// \param file  the JSON's name, for messages
/// \throws io_error, format_error
inline void check_described_file(const json& description, const std::string& file) {
  const json_fields f{description, file};
  const std::string path = f.get_string("path");
  const file_checksum wanted{detail::parse_count(f, "bytes"), detail::parse_checksum(f)};
  const file_checksum found = checksum_file(path);
  if (found.bytes != wanted.bytes)
    detail::raise<format_error>(detail::concat(path, ": the file has ", found.bytes,
                                               " bytes, the run began with ", wanted.bytes,
                                               ". Resuming needs the same data."));
  if (found.value != wanted.value)
    detail::raise<format_error>(detail::concat(path, ": checksum ", checksum_text(found.value),
                                               ", the run began with ", checksum_text(wanted.value),
                                               ". Resuming needs the same data."));
}

}  // namespace pesc
