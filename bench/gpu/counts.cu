// SPDX-License-Identifier: Apache-2.0

// Counts of the kernels that decide the speed of the CUDA backend, for a machine without a GPU: what ptxas
// makes of them, and what a simulator counts while they run on the weight of a 7-billion-parameter model,
// 11008 x 4096 in NF4 with double-quantised scales. Nothing here is a time.
//
//   counts [--json FILE]
//
// prints a row for each metric and exits with 1 if one misses its limit, which is the design's. The simulator writes its counts to
// the file that PTXSIM_STATS names; run without it, the program reports on the machine code alone.
//
// Left out, since nothing here can know it: DRAM pages, hits of the caches, how latency is hidden, clocks,
// stalls of the tensor cores. Traffic counts every sector between L1 and L2 as if L1 never hit.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "gpu/machine_code.hpp"
#include "gpu/random_weight.hpp"
#include "pesc/gpu/optimizer.cuh"
#include "pesc/gpu/quantize.cuh"
#include "pesc/gpu/quantized_matmul.cuh"

namespace {

using namespace pesc;

constexpr index_t rows = 11008, cols = 4096;
constexpr double weights = static_cast<double>(rows * cols);

/// \brief Whether a metric must not be above its limit, or not below.
enum class bound { most, least };

/// \brief Figures beside a value; 0: none.
struct beside {
  double reached = 0;       ///< what a kernel that misses its limit must not fall behind
  double bitsandbytes = 0;  ///< the same metric of its kernel, compiled with the same compiler
};

/// \brief The report: rows of {kernel, metric, value, limit, pass}, some with the figures above.
class report {
 public:
  void add(const std::string& kernel, const std::string& metric, double value, double limit,
           bound kind = bound::most, const beside& other = {}) {
    const auto within = [&](double border) {
      return kind == bound::most ? value <= border : value >= border;
    };
    const bool pass = within(limit);
    failed_ = failed_ || !pass;
    std::printf("%-22s %-30s %12.4g %s %-10.4g %s", kernel.c_str(), metric.c_str(), value,
                kind == bound::most ? "<=" : ">=", limit, pass ? "ok" : "MISSED");
    if (!pass && other.reached > 0 && !within(other.reached))
      std::printf("   WORSE THAN BEFORE, which was %.4g", other.reached);
    if (other.bitsandbytes > 0)
      std::printf("   bitsandbytes %.3g, %.1f times", other.bitsandbytes, other.bitsandbytes / value);
    std::printf("\n");
    char line[400];
    std::snprintf(line, sizeof line,
                  R"({"kernel": "%s", "metric": "%s", "value": %.6g, "limit": %.6g, "at": "%s", "pass": %s)",
                  kernel.c_str(), metric.c_str(), value, limit, kind == bound::most ? "most" : "least",
                  pass ? "true" : "false");
    json_ += json_.empty() ? "" : ",\n";
    json_ += line;
    if (other.reached > 0) json_ += ", \"reached\": " + std::to_string(other.reached);
    if (other.bitsandbytes > 0) json_ += ", \"bitsandbytes\": " + std::to_string(other.bitsandbytes);
    json_ += "}";
  }

  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] std::string json() const { return "[\n" + json_ + "\n]\n"; }

 private:
  std::string json_;
  bool failed_ = false;
};

/// \brief What the simulator counted for one launch.
class launch_counts {
 public:
  explicit launch_counts(std::string line) : line_{std::move(line)} {}

  [[nodiscard]] bool is(const std::string& kernel) const { return line_.find(kernel) != std::string::npos; }

  /// \brief The number of a key, behind the key of the object that holds it.
  [[nodiscard]] double number(const char* object, const char* key) const {
    std::size_t at = *object == '\0' ? 0 : line_.find("\"" + std::string(object) + "\": ");
    if (at != std::string::npos) at = line_.find("\"" + std::string(key) + "\": ", at);
    if (at == std::string::npos) throw std::runtime_error("the simulator does not count " + std::string(key));
    return std::strtod(line_.c_str() + line_.find(": ", at) + 2, nullptr);
  }
  [[nodiscard]] double number(const char* key) const { return number("", key); }

 private:
  std::string line_;
};

/// \brief Limits for a run in the simulator.
struct run_limits {
  double compulsory_read = 0, compulsory_write = 0;  ///< bytes
  double footprint = 1.02;                           ///< distinct bytes read, over the compulsory ones
  double traffic = 0;                                ///< all sectors, over all compulsory bytes
  double traffic_reached = 0;                        ///< see `beside`
  double products = 0;                               ///< tensor-core instructions, exactly; 0: none
  double store_efficiency = 0.98;                    ///< tickets are single words
};

