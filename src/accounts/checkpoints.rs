//! Checkpoints of the audit log: signed statements of where its chains ended at a time, in files outside of Postgres.
//!
//! Who can write to Postgres can make a chain anew from any row on, or cut its end off, and it will look whole. A
//! checkpoint names the hash that a row had; only the keyring can sign one. Each is a line of JSON in
//! `<checkpoint_dir>/<day>-<process>.jsonl`, so that several replicas may share a folder.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::{
    crypto::{Keyring, KeyringError},
    metrics,
    store::{ChainHead, Store, StoreError},
};

/// Longest line that is read; a chain's part has some 100 bytes, and there are at most 1,025 chains.
const MAX_LINE: u64 = 256 * 1_024;

/// Why a checkpoint was not written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}

/// A line of a checkpoint file.
#[derive(Debug, Deserialize, Serialize)]
struct Line {
    version: u8,
    at: Timestamp,
    heads: Vec<Head>,
    /// Which key signed.
    key_id: String,
    /// Base64, Ed25519: for who has no keyring.
    public_key: String,
    /// Base64, over [`message`].
    signature: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct Head {
    chain: i16,
    number: u64,
    /// Hexadecimal.
    hash: String,
}

/// What is signed: a line for the version and time, and one per chain.
fn message(at: Timestamp, heads: &[Head]) -> String {
    let mut text = format!("cota audit checkpoint v1 {at}\n");
    for Head { chain, number, hash } in heads {
        text.push_str(&format!("{chain} {number} {hash}\n"));
    }
    text
}

/// Writes checkpoints on a schedule.
pub struct Checkpoints {
    store: Store,
    keyring: Keyring,
    folder: PathBuf,
    /// Of this process alone.
    name: String,
    last: Vec<ChainHead>,
}

impl Checkpoints {
    pub fn new(store: Store, keyring: Keyring, folder: &Path, name: String) -> Self {
        Self { store, keyring, folder: folder.to_owned(), name, last: Vec::new() }
    }

    /// Writes one every `period`, and a last one at the end.
    pub async fn run(mut self, period: Duration, stop: CancellationToken) {
        let mut ticks = interval(period);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.try_write().await;
        }
        self.try_write().await;
    }

    async fn try_write(&mut self) {
        let written = self.write(Timestamp::now()).await;
        metrics::checkpoint(written.is_ok());
        if let Err(error) = written {
            tracing::error!(%error, "no checkpoint of the audit log was written");
        }
    }

    /// Writes one, unless no chain has grown since the last; says whether.
    ///
    /// # Errors
    /// When Postgres does not answer, or the file cannot be written.
    pub async fn write(&mut self, at: Timestamp) -> Result<bool, CheckpointError> {
        let heads = self.store.audit_heads().await?;
        if heads == self.last {
            return Ok(false);
        }
        let line = signed_line(&self.keyring, at, &heads)?;
        let path = self.folder.join(format!("{}-{}.jsonl", at.strftime("%Y-%m-%d"), self.name));
        append(&path, &line).map_err(|error| CheckpointError::File(path, error))?;
        self.last = heads;
        Ok(true)
    }
}

fn signed_line(keyring: &Keyring, at: Timestamp, heads: &[ChainHead]) -> Result<Vec<u8>, CheckpointError> {
    let head = |head: &ChainHead| {
        let hash = head.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Head { chain: head.chain, number: head.number, hash }
    };
    let heads: Vec<Head> = heads.iter().map(head).collect();
    let signed = keyring.sign(message(at, &heads).as_bytes())?;
    let line = Line {
        version: 1,
        at,
        heads,
        key_id: signed.key_id,
        public_key: BASE64.encode(signed.public_key),
        signature: BASE64.encode(signed.signature),
    };
    // Numbers and texts alone: this is always JSON.
    let mut line = serde_json::to_vec(&line).unwrap_or_default();
    line.push(b'\n');
    Ok(line)
}

/// One write, on disk before it counts.
fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::options().create(true).append(true).open(path)?;
    file.write_all(line)?;
    file.sync_data()
}

/// What the files of a folder say.
#[derive(Debug, Default)]
pub struct Trusted {
    /// Of each chain where it ended at some time; all of them signed by a key of the ring.
    pub heads: Vec<ChainHead>,
    /// Checkpoints that were read.
    pub checkpoints: u64,
    /// Where a line stands that is none, or whose signature is wrong.
    pub broken: Vec<String>,
    /// Checkpoints signed by keys that are no more in the ring: they prove nothing.
    pub unknown_keys: u64,
}

