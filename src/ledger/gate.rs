//! The gate of one partition in one replica, and its witness ring.
//!
//! A partition's life is (epoch, run id of its Redis master). The gate says which life this replica serves, and
//! whether it does. Before *any* definite answer leaves the replica, [`Gate::admit`] checks under one lock that the
//! life is still the one the call was sent with, notes the high water, and puts acked settles into the ring. Closing
//! takes the same lock: so every settle acked in a life is in the ring when recovery asks for it, and none is acked
//! after.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::ring::Witnessed;
use crate::quota::{Entry, OutboxId, ReservationId, UserId};

/// The life a call is sent under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    pub epoch: u64,
    pub run_id: Arc<str>,
    /// Largest `sq` this replica has seen; Redis must not count fewer.
    pub high_water: u64,
}

/// Why a gate was closed from within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Redis said another epoch, or closed: look at Postgres, then open again.
    Recheck,
    /// Redis has lost state of this life: recovery.
    Lost,
}

#[derive(Default)]
struct State {
    epoch: u64,
    run_id: Arc<str>,
    open: bool,
    high_water: u64,
    doubt: Option<Doubt>,
    ring: HashMap<(UserId, ReservationId), Witnessed>,
}

/// See the module.
pub struct Gate {
    state: Mutex<State>,
    /// Counts the openings, so that waiters wake.
    opened: watch::Sender<u64>,
    capacity: usize,
}

impl Gate {
    /// A closed gate. `capacity` bounds the ring.
    pub fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), opened: watch::Sender::new(0), capacity }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves whole fields behind; every one of them is checked again before use.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life to send under, if the gate is open.
    pub fn pass(&self) -> Option<Pass> {
        let state = self.state();
        state.open.then(|| Pass {
            epoch: state.epoch,
            run_id: Arc::clone(&state.run_id),
            high_water: state.high_water,
        })
    }

    /// Waits for an open gate.
    pub async fn wait_open(&self, deadline: Instant) -> Option<Pass> {
        if let Some(pass) = self.pass() {
            return Some(pass);
        }
        let mut opened = self.opened.subscribe();
        loop {
            if let Some(pass) = self.pass() {
                return Some(pass);
            }
            timeout_at(deadline, opened.changed()).await.ok()?.ok()?;
        }
    }

    /// Makes the answers of one call definite: true if its life is still the one served. Only then is the high water
    /// raised and are the settles remembered; else the caller must run its operations again.
    pub fn admit(&self, pass: &Pass, sequence: u64, acked: Vec<Witnessed>) -> bool {
        let mut state = self.state();
        if !state.open || state.epoch != pass.epoch || state.run_id != pass.run_id {
            return false;
        }
        state.high_water = state.high_water.max(sequence);
        for witnessed in acked {
            let key = (witnessed.operation.user, witnessed.operation.id.clone());
            state.ring.insert(key, witnessed);
        }
        true
    }

    /// Whether the ring can take another batch of settles.
    pub fn has_room(&self) -> bool {
        self.state().ring.len() < self.capacity
    }

    /// Closes the gate if it still serves this life, and says why.
    pub fn doubt(&self, pass: &Pass, doubt: Doubt) {
        let mut state = self.state();
        if state.epoch == pass.epoch && state.run_id == pass.run_id {
            state.open = false;
            if state.doubt != Some(Doubt::Lost) {
                state.doubt = Some(doubt);
            }
        }
    }

    /// The open doubt about the life of this epoch.
    pub fn doubted(&self, epoch: u64) -> Option<Doubt> {
        let state = self.state();
        state.doubt.filter(|_| state.epoch == epoch)
    }

    /// Closes the gate for a recovery and returns the high water and every entry in the ring.
    pub fn close(&self, epoch: u64) -> (u64, Vec<Entry>) {
        let mut state = self.state();
        state.open = false;
        let high_water = state.high_water;
        let entries = state.ring.values().flat_map(|witnessed| witnessed.entries.clone()).collect();
        if state.epoch < epoch {
            state.epoch = epoch;
            state.doubt = None;
            state.run_id = "".into();
        }
        (high_water, entries)
    }

    /// Opens the gate for a life. The high water never falls within an epoch, and starts from Postgres, never from 0.
    pub fn open(&self, epoch: u64, run_id: Arc<str>, high_water: u64) {
        {
            let mut state = self.state();
            let same_life = state.epoch == epoch && state.run_id == run_id;
            if state.epoch > epoch || (state.epoch == epoch && state.doubt == Some(Doubt::Lost)) {
                return;
            }
            state.high_water = if same_life { state.high_water.max(high_water) } else { high_water };
            state.epoch = epoch;
            state.run_id = run_id;
            state.doubt = None;
            state.open = true;
        }
        self.opened.send_modify(|count| *count += 1);
    }

    pub fn is_open(&self) -> bool {
        self.state().open
    }

    /// Epoch and high water as this replica knows them.
    pub fn known(&self) -> (u64, u64) {
        let state = self.state();
        (state.epoch, state.high_water)
    }

    /// Up to `limit` entries of the ring.
    pub fn witnessed(&self, limit: usize) -> Vec<Witnessed> {
        self.state().ring.values().take(limit).cloned().collect()
    }

    /// How many settles wait in the ring.
    pub fn ring_size(&self) -> usize {
        self.state().ring.len()
    }

    /// How many may.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets settles whose every outbox id Postgres has, in the ledger or among the dead letters; says how many.
    pub fn confirm(&self, booked: &HashSet<OutboxId>) -> usize {
        let ring = &mut self.state().ring;
        let before = ring.len();
        ring.retain(|_, witnessed| !witnessed.entries.iter().all(|entry| booked.contains(&entry.outbox_id)));
        before - ring.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> (Gate, Pass) {
        let gate = Gate::new(8);
        gate.open(3, "run".into(), 10);
        let pass = gate.pass().unwrap();
        (gate, pass)
    }

    #[test]
    fn answers_of_another_life_are_not_admitted() {
        let (gate, pass) = opened();
        assert!(gate.admit(&pass, 11, Vec::new()));
        assert!(!gate.admit(&Pass { epoch: 2, ..pass.clone() }, 12, Vec::new()));
        assert!(!gate.admit(&Pass { run_id: "other".into(), ..pass.clone() }, 12, Vec::new()));
        gate.close(4);
        assert!(!gate.admit(&pass, 12, Vec::new()));
        assert_eq!(gate.known(), (4, 11));
    }

    #[test]
    fn the_high_water_never_falls_within_a_life() {
        let (gate, pass) = opened();
        assert!(gate.admit(&pass, 20, Vec::new()));
        assert!(gate.admit(&pass, 15, Vec::new()));
        gate.doubt(&pass, Doubt::Recheck);
        assert!(!gate.is_open());
        gate.open(3, "run".into(), 12);
        assert_eq!(gate.pass().unwrap().high_water, 20);
        gate.close(4);
        gate.open(4, "run".into(), 1_000_012);
        assert_eq!(gate.pass().unwrap().high_water, 1_000_012);
    }

    #[test]
    fn a_lost_life_opens_only_as_another() {
        let (gate, pass) = opened();
        gate.doubt(&pass, Doubt::Lost);
        gate.doubt(&pass, Doubt::Recheck);
        gate.open(3, "run".into(), 10);
        assert!(!gate.is_open());
        assert_eq!(gate.doubted(3), Some(Doubt::Lost));
        gate.open(4, "run".into(), 10);
        assert!(gate.is_open());
    }
}
