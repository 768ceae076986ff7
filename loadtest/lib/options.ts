// What all scenarios have in common, and thresholds by name.

import type { Options, Scenario, Threshold } from 'k6/options';

import { p99Ms } from './config.ts';

type Thresholds = { [metric: string]: Threshold[] };

/** One scenario with its thresholds. Every check must hold, and no call may fail unless it is expected to. */
export function only(name: string, scenario: Scenario, thresholds: Thresholds): Options {
  return {
    scenarios: { [name]: scenario },
    thresholds: { checks: ['rate==1'], http_req_failed: ['rate<0.001'], ...thresholds },
    summaryTrendStats: ['avg', 'min', 'med', 'p(90)', 'p(95)', 'p(99)', 'p(99.9)', 'max'],
    setupTimeout: '120s',
    teardownTimeout: '120s',
    // Answers carry no cookies and there are no redirects to follow.
    maxRedirects: 0,
  };
}

/** 99 of 100 calls of these operations are answered within the time, times `slack`. */
export function fast(operations: string[], slack = 1): Thresholds {
  const thresholds: Thresholds = {};
  for (const operation of operations) {
    thresholds[`http_req_duration{operation:${operation}}`] = [`p(99)<${p99Ms * slack}`];
  }
  return thresholds;
}

/** The load generator started nearly all iterations on time; else the run says nothing about the service. */
export function onTime(iterations: number): Thresholds {
  return {
    dropped_iterations: [`count<${Math.max(1, Math.ceil(iterations / 100))}`],
    iterations: [`count>=${Math.floor(iterations * 0.98)}`],
  };
}
