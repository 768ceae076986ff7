// Everything that happens to reservations, in one stream: settles, releases, expiries with and without progress, late
// settles, overages, lost usage, debits, and denials. In the end nothing is held and both stores say the same.
// LOAD_RATE (40): flows a second. LOAD_DURATION_SECONDS (60). LOAD_VUS (100).

import { check, sleep } from 'k6';
import exec from 'k6/execution';
import { Counter } from 'k6/metrics';

import type { Answer } from './lib/answers.ts';
import { seconds, whole } from './lib/config.ts';
import { debit, extend, newId, release, reserve, settle, showReservation } from './lib/cota.ts';
import { fast, onTime, only } from './lib/options.ts';
import { summaryOf } from './lib/summary.ts';
import { audit, makeUsers, PLENTY, soundAccounts } from './lib/users.ts';
import type { Made } from './lib/users.ts';

const RATE = whole('LOAD_RATE', 40);
const DURATION = whole('LOAD_DURATION_SECONDS', 60);
const VUS = whole('LOAD_VUS', 100);
const USERS = 20;

/** Flows that ended as they must, by `flow`. */
const ended = new Counter('flows_ended');

function ends(flow: string, answer: Answer, what: string, holds: (answer: Answer) => boolean): void {
  if (check(answer, { [`${flow}: ${what}`]: holds })) {
    ended.add(1, { flow });
  }
}

function flagged(answer: Answer, flag: string, tokens: number): boolean {
  const transaction = answer.body.transaction;
  return answer.status === 200 && transaction?.tokens === tokens && transaction.flags.includes(flag);
}

/** Waits until a reservation of one second is over. */
function outlive(): void {
  sleep(1.3);
}

type Flow = (user: string, poor: string, id: string) => void;

const flows: { [name: string]: Flow } = {
  settle: (user, _poor, id) => {
    reserve(user, id, 1000, 300);
    ends('settle', settle(user, id, { tokens: 640 }), 'charged what was used', (a) => a.status === 200 && a.body.transaction?.tokens === 640);
  },
  release: (user, _poor, id) => {
    reserve(user, id, 1000, 300);
    ends('release', release(user, id), 'nothing charged', (a) => a.status === 200 && a.body.reservation?.state === 'released');
  },
  expire: (user, _poor, id) => {
    reserve(user, id, 1000, 1);
    outlive();
    ends('expire', showReservation(user, id), 'expired, nothing charged', (a) => {
      const found = a.body.reservation;
      return found?.state === 'expired' && (found.charged_tokens ?? 0) === 0;
    });
  },
  progress: (user, _poor, id) => {
    reserve(user, id, 1000, 1);
    extend(user, id, { used_tokens: 300 });
    outlive();
    ends('progress', showReservation(user, id), 'expired, progress charged', (a) => {
      const found = a.body.reservation;
      return found?.state === 'expired' && found.charged_tokens === 300;
    });
  },
  late: (user, _poor, id) => {
    reserve(user, id, 1000, 1);
    outlive();
    ends('late', settle(user, id, { tokens: 640 }), 'charged after the expiry', (a) => flagged(a, 'late', 640));
  },
  overage: (user, _poor, id) => {
    reserve(user, id, 100, 300);
    ends('overage', settle(user, id, { tokens: 150 }), 'charged in full', (a) => flagged(a, 'overage', 150));
  },
  unknown: (user, _poor, id) => {
    reserve(user, id, 100, 300);
    ends('unknown', settle(user, id, { usage: 'unknown' }), 'charged what was held', (a) => flagged(a, 'estimated', 100));
  },
  debit: (user, _poor, id) => {
    ends('debit', debit(user, id, { tokens: 25 }), 'charged', (a) => a.status === 201 && a.body.transaction?.tokens === 25);
  },
  denial: (_user, poor, id) => {
    ends('denial', reserve(poor, id, 1, 300, { expect: [402] }), 'refused, and says what is short', (a) => a.status === 402 && a.body.code === 'insufficient_tokens' && a.body.short?.[0]?.budget === 'balance');
  },
};

/** How often each comes, of twenty. */
const weights: [string, number][] = [
  ['settle', 9],
  ['release', 2],
  ['expire', 1],
  ['progress', 1],
  ['late', 1],
  ['overage', 1],
  ['unknown', 1],
  ['debit', 2],
  ['denial', 2],
];
const turns = weights.reduce((all: string[], [name, weight]) => all.concat(Array(weight).fill(name)), []);

const everyFlow: { [metric: string]: string[] } = {};
for (const name of Object.keys(flows)) {
  everyFlow[`flows_ended{flow:${name}}`] = ['count>0'];
}

export const options = only(
  'mixed',
  {
    executor: 'constant-arrival-rate',
    rate: RATE,
    timeUnit: '1s',
    duration: seconds(DURATION),
    preAllocatedVUs: VUS,
    maxVUs: VUS * 4,
  },
  {
    ...fast(['reserve', 'settle', 'release', 'extend', 'debit']),
    ...onTime(RATE * DURATION),
    ...everyFlow,
    ...soundAccounts,
  },
);

export const handleSummary = summaryOf('mixed');

interface Cast extends Made {
  poor: string;
}

export function setup(): Cast {
  const poor = makeUsers(1, 0).users[0] ?? '';
  return { poor, ...makeUsers(USERS, PLENTY) };
}

export default function (cast: Cast): void {
  const turn = exec.scenario.iterationInTest;
  const flow = flows[turns[turn % turns.length] ?? 'settle'];
  const user = cast.users[turn % cast.users.length] ?? '';
  flow?.(user, cast.poor, newId());
}

export function teardown(cast: Cast): void {
  audit({ users: [...cast.users, cast.poor] }, 60);
}
