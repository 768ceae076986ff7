//! Creating, finding, suspending and resuming users.

use futures_util::Stream;
use jiff::tz::TimeZone;

use super::{Accounts, MAX_NAME_LENGTH, is_text};
use crate::{
    quota::{AlertThreshold, UserId},
    store::{
        AccountHealth, Creation, Expected, NewUser, ProfileChange, StoreError, Update, User, UserFilter,
        UserStatus,
    },
};

/// Longest e-mail address, in bytes (RFC 5321).
pub const MAX_EMAIL_LENGTH: usize = 254;
/// Longest language tag.
pub const MAX_LOCALE_LENGTH: usize = 35;
/// Longest local part of an address.
const MAX_LOCAL_LENGTH: usize = 64;

/// What a user is to be created with; unchecked.
#[derive(Clone, Debug, Default)]
pub struct CreateUser {
    /// Made by the server when absent.
    pub id: Option<UserId>,
    pub email: String,
    /// The operator's own name for the user: any UTF-8 without NUL, 1–255 bytes.
    pub external_id: Option<String>,
    /// Language tag such as `pt-BR`.
    pub locale: Option<String>,
    /// IANA name such as `America/Sao_Paulo`.
    pub time_zone: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("the e-mail address is invalid")]
    InvalidEmail,
    #[error("the external id is invalid")]
    InvalidExternalId,
    #[error("the locale is invalid")]
    InvalidLocale,
    #[error("the time zone is invalid")]
    InvalidTimeZone,
    #[error("the e-mail address is taken")]
    EmailTaken,
    #[error("the external id is taken")]
    ExternalIdTaken,
    #[error("the id is taken")]
    IdTaken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is to be changed of a user; unchecked. What is `None` stays, and an inner `None` clears.
#[derive(Clone, Debug, Default)]
pub struct UpdateUser {
    pub email: Option<String>,
    pub external_id: Option<Option<String>>,
    pub locale: Option<Option<String>>,
    pub time_zone: Option<Option<String>>,
    pub alert_threshold: Option<AlertThreshold>,
}

