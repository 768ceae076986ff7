//! The addresses that webhooks may be sent to.
//!
//! Users enter them, and it is this service that calls them, from where it stands: so nothing but the public internet
//! may be reached (server-side request forgery, OWASP API7). A URL is judged by its text when it is entered and again
//! at each sending; what a name stands for is judged by [`super::resolver`] at each connection.

use std::net::IpAddr;

use ipnet::IpNet;
use reqwest::Url;

use super::address::is_public;
use crate::config::NotifyConfig;

/// Longest URL, in bytes.
pub const MAX_URL_LENGTH: usize = 2_048;

/// What the operator allows.
#[derive(Clone, Debug)]
pub struct Rules {
    allow_http: bool,
    /// Ports; any when empty.
    ports: Vec<u16>,
    /// Networks that may be reached although they are not public.
    networks: Vec<IpNet>,
}

/// Why a URL is none to send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("it is no URL, or has more than {MAX_URL_LENGTH} bytes")]
    Malformed,
    #[error("its scheme is not https")]
    Scheme,
    #[error("it has a user name, a password or a fragment")]
    Parts,
    #[error("its port is none of those that are allowed")]
    Port,
    #[error("its host is not one of the public internet")]
    Host,
}

/// Names that lead inside by their definition (RFC 6761, RFC 6762, RFC 8375, ICANN).
const INNER_NAMES: [&str; 4] = ["localhost", "local", "internal", "home.arpa"];

impl Rules {
    pub fn of(config: &NotifyConfig) -> Self {
        Self {
            allow_http: config.webhook_allow_http,
            ports: config.webhook_ports.clone(),
            networks: config.webhook_allowed_networks.clone(),
        }
    }

