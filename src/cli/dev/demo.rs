//! The user to try things with.

use super::CliError;
use crate::{
    quota::UserId,
    store::{Creation, Credit, CreditOutcome, GrantKind, NewUser, Store, UserFilter},
};

const EMAIL: &str = "demo@example.com";
const TOKENS: i64 = 100_000;

/// Finds or makes the demo user, and grants it its tokens once.
pub(super) async fn ensure_user(store: &Store) -> Result<UserId, CliError> {
    let user = match store.create_user(&NewUser { email: EMAIL.into(), ..NewUser::default() }).await? {
        Creation::Created(user) => user,
        Creation::EmailTaken | Creation::ExternalIdTaken | Creation::IdTaken => {
            let filter = UserFilter { email: Some(EMAIL), ..UserFilter::default() };
            let found = store.users(None, 1, filter).await?.pop();
            found.ok_or(CliError::Usage("the demo user was deleted while it was looked up: start again"))?
        }
    };
    let credit = Credit {
        reason: Some("tokens to try Cota with".into()),
        ..Credit::new(GrantKind::Bonus, TOKENS, "cota-dev")
    };
    match store.credit(user.id, &credit).await? {
        CreditOutcome::Granted { .. } | CreditOutcome::Replayed { .. } => Ok(user.id),
        _ => Err(CliError::Usage(
            "the demo user cannot be given its tokens: remove the data folder and start again",
        )),
    }
}
