// Calm, a sudden spike of ten times the rate, calm again. During the spike Cota may turn reserves away, but only as it
// promises: with Retry-After and an outcome. What was reserved is always settled. Afterwards it is as fast as before.
// LOAD_RATE (50): pairs a second while it is calm. LOAD_DURATION_SECONDS (15): how long each of the three parts is.
// LOAD_VUS (100).

import { check } from 'k6';
import exec from 'k6/execution';
import { Rate } from 'k6/metrics';

import { p99Ms, seconds, whole } from './lib/config.ts';
import { definite, isOpen, newId, reserve, settle } from './lib/cota.ts';
import { only } from './lib/options.ts';
import { summaryOf } from './lib/summary.ts';
import { audit, makeUsers, PLENTY, soundAccounts } from './lib/users.ts';
import type { Made } from './lib/users.ts';

const RATE = whole('LOAD_RATE', 50);
const PART = whole('LOAD_DURATION_SECONDS', 15);
const VUS = whole('LOAD_VUS', 100);
const USERS = 50;
const EDGE = 2;

/** Reserves that were turned away while it was calm, and in the spike. */
const turnedAway = new Rate('turned_away');

export const options = only(
  'spike',
  {
    executor: 'ramping-arrival-rate',
    startRate: RATE,
    timeUnit: '1s',
    stages: [
      { target: RATE, duration: seconds(PART) },
      { target: RATE * 10, duration: seconds(EDGE) },
      { target: RATE * 10, duration: seconds(PART) },
      { target: RATE, duration: seconds(EDGE) },
      { target: RATE, duration: seconds(PART + EDGE) },
    ],
    preAllocatedVUs: VUS,
    maxVUs: VUS * 5,
  },
  {
    'http_req_duration{operation:reserve,phase:before}': [`p(99)<${p99Ms}`],
    'http_req_duration{operation:reserve,phase:spike}': [`p(99)<${p99Ms * 4}`],
    'http_req_duration{operation:reserve,phase:after}': [`p(99)<${p99Ms}`],
    'turned_away{phase:before}': ['rate==0'],
    'turned_away{phase:spike}': ['rate<0.2'],
    'turned_away{phase:after}': ['rate==0'],
    iterations: [`count>=${Math.floor(RATE * PART * 11)}`],
    ...soundAccounts,
  },
);

export const handleSummary = summaryOf('spike');

export function setup(): Made {
  return makeUsers(USERS, PLENTY);
}

function phase(): string {
  const elapsed = (Date.now() - exec.scenario.startTime) / 1000;
  if (elapsed < PART) {
    return 'before';
  }
  // What piled up in the spike has two seconds to drain.
  return elapsed < PART * 2 + EDGE * 3 ? 'spike' : 'after';
}

export default function (made: Made): void {
  const user = made.users[Math.floor(Math.random() * made.users.length)] ?? '';
  const tags = { phase: phase() };
  const id = newId();
  const reserved = reserve(user, id, 2000, 300, { tags, expect: [429, 503] });
  turnedAway.add(isOpen(reserved), tags);
  if (reserved.status !== 201) {
    check(reserved, {
      'turned away with Retry-After, and with what became of it': (a) =>
        a.retryAfter !== undefined && a.retryAfter >= 1 && (a.status === 429 || ['none', 'unknown'].includes(a.body.outcome ?? '')),
    });
    if (reserved.body.outcome !== 'unknown') {
      return;
    }
  }
  // An unknown outcome is settled, too: charged if it was reserved, refused as unknown if it was not.
  const settled = definite(() => settle(user, id, { tokens: 850 }, { tags, expect: [404, 429, 503] }));
  check(settled, {
    'what was reserved is settled': (a) => a.status === 200 || (reserved.status !== 201 && a.status === 404),
  });
}

export function teardown(made: Made): void {
  audit(made, 60);
}
