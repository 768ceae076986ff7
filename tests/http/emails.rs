//! E-mails: what users get through a real mail server, and what they said they want.

use std::{fs, time::Duration};

use cota::{
    config::{Config, MailTls, Secret},
    quota::UserId,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_rustls::rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::support::{
    TempFolder,
    certificates::Certificates,
    mail::{Answer, MailServer, Security},
    receiver,
    service::{self, Service, send},
    world::until,
};

fn configure(config: &mut Config, server: &MailServer) {
    receiver::configure(&mut config.notify);
    config.email.host = "127.0.0.1".into();
    config.email.port = server.address.port();
    config.email.tls = MailTls::None;
    config.email.from = "Cota <cota@example.com>".into();
    config.email.timeout_ms = 2_000;
}

async fn start() -> (Service, MailServer) {
    let server = MailServer::start().await;
    (Service::with(|config| configure(config, &server)).await, server)
}

/// A user with this language; its address has its id.
async fn user(service: &Service, locale: Option<&str>) -> UserId {
    let id = UserId::generate();
    let mut new = json!({"id": id.to_string(), "email": format!("{id}@example.org")});
    if let Some(locale) = locale {
        new["locale"] = locale.into();
        new["time_zone"] = "America/Sao_Paulo".into();
    }
    service.admin_post("/v1/users", &new).await.is(201);
    id
}

async fn event(service: &Service, user: UserId, kind: &str) -> i64 {
    sqlx::query_scalar("INSERT INTO user_events (user_id, kind, data) VALUES ($1, $2, $3) RETURNING id")
        .bind(user.0)
        .bind(kind)
        .bind(json!({"spent": 80_000, "limit": 100_000, "reason": "<b>&"}))
        .fetch_one(service.world.database.pool())
        .await
        .unwrap()
}

/// State, attempts, the server's code and our words of each e-mail, oldest first.
async fn queue(service: &Service) -> Vec<(String, i32, Option<i16>, Option<String>)> {
    sqlx::query_as(
        "SELECT state, attempts, last_status, last_error FROM notifications WHERE channel = 'email' ORDER BY id",
    )
    .fetch_all(service.world.database.pool())
    .await
    .unwrap()
}

async fn noted(service: &Service, expected: (&str, i32, Option<i16>, Option<&str>)) {
    until("the attempt is noted", async || {
        let found = queue(service).await;
        found.first().is_some_and(|(state, attempts, status, error)| {
            (state.as_str(), *attempts, *status, error.as_deref()) == expected
        })
    })
    .await;
}

async fn make_due(service: &Service) {
    service.world.sql("UPDATE notifications SET next_attempt_at = now() WHERE state = 'pending'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_written_to_in_their_language() {
    let (service, server) = start().await;
    let (ana, bob) = (user(&service, Some("pt-BR")).await, user(&service, None).await);
    let id = event(&service, ana, "alert.warning").await;
    let mails = server.has(1).await;
    assert_eq!(mails[0].to, [format!("RCPT TO:<{ana}@example.org>")]);
    assert_eq!(mails[0].from, "MAIL FROM:<cota@example.com>");
    assert_eq!(mails[0].header("Subject"), "A maior parte dos seus tokens foi usada");
    assert_eq!(mails[0].header("Message-ID"), format!("<cota-event-{id}@example.com>"));
    assert_eq!(mails[0].header("Auto-Submitted"), "auto-generated");
    assert!(mails[0].header("Content-Type").starts_with("multipart/alternative"));
    assert!(mails[0].text.contains("Usado: 80.000") && mails[0].text.contains("&lt;b&gt;&amp;"));
    assert!(mails[0].text.contains(service::TOP_UP_URL), "and how to go on");
    event(&service, bob, "alert.blocked").await;
    let mails = server.has(2).await;
    assert_eq!(mails[1].header("Subject"), "Blocked: all your tokens are used");
    assert!(mails[1].text.contains("Used: 80,000"));
    noted(&service, ("delivered", 1, Some(250), None)).await;
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again_under_the_same_message_id_and_what_is_refused_is_not() {
    let (service, server) = start().await;
    let user = user(&service, None).await;
    server.next(&[
        Answer::Refuse("451 later"),
        Answer::TakeAndDie,
        Answer::Take,
        Answer::Refuse("550 no such user"),
    ]);
    event(&service, user, "alert.warning").await;
    noted(&service, ("pending", 1, Some(451), Some("the mail server cannot take it now"))).await;
    make_due(&service).await;
    noted(&service, ("pending", 2, None, Some("the mail server cannot be reached"))).await;
    make_due(&service).await;
    noted(&service, ("delivered", 3, Some(250), None)).await;
    let mails = server.mails();
    assert_eq!(mails.len(), 2, "taken twice, once without a word");
    assert_eq!(mails[0].header("Message-ID"), mails[1].header("Message-ID"));
    service.world.sql("DELETE FROM notifications").await;
    event(&service, user, "alert.critical").await;
    noted(&service, ("failed", 1, Some(550), Some("the mail server refused it"))).await;
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_told_what_it_asked_for() {
    let (service, server) = start().await;
    let (ana, bob) = (user(&service, None).await, user(&service, None).await);
    let path = format!("/v1/users/{ana}/notification-settings");
    let own = service.user_jwt(ana);
    let shown = service.get_as(&path, &own).await;
    let tag = shown.header("etag").unwrap().to_owned();
    assert_eq!(shown.is(200), json!({"email_enabled": true, "email_events": null, "webhooks_enabled": true}));
    let put = async |tag: Option<&str>, body: &Value| {
        let request = service.request(Method::PUT, &path, &own).json(body);
        send(match tag {
            Some(tag) => request.header("if-match", tag),
            None => request,
        })
        .await
    };
    let alerts = json!({"email_enabled": true, "email_events": ["alert.blocked"], "webhooks_enabled": true});
    put(None, &alerts).await.problem(428, "precondition_required");
    assert_eq!(put(Some(&tag), &alerts).await.is(200), alerts);
    put(Some(&tag), &alerts).await.problem(412, "precondition_failed");
    for (body, code) in [
        (json!({}), "missing_field"),
        (json!({"email_enabled": true, "webhooks_enabled": true}), "missing_field"),
        (json!({"email_enabled": 1, "email_events": null, "webhooks_enabled": true}), "invalid_body"),
        (json!({"email_enabled": true, "email_events": [], "webhooks_enabled": true}), "invalid_events"),
        (json!({"email_enabled": true, "email_events": ["x"], "webhooks_enabled": true}), "invalid_events"),
        (
            json!({"email_enabled": true, "email_events": null, "webhooks_enabled": true, "sms": true}),
            "unknown_field",
        ),
    ] {
        put(Some("*"), &body).await.problem(422, code);
    }
    assert_eq!(service.get_as(&path, service.admin_jwt()).await.is(200), alerts);
    service.get_as(&path, &service.user_jwt(bob)).await.problem(403, "forbidden");
    let nobody = format!("/v1/users/{}/notification-settings", UserId::generate());
    service.get_as(&nobody, service.admin_jwt()).await.problem(404, "user_not_found");
    event(&service, ana, "alert.warning").await;
    event(&service, ana, "alert.blocked").await;
    event(&service, bob, "alert.warning").await;
    let mails = server.has(2).await;
    let subjects: Vec<&str> = mails.iter().map(|mail| mail.header("Subject")).collect();
    assert!(subjects.contains(&"Blocked: all your tokens are used"));
    let off = json!({"email_enabled": false, "email_events": null, "webhooks_enabled": true});
    put(Some("*"), &off).await.is(200);
    event(&service, ana, "alert.blocked").await;
    event(&service, bob, "alert.blocked").await;
    server.has(3).await;
    assert_eq!(queue(&service).await.len(), 3, "nothing else is queued");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_servers_are_spoken_to_over_tls_and_logged_in_to() {
    cota::crypto::install();
    let folder = TempFolder::new();
    let files = Certificates::write(&folder, &["localhost"]);
    for (security, tls) in [(Security::Tls, MailTls::Tls), (Security::Starttls, MailTls::Starttls)] {
        let cert = CertificateDer::from_pem_slice(&fs::read(&files.cert).unwrap()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(&fs::read(&files.key).unwrap()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert], key).unwrap();
        let server = MailServer::with(security, Some(config)).await;
        let service = Service::with(|config| {
            configure(config, &server);
            config.email.host = "localhost".into();
            config.email.tls = tls;
            config.email.ca_file = Some(files.ca.clone());
            config.email.username = "cota".into();
            config.email.password = Secret::new("hush-hush");
        })
        .await;
        let user = user(&service, None).await;
        event(&service, user, "account.suspended").await;
        let mails = server.has(1).await;
        assert!(mails[0].encrypted, "{security:?}");
        assert!(mails[0].login.is_some(), "{security:?}");
        service.finish().await;
    }
    // Nothing is said to a server that cannot prove who it is, and nothing in the clear to one that speaks no TLS.
    for (tls, host) in [(MailTls::Tls, "localhost"), (MailTls::Starttls, "localhost")] {
        let server = MailServer::start().await;
        let service = Service::with(|config| {
            configure(config, &server);
            config.email.host = host.into();
            config.email.tls = tls;
            config.email.ca_file = Some(files.ca.clone());
            config.email.timeout_ms = 500;
        })
        .await;
        let user = user(&service, None).await;
        event(&service, user, "account.suspended").await;
        until("it was tried", async || queue(&service).await.first().is_some_and(|first| first.3.is_some()))
            .await;
        assert!(server.mails().is_empty(), "{tls:?}");
        tokio::time::timeout(Duration::from_secs(30), service.finish()).await.unwrap();
    }
}
