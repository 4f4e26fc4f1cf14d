// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/checkpoint.hpp"

#include <csignal>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/file_limit.hpp"
#include "support/message_of.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"

namespace {

using observer = pesc::function_ref<void(std::string_view)>;

/// A state whose files all tell its number; `size` floats decide whether files are linked or copied.
void save(const std::string& folder, int number, pesc::checkpoint_options options = {},
          pesc::index_t size = 10, bool with_extra = false) {
  const auto values = support::normal_floats(size, static_cast<std::uint64_t>(number));
  pesc::safetensors_writer tensors;
  tensors.add("w", {size}, std::span<const float>{values});
  options.step = number;
  pesc::checkpoint_writer out(folder, options);
  pesc::json config = pesc::json::object();
  config.set("pesc", pesc::json::object()).set("number", number);
  out.add("config.json", config);
  out.add("model.safetensors", tensors);
  if (with_extra) out.add("extra.safetensors", tensors);
  out.add("run.json", config);
  out.commit();
}

/// The number of the state that a reader finds, after a check that all its files belong to it.
int number_in(const std::string& folder) {
  const auto place = pesc::find_checkpoint(folder);
  REQUIRE(place.manifest);
  const auto number =
      static_cast<int>(*pesc::read_json(place.folder + "/config.json").find("number")->to_int());
  CHECK(pesc::read_json(place.folder + "/run.json").find("number")->to_int() == number);
  const auto file = pesc::safetensors_file::open(place.folder + "/model.safetensors");
  const auto size = file.get("w").shape[0];
  CHECK(file.read_floats("w") == support::normal_floats(size, static_cast<std::uint64_t>(number)));
  CHECK(place.manifest->step == number);
  return number;
}

std::vector<std::string> kept(const std::string& folder) {
  return pesc::detail::names_in(folder + "/checkpoints");
}

struct stop {};

// These tests make thousands of durable writes, which a folder in memory makes at once.
[[maybe_unused]] const bool in_memory =
    ::access("/dev/shm", W_OK) == 0 && ::setenv("TMPDIR", "/dev/shm", 0) == 0;

}  // namespace

