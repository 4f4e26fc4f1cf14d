// SPDX-License-Identifier: Apache-2.0
#include "tool/demo_report.hpp"

#include <cstdio>

namespace pesc::tool {
namespace {

/// \brief Load of each expert, summed over layers.
std::vector<index_t> over_layers(const evaluation& found, index_t experts) {
  std::vector<index_t> out(static_cast<std::size_t>(experts), 0);
  for (std::size_t i = 0; i < found.load.size(); ++i) out[i % out.size()] += found.load[i];
  return out;
}

/// \brief Load of each layer and expert, summed over domains.
std::vector<index_t> over_domains(const demo_result& result) {
  std::vector<index_t> out(static_cast<std::size_t>(result.layers * result.experts), 0);
  for (const domain_result& d : result.domains)
    for (std::size_t i = 0; i < out.size() && i < d.tuned.load.size(); ++i) out[i] += d.tuned.load[i];
  return out;
}

json losses_json(const domain_result& d) {
  json out = json::object();
  return std::move(out.set("dense", d.dense.loss).set("crafted", d.crafted.loss).set("tuned", d.tuned.loss));
}

/// \brief A text as a block with a name in front.
void print_sample(const char* name, const std::string& text) {
  std::printf("  %-7s ", name);
  for (const char c : text) {
    std::fputc(c, stdout);
    if (c == '\n') std::fputs("          ", stdout);
  }
  std::fputc('\n', stdout);
}

std::string sentence(const demo_result& result) {
  std::string better;
  double kept = 0.0;
  int count = 0;
  for (const domain_result& d : result.domains) {
    if (d.domain.train.empty()) kept = d.tuned.loss - d.crafted.loss;
    if (d.domain.train.empty() || !(d.tuned.loss < d.crafted.loss)) continue;
    better += (better.empty() ? "" : ", ") + d.domain.name;
    ++count;
  }
  char text[96];
  std::snprintf(text, sizeof text, "; the loss on stories, which it could write before, changed by %+.2f.",
                kept);
  return pesc::detail::concat("A 260,000-parameter story writer as a mixture of ", result.experts,
                              " experts. Tuning lowered the "
                              "held-out loss on ",
                              count, " domains (", better, ")", text);
}

}  // namespace

void print_result(const demo_result& result) {
  std::printf("\nheld-out loss, nats per target token\n%-14s %8s %8s %8s\n", "", "dense", "crafted", "tuned");
  for (const domain_result& d : result.domains)
    std::printf("%-14s %8.3f %8.3f %8.3f%s\n", d.domain.name.c_str(), d.dense.loss, d.crafted.loss,
                d.tuned.loss, d.domain.train.empty() ? "  (not trained on these: what is kept)" : "");
  std::printf("\nexpert load by domain, per cent of its slots\n%-14s", "");
  for (index_t e = 0; e < result.experts; ++e) std::printf(" %5lld", static_cast<long long>(e));
  std::printf("\n");
  for (const domain_result& d : result.domains) {
    const std::vector<index_t> load = over_layers(d.tuned, result.experts);
    double sum = 0.0;
    for (const index_t n : load) sum += static_cast<double>(n);
    std::printf("%-14s", d.domain.name.c_str());
    for (const index_t n : load) std::printf(" %5.1f", sum > 0 ? 100.0 * static_cast<double>(n) / sum : 0.0);
    std::printf("\n");
  }
  for (const domain_result& d : result.domains) {
    std::printf("\n%s\n", d.domain.name.c_str());
    print_sample("prompt", d.domain.prompt);
    print_sample("before", d.before);
    print_sample("after", d.after);
  }
}

json to_json(const demo_result& result) {
  json domains = json::object();
  json retention = json::object();
  for (const domain_result& d : result.domains) {
    if (d.domain.train.empty())
      retention = losses_json(d);
    else
      domains.set(d.domain.name, losses_json(d));
  }
  json out = json::object();
  return std::move(out.set("domains", std::move(domains))
                       .set("retention", std::move(retention))
                       .set("tokens_per_second", result.tokens_per_second)
                       .set("seconds", result.seconds));
}

report to_report(const demo_result& result) {
  report out;
  out.title = "pesc demo";
  out.summary = sentence(result);
  out.settings = result.settings;
  std::vector<std::string> names, layers;
  std::vector<index_t> by_domain;
  for (const domain_result& d : result.domains) {
    out.domains.push_back({d.domain.name, d.dense.loss, d.crafted.loss, d.tuned.loss, d.tuned.records,
                           d.tuned.tokens, !d.domain.train.empty()});
    out.samples.push_back({d.domain.name, d.domain.prompt, d.before, d.after});
    names.push_back(d.domain.name);
    const std::vector<index_t> load = over_layers(d.tuned, result.experts);
    by_domain.insert(by_domain.end(), load.begin(), load.end());
  }
  for (index_t l = 0; l < result.layers; ++l) layers.push_back(std::to_string(l));
  out.charts.push_back(loss_chart(result.steps, result.losses));
  out.charts.push_back(
      {"Balance loss", "step", "2 = balanced", {{"each step", result.steps, result.balances, false}}});
  out.loads.push_back(
      load_map("Layer by expert, all held-out texts", "layer", layers, result.experts, over_domains(result)));
  out.loads.push_back(load_map("Domain by expert, all layers", "domain", names, result.experts, by_domain));
  return out;
}

}  // namespace pesc::tool
