// What is left of a run: <scenario>.json for programs, <scenario>.html for people, and a few lines on the terminal.

import { results } from './config.ts';
import { page } from './page.ts';

/** What k6 hands to handleSummary(), as far as it is used here. */
export interface K6Summary {
  metrics: {
    [name: string]: {
      type: string;
      contains: string;
      values: { [statistic: string]: number };
      thresholds?: { [expression: string]: { ok: boolean } };
    };
  };
  root_group: Group;
  state: { testRunDurationMs: number };
}

interface Group {
  checks: { name: string; passes: number; fails: number }[];
  groups: Group[];
}

export interface Threshold {
  metric: string;
  expression: string;
  ok: boolean;
}

export interface Check {
  name: string;
  passes: number;
  fails: number;
}

/** <scenario>.json. Times are in milliseconds. */
export interface Report {
  scenario: string;
  ended_at: string;
  duration_ms: number;
  passed: boolean;
  thresholds: Threshold[];
  checks: Check[];
  /** Every metric with its statistics, by k6's names. */
  metrics: { [name: string]: { [statistic: string]: number } };
}

function checksOf(group: Group): Check[] {
  const own = group.checks.map(({ name, passes, fails }) => ({ name, passes, fails }));
  return own.concat(...group.groups.map(checksOf));
}

export function report(scenario: string, data: K6Summary): Report {
  const thresholds: Threshold[] = [];
  const metrics: Report['metrics'] = {};
  for (const metric of Object.keys(data.metrics).sort()) {
    const found = data.metrics[metric];
    if (found === undefined) {
      continue;
    }
    metrics[metric] = found.values;
    for (const expression of Object.keys(found.thresholds ?? {})) {
      thresholds.push({ metric, expression, ok: found.thresholds?.[expression]?.ok === true });
    }
  }
  return {
    scenario,
    ended_at: new Date().toISOString(),
    duration_ms: Math.round(data.state.testRunDurationMs),
    passed: thresholds.every((threshold) => threshold.ok),
    thresholds,
    checks: checksOf(data.root_group),
    metrics,
  };
}

function rounded(value: number | undefined): string {
  return value === undefined ? '-' : String(Math.round(value * 100) / 100);
}

function lines(made: Report, folder: string): string {
  const text = [`\n${made.scenario}: ${made.passed ? 'passed' : 'FAILED'} after ${Math.round(made.duration_ms / 1000)} s`];
  for (const { metric, expression, ok } of made.thresholds) {
    text.push(`  ${ok ? 'ok    ' : 'FAILED'}  ${metric}  ${expression}`);
  }
  for (const { name, fails } of made.checks.filter((check) => check.fails > 0)) {
    text.push(`  FAILED  check: ${name}, ${fails} times`);
  }
  const took = made.metrics['http_req_duration'];
  text.push(
    `  ${rounded(made.metrics['http_reqs']?.['count'])} calls, ${rounded(made.metrics['http_reqs']?.['rate'])} a second; ` +
      `median ${rounded(took?.['med'])} ms, p99 ${rounded(took?.['p(99)'])} ms`,
    `  ${folder}/${made.scenario}.json, ${folder}/${made.scenario}.html\n`,
  );
  return text.join('\n');
}

/** The scenario's handleSummary(). */
export function summaryOf(scenario: string): (data: K6Summary) => { [target: string]: string } {
  return (data) => {
    const made = report(scenario, data);
    return {
      [`${results}/${scenario}.json`]: `${JSON.stringify(made, null, 2)}\n`,
      [`${results}/${scenario}.html`]: page(made),
      stdout: lines(made, results),
    };
  };
}