void add_run(report& out, const std::string& name, const launch_counts& run, const run_limits& limits) {
  out.add(name, "load sectors, efficiency", run.number("global_load", "efficiency"), 0.999, bound::least);
  out.add(name, "store sectors, efficiency", run.number("global_store", "efficiency"),
          limits.store_efficiency, bound::least);
  out.add(name, "bytes read / compulsory", run.number("unique_read_bytes") / limits.compulsory_read,
          limits.footprint);
  const double traffic = 32 * (run.number("global_load", "sectors") + run.number("global_store", "sectors"));
  out.add(name, "L2 traffic / compulsory", traffic / (limits.compulsory_read + limits.compulsory_write),
          limits.traffic, bound::most, {limits.traffic_reached, 0});
  out.add(name, "bank conflicts", run.number("smem", "conflict_excess"), 0);
  out.add(name, "local memory, bytes", run.number("local_traffic_bytes"), 0);
  if (limits.products > 0) {
    out.add(name, "tensor-core instructions", run.number("mma_instructions"), limits.products);
    out.add(name, "tensor-core instructions", run.number("mma_instructions"), limits.products, bound::least);
  }
}

constexpr index_t forward_tokens[] = {1, 8, 16, 32, 64};
constexpr index_t backward_tokens = 256;
constexpr index_t parameters = 1 << 20;

/// \brief Runs every kernel once, in the order in which `add_simulated` expects them.
void run_kernels() {
  cuda_backend ctx;
  const auto packed = pack(ctx, bench::random_weight(rows, cols).view());
  static_cast<void>(unpack(ctx, packed));
  {
    device_buffer<bf16> out(rows * cols);
    dequantize(ctx, packed.view(), out.matrix(rows, cols));
  }
  device_buffer<std::byte> memory(index_t{1} << 27);
  workspace<device_space> ws(memory.data(), memory.size());
  const auto multiply = [&](index_t tokens, bool transpose) {
    const index_t depth = transpose ? rows : cols, features = transpose ? cols : rows;
    device_buffer<float> x(tokens * depth), y(tokens * features);
    quantized_matmul(ctx, as_const(x.matrix(tokens, depth)), packed.view(), y.matrix(tokens, features),
                     {.transpose = transpose, .round_bf16 = true}, ws);
  };
  for (const index_t tokens : forward_tokens) multiply(tokens, false);
  multiply(backward_tokens, true);
  device_buffer<float> p(parameters), g(parameters), m(parameters), v(parameters);
  adamw_step(ctx, p.view(), as_const(g.view()), m.view(), v.view(), adamw_coefficients{});
  ctx.synchronize();
}

void add_simulated(report& out, const std::vector<launch_counts>& launches) {
  std::size_t next = 0;
  const auto run_of = [&](const std::string& kernel) {
    while (next < launches.size() && !launches[next].is(kernel)) ++next;
    if (next == launches.size()) throw std::runtime_error("the simulator saw no " + kernel);
    return launches[next++];
  };
  const double code_bytes = weights / 2, scale_bytes = weights / 64;
  const double weight_bytes = code_bytes + scale_bytes + weights / 64 / 256 * 4 + 1024;
  add_run(out, "repack", run_of("pack_codes_kernel"), {code_bytes, code_bytes, 1.01, 1.01});
  add_run(out, "unpack", run_of("unpack_codes_kernel"), {code_bytes, code_bytes, 1.01, 1.01});
  add_run(out, "dequantise", run_of("dequantize_kernel"), {weight_bytes, weights * 2, 1.01, 1.04, 1.01});
  // Missed: x and y are floats, where the limits are for bfloat16; each block of a slice reads its part of x, and the
  // parts of y pass through L2. The simulator also counts loads of kernel parameters by way of a register.
  constexpr double traffic[] = {1.05, 1.25, 1.35, 1.75, 1.43}, reached[] = {1.15, 1.5, 1.85, 2.6, 2.8};
  for (int i = 0; i < 5; ++i) {
    const double tokens = static_cast<double>(forward_tokens[i]);
    const bool few = tokens <= 32;
    const launch_counts run = run_of(few ? "frozen_stream_kernel" : "frozen_tile_kernel");
    run_limits limits{weight_bytes + tokens * cols * (few ? 4 : 2),
                      tokens * rows * 4,
                      few ? 1.02 : 1.03,
                      traffic[i],
                      reached[i],
                      weights / 256 * std::ceil(tokens / 8)};
    const std::string name = "product, " + std::to_string(forward_tokens[i]) + " tokens";
    add_run(out, name, run, limits);
    if (few)
      out.add(name, "PTX issue slots / weight", run.number("issue_slots") * 32 / weights,
              2.6 + 0.13 * tokens);
  }
  // Each of 32 tiles of columns reads the tokens once.
  const double tokens = static_cast<double>(backward_tokens);
  const double compulsory = weight_bytes + tokens * rows * 2 + tokens * cols * 4;
  add_run(out, "transposed, 256 tokens", run_of("frozen_transposed_kernel"),
          {weight_bytes + tokens * rows * 2, tokens * cols * 4, 1.03,
           1.1 * (weight_bytes + 32 * tokens * rows * 2 + tokens * cols * 4) / compulsory, 8.0,
           weights / 256 * tokens / 8});
  const double n = static_cast<double>(parameters);
  add_run(out, "AdamW", run_of("adamw_step_kernel"), {n * 16, n * 12, 1.0001, 1.001});
}

