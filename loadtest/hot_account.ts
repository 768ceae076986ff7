// Everybody at one account: the worst case for contention. No call may fail, the holds may never exceed the balance,
// and in the end nothing is held.
// LOAD_VUS (50). LOAD_DURATION_SECONDS (30).

import { check } from 'k6';

import { seconds, whole } from './lib/config.ts';
import { newId, reserve, settle } from './lib/cota.ts';
import { fast, only } from './lib/options.ts';
import { summaryOf } from './lib/summary.ts';
import { audit, makeUsers, PLENTY, soundAccounts } from './lib/users.ts';
import type { Made } from './lib/users.ts';

const VUS = whole('LOAD_VUS', 50);
const DURATION = whole('LOAD_DURATION_SECONDS', 30);

export const options = only(
  'hot_account',
  { executor: 'constant-vus', vus: VUS, duration: seconds(DURATION) },
  { ...fast(['reserve', 'settle']), iterations: [`count>=${VUS * DURATION}`], ...soundAccounts },
);

export const handleSummary = summaryOf('hot_account');

export function setup(): Made {
  return makeUsers(1, PLENTY);
}

export default function (made: Made): void {
  const user = made.users[0] ?? '';
  const id = newId();
  const reserved = reserve(user, id, 1000, 300);
  check(reserved, {
    'reserved: 201': (a) => a.status === 201,
    'its own hold is in the balance, with at most one of each other': (a) =>
      a.body.balance !== undefined && a.body.balance.reserved >= 1000 && a.body.balance.reserved <= 1000 * VUS,
  });
  const settled = settle(user, id, { tokens: 500 });
  check(settled, { 'settled: 200, and charged what was used': (a) => a.status === 200 && a.body.transaction?.tokens === 500 });
}

export function teardown(made: Made): void {
  const used = audit(made, 60);
  check(used, { 'charged in whole settles': (total) => total > 0 && total % 500 === 0 });
}
