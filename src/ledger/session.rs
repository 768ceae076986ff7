//! A connection to Redis that knows which server it speaks to.
//!
//! Connections come from one deadpool-redis pool and are kept by their owner until something goes wrong; then they
//! are taken out of the pool for good, never recycled: a recycled connection may still carry an old reply, or lead
//! to a master that has been demoted. A fresh one has its scripts loaded and its server checked.

use std::{path::PathBuf, sync::Arc, time::Duration};

use deadpool_redis::{Connection, Manager, Pool, PoolConfig, Runtime, Timeouts};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, Pipeline, RedisError, RedisResult, ServerErrorKind, TlsCertificates, Value,
    aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use tokio::{sync::Mutex, time::Instant};

use super::{
    scripts::{self, Script},
    server::{ServerInfo, check_info},
};
use crate::{
    config::{RedisConfig, millis},
    crypto, metrics, traces,
};

/// How a call to Redis failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It has not run and will not run: refused by the server, or never sent.
    #[error("not run: {0}")]
    NotRun(String),
    /// It may have run.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

/// Makes sessions.
#[derive(Clone)]
pub struct Sessions {
    pool: Pool,
    response_timeout: Duration,
}

impl Sessions {
    /// # Errors
    /// When the URL is none, or a certificate cannot be used.
    pub fn new(config: &RedisConfig, size: usize) -> Result<Self, CallError> {
        let not_run = |e: &dyn std::fmt::Display| CallError::NotRun(e.to_string());
        let connect = millis(config.connect_timeout_ms);
        let manager = Manager::new_with_config(
            address(config)?,
            // Callers set their own bound on every call.
            AsyncConnectionConfig::new().set_connection_timeout(Some(connect)).set_response_timeout(None),
        )
        .map_err(|e| not_run(&e))?;
        let pool = Pool::builder(manager)
            .config(PoolConfig { max_size: size, ..PoolConfig::default() })
            .timeouts(Timeouts { wait: Some(connect), create: Some(connect), recycle: Some(connect) })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| not_run(&e))?;
        Ok(Self { pool, response_timeout: millis(config.response_timeout_ms) })
    }

    /// A checked connection with all scripts loaded.
    ///
    /// # Errors
    /// [`CallError::NotRun`] when the server cannot be reached, is no master, is loading, or may evict keys.
    pub async fn open(&self) -> Result<Session, CallError> {
        let pooled = self.pool.get().await.map_err(|e| CallError::NotRun(e.to_string()))?;
        let link = Link { connection: (*pooled).clone(), run_id: "".into(), timeout: self.response_timeout };
        let mut session = Session { pooled, link };
        match session.prepare().await {
            Ok(()) => {
                metrics::redis_session("opened");
                Ok(session)
            }
            Err(e) => {
                metrics::redis_session("refused");
                session.discard();
                Err(CallError::NotRun(e.to_string()))
            }
        }
    }
}

