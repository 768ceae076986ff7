//! What `cota dev` prints once it is ready.

use super::{facts::Facts, folder::Folder};

/// Address, JWTs and three lines to paste. The reservation's id is made where the lines are pasted from, so that they
/// work again after a restart.
pub(super) fn text(facts: &Facts, folder: &Folder) -> String {
    let Facts { url, metrics_url, user_id, gateway_jwt, user_jwt, admin_jwt, .. } = facts;
    let id = format!("try-{}", uuid::Uuid::new_v4().simple());
    let user = format!("{url}/v1/users/{user_id}");
    let json = "-H 'Content-Type: application/json'";
    format!(
        "
Cota is ready.

  API      {url}
  Metrics  {metrics_url}
  User     {user_id}  (100,000 tokens at the first start)
  Facts    {facts_path}  (all of this, for programs)
  Log      {log_path}

Gateway JWT
{gateway_jwt}

User JWT
{user_jwt}

Admin JWT
{admin_jwt}

Reserve 1,000 tokens before a model call, settle the 640 that it used, look at the balance:

curl -sS -X POST '{user}/reservations' -H 'Authorization: Bearer {gateway_jwt}' {json} -d '{{\"id\":\"{id}\",\"tokens\":1000}}'

curl -sS -X POST '{user}/reservations/{id}/settle' -H 'Authorization: Bearer {gateway_jwt}' {json} -d '{{\"tokens\":640}}'

curl -sS '{user}/tokens' -H 'Authorization: Bearer {user_jwt}'

Ctrl-C stops it; the data stays.
",
        facts_path = folder.facts_path().display(),
        log_path = folder.log_path().display(),
    )
}
