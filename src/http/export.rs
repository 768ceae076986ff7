//! Answers of any length as CSV: rows are read in chunks as the caller takes them, so that memory stays bounded.
//!
//! Only the first chunk is answered with a problem when it cannot be read. After that the connection ends early, by which
//! the caller sees that the answer is not whole.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream;

use super::{csv::Csv, format, problem::Problem};

/// Rows that can be read chunk by chunk. What it holds, such as the caller's place among the calls that run, it holds as
/// long as the answer is read.
pub trait Rows: Send + Sync + 'static {
    type Row: Send + Sync;

    const COLUMNS: &'static [&'static str];
    /// Rows of a chunk; a chunk of fewer is the last.
    const CHUNK: usize;

    /// The chunk after this row, or the first.
    fn read(&self, after: Option<&Self::Row>)
    -> impl Future<Output = Result<Vec<Self::Row>, Problem>> + Send;

    fn write(csv: &mut Csv, row: &Self::Row);
}

struct Rest<R: Rows> {
    source: R,
    /// Read, and not yet sent.
    rows: Vec<R::Row>,
    is_first: bool,
}

impl<R: Rows> Rest<R> {
    /// What is to be sent now, and what is left after it.
    async fn step(self) -> Result<(Bytes, Option<Self>), std::io::Error> {
        let mut csv = if self.is_first { Csv::with_header(R::COLUMNS) } else { Csv::default() };
        self.rows.iter().for_each(|row| R::write(&mut csv, row));
        let bytes = Bytes::from(csv.into_bytes());
        let Some(last) = self.rows.last().filter(|_| self.rows.len() >= R::CHUNK) else {
            return Ok((bytes, None));
        };
        match self.source.read(Some(last)).await {
            Ok(rows) => Ok((bytes, Some(Self { rows, is_first: false, ..self }))),
            Err(problem) => {
                tracing::warn!(code = problem.code().as_str(), "an export ends before its end");
                Err(std::io::Error::other("the store does not answer"))
            }
        }
    }
}

/// All rows, as a file of this name.
///
/// # Errors
/// When the first chunk cannot be read.
pub async fn csv<R: Rows>(name: &str, source: R) -> Result<Response, Problem> {
    let rows = source.read(None).await?;
    let rest = Some(Rest { source, rows, is_first: true });
    let chunks = stream::try_unfold(rest, async |rest| match rest {
        Some(rest) => rest.step().await.map(Some),
        None => Ok(None),
    });
    Ok(format::csv(name, Body::from_stream(chunks)))
}
