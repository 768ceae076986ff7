//! What requests look like: the members of every body, in one place for whom they concern: [`super::json::Object`] takes
//! a body apart by `MEMBERS`, and the description of the API shows the struct.
//!
//! The structs only describe. serde's own derive cannot read these bodies: see [`super::json`].

mod operations;

use utoipa::ToSchema;

pub use operations::{
    BatchOperation, DebitOperation, ExtendOperation, ReleaseOperation, ReserveOperation, SettleOperation,
};

use super::openapi::schemas::{
    AlertThreshold, CreditKind, CreditTokens, Currency, Direction, Email, Event, ExternalId, Locale,
    MaxRenewals, Metadata, Model, Money, OverlapSeconds, PaymentName, PaymentReference, Reason, RenewalMode,
    RenewalThreshold, RequestId, ReservationId, TimeZone, Tokens, TransactionId, TtlSeconds, UsageUnknown,
    UserId, WebhookUrl, Whole,
};

/// Declares a body by its members: those without `Option` are required.
macro_rules! body {
    ($(#[$about:meta])* $name:ident { $($(#[$of_member:meta])* $member:ident: $kind:ty,)* }) => {
        #[derive(ToSchema)]
        $(#[$about])*
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "describes a body, and is never made")]
        pub struct $name {
            // A member may be left out; `null` is refused, unless the member says otherwise.
            $($(#[$of_member])* #[schema(nullable = false)] $member: $kind,)*
        }

        impl $name {
            /// The names of all members.
            pub const MEMBERS: [&'static str; <[&str]>::len(&[$(stringify!($member)),*])] =
                [$(stringify!($member)),*];
        }
    };
}

body! {
    /// Holds tokens. Exactly one of `tokens` and `estimate`.
    Reserve {
        /// The caller's idempotency key; may stand in `Idempotency-Key` instead. Made by the server when neither is
        /// there, and then only the answer knows it.
        id: Option<ReservationId>,
        /// How many to hold; 0 for a model that is free.
        tokens: Option<Tokens>,
        /// What to hold, by the call's parts.
        estimate: Option<Estimate>,
        /// The model to be called.
        model: Option<Model>,
        /// How long the reservation lives without a settle or release.
        #[schema(default = json!(crate::quota::DEFAULT_TTL_SECONDS))]
        ttl_seconds: Option<TtlSeconds>,
        /// Anything the caller wants to find on the reservation.
        metadata: Option<Metadata>,
    }
}

body! {
    /// The most a call can use: `input_tokens` and `max_output_tokens` together, at most 10^12.
    Estimate {
        /// The model to be called; where the body names one too, it is the same.
        model: Model,
        input_tokens: Tokens,
        max_output_tokens: Tokens,
    }
}

body! {
    /// What the call has used. Exactly one of `tokens` and `usage`: leaving both out is never taken as zero.
    Settle {
        /// All tokens to charge. 0 charges nothing and gives everything back.
        tokens: Option<Tokens>,
        /// What the provider reported, or the word `unknown`: then what was reserved is charged, flagged `estimated`.
        usage: Option<ReportedOrUnknown>,
        /// The model that was called; the reservation's when absent.
        model: Option<Model>,
        /// The caller's own id of the call, for the ledger.
        request_id: Option<RequestId>,
    }
}

/// Numbers, or one word in their place.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes a member, and is never made")]
pub enum ReportedOrUnknown {
    Reported(Usage),
    Unknown(UsageUnknown),
}

body! {
    /// Usage as the model's provider reports it; input and output together are charged, at most 10^12.
    Usage {
        /// The model that was called; where the body names one too, it is the same.
        model: Option<Model>,
        input_tokens: Tokens,
        output_tokens: Tokens,
        /// The part of `input_tokens` that came from a cache; never more than it.
        cached_input_tokens: Option<Tokens>,
    }
}

body! {
    /// What to raise; at least one member. All are absolute and never lower anything, so that a repeat is harmless.
    #[schema(min_properties = 1)]
    Extend {
        /// New total to hold.
        tokens: Option<Tokens>,
        /// New time to live, counted from now.
        ttl_seconds: Option<TtlSeconds>,
        /// What the running call has used so far; charged should the reservation expire.
        used_tokens: Option<Tokens>,
    }
}

body! {
    /// Usage to charge without a reservation. Exactly one of `tokens` and `usage`.
    Debit {
        /// The caller's idempotency key; may stand in `Idempotency-Key` instead, but one of the two is required.
        id: Option<ReservationId>,
        /// All tokens to charge.
        tokens: Option<Tokens>,
        /// What the provider reported.
        usage: Option<Usage>,
        /// The model that was called.
        model: Option<Model>,
        /// The caller's own id of the call, for the ledger.
        request_id: Option<RequestId>,
    }
}

body! {
    /// A new user, with nothing granted.
    CreateUser {
        email: Email,
        /// Made by the server when absent.
        id: Option<UserId>,
        /// The operator's own name for the user.
        external_id: Option<ExternalId>,
        /// The language the user is written to in.
        locale: Option<Locale>,
        /// Where the user's days and months begin.
        time_zone: Option<TimeZone>,
    }
}

body! {
    /// What to change; at least one member. What is left out stays as it is, and `null` clears what may be absent.
    #[schema(min_properties = 1)]
    UpdateUser {
        email: Option<Email>,
        /// The operator's own name for the user.
        #[schema(nullable)]
        external_id: Option<ExternalId>,
        /// The language the user is written to in.
        #[schema(nullable)]
        locale: Option<Locale>,
        /// Where the user's days and months begin.
        #[schema(nullable)]
        time_zone: Option<TimeZone>,
        /// The share of the total at which the user is warned.
        alert_threshold: Option<AlertThreshold>,
    }
}

body! {
    /// Operations on any users, in a body of at most 512 KiB.
    Batch {
        #[schema(min_items = 1, max_items = 256)]
        operations: Vec<BatchOperation>,
    }
}

body! {
    /// Tokens to give, at least 1. A purchase names its payment: `payment_method`, `amount` and `currency` at least. A
    /// bonus names none.
    Credit {
        tokens: CreditTokens,
        /// Follows from the rest: with a payment it is a purchase, without one a bonus. Where it is sent, it agrees.
        kind: Option<CreditKind>,
        /// For whoever reads the list of credits.
        reason: Option<Reason>,
        /// How it was paid.
        payment_method: Option<PaymentName>,
        /// What was paid, in whole units of the currency.
        amount: Option<Money>,
        currency: Option<Currency>,
        /// Who took the payment.
        #[schema(default = json!(crate::accounts::credits::DEFAULT_PROVIDER))]
        provider: Option<PaymentName>,
        /// The provider's own id of the payment: credited once among all users, whatever the `Idempotency-Key`.
        provider_reference: Option<PaymentReference>,
    }
}

body! {
    /// A correction by hand.
    Adjustment {
        direction: Direction,
        tokens: CreditTokens,
        /// Why: part of the history.
        reason: Reason,
        /// The transaction that is reversed (`up`) or corrected: what is given back of it in all never exceeds what it
        /// charged.
        transaction_id: Option<TransactionId>,
    }
}

body! {
    /// The shares of the total at which the user is told; all that is left out is not kept.
    AlertConfig {
        /// No later than `critical`.
        warning: AlertThreshold,
        critical: AlertThreshold,
        /// Always 1; may be left out.
        blocked: Option<Whole>,
    }
}

body! {
    /// How tokens are renewed; all members, since nothing that is left out is kept.
    AutoRenewal {
        enabled: bool,
        /// Due when what is left is at or below this share of the total.
        threshold: RenewalThreshold,
        /// What a renewal adds.
        tokens: CreditTokens,
        max_renewals: MaxRenewals,
        mode: RenewalMode,
    }
}

body! {
    /// The payment of a renewal, or nothing at all: no body, or an object without members.
    RenewalPayment {
        /// How it was paid.
        payment_method: Option<PaymentName>,
        /// What was paid, in whole units of the currency.
        amount: Option<Money>,
        currency: Option<Currency>,
        /// Who took the payment.
        #[schema(default = json!(crate::accounts::credits::DEFAULT_PROVIDER))]
        provider: Option<PaymentName>,
        /// The provider's own id of the payment: credited once among all users.
        provider_reference: Option<PaymentReference>,
    }
}

body! {
    /// Where webhooks are to be sent.
    CreateWebhook {
        url: WebhookUrl,
        /// Kinds of events to be sent; all when absent.
        #[schema(min_items = 1)]
        events: Option<Vec<Event>>,
    }
}

body! {
    /// What to change; at least one member. What is left out stays as it is.
    #[schema(min_properties = 1)]
    UpdateWebhook {
        url: Option<WebhookUrl>,
        /// Kinds of events to be sent; `null` for all.
        #[schema(nullable, min_items = 1)]
        events: Option<Vec<Event>>,
        /// Whether anything is sent.
        enabled: Option<bool>,
    }
}

body! {
    /// What the user is to be told from now on; all members.
    ReplaceNotificationSettings {
        /// Whether the user is written e-mails.
        email_enabled: bool,
        /// Kinds of events that are told by e-mail; `null` for all.
        #[schema(nullable, required, min_items = 1)]
        email_events: Option<Vec<Event>>,
        /// Whether anything is sent to the user's webhook endpoints.
        webhooks_enabled: bool,
    }
}

body! {
    /// How to change over.
    RotateSecret {
        /// How long the old secret goes on signing beside the new one; 0 if it is known to others.
        #[schema(default = json!(crate::notify::endpoints::DEFAULT_OVERLAP_SECONDS))]
        overlap_seconds: Option<OverlapSeconds>,
    }
}

body! {
    /// Nothing: no body, or an object without members.
    Empty {}
}
