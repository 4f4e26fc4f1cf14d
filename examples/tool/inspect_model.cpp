// SPDX-License-Identifier: Apache-2.0
#include "tool/inspect_model.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <string>

#include "pesc/model/load_weights.hpp"
#include "pesc/text/chat_template.hpp"
#include "pesc/text/load_tokenizer.hpp"
#include "pesc/train/memory.hpp"
#include "tool/program.hpp"

namespace pesc::tool {

json shape_json(const std::vector<index_t>& shape) {
  json out = json::array();
  for (const index_t n : shape) out.push_back(n);
  return out;
}

namespace {

/// \brief What one command says to a model: nothing, or why not.
struct verdict {
  const char* commands;
  std::string why_not;
};

/// \brief Prints lines and keeps them as JSON.
class inspection {
 public:
  inspection(bool list, std::FILE* to) : list_{list}, to_{to} {}

  void describe(model_files& files) {
    const llama_config& c = files.config().llama;
    const std::optional<pesc_config>& sparse = files.config().pesc;
    std::fprintf(to_, "%s: %s, %s Llama model\n", files.name().c_str(), files.kind(),
                 sparse ? "sparse (PESC)" : "dense");
    std::fprintf(
        to_,
        "  vocabulary %lld, hidden %lld, feed-forward %lld, layers %lld, heads %lld (%lld key-value) "
        "of %lld, positions %lld\n",
        number(c.vocab), number(c.hidden), number(c.intermediate), number(c.layers), number(c.heads),
        number(c.kv_heads), number(c.head_dim), number(c.max_positions));
    std::fprintf(to_, "  rotary base %g, %s; %s head\n", c.rope.theta, rope_text(c.rope).c_str(),
                 c.tie_embeddings ? "tied" : "own");
    if (sparse)
      std::fprintf(to_, "  experts %lld, top-%lld, adapter rank %lld, adapter scale %g\n",
                   number(sparse->experts), number(sparse->top_k), number(sparse->adapter_dim),
                   sparse->moe_scaling);
    if (files.lora())
      std::fprintf(to_, "  low-rank updates of rank %lld, alpha %g\n", number(files.lora()->rank),
                   files.lora()->alpha);
    const index_t step = files.manifest() ? files.manifest()->step : 0;
    if (files.manifest()) std::fprintf(to_, "  training steps %lld\n", number(step));
    found_.set("kind", "model")
        .set("container", files.kind())
        .set("sparse", sparse.has_value())
        .set("step", step)
        .set("config", to_json(files.config()));
  }

  void list(const std::vector<const tensor_info*>& tensors) {
    struct group {
      index_t count = 0, bytes = 0;
    };
    std::map<std::string, group> by_type;
    index_t bytes = 0;
    json all = json::object();
    for (const tensor_info* t : tensors) {
      group& g = by_type[t->dtype_name];
      ++g.count;
      g.bytes += t->size;
      bytes += t->size;
      if (!list_) continue;
      std::fprintf(to_, "  %-64s %-6s %s\n", one_line(t->name, 160).c_str(), t->dtype_name.c_str(),
                   shape_text(t->shape).c_str());
      json entry = json::object();
      all.set(t->name, std::move(entry.set("dtype", t->dtype_name).set("shape", shape_json(t->shape))));
    }
    std::string parts;
    json types = json::object();
    for (const auto& [type, g] : by_type) {
      parts +=
          pesc::detail::concat(parts.empty() ? "" : ", ", g.count, ' ', type, " (", bytes_text(g.bytes), ')');
      json entry = json::object();
      types.set(type, std::move(entry.set("tensors", g.count).set("bytes", g.bytes)));
    }
    std::fprintf(to_, "  %zu tensors, %s: %s\n", tensors.size(), bytes_text(bytes).c_str(), parts.c_str());
    found_.set("types", std::move(types));
    if (list_) found_.set("tensors", std::move(all));
  }

  /// \brief Frozen projections and what they would take in memory in other forms.
  void weigh(const model_config& config) {
    index_t projections = 0, weights = 0, rest = 0;
    for_each_frozen(config.llama, [&](const std::string& name, index_t rows, index_t cols) {
      if (cols > 0 && name.find("_proj.") != name.npos) {
        ++projections;
        weights += rows * cols;
      } else {
        rest += rows * std::max<index_t>(cols, 1);
      }
    });
    const index_t blocks = ceil_div(weights, 64);
    const index_t nf4 = weights / 2 + blocks + 4 * ceil_div(blocks, nested_block) + 4 * rest;
    std::fprintf(
        to_,
        "  to quantise: %lld projections of %.1f million weights. In memory, embedding and norms in float "
        "included: %s as nf4-dq, %s as bf16, %s as float\n",
        number(projections), static_cast<double>(weights) * 1e-6, bytes_text(nf4).c_str(),
        bytes_text(2 * weights + 4 * rest).c_str(), bytes_text(4 * (weights + rest)).c_str());
    json memory = json::object();
    memory.set("nf4-dq", nf4).set("bf16", 2 * weights + 4 * rest).set("float", 4 * (weights + rest));
    found_.set("projections", projections).set("memory", std::move(memory));
  }

