//! The audit log: what is on record, and whether every tampering with it, the ledger and the grants is found.

use cota::{
    quota::{Entry, Kind, UserId},
    store::{
        ACTS, Actor, ChainHead, Credit, CreditOutcome, Expected, Extent, Finding, Flaw, GrantKind,
        ProfileChange, Refused, UserStatus, Verification,
    },
};
use sqlx::{Connection, PgConnection};

use crate::scratch::{Database, database, entry};

/// Everything is checked, as `cota audit verify` does.
async fn verify(db: &Database, checkpoints: &[ChainHead]) -> Verification {
    db.store.verify_audit(Extent::Whole, checkpoints, &mut |_, _| {}).await.unwrap()
}

async fn credit(db: &Database, user: UserId, tokens: i64, key: &str) {
    let kind = if tokens < 0 { GrantKind::Adjustment } else { GrantKind::Purchase };
    let credit = Credit { reason: Some("for you".into()), ..Credit::new(kind, tokens, key) };
    assert!(matches!(db.store.credit(user, &credit).await.unwrap(), CreditOutcome::Granted { .. }));
}

/// Users, grants and batches in two partitions.
async fn filled() -> Database {
    let db = database().await;
    let mut users = Vec::new();
    for n in 0..4 {
        let user = db.user().await;
        credit(&db, user, 1_000_000, "first").await;
        credit(&db, user, -10 - n, "second").await;
        users.push(user);
    }
    let (one, two) = (db.open(crate::scratch::P0).await, db.open(crate::scratch::P1).await);
    let mut sequence = 0;
    for batch in 0..12_u64 {
        let mut entries: Vec<Entry> = Vec::new();
        for n in 0..4 {
            sequence += 1;
            let user = users[(batch as usize + n) % users.len()];
            let mut entry = entry(user, &format!("r{sequence}"), Kind::Settle, 10 + n as i64, sequence);
            entry.input_tokens = Some(7);
            entry.at_ms += sequence * 1_000;
            entries.push(entry);
        }
        let (partition, epoch) =
            if batch % 3 == 0 { (crate::scratch::P1, two) } else { (crate::scratch::P0, one) };
        let by = cota::store::Booker::Flusher { run_id: crate::scratch::RUN, acked_up_to: 0 };
        let booking = db.store.book(partition, epoch, by, &entries, sequence).await.unwrap();
        assert!(matches!(booking, cota::store::Booking::Booked(booked) if booked.inserted == 4));
    }
    db
}

