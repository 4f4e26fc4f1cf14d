// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tool/program.hpp"

using support::pesc_program;

TEST_SUITE("tool/demo") {
  TEST_CASE("a short demo writes summary, report and a model that can be resumed and measured" *
            doctest::description("slow")) {
    const support::temporary_folder folder;
    const std::string out = folder.path("demo");
    const auto result = pesc_program({"demo", "--out", out, "--steps", "8", "--stories", "3", "--quiet"});
    REQUIRE(result.status == 0);
    const auto summary = nlohmann::json::parse(support::read_text(out + "/summary.json"));
    for (const char* name : {"maths", "code", "instructions", "verse"}) {
      CAPTURE(name);
      const auto& domain = summary.at("domains").at(name);
      CHECK(domain.at("tuned").get<double>() < domain.at("crafted").get<double>());
      CHECK(result.out.find(name) != std::string::npos);
    }
    CHECK(summary.at("retention").at("dense").get<double>() == doctest::Approx(1.2649).epsilon(0.002));
    CHECK(summary.at("tokens_per_second").get<double>() > 0);
    CHECK(summary.at("seconds").get<double>() > 0);
    const std::string report = support::read_text(out + "/report.html");
    CHECK(report.find("<svg") != std::string::npos);
    CHECK(report.find("Domain by expert") != std::string::npos);
    const auto again = pesc_program(
        {"evaluate", "--model", out + "/tuned", "--data", out + "/data/verse_held_out.txt", "--json", "-"});
    REQUIRE(again.status == 0);
    CHECK(nlohmann::json::parse(again.out).at("data").begin().value().at("loss").get<double>() ==
          doctest::Approx(summary.at("domains").at("verse").at("tuned").get<double>()).epsilon(1e-6));
  }
}