/// Where Redis is, and how to speak to it.
fn address(config: &RedisConfig) -> Result<ConnectionInfo, CallError> {
    let not_run = |e: RedisError| CallError::NotRun(e.to_string());
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_user_timeout(millis(config.response_timeout_ms.saturating_mul(2)));
    let info = config.url.expose().into_connection_info().map_err(not_run)?.set_tcp_settings(tcp);
    if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        return match &config.ca_file {
            None => Ok(info),
            Some(_) => Err(CallError::NotRun("redis.ca_file is set, but redis.url is no rediss://".into())),
        };
    }
    crypto::install();
    let read = |file: &PathBuf| {
        std::fs::read(file).map_err(|e| CallError::NotRun(format!("cannot read {}: {e}", file.display())))
    };
    let client_tls = match (&config.client_cert_file, &config.client_key_file) {
        (Some(cert), Some(key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
        _ => None,
    };
    let root_cert = config.ca_file.as_ref().map(read).transpose()?;
    let client = Client::build_with_tls(info, TlsCertificates { client_tls, root_cert }).map_err(not_run)?;
    Ok(client.get_connection_info().clone())
}

/// One pooled connection, of one owner.
pub struct Session {
    pooled: Connection,
    link: Link,
}

impl Session {
    async fn prepare(&mut self) -> Result<(), CallError> {
        self.link.load_scripts().await?;
        self.link.run_id = self.link.server_info().await?.run_id;
        Ok(())
    }

    pub fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    /// Takes the connection out of the pool for good.
    pub fn discard(self) {
        drop(Connection::take(self.pooled));
    }
}

/// The way to one server. Clones share the connection; each of their calls is answered on its own.
#[derive(Clone)]
pub struct Link {
    connection: MultiplexedConnection,
    run_id: Arc<str>,
    timeout: Duration,
}

impl Link {
    /// The server behind this connection.
    pub fn run_id(&self) -> &Arc<str> {
        &self.run_id
    }

    /// Loads every script; also after NOSCRIPT, which a promoted replica and a flushed cache answer.
    pub async fn load_scripts(&mut self) -> Result<(), CallError> {
        let mut pipe = Pipeline::new();
        for script in scripts::all() {
            pipe.cmd("SCRIPT").arg("LOAD").arg(script.source);
        }
        for reply in self.send("load_scripts", pipe).await? {
            reply.map_err(|e| classify(&e))?;
        }
        Ok(())
    }

    /// Asks the server who it is.
    ///
    /// # Errors
    /// [`CallError::NotRun`] when it is no master, is loading, or may evict keys.
    pub async fn server_info(&mut self) -> Result<ServerInfo, CallError> {
        let mut pipe = Pipeline::new();
        pipe.cmd("INFO");
        let reply =
            self.send("info", pipe).await?.pop().unwrap_or(Ok(Value::Nil)).map_err(|e| classify(&e))?;
        let text: String = redis::from_redis_value(reply).map_err(|e| CallError::NotRun(e.to_string()))?;
        check_info(&text)
    }

    /// Sends all commands and waits for all replies, in order; measured among the calls of this name.
    ///
    /// # Errors
    /// [`CallError::Unknown`] when the connection broke or no reply came in time; drop the session then.
    pub async fn send(
        &mut self,
        call: &'static str,
        mut pipe: Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, CallError> {
        let started = Instant::now();
        let sent = tokio::time::timeout(self.timeout, pipe.ignore_errors().query_async(&mut self.connection));
        let replies: Result<Vec<RedisResult<Value>>, _> = match sent.await {
            Ok(replies) => replies.map_err(|e| classify(&e)),
            Err(_) => Err(CallError::Unknown("no reply in time".into())),
        };
        let succeeded = replies.as_ref().is_ok_and(|replies| replies.iter().all(Result::is_ok));
        metrics::redis_call(call, succeeded, started.elapsed());
        replies
    }
}

/// Which errors prove that a call has not run.
pub fn classify(error: &RedisError) -> CallError {
    match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension => CallError::NotRun(error.to_string()),
        _ => CallError::Unknown(error.to_string()),
    }
}

pub fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Errors after which the connection leads to the wrong server, or to one that cannot serve yet.
pub fn leads_nowhere(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown
        )
    )
}

/// One session that many tasks share, for everything that is not on the hot path.
pub struct SharedSession {
    sessions: Sessions,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    session: Option<Session>,
    /// Counts the sessions, so that a failure is laid to the one it happened on.
    number: u64,
}

/// A reply, and the server that gave it.
pub struct Reply {
    pub run_id: Arc<str>,
    pub value: Value,
}

impl SharedSession {
    pub fn new(sessions: Sessions) -> Self {
        Self { sessions, current: Mutex::default() }
    }

    /// Runs one script; opens a new session when there is none, and drops one that failed.
    pub async fn call(
        &self,
        script: &Script,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
    ) -> Result<Reply, CallError> {
        self.call_on(None, script, keys, args).await
    }

    /// As [`Self::call`], but only on the server with this run id.
    pub async fn call_on(
        &self,
        run_id: Option<&str>,
        script: &Script,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
    ) -> Result<Reply, CallError> {
        let mut pipe = Pipeline::new();
        evalsha(&mut pipe, script, keys, args);
        traces::calling(script.name, 1, self.send(script.name, run_id, &pipe)).await
    }

