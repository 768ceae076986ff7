// Batches: many reserves in one call, then their settles in one. Each batch also carries one operation that must be
// refused, which may spoil no other.
// LOAD_VUS (8): callers. LOAD_DURATION_SECONDS (30). LOAD_BATCH (64): operations of one call, 2 to 256.
// LOAD_OPERATIONS_PER_SECOND (1000): what must at least come through.

import { check } from 'k6';
import { Counter } from 'k6/metrics';

import type { Answer } from './lib/answers.ts';
import { p99Ms, seconds, whole } from './lib/config.ts';
import { batch, newId } from './lib/cota.ts';
import type { Operation } from './lib/cota.ts';
import { only } from './lib/options.ts';
import { summaryOf } from './lib/summary.ts';
import { audit, makeUsers, PLENTY, soundAccounts } from './lib/users.ts';
import type { Made } from './lib/users.ts';

const VUS = whole('LOAD_VUS', 8);
const DURATION = whole('LOAD_DURATION_SECONDS', 30);
const SIZE = Math.min(256, Math.max(2, whole('LOAD_BATCH', 64)));
const LEAST = whole('LOAD_OPERATIONS_PER_SECOND', 1000);
const USERS = 50;

/** Operations that were done; those that were refused as they must be are not among them. */
const operations = new Counter('operations');

export const options = only(
  'batch',
  { executor: 'constant-vus', vus: VUS, duration: seconds(DURATION) },
  {
    'http_req_duration{operation:batch}': [`p(99)<${p99Ms * 2}`],
    operations: [`count>=${LEAST * DURATION}`],
    ...soundAccounts,
  },
);

export const handleSummary = summaryOf('batch');

export function setup(): Made {
  return makeUsers(USERS, PLENTY);
}

function statuses(answer: Answer): number[] {
  return (answer.body.results ?? []).map((result) => result.status);
}

/** Every operation but the last, which is no operation, was answered with `status`. */
function send(what: string, calls: Operation[], status: number, bad: Operation): void {
  const answer = batch([...calls, bad]);
  const got = statuses(answer);
  const done = got.slice(0, -1).filter((one) => one === status).length;
  operations.add(done);
  check(answer, {
    [`${what}: one result for each`]: (a) => a.status === 200 && got.length === calls.length + 1,
    [`${what}: all done, in spite of the one that is refused`]: () => done === calls.length && got[got.length - 1] === 422,
  });
}

export default function (made: Made): void {
  const held: { user_id: string; id: string }[] = [];
  for (let n = 1; n < SIZE; n += 1) {
    held.push({ user_id: made.users[Math.floor(Math.random() * made.users.length)] ?? '', id: newId() });
  }
  const bad: Operation = { op: 'reserve', user_id: made.users[0] ?? '', id: newId(), tokens: -1 };
  send('reserves', held.map((each) => ({ op: 'reserve', ...each, tokens: 1000, ttl_seconds: 300 })), 201, bad);
  send('settles', held.map((each) => ({ op: 'settle', ...each, tokens: 640 })), 200, bad);
}

export function teardown(made: Made): void {
  audit(made, 60);
}
