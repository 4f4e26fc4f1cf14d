// SPDX-License-Identifier: Apache-2.0
#include <charconv>
#include <filesystem>

#include "pesc/model/export_model.hpp"
#include "pesc/train/memory.hpp"
#include "tool/common_options.hpp"

// convert: a model, with its low-rank updates or those of an adapter, in a format that other programs open.

namespace pesc::tool {
namespace {

struct convert_options {
  std::string model, to, folder;
  std::string dtype = "stored", max_shard_size = "5GB";
  adapter_choice adapter;
  bool requantize = false, map = false, quiet = false;
};

/// \brief Bytes of "5GB", "500MB", "20000"; -1 for anything else.
index_t parse_size(const std::string& text) {
  index_t number = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (code != std::errc{} || number < 1) return -1;
  const std::string_view unit{end, static_cast<std::size_t>(text.data() + text.size() - end)};
  const index_t factor = unit.empty()   ? 1
                         : unit == "KB" ? 1'000
                         : unit == "MB" ? 1'000'000
                         : unit == "GB" ? 1'000'000'000
                                        : 0;
  return factor == 0 ? -1 : checked_product(number, factor).value_or(-1);
}

std::optional<element_type> dtype_of(const std::string& name) {
  if (name == "stored") return {};
  return name == "bf16" ? element_type::bf16 : name == "f16" ? element_type::f16 : element_type::f32;
}

index_t bytes_in(const std::string& folder) {
  index_t out = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    out += static_cast<index_t>(entry.file_size());
  return out;
}

int convert_command(const convert_options& o) {
  check_new_folder(o.folder);  // before a large model is read
  const loaded_model<> loaded = open_model(o.model, {.map = o.map}, o.quiet, {}, o.adapter);
  export_options options;
  options.target = *export_target_named(o.to);
  options.dtype = dtype_of(o.dtype);
  options.max_shard_bytes = parse_size(o.max_shard_size);
  options.requantize = o.requantize;
  warn(export_model(o.folder, loaded, options), o.quiet);
  std::printf("%s: %s, %s\n", o.folder.c_str(), o.to.c_str(), bytes_text(bytes_in(o.folder)).c_str());
  return done;
}

}  // namespace

command add_convert(CLI::App& program) {
  auto o = std::make_shared<convert_options>();
  CLI::App& app = *program.add_subcommand("convert", "Write a model in a format that other programs open");
  app.add_option("--model", o->model, "Model folder, GGUF or llama2.c file")->required();
  add_choice(
      app, "--to", o->to, {"hf", "hf-4bit", "peft", "camelidae", "sparsetral"},
      "hf: numbers for transformers; hf-4bit: bitsandbytes; peft: the low-rank updates alone; camelidae, "
      "sparsetral: mixtures of experts. All but peft merge low-rank updates")
      ->required();
  app.add_option("DIR", o->folder, "New folder for it")->required();
  app.add_option("--adapter", o->adapter.folder, "Folder of a PEFT adapter that is read with the model");
  add_choice(app, "--dtype", o->dtype, {"stored", "bf16", "f16", "float"}, "Type of the numbers");
  app.add_option("--max-shard-size", o->max_shard_size,
                 "Largest file of weights: bytes, or with KB, MB or GB")
      ->capture_default_str()
      ->check(CLI::Validator(
          [](std::string& text) {
            return parse_size(text) > 0
                       ? std::string{}
                       : pesc::detail::concat("found ", in_quotes(text), ", expected a size such as 5GB");
          },
          "SIZE"));
  app.add_flag("--requantize", o->requantize,
               "hf-4bit: quantise 4-bit weights again where they cannot be kept, which loses precision");
  app.add_flag("--mmap", o->map, "Map model files instead of reading them");
  add_quiet_option(app, o->quiet);
  app.footer("Example: pesc convert --model runs/first --to camelidae --dtype bf16 exported");
  return [o] { return convert_command(*o); };
}

}  // namespace pesc::tool
