//! Identity providers whose JWTs are taken beside our own (`docs/AUTH.md`).

use std::{net::IpAddr, path::PathBuf};

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::{AuthConfig, ConfigError};

/// What the holder of a JWT may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads what is its own: its subject is its user id.
    User,
    /// Reserves and settles for any user.
    Gateway,
    /// What gateways do, and the user base.
    Admin,
}

/// Signatures that a public key checks, by their names in JWTs (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum PublicKeyAlgorithm {
    RS256,
    ES256,
    EdDSA,
}

/// An identity provider. Its keys come from exactly one of `jwks_file` and `jwks_url`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The claim `iss` of its JWTs.
    pub issuer: String,
    /// The claim `aud` they must have.
    pub audience: String,
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    #[serde(default)]
    pub jwks_url: Option<JwksUrl>,
    #[serde(default = "every_algorithm")]
    pub algorithms: Vec<PublicKeyAlgorithm>,
    /// Roles it may give.
    #[serde(default = "every_role")]
    pub roles: Vec<Role>,
}

fn every_algorithm() -> Vec<PublicKeyAlgorithm> {
    vec![PublicKeyAlgorithm::RS256, PublicKeyAlgorithm::ES256, PublicKeyAlgorithm::EdDSA]
}

fn every_role() -> Vec<Role> {
    vec![Role::User, Role::Gateway, Role::Admin]
}

/// Where a key set is fetched: `https`, or `http` from this machine itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct JwksUrl(Url);

/// What [`JwksUrl`] is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a JWKS URL is https://…, or http://… of a loopback host, without user, password and fragment")]
pub struct NotAJwksUrl;

impl JwksUrl {
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl TryFrom<String> for JwksUrl {
    type Error = NotAJwksUrl;

    fn try_from(text: String) -> Result<Self, NotAJwksUrl> {
        let url = Url::parse(&text).map_err(|_| NotAJwksUrl)?;
        let host = url.host_str().ok_or(NotAJwksUrl)?;
        let reachable = match url.scheme() {
            "https" => true,
            "http" => is_loopback(host),
            _ => false,
        };
        let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        if reachable && plain { Ok(Self(url)) } else { Err(NotAJwksUrl) }
    }
}

impl From<JwksUrl> for String {
    fn from(url: JwksUrl) -> Self {
        url.0.into()
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl AuthConfig {
    /// Whether JWTs signed with a shared secret are taken.
    pub fn has_secret(&self) -> bool {
        !self.hs256_secret.expose().is_empty()
    }

    /// Checks what the types cannot say of [`AuthConfig::issuers`].
    pub(super) fn check_issuers(&self) -> Result<(), ConfigError> {
        let mut names: Vec<&str> = if self.has_secret() { vec![&self.issuer] } else { Vec::new() };
        for issuer in &self.issuers {
            let rules = [
                (!issuer.issuer.is_empty(), "issuer must not be empty"),
                (!names.contains(&&*issuer.issuer), "another issuer has this name"),
                (!issuer.audience.is_empty(), "audience must not be empty"),
                (
                    issuer.jwks_file.is_some() != issuer.jwks_url.is_some(),
                    "exactly one of jwks_file and jwks_url must be set",
                ),
                (!issuer.algorithms.is_empty(), "algorithms must not be empty"),
                (!issuer.roles.is_empty(), "roles must not be empty"),
            ];
            if let Some((_, rule)) = rules.into_iter().find(|(holds, _)| !holds) {
                return Err(ConfigError::Issuer(issuer.issuer.clone(), rule));
            }
            names.push(&issuer.issuer);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        for good in [
            "https://login.example/jwks.json",
            "https://10.0.0.7:8443/keys?set=1",
            "http://127.0.0.1:8080/jwks",
            "http://127.8.8.8/jwks",
            "http://[::1]:1/jwks",
            "http://localhost:3000/jwks",
            "http://LOCALHOST/jwks",
            // Decimal and hexadecimal spellings are the same address, and read as such.
            "http://2130706433/jwks",
            "http://0x7f.1/jwks",
        ] {
            assert!(JwksUrl::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in [
            "",
            "login.example/jwks",
            "http://login.example/jwks",
            "http://10.0.0.7/jwks",
            "http://0.0.0.0/jwks",
            "http://localhost.example/jwks",
            "http://127.0.0.1.example/jwks",
            "http://[::ffff:10.0.0.7]/jwks",
            "http://127.0.0.1@login.example/jwks",
            "https://me:hush@login.example/jwks",
            "https://me@login.example/jwks",
            "https://login.example/jwks#key",
            "file:///etc/passwd",
            "ftp://127.0.0.1/jwks",
            "https://",
        ] {
            assert_eq!(JwksUrl::try_from(bad.to_owned()), Err(NotAJwksUrl), "{bad}");
        }
    }
}
