//! Calls no service sends: an error reply without caller data, and nothing changed.

use cota::ledger::{
    scripts::{self, Script},
    wire::Operation,
};

use crate::{
    case::Case,
    ops::{debit, reserve, settle},
    support::partition::{Partition, text},
};

const SECRET: &[u8] = b"caller-data";

async fn errs(p: &mut Case, script: &Script, keys: &[Vec<u8>], args: &[Vec<u8>]) -> String {
    let before = (p.dump().await, p.all_meta().await);
    let error = p.try_call(script, keys, args).await.expect_err("an error reply").to_string();
    assert_eq!((p.dump().await, p.all_meta().await), before, "{}: an error changes nothing", script.name);
    assert!(!error.contains("caller-data"), "{error}");
    error
}

/// Sends good operations, the last of them bent.
async fn bent(p: &mut Case, bend: impl Fn(&mut Vec<u8>)) -> String {
    let ops = [debit(1, 1), reserve(2, 2)];
    let (keys, mut args) = (p.apply_keys(&ops), Partition::apply_args(&p.head(), &ops));
    bend(args.last_mut().unwrap());
    errs(p, &scripts::APPLY, &keys, &args).await
}

fn without_lines(op: Operation) -> Operation {
    Operation { lines: Vec::new(), ..op }
}

contract! {
    fn a_truncated_operation(p) {
        p.grant(100, 0).await;
        let length = reserve(2, 2).encode().len();
        for cut in 0..length {
            bent(p, |op| op.truncate(cut)).await;
        }
    }

    fn an_empty_operation(p) {
        p.grant(100, 0).await;
        bent(p, Vec::clear).await;
    }

    fn verb_zero(p) {
        p.grant(100, 0).await;
        assert!(bent(p, |op| op[0] = 0).await.contains("malformed operation"));
    }

    fn an_unknown_verb(p) {
        p.grant(100, 0).await;
        for verb in [7, 8, 99, 255] {
            assert!(bent(p, |op| op[0] = verb).await.contains("malformed operation"));
        }
    }

    fn no_lines(p) {
        p.grant(100, 0).await;
        let ops = [debit(1, 1), without_lines(settle(2, 1))];
        let (keys, args) = (p.apply_keys(&ops), Partition::apply_args(&p.head(), &ops));
        assert!(errs(p, &scripts::APPLY, &keys, &args).await.contains("malformed operation"));
    }

    fn more_lines_announced_than_sent(p) {
        p.grant(100, 0).await;
        bent(p, |op| {
            assert_eq!(op[2], 1);
            op[2] = 2;
        })
        .await;
    }

    fn a_key_too_many(p) {
        p.grant(100, 0).await;
        let ops = [debit(1, 1)];
        let (mut keys, args) = (p.apply_keys(&ops), Partition::apply_args(&p.head(), &ops));
        keys.push(keys[4].clone());
        assert!(errs(p, &scripts::APPLY, &keys, &args).await.contains("keys and operations differ"));
    }

    fn a_key_too_few(p) {
        p.grant(100, 0).await;
        let ops = [debit(1, 1), debit(2, 1)];
        let (mut keys, args) = (p.apply_keys(&ops), Partition::apply_args(&p.head(), &ops));
        keys.pop();
        assert!(errs(p, &scripts::APPLY, &keys, &args).await.contains("keys and operations differ"));
    }

    fn no_operation_at_all(p) {
        p.grant(100, 0).await;
        let (keys, args) = (p.apply_keys(&[]), Partition::apply_args(&p.head(), &[]));
        assert!(errs(p, &scripts::APPLY, &keys, &args).await.contains("wrong number"));
    }

    fn apply_without_its_keys(p) {
        let args = Partition::apply_args(&p.head(), &[debit(1, 1)]);
        let keys = [p.keys.meta()];
        assert!(errs(p, &scripts::APPLY, &keys, &args).await.contains("wrong number"));
    }

    fn one_argument_too_many_or_too_few(p) {
        p.grant(100, 0).await;
        let key = p.keys.meta();
        for (script, keys, args) in [
            (&scripts::DUE, 1, 1),
            (&scripts::OUTBOX, 2, 2),
            (&scripts::SYNC, 2, 7),
            (&scripts::LOAD, 2, 8),
            (&scripts::PEEK, 3, 3),
            (&scripts::FENCE, 2, 1),
            (&scripts::OPEN, 1, 4),
        ] {
            let (keys, args) = (vec![key.clone(); keys], vec![SECRET.to_vec(); args]);
            let fewer = errs(p, script, &keys, &args[1..]).await;
            let more = errs(p, script, &keys, &[&args[..], &[SECRET.to_vec()]].concat()).await;
            let keyless = errs(p, script, &keys[1..], &args).await;
            for error in [fewer, more, keyless] {
                assert!(error.contains("wrong number of keys or arguments"), "{}: {error}", script.name);
            }
        }
    }

    fn ack_with_more_ids_than_records(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 1)).await;
        let id = text(p.entry().await.outbox_id);
        let keys = [p.keys.outbox()];
        assert!(errs(p, &scripts::ACK, &keys, &[text(1), text(1), id]).await.contains("wrong number"));
    }

    fn carry_without_its_retentions(p) {
        p.begin_recovery(2).await;
        let keys = [p.keys.meta(), p.keys.expiry()];
        assert!(errs(p, &scripts::CARRY, &keys, &[text(2)]).await.contains("wrong number"));
    }

    fn carry_whose_last_verdict_does_not_fit_its_keys(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.begin_recovery(2).await;
        p.load_recovering(0, 100, 0).await;
        let (keys, args) = p.carry_call(&[(0, 0, 1), (0, 0, 2)]);
        let truncated = [&args[..4], &[args[4][..12].to_vec()]].concat();
        errs(p, &scripts::CARRY, &keys, &truncated).await;
        let too_many = [&keys[..], &keys[..1]].concat();
        for keys in [&keys[..5], &too_many[..]] {
            assert!(errs(p, &scripts::CARRY, keys, &args).await.contains("keys and verdicts differ"));
        }
    }

    fn a_closed_partition_is_said_before_a_malformed_operation(p) {
        p.fence(2).await;
        let (keys, mut args) =
            (p.apply_keys(&[debit(1, 1)]), Partition::apply_args(&p.head(), &[debit(1, 1)]));
        args.last_mut().unwrap().clear();
        assert_eq!(p.numbers(&scripts::APPLY, &keys, &args).await, [2, 2]);
    }
}