/// Reads all checkpoints in a folder, or one file. Of each chain the newest is kept.
///
/// # Errors
/// When a file cannot be read.
pub fn read(path: &Path, keyring: &Keyring) -> Result<Trusted, CheckpointError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| CheckpointError::File(path, error)
    };
    let mut files = Vec::new();
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(failed(path))? {
            let file = entry.map_err(failed(path))?.path();
            if file.extension().is_some_and(|extension| extension == "jsonl") {
                files.push(file);
            }
        }
        files.sort();
    } else {
        files.push(path.to_owned());
    }
    let mut trusted = Trusted::default();
    for file in &files {
        read_file(file, keyring, &mut trusted).map_err(failed(file))?;
    }
    Ok(trusted)
}

fn read_file(path: &Path, keyring: &Keyring, trusted: &mut Trusted) -> io::Result<()> {
    use io::{BufRead, BufReader, Read};
    let mut reader = BufReader::new(File::open(path)?);
    for number in 1_u64.. {
        let mut line = Vec::new();
        let length = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        // The process died in the middle of its last line.
        if line.last() != Some(&b'\n') && (length as u64) < MAX_LINE {
            break;
        }
        match judged(&line, keyring) {
            Judged::Signed(heads) => {
                trusted.checkpoints += 1;
                keep_newest(&mut trusted.heads, heads);
            }
            Judged::UnknownKey => trusted.unknown_keys += 1,
            Judged::Broken => trusted.broken.push(format!("{}:{number}", path.display())),
        }
    }
    Ok(())
}

enum Judged {
    Signed(Vec<ChainHead>),
    UnknownKey,
    Broken,
}

fn judged(line: &[u8], keyring: &Keyring) -> Judged {
    let Ok(line) = serde_json::from_slice::<Line>(line) else { return Judged::Broken };
    let Ok(signature) = BASE64.decode(&line.signature) else { return Judged::Broken };
    match keyring.verify(&line.key_id, message(line.at, &line.heads).as_bytes(), &signature) {
        None => return Judged::UnknownKey,
        Some(false) => return Judged::Broken,
        Some(true) => {}
    }
    let head =
        |head: Head| Some(ChainHead { chain: head.chain, number: head.number, hash: unhex(&head.hash)? });
    line.heads.into_iter().map(head).collect::<Option<_>>().map_or(Judged::Broken, Judged::Signed)
}

fn keep_newest(kept: &mut Vec<ChainHead>, heads: Vec<ChainHead>) {
    for head in heads {
        match kept.iter_mut().find(|known| known.chain == head.chain) {
            Some(known) if known.number >= head.number => {}
            Some(known) => *known = head,
            None => kept.push(head),
        }
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| Some(c.to_digit(16)? as u8)).collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(chain: i16, number: u64, byte: u8) -> ChainHead {
        ChainHead { chain, number, hash: vec![byte; 32] }
    }

    fn keyring(id: &str) -> Keyring {
        Keyring::of(&Keyring::generate(id).unwrap()).unwrap()
    }

    #[test]
    fn what_is_signed_is_read_back_and_the_newest_kept() {
        let folder = std::env::temp_dir().join(format!("cota-checkpoints-{}", uuid::Uuid::new_v4()));
        let (keys, other) = (keyring("a"), keyring("b"));
        let at = "2026-01-31T12:00:00Z".parse().unwrap();
        let file = folder.join("2026-01-31-one.jsonl");
        for heads in [[head(-1, 3, 1), head(0, 9, 2)], [head(-1, 4, 3), head(0, 9, 2)]] {
            append(&file, &signed_line(&keys, at, &heads).unwrap()).unwrap();
        }
        append(&folder.join("2026-01-31-two.jsonl"), &signed_line(&other, at, &[head(7, 1, 1)]).unwrap())
            .unwrap();
        append(&folder.join("notes.txt"), b"not a checkpoint\n").unwrap();
        let trusted = read(&folder, &keys).unwrap();
        assert_eq!(trusted.heads, [head(-1, 4, 3), head(0, 9, 2)]);
        assert_eq!((trusted.checkpoints, trusted.unknown_keys, &trusted.broken[..]), (2, 1, &[][..]));

        // A changed line is broken; one that was cut by a crash is no line.
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replacen("\"number\":4", "\"number\":3", 1) + "{\"version\":1,\"at").unwrap();
        let trusted = read(&file, &keys).unwrap();
        assert_eq!((trusted.checkpoints, trusted.broken.len()), (1, 1));
        assert_eq!(trusted.heads, [head(-1, 3, 1), head(0, 9, 2)]);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn only_hexadecimal_digits_in_pairs_are_bytes() {
        assert_eq!(unhex("00ff10"), Some(vec![0, 255, 16]));
        for text in ["0", "0g", "+1", "é1"] {
            assert_eq!(unhex(text), None, "{text}");
        }
    }
}