    /// The URL in its one spelling, if webhooks may be sent to it as far as its text tells.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, text: &str) -> Result<Url, TargetError> {
        if text.len() > MAX_URL_LENGTH || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(TargetError::Malformed);
        }
        let url = Url::parse(text).map_err(|_| TargetError::Malformed)?;
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            _ => return Err(TargetError::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(TargetError::Parts);
        }
        let port = url.port_or_known_default().ok_or(TargetError::Port)?;
        if port == 0 || !(self.ports.is_empty() || self.ports.contains(&port)) {
            return Err(TargetError::Port);
        }
        if url.as_str().len() > MAX_URL_LENGTH {
            return Err(TargetError::Malformed);
        }
        if self.admits_host(&url) { Ok(url) } else { Err(TargetError::Host) }
    }

    /// Whether a connection to this address may be made.
    pub fn admits(&self, address: IpAddr) -> bool {
        is_public(address) || self.networks.iter().any(|network| network.contains(&address))
    }

    fn admits_host(&self, url: &Url) -> bool {
        // However an address was written (decimal, octal, in hexadecimal digits), it is one by now.
        let host = url.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return self.admits(address);
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        let is_inner =
            |inner: &str| name.strip_suffix(inner).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        // Where inner networks are allowed, what the name stands for decides.
        !name.is_empty() && (!self.networks.is_empty() || !INNER_NAMES.iter().any(|inner| is_inner(inner)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules { allow_http: false, ports: vec![443, 8443], networks: Vec::new() }
    }

    #[test]
    fn public_addresses_over_https_are_taken_in_their_one_spelling() {
        for (text, spelt) in [
            ("https://example.com", "https://example.com/"),
            ("https://EXAMPLE.com:443/Hook?a=b", "https://example.com/Hook?a=b"),
            ("https://example.com:8443/a/../b", "https://example.com:8443/b"),
            ("https://bücher.example/", "https://xn--bcher-kva.example/"),
            ("https://example.com./x", "https://example.com./x"),
            ("https://1.1.1.1/", "https://1.1.1.1/"),
            ("https://[2606:4700:4700::1111]/", "https://[2606:4700:4700::1111]/"),
            ("https://16843009/", "https://1.1.1.1/"),
            ("https://notlocalhost/", "https://notlocalhost/"),
        ] {
            assert_eq!(rules().check(text).map(String::from).as_deref(), Ok(spelt), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        use TargetError::{Host, Malformed, Parts, Port, Scheme};
        let long = format!("https://example.com/{}", "x".repeat(MAX_URL_LENGTH));
        for (text, error) in [
            ("", Malformed),
            ("example.com", Malformed),
            ("/hook", Malformed),
            ("https://", Malformed),
            ("https:// example.com", Malformed),
            ("https://example.com/\r\nX: y", Malformed),
            ("https://exa mple.com/", Malformed),
            ("https://example.com:99999/", Malformed),
            ("https://[::1/", Malformed),
            (&long, Malformed),
            ("http://example.com/", Scheme),
            ("ftp://example.com/", Scheme),
            ("file:///etc/passwd", Scheme),
            ("gopher://example.com/", Scheme),
            ("javascript:alert(1)", Scheme),
            ("https://user@example.com/", Parts),
            ("https://user:secret@example.com/", Parts),
            ("https://example.com@127.0.0.1/", Parts),
            ("https://example.com/#fragment", Parts),
            ("https://example.com:80/", Port),
            ("https://example.com:6379/", Port),
            ("https://example.com:0/", Port),
            ("https://localhost/", Host),
            ("https://LOCALHOST/", Host),
            ("https://localhost./", Host),
            ("https://api.localhost/", Host),
            ("https://printer.local/", Host),
            ("https://metadata.google.internal/", Host),
            ("https://router.home.arpa/", Host),
            ("https://127.0.0.1/", Host),
            ("https://127.1/", Host),
            ("https://2130706433/", Host),
            ("https://017700000001/", Host),
            ("https://0x7f000001/", Host),
            ("https://0x7f.0.0.1/", Host),
            ("https://0177.0.0.1/", Host),
            ("https://127.0.0.1./", Host),
            ("https://%31%32%37.0.0.1/", Host),
            ("https://１２７.０.０.１/", Host),
            ("https://0/", Host),
            ("https://0.0.0.0/", Host),
            ("https://10.0.0.1/", Host),
            ("https://172.16.0.1/", Host),
            ("https://192.168.1.1/", Host),
            ("https://169.254.169.254/latest/meta-data/", Host),
            ("https://2852039166/", Host),
            ("https://100.100.100.200/", Host),
            ("https://198.18.0.1/", Host),
            ("https://224.0.0.1/", Host),
            ("https://255.255.255.255/", Host),
            ("https://[::]/", Host),
            ("https://[::1]/", Host),
            ("https://[::ffff:127.0.0.1]/", Host),
            ("https://[::ffff:7f00:1]/", Host),
            ("https://[::127.0.0.1]/", Host),
            ("https://[64:ff9b::7f00:1]/", Host),
            ("https://[2002:7f00:1::]/", Host),
            ("https://[fd00:ec2::254]/", Host),
            ("https://[fe80::1]/", Host),
            ("https://[ff02::1]/", Host),
        ] {
            assert_eq!(rules().check(text), Err(error), "{text}");
        }
    }

    #[test]
    fn operators_may_allow_more() {
        let networks = vec!["127.0.0.0/8".parse().unwrap(), "fd12::/16".parse().unwrap()];
        let rules = Rules { allow_http: true, ports: Vec::new(), networks };
        for text in
            ["http://127.0.0.1:4711/", "http://localhost:4711/", "https://[fd12::1]/", "http://example.com/"]
        {
            assert!(rules.check(text).is_ok(), "{text}");
        }
        for text in ["http://10.0.0.1/", "https://[fd13::1]/", "https://[::1]/", "http://[::ffff:127.0.0.1]/"]
        {
            assert_eq!(rules.check(text), Err(TargetError::Host), "{text}");
        }
    }
}
