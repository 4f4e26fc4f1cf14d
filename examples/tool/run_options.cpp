// SPDX-License-Identifier: Apache-2.0
#include "tool/run_options.hpp"

#include "tool/common_options.hpp"

namespace pesc::tool {
namespace {

struct option_adder {
  CLI::App& app;
  std::map<std::string, CLI::Option*>& added;

  template <class Number>
  void number(const std::string& name, Number& value, Number least, Number most, const std::string& text) {
    added[name] = add_number<Number>(app, "--" + name, value, least, most, text);
  }
  void choice(const std::string& name, std::string& value, const std::vector<std::string>& words,
              const std::string& text) {
    added[name] = add_choice(app, "--" + name, value, words, text);
  }
  void flag(const std::string& name, bool& value, const std::string& text) {
    added[name] = app.add_flag("--" + name, value, text);
  }
  void text(const std::string& name, std::string& value, const std::string& about) {
    added[name] = app.add_option("--" + name, value, about);
  }
  void seed(const std::string& name, std::uint64_t& value, const std::string& text) {
    added[name] = add_seed(app, "--" + name, value, text);
  }
};

/// \brief Calls one function for every option, whatever its kind.
template <class F>
struct every_option {
  F f;

  template <class Number>
  void number(const std::string& name, Number& value, std::remove_const_t<Number> least,
              std::remove_const_t<Number> most, const std::string&) {
    f(name, value);
    if (value < least || value > most)
      pesc::detail::raise<format_error>(
          pesc::detail::concat("option ", name, " is ", value, ", expected ", least, " to ", most));
  }
  template <class Text>
  void choice(const std::string& name, Text& value, const std::vector<std::string>& words,
              const std::string&) {
    f(name, value);
    if (std::find(words.begin(), words.end(), value) == words.end())
      pesc::detail::raise<format_error>(
          pesc::detail::concat("option ", name, " is ", in_quotes(value), ", which is unknown"));
  }
  template <class Flag>
  void flag(const std::string& name, Flag& value, const std::string&) {
    f(name, value);
  }
  template <class Text>
  void text(const std::string& name, Text& value, const std::string&) {
    f(name, value);
  }
  template <class Seed>
  void seed(const std::string& name, Seed& value, const std::string&) {
    f(name, value);
  }
};

template <class F>
every_option(F) -> every_option<F>;

std::string as_text(const json& value) { return to_string(value); }

}  // namespace

std::map<std::string, CLI::Option*> add_run_options(CLI::App& app, run_options& o) {
  std::map<std::string, CLI::Option*> added;
  visit_run_options(o, option_adder{app, added});
  return added;
}

json to_json(const run_options& o) {
  json out = json::object();
  visit_run_options(
      o, every_option{[&](const std::string& name, const auto& value) { out.set(name, json{value}); }});
  return out;
}

run_options parse_run_options(const json_fields& f) {
  run_options out;
  visit_run_options(out, every_option{[&](const std::string& name, auto& value) {
                      // A run from before an option keeps what the program did then, its default.
                      if (!f.has(name)) return;
                      using type = std::remove_reference_t<decltype(value)>;
                      if constexpr (std::is_same_v<type, bool>)
                        value = f.get_bool(name);
                      else if constexpr (std::is_same_v<type, std::string>)
                        value = f.get_string(name);
                      else if constexpr (std::is_same_v<type, double>)
                        value = f.get_double(name);
                      else if constexpr (std::is_same_v<type, std::uint64_t>)
                        value = f.find(name)->to_uint().value_or(0);
                      else
                        value = f.get_int(name);
                    }});
  return out;
}

void refuse_contradictions(const run_options& given, const std::map<std::string, CLI::Option*>& options,
                           const run_options& saved, const std::string& folder) {
  const json new_values = to_json(given);
  const json old_values = to_json(saved);
  for (const auto& [name, option] : options) {
    // How often a run is saved changes nothing that it computes.
    if (option->count() == 0 || name == "save-every") continue;
    const std::string mine = as_text(*new_values.find(name));
    const std::string theirs = as_text(*old_values.find(name));
    if (mine != theirs)
      refuse_usage("--", name, ' ', mine, " contradicts the run in ", folder, ", which has ", theirs,
                   ". Leave the option out, or start a new run with --model");
  }
}

tuning_plan to_plan(const run_options& o, std::int32_t padding_id) {
  tuning_plan out;
  out.trainer.adamw.weight_decay = o.weight_decay;
  out.trainer.max_grad_norm = o.clip;
  out.trainer.balance.coefficient = static_cast<float>(o.aux);
  out.trainer.balance.z_coefficient = static_cast<float>(o.z);
  out.trainer.accumulation = o.accumulate;
  out.trainer.seed = o.seed;
  out.batch = {o.layout == "pad" ? batch_layout::pad : batch_layout::pack, o.micro_batch, o.length,
               padding_id};
  const schedule_kind kind = o.schedule == "constant" ? schedule_kind::constant
                             : o.schedule == "linear" ? schedule_kind::linear
                                                      : schedule_kind::cosine;
  out.run.rate = {kind, o.lr, o.warmup, o.steps, o.final_lr, 0.5};
  out.run.steps = o.steps;
  out.run.save_every = o.save_every;
  out.adapter_dropout = static_cast<float>(o.adapter_dropout);
  out.lora_dropout = static_cast<float>(o.lora_dropout);
  out.recompute = o.recompute;
  return out;
}

}  // namespace pesc::tool
