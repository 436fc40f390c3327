"""How a report looks: light and dark, on a screen, a phone and paper.

Covers: the style sheet. Does not cover: what the page says (report_page).
"""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1a2230; --quiet: #5b6678; --rule: #dfe3ea;
  --saved: #2f6fb5; --saved-soft: #cfe0f3; --scan: #b4610f; --scan-soft: #f6e3d0; --track: #e8ecf2;
  --good: #1d7a46; --good-soft: #e0f3e8; --warn: #8a5a00; --warn-soft: #fdf0d2;
  --bad: #b3261e; --bad-soft: #fbe3e1; --open: #2f6fb5; --open-soft: #e2edf9;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #11151c; --card: #1a2029; --ink: #e6eaf1; --quiet: #9aa6b8; --rule: #2d3644;
    --saved: #6aa9ea; --saved-soft: #24405f; --scan: #f0a35a; --scan-soft: #4a3520;
    --track: #2a3340;
    --good: #6fd09a; --good-soft: #173425; --warn: #f0c366; --warn-soft: #3a2f14;
    --bad: #ff9a92; --bad-soft: #43201d; --open: #6aa9ea; --open-soft: #1d3048;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 48px; }
h1 { font-size: 28px; line-height: 1.2; margin: 2px 0 10px; letter-spacing: -0.01em;
     overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 4px; }
h3 { font-size: 14px; margin: 0 0 8px; font-weight: 600; }
p { margin: 0 0 8px; }
.over { font-size: 12px; letter-spacing: .08em; text-transform: uppercase; color: var(--quiet);
        margin: 0; }
.quiet { color: var(--quiet); }
.small { font-size: 13px; }
.verdict { display: inline-block; padding: 3px 12px; border-radius: 999px; font-weight: 600; }
.good { color: var(--good); background: var(--good-soft); }
.warn { color: var(--warn); background: var(--warn-soft); }
.bad { color: var(--bad); background: var(--bad-soft); }
.open { color: var(--open); background: var(--open-soft); }
.lead { margin-top: 12px; overflow-wrap: anywhere; }
.say { border-left: 3px solid var(--rule); padding: 2px 0 2px 12px; margin: 10px 0 0;
       overflow-wrap: anywhere; }
.say.alarm { border-color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
         margin: 22px 0 0; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
        padding: 12px 14px; }
.tile .name { font-size: 12.5px; color: var(--quiet); }
.tile .value { font-size: 21px; font-weight: 650; line-height: 1.3; white-space: nowrap; }
.tile .more { font-size: 12.5px; color: var(--quiet); }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
          padding: 18px 20px; margin: 18px 0 0; }
section > p { max-width: 90ch; }
.wide { overflow-x: auto; margin: 10px -4px 0; padding: 0 4px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { padding: 6px 10px; text-align: right; white-space: nowrap; vertical-align: middle; }
th { font-size: 12.5px; font-weight: 600; color: var(--quiet);
     border-bottom: 1px solid var(--rule); }
td { border-bottom: 1px solid var(--rule); }
tbody tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
.left { text-align: left; }
.path { font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
        white-space: normal; overflow-wrap: anywhere; word-break: break-word; text-align: left;
        width: 100%; }
td.stretch { width: 30%; min-width: 120px; }
.bar { display: block; width: 100%; height: 8px; min-width: 60px; }
.bar .track { fill: var(--track); } .bar .fill { fill: var(--saved); }
.chart { margin: 16px 0 0; }
.chart + .chart { margin-top: 26px; }
figcaption { font-size: 13.5px; margin-bottom: 12px; }
.plot { position: relative; height: 128px; margin-left: 58px; }
.plot svg { display: block; width: 100%; height: 100%; overflow: visible; }
.scale span { position: absolute; right: 100%; margin: 0 8px -0.75em 0; line-height: 1.5;
              font-size: 12px; color: var(--quiet); white-space: nowrap; }
.times { position: relative; height: 20px; margin: 6px 0 0 58px; font-size: 12px;
         color: var(--quiet); }
.times span { position: absolute; white-space: nowrap; }
.times .inner { transform: translateX(-50%); } .times .last { transform: translateX(-100%); }
.grid { stroke: var(--rule); stroke-width: 1; vector-effect: non-scaling-stroke; }
.area { fill: var(--saved-soft); stroke: var(--saved); stroke-width: 1.5;
        vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.area.scan { fill: var(--scan-soft); stroke: var(--scan); }
.groups { list-style: none; margin: 12px 0 0; padding: 0; }
.groups > li { border-top: 1px solid var(--rule); padding: 10px 0; display: grid;
               grid-template-columns: 84px minmax(0, 1fr); column-gap: 14px; }
.groups > li:last-child { padding-bottom: 0; }
.count { text-align: right; font-weight: 650; }
.names { list-style: none; margin: 4px 0 0; padding: 0; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr));
       gap: 18px 36px; margin-top: 12px; }
.two > div { min-width: 0; }
footer { color: var(--quiet); font-size: 12.5px; margin-top: 22px; }
@media (max-width: 600px) {
  main { padding: 20px 14px 32px; }
  h1 { font-size: 23px; }
  section { padding: 15px 14px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px; }
  .tile { padding: 10px 12px; } .tile .value { font-size: 18px; }
  td.stretch { min-width: 64px; }
  .minor { display: none; }
  .groups > li { grid-template-columns: 56px minmax(0, 1fr); column-gap: 10px; }
  th, td { padding: 6px 7px; }
}
@media print {
  :root { --page: #fff; --card: #fff; --ink: #000; --quiet: #444; --rule: #bbb;
          --saved: #2f6fb5; --saved-soft: #cfe0f3; --scan: #b4610f; --scan-soft: #f6e3d0;
          --track: #e8ecf2; }
  body { font-size: 11px; } main { max-width: none; padding: 0; }
  section, .tile { border-color: #bbb; break-inside: avoid; }
  section.long { break-inside: auto; } tr, .groups > li { break-inside: avoid; }
  .wide { overflow: visible; } .verdict { border: 1px solid currentColor; }
}
"""