TEST_SUITE("model/checkpoint") {
  TEST_CASE("the newest state lies in the folder itself") {
    const support::temporary_folder t;
    save(t.path("run"), 1);
    const auto place = pesc::find_checkpoint(t.path("run") + "/");
    CHECK(place.folder == t.path("run"));
    CHECK(place.note == "");
    CHECK(number_in(t.path("run")) == 1);
    save(t.path("run"), 2);
    CHECK(number_in(t.path("run")) == 2);
    CHECK(pesc::find_checkpoint(t.path("run")).folder == t.path("run"));
    CHECK_FALSE(std::filesystem::exists(t.path("run/checkpoints")));
  }

  TEST_CASE("kept states stay below checkpoints, the last two of them") {
    const support::temporary_folder t;
    for (int i = 1; i <= 4; ++i) save(t.path(), 100 * i, {.keep = true}, i == 4 ? 100'000 : 10);
    CHECK(kept(t.path()) == std::vector<std::string>{"step-000300", "step-000400"});
    save(t.path(), 450);
    CHECK(kept(t.path()) == std::vector<std::string>{"step-000300", "step-000400"});
    CHECK(number_in(t.path()) == 450);
    CHECK(number_in(t.path("checkpoints/step-000300")) == 300);
    save(t.path(), 450, {.keep = true});
    CHECK(kept(t.path()) == std::vector<std::string>{"step-000400", "step-000450"});
    save(t.path(), 450, {.keep = true});
    CHECK(kept(t.path()) == std::vector<std::string>{"step-000450", "step-000450-7"});
  }

  TEST_CASE("a new model removes the states of the old one") {
    const support::temporary_folder t;
    for (int i = 1; i <= 3; ++i) save(t.path(), i, {.keep = true});
    save(t.path(), 0, {.fresh = true});
    CHECK(number_in(t.path()) == 0);
    CHECK(kept(t.path()).empty());
  }

  TEST_CASE("files that the new state lacks disappear, foreign ones stay") {
    const support::temporary_folder t;
    save(t.path(), 1, {}, 10, true);
    t.write("notes.txt", "mine");
    CHECK(std::filesystem::exists(t.path("extra.safetensors")));
    save(t.path(), 2);
    CHECK_FALSE(std::filesystem::exists(t.path("extra.safetensors")));
    CHECK(std::filesystem::exists(t.path("notes.txt")));
    CHECK(t.entries() == 5);
  }

  TEST_CASE("a damaged newest state gives way to the newest complete one, with a note") {
    const support::temporary_folder t;
    save(t.path(), 1, {.keep = true});
    save(t.path(), 2, {.keep = true});
    save(t.path(), 3);
    pesc::write_file(t.path("model.safetensors"), std::string_view{"cut"});
    const auto place = pesc::find_checkpoint(t.path());
    CHECK(place.folder == t.path("checkpoints/step-000002"));
    CHECK(support::contains(place.note, "model.safetensors: the file has 3 bytes"));
    CHECK(support::contains(place.note, "; using " + place.folder));
    pesc::write_file(t.path("checkpoints/step-000002/manifest.json"), std::string_view{"{"});
    CHECK(number_in(t.path()) == 1);
    std::filesystem::remove(t.path("manifest.json"));
    CHECK(number_in(t.path()) == 1);
    std::filesystem::remove_all(t.path("checkpoints"));
    CHECK(support::contains(support::message_of([&] { static_cast<void>(pesc::find_checkpoint(t.path())); }),
                            t.path() + " is incomplete (no manifest)"));
    save(t.path(), 4);
    CHECK(number_in(t.path()) == 4);
  }

  TEST_CASE("models of other programs are found as they are, and never written over") {
    const support::temporary_folder t;
    t.write("config.json", "{\"hidden_size\": 4}");
    CHECK_FALSE(pesc::find_checkpoint(t.path()).manifest);
    const auto text = support::message_of([&] { save(t.path(), 1); });
    CHECK(support::contains(text, "holds a model of another program"));
    CHECK(t.entries() == 1);
    CHECK(support::contains(
        support::message_of<pesc::io_error>([&] { static_cast<void>(pesc::find_checkpoint(t.path("x"))); }),
        "there is no such folder"));
    CHECK(support::contains(support::message_of<pesc::io_error>(
                                [&] { static_cast<void>(pesc::find_checkpoint(t.path("config.json"))); }),
                            "this is a file"));
    CHECK(support::contains(support::message_of<pesc::io_error>([&] { save(t.path("config.json/a"), 1); }),
                            "this is a file"));
  }

  TEST_CASE("names of files are plain, and used once") {
    const support::temporary_folder t;
    pesc::checkpoint_writer out(t.path());
    out.add("a.json", pesc::json::object());
    for (const char* name : {"a.json", "../a", "manifest.json", ""})
      CHECK_THROWS_AS(out.add(name, pesc::json::object()), pesc::shape_error);
  }

  TEST_CASE("an error before any change of the file system leaves the old state, and no rubbish") {
    for (const bool keep : {false, true})
      for (const pesc::index_t size : {keep ? pesc::index_t{100'000} : pesc::index_t{10}}) {
        int steps = 1'000'000;
        for (int at = 0; at < steps; ++at) {
          CAPTURE(at);
          const support::temporary_folder t;
          save(t.path(), 1, {.keep = keep}, size, true);
          int count = 0;
          const auto interrupt = [&](std::string_view) {
            if (count++ == at) throw stop{};
          };
          const observer watch{interrupt};
          bool stopped = false;
          try {
            save(t.path(), 2, {.keep = keep, .on_step = &watch}, size);
          } catch (const stop&) {
            stopped = true;
          }
          const int found = number_in(t.path());
          if (!stopped) {
            steps = at;
            CHECK(found == 2);
            break;
          }
          CHECK((found == 1 || found == 2));
          for (const std::string& name : pesc::detail::names_in(t.path()))
            CHECK_MESSAGE(name.find(".new") == name.npos, name);
          for (const std::string& name : kept(t.path())) CHECK_MESSAGE(!name.ends_with(".partial"), name);
          save(t.path(), 3, {.keep = keep}, size);
          CHECK(number_in(t.path()) == 3);
          CHECK(pesc::find_checkpoint(t.path()).folder == t.path());
        }
        CHECK(steps > 10);
      }
  }

  TEST_CASE("a process killed before any change of the file system leaves the old or the new state") {
    int steps = 1'000'000;
    std::set<int> seen;
    for (int at = 0; at < steps; ++at) {
      CAPTURE(at);
      const support::temporary_folder t;
      save(t.path(), 1, {}, 100'000, true);
      const pid_t child = ::fork();
      REQUIRE(child >= 0);
      if (child == 0) {
        int count = 0;
        const auto kill = [&](std::string_view) {
          if (count++ == at) ::kill(::getpid(), SIGKILL);
        };
        const observer watch{kill};
        save(t.path(), 2, {.on_step = &watch}, 100'000);
        ::_exit(0);
      }
      int status = 0;
      REQUIRE(::waitpid(child, &status, 0) == child);
      const int found = number_in(t.path());
      seen.insert(found);
      if (WIFEXITED(status)) {
        steps = at;
        CHECK(found == 2);
        break;
      }
      save(t.path(), 3, {}, 10);
      CHECK(number_in(t.path()) == 3);
      // The next save clears away what the killed process left, but for a state that was complete.
      for (const std::string& name : pesc::detail::names_in(t.path()))
        CHECK_MESSAGE(name.find(".new") == name.npos, name);
      for (const std::string& name : kept(t.path())) CHECK_MESSAGE(!name.ends_with(".partial"), name);
    }
    CHECK(steps > 10);
    CHECK(seen == std::set<int>{1, 2});
  }

  TEST_CASE("200 kills at any moment of a save leave the newest acknowledged state or the next") {
    const support::temporary_folder t;
    const std::string folder = t.path("run");
    save(folder, 1);
    int newest = 1;
    for (int kill = 0; kill < 200; ++kill) {
      int told[2];
      REQUIRE(::pipe(told) == 0);
      const pid_t child = ::fork();
      if (child == 0) {
        for (int number = newest + 1;; ++number) {
          save(folder, number, {.keep = number % 3 == 0}, 2000, number % 2 == 0);
          if (::write(told[1], &number, sizeof number) != sizeof number) ::_exit(1);
        }
      }
      ::close(told[1]);
      // From the first step of a save to some saves later.
      ::usleep(static_cast<useconds_t>(100 + (kill * 7919) % 12000));
      ::kill(child, SIGKILL);
      int status = 0;
      REQUIRE(::waitpid(child, &status, 0) == child);
      REQUIRE(WIFSIGNALED(status));
      int acknowledged = newest;
      while (::read(told[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged) {
      }
      ::close(told[0]);
      newest = number_in(folder);
      REQUIRE(newest >= acknowledged);
      REQUIRE(newest <= acknowledged + 1);
    }
    CHECK(newest > 20);
    save(folder, newest + 1);
    for (const std::string& name : pesc::detail::names_in(folder)) CHECK_FALSE(name.ends_with(".new"));
  }

  TEST_CASE("a first save that is killed half way is incomplete or whole, never in between") {
    int steps = 1'000'000;
    for (int at = 0; at < steps; ++at) {
      const support::temporary_folder t;
      int count = 0;
      const auto interrupt = [&](std::string_view) {
        if (count++ == at) throw stop{};
      };
      const observer watch{interrupt};
      try {
        save(t.path("run"), 1, {.on_step = &watch});
        steps = at;
      } catch (const stop&) {
        const auto place = support::message_of([&] {
          if (pesc::find_checkpoint(t.path("run")).manifest) CHECK(number_in(t.path("run")) == 1);
        });
        CHECK((place == "no error" || support::contains(place, "incomplete")));
      }
      save(t.path("run"), 2);
      CHECK(number_in(t.path("run")) == 2);
    }
  }

  TEST_CASE("a full disk ends in an error and leaves the old state") {
    const support::temporary_folder t;
    save(t.path(), 1, {}, 50'000);
    for (const rlim_t limit : {rlim_t{0}, rlim_t{100}, rlim_t{1000}, rlim_t{100'000}}) {
      CAPTURE(limit);
      CHECK(support::write_with_limit(limit, [&] { save(t.path(), 2, {}, 50'000); }) == 0);
      CHECK(number_in(t.path()) == 1);
      CHECK(t.entries() == 4);
    }
  }
}
