// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/io/hf_directory.hpp"
#include "pesc/io/llama2c.hpp"
#include "pesc/model/checkpoint.hpp"
#include "pesc/model/config.hpp"
#include "pesc/model/gguf_model.hpp"
#include "pesc/model/peft.hpp"
#include "pesc/model/row_order.hpp"
#include "pesc/model/tensor_names.hpp"

namespace pesc {

/// \brief Where a model is read from, and how.
struct model_source {
  std::string
      path{};  ///< a GGUF or llama2.c file, or a folder: this library's checkpoint or a Hugging Face model
  std::string
      adapter{};       ///< a PEFT folder with updates for it; empty: those in the model's own folder, if any
  bool merge = false;  ///< add the updates to the weights instead of keeping them apart
  bool map = false;    ///< map files instead of reading them; see `mapped_file` for what that risks
  bool checksums = true;  ///< compare a checkpoint's files with its manifest
};

/// \brief An opened model: its configuration and its tensors under Hugging Face names, wherever they lie.
class model_files {
 public:
  /// \throws io_error, format_error
  [[nodiscard]] static model_files open(const model_source& source);

  [[nodiscard]] const model_config& config() const { return config_; }
  [[nodiscard]] const json& extra() const {
    return extra_;
  }  ///< the key "pesc" of config.json; null when absent
  [[nodiscard]] const std::string& name() const {
    return name_;
  }  ///< of the file or folder read, for messages
  [[nodiscard]] const std::optional<checkpoint_manifest>& manifest() const { return manifest_; }

  /// \brief A tokenizer file that lies with the model; empty when there is none.
  [[nodiscard]] const std::string& tokenizer() const { return tokenizer_; }

  /// \brief Oddities that do not stop a load, one line each.
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }

  [[nodiscard]] const std::optional<adapter_config>& lora() const { return lora_; }
  [[nodiscard]] const safetensors_file& adapter() const { return adapter_; }  ///< valid if `lora()`

  /// \brief From the order of the adapter's rows of queries and keys to that of the model.
  [[nodiscard]] row_order adapter_order() const {
    return {config_.llama.head_dim, adapter_pairing_, config_.llama.rope.pairing};
  }

  /// \brief The tensor of that name, or null; marks it as used.
  [[nodiscard]] const tensor_info* find(std::string_view name) {
    const auto at = lower(name);
    if (at == places_.end() || at->tensor->name != name) return nullptr;
    at->used = true;
    return at->tensor;
  }

  /// \brief Whether there is such a tensor; does not count as using it.
  [[nodiscard]] bool contains(std::string_view name) {
    const auto at = lower(name);
    return at != places_.end() && at->tensor->name == name;
  }

  /// \brief All tensors, sorted by name; does not count as using them.
  [[nodiscard]] std::vector<const tensor_info*> tensors() const {
    std::vector<const tensor_info*> out;
    for (const place& p : places_) out.push_back(p.tensor);
    return out;
  }

  /// \brief The kind of file or folder, for people: "GGUF file".
  [[nodiscard]] const char* kind() const {
    return gguf_ ? "GGUF file" : single_ ? "llama2.c file" : manifest_ ? "checkpoint" : "Hugging Face folder";
  }

  [[nodiscard]] std::vector<std::string> unused_names() const {
    std::vector<std::string> out;
    for (const place& p : places_)
      if (!p.used) out.push_back(p.tensor->name);
    return out;
  }

 private:
  struct place {
    const tensor_info* tensor;
    bool used = false;
  };

  [[nodiscard]] std::vector<place>::iterator lower(std::string_view name) {
    return std::lower_bound(places_.begin(), places_.end(), name,
                            [](const place& p, std::string_view n) { return p.tensor->name < n; });
  }

  void open_file(const model_source& source);
  void open_llama2c(const model_source& source);
  void open_gguf(const model_source& source);
  void open_folder(const model_source& source);
  void open_adapter(const std::string& folder, bool map);

  std::string name_;
  model_config config_;
  json extra_;
  std::optional<checkpoint_manifest> manifest_;
  std::string tokenizer_;
  std::vector<std::string> warnings_;
  std::optional<llama2c_file> single_;
  std::optional<gguf_file> gguf_;
  std::vector<tensor_info> single_tensors_;
  std::optional<hf_directory> folder_;
  std::optional<adapter_config> lora_;
  safetensors_file adapter_;
  rope_pairing adapter_pairing_ = rope_pairing::halves;
  std::vector<place> places_;
};

