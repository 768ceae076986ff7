// What the environment says. script/load sets the first five; the others turn a scenario up or down.
//
//   LOAD_URL           where Cota is, without a path
//   LOAD_GATEWAY_JWT   a JWT of role gateway
//   LOAD_ADMIN_JWT     a JWT of role admin: users and credits are made with it
//   LOAD_USERS         file with [{"id": …, "jwt": …}]: ids of users to be made, each with a JWT of role user (isolation)
//   LOAD_RESULTS       folder for the results, which must exist; the working folder by default
//   LOAD_P99_MS        milliseconds that 99 of 100 calls must stay below
//   LOAD_RATE, LOAD_VUS, LOAD_DURATION_SECONDS, LOAD_ITERATIONS   as each scenario says at its head

function given(name: string): string | undefined {
  const value = __ENV[name];
  return value === undefined || value === '' ? undefined : value;
}

/** A setting that has no default. */
export function required(name: string): string {
  const value = given(name);
  if (value === undefined) {
    throw new Error(`${name} is not set: start with script/load, or see loadtest/lib/config.ts`);
  }
  return value;
}

/** A positive whole number. */
export function whole(name: string, usual: number): number {
  const value = given(name);
  if (value === undefined) {
    return usual;
  }
  if (!/^[1-9][0-9]{0,8}$/.test(value)) {
    throw new Error(`${name} must be a positive whole number, and is ${value}`);
  }
  return Number(value);
}

export const url = required('LOAD_URL').replace(/\/+$/, '');
export const gatewayJwt = required('LOAD_GATEWAY_JWT');
export const adminJwt = required('LOAD_ADMIN_JWT');
export const results = given('LOAD_RESULTS') ?? '.';
export const p99Ms = whole('LOAD_P99_MS', 500);

/** A time as k6 writes it. */
export function seconds(count: number): string {
  return `${count}s`;
}
