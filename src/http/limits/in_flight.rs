//! Calls at once: what waits holds memory, and past some number only makes every answer late.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Counts the calls that run. Reserves and all else may take three quarters; settles, debits and releases the whole,
/// so that they find room when reserves no longer do.
#[derive(Debug)]
pub struct InFlight {
    running: AtomicUsize,
    most: usize,
}

/// One call that runs, until it is dropped.
#[derive(Debug)]
pub struct Flight(Arc<InFlight>);

impl InFlight {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { running: AtomicUsize::new(0), most })
    }

    /// Room for a call, if there is some. `reports` is whether it is a settle, debit or release.
    pub fn enter(self: &Arc<Self>, reports: bool) -> Option<Flight> {
        let most = if reports { self.most } else { self.most - self.most / 4 };
        // It only counts: no other memory is ordered by it.
        if self.running.fetch_add(1, Ordering::Relaxed) < most {
            return Some(Flight(Arc::clone(self)));
        }
        self.running.fetch_sub(1, Ordering::Relaxed);
        None
    }

    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserves_leave_a_quarter_to_reports() {
        let calls = InFlight::new(8);
        let reserves: Vec<Flight> = (0..8).filter_map(|_| calls.enter(false)).collect();
        assert_eq!(reserves.len(), 6);
        let reports: Vec<Flight> = (0..8).filter_map(|_| calls.enter(true)).collect();
        assert_eq!(reports.len(), 2);
        drop(reserves);
        assert_eq!(calls.running(), 2);
        assert_eq!((0..10).filter_map(|_| calls.enter(true)).map(std::mem::forget).count(), 6);
        assert!(calls.enter(false).is_none(), "reports may take it all");
    }
}
