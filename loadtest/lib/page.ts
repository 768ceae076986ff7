// The report as one HTML file that needs nothing else.

import type { Report } from './summary.ts';

const STYLE = `
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.ok { color: #1a7f37; } .failed { color: #cf222e; font-weight: 600; }
code { font-size: .9em; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }`;

function escaped(text: string): string {
  return text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;');
}

function number(value: number | undefined): string {
  return `<td class="number">${value === undefined ? '' : String(Math.round(value * 1000) / 1000)}</td>`;
}

function table(heads: string[], rows: string[]): string {
  const numbers = heads.map((head, at) => `<th scope="col"${at === 0 ? '' : ' class="number"'}>${escaped(head)}</th>`);
  return `<div class="wide"><table><thead><tr>${numbers.join('')}</tr></thead><tbody>${rows.join('\n')}</tbody></table></div>`;
}

function verdict(ok: boolean): string {
  return ok ? '<td class="number ok">ok</td>' : '<td class="number failed">failed</td>';
}

const TIMES = ['min', 'med', 'avg', 'p(90)', 'p(95)', 'p(99)', 'p(99.9)', 'max'];

function isTrend(values: { [statistic: string]: number }): boolean {
  return values['med'] !== undefined;
}

export function page(report: Report): string {
  const thresholds = report.thresholds.map(
    ({ metric, expression, ok }) =>
      `<tr><td><code>${escaped(metric)}</code> <code>${escaped(expression)}</code></td>${verdict(ok)}</tr>`,
  );
  const checks = report.checks.map(
    ({ name, passes, fails }) =>
      `<tr><td>${escaped(name)}</td>${number(passes)}${number(fails)}${verdict(fails === 0)}</tr>`,
  );
  const times: string[] = [];
  const others: string[] = [];
  for (const name of Object.keys(report.metrics)) {
    const values = report.metrics[name] ?? {};
    const head = `<tr><td><code>${escaped(name)}</code></td>`;
    if (isTrend(values)) {
      times.push(`${head}${TIMES.map((statistic) => number(values[statistic])).join('')}</tr>`);
    } else {
      const shown = Object.keys(values).map((statistic) => `${statistic} ${Math.round((values[statistic] ?? 0) * 1000) / 1000}`);
      others.push(`${head}<td class="number">${escaped(shown.join(', '))}</td></tr>`);
    }
  }
  const name = escaped(report.scenario);
  const result = report.passed ? '<span class="ok">passed</span>' : '<span class="failed">failed</span>';
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${name}: ${report.passed ? 'passed' : 'failed'}</title><style>${STYLE}</style></head>
<body>
<h1>${name}: ${result}</h1>
<p>Ended ${escaped(report.ended_at)}, after ${Math.round(report.duration_ms / 1000)} s.</p>
<h2>Thresholds</h2>
${table(['threshold', 'result'], thresholds)}
<h2>Checks</h2>
${table(['check', 'held', 'did not', 'result'], checks)}
<h2>Times (ms) and sizes</h2>
${table(['metric', ...TIMES], times)}
<h2>Counts and rates</h2>
${table(['metric', 'values'], others)}
</body>
</html>
`;
}
