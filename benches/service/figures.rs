//! The figures, as they are shown and as `target/bench.json` keeps them.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::{Map, Value, json};

use crate::AnyError;

/// Whether more is better, and what is aimed for (design §11).
#[derive(Clone, Copy)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// A number to know; it depends on the machine.
    None,
}

/// Every figure that is known, with its target.
const FIGURES: [(&str, Target); 20] = [
    ("reserve_vs_noop", Target::AtLeast(0.40)),
    ("reserve_vs_noop_128", Target::AtLeast(0.45)),
    ("settle_vs_noop", Target::None),
    ("reserve_per_s", Target::None),
    ("noop_per_s", Target::None),
    ("batch_vs_single", Target::AtLeast(3.0)),
    ("redis_cpu_vs_set", Target::AtMost(4.0)),
    ("redis_cpu_settle_vs_set", Target::None),
    ("p99_vs_ping", Target::AtMost(5.0)),
    ("p99_1m_vs_1k_accounts", Target::AtMost(1.5)),
    ("flusher_vs_copy", Target::AtLeast(0.3)),
    ("flusher_rows_per_s", Target::None),
    ("lag_at_full_speed_seconds", Target::AtMost(2.0)),
    ("history_page_ms", Target::AtMost(50.0)),
    ("user_metrics_ms", Target::AtMost(50.0)),
    ("month_report_ms", Target::AtMost(50.0)),
    ("consolidated_report_ms", Target::AtMost(500.0)),
    ("bytes_per_reservation", Target::AtMost(350.0)),
    ("bytes_per_account", Target::AtMost(400.0)),
    ("bytes_per_further_line", Target::AtMost(40.0)),
];

/// One value per round and figure.
pub struct Figures {
    file: PathBuf,
    values: BTreeMap<String, Vec<f64>>,
    earlier: Map<String, Value>,
}

impl Figures {
    /// Figures that are not measured this time keep what the file says; those of Redis alone come from `redis_cost`.
    pub fn open() -> Result<Self, AnyError> {
        let read = |name: &str| -> Result<Map<String, Value>, AnyError> {
            let text = fs::read_to_string(target_folder().join(name)).unwrap_or_else(|_| "{}".into());
            Ok(serde_json::from_str(&text)?)
        };
        let mut earlier = read("bench.json")?;
        let known = |name: &String| FIGURES.iter().any(|(figure, _)| figure == name);
        earlier.extend(read("bench-redis.json")?.into_iter().filter(|(name, _)| known(name)));
        Ok(Self { file: target_folder().join("bench.json"), values: BTreeMap::new(), earlier })
    }

    pub fn add(&mut self, name: &str, value: f64) {
        eprintln!("    {name:<28} {value:.3}");
        self.values.entry(name.to_owned()).or_default().push(value);
    }

    /// Writes the file and shows all it holds.
    pub fn close(mut self) -> Result<(), AnyError> {
        for (name, mut values) in self.values {
            values.sort_by(f64::total_cmp);
            let (min, max) = (values[0], values[values.len() - 1]);
            let median = values[values.len() / 2];
            self.earlier.insert(name, json!({ "min": min, "median": median, "max": max }));
        }
        fs::write(&self.file, serde_json::to_string_pretty(&self.earlier)? + "\n")?;
        println!("{:<28} {:>12} {:>12} {:>12}   target", "figure", "min", "median", "max");
        for (name, target) in FIGURES {
            let Some(figure) = self.earlier.get(name) else { continue };
            let of = |part: &str| figure[part].as_f64().unwrap_or(f64::NAN);
            let target = verdict(target, of("median"));
            println!("{name:<28} {:>12.3} {:>12.3} {:>12.3}   {target}", of("min"), of("median"), of("max"));
        }
        println!("written to {}", self.file.display());
        Ok(())
    }
}

fn verdict(target: Target, value: f64) -> String {
    let word = |met: bool| if met { "met" } else { "MISSED" };
    match target {
        Target::AtLeast(least) => format!(">= {least}: {}", word(value >= least)),
        Target::AtMost(most) => format!("<= {most}: {}", word(value <= most)),
        Target::None => String::new(),
    }
}

/// Where results go, and the data of the servers while they run.
pub fn target_folder() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target");
    // Where it cannot be made, the first file in it says so.
    let _ = fs::create_dir_all(&folder);
    folder
}
