//! What can be read off the ledger at any moment, for the metrics.

use std::time::{Duration, Instant};

use super::{
    Ledger,
    lane::{Lane, LaneLoad},
};
use crate::metrics;

impl Ledger {
    /// How full each lane is.
    pub fn lane_loads(&self) -> impl Iterator<Item = LaneLoad> {
        self.calls.lanes().iter().map(Lane::load)
    }

    /// Sets the gauges: how full lanes and rings are, which partitions are served in which epoch, and how far the sweeps
    /// are behind.
    pub fn publish_gauges(&self) {
        for (index, load) in self.lane_loads().enumerate() {
            metrics::lane(index, load.urgent, load.reserves, load.in_flight);
        }
        let (mut all, mut open, mut witnessed, mut fullest) = (0, 0, 0, 0.0_f64);
        let (mut sweep_age, mut overdue) = (Duration::ZERO, Duration::ZERO);
        let now = Instant::now();
        for shard in self.calls.shards().iter() {
            let ring = shard.gate.ring_size();
            all += 1;
            witnessed += ring;
            fullest = fullest.max(ring as f64 / shard.gate.capacity().max(1) as f64);
            metrics::epoch(shard.id.0, shard.gate.known().0);
            // Nobody sweeps what this replica does not serve.
            if shard.gate.is_open() {
                open += 1;
                let swept = shard.swept();
                sweep_age = sweep_age.max(now.saturating_duration_since(swept.at));
                overdue = overdue.max(swept.overdue);
            }
        }
        metrics::partitions(all, open);
        metrics::witnessed(witnessed, fullest);
        metrics::sweeper(sweep_age, overdue);
    }
}
