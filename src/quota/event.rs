//! What can happen to an account that is worth telling its user.

/// The kind of an event, as webhooks, e-mails and the live stream name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The first threshold was reached (80 % unless configured).
    AlertWarning,
    /// The second threshold was reached (95 % unless configured).
    AlertCritical,
    /// Everything is used: the next reserve is refused.
    AlertBlocked,
    /// A grant put the usage below thresholds that had fired.
    AlertRecovered,
    CreditGranted,
    /// An automatic renewal waits for its payment.
    RenewalRequested,
    RenewalGranted,
    /// A renewal was due, and the month's number of renewals is used up.
    RenewalCapped,
    AnomalyDetected,
    /// A monthly report has been made.
    ReportReady,
    AccountSuspended,
    AccountResumed,
    /// A webhook endpoint is sent nothing any more: it said so, or failed for days.
    WebhookDisabled,
}

impl EventKind {
    pub const ALL: [Self; 13] = [
        Self::AlertWarning,
        Self::AlertCritical,
        Self::AlertBlocked,
        Self::AlertRecovered,
        Self::CreditGranted,
        Self::RenewalRequested,
        Self::RenewalGranted,
        Self::RenewalCapped,
        Self::AnomalyDetected,
        Self::ReportReady,
        Self::AccountSuspended,
        Self::AccountResumed,
        Self::WebhookDisabled,
    ];

    /// The name in SQL, payloads and filters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlertWarning => "alert.warning",
            Self::AlertCritical => "alert.critical",
            Self::AlertBlocked => "alert.blocked",
            Self::AlertRecovered => "alert.recovered",
            Self::CreditGranted => "credit.granted",
            Self::RenewalRequested => "renewal.requested",
            Self::RenewalGranted => "renewal.granted",
            Self::RenewalCapped => "renewal.capped",
            Self::AnomalyDetected => "anomaly.detected",
            Self::ReportReady => "report.ready",
            Self::AccountSuspended => "account.suspended",
            Self::AccountResumed => "account.resumed",
            Self::WebhookDisabled => "webhook.disabled",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}
