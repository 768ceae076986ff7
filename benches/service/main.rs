//! What `script/bench` measures: the real service, its real stores and the load generator on one machine, as ratios.
//!
//! Machines are noisy, so nothing is compared across runs: whatever is divided by each other is measured in turns,
//! round by round, and every figure is the median of its rounds. `docs/BENCHMARKS.md` explains each of them.
//!
//! Arguments: the names of groups to measure (`reserve`, `batch`, `latency`, `flusher`, `usage`); none means all.

mod accounts;
mod figures;
mod flusher;
mod latency;
mod noop;
mod stack;
mod throughput;
mod usage;
mod wrk;

use figures::Figures;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), AnyError> {
    // cargo adds `--bench` to what it was given.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if arguments.iter().any(|argument| argument == "noop") {
        return runtime.block_on(noop::serve());
    }
    let wanted = |group: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == group);
    runtime.block_on(async {
        let mut figures = Figures::open()?;
        if wanted("reserve") || wanted("batch") {
            throughput::measure(&mut figures, wanted("batch")).await?;
        }
        if wanted("latency") {
            latency::measure(&mut figures).await?;
        }
        if wanted("flusher") {
            flusher::measure(&mut figures).await?;
        }
        if wanted("usage") {
            usage::measure(&mut figures).await?;
        }
        figures.close()
    })
}
