//! A mail server that keeps what it is given.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use super::world::until;

/// An e-mail that was taken.
#[derive(Clone, Debug)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    pub text: String,
    /// Whether it came over TLS.
    pub encrypted: bool,
    /// What was sent to log in, in base64.
    pub login: Option<String>,
}

impl Mail {
    /// The value of a header.
    pub fn header(&self, name: &str) -> &str {
        let head = self.text.split("\r\n\r\n").next().unwrap();
        let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name}: {head}"))
    }
}

/// How the next e-mail is answered once it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Take,
    /// With this line.
    Refuse(&'static str),
    /// The connection ends without a word, although the e-mail was taken.
    TakeAndDie,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    None,
    Starttls,
    Tls,
}

struct Shared {
    mails: Mutex<Vec<Mail>>,
    next: Mutex<VecDeque<Answer>>,
    security: Security,
    tls: Option<TlsAcceptor>,
}

/// It runs until it is dropped.
pub struct MailServer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    running: JoinHandle<()>,
}

impl MailServer {
    pub async fn start() -> Self {
        Self::with(Security::None, None).await
    }

    pub async fn with(security: Security, tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let shared = Arc::new(Shared { mails: Mutex::default(), next: Mutex::default(), security, tls });
        let serving = Arc::clone(&shared);
        let running = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&serving);
                tokio::spawn(async move {
                    // A client that goes away is none of ours.
                    let _ = match (shared.security, &shared.tls) {
                        (Security::Tls, Some(tls)) => match tls.accept(stream).await {
                            Ok(stream) => {
                                session(BufReader::new(stream), &shared, true, true).await.map(drop)
                            }
                            Err(error) => Err(error),
                        },
                        (_, tls) => match session(BufReader::new(stream), &shared, true, false).await {
                            Ok(Some(stream)) => {
                                let stream = tls.as_ref().unwrap().accept(stream.into_inner()).await;
                                match stream {
                                    Ok(stream) => {
                                        session(BufReader::new(stream), &shared, false, true).await.map(drop)
                                    }
                                    Err(error) => Err(error),
                                }
                            }
                            Ok(None) => Ok(()),
                            Err(error) => Err(error),
                        },
                    };
                });
            }
        });
        Self { address, shared, running }
    }

    /// Answers the next e-mails so, and takes those after them.
    pub fn next(&self, answers: &[Answer]) {
        self.shared.next.lock().unwrap().extend(answers);
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.shared.mails.lock().unwrap().clone()
    }

    /// Waits until so many were taken.
    pub async fn has(&self, count: usize) -> Vec<Mail> {
        until("e-mails have come", async || self.mails().len() >= count).await;
        self.mails()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Serves one connection to its end; gives it back when it is to become an encrypted one.
async fn session<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: BufReader<S>,
    shared: &Shared,
    greet: bool,
    encrypted: bool,
) -> std::io::Result<Option<BufReader<S>>> {
    if greet {
        stream.write_all(b"220 mail.test ESMTP\r\n").await?;
    }
    let (mut from, mut to, mut login) = (String::new(), Vec::new(), None);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        let verb = line.split(' ').next().unwrap().to_ascii_uppercase();
        let answer = match &*verb {
            "EHLO" if shared.security == Security::Starttls && !encrypted => {
                "250-mail.test\r\n250-8BITMIME\r\n250 STARTTLS"
            }
            "EHLO" => "250-mail.test\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 AUTH PLAIN LOGIN",
            "STARTTLS" => {
                stream.write_all(b"220 go on\r\n").await?;
                return Ok(Some(stream));
            }
            "AUTH" => {
                login = Some(line.split(' ').next_back().unwrap().to_owned());
                "235 welcome"
            }
            "MAIL" => {
                (from, to) = (line.to_owned(), Vec::new());
                "250 OK"
            }
            "RCPT" => {
                to.push(line.to_owned());
                "250 OK"
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                let text = data(&mut stream).await?;
                let answer = shared.next.lock().unwrap().pop_front().unwrap_or(Answer::Take);
                if answer != Answer::Take && answer != Answer::TakeAndDie {
                    let Answer::Refuse(line) = answer else { unreachable!() };
                    line
                } else {
                    let mail =
                        Mail { from: from.clone(), to: to.clone(), text, encrypted, login: login.clone() };
                    shared.mails.lock().unwrap().push(mail);
                    if answer == Answer::TakeAndDie {
                        return Ok(None);
                    }
                    "250 taken"
                }
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n").await?;
                return Ok(None);
            }
            _ => "250 OK",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
}

/// The text up to the line with a single full stop.
async fn data<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>) -> std::io::Result<String> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 || line == ".\r\n" {
            return Ok(text);
        }
        // RFC 5321, 4.5.2.
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}
