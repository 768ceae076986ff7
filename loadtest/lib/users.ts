// Users for a run, made before it, and what must be true of them after it.

import { sleep } from 'k6';
import { Counter } from 'k6/metrics';

import { account, createUser, credit, definite, tokens } from './cota.ts';

/** What setup() hands to the others. */
export interface Made {
  users: string[];
}

/** More than any scenario spends. */
export const PLENTY = 1e12;

/**
 * Makes users with so many tokens each; with these ids, or with ids of Cota's choice.
 * Fails the run when one cannot be made.
 */
export function makeUsers(count: number, amount: number, ids: string[] = []): Made {
  const run = Date.now().toString(36);
  const users: string[] = [];
  for (let n = 0; n < count; n += 1) {
    const email = `load-${run}-${n}@example.com`;
    const id = ids[n];
    const answer = definite(() => createUser(id === undefined ? { email } : { id, email }));
    const user = answer.body.user?.id;
    if (user === undefined) {
      throw new Error(`a user could not be made: ${answer.status} ${answer.body.code}`);
    }
    if (amount > 0) {
      const credited = definite(() => credit(user, `load-${run}-${n}`, amount));
      if (credited.status !== 200 && credited.status !== 201) {
        throw new Error(`a credit could not be given: ${credited.status} ${credited.body.code}`);
      }
    }
    users.push(user);
  }
  // A credit is there at once for Postgres, and a moment later for Redis.
  for (const user of users) {
    if (!until(() => tokens(user).body.balance?.total === amount)) {
      throw new Error(`the credit of ${user} did not reach Redis`);
    }
  }
  return { users };
}

/** Users whose numbers were not what they must be when nothing runs any more. */
const unsound = new Counter('unsound_accounts');

/** The threshold that goes with `audit`. */
export const soundAccounts = { unsound_accounts: ['count==0'] };

/**
 * For teardown(): once nothing is held any more, Redis and Postgres say the same of every user.
 * Waits as long as it takes for what is left to expire and to be flushed, at most so many seconds for all.
 */
export function audit(made: Made, patience: number): number {
  const end = Date.now() + patience * 1000;
  let used = 0;
  let wrong = 0;
  for (const user of made.users) {
    let seen = 0;
    const agrees = (): boolean => {
      const live = tokens(user).body.balance;
      seen = live?.used ?? 0;
      const kept = account(user).body.user;
      return (
        live !== undefined &&
        kept !== undefined &&
        live.reserved === 0 &&
        live.used === kept.used_tokens &&
        live.total === kept.total_tokens &&
        live.available === live.total - live.used
      );
    };
    wrong += until(agrees, end) ? 0 : 1;
    used += seen;
  }
  unsound.add(wrong);
  return used;
}

/** Asks again and again until it is so, or until then (milliseconds since 1970); says whether it is. */
export function until(holds: () => boolean, end: number = Date.now() + 10000): boolean {
  while (!holds()) {
    if (Date.now() >= end) {
      return false;
    }
    sleep(0.1);
  }
  return true;
}
