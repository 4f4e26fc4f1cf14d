// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

// Reads what ptxas made of kernels: registers, stack, and the instructions of loops. The toolkit has a
// disassembler for this, but not every installation; kinds of instructions and the targets of branches are
// enough here.

namespace bench {

/// \brief A loop of a kernel: from the target of a backward branch to the branch.
struct machine_loop {
  int instructions = 0;
  std::map<int, int> kinds;  ///< how many of each operation code

  [[nodiscard]] int count(int kind) const {
    const auto found = kinds.find(kind);
    return found == kinds.end() ? 0 : found->second;
  }
};

/// \brief Operation codes, the low 9 bits of an instruction.
namespace operation {
inline constexpr int branch = 0x147, matrix_product = 0x03c, pack_floats = 0x03e, store_global = 0x186,
                     load_local = 0x183, store_local = 0x187, nothing = 0x118;
}

/// \brief One kernel as machine code.
struct machine_kernel {
  std::string name;
  int registers = 0;
  int stack_bytes = 0;
  int instructions = 0;
  int local_accesses = 0;
  std::vector<machine_loop> loops;

  /// \brief The shortest loop with the most instructions of a kind.
  [[nodiscard]] machine_loop main_loop(int kind) const {
    machine_loop best;
    for (const machine_loop& loop : loops)
      if (loop.count(kind) > best.count(kind) ||
          (loop.count(kind) == best.count(kind) && loop.count(kind) > 0 &&
           loop.instructions < best.instructions))
        best = loop;
    return best;
  }
};

/// \brief The kernels of a cubin for devices of one compute capability.
class machine_code {
 public:
  machine_code(const std::string& path, int compute_capability) : compute_capability_{compute_capability} {
    std::ifstream file(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    if (bytes_.size() < 64) throw std::runtime_error("cannot read " + path);
    read_sections();
    read_attributes();
  }

  /// \brief The kernel whose mangled name holds all of `parts`.
  [[nodiscard]] const machine_kernel& find(const std::vector<std::string>& parts) const {
    for (const auto& [name, kernel] : kernels_) {
      bool all = true;
      for (const std::string& part : parts) all = all && name.find(part) != std::string::npos;
      if (all) return kernel;
    }
    throw std::runtime_error("no kernel " + parts.front() + " in the machine code");
  }

 private:
  struct section {
    std::string name;
    std::uint32_t type = 0, link = 0;
    std::uint64_t offset = 0, size = 0;
  };

  template <class T>
  [[nodiscard]] T at(std::uint64_t place) const {
    T value{};
    if (place + sizeof(T) > bytes_.size()) throw std::runtime_error("machine code is cut short");
    std::memcpy(&value, bytes_.data() + place, sizeof(T));
    return value;
  }
  [[nodiscard]] std::string text(std::uint64_t place) const { return bytes_.c_str() + place; }

  void read_sections() {
    const auto table = at<std::uint64_t>(0x28);
    const auto entry = at<std::uint16_t>(0x3A), count = at<std::uint16_t>(0x3C),
               names = at<std::uint16_t>(0x3E);
    const auto name_table = at<std::uint64_t>(table + names * std::uint64_t{entry} + 0x18);
    for (int i = 0; i < count; ++i) {
      const std::uint64_t place = table + static_cast<std::uint64_t>(i) * entry;
      sections_.push_back({text(name_table + at<std::uint32_t>(place)), at<std::uint32_t>(place + 4),
                           at<std::uint32_t>(place + 0x28), at<std::uint64_t>(place + 0x18),
                           at<std::uint64_t>(place + 0x20)});
      const section& s = sections_.back();
      if (s.name.rfind(".text.", 0) == 0) read_kernel(s.name.substr(6), s);
    }
  }

  /// Instruction after the branch at `i`, by its distance: in bytes up to 8.x, in units of 4 bytes since 9.0.
  [[nodiscard]] std::int64_t target(std::int64_t i, std::uint64_t low, std::uint64_t high) const {
    const std::uint64_t upper = high & 0x3FFFF;
    if (compute_capability_ < 90) {
      auto distance = static_cast<std::int64_t>(upper << 32 | low >> 32);
      if (distance >> 49 != 0) distance -= std::int64_t{1} << 50;
      return i + 1 + distance / 16;
    }
    auto distance = static_cast<std::int64_t>(upper << 30 | low >> 34);
    if (distance >> 47 != 0) distance -= std::int64_t{1} << 48;
    return i + 1 + (distance * 256 + static_cast<std::int64_t>(low >> 16 & 0xFF)) / 4;
  }

  void read_kernel(const std::string& name, const section& s) {
    machine_kernel kernel;
    kernel.name = name;
    std::vector<int> kinds;
    const auto n = static_cast<std::int64_t>(s.size / 16);
    for (std::int64_t i = 0; i < n; ++i)
      kinds.push_back(
          static_cast<int>(at<std::uint64_t>(s.offset + static_cast<std::uint64_t>(i) * 16) & 0x1FF));
    for (std::int64_t i = 0; i < n; ++i) {
      const int kind = kinds[static_cast<std::size_t>(i)];
      if (kind != operation::nothing) kernel.instructions = static_cast<int>(i) + 1;
      kernel.local_accesses += kind == operation::load_local || kind == operation::store_local;
      if (kind != operation::branch) continue;
      const std::uint64_t place = s.offset + static_cast<std::uint64_t>(i) * 16;
      const std::int64_t first = target(i, at<std::uint64_t>(place), at<std::uint64_t>(place + 8));
      if (first > i - 3 || first < 0) continue;
      machine_loop loop;
      loop.instructions = static_cast<int>(i - first + 1);
      for (std::int64_t j = first; j <= i; ++j) ++loop.kinds[kinds[static_cast<std::size_t>(j)]];
      kernel.loops.push_back(loop);
    }
    kernels_[name] = kernel;
  }

  /// Attributes of the section `.nv.info`: kind, number, and for each symbol a value.
  void read_attributes() {
    constexpr std::uint8_t register_count = 0x2F, frame_size = 0x11, with_size = 4;
    std::vector<std::string> symbols;
    for (const section& s : sections_)
      if (s.name == ".symtab")
        for (std::uint64_t i = 0; i < s.size / 24; ++i)
          symbols.push_back(text(sections_[s.link].offset + at<std::uint32_t>(s.offset + i * 24)));
    for (const section& s : sections_) {
      if (s.name != ".nv.info") continue;
      for (std::uint64_t place = s.offset; place + 4 <= s.offset + s.size;) {
        const auto form = at<std::uint8_t>(place), attribute = at<std::uint8_t>(place + 1);
        const std::uint64_t size = form == with_size ? at<std::uint16_t>(place + 2) : 0;
        if (size == 8 && (attribute == register_count || attribute == frame_size)) {
          machine_kernel& kernel = kernels_[symbols.at(at<std::uint32_t>(place + 4))];
          (attribute == register_count ? kernel.registers : kernel.stack_bytes) =
              static_cast<int>(at<std::uint32_t>(place + 8));
        }
        place += 4 + size;
      }
    }
  }

  int compute_capability_;
  std::string bytes_;
  std::vector<section> sections_;
  std::map<std::string, machine_kernel> kernels_;
};

}  // namespace bench
