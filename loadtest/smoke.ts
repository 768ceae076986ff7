// One gateway walks through every call of the hot path, with one user, and looks at each answer.
// LOAD_ITERATIONS (5): how many times.

import { check } from 'k6';

import type { Answer } from './lib/answers.ts';
import { p99Ms, whole } from './lib/config.ts';
import { batch, debit, extend, listPending, newId, release, reserve, settle, showReservation, tokens } from './lib/cota.ts';
import { only } from './lib/options.ts';
import { summaryOf } from './lib/summary.ts';
import { audit, makeUsers, soundAccounts } from './lib/users.ts';
import type { Made } from './lib/users.ts';

const ITERATIONS = whole('LOAD_ITERATIONS', 5);
/** What one iteration is charged: a settle, a debit, and a settle in a batch. */
const CHARGED = 640 + 25 + 7;

export const options = only(
  'smoke',
  { executor: 'per-vu-iterations', vus: 1, iterations: ITERATIONS, maxDuration: '2m' },
  {
    http_req_failed: ['rate==0'],
    http_req_duration: [`p(99)<${p99Ms}`],
    iterations: [`count==${ITERATIONS}`],
    ...soundAccounts,
  },
);

export const handleSummary = summaryOf('smoke');

export function setup(): Made {
  return makeUsers(1, 1000000);
}

function says(answer: Answer, status: number, what: string, holds: (answer: Answer) => boolean): void {
  check(answer, { [what]: (a) => a.status === status && holds(a) });
}

export default function (made: Made): void {
  const user = made.users[0] ?? '';
  const id = newId();
  const before = tokens(user).body.balance;

  says(reserve(user, id, 1000, 60), 201, 'reserve holds', (a) => a.body.reservation?.state === 'pending');
  says(reserve(user, id, 1000, 60), 200, 'a repeated reserve is a replay', (a) => a.replayed);
  says(reserve(user, id, 999, 60, { expect: [409] }), 409, 'the same id with other numbers is refused', (a) => a.body.code === 'idempotency_mismatch');
  says(extend(user, id, { tokens: 1500, used_tokens: 400 }), 200, 'extend holds more', (a) => a.body.reservation?.tokens === 1500);
  says(showReservation(user, id), 200, 'it can be shown', (a) => a.body.reservation?.used_tokens === 400);
  says(listPending(user), 200, 'it is among the pending', (a) => (a.body.reservations ?? []).some((found) => found.id === id));
  says(settle(user, id, { usage: { input_tokens: 240, output_tokens: 400 } }), 200, 'settle charges what was used', (a) => a.body.transaction?.tokens === 640);
  says(settle(user, id, { usage: { input_tokens: 240, output_tokens: 400 } }), 200, 'a repeated settle is a replay', (a) => a.replayed);
  says(reserve(user, id, 1000, 60, { expect: [409] }), 409, 'a finished id admits no call', (a) => a.body.code === 'reservation_finished');

  const unused = newId();
  reserve(user, unused, 100, 60);
  says(release(user, unused), 200, 'release gives all back', (a) => a.body.reservation?.state === 'released');
  says(debit(user, newId(), { tokens: 25 }), 201, 'debit charges without a reservation', (a) => a.body.transaction?.tokens === 25);
  says(reserve(user, newId(), 2000000, 60, { expect: [402] }), 402, 'too much is refused', (a) => a.body.code === 'insufficient_tokens' && a.body.short?.[0]?.budget === 'balance');
  says(reserve(user, newId(), -1, 60, { expect: [422] }), 422, 'a negative amount is refused', () => true);

  const inBatch = newId();
  const done = batch([
    { op: 'reserve', user_id: user, id: inBatch, tokens: 10 },
    { op: 'settle', user_id: user, id: inBatch, tokens: 7 },
    { op: 'reserve', user_id: user, id: newId(), tokens: 2000000 },
  ]);
  says(done, 200, 'a batch answers each by itself', (a) => (a.body.results ?? []).map((result) => result.status).join() === '201,200,402');

  const after = tokens(user).body.balance;
  check(after, {
    'the balance says what was charged, and holds nothing': (balance) =>
      before !== undefined && balance !== undefined && balance.used - before.used === CHARGED && balance.reserved === 0,
  });
}

export function teardown(made: Made): void {
  const used = audit(made, 10);
  check(used, { 'in the end it is exactly what was charged': (total) => total === ITERATIONS * CHARGED });
}