#[tokio::test]
async fn what_is_done_to_an_account_is_on_record_and_nothing_else() {
    let db = database().await;
    let user = db.user().await;
    credit(&db, user, 100, "one").await;
    let same = Credit::new(GrantKind::Purchase, 100, "one");
    assert!(matches!(db.store.credit(user, &same).await.unwrap(), CreditOutcome::Replayed { .. }));
    let change = ProfileChange { email: Some("canary@b.co".into()), ..ProfileChange::default() };
    db.store.update_user(user, &Expected::Any, &change).await.unwrap();
    db.store.update_user(user, &Expected::OneOf(vec![]), &change).await.unwrap();
    for status in [UserStatus::Suspended, UserStatus::Suspended, UserStatus::Active] {
        db.store.set_status(user, status).await.unwrap();
    }
    let refused = Refused {
        actor: Actor::Caller { subject: "someone".into(), role: cota::config::Role::User },
        user: Some(user),
        route: "GET /v1/users/{id}".into(),
        calls: 3,
    };
    db.store.record_refused(&[refused]).await.unwrap();
    let rows = db.store.audit_of(user, None, 100).await.unwrap();
    let told: Vec<_> = rows.iter().rev().map(|row| (&*row.actor, &*row.action)).collect();
    assert_eq!(
        told,
        [
            ("cota", "user.created"),
            ("cota", "grant.made"),
            ("cota", "user.changed"),
            ("cota", "user.suspended"),
            ("cota", "user.resumed"),
            ("someone", "access.refused"),
        ]
    );
    assert!(rows.iter().all(|row| !row.data.get().contains("canary") && !row.data.get().contains('@')));
    assert_eq!(rows[0].data.get(), r#"{"calls":3,"route":"GET /v1/users/{id}"}"#);
    let page = db.store.audit_of(user, Some(rows[1].number), 2).await.unwrap();
    assert_eq!(page.iter().map(|row| row.number).collect::<Vec<_>>(), [rows[2].number, rows[3].number]);
    assert!(verify(&db, &[]).await.is_sound());
}

#[tokio::test]
async fn nobody_may_change_the_log_and_its_owner_no_more_than_others() {
    let db = filled().await;
    for sql in [
        "UPDATE audit_log SET actor = 'nobody'",
        "UPDATE audit_log SET actor = 'nobody' WHERE false",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "DELETE FROM audit_chains",
        "TRUNCATE audit_chains",
    ] {
        let error = sqlx::query(sql).execute(&db.pool).await.unwrap_err().to_string();
        assert!(error.contains("the audit log takes no"), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_whole_log_is_sound_in_part_and_in_whole_and_a_replay_adds_nothing() {
    let db = filled().await;
    let whole = verify(&db, &db.store.audit_heads().await.unwrap()).await;
    assert_eq!((whole.findings.len(), whole.transactions), (0, 48));
    assert_eq!(whole.rows, 12 + 4 + 8, "batches, users, grants");
    let part = db.store.verify_audit(Extent::Newest(2), &[], &mut |_, _| {}).await.unwrap();
    assert!(part.is_sound(), "{part:?}");
    assert_eq!((part.rows, part.transactions), (6, 16));
    let heads = db.store.audit_heads().await.unwrap();
    let epoch = 1;
    let again: Vec<Entry> = Vec::new();
    db.flush(epoch, &again).await;
    assert_eq!(db.store.audit_heads().await.unwrap(), heads);
}

/// A generator that is the same on every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn one_of<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.below(things.len() as u64) as usize]
    }
}

/// SQL of one tampering; `$row` stands for a random row of the log, `$batch` for one of a partition's chain, `$t` and
/// `$u` for two transactions of different batches, `$grant` for a grant, `$chain` for a chain.
const TAMPERINGS: &[&[&str]] = &[
    // A changed row.
    &["UPDATE audit_log SET actor = actor || 'x' WHERE ctid = $row"],
    &["UPDATE audit_log SET actor_role = 'admins' WHERE ctid = $row"],
    &["UPDATE audit_log SET action = 'user.praised' WHERE ctid = $row"],
    &["UPDATE audit_log SET at = at + interval '1 microsecond' WHERE ctid = $row"],
    &["UPDATE audit_log SET user_id = gen_random_uuid() WHERE ctid = $row"],
    &["UPDATE audit_log SET data = (data::text || ' ')::json WHERE ctid = $row"],
    &["UPDATE audit_log SET data = replace(data::text, '1', '7')::json WHERE ctid = $row AND data::text LIKE '%1%'"],
    &["UPDATE audit_log SET previous = sha256(previous) WHERE ctid = $row"],
    &["UPDATE audit_log SET hash = sha256(hash) WHERE ctid = $row"],
    &["UPDATE audit_log SET number = number + 1000 WHERE ctid = $row"],
    &["UPDATE audit_log SET chain = chain + 10 WHERE ctid = $row"],
    // A deleted one, hidden by giving its number to those behind it or not.
    &["DELETE FROM audit_log WHERE ctid = $row"],
    &[
        "CREATE TEMP TABLE gone ON COMMIT DROP AS SELECT chain, number FROM audit_log WHERE ctid = $row",
        "DELETE FROM audit_log l USING gone g WHERE l.chain = g.chain AND l.number = g.number",
        "UPDATE audit_log l SET number = l.number + 1000000 FROM gone g WHERE l.chain = g.chain AND l.number > g.number",
        "UPDATE audit_log SET number = number - 1000001 WHERE number > 1000000",
        "UPDATE audit_chains c SET number = c.number - 1 FROM gone g WHERE c.chain = g.chain",
    ],
    // One put in.
    &[
        "INSERT INTO audit_log SELECT chain, number + 500, hash, sha256(hash), at, actor, actor_role, action, user_id, data
         FROM audit_log WHERE ctid = $row",
    ],
    &[
        "INSERT INTO audit_log SELECT l.chain, c.number + 1, c.hash, sha256(c.hash), l.at, l.actor, l.actor_role, l.action,
                l.user_id, l.data
         FROM audit_log l JOIN audit_chains c ON c.chain = l.chain WHERE l.ctid = $row",
        "UPDATE audit_chains c SET number = l.number, hash = l.hash FROM audit_log l
         WHERE l.chain = c.chain AND l.number = c.number + 1",
    ],
    // Two that changed places, with their hashes or without.
    &[
        "CREATE TEMP TABLE pair ON COMMIT DROP AS
         SELECT l.chain, l.number, (SELECT max(number) FROM audit_log o WHERE o.chain = l.chain AND o.number <> l.number) AS other
         FROM audit_log l WHERE ctid = $row",
        "UPDATE audit_log l SET number = 100000 FROM pair p WHERE l.chain = p.chain AND l.number = p.number",
        "UPDATE audit_log l SET number = p.number FROM pair p WHERE l.chain = p.chain AND l.number = p.other",
        "UPDATE audit_log l SET number = p.other FROM pair p WHERE l.chain = p.chain AND l.number = 100000",
    ],
    &[
        "UPDATE audit_log l SET data = o.data, action = o.action, user_id = o.user_id, at = o.at
         FROM audit_log o WHERE l.ctid = $row AND o.chain = l.chain AND o.at <> l.at
               AND o.number = (SELECT max(number) FROM audit_log m WHERE m.chain = l.chain AND m.at <> l.at)",
    ],
    // The end cut off: with its transactions and the head set back, so that only a checkpoint knows.
    &[
        "CREATE TEMP TABLE cut ON COMMIT DROP AS SELECT chain, number FROM audit_log WHERE ctid = $batch",
        "DELETE FROM token_transactions t USING cut WHERE t.partition = cut.chain AND t.audit_number >= cut.number",
        "DELETE FROM audit_log l USING cut WHERE l.chain = cut.chain AND l.number >= cut.number",
        "DELETE FROM audit_chains c USING cut WHERE c.chain = cut.chain",
        "INSERT INTO audit_chains SELECT l.chain, l.number, l.hash FROM audit_log l JOIN cut USING (chain)
         WHERE l.number = cut.number - 1",
    ],
    &["DELETE FROM audit_log l WHERE l.chain = $chain"],
    &["DELETE FROM audit_log l WHERE l.chain = $chain", "DELETE FROM audit_chains WHERE chain = $chain"],
    &["UPDATE audit_chains SET hash = sha256(hash) WHERE chain = $chain"],
    &["UPDATE audit_chains SET number = number + 1 WHERE chain = $chain"],
    // The ledger.
    &["UPDATE token_transactions SET tokens_used = tokens_used + 1 WHERE ctid = $t"],
    &["UPDATE token_transactions SET user_id = (SELECT id FROM user_accounts a WHERE a.id <> user_id LIMIT 1) WHERE ctid = $t"],
    &["UPDATE token_transactions SET reservation_id = reservation_id || 'x' WHERE ctid = $t"],
    &["UPDATE token_transactions SET kind = 'debit' WHERE ctid = $t"],
    &["UPDATE token_transactions SET model_used = 'other' WHERE ctid = $t"],
    &["UPDATE token_transactions SET request_id = 'other' WHERE ctid = $t"],
    &["UPDATE token_transactions SET input_tokens = NULL WHERE ctid = $t"],
    &["UPDATE token_transactions SET output_tokens = 0 WHERE ctid = $t"],
    &["UPDATE token_transactions SET cached_tokens = 1 WHERE ctid = $t"],
    &["UPDATE token_transactions SET cost_usd = 0.5 WHERE ctid = $t"],
    &["UPDATE token_transactions SET flags = flags + 1 WHERE ctid = $t"],
    &["UPDATE token_transactions SET \"timestamp\" = \"timestamp\" - interval '1 millisecond' WHERE ctid = $t"],
    &["UPDATE token_transactions SET outbox_sequence = outbox_sequence + 1 WHERE ctid = $t"],
    &["UPDATE token_transactions SET outbox_nonce = outbox_nonce - 1 WHERE ctid = $t"],
    &["UPDATE token_transactions SET id = gen_random_uuid() WHERE ctid = $t"],
    &["UPDATE token_transactions SET audit_number = NULL WHERE ctid = $t"],
    &["UPDATE token_transactions SET audit_number = audit_number + 1 WHERE ctid = $t"],
    &["UPDATE token_transactions SET partition = 5 WHERE ctid = $t"],
    &["DELETE FROM token_transactions WHERE ctid = $t"],
    &[
        "INSERT INTO token_transactions (id, user_id, reservation_id, kind, tokens_used, \"timestamp\", outbox_sequence,
                                         outbox_nonce, partition, audit_number)
         SELECT gen_random_uuid(), user_id, 'forged', 'debit', 5, now(), 999, 999, partition, audit_number
         FROM token_transactions WHERE ctid = $t",
    ],
    &[
        "INSERT INTO token_transactions (id, user_id, reservation_id, kind, tokens_used, \"timestamp\", outbox_sequence,
                                         outbox_nonce, partition)
         SELECT gen_random_uuid(), user_id, 'forged', 'debit', 5, now(), 999, 999, partition
         FROM token_transactions WHERE ctid = $t",
    ],
    &[
        "CREATE TEMP TABLE pair ON COMMIT DROP AS
         SELECT t.id AS one, t.audit_number AS n, u.id AS two, u.audit_number AS m
         FROM token_transactions t, token_transactions u WHERE t.ctid = $t AND u.ctid = $u",
        "UPDATE token_transactions t SET audit_number = p.m FROM pair p WHERE t.id = p.one",
        "UPDATE token_transactions t SET audit_number = p.n FROM pair p WHERE t.id = p.two",
    ],
    // Grants.
    &["UPDATE grants SET tokens = tokens + 5 WHERE ctid = $grant"],
    &["UPDATE grants SET kind = 'bonus' WHERE ctid = $grant AND tokens > 0"],
    &["UPDATE grants SET user_id = gen_random_uuid() WHERE ctid = $grant"],
    &["UPDATE grants SET id = gen_random_uuid() WHERE ctid = $grant"],
    &["DELETE FROM grants WHERE ctid = $grant"],
    &["INSERT INTO grants (id, user_id, kind, tokens, idempotency_key) SELECT gen_random_uuid(), user_id, 'bonus', 5, 'forged' FROM grants WHERE ctid = $grant"],
];

