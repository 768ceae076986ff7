//! What `dev.json` says.

use serde::Serialize;

use super::CliError;
use crate::{
    app::Addresses,
    config::AuthConfig,
    http::jwt::{Role, mint},
    quota::UserId,
};

/// Everything a program needs to use the running service. Holds secrets: its file is for the owner only.
#[derive(Serialize)]
pub(super) struct Facts {
    pub(super) url: String,
    pub(super) metrics_url: String,
    pub(super) redis_url: String,
    pub(super) postgres_url: String,
    pub(super) user_id: String,
    pub(super) gateway_jwt: String,
    pub(super) user_jwt: String,
    pub(super) admin_jwt: String,
    pub(super) pid: u32,
}

impl Facts {
    /// The JWTs live as long as the configuration allows: a new start makes new ones.
    pub(super) fn gather(
        auth: &AuthConfig,
        addresses: Addresses,
        redis_url: String,
        postgres_url: String,
        user: UserId,
    ) -> Result<Self, CliError> {
        let user_id = user.to_string();
        let jwt = |subject: &str, role| mint(auth, subject, role, auth.max_lifetime_seconds);
        Ok(Self {
            url: format!("http://{}", addresses.http),
            metrics_url: format!("http://{}/metrics", addresses.metrics),
            redis_url,
            postgres_url,
            gateway_jwt: jwt("dev-gateway", Role::Gateway)?,
            user_jwt: jwt(&user_id, Role::User)?,
            admin_jwt: jwt("dev-admin", Role::Admin)?,
            user_id,
            pid: std::process::id(),
        })
    }
}
