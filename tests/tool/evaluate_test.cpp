// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tool/program.hpp"

using support::bundled;
using support::pesc_program;

TEST_SUITE("tool/evaluate") {
  TEST_CASE("losses are those of the model, per target token, and JSON says the same") {
    const support::temporary_folder folder;
    const std::string data = bundled("tinystories_sample_5.txt");
    const auto result = pesc_program(
        {"evaluate", "--model", bundled("stories260K.bin"), "--data", data, "--json", folder.path("x.json")});
    REQUIRE(result.status == 0);
    const auto json = nlohmann::json::parse(support::read_text(folder.path("x.json")));
    const auto& entry = json.at("data").at(data);
    CHECK(entry.at("loss").get<double>() == doctest::Approx(1.2649).epsilon(0.002));
    CHECK(entry.at("tokens") == 1809);
    CHECK(entry.at("records") == 5);
    CHECK(result.out.find("loss 1.26") != std::string::npos);
  }

  TEST_CASE("a model crafted without quantisation has the losses of the dense model") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder, {"--weights", "float"});
    const auto loss = [&](const std::string& path) {
      const auto result = pesc_program(
          {"evaluate", "--model", path, "--data", bundled("tinystories_sample_5.txt"), "--json", "-"});
      REQUIRE(result.status == 0);
      return nlohmann::json::parse(result.out).at("data").begin().value().at("loss").get<double>();
    };
    CHECK(loss(model) == doctest::Approx(loss(bundled("stories260K.bin"))).epsilon(1e-5));
  }

  TEST_CASE("bad lines are named, and may be skipped") {
    const support::temporary_folder folder;
    const std::string data = folder.write(
        "d.jsonl", "{\"question\":\"a\",\"answer\":\"b\"}\n{\"question\":\"\xFF\",\"answer\":\"b\"}\nno\n");
    const std::string model = bundled("stories260K.bin");
    const auto refused = pesc_program({"evaluate", "--model", model, "--data", data});
    CHECK(refused.status == 1);
    CHECK(refused.says("d.jsonl:2"));
    CHECK(refused.error_lines() == 1);
    CHECK(pesc_program({"evaluate", "--model", model, "--data", data, "--skip-bad", "2"}).status == 0);
  }

  TEST_CASE("fields of other names are refused unless they are named") {
    const support::temporary_folder folder;
    const std::string data = folder.write("d.jsonl", "{\"foo\":\"a\",\"bar\":\"b\"}\n");
    const std::string model = bundled("stories260K.bin");
    const auto refused = pesc_program({"evaluate", "--model", model, "--data", data});
    CHECK(refused.status == 1);
    CHECK(refused.says("foo"));
    CHECK(pesc_program({"evaluate", "--model", model, "--data", data, "--fields", "foo,bar"}).status == 0);
  }
}
