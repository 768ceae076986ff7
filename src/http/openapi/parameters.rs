//! Parameters in paths, queries and headers; the handlers read them by the same names.

use utoipa::IntoParams;
use uuid::Uuid;

use super::schemas::{
    AuditNumber, DeliveryId, DeliveryState, EntityTags, EventId, Flagged, HistoryCursor, IdempotencyKey,
    ListFormat, Model, Month, PageLimit, Pending, RenewalState, ReportFormat, ReservationId, Sought, Status,
    Time, TransactionKind, UserId,
};

/// Declares the parameters of one place; those in `Option` may be left out.
macro_rules! parameters {
    ($(#[$about:meta])* $name:ident in $place:ident { $($(#[$of:meta])* $parameter:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(IntoParams)]
        #[into_params(parameter_in = $place)]
        #[expect(dead_code, reason = "describes parameters, and is never made")]
        pub struct $name {
            $($(#[$of])* #[param(nullable = false)] $parameter: $kind,)*
        }
    };
}

parameters! {
    UserPath in Path {
        /// The user.
        id: UserId,
    }
}

parameters! {
    ReservationPath in Path {
        /// The user.
        id: UserId,
        /// The reservation.
        rid: ReservationId,
    }
}

parameters! {
    WebhookPath in Path {
        /// The user.
        id: UserId,
        /// The webhook endpoint.
        wid: Uuid,
    }
}

parameters! {
    DeliveryPath in Path {
        /// The user.
        id: UserId,
        /// The webhook endpoint.
        wid: Uuid,
        /// The delivery.
        did: DeliveryId,
    }
}

parameters! {
    CallerIdHeader in Header {
        /// The id of the reservation or debit, in the place of `id` in the body. Where both stand, they are the same.
        #[param(rename = "Idempotency-Key")]
        idempotency_key: Option<ReservationId>,
    }
}

parameters! {
    CreditKey in Header {
        /// The credit or adjustment is made once per user and key. Keys that begin with `renewal:` are the service's own.
        #[param(rename = "Idempotency-Key")]
        idempotency_key: IdempotencyKey,
    }
}

parameters! {
    Expected in Header {
        /// The `ETag` of what was read, or several, of which one has to be the present one; `*` for whatever there is.
        #[param(rename = "If-Match")]
        if_match: EntityTags,
    }
}

parameters! {
    Known in Header {
        /// The `ETag` of what the caller has, or several: while a read would show just that, its answer is `304`. What is
        /// no list of tags is ignored.
        #[param(rename = "If-None-Match")]
        if_none_match: Option<String>,
    }
}

parameters! {
    ReservationQuery in Query {
        /// Only pending reservations can be listed; what is finished is a transaction.
        state: Option<Pending>,
        /// `next` of the page before.
        after: Option<ReservationId>,
        /// Rows of a page.
        limit: Option<PageLimit>,
    }
}

parameters! {
    CreditQuery in Query {
        /// `next` of the page before.
        before: Option<Uuid>,
        /// Rows of a page.
        limit: Option<PageLimit>,
    }
}

parameters! {
    HistoryQuery in Query {
        /// `next` of the page before.
        before: Option<HistoryCursor>,
        /// Rows of a page.
        limit: Option<PageLimit>,
        /// Only transactions at or after this time.
        from: Option<Time>,
        /// Only transactions before this time, which is later than `from`.
        to: Option<Time>,
        /// Only transactions of this model.
        model: Option<Model>,
        /// Only transactions of this kind.
        kind: Option<TransactionKind>,
        format: Option<ListFormat>,
    }
}

parameters! {
    AnomalyQuery in Query {
        /// `next` of the page before.
        before: Option<Uuid>,
        /// Rows of a page.
        limit: Option<PageLimit>,
    }
}

parameters! {
    AuditQuery in Query {
        /// `next` of the page before.
        before: Option<AuditNumber>,
        /// Rows of a page.
        limit: Option<PageLimit>,
    }
}

parameters! {
    ReportPath in Path {
        /// The user.
        id: UserId,
        /// The month.
        month: Month,
    }
}

parameters! {
    ReportQuery in Query {
        format: Option<ReportFormat>,
    }
}

parameters! {
    ReportsQuery in Query {
        /// `next` of the page before.
        before: Option<Month>,
        /// Rows of a page.
        limit: Option<PageLimit>,
    }
}

parameters! {
    EventQuery in Query {
        /// The last event the caller has; `Last-Event-ID` goes before it.
        after: Option<EventId>,
    }
}

parameters! {
    LastEvent in Header {
        /// The last event the caller has.
        #[param(rename = "Last-Event-ID")]
        last_event_id: Option<EventId>,
    }
}

parameters! {
    DeliveryQuery in Query {
        /// `next` of the page before.
        before: Option<DeliveryId>,
        /// Only those in this state.
        state: Option<DeliveryState>,
        /// Rows of a page.
        limit: Option<PageLimit>,
    }
}

parameters! {
    ConsolidatedQuery in Query {
        /// The month.
        month: Option<Month>,
        /// Users that are named. CSV has all.
        limit: Option<PageLimit>,
        format: Option<ReportFormat>,
    }
}

parameters! {
    AlertQuery in Query {
        /// Only alerts that are open, or only those that are not.
        open: Option<Flagged>,
        /// `next` of the page before.
        before: Option<Uuid>,
        /// Rows of a page.
        limit: Option<PageLimit>,
    }
}

parameters! {
    RenewalPath in Path {
        /// The user.
        id: UserId,
        /// The renewal.
        renewal: Uuid,
    }
}

parameters! {
    RenewalQuery in Query {
        /// Only renewals in this state.
        state: Option<RenewalState>,
        /// `next` of the page before.
        before: Option<Uuid>,
        /// Rows of a page.
        limit: Option<PageLimit>,
    }
}

parameters! {
    UserQuery in Query {
        /// `next` of the page before.
        after: Option<UserId>,
        /// Rows of a page.
        limit: Option<PageLimit>,
        /// Only the user with this address, in whatever case it is written.
        email: Option<Sought>,
        /// Only the user with this external id.
        external_id: Option<Sought>,
        /// Only users of this status.
        status: Option<Status>,
    }
}