#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    #[error("there is no such user")]
    NotFound,
    /// Nothing was changed.
    #[error("the user has changed since the caller read it")]
    Stale,
    /// As when a user is created with this.
    #[error(transparent)]
    Refused(#[from] CreateError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("there is no such user")]
    NotFound,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A suspended or resumed user.
#[derive(Clone, Debug)]
pub struct StatusChange {
    pub user: User,
    /// Whether Redis has it already.
    pub effective: bool,
}

impl Accounts {
    /// Creates a user with nothing granted. Redis loads it on its first use.
    pub async fn create_user(&self, new: CreateUser) -> Result<User, CreateError> {
        let CreateUser { id, email, external_id, locale, time_zone } = new;
        check(Some(&email), &external_id, &locale, &time_zone)?;
        match self.store.create_user(&NewUser { id, email, external_id, locale, time_zone }).await? {
            Creation::Created(user) => Ok(user),
            Creation::EmailTaken => Err(CreateError::EmailTaken),
            Creation::ExternalIdTaken => Err(CreateError::ExternalIdTaken),
            Creation::IdTaken => Err(CreateError::IdTaken),
        }
    }

    pub async fn user(&self, id: UserId) -> Result<User, UserError> {
        self.store.user(id).await?.ok_or(UserError::NotFound)
    }

    /// How an account is doing, as far as Postgres knows.
    pub async fn health(&self, id: UserId) -> Result<AccountHealth, UserError> {
        self.store.account_health(id).await?.ok_or(UserError::NotFound)
    }

    /// Users by id, after `after`, at most `limit`.
    pub async fn users(
        &self,
        after: Option<UserId>,
        limit: u32,
        filter: UserFilter<'_>,
    ) -> Result<Vec<User>, StoreError> {
        self.store.users(after, limit, filter).await
    }

    /// Everything that the tables of users hold of one; see [`Store::export`](crate::store::Store::export).
    pub async fn export(
        &self,
        id: UserId,
    ) -> Result<impl Stream<Item = Result<String, StoreError>> + Send + use<>, StoreError> {
        self.store.export(id).await
    }

    /// Changes what describes a user, if its version is still one the caller expects.
    pub async fn update_user(
        &self,
        id: UserId,
        expected: &Expected,
        update: UpdateUser,
    ) -> Result<User, UpdateError> {
        let UpdateUser { email, external_id, locale, time_zone, alert_threshold } = update;
        let inner = |text: &Option<Option<String>>| text.clone().flatten();
        check(email.as_deref(), &inner(&external_id), &inner(&locale), &inner(&time_zone))?;
        let change = ProfileChange { email, external_id, locale, time_zone, alert_threshold };
        match self.store.update_user(id, expected, &change).await? {
            Update::Updated(user) => Ok(user),
            Update::Stale => Err(UpdateError::Stale),
            Update::UserNotFound => Err(UpdateError::NotFound),
            Update::EmailTaken => Err(CreateError::EmailTaken.into()),
            Update::ExternalIdTaken => Err(CreateError::ExternalIdTaken.into()),
        }
    }

    /// Suspends or resumes. Repeating it changes nothing, and tells Redis again.
    pub async fn set_status(&self, id: UserId, status: UserStatus) -> Result<StatusChange, UserError> {
        let user = self.store.set_status(id, status).await?.ok_or(UserError::NotFound)?;
        Ok(StatusChange { user, effective: self.effective(id).await })
    }
}

/// The rules of a user's texts; what is absent breaks none.
fn check(
    email: Option<&str>,
    external_id: &Option<String>,
    locale: &Option<String>,
    time_zone: &Option<String>,
) -> Result<(), CreateError> {
    let holds = |text: &Option<String>, rule: fn(&str) -> bool| text.as_deref().is_none_or(rule);
    if !email.is_none_or(is_email) {
        Err(CreateError::InvalidEmail)
    } else if !holds(external_id, |id| is_text(id, MAX_NAME_LENGTH)) {
        Err(CreateError::InvalidExternalId)
    } else if !holds(locale, is_language_tag) {
        Err(CreateError::InvalidLocale)
    } else if !holds(time_zone, |name| TimeZone::get(name).is_ok()) {
        Err(CreateError::InvalidTimeZone)
    } else {
        Ok(())
    }
}

/// What mail servers take in practice: no quotes, no comments, no address literals.
fn is_email(address: &str) -> bool {
    let Some((local, domain)) = address.split_once('@') else { return false };
    let dotted = |part: &str| !part.split('.').any(str::is_empty);
    let is_local_char =
        |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+/=?^_`{|}~-.".contains(c) || !c.is_ascii();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    address.len() <= MAX_EMAIL_LENGTH
        && !address.chars().any(|c| c.is_whitespace() || c.is_control())
        && (1..=MAX_LOCAL_LENGTH).contains(&local.len())
        && dotted(local)
        && local.chars().all(is_local_char)
        && domain.contains('.')
        && domain.split('.').all(is_label)
}

/// The form of BCP 47: a language of 2–3 letters, then subtags of 2–8 letters or digits.
fn is_language_tag(tag: &str) -> bool {
    let mut parts = tag.split('-');
    let language = parts.next().unwrap_or("");
    tag.len() <= MAX_LOCALE_LENGTH
        && (2..=3).contains(&language.len())
        && language.bytes().all(|b| b.is_ascii_alphabetic())
        && parts.all(|part| (2..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_mail_servers_take() {
        for good in ["a@b.co", "ana.souza+x@exemplo.com.br", "josé@exämple.org", "o'neil@a-b.io", "1@2.3"] {
            assert!(is_email(good), "{good}");
        }
        let long = format!("{}@{}.com", "a".repeat(64), "b".repeat(200));
        let longest_local = format!("{}@b.co", "a".repeat(65));
        for bad in [
            "",
            "a",
            "@",
            "a@",
            "@b.co",
            "a@b",
            "a@@b.co",
            "a@b@c.co",
            "a b@c.co",
            "a@b .co",
            "a@b.co\n",
            "a\0@b.co",
            ".a@b.co",
            "a.@b.co",
            "a..b@c.co",
            "a@.co",
            "a@b..co",
            "a@b.co.",
            "a@-b.co",
            "a@b-.co",
            "a@[127.0.0.1]",
            "\"a\"@b.co",
            "a,b@c.co",
            "<a@b.co>",
            "a@b.co, c@d.co",
            "a@b_c.co",
            &long,
            &longest_local,
        ] {
            assert!(!is_email(bad), "{bad:?}");
        }
    }

    fn refused(new: CreateUser) -> String {
        let CreateUser { external_id, locale, time_zone, .. } = new;
        check(Some("a@b.co"), &external_id, &locale, &time_zone)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn the_other_parts_have_their_form() {
        for locale in ["en", "pt-BR", "zh-Hant-TW", "es-419"] {
            assert_eq!(refused(CreateUser { locale: Some(locale.into()), ..CreateUser::default() }), "");
        }
        for locale in ["", "e", "english", "pt_BR", "pt-", "p1", "pt-BR-"] {
            let new = CreateUser { locale: Some(locale.into()), ..CreateUser::default() };
            assert_eq!(refused(new), CreateError::InvalidLocale.to_string(), "{locale:?}");
        }
        assert_eq!(refused(CreateUser { time_zone: Some("UTC".into()), ..CreateUser::default() }), "");
        for zone in ["", "Mars/Olympus", "../../etc/passwd", "America/Sao Paulo", "a\0b"] {
            let new = CreateUser { time_zone: Some(zone.into()), ..CreateUser::default() };
            assert_eq!(refused(new), CreateError::InvalidTimeZone.to_string(), "{zone:?}");
        }
        for (external_id, error) in [
            ("crm:{42} é\n".to_owned(), String::new()),
            ("x".repeat(255), String::new()),
            ("x".repeat(256), CreateError::InvalidExternalId.to_string()),
            (String::new(), CreateError::InvalidExternalId.to_string()),
            ("a\0b".to_owned(), CreateError::InvalidExternalId.to_string()),
        ] {
            assert_eq!(
                refused(CreateUser { external_id: Some(external_id), ..CreateUser::default() }),
                error
            );
        }
    }
}
