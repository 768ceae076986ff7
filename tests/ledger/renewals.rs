//! Tokens that are added by themselves, while the user is spending.

use cota::{
    ledger::Refusal,
    quota::{RenewalMode, RenewalRule, Tokens, UserId},
    store::{AutoRenewalUpdate, Expected},
};
use futures_util::future::join_all;

use crate::support::world::{World, until};

async fn renew_automatically(world: &World, user: UserId, tokens: u64, max_renewals: u32) {
    let tokens = Tokens::new(tokens).unwrap();
    let rule = RenewalRule::new("0.1".parse().unwrap(), tokens, max_renewals).unwrap();
    let set = world.store.set_auto_renewal(user, &Expected::Any, true, rule, RenewalMode::Immediate).await;
    assert!(matches!(set.unwrap(), AutoRenewalUpdate::Updated(..)));
}

async fn renewals(world: &World, user: UserId) -> u64 {
    world.store.renewals(user, None, None, 200).await.unwrap().len() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_goes_on_spending_gets_every_renewal_and_no_more() {
    let world = World::start(2).await;
    let user = world.user(1_000).await;
    renew_automatically(&world, user, 500, 6).await;
    // Four callers spend until nothing is admitted any more, while others buy for the same user.
    let spend = async |caller: usize| {
        let mut spent = 0;
        for n in 0.. {
            let name = format!("{caller}-{n}");
            match world.reserve_on(caller, user, &name, 20, 600).await {
                Ok(_) => {
                    world.settle(user, &name, 20).await.unwrap();
                    spent += 20;
                }
                // A renewal may be on its way; after the last one there is none.
                Err(Refusal::Insufficient { .. }) if renewals(&world, user).await < 6 => {
                    tokio::task::yield_now().await;
                }
                Err(Refusal::Insufficient { .. }) => {
                    let total = world.store.user(user).await.unwrap().unwrap().total_tokens;
                    let (available, _, _) = world.balance(user).await;
                    if total == 4_400 && available < 20 {
                        break;
                    }
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        spent
    };
    let buy = async {
        for n in 0..4 {
            world.credit(user, 100, &format!("buy-{n}")).await;
        }
    };
    let (spent, ()) = tokio::join!(join_all((0..4).map(spend)), buy);
    assert_eq!(spent.into_iter().sum::<u64>(), 4_400, "all that was granted, and not one more");
    assert_eq!(renewals(&world, user).await, 6);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_is_spendable_by_itself() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    renew_automatically(&world, user, 1_000, 1).await;
    world.debit(user, "d", 95).await.unwrap();
    until("the renewal is in Redis", async || world.balance(user).await == (1_005, 0, 95)).await;
    world.check().await;
}