/// \brief A loop of a kernel, how it is found, and its limits.
struct counted_loop {
  const char* name;
  std::vector<std::string> parts;               ///< of the mangled name of the kernel
  int kind = bench::operation::matrix_product;  ///< the loop has most instructions of this kind
  double weights = 1;                           ///< that a lane multiplies or decodes in one round
  const char* unit = "weight";
  double most = 0;      ///< instructions per weight
  double reached = 0;   ///< see `beside`
  double products = 0;  ///< least share of tensor-core instructions; 0: no limit
  double products_reached = 0;
  double bitsandbytes = 0;  ///< instructions per weight on sm_90
  int stack_reached = 0;    ///< bytes on sm_90, none of them used in the loop
};

// The loops of frozen products for few tokens also begin and end inside of a run of four scales.
const std::vector<counted_loop>& counted_loops() {
  using namespace bench::operation;
  static const std::vector<counted_loop> list{
      {.name = "dequantise",
       .parts = {"17dequantize_kernel"},
       .kind = pack_floats,
       .weights = 128,
       .most = 4.0,
       .bitsandbytes = 23.7},
      {.name = "product, 1-8 tokens",
       .parts = {"20frozen_stream_kernel", "ELi4ELi1EEE"},
       .weights = 512,
       .most = 1.6,
       .reached = 1.85,
       .bitsandbytes = 7.9},
      {.name = "product, 9-16 tokens",
       .parts = {"20frozen_stream_kernel", "ELi4ELi2EEE"},
       .weights = 512,
       .most = 1.9,
       .reached = 2.15,
       .bitsandbytes = 8.3},
      {.name = "product, 17-32 tokens",
       .parts = {"20frozen_stream_kernel", "ELi2ELi4EEE"},
       .weights = 256,
       .most = 2.6,
       .reached = 3.0,
       .products = 0.18,
       .products_reached = 0.165,
       .bitsandbytes = 8.3},
      {.name = "product, 33-64 tokens",
       .parts = {"18frozen_tile_kernel", "ELi4ELi2EEE"},
       .weights = 128,
       .most = 4.2,
       .products = 0.24,
       .stack_reached = 40},
      {.name = "product, many tokens",
       .parts = {"18frozen_tile_kernel", "ELi4ELi1EEE"},
       .weights = 128,
       .most = 4.2,
       .products = 0.24},
      {.name = "transposed",
       .parts = {"24frozen_transposed_kernel", "ELi256EEE"},
       .weights = 32,
       .most = 14.5,
       .products = 0.28},
      {.name = "AdamW",
       .parts = {"17adamw_step_kernel"},
       .kind = store_global,
       .unit = "4 parameters",
       .most = 40,
       .reached = 75},
  };
  return list;
}

void add_machine_code(report& out, const std::string& path, int compute_capability) {
  const bench::machine_code code(path, compute_capability);
  const std::string device = "sm_" + std::to_string(compute_capability) + ": ";
  for (const counted_loop& counted : counted_loops()) {
    const bench::machine_kernel& kernel = code.find(counted.parts);
    const bench::machine_loop loop = kernel.main_loop(counted.kind);
    out.add(counted.name, device + "registers", kernel.registers, 255);
    out.add(counted.name, device + "stack, bytes", kernel.stack_bytes, 0, bound::most,
            {compute_capability == 90 ? static_cast<double>(counted.stack_reached) : 0, 0});
    out.add(counted.name, device + "instructions / " + counted.unit, loop.instructions / counted.weights,
            counted.most, bound::most,
            {counted.reached, compute_capability == 90 ? counted.bitsandbytes : 0});
    if (counted.products > 0)
      out.add(counted.name, device + "share of tensor cores",
              static_cast<double>(loop.count(bench::operation::matrix_product)) / loop.instructions,
              counted.products, bound::least, {counted.products_reached, 0});
  }
}

}  // namespace

int main(int count, char** arguments) {
  std::string json;
  for (int i = 1; i < count; ++i) {
    if (std::strcmp(arguments[i], "--json") != 0 || i + 1 == count) {
      std::fprintf(stderr, "use: counts [--json FILE]\n");
      return 2;
    }
    json = arguments[++i];
  }
  const std::string statistics = "counts-" + std::to_string(std::rand()) + ".stats";
  setenv("PTXSIM_STATS", statistics.c_str(), 1);  // read at the first call of the runtime
  report out;
  try {
    add_machine_code(out, PESC_COUNTED_SM80, 80);
    add_machine_code(out, PESC_COUNTED_SM90, 90);
    run_kernels();
    std::vector<launch_counts> launches;
    std::ifstream file(statistics);
    for (std::string line; std::getline(file, line);) launches.emplace_back(line);
    file.close();
    std::remove(statistics.c_str());
    if (launches.empty())
      std::printf(
          "no counts of a simulator: left out are sectors, bytes, bank conflicts, tensor-core "
          "instructions\n");
    else
      add_simulated(out, launches);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "counts: %s\n", e.what());
    return 1;
  }
  if (!json.empty()) std::ofstream(json) << out.json();
  return out.failed() ? 1 : 0;
}
