//! Micro-benchmarks of what every request pays in the service: `cargo bench --bench micro`.

use std::hint::black_box;

use cota::{
    config::{AuthConfig, Secret},
    http::jwt::{Role, Verifier, mint},
    ledger::{
        keys::Keys,
        wire::{Head, Operation, Record, Verb, apply, fingerprint},
    },
    quota::{BudgetId, Line, Model, PartitionId, Partitions, ReservationId, UserId},
};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

fn reserve(number: u32) -> Operation {
    let user = UserId::generate();
    let id = ReservationId::new(&format!("r-{number}")).unwrap();
    let model = Model::new("gpt-5").unwrap();
    let mut operation =
        Operation::new(Verb::Reserve, user, id, vec![Line { budget: BudgetId::Balance(user), amount: 100 }]);
    operation.fingerprint = fingerprint(Verb::Reserve, &[Some(100)], Some(&model));
    operation.tokens = 100;
    operation.ttl_ms = 600_000;
    operation.model = Some(model);
    operation
}

/// A fresh reservation as Redis keeps it; the layout is in `lua/shared/record.lua`.
fn packed_record(operation: &Operation) -> Vec<u8> {
    let BudgetId::Balance(owner) = operation.lines[0].budget;
    let mut out = vec![1, 1, 0];
    out.extend_from_slice(&7_u32.to_be_bytes());
    out.extend_from_slice(&operation.fingerprint);
    for ms in [1_764_000_000_000_u64, 1_764_000_600_000, 0] {
        out.extend_from_slice(&ms.to_be_bytes()[2..]);
    }
    out.extend_from_slice(b"\x05gpt-5\0\0\x01\x11");
    out.extend_from_slice(owner.0.as_bytes());
    out.push(b'b');
    out.extend_from_slice(&100_u64.to_be_bytes()[2..]);
    out
}

fn wire(criterion: &mut Criterion) {
    let operations: Vec<Operation> = (0..64).map(reserve).collect();
    let keys = Keys::of(PartitionId(0), Partitions::new(1).unwrap());
    let record = packed_record(&operations[0]);
    let head = Head {
        epoch: 7,
        high_water: 123_456,
        run_id: "0123456789abcdef0123456789abcdef01234567",
        nonce: 4_611_686_018_427_387_903,
        full: false,
        retention_ms: 1_800_000,
        expired_retention_ms: 86_400_000,
    };
    criterion.bench_function("operation, encoded", |bencher| bencher.iter(|| operations[0].encode()));
    criterion.bench_function("fingerprint", |bencher| {
        bencher.iter(|| fingerprint(Verb::Reserve, &[Some(100)], operations[0].model.as_ref()));
    });
    criterion.bench_function("packed record, decoded", |bencher| {
        bencher.iter(|| Record::decode(black_box(&record)).unwrap());
    });
    criterion.bench_function("apply call of 64 operations, built and packed", |bencher| {
        let operations: Vec<&Operation> = operations.iter().collect();
        bencher.iter(|| apply(&keys, head, &operations).get_packed_command());
    });
}

fn jwt(criterion: &mut Criterion) {
    let config =
        AuthConfig { hs256_secret: Secret::new("0123456789abcdef0123456789abcdef"), ..AuthConfig::default() };
    let jwt = mint(&config, "gateway", Role::Gateway, 3_600).unwrap();
    let verifier = Verifier::new(&config);
    criterion.bench_function("JWT, remembered", |bencher| {
        bencher.iter(|| verifier.verify(black_box(&jwt)).unwrap());
    });
    criterion.bench_function("JWT, first seen", |bencher| {
        bencher.iter_batched(
            || Verifier::new(&config),
            |fresh| fresh.verify(&jwt).unwrap(),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, wire, jwt);
criterion_main!(benches);
