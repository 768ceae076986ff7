//! What this process takes of the machine, under the names that Prometheus' own libraries use. Read from `/proc`; on
//! systems without it nothing is told.

use std::fs;

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

use super::{CPU_SECONDS, MAX_FILES, OPEN_FILES, RESIDENT_MEMORY, START_TIME, THREADS};

/// Reads and sets them all.
pub(super) fn read() {
    if let Some(figures) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Figures::of) {
        metrics::gauge!(CPU_SECONDS).set(figures.cpu_seconds);
        metrics::gauge!(THREADS).set(figures.threads);
        metrics::gauge!(RESIDENT_MEMORY).set(figures.resident_bytes);
        if let Some(booted_at) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time) {
            metrics::gauge!(START_TIME).set(booted_at + figures.started_after_boot);
        }
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // One of them is this very reading.
        metrics::gauge!(OPEN_FILES).set(files.count().saturating_sub(1) as f64);
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        metrics::gauge!(MAX_FILES).set(most as f64);
    }
}

#[derive(Debug, PartialEq)]
struct Figures {
    cpu_seconds: f64,
    threads: f64,
    /// Seconds.
    started_after_boot: f64,
    resident_bytes: f64,
}

impl Figures {
    /// From `/proc/self/stat` (proc_pid_stat(5)).
    fn of(stat: &str) -> Option<Self> {
        // The second field is the program's name, in parentheses, and may hold anything.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Counted from 1 in the manual; the first here is the third there.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let ticks = clock_ticks_per_second() as f64;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            threads: field(20)?,
            started_after_boot: field(22)? / ticks,
            resident_bytes: field(24)? * page_size() as f64,
        })
    }
}

/// From `/proc/stat`: Unix time, in seconds.
fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_name_with_anything_in_it_does_not_shift_the_fields() {
        let stat = "7 (a) 9 (b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 12 0 4000 1000000 300 18446744073709551615";
        let figures = Figures::of(stat).unwrap();
        let ticks = clock_ticks_per_second() as f64;
        assert_eq!(
            figures,
            Figures {
                cpu_seconds: 300.0 / ticks,
                threads: 12.0,
                started_after_boot: 4_000.0 / ticks,
                resident_bytes: 300.0 * page_size() as f64,
            }
        );
        assert_eq!(Figures::of("7 (cut"), None);
        assert_eq!(boot_time("cpu 1 2\nbtime 1800000000\n"), Some(1_800_000_000.0));
    }

    #[test]
    fn this_process_started_lately_and_takes_some_memory() {
        let figures = Figures::of(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        let booted_at = boot_time(&fs::read_to_string("/proc/stat").unwrap()).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - booted_at - figures.started_after_boot;
        assert!((-2.0..600.0).contains(&age), "{age}");
        assert!(figures.resident_bytes > 1e6 && figures.threads >= 1.0, "{figures:?}");
    }
}
