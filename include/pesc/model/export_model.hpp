// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "pesc/model/export_adapter.hpp"
#include "pesc/model/export_config.hpp"
#include "pesc/model/export_options.hpp"
#include "pesc/model/export_weights.hpp"
#include "pesc/model/new_folder.hpp"
#include "pesc/model/save_weights.hpp"

namespace pesc {
namespace detail {

/// \brief Files beside a model that other programs read with it.
inline std::vector<std::string> companion_files(const loaded_model<>& model) {
  std::vector<std::string> out;
  if (is_folder(model.name))
    for (const char* name :
         {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
          "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "generation_config.json"})
      if (exists(model.name + '/' + name)) out.push_back(model.name + '/' + name);
  const std::string& own = model.tokenizer;
  if (!own.empty() && own != model.name && std::find(out.begin(), out.end(), own) == out.end())
    out.push_back(own);
  return out;
}

/// \brief What a reader of the written model should know.
inline std::vector<std::string> export_notes(const loaded_model<>& model, const export_options& options) {
  std::vector<std::string> out;
  if (options.target == export_target::peft) {
    if (model.sparse())
      out.push_back(model.name + ": routers and adapters are no part of the format peft; they are left out");
    return out;
  }
  if (options.target == export_target::camelidae && model.config.llama.rope.theta != 10000.0)
    out.push_back(concat(model.name, ": rope_theta is ", model.config.llama.rope.theta,
                         ", where the published code of Camelidae takes 10000 whatever config.json says"));
  return out;
}

inline void export_adapter(const std::string& folder, const loaded_model<>& model,
                           const export_options& options) {
  const json* crafted_from = model.extra.find("crafted_from");
  const bool known = crafted_from != nullptr && crafted_from->if_string() != nullptr;
  safetensors_writer updates;
  updates.set_metadata("format", "pt");
  add_updates(updates, model, options.dtype);
  updates.write(folder + '/' + adapter_model_file);
  const adapter_config config = adapter_config_of(model, known ? *crafted_from->if_string() : model.name);
  write_file(folder + '/' + adapter_config_file, to_string(to_json(config), 2) + '\n');
}

inline void export_whole(const std::string& folder, const loaded_model<>& model,
                         const export_options& options) {
  sharded_writer files(options.max_shard_bytes);
  weight_exporter tensors(model, options, files);
  tensors.add_all();
  files.write(folder);
  // A checkpoint of this library keeps in float what it was given as anything else, and says so.
  const bool told = !options.dtype && !model.config.dtype.empty() && model.extra.is_null();
  const std::string dtype = told ? model.config.dtype : dtype_of_numbers(tensors.dtype());
  const json config = export_config(model.config, options.target, dtype, tensors.quantization());
  for (const std::string& file : companion_files(model)) copy_file(file, folder + '/' + file_name_of(file));
  if (!model.tokenizer.empty() && model.tokenizer == model.name)  // inside a GGUF file
    for (const tokenizer_file& file : tokenizer_files(model.tokenizer))
      write_file(folder + '/' + file.name, std::string_view{file.text});
  write_file(folder + "/config.json", to_string(config, 2) + '\n');
}

}  // namespace detail

/// \brief Writes a model to a new folder in a format of other programs, with the tokenizer files that lie beside it.
///
/// The folder appears when it is complete. Besides the model one tensor is in memory at a time. Low-rank updates are
/// merged, except for `peft`, which holds nothing else.
/// \returns what a reader should know, one line each
/// \throws format_error for a target that cannot hold the model, and a folder that is not empty; io_error
inline std::vector<std::string> export_model(const std::string& folder, const loaded_model<>& model,
                                             const export_options& options) {
  check_target(model, options.target);
  new_folder out(folder);
  if (options.target == export_target::peft)
    detail::export_adapter(out.path(), model, options);
  else
    detail::export_whole(out.path(), model, options);
  out.commit();
  return detail::export_notes(model, options);
}

}  // namespace pesc
