// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "pesc/text/tokenizer.hpp"
#include "tool/program.hpp"
#include "tool/session.hpp"

// Options that several commands share, and the objects they lead to.

namespace pesc::tool {

/// \brief Adds --threads, --isa, --compute and --mmap.
void add_machine_options(CLI::App& app, machine& m);

/// \brief Adds --isa and --threads alone, for a command whose compute type comes from elsewhere.
void add_thread_options(CLI::App& app, machine& m);

/// \brief Adds --adapter, --merge and --requantize.
void add_adapter_options(CLI::App& app, adapter_choice& adapter);

void add_tokenizer_option(CLI::App& app, std::string& file);
CLI::Option* add_seed(CLI::App& app, const std::string& name, std::uint64_t& seed, const std::string& text);
void add_seed_option(CLI::App& app, std::uint64_t& seed);
/// \brief Adds --temperature, --top-k, --top-p and --seed of a command that writes text.
void add_sampling_options(CLI::App& app, sampling_options& sampling);

void add_quiet_option(CLI::App& app, bool& quiet);

/// \brief Adds `--NAME` with a range that is told in the help and in the message about a value outside it.
template <class Number>
CLI::Option* add_number(CLI::App& app, const std::string& name, Number& value, Number least, Number most,
                        const std::string& text) {
  const std::string range = pesc::detail::concat(least, " to ", most);
  const auto check = [=](std::string& given) -> std::string {
    Number number{};
    if (CLI::detail::lexical_cast(given, number) && number >= least && number <= most) return {};
    return pesc::detail::concat("found ", in_quotes(given), ", expected a number from ", range);
  };
  return app.add_option(name, value, text)->capture_default_str()->check(CLI::Validator(check, range));
}

/// \brief Adds `--NAME` with a few words to choose from.
CLI::Option* add_choice(CLI::App& app, const std::string& name, std::string& value,
                        const std::vector<std::string>& words, const std::string& text);

/// \brief A tokenizer with the file that it came from.
struct opened_tokenizer {
  tokenizer text;
  std::string file;
};

/// \brief The tokenizer that goes with a model: the one named, else the one that lies beside it.
/// \throws format_error when there is none, or it does not fit the embedding
[[nodiscard]] opened_tokenizer open_tokenizer(const std::string& named, const loaded_model<>& model);

}  // namespace pesc::tool
