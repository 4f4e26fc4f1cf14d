// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/safetensors.hpp"
#include "pesc/text/load_tokenizer.hpp"
#include "tool/common_options.hpp"
#include "tool/data_sets.hpp"
#include "tool/inspect_model.hpp"
#include "tool/json_output.hpp"

// inspect: tells what a file or folder holds, after the same checks that a load makes.

namespace pesc::tool {
namespace {

struct inspect_options {
  std::string path, json_file;
  bool map = false, tensors = false;
};

json inspect_safetensors(const std::string& path, bool map, std::FILE* to) {
  const safetensors_file file = safetensors_file::open(path, {map});
  json tensors = json::object();
  for (const tensor_info& t : file.tensors()) {
    json entry = json::object();
    tensors.set(t.name, std::move(entry.set("dtype", t.dtype_name).set("shape", shape_json(t.shape))));
    std::fprintf(to, "%-72s %-6s %s\n", one_line(t.name, 160).c_str(), t.dtype_name.c_str(),
                 shape_text(t.shape).c_str());
  }
  std::fprintf(to, "%s: %zu tensors\n", path.c_str(), file.tensors().size());
  json out = json::object();
  return std::move(out.set("kind", "safetensors").set("tensors", std::move(tensors)));
}

json inspect_tokenizer(const std::string& path, std::FILE* to) {
  const tokenizer t = load_tokenizer(path);
  std::fprintf(to, "%s: tokenizer of %d pieces, start %d, end %d\n", path.c_str(), t.size(), t.bos(),
               t.eos());
  json out = json::object();
  return std::move(out.set("kind", "tokenizer").set("pieces", index_t{t.size()}));
}

json inspect_data(const std::string& path, std::FILE* to) {
  record_summary found;
  const auto records = read_records(path, {}, found);
  std::fprintf(to, "%s: %lld records in %lld lines, %lld with an empty target\n", path.c_str(),
               static_cast<long long>(found.records), static_cast<long long>(found.lines),
               static_cast<long long>(found.empty_target));
  std::fprintf(to, "first prompt: %s\nfirst target: %s\n", in_quotes(records[0].prompt).c_str(),
               in_quotes(records[0].target).c_str());
  json out = json::object();
  return std::move(out.set("kind", "data").set("records", found.records).set("lines", found.lines));
}

int inspect_command(const inspect_options& o) {
  const bool folder = pesc::detail::is_folder(o.path);
  const std::string name = o.path.substr(o.path.rfind('/') + 1);
  std::FILE* to = text_output(o.json_file);
  json found;
  if (!folder && name.ends_with(".safetensors"))
    found = inspect_safetensors(o.path, o.map, to);
  else if (!folder && (name.ends_with(".jsonl") || name.ends_with(".txt")))
    found = inspect_data(o.path, to);
  else if (!folder && (name.starts_with("tok") || name.ends_with("vocab.json")))
    found = inspect_tokenizer(o.path, to);
  else
    found = inspect_model({.path = o.path, .map = o.map}, o.tensors, to);
  write_json_output(o.json_file, found);
  return done;
}

}  // namespace

command add_inspect(CLI::App& program) {
  auto o = std::make_shared<inspect_options>();
  CLI::App& app = *program.add_subcommand("inspect",
                                          "Check a model, tokenizer, data or safetensors file and tell what "
                                          "it holds and what can be done with it");
  app.add_option("path", o->path, "File or folder")->required();
  app.add_option("--json", o->json_file, "Write what was found to this file; - is standard output");
  app.add_flag("--tensors", o->tensors, "List every tensor of a model");
  app.add_flag("--mmap", o->map, "Map model files instead of reading them");
  app.footer("Example: pesc inspect runs/first");
  return [o] { return inspect_command(*o); };
}

}  // namespace pesc::tool
