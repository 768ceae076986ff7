//! What may be empty when all is well, and why. A line that is needed no more makes the test fail.

use std::{collections::BTreeSet, sync::Mutex};

/// Dashboard, title of the panel, and the reason; `rules` and `alerts` name a rule or a metric.
const QUIET: &[(&str, &str, &str)] = &[
    ("ledger", "How much memory is left?", "the test's Redis has no limit"),
    ("ledger", "How long do recoveries take?", "the one there was ended before Prometheus looked"),
    ("rules", "cota:redis_memory:ratio", "the test's Redis has no limit"),
    ("alerts", "cota:redis_memory:ratio", "the test's Redis has no limit"),
    ("flusher", "Which dead letters wait?", "nothing was refused"),
    ("flusher", "Which accounts does Redis not know the newest state of?", "all is pushed"),
];

static USED: Mutex<BTreeSet<(&'static str, &'static str)>> = Mutex::new(BTreeSet::new());

pub fn may_be_empty(dashboard: &str, title: &str) -> bool {
    let line = QUIET.iter().find(|line| (line.0, line.1) == (dashboard, title));
    if let Some((dashboard, title, _)) = line {
        USED.lock().unwrap().insert((dashboard, title));
    }
    line.is_some()
}

/// Fails when a line is about something that has an answer, or is no more.
pub fn all_are_used() {
    let used = USED.lock().unwrap();
    for (dashboard, title, reason) in QUIET {
        assert!(used.contains(&(*dashboard, *title)), "{dashboard}: {title}: not empty ({reason})");
    }
}