const TABLES: [&str; 4] = ["audit_log", "audit_chains", "token_transactions", "grants"];

/// One connection with all rights, on which no trigger and no foreign key is heeded.
struct Intruder {
    connection: PgConnection,
    dice: Dice,
}

impl Intruder {
    async fn new(db: &Database, seed: u64) -> Self {
        let mut connection = PgConnection::connect(&db.url).await.unwrap();
        run(&mut connection, "SET session_replication_role = replica").await;
        for table in TABLES {
            run(&mut connection, &format!("CREATE TABLE kept_{table} AS TABLE {table}")).await;
        }
        Self { connection, dice: Dice(seed) }
    }

    /// Brings everything back to what it was.
    async fn restore(&mut self) {
        for table in TABLES {
            run(&mut self.connection, &format!("DELETE FROM {table}")).await;
            run(&mut self.connection, &format!("INSERT INTO {table} SELECT * FROM kept_{table}")).await;
        }
    }

    async fn random(&mut self, sql: &str) -> String {
        let found: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&mut self.connection).await.unwrap();
        format!("'{}'", found[self.dice.below(found.len() as u64) as usize])
    }

    /// Tampers once; what was done.
    async fn tamper(&mut self) -> String {
        let chosen = self.dice.one_of(TAMPERINGS);
        let row = self.random("SELECT ctid::text FROM audit_log ORDER BY chain, number").await;
        let batch =
            self.random("SELECT ctid::text FROM audit_log WHERE chain >= 0 AND number > 1 ORDER BY 1").await;
        let all = "SELECT ctid::text FROM token_transactions WHERE partition = 0 AND audit_number";
        let (t, u) = (
            self.random(&format!("{all} < 5 ORDER BY 1")).await,
            self.random(&format!("{all} > 5 ORDER BY 1")).await,
        );
        let grant = self.random("SELECT ctid::text FROM grants ORDER BY 1").await;
        let chain = self.dice.one_of(&["-1", "0", "1"]);
        let mut transaction = self.connection.begin().await.unwrap();
        let (mut told, mut changed) = (String::new(), 0);
        for sql in chosen {
            let sql = sql.replace("$row", &row).replace("$batch", &batch).replace("$grant", &grant);
            let sql = sql.replace("$chain", chain).replace("$t", &t).replace("$u", &u);
            changed += run(&mut transaction, &sql).await;
            told.push_str(&sql);
            told.push_str(";\n");
        }
        transaction.commit().await.unwrap();
        if changed == 0 { String::new() } else { told }
    }
}

