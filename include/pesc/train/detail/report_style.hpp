// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace pesc::detail {

/// \brief Style sheet of a report; the colours follow the light or dark setting of the reader's screen.
inline constexpr std::string_view report_style = R"(
:root { color-scheme: light dark;
  --page: #ffffff; --text: #1b1f24; --soft: #59636e; --rule: #d5dae0; --fill: #f4f6f8;
  --c0: #7a8794; --c1: #c9661a; --c2: #1f66b0; --c3: #2b8a57; --heat: #174f8c; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14181d; --text: #e6e9ec; --soft: #9aa5b1; --rule: #333b44; --fill: #1d232a;
  --c0: #8e9aa6; --c1: #ef9a54; --c2: #6fb1f5; --c3: #5cc890; --heat: #7db9fa; } }
body { margin: 0 auto; padding: 24px 20px 60px; max-width: 1360px;
  background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 36px 0 10px; }
h3 { font-size: 15px; margin: 0 0 6px; }
p { margin: 0 0 8px; max-width: 80ch; }
.soft { color: var(--soft); }
.good { color: var(--c3); }
.bad { color: var(--c1); }
.scroll { overflow-x: auto; }
.grid2 { display: grid; gap: 28px 32px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px 5px 0; text-align: right; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; color: var(--soft); }
th:first-child, td:first-child, table.names td { text-align: left; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--text); font-family: inherit; }
svg .tick { font-size: 12px; fill: var(--soft); }
svg .small { font-size: 11px; }
svg .label { font-size: 13px; }
svg .mid { text-anchor: middle; }
svg .end { text-anchor: end; }
svg .over { fill: var(--page); }
svg line.grid { stroke: var(--rule); stroke-width: 1; }
svg line.axis { stroke: var(--soft); stroke-width: 1; }
svg path.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg path.faint { stroke-width: 1; opacity: 0.55; }
svg path.c0 { stroke: var(--c0); }
svg path.c1 { stroke: var(--c1); }
svg path.c2 { stroke: var(--c2); }
svg path.c3 { stroke: var(--c3); }
svg rect.c0 { fill: var(--c0); }
svg rect.c1 { fill: var(--c1); }
svg rect.c2 { fill: var(--c2); }
svg rect.c3 { fill: var(--c3); }
svg rect.heat { fill: var(--heat); stroke: var(--rule); stroke-width: 0.5; }
svg rect.plain { stroke: none; }
pre { margin: 0; padding: 10px 12px; background: var(--fill);
  border: 1px solid var(--rule); border-radius: 6px;
  white-space: pre-wrap; overflow-wrap: anywhere;
  font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.sample { margin: 0 0 26px; }
.prompt { color: var(--soft); }
)";

}  // namespace pesc::detail
