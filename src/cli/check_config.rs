//! `cota check-config`: what is in force, with secrets hidden.

use super::CliError;
use crate::config::Config;

const HIDDEN: &str = "[secret]";

pub fn run(config: &Config) -> Result<(), CliError> {
    let mut shown = serde_json::to_value(config)?;
    for key in ["/auth/hs256_secret", "/redis/url", "/postgres/url"] {
        if let Some(value) = shown.pointer_mut(key) {
            *value = HIDDEN.into();
        }
    }
    println!("{}", serde_json::to_string_pretty(&shown)?);
    println!("the configuration is sound");
    Ok(())
}
