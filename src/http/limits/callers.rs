//! Calls per second of one caller, by its role.

use std::num::NonZeroU32;

use governor::Quota;

use super::keyed::{Keyed, MAX_KEYS, Wait};
use crate::{
    config::HttpConfig,
    http::jwt::{Principal, Role},
};

/// A budget per caller; none for a role without a limit.
pub struct Callers {
    gateways: Option<Keyed>,
    admins: Option<Keyed>,
    users: Option<Keyed>,
}

impl Callers {
    pub fn new(config: &HttpConfig) -> Self {
        Self {
            gateways: keyed(config.gateway_calls_per_second, config.gateway_burst),
            admins: keyed(config.admin_calls_per_second, config.admin_burst),
            users: keyed(config.user_calls_per_second, config.user_burst),
        }
    }

    /// Takes one call from the caller's budget. Never asked for settles, debits and releases.
    ///
    /// # Errors
    /// When the caller is too fast.
    pub fn admit(&self, caller: &Principal) -> Result<(), Wait> {
        let keyed = match caller.role {
            Role::Gateway => &self.gateways,
            Role::Admin => &self.admins,
            Role::User => &self.users,
        };
        keyed.as_ref().map_or(Ok(()), |keyed| keyed.take(&caller.subject))
    }

    pub fn keyed(&self) -> impl Iterator<Item = &Keyed> {
        [&self.gateways, &self.admins, &self.users].into_iter().flatten()
    }
}

fn keyed(per_second: u32, burst: u32) -> Option<Keyed> {
    let per_second = NonZeroU32::new(per_second)?;
    let burst = NonZeroU32::new(burst).unwrap_or(per_second);
    Some(Keyed::new(Quota::per_second(per_second).allow_burst(burst), MAX_KEYS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(subject: &str, role: Role) -> Principal {
        Principal { subject: subject.into(), role }
    }

    #[test]
    fn each_caller_has_the_budget_of_its_role() {
        let config = HttpConfig {
            gateway_calls_per_second: 0,
            admin_calls_per_second: 1,
            admin_burst: 3,
            user_calls_per_second: 2,
            user_burst: 0,
            ..HttpConfig::default()
        };
        let callers = Callers::new(&config);
        let served =
            |subject, role| (0..50).filter(|_| callers.admit(&caller(subject, role)).is_ok()).count();
        assert_eq!(served("a", Role::Gateway), 50, "no limit");
        assert_eq!(served("a", Role::Admin), 3, "its burst");
        assert_eq!(served("b", Role::Admin), 3, "another admin");
        assert_eq!(
            served("a", Role::User),
            2,
            "no burst: as many as per second; another role, another budget"
        );
        assert_eq!(callers.admit(&caller("a", Role::User)), Err(Wait(1)));
    }
}
