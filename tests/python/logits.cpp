// SPDX-License-Identifier: Apache-2.0

// logits MODEL ADAPTER ID...: the logits of every token of a text, a line each; ADAPTER may be empty.

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <vector>

#include "support/decoder.hpp"

namespace {

template <class FeedForward>
void print_logits(const pesc::loaded_model<>& model, const std::vector<std::int32_t>& ids) {
  support::decoder<FeedForward> decoder(model);
  const std::vector<float> logits = decoder.logits(ids);
  const auto vocabulary = static_cast<std::size_t>(model.weights.shape.vocabulary);
  for (std::size_t i = 0; i < logits.size(); ++i)
    std::printf("%.9g%c", static_cast<double>(logits[i]), (i + 1) % vocabulary == 0 ? '\n' : ' ');
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fputs("usage: logits MODEL ADAPTER ID...\n", stderr);
    return 2;
  }
  try {
    std::vector<std::int32_t> ids;
    for (int i = 3; i < argc; ++i) ids.push_back(std::atoi(argv[i]));
    const auto model = pesc::load_model({.path = argv[1], .adapter = argv[2]});
    if (model.sparse())
      print_logits<support::sparse_layer>(model, ids);
    else
      print_logits<support::dense_layer>(model, ids);
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "logits: %s\n", e.what());
    return 1;
  }
}
