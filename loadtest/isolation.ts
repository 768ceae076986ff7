// Everybody sees their own numbers and nobody else's. Each virtual user is a user of Cota with a JWT of its own: what it
// reads is exactly what was spent for it, to the token, while all the others spend, too; what belongs to another is
// refused on every route, and so is what only gateways may do.
// LOAD_VUS (20): users; script/load makes their JWTs. LOAD_DURATION_SECONDS (30).

import { check, sleep } from 'k6';
import { SharedArray } from 'k6/data';
import exec from 'k6/execution';
import { Counter } from 'k6/metrics';

import type { Answer } from './lib/answers.ts';
import { required, seconds, whole } from './lib/config.ts';
import { account, definite, listPending, newId, reserve, settle, showReservation, tokens } from './lib/cota.ts';
import { fast, only } from './lib/options.ts';
import { summaryOf } from './lib/summary.ts';
import { audit, makeUsers, soundAccounts } from './lib/users.ts';
import type { Made } from './lib/users.ts';

interface Person {
  id: string;
  jwt: string;
}

const people = new SharedArray<Person>('people', () => JSON.parse(open(required('LOAD_USERS'))) as Person[]);
const VUS = whole('LOAD_VUS', 20);
const DURATION = whole('LOAD_DURATION_SECONDS', 30);
const GRANTED = 1000000000;

if (people.length < VUS || VUS < 2) {
  throw new Error(`LOAD_USERS names ${people.length} users for ${VUS} virtual users; at least 2, and as many, are needed`);
}

/** Answers that showed something of another user, or another's number as one's own. */
const foreign = new Counter('foreign_answers');

export const options = only(
  'isolation',
  { executor: 'constant-vus', vus: VUS, duration: seconds(DURATION) },
  { foreign_answers: ['count==0'], iterations: [`count>=${VUS}`], ...fast(['reserve', 'settle', 'tokens']), ...soundAccounts },
);

export const handleSummary = summaryOf('isolation');

export function setup(): Made {
  return makeUsers(VUS, GRANTED, people.slice(0, VUS).map((person) => person.id));
}

// Of this virtual user alone: each has its own copy of the module.
let spent = 0;

function mine(answer: Answer, what: string, holds: (answer: Answer) => boolean): void {
  if (!check(answer, { [what]: (a) => a.status === 200 && holds(a) })) {
    foreign.add(1);
  }
}

function refused(answer: Answer, what: string): void {
  const holds = check(answer, {
    [what]: (a) => a.status === 403 && a.body.code === 'forbidden' && a.body.balance === undefined && a.body.user === undefined,
  });
  if (!holds) {
    foreign.add(1);
  }
}

export default function (): void {
  const turn = exec.vu.idInTest - 1;
  const me = people[turn % VUS];
  const other = people[(turn + 1 + (exec.vu.iterationInScenario % (VUS - 1))) % VUS];
  if (me === undefined || other === undefined) {
    throw new Error('a virtual user without a user');
  }
  const asMe = { jwt: me.jwt, expect: [403] };

  // Amounts differ from user to user, so that another's number cannot pass for one's own.
  const amount = 1000 + turn;
  const id = newId();
  definite(() => reserve(me.id, id, amount * 2, 300));
  mine(tokens(me.id, asMe), 'what is held for me is my hold', (a) => a.body.balance?.reserved === amount * 2 && a.body.balance.used === spent);
  mine(listPending(me.id, asMe), 'the one pending reservation is mine', (a) => a.body.reservations?.length === 1 && a.body.reservations[0]?.id === id);
  if (definite(() => settle(me.id, id, { tokens: amount })).status === 200) {
    spent += amount;
  }
  mine(tokens(me.id, asMe), 'what I used is what was spent for me', (a) => {
    const balance = a.body.balance;
    return a.body.user_id === me.id && balance?.used === spent && balance.reserved === 0 && balance.total === GRANTED;
  });

  refused(tokens(other.id, asMe), "another's balance is refused");
  refused(listPending(other.id, asMe), "another's reservations are refused");
  refused(showReservation(other.id, id, asMe), "a reservation of another's is refused");
  refused(account(other.id, asMe), "another's account is refused");
  refused(tokens('00000000-0000-4000-8000-000000000000', asMe), 'so is one that does not exist');
  refused(reserve(me.id, newId(), 1, 60, asMe), 'a user may not reserve');
  refused(settle(me.id, id, { tokens: 0 }, asMe), 'a user may not settle');
  // A user has 50 calls a second.
  sleep(0.5);
}

export function teardown(made: Made): void {
  audit(made, 30);
}
