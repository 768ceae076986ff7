//! The chains of a batch call set out together: their first segments travel in as few `apply` calls as they fit in, and
//! each with one place in a lane's queue. Nearly always that is all there is to do; what needs more (a cold account, a
//! stale policy, a lost reply) is seen to by its own chain, beside the others.

use tokio::time::Instant;

use super::{
    Ledger,
    chain::Chain,
    job::Operations,
    lane::{Lane, Queued},
    shard::Shard,
};
use crate::quota::{Ask, UserId};

impl Ledger {
    /// Begins the chains of distinct accounts; each goes on with [`Chain::run`]. All operations have the one deadline.
    pub async fn begin(&self, chains: Vec<(UserId, Vec<Ask>)>, deadline: Instant) -> Vec<Chain<'_>> {
        let begun = chains.into_iter().map(|(user, asks)| Chain::new(self, user, asks, deadline));
        let mut chains: Vec<Chain<'_>> = begun.collect();
        // All of them are under way before the first is waited for. One that no queue has room for is left to its
        // chains, which ask for less at once.
        let sent: Vec<(Queued, Vec<Member>)> =
            convoys(&mut chains).into_iter().filter_map(|convoy| convoy.send(deadline)).collect();
        for (queued, members) in sent {
            let mut verdicts = queued.verdicts().await.into_iter();
            for Member { chain, operations } in members {
                chains[chain].hear(verdicts.by_ref().take(operations).collect());
            }
        }
        chains
    }
}

/// A chain of the batch, by its place, and how many operations of it travel.
struct Member {
    chain: usize,
    operations: usize,
}

/// First segments that travel together: of one lane and partition, and through the same queue.
struct Convoy<'a> {
    lane: &'a Lane,
    shard: &'a Shard,
    takes_room: bool,
    operations: Operations,
    members: Vec<Member>,
}

impl<'a> Convoy<'a> {
    fn new(chain: &Chain<'a>, takes_room: bool) -> Self {
        let (lane, shard) = (chain.lane(), chain.shard);
        Self { lane, shard, takes_room, operations: Operations::new(), members: Vec::new() }
    }

    fn has_room_for(&self, chain: &Chain<'a>, operations: &Operations, takes_room: bool) -> bool {
        std::ptr::eq(self.lane, chain.lane())
            && std::ptr::eq(self.shard, chain.shard)
            && self.takes_room == takes_room
            && self.operations.len() + operations.len() <= self.lane.longest_job()
    }

    fn send(self, deadline: Instant) -> Option<(Queued, Vec<Member>)> {
        let queued = self.lane.enqueue(self.shard.id, self.operations, deadline).ok()?;
        Some((queued, self.members))
    }
}

/// Every first segment in one convoy, whole. A chain whose partition is closed waits by itself.
fn convoys<'a>(chains: &mut [Chain<'a>]) -> Vec<Convoy<'a>> {
    let mut convoys: Vec<Convoy<'a>> = Vec::new();
    for (at, chain) in chains.iter_mut().enumerate().filter(|(_, chain)| chain.shard.gate.is_open()) {
        let operations = chain.next_segment();
        if operations.is_empty() {
            continue;
        }
        let takes_room = operations.iter().any(|operation| operation.verb.takes_room());
        let fits = |convoy: &Convoy<'a>| convoy.has_room_for(chain, &operations, takes_room);
        let place = convoys.iter().rposition(fits).unwrap_or_else(|| {
            convoys.push(Convoy::new(chain, takes_room));
            convoys.len() - 1
        });
        convoys[place].members.push(Member { chain: at, operations: operations.len() });
        convoys[place].operations.extend(operations);
    }
    convoys
}
