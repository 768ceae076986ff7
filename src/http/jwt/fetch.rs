//! Reads a key set where it is kept: bounded in size and time, and from nowhere else.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Client, StatusCode, Url, header, redirect::Policy};
use tokio::{
    task::{JoinError, spawn_blocking},
    time::{error::Elapsed, timeout},
};

use crate::config::IssuerConfig;

/// A key set is no longer than this; one key takes some 500 bytes.
const MAX_BYTES: usize = 64 * 1024;
/// To read it, from beginning to end.
const TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a key set is kept.
#[derive(Debug)]
pub(super) enum Origin {
    File(PathBuf),
    Url(Url),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => url.fmt(f),
        }
    }
}

/// A key set as text.
#[derive(Debug)]
pub(super) struct Document {
    pub body: Vec<u8>,
    /// How long the other side says it will do.
    pub max_age: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0}")]
    File(#[from] io::Error),
    #[error("{}", chain(.0))]
    Http(#[from] reqwest::Error),
    #[error("it was answered with {0}")]
    Status(StatusCode),
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("it took longer than {} s", TIMEOUT.as_secs())]
    Slow(#[from] Elapsed),
    #[error("reading it was broken off")]
    Broken(#[from] JoinError),
}

/// The client says that it failed, its source why.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl Origin {
    /// `None` if the configuration names none.
    pub(super) fn of(config: &IssuerConfig) -> Option<Self> {
        let file = config.jwks_file.as_ref().map(|path| Self::File(path.clone()));
        file.or_else(|| config.jwks_url.as_ref().map(|url| Self::Url(url.url().clone())))
    }

    pub(super) async fn read(&self) -> Result<Document, FetchError> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let body = timeout(TIMEOUT, spawn_blocking(move || read_file(&path))).await???;
                Ok(Document { body, max_age: None })
            }
            Self::Url(url) => timeout(TIMEOUT, fetch(url)).await?,
        }
    }
}

/// A whole file. Its age is not asked for: reading it anew is as cheap, and sees what came with an old date.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, FetchError> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
    }
    let mut body = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut body)?;
    if body.len() > MAX_BYTES { Err(FetchError::TooLong) } else { Ok(body) }
}

async fn fetch(url: &Url) -> Result<Document, FetchError> {
    // A client of its own for each of the few fetches: it takes the certificates that are trusted by now, and leaves no
    // connection behind. Reading those certificates blocks.
    let is_plain = url.scheme() == "http";
    let client = spawn_blocking(move || client(is_plain)).await??;
    let request = client.get(url.clone()).header(header::ACCEPT, "application/json");
    let mut response = request.send().await?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let max_age = max_age(response.headers());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(FetchError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Document { body, max_age })
}

/// It goes where the configuration says: through no proxy of the environment, to no place an answer names, and
/// `localhost` is this machine, whatever a resolver says.
fn client(is_plain: bool) -> Result<Client, reqwest::Error> {
    let loopback = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
    let builder = Client::builder();
    // Without TLS it goes on a machine that trusts no certificate at all.
    let builder = if is_plain { builder.tls_certs_only([]) } else { builder.https_only(true) };
    builder
        .user_agent(concat!("cota/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .resolve_to_addrs("localhost", &loopback)
        .build()
}

/// Seconds of `Cache-Control: max-age` (RFC 9111 §5.2.2.1); none to speak of for what is not to be stored.
fn max_age(headers: &header::HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(',')).map(str::trim);
    directives.find_map(|directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match &*name.trim().to_ascii_lowercase() {
            "max-age" => value.trim().trim_matches('"').parse().ok().map(Duration::from_secs),
            "no-store" | "no-cache" => Some(Duration::ZERO),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use header::{CACHE_CONTROL, HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn how_long_an_answer_is_good_for() {
        for (sent, seconds) in [
            (&[][..], None),
            (&["public"], None),
            (&["max-age=600"], Some(600)),
            (&["public, Max-Age=\"300\", must-revalidate"], Some(300)),
            (&["public", "max-age = 60"], Some(60)),
            (&["no-store"], Some(0)),
            (&["no-cache, max-age=600"], Some(0)),
            (&["max-age=soon"], None),
            (&["max-age=-1"], None),
            (&["s-maxage=600"], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
            }
            assert_eq!(max_age(&headers), seconds.map(Duration::from_secs), "{sent:?}");
        }
    }
}
