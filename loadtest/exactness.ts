// Exact to the token. Two crowds, with calls repeated as gateways repeat them:
//
// - `spread`: reserves and settles of known amounts over many users. How much was charged is known before the run, and
//   must be what the script saw charged, and what Cota says in the end, to the token.
// - `tight`: one account with room for exactly so many reservations, and twice as many callers' calls for it. Exactly so
//   many come through, the others are refused, and never is more out than there was.
//
// Every call is repeated until its answer is definite, so that this can run while replicas and Redis are killed: what is
// asked then may fail for a while, and still nothing may be lost or doubled.
//
// LOAD_VUS (20). LOAD_ITERATIONS (100): of each virtual user, in each crowd; an even number of them is used.

import { check } from 'k6';
import exec from 'k6/execution';
import { Counter, Gauge } from 'k6/metrics';
import type { Options } from 'k6/options';

import type { Answer } from './lib/answers.ts';
import { whole } from './lib/config.ts';
import { definite, newId, reserve, settle } from './lib/cota.ts';
import { only } from './lib/options.ts';
import { summaryOf } from './lib/summary.ts';
import { audit, makeUsers, soundAccounts } from './lib/users.ts';
import type { Made } from './lib/users.ts';

const VUS = whole('LOAD_VUS', 20);
const EACH = Math.ceil(whole('LOAD_ITERATIONS', 100) / 2) * 2;
const CALLS = VUS * EACH;
const USERS = 10;
const GRANTED = 1000000000;
const HOLD = 1000;
/** Room of the tight account, in reservations. */
const ROOM = CALLS / 2;

/** What the call with this number uses: some use nothing, some all they hold, some more. */
function amount(call: number): number {
  return [0, 1, 317, 640, HOLD, HOLD + 50][call % 6] ?? 0;
}

let expected = 0;
for (let call = 0; call < CALLS; call += 1) {
  expected += amount(call);
}

/** Charged, as the answers to settles said; replays not counted. */
const settled = new Counter('settled_tokens');
/** What Cota says in the end. */
const used = new Gauge('used_tokens');
const admitted = new Counter('tight_admitted');
const denied = new Counter('tight_denied');
const tightUsed = new Gauge('tight_used_tokens');
/** Answers that showed more out than there was. */
const overspent = new Counter('overspent_answers');

const crowd = { executor: 'per-vu-iterations', vus: VUS, iterations: EACH, maxDuration: '10m' } as const;

const base = only('spread', { ...crowd, exec: 'spread' }, {
  iterations: [`count==${CALLS * 2}`],
  settled_tokens: [`count==${expected}`],
  used_tokens: [`value==${expected}`],
  tight_admitted: [`count==${ROOM}`],
  tight_denied: [`count==${CALLS - ROOM}`],
  tight_used_tokens: [`value==${ROOM * HOLD}`],
  overspent_answers: ['count==0'],
  // Of what is killed meanwhile, a few.
  http_req_failed: ['rate<0.1'],
  ...soundAccounts,
});

export const options: Options = {
  ...base,
  scenarios: { ...base.scenarios, tight: { ...crowd, exec: 'tight' } },
};

export const handleSummary = summaryOf('exactness');

interface Cast extends Made {
  tight: string;
}

export function setup(): Cast {
  const tight = makeUsers(1, ROOM * HOLD).users[0] ?? '';
  return { tight, ...makeUsers(USERS, GRANTED) };
}

/** Settles until the answer is definite, then once more: the second has to be the first again. */
function settleTwice(user: string, id: string, tokens: number): Answer {
  const first = definite(() => settle(user, id, { tokens }));
  const again = definite(() => settle(user, id, { tokens }));
  check(again, {
    'a repeated settle is the first again': (a) =>
      a.status === 200 && a.replayed && a.body.transaction?.id === first.body.transaction?.id && a.body.transaction?.tokens === tokens,
  });
  return first;
}

export function spread(cast: Cast): void {
  const call = exec.scenario.iterationInTest;
  const user = cast.users[call % cast.users.length] ?? '';
  const id = newId();
  const hold = definite(() => reserve(user, id, HOLD, 600));
  // 200: it was made before, by a call whose answer was lost.
  check(hold, { 'reserved': (a) => (a.status === 201 || a.status === 200) && a.body.reservation?.state === 'pending' });
  const again = definite(() => reserve(user, id, HOLD, 600));
  check(again, { 'a repeated reserve holds nothing more': (a) => a.status === 200 && a.replayed });
  const first = settleTwice(user, id, amount(call));
  if (check(first, { 'settled': (a) => a.status === 200 && a.body.transaction?.tokens === amount(call) })) {
    settled.add(amount(call));
  }
  const other = definite(() => settle(user, id, { tokens: amount(call) + 1 }, { expect: [409] }));
  check(other, { 'a settle with other numbers is refused': (a) => a.status === 409 && a.body.code === 'idempotency_mismatch' });
}

export function tight(cast: Cast): void {
  const id = newId();
  const hold = definite(() => reserve(cast.tight, id, HOLD, 600, { expect: [402] }));
  const known = check(hold, {
    'admitted or refused': (a) => a.status === 201 || a.status === 200 || (a.status === 402 && a.body.code === 'insufficient_tokens'),
  });
  if (!known || hold.status === 402) {
    denied.add(known ? 1 : 0);
    return;
  }
  admitted.add(1);
  const balance = hold.body.balance;
  if (balance === undefined || balance.available < 0 || balance.used + balance.reserved > balance.total) {
    overspent.add(1);
  }
  check(settleTwice(cast.tight, id, HOLD), { 'what was admitted is charged': (a) => a.status === 200 });
}

export function teardown(cast: Cast): void {
  used.add(audit(cast, 60));
  tightUsed.add(audit({ users: [cast.tight] }, 10));
}