namespace detail {

/// \brief The tensors of a llama2.c file under Hugging Face names.
inline std::vector<tensor_info> named_tensors(const llama2c_file& file) {
  std::vector<tensor_info> out;
  const auto& h = file.header;
  out.push_back(file.tensor("model.embed_tokens.weight", file.embedding, 0, 1, {h.vocab, h.hidden}));
  out.push_back(file.tensor("model.norm.weight", file.final_norm, 0, 1, {h.hidden}));
  if (!h.tied) out.push_back(file.tensor("lm_head.weight", file.head, 0, 1, {h.vocab, h.hidden}));
  struct stack {
    const char* name;
    const llama2c_part& values;
    std::vector<index_t> shape;
  };
  const stack all[] = {{"input_layernorm", file.attention_norm, {h.hidden}},
                       {"post_attention_layernorm", file.ffn_norm, {h.hidden}},
                       {"self_attn.q_proj", file.query, {h.hidden, h.hidden}},
                       {"self_attn.k_proj", file.key, {h.kv_width(), h.hidden}},
                       {"self_attn.v_proj", file.value, {h.kv_width(), h.hidden}},
                       {"self_attn.o_proj", file.output, {h.hidden, h.hidden}},
                       {"mlp.gate_proj", file.gate, {h.intermediate, h.hidden}},
                       {"mlp.up_proj", file.up, {h.intermediate, h.hidden}},
                       {"mlp.down_proj", file.down, {h.hidden, h.intermediate}}};
  for (index_t l = 0; l < h.layers; ++l)
    for (const stack& s : all)
      out.push_back(file.tensor(layer_prefix(l) + s.name + ".weight", s.values, l, h.layers, s.shape));
  return out;
}

/// \brief The tokenizer file in a folder: one that is named, or the first of a known kind.
inline std::string find_tokenizer(const std::string& folder, const std::string& named,
                                  std::vector<std::string>& warnings) {
  if (!named.empty() && is_plain_name(named) && exists(folder + '/' + named)) return folder + '/' + named;
  std::vector<std::string> found;
  for (const std::string& name : names_in(folder))
    if (name.starts_with("tok") && name.ends_with(".bin")) found.push_back(name);
  if (found.size() > 1)
    warnings.push_back(
        concat(folder, ": holds ", found.size(), " files tok*.bin; using ", in_quotes(found.front())));
  if (!found.empty()) return folder + '/' + found.front();
  for (const char* name : {"tokenizer.json", "tokenizer.model", "vocab.json"})
    if (exists(folder + '/' + name)) return folder + '/' + name;
  return {};
}

}  // namespace detail

inline model_files model_files::open(const model_source& source) {
  model_files out;
  if (!detail::exists(source.path))
    detail::raise<io_error>(source.path + ": there is no such file or folder");
  if (detail::is_folder(source.path))
    out.open_folder(source);
  else
    out.open_file(source);
  if (!source.adapter.empty()) out.open_adapter(detail::without_slash(source.adapter), source.map);
  std::sort(out.places_.begin(), out.places_.end(),
            [](const place& a, const place& b) { return a.tensor->name < b.tensor->name; });
  return out;
}

inline void model_files::open_file(const model_source& source) {
  if (source.path.ends_with(".safetensors"))
    detail::raise<format_error>(
        source.path + ": this is one file of a model; name the folder that holds it and config.json");
  name_ = source.path;
  if (is_gguf(source.path))
    open_gguf(source);
  else
    open_llama2c(source);
  for (const tensor_info& tensor : single_tensors_) places_.push_back({&tensor});
}

inline void model_files::open_gguf(const model_source& source) {
  gguf_ = gguf_file::open(source.path, {source.map, !source.map});
  config_ = config_of(*gguf_);
  single_tensors_ = named_tensors(*gguf_);
  if (gguf_->fields().has("tokenizer.ggml.model")) tokenizer_ = source.path;
}

inline void model_files::open_llama2c(const model_source& source) {
  single_ = llama2c_file::open(source.path);
  config_.llama = config_of(single_->header);
  config_.dtype = "float32";
  single_tensors_ = detail::named_tensors(*single_);
  tokenizer_ = detail::find_tokenizer(detail::folder_of(source.path), {}, warnings_);
}

inline void model_files::open_folder(const model_source& source) {
  checkpoint_place found = find_checkpoint(source.path, source.checksums);
  if (!found.note.empty()) warnings_.push_back(found.note);
  manifest_ = std::move(found.manifest);
  folder_ = hf_directory::open(found.folder, {source.map, !source.map});
  name_ = folder_->path();
  config_ = parse_config(folder_->config(), folder_->config_name());
  if (const json* own = folder_->config().find("pesc")) extra_ = *own;
  for (const std::string& text : folder_->warnings()) warnings_.push_back(text);
  for (const safetensors_file& file : folder_->files())
    for (const tensor_info& tensor : file.tensors()) places_.push_back({&tensor});
  const json* named = extra_.find("tokenizer");
  tokenizer_ = detail::find_tokenizer(
      name_, named != nullptr && named->if_string() ? *named->if_string() : "", warnings_);
  const bool has_adapter = manifest_ ? manifest_->find(adapter_model_file) != nullptr
                                     : detail::exists(name_ + '/' + adapter_model_file);
  if (source.adapter.empty() && has_adapter) open_adapter(name_, source.map);
}

inline void model_files::open_adapter(const std::string& folder, bool map) {
  const std::string file = folder + '/' + adapter_config_file;
  lora_ = parse_adapter_config(read_json(file), file);
  adapter_ = safetensors_file::open(folder + '/' + adapter_model_file, {map, !map});
  // PEFT knows the order of Hugging Face files only; a model of this library beside the adapter may tell another.
  const std::string model = folder + "/config.json";
  if (folder == name_)
    adapter_pairing_ = config_.llama.rope.pairing;
  else if (detail::exists(model))
    adapter_pairing_ = detail::parse_pairing({read_json(model), model});
}

}  // namespace pesc
