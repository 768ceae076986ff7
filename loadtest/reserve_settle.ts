// The everyday load, ramped up: reserve, then settle, over many users. Shows up to which rate the answers stay fast.
// LOAD_RATE (300): pairs a second at the top. LOAD_DURATION_SECONDS (60): how long in all. LOAD_VUS (50).

import { check } from 'k6';

import { seconds, whole } from './lib/config.ts';
import { newId, reserve, settle } from './lib/cota.ts';
import { fast, onTime, only } from './lib/options.ts';
import { summaryOf } from './lib/summary.ts';
import { audit, makeUsers, PLENTY, soundAccounts } from './lib/users.ts';
import type { Made } from './lib/users.ts';

const RATE = whole('LOAD_RATE', 300);
const STAGE = Math.max(1, Math.round(whole('LOAD_DURATION_SECONDS', 60) / 4));
const VUS = whole('LOAD_VUS', 50);
const USERS = 50;

const START = Math.ceil(RATE / 10);
const targets = [Math.ceil(RATE / 4), Math.ceil(RATE / 2), RATE, RATE];
/** The area below the ramp. */
const iterations = targets.reduce((sum, target, n) => sum + ((targets[n - 1] ?? START) + target) / 2, 0) * STAGE;

export const options = only(
  'reserve_settle',
  {
    executor: 'ramping-arrival-rate',
    startRate: START,
    timeUnit: '1s',
    stages: targets.map((target) => ({ target, duration: seconds(STAGE) })),
    preAllocatedVUs: VUS,
    maxVUs: VUS * 4,
  },
  { ...fast(['reserve', 'settle']), ...onTime(iterations), ...soundAccounts },
);

export const handleSummary = summaryOf('reserve_settle');

export function setup(): Made {
  return makeUsers(USERS, PLENTY);
}

export default function (made: Made): void {
  const user = made.users[Math.floor(Math.random() * made.users.length)] ?? '';
  const id = newId();
  const reserved = reserve(user, id, 2000, 300);
  if (!check(reserved, { 'reserved: 201': (a) => a.status === 201 })) {
    return;
  }
  const settled = settle(user, id, { tokens: 850, model: 'load-model' });
  check(settled, { 'settled: 200, and charged what was used': (a) => a.status === 200 && a.body.transaction?.tokens === 850 });
}

export function teardown(made: Made): void {
  audit(made, 60);
}