  /// \brief Describes the tokenizer; returns why it cannot be used, or nothing.
  [[nodiscard]] std::string read_tokenizer(const std::string& path, index_t vocabulary) {
    if (path.empty()) {
      std::fprintf(to_, "  no tokenizer beside it\n");
      return "there is no tokenizer beside it; name one with --tokenizer";
    }
    try {
      const tokenizer t = load_tokenizer(path, vocabulary);
      std::string form = "none";
      if (!t.chat_template().empty()) {
        form = "unknown (name one with --template)";
        try {
          form = chat_template_of(t.chat_template(), path).name();
        } catch (const format_error&) {
        }
      }
      std::fprintf(to_, "  tokenizer %s: %d pieces, start %d, end %d, chat template %s\n", path.c_str(),
                   t.size(), t.bos(), t.eos(), form.c_str());
      json entry = json::object();
      entry.set("file", path).set("pieces", index_t{t.size()}).set("chat_template", form);
      found_.set("tokenizer", std::move(entry));
      return {};
    } catch (const error& e) {
      std::fprintf(to_, "  tokenizer cannot be used: %s\n", e.what());
      return e.what();
    }
  }

  void judge(const std::vector<verdict>& all) {
    json accepted = json::object();
    for (const verdict& v : all) {
      std::fprintf(to_, "  %s: %s%s\n", v.commands, v.why_not.empty() ? "yes" : "no: ", v.why_not.c_str());
      accepted.set(v.commands, v.why_not.empty() ? json{true} : json{v.why_not});
    }
    found_.set("accepted", std::move(accepted));
  }

  /// \brief A GGUF file of a model that is not supported: its keys and tensors, and why.
  void describe_foreign(const gguf_file& file, const std::string& why) {
    std::fprintf(to_, "%s: GGUF file, version %u\n", file.name().c_str(), file.version());
    for (const auto& [key, value] : file.keys().members())
      std::fprintf(to_, "  %s = %s\n", one_line(key, 80).c_str(), one_line(to_string(value), 120).c_str());
    for (const auto& [key, count] : file.lists())
      std::fprintf(to_, "  %s: %lld elements\n", one_line(key, 80).c_str(), number(count));
    std::vector<const tensor_info*> tensors;
    for (const tensor_info& t : file.tensors()) tensors.push_back(&t);
    found_.set("kind", "model").set("container", "GGUF file").set("keys", file.keys());
    list(tensors);
    judge({{"generate, chat, evaluate, craft, tune", why}});
  }

  [[nodiscard]] json take() { return std::move(found_); }

 private:
  static long long number(index_t n) { return static_cast<long long>(n); }

  static std::string rope_text(const rope_options& rope) {
    std::string out = rope.pairing == rope_pairing::neighbours ? "pairs of neighbours" : "pairs of halves";
    if (rope.scaling != rope_scaling::none)
      out += pesc::detail::concat(", stretched ", rope.factor, " times (",
                                  rope.scaling == rope_scaling::linear ? "linear" : "llama3", ')');
    return out;
  }

  bool list_;
  std::FILE* to_;
  json found_ = json::object();
};

std::string whether_tensors_fit(model_files& files) {
  try {
    check_tensors(files);
    return {};
  } catch (const format_error& e) {
    return e.what();
  }
}

}  // namespace

json inspect_model(const model_source& source, bool tensors, std::FILE* to) {
  inspection out(tensors, to);
  std::optional<model_files> opened;
  try {
    opened = model_files::open(source);
  } catch (const format_error& e) {
    if (pesc::detail::is_folder(source.path) || !is_gguf(source.path)) throw;
    out.describe_foreign(gguf_file::open(source.path, {.on_demand = true}), e.what());
    return out.take();
  }
  model_files& files = *opened;
  warn(files.warnings());
  out.describe(files);
  out.list(files.tensors());
  out.weigh(files.config());
  const std::string tokenizer = out.read_tokenizer(files.tokenizer(), files.config().llama.vocab);
  const std::string fits = whether_tensors_fit(files);
  const bool crafted = files.config().pesc || files.lora();
  out.judge({{"generate, chat, evaluate", !fits.empty() ? fits : tokenizer},
             {"craft", !fits.empty() ? fits
                       : crafted     ? "it is crafted already"
                                     : ""},
             {"tune", !fits.empty() ? fits
                      : !crafted    ? "nothing of it is trainable; craft it first"
                                    : tokenizer}});
  return out.take();
}

}  // namespace pesc::tool
