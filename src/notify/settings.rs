//! Use cases on what a user wants to be told.

use crate::{
    quota::{EventKind, UserId},
    store::{Expected, NotificationSettings, SettingsUpdate, Store, StoreError},
};

/// What users want to be told, and changes of it; cheap to clone.
#[derive(Clone)]
pub struct Settings {
    store: Store,
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("there is no such user")]
    UserNotFound,
    /// Nothing was changed.
    #[error("the settings have changed since the caller read them")]
    Stale,
    /// To be told of nothing by e-mail is said in another way.
    #[error("no kind of event is named")]
    NoKinds,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Settings {
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    pub async fn show(&self, user: UserId) -> Result<NotificationSettings, SettingsError> {
        self.store.notification_settings(user).await?.ok_or(SettingsError::UserNotFound)
    }

    /// Replaces the settings, if their version is still one the caller expects.
    pub async fn replace(
        &self,
        user: UserId,
        expected: &Expected,
        new: NotificationSettings,
    ) -> Result<NotificationSettings, SettingsError> {
        let email_kinds: Option<Vec<EventKind>> = new
            .email_kinds
            .map(|kinds| EventKind::ALL.into_iter().filter(|kind| kinds.contains(kind)).collect());
        if email_kinds.as_ref().is_some_and(Vec::is_empty) {
            return Err(SettingsError::NoKinds);
        }
        let new = NotificationSettings { email_kinds, ..new };
        match self.store.set_notification_settings(user, expected, &new).await? {
            SettingsUpdate::Updated(settings) => Ok(settings),
            SettingsUpdate::Stale => Err(SettingsError::Stale),
            SettingsUpdate::UserNotFound => Err(SettingsError::UserNotFound),
        }
    }
}
