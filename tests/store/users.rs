//! Accounts: unique names, pages, and the version a change raises.

use cota::{
    quota::UserId,
    store::{Creation, NewUser, UserFilter, UserStatus},
};

use crate::scratch::database;

fn named(email: &str, external_id: Option<&str>) -> NewUser {
    NewUser { email: email.into(), external_id: external_id.map(Into::into), ..NewUser::default() }
}

#[tokio::test]
async fn a_new_user_has_nothing_and_keeps_what_was_given() {
    let db = database().await;
    let id = UserId::generate();
    let new = NewUser {
        id: Some(id),
        email: "Ana@example.com".into(),
        external_id: Some("crm:é/1".into()),
        locale: Some("pt-BR".into()),
        time_zone: Some("America/Sao_Paulo".into()),
    };
    let Creation::Created(user) = db.store.create_user(&new).await.unwrap() else { panic!() };
    assert_eq!((user.id, user.total_tokens, user.used_tokens, user.version), (id, 0, 0, 1));
    assert_eq!(user.status, UserStatus::Active);
    assert_eq!(
        (user.email.as_str(), user.external_id.as_deref(), user.locale.as_deref(), user.time_zone.as_deref()),
        ("Ana@example.com", Some("crm:é/1"), Some("pt-BR"), Some("America/Sao_Paulo"))
    );
    assert_eq!(db.store.user(id).await.unwrap(), Some(user));
    assert_eq!(db.store.user(UserId::generate()).await.unwrap(), None);
    assert_eq!(
        db.store.create_user(&NewUser { id: Some(id), ..named("x@y", None) }).await.unwrap(),
        Creation::IdTaken
    );
}

#[tokio::test]
async fn an_address_is_taken_in_any_case_and_an_external_id_exactly() {
    let db = database().await;
    assert!(matches!(
        db.store.create_user(&named("ana@example.com", Some("x"))).await.unwrap(),
        Creation::Created(_)
    ));
    assert_eq!(db.store.create_user(&named("ANA@Example.com", None)).await.unwrap(), Creation::EmailTaken);
    assert_eq!(
        db.store.create_user(&named("b@example.com", Some("x"))).await.unwrap(),
        Creation::ExternalIdTaken
    );
    assert!(matches!(
        db.store.create_user(&named("c@example.com", Some("X"))).await.unwrap(),
        Creation::Created(_)
    ));
}

#[tokio::test]
async fn one_address_twenty_times_at_once_makes_one_account() {
    let db = database().await;
    let calls = (0..20).map(|_| {
        let store = db.store.clone();
        tokio::spawn(async move { store.create_user(&named("ana@example.com", None)).await.unwrap() })
    });
    let mut created = 0;
    for call in calls.collect::<Vec<_>>() {
        created += usize::from(matches!(call.await.unwrap(), Creation::Created(_)));
    }
    assert_eq!(created, 1);
}

#[tokio::test]
async fn pages_show_every_account_once_and_filters_find_one() {
    let db = database().await;
    let mut all = Vec::new();
    for n in 0..7 {
        let new = named(&format!("User{n}@example.com"), Some(&format!("ext-{n}")));
        let Creation::Created(user) = db.store.create_user(&new).await.unwrap() else { panic!() };
        all.push(user.id);
    }
    all.sort();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = db.store.users(after, 3, UserFilter::default()).await.unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page.iter().map(|user| user.id));
    }
    assert_eq!(seen, all);

    let find = async |email, external_id| {
        let filter = UserFilter { email, external_id, ..UserFilter::default() };
        let found = db.store.users(None, 10, filter).await.unwrap();
        found.into_iter().map(|user| user.email).collect::<Vec<_>>()
    };
    assert_eq!(find(Some("uSER3@example.COM"), None).await, ["User3@example.com"]);
    assert_eq!(find(None, Some("ext-4")).await, ["User4@example.com"]);
    assert_eq!(find(Some("user4@example.com"), Some("ext-4")).await, ["User4@example.com"]);
    assert!(find(Some("user3@example.com"), Some("ext-4")).await.is_empty());
    assert!(find(None, Some("EXT-4")).await.is_empty());
}

#[tokio::test]
async fn only_a_real_change_of_status_raises_the_version() {
    let db = database().await;
    let id = db.user().await;
    let version = async |status| {
        let user = db.store.set_status(id, status).await.unwrap().unwrap();
        assert_eq!(user.status, status);
        user.version
    };
    assert_eq!(version(UserStatus::Active).await, 1);
    assert_eq!(version(UserStatus::Suspended).await, 2);
    assert_eq!(version(UserStatus::Suspended).await, 2);
    assert_eq!(version(UserStatus::Active).await, 3);
    assert_eq!(db.store.set_status(UserId::generate(), UserStatus::Active).await.unwrap(), None);
}