async fn run(connection: &mut PgConnection, sql: &str) -> u64 {
    let done = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(connection).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}")).rows_affected()
}

#[tokio::test]
async fn every_one_of_500_random_tamperings_is_found() {
    let db = filled().await;
    let checkpoints = db.store.audit_heads().await.unwrap();
    let mut intruder = Intruder::new(&db, 0x5eed).await;
    let mut done = 0;
    while done < 500 {
        let told = intruder.tamper().await;
        if told.is_empty() {
            continue;
        }
        done += 1;
        let found = verify(&db, &checkpoints).await;
        assert!(!found.is_sound(), "tampering {done} was not found:\n{told}");
        intruder.restore().await;
        if done % 50 == 0 {
            let whole = verify(&db, &checkpoints).await;
            assert!(whole.is_sound(), "not brought back: {whole:?}");
        }
    }
}

#[tokio::test]
async fn a_cut_end_is_known_by_its_checkpoint_alone() {
    let db = filled().await;
    let checkpoints = db.store.audit_heads().await.unwrap();
    let mut intruder = Intruder::new(&db, 1).await;
    for sql in [
        "DELETE FROM token_transactions WHERE partition = 0 AND audit_number = 8",
        "DELETE FROM audit_log WHERE chain = 0 AND number = 8",
        "UPDATE audit_chains c SET number = 7, hash = l.hash FROM audit_log l WHERE l.chain = 0 AND l.number = 7 AND c.chain = 0",
    ] {
        assert!(run(&mut intruder.connection, sql).await > 0, "{sql}");
    }
    assert!(verify(&db, &[]).await.is_sound(), "it looks whole");
    let cut = Finding { chain: 0, number: Some(8), flaw: Flaw::Cut };
    assert_eq!(verify(&db, &checkpoints).await.findings, [cut]);
    let acts: Vec<ChainHead> = checkpoints.into_iter().filter(|head| head.chain == ACTS).collect();
    assert!(verify(&db, &acts).await.is_sound());
}
