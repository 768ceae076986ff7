//! The demo user, and what to try next.

use serde::Serialize;

use super::{CliError, files::Folder};
use crate::{
    app::Addresses,
    config::Config,
    http::jwt::{Role, mint},
    quota::UserId,
    store::{Creation, Credit, CreditOutcome, GrantKind, NewUser, Store},
};

const TOKENS: i64 = 100_000;
const JWT_SECONDS: u64 = 30 * 86_400;

/// Where the private stores answer.
pub struct StoreUrls {
    pub redis: String,
    pub postgres: String,
}

/// What `dev.json` says.
#[derive(Serialize)]
pub struct Facts {
    pub url: String,
    pub metrics_url: String,
    pub redis_url: String,
    pub postgres_url: String,
    pub user_id: String,
    pub gateway_jwt: String,
    pub user_jwt: String,
    pub admin_jwt: String,
    pub pid: u32,
}

/// A user with 100,000 tokens; made once.
pub async fn user(store: &Store, folder: &Folder) -> Result<UserId, CliError> {
    let id = folder.kept("demo-user", || UserId::generate().to_string())?;
    let id: UserId = id.parse().map_err(|_| CliError::Dev("demo-user holds no user id".into()))?;
    let new = NewUser {
        id: Some(id),
        email: "demo@example.com".into(),
        external_id: None,
        locale: Some("en".into()),
        time_zone: Some("UTC".into()),
    };
    match store.create_user(&new).await? {
        Creation::Created(_) | Creation::IdTaken => {}
        Creation::EmailTaken | Creation::ExternalIdTaken if store.user(id).await?.is_some() => {}
        taken => return Err(CliError::Dev(format!("the demo user cannot be made: {taken:?}"))),
    }
    let reason = Some("demo".into());
    let credit = Credit { kind: GrantKind::Bonus, tokens: TOKENS, idempotency_key: "demo".into(), reason };
    match store.credit(id, &credit).await? {
        CreditOutcome::Granted { .. } | CreditOutcome::Replayed { .. } => Ok(id),
        refused => Err(CliError::Dev(format!("the demo user gets no tokens: {refused:?}"))),
    }
}

pub fn facts(
    config: &Config,
    stores: StoreUrls,
    addresses: Addresses,
    user: UserId,
) -> Result<Facts, CliError> {
    let user_id = user.to_string();
    Ok(Facts {
        url: format!("http://{}", addresses.http),
        metrics_url: format!("http://{}/metrics", addresses.metrics),
        redis_url: stores.redis,
        postgres_url: stores.postgres,
        gateway_jwt: mint(&config.auth, "demo-gateway", Role::Gateway, JWT_SECONDS)?,
        user_jwt: mint(&config.auth, &user_id, Role::User, JWT_SECONDS)?,
        admin_jwt: mint(&config.auth, "demo-admin", Role::Admin, JWT_SECONDS)?,
        user_id,
        pid: std::process::id(),
    })
}

/// Tells the person at the terminal what there is, and three calls to paste.
pub fn print(facts: &Facts) {
    let Facts { url, metrics_url, user_id, gateway_jwt, user_jwt, admin_jwt, .. } = facts;
    let id = UserId::generate();
    println!(
        "
Cota is ready.

  address      {url}
  metrics      {metrics_url}
  demo user    {user_id}, {TOKENS} tokens

  gateway JWT  {gateway_jwt}

  user JWT     {user_jwt}

  admin JWT    {admin_jwt}

Reserve 500 tokens before a model call:

curl -sS {url}/v1/users/{user_id}/reservations -H 'Authorization: Bearer {gateway_jwt}' -H 'Content-Type: application/json' -d '{{\"id\":\"{id}\",\"tokens\":500,\"model\":\"demo-model\"}}'

Settle what it really used:

curl -sS {url}/v1/users/{user_id}/reservations/{id}/settle -H 'Authorization: Bearer {gateway_jwt}' -H 'Content-Type: application/json' -d '{{\"usage\":{{\"input_tokens\":120,\"output_tokens\":200}}}}'

See the user's balance, as the user:

curl -sS {url}/v1/users/{user_id}/tokens -H 'Authorization: Bearer {user_jwt}'

Ctrl-C stops everything. The same facts stand in dev.json for programs."
    );
}