    /// Runs one script many times in one pipeline, on the server with this run id; the replies in order.
    ///
    /// # Errors
    /// When any of the calls failed; then some may have run.
    pub async fn call_each_on<const N: usize>(
        &self,
        run_id: &str,
        script: &Script,
        calls: impl Iterator<Item = ([Vec<u8>; N], Vec<Vec<u8>>)>,
    ) -> Result<Vec<Value>, CallError> {
        let mut pipe = Pipeline::new();
        for (keys, args) in calls {
            evalsha(&mut pipe, script, &keys, &args);
        }
        let calls = self.send_all(script.name, Some(run_id), &pipe);
        traces::calling(script.name, pipe.len(), calls).await.map(|(_, values)| values)
    }

    /// One plain command.
    pub async fn command(&self, name: &str, args: &[&[u8]]) -> Result<Reply, CallError> {
        let mut pipe = Pipeline::new();
        let command = pipe.cmd(name);
        args.iter().for_each(|arg| {
            command.arg(*arg);
        });
        self.send("command", None, &pipe).await
    }

    /// Asks the server who it is, over the live connection.
    pub async fn server_info(&self) -> Result<ServerInfo, CallError> {
        let (mut link, number) = self.link().await?;
        let info = link.server_info().await;
        if info.is_err() {
            self.drop_session(number).await;
        }
        info
    }

    /// Forgets the connection, so that the next call resolves the address anew.
    pub async fn reconnect(&self) {
        let number = self.current.lock().await.number;
        self.drop_session(number).await;
    }

    async fn link(&self) -> Result<(Link, u64), CallError> {
        let mut current = self.current.lock().await;
        if current.session.is_none() {
            current.session = Some(self.sessions.open().await?);
            current.number += 1;
        }
        let number = current.number;
        match current.session.as_mut() {
            Some(session) => Ok((session.link().clone(), number)),
            None => Err(CallError::NotRun("not connected".into())),
        }
    }

    async fn drop_session(&self, number: u64) {
        let mut current = self.current.lock().await;
        if current.number == number
            && let Some(session) = current.session.take()
        {
            session.discard();
        }
    }

    async fn send(
        &self,
        call: &'static str,
        run_id: Option<&str>,
        pipe: &Pipeline,
    ) -> Result<Reply, CallError> {
        let (run_id, mut values) = self.send_all(call, run_id, pipe).await?;
        Ok(Reply { run_id, value: values.pop().unwrap_or(Value::Nil) })
    }

    /// The server that answered, and its replies in order. A call that was refused refuses them all.
    async fn send_all(
        &self,
        call: &'static str,
        run_id: Option<&str>,
        pipe: &Pipeline,
    ) -> Result<(Arc<str>, Vec<Value>), CallError> {
        let (mut link, number) = self.link().await?;
        if run_id.is_some_and(|wanted| wanted != &**link.run_id()) {
            return Err(CallError::NotRun("connected to another Redis server".into()));
        }
        for _ in 0..3 {
            let replies = link.send(call, pipe.clone()).await;
            match replies.map(|replies| replies.into_iter().collect::<RedisResult<_>>()) {
                Ok(Ok(values)) => return Ok((Arc::clone(link.run_id()), values)),
                Ok(Err(e)) if is_no_script(&e) => link.load_scripts().await?,
                Ok(Err(e)) => {
                    if leads_nowhere(&e) {
                        self.drop_session(number).await;
                    }
                    return Err(classify(&e));
                }
                Err(e) => {
                    self.drop_session(number).await;
                    return Err(e);
                }
            }
        }
        Err(CallError::NotRun("the scripts do not stay loaded".into()))
    }
}

/// Appends an EVALSHA to a pipeline.
fn evalsha(pipe: &mut Pipeline, script: &Script, keys: &[Vec<u8>], args: &[Vec<u8>]) {
    let command = pipe.cmd("EVALSHA");
    command.arg(script.sha()).arg(keys.len());
    keys.iter().chain(args).for_each(|arg| {
        command.arg(arg.as_slice());
    });
}
