// Calls of Cota's API. Each is tagged with its `operation`, so that thresholds can speak of one of them, and with the
// route as its `name`, so that the ids in the paths make no series of their own.

import { sleep } from 'k6';
import exec from 'k6/execution';
import http from 'k6/http';
import type { Params, RefinedResponse, ResponseType } from 'k6/http';

import type { Answer, Body } from './answers.ts';
import { adminJwt, gatewayJwt, url } from './config.ts';

export interface Usage {
  input_tokens: number;
  output_tokens: number;
  cached_input_tokens?: number;
}

/** What a settle or a debit is told. */
export type Spent = { tokens: number; model?: string } | { usage: Usage | 'unknown'; model?: string };

export interface Operation {
  op: 'reserve' | 'settle' | 'release' | 'extend' | 'debit';
  user_id: string;
  id: string;
  tokens?: number;
  ttl_seconds?: number;
}

/** How a call is made: with whose JWT, what it is tagged with, and which answers are no failure of the service. */
export interface How {
  jwt?: string;
  tags?: { [name: string]: string };
  expect?: number[];
}

const TIMEOUT = '10s';
const users = '/v1/users';

// Every script run and every virtual user makes ids of its own.
const born = Date.now().toString(36);
let made = 0;

/** An id that no other call of any run has. */
export function newId(): string {
  made += 1;
  return `load-${born}-${exec.vu.idInTest}-${made}`;
}

function read(response: RefinedResponse<ResponseType | undefined>): Answer {
  let body: Body = {};
  if (typeof response.body === 'string' && response.body !== '') {
    try {
      body = JSON.parse(response.body) as Body;
    } catch {
      // No JSON: the checks of the caller will miss what they look for.
    }
  }
  const after = response.headers['Retry-After'];
  return {
    status: response.status,
    body,
    replayed: response.headers['Idempotent-Replayed'] === 'true',
    retryAfter: after === undefined ? undefined : Number(after),
  };
}

function params(operation: string, route: string, how: How, expected: number[], more?: { [name: string]: string }): Params {
  return {
    headers: {
      Authorization: `Bearer ${how.jwt ?? gatewayJwt}`,
      'Content-Type': 'application/json',
      ...more,
    },
    tags: { operation, name: route, ...how.tags },
    timeout: TIMEOUT,
    responseCallback: http.expectedStatuses(...expected, ...(how.expect ?? [])),
  };
}

function get(operation: string, route: string, path: string, how: How): Answer {
  return read(http.get(url + path, params(operation, `GET ${route}`, how, [200])));
}

function post(operation: string, route: string, path: string, body: object | null, how: How): Answer {
  const text = body === null ? null : JSON.stringify(body);
  return read(http.post(url + path, text, params(operation, `POST ${route}`, how, [200, 201])));
}

const RESERVATIONS = `${users}/{id}/reservations`;

function reservation(user: string, id: string): string {
  return `${users}/${user}/reservations/${id}`;
}

export function reserve(user: string, id: string, tokens: number, ttlSeconds: number, how: How = {}): Answer {
  const body = { id, tokens, ttl_seconds: ttlSeconds, model: 'load-model' };
  return post('reserve', RESERVATIONS, `${users}/${user}/reservations`, body, how);
}

export function settle(user: string, id: string, spent: Spent, how: How = {}): Answer {
  return post('settle', `${RESERVATIONS}/{rid}/settle`, `${reservation(user, id)}/settle`, spent, how);
}

export function release(user: string, id: string, how: How = {}): Answer {
  return post('release', `${RESERVATIONS}/{rid}/release`, `${reservation(user, id)}/release`, null, how);
}

export function extend(user: string, id: string, body: { tokens?: number; ttl_seconds?: number; used_tokens?: number }, how: How = {}): Answer {
  return post('extend', `${RESERVATIONS}/{rid}/extend`, `${reservation(user, id)}/extend`, body, how);
}

export function debit(user: string, id: string, spent: Spent, how: How = {}): Answer {
  return post('debit', `${users}/{id}/debits`, `${users}/${user}/debits`, { id, ...spent }, how);
}

export function batch(operations: Operation[], how: How = {}): Answer {
  return post('batch', '/v1/batch', '/v1/batch', { operations }, how);
}

export function showReservation(user: string, id: string, how: How = {}): Answer {
  return get('show', `${RESERVATIONS}/{rid}`, reservation(user, id), how);
}

export function listPending(user: string, how: How = {}): Answer {
  return get('list', RESERVATIONS, `${users}/${user}/reservations?state=pending`, how);
}

/** The live balance, from Redis. */
export function tokens(user: string, how: How = {}): Answer {
  return get('tokens', `${users}/{id}/tokens`, `${users}/${user}/tokens`, how);
}

/** The account as Postgres has it. */
export function account(user: string, how: How = {}): Answer {
  return get('account', `${users}/{id}`, `${users}/${user}`, { jwt: adminJwt, ...how });
}

export function createUser(body: { id?: string; email: string }): Answer {
  return post('create', users, users, body, { jwt: adminJwt });
}

export function credit(user: string, key: string, amount: number): Answer {
  const expected = params('credit', `POST ${users}/{id}/credits`, { jwt: adminJwt }, [200, 201], { 'Idempotency-Key': key });
  return read(http.post(`${url}${users}/${user}/credits`, JSON.stringify({ tokens: amount, kind: 'bonus' }), expected));
}

/** Whether an answer leaves open what became of the call, so that it is to be made again with the same id. */
export function isOpen(answer: Answer): boolean {
  return answer.status === 0 || answer.status === 429 || answer.status === 503;
}

const TRIES = 20;

/** Makes a call again, as its answers ask, until its answer is definite: what a gateway does. */
export function definite(call: () => Answer): Answer {
  let answer = call();
  for (let tries = 1; isOpen(answer) && tries < TRIES; tries += 1) {
    sleep(Math.min(answer.retryAfter ?? 0.1, 2));
    answer = call();
  }
  return answer;
}
