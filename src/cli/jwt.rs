//! `cota jwt`.

use std::{fs, path::PathBuf};

use clap::{Args, ValueEnum};

use super::CliError;
use crate::{
    config::{Config, IssuerConfig},
    http::jwt::{Role, Signer},
    quota::UserId,
};

#[derive(Debug, Args)]
pub(super) struct JwtOptions {
    /// What its holder may do.
    #[arg(long, value_enum)]
    role: RoleName,
    /// Whom it speaks for: the user's id for the role `user`, any name for the others (default: the role).
    #[arg(long, value_name = "ID", required_if_eq("role", "user"))]
    sub: Option<String>,
    /// How long it is good for, as in 30s, 15m, 12h or 7d; at most auth.max_lifetime_seconds.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_ttl)]
    ttl: u64,
    /// Sign with this private key of an issuer (PEM, PKCS #8: RSA, P-256 or Ed25519) instead of the shared secret.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The key's name in the issuer's key set.
    #[arg(long, requires = "key")]
    kid: Option<String>,
    /// Which of auth.issuers signs; may be left out when there is one.
    #[arg(long, requires = "key", value_name = "ISSUER")]
    iss: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleName {
    /// Reserves and settles for any user.
    Gateway,
    /// Reads what is its own.
    User,
    /// What gateways do, and the user base.
    Admin,
}

impl RoleName {
    fn role(self) -> (Role, &'static str) {
        match self {
            Self::Gateway => (Role::Gateway, "gateway"),
            Self::User => (Role::User, "user"),
            Self::Admin => (Role::Admin, "admin"),
        }
    }
}

/// Prints a JWT, and nothing else, so that it can be used in a command substitution.
pub(super) fn run(options: &JwtOptions, config: &Config) -> Result<(), CliError> {
    println!("{}", jwt(options, config)?);
    Ok(())
}

fn jwt(options: &JwtOptions, config: &Config) -> Result<String, CliError> {
    let (role, name) = options.role.role();
    let subject = options.sub.as_deref().unwrap_or(name);
    if role == Role::User && subject.parse::<UserId>().is_err() {
        return Err(CliError::Usage("--sub of a user is its id, a UUID in its hyphenated form"));
    }
    let signer = match &options.key {
        None => Signer::with_secret(&config.auth)?,
        Some(path) => {
            let issuer = issuer(options, config)?;
            let pem = fs::read(path).map_err(CliError::io("reading", path))?;
            Signer::with_key(&config.auth, issuer, &pem, options.kid.clone())?
        }
    };
    Ok(signer.mint(subject, role, options.ttl)?)
}

fn issuer<'a>(options: &JwtOptions, config: &'a Config) -> Result<&'a IssuerConfig, CliError> {
    match (&options.iss, &*config.auth.issuers) {
        (None, [only]) => Ok(only),
        (None, _) => Err(CliError::Usage("--iss says which of auth.issuers signs")),
        (Some(name), issuers) => {
            let named = issuers.iter().find(|issuer| issuer.issuer == *name);
            named.ok_or(CliError::Usage("--iss is none of auth.issuers"))
        }
    }
}

/// Seconds of a time such as `90`, `90s`, `15m`, `12h` or `7d`.
fn parse_ttl(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time: write 30s, 15m, 12h or 7d");
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[number.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(seconds)).filter(|n| *n > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Secret, http::jwt::Verifier};

    fn config() -> Config {
        let mut config = Config::default();
        config.auth.hs256_secret = Secret::new("a secret of more than thirty-two bytes");
        config
    }

    #[test]
    fn times() {
        for (text, seconds) in [("90", 90), ("1s", 1), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000)] {
            assert_eq!(parse_ttl(text), Ok(seconds));
        }
        for bad in ["", "0", "0d", "s", "-1s", "+1s", "1.5h", "1w", "1 h", "1hh", "99999999999999999d", "é"]
        {
            assert!(parse_ttl(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_it_makes_the_service_takes() {
        let config = config();
        let user = UserId::generate().to_string();
        for (role, sub, subject) in [
            (RoleName::Gateway, None, "gateway"),
            (RoleName::Admin, Some("eve"), "eve"),
            (RoleName::User, Some(user.as_str()), user.as_str()),
        ] {
            let options =
                JwtOptions { role, sub: sub.map(str::to_owned), ttl: 60, key: None, kid: None, iss: None };
            let principal = Verifier::new(&config.auth).verify(&jwt(&options, &config).unwrap()).unwrap();
            assert_eq!((principal.role, &*principal.subject), (role.role().0, subject));
        }
    }

    #[test]
    fn what_the_service_would_not_take_is_refused() {
        let config = config();
        let options = |role, sub: &str, ttl| {
            let sub = Some(sub.to_owned());
            JwtOptions { role, sub, ttl, key: None, kid: None, iss: None }
        };
        let too_long = config.auth.max_lifetime_seconds + 1;
        for bad in [
            options(RoleName::User, "not-a-uuid", 60),
            options(RoleName::Gateway, "", 60),
            options(RoleName::Gateway, "g", too_long),
        ] {
            assert!(jwt(&bad, &config).is_err(), "{bad:?}");
        }
    }
}
