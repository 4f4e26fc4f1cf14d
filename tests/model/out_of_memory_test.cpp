// SPDX-License-Identifier: Apache-2.0

// Every allocation of a load and of a save fails once: an error, the old state, and nothing left behind.

#include <cstdlib>
#include <filesystem>
#include <new>
#include <string>

#include <doctest/doctest.h>

#include "pesc/io/gguf.hpp"
#include "pesc/model/save_weights.hpp"
#include "pesc/text/load_tokenizer.hpp"
#include "support/data.hpp"
#include "support/decoder.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_gguf.hpp"

namespace {

/// Allocations until one fails; negative: none does.
long until_failure = -1;

void* allocate(std::size_t bytes, std::size_t alignment) {
  if (until_failure >= 0 && until_failure-- == 0) throw std::bad_alloc{};
  void* out = alignment == 0 ? std::malloc(bytes > 0 ? bytes : 1)
                             : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (out == nullptr) throw std::bad_alloc{};
  return out;
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes, 0); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes > 0 ? bytes : 1, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return allocate(bytes, 0);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
// Not inline: a compiler that sees free() behind a standard new takes it for a mistake.
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace {

/// Lets each allocation of `action` fail in turn, until it ends well; returns how many failed.
template <class Prepare, class Action, class Check>
long fail_each(Prepare&& prepare, Action&& action, Check&& check) {
  for (long k = 0;; ++k) {
    prepare();
    bool ended_well = false;
    until_failure = k;
    try {
      action();
      ended_well = true;
    } catch (const std::bad_alloc&) {
    } catch (const pesc::error&) {
      // A message could not be put together; the error is one all the same.
    }
    const bool failed = until_failure < 0;
    until_failure = -1;
    if (ended_well && !failed) return k;
    if (!ended_well) check();
    if (k > 20'000) FAIL("there is no end of allocations");
  }
}

}  // namespace

TEST_SUITE("model/out of memory") {
  TEST_CASE("a load in which any allocation fails ends in an error, and the next one works") {
    const support::temporary_folder folder;
    pesc::model_config c;
    c.llama = support::tiny_llama();
    c.llama.layers = 1;
    const auto tensors = support::make_tensors(c);
    support::write_folder<pesc::bf16>(folder.path("hf"), c, tensors);
    auto builder = support::gguf_keys(c.llama);
    const std::string gguf =
        folder.write("m.gguf", pesc::as_text(support::add_tensors(builder, c.llama, tensors).bytes()));
    for (const std::string& path : {folder.path("hf"), gguf}) {
      const long failures = fail_each(
          [] {}, [&] { static_cast<void>(pesc::load_model({.path = path}, {pesc::nf4<>::info()})); }, [] {});
      CHECK(failures > 50);
    }
    const std::string tokens = (support::example_data() / "tok512.bin").string();
    CHECK(fail_each([] {}, [&] { static_cast<void>(pesc::load_tokenizer(tokens)); }, [] {}) > 10);
  }

  TEST_CASE("a save in which any allocation fails leaves the old state, and no partial one") {
    const support::temporary_folder folder;
    pesc::model_config c;
    c.llama = support::tiny_llama();
    c.llama.layers = 1;
    support::write_folder(folder.path("hf"), c, support::make_tensors(c));
    const auto loaded = pesc::load_model({.path = folder.path("hf")}, {pesc::nf4<>::info()});
    const support::decoder<support::dense_layer> model(loaded);
    const std::string old = folder.path("old"), run = folder.path("run");
    pesc::save_model(old, model.model, {c.llama}, {.step = 1});
    const long failures = fail_each(
        [&] {
          std::filesystem::remove_all(run);
          std::filesystem::copy(old, run);
        },
        [&] { pesc::save_model(run, model.model, {c.llama}, {.step = 2}); },
        [&] {
          const auto place = pesc::find_checkpoint(run);
          REQUIRE(place.manifest);
          // Once files are being put in place the new state is the one that is whole.
          REQUIRE((place.manifest->step == 1 || place.manifest->step == 2));
        });
    CHECK(failures > 50);
    CHECK(pesc::find_checkpoint(run).manifest->step == 2);
    for (const std::string& name : pesc::detail::names_in(run)) CHECK_FALSE(name.ends_with(".new"));
    CHECK_FALSE(std::filesystem::exists(run + "/checkpoints"));
  }
}
