//! `cota check-config`.

use serde_json::Value;

use super::CliError;
use crate::{config::Config, crypto::Keyring, http::jwt::check_key_file};

/// Keys of which only the fact that they are set may be shown.
const SECRETS: [(&str, &str); 5] = [
    ("auth", "hs256_secret"),
    ("keys", "index_key"),
    ("redis", "url"),
    ("postgres", "url"),
    ("postgres", "owner_url"),
];

/// Prints the configuration that is in force, as JSON. It has been checked by being loaded, but for the files it names.
pub(super) fn run(config: &Config) -> Result<(), CliError> {
    for issuer in &config.auth.issuers {
        if let Some(path) = &issuer.jwks_file {
            check_key_file(issuer, path).map_err(|error| CliError::KeyFile { path: path.clone(), error })?;
        }
    }
    // Only what touches the database needs keys.
    if !config.keys.ring.is_empty() {
        Keyring::of(&config.keys)?;
    }
    println!("{:#}", shown(config)?);
    Ok(())
}

/// The configuration without its secrets. Of a URL the place stays, without the user and what else may be private.
fn shown(config: &Config) -> Result<Value, CliError> {
    let mut value = serde_json::to_value(config)
        .map_err(|error| CliError::Io { what: "showing the configuration".into(), source: error.into() })?;
    for (section, key) in SECRETS {
        if let Some(Value::String(text)) = value.get_mut(section).and_then(|section| section.get_mut(key)) {
            *text = match key {
                _ if text.is_empty() => String::new(),
                "url" | "owner_url" => place(text),
                _ => "[secret]".to_owned(),
            };
        }
    }
    let ring = value.pointer_mut("/keys/ring").and_then(Value::as_array_mut);
    for key in ring.into_iter().flatten().filter_map(|entry| entry.get_mut("key")) {
        if key.is_string() {
            *key = "[secret]".into();
        }
    }
    Ok(value)
}

/// Scheme, host, port and path of a URL; a query may hold a password too. Nothing of one that is not plain enough to
/// be sure where the private part ends.
fn place(url: &str) -> String {
    const HIDDEN: &str = "[secret]";
    let Some((scheme, rest)) = url.split_once("://") else { return HIDDEN.to_owned() };
    let before_query = rest.split(['?', '#']).next().unwrap_or_default();
    match (rest.matches('@').count(), before_query.split_once('@')) {
        (0, _) => format!("{scheme}://{before_query}"),
        (1, Some((_, place))) => format!("{scheme}://{HIDDEN}@{place}"),
        _ => HIDDEN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KeyConfig, Secret};

    #[test]
    fn nothing_secret_is_shown() {
        let mut config = Config::default();
        config.auth.hs256_secret = Secret::new("hush-hs256-hush-hs256-hush-hs256");
        config.keys.index_key = Secret::new("hush-index");
        let key = Some(Secret::new("hush-key"));
        config.keys.ring.push(KeyConfig { id: "2026-11".into(), key, key_file: None });
        config.redis.url = Secret::new("rediss://me:hush-redis@redis.example:6380/1");
        let text = shown(&config).unwrap().to_string();
        assert!(!text.contains("hush"), "{text}");
        assert!(text.contains("2026-11"), "{text}");
        assert!(text.contains("rediss://[secret]@redis.example:6380/1"), "{text}");
        for url in [
            "postgres://db.example/cota?password=hush",
            "postgres://db.example/cota?password=hush@hush",
            "postgres://cota:hush#hush@db.example/cota",
            "postgres://cota:hush?hush@db.example/cota",
            "postgres://cota:hush@hush@db.example/cota",
            "hush",
        ] {
            assert!(!place(url).contains("hush"), "{url}: {}", place(url));
        }
    }

    /// A new [`Secret`] in the configuration must get its line in [`SECRETS`].
    #[test]
    fn every_secret_is_known() {
        let sources = [
            include_str!("../config.rs"),
            include_str!("../config/issuers.rs"),
            include_str!("../config/keys.rs"),
            include_str!("../config/stores.rs"),
        ];
        let lines = sources.iter().flat_map(|source| source.lines());
        let declared = lines.filter(|line| line.trim_end().ends_with(": Secret,")).count();
        assert_eq!(declared, SECRETS.len());
    }
}
