//! wrk as the closed-loop load generator.

use std::{fs, path::PathBuf};

use tokio::process::Command;

use crate::{AnyError, figures::target_folder};

/// What wrk saw.
pub struct Seen {
    pub per_second: f64,
}

/// Requests of one kind; `number` counts them up, `user(n)` is the path of an account.
pub struct Script(PathBuf);

impl Script {
    /// `request` is the body of wrk's `request()`: Lua that returns the result of `post(path, body)`.
    pub fn new(name: &str, jwt: &str, request: &str) -> Result<Self, AnyError> {
        let file = target_folder().join(format!("bench-{name}-{}.lua", std::process::id()));
        let text = format!(
            r#"local salt, accounts, number = os.getenv("BENCH_SALT"), {accounts}, 0
local headers = {{["Authorization"] = "Bearer {jwt}", ["Content-Type"] = "application/json"}}
local users = {{}}
for n = 0, accounts - 1 do users[n] = string.format("00000000-0000-4000-8000-%012x", n) end
local function user(n) return "/v1/users/" .. users[n % accounts] end
local function post(path, body) return wrk.format("POST", path, headers, body) end
function request()
  number = number + 1
  {request}
end
function done(summary)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"#,
            accounts = crate::accounts::MANY,
        );
        fs::write(&file, text)?;
        Ok(Self(file))
    }

    /// Runs it with so many connections for so many seconds. `salt` makes the ids of this run its own.
    pub async fn run(&self, url: &str, salt: &str, connections: u32, seconds: u32) -> Result<Seen, AnyError> {
        let output = Command::new("wrk")
            .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "--timeout", "5s", "-s"])
            .arg(&self.0)
            .arg(url)
            .env("BENCH_SALT", salt)
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let result =
            text.lines().find_map(|line| line.strip_prefix("RESULT ")).ok_or("wrk gave no result")?;
        let numbers: Vec<f64> = result.split(' ').filter_map(|number| number.parse().ok()).collect();
        let [requests, micros, errors] = numbers[..] else { return Err("wrk's result is malformed".into()) };
        if errors > 0.0 {
            return Err(format!("{errors} of {requests} requests failed:\n{text}").into());
        }
        Ok(Seen { per_second: requests / (micros / 1e6) })
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // It lies in the target folder: nobody minds a rest.
        let _ = fs::remove_file(&self.0);
    }
}
