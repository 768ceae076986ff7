// The parts of Cota's answers that the scripts look at. Every member may be missing: a load test must not fall over an
// answer it did not expect, but count it.

export interface Balance {
  total: number;
  used: number;
  reserved: number;
  available: number;
}

export interface Reservation {
  id: string;
  state: string;
  tokens: number;
  used_tokens: number;
  charged_tokens: number | null;
}

export interface Transaction {
  id: string;
  tokens: number;
  flags: string[];
}

export interface User {
  id: string;
  total_tokens: number;
  used_tokens: number;
}

export interface Short {
  budget: string;
  available: number;
  requested: number;
}

export interface Result {
  status: number;
  body?: Body;
  replayed?: boolean;
}

export interface Body {
  balance?: Balance;
  reservation?: Reservation;
  reservations?: Reservation[];
  transaction?: Transaction;
  user?: User;
  user_id?: string;
  results?: Result[];
  stale?: boolean;
  code?: string;
  outcome?: string;
  short?: Short[];
  total?: number;
}

/** One answer of Cota. Status 0: there was none. */
export interface Answer {
  status: number;
  body: Body;
  /** Whether it repeats the answer to an earlier call with the same id. */
  replayed: boolean;
  /** Seconds after which to try again, where the answer says so. */
  retryAfter: number | undefined;
}
