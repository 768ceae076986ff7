// A steady load for a long time: nothing may grow. The last third has to be as fast as the first, and in the end both
// stores say the same.
// LOAD_RATE (100): pairs a second. LOAD_DURATION_SECONDS (1800). LOAD_VUS (50).

import { check } from 'k6';
import exec from 'k6/execution';

import { p99Ms, seconds, whole } from './lib/config.ts';
import { newId, reserve, settle } from './lib/cota.ts';
import { fast, onTime, only } from './lib/options.ts';
import { summaryOf } from './lib/summary.ts';
import { audit, makeUsers, PLENTY, soundAccounts } from './lib/users.ts';
import type { Made } from './lib/users.ts';

const RATE = whole('LOAD_RATE', 100);
const DURATION = whole('LOAD_DURATION_SECONDS', 1800);
const VUS = whole('LOAD_VUS', 50);
const USERS = 100;

export const options = only(
  'soak',
  {
    executor: 'constant-arrival-rate',
    rate: RATE,
    timeUnit: '1s',
    duration: seconds(DURATION),
    preAllocatedVUs: VUS,
    maxVUs: VUS * 4,
  },
  {
    'http_req_duration{operation:reserve,third:first}': [`p(99)<${p99Ms}`],
    'http_req_duration{operation:reserve,third:last}': [`p(99)<${p99Ms}`],
    ...fast(['reserve', 'settle']),
    ...onTime(RATE * DURATION),
    ...soundAccounts,
  },
);

export const handleSummary = summaryOf('soak');

export function setup(): Made {
  return makeUsers(USERS, PLENTY);
}

function third(): string {
  return ['first', 'middle', 'last'][Math.min(2, Math.floor(exec.scenario.progress * 3))] ?? 'last';
}

export default function (made: Made): void {
  const user = made.users[exec.scenario.iterationInTest % made.users.length] ?? '';
  const tags = { third: third() };
  const id = newId();
  if (check(reserve(user, id, 2000, 300, { tags }), { 'reserved: 201': (a) => a.status === 201 })) {
    check(settle(user, id, { tokens: 850 }, { tags }), { 'settled: 200': (a) => a.status === 200 });
  }
}

export function teardown(made: Made): void {
  audit(made, 60);
}
