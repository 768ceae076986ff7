//! What e-mails say, in English and in Portuguese.

use crate::quota::EventKind;

/// The language of an e-mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    English,
    Portuguese,
}

impl Language {
    /// That of a user: Portuguese for every tag that begins with `pt`, else English.
    pub fn of(locale: Option<&str>) -> Self {
        let language = locale.unwrap_or_default().split('-').next().unwrap_or_default();
        if language.eq_ignore_ascii_case("pt") { Self::Portuguese } else { Self::English }
    }

    /// As in `Content-Language` and `lang`.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Portuguese => "pt-BR",
        }
    }
}

/// The subject, which is the headline too, and what it means for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    pub subject: &'static str,
    pub body: &'static str,
    /// Whether buying tokens is what helps.
    pub offers_top_up: bool,
}

macro_rules! texts {
    ($($kind:ident $offers:literal
        en $subject:literal $body:literal
        pt $subject_pt:literal $body_pt:literal)*) => {
        /// The text of an event.
        pub fn text(kind: EventKind, language: Language) -> Text {
            match (kind, language) {
                $(
                    (EventKind::$kind, Language::English) => Text { subject: $subject, body: $body, offers_top_up: $offers },
                    (EventKind::$kind, Language::Portuguese) => {
                        Text { subject: $subject_pt, body: $body_pt, offers_top_up: $offers }
                    }
                )*
            }
        }
    };
}

texts! {
    AlertWarning true
        en "Most of your tokens are used"
           "Your usage has reached the first of your alert thresholds. Nothing is blocked; this is to tell you in time."
        pt "A maior parte dos seus tokens foi usada"
           "Seu uso chegou ao primeiro dos seus limiares de alerta. Nada está bloqueado; este aviso é para você saber a tempo."
    AlertCritical true
        en "Urgent: your tokens are nearly used up"
           "Your usage has reached the second of your alert thresholds. Calls will be refused once all tokens are used."
        pt "Urgente: seus tokens estão quase no fim"
           "Seu uso chegou ao segundo dos seus limiares de alerta. As chamadas serão recusadas quando todos os tokens forem usados."
    AlertBlocked true
        en "Blocked: all your tokens are used"
           "New calls are refused until tokens are added. As soon as they are, calls go through again; there is nothing else to do."
        pt "Bloqueio: todos os seus tokens foram usados"
           "Novas chamadas são recusadas até que tokens sejam adicionados. Assim que forem, as chamadas voltam a passar; não é preciso fazer mais nada."
    AlertRecovered false
        en "Your tokens suffice again"
           "Tokens were added, and your usage is below thresholds that had been reached."
        pt "Seus tokens voltaram a ser suficientes"
           "Tokens foram adicionados, e seu uso está abaixo de limiares que tinham sido atingidos."
    CreditGranted false
        en "Tokens were added to your account"
           "You can use them at once."
        pt "Tokens foram adicionados à sua conta"
           "Você já pode usá-los."
    RenewalRequested true
        en "An automatic renewal waits for its payment"
           "Your tokens ran low, and a renewal was requested. The tokens are added once it is paid."
        pt "Uma renovação automática espera pelo pagamento"
           "Seus tokens estavam acabando, e uma renovação foi pedida. Os tokens entram assim que ela for paga."
    RenewalGranted false
        en "Your tokens were renewed"
           "Your tokens ran low, and were renewed as you have set it up."
        pt "Seus tokens foram renovados"
           "Seus tokens estavam acabando, e foram renovados como você configurou."
    RenewalCapped true
        en "No automatic renewal is left this month"
           "Your tokens ran low again, and as many renewals as you allow in a month have been made. Nothing more is added by itself this month."
        pt "Não há mais renovação automática neste mês"
           "Seus tokens estão acabando de novo, e já foram feitas todas as renovações que você permite por mês. Neste mês nada mais entra automaticamente."
    AnomalyDetected false
        en "Unusual usage of your tokens"
           "In the last hour far more tokens were used than is usual for you. If that is not by your own doing, look at who uses your access."
        pt "Uso incomum dos seus tokens"
           "Na última hora foram usados muito mais tokens do que é comum para você. Se não foi por sua vontade, verifique quem usa o seu acesso."
    ReportReady false
        en "Your monthly report is ready"
           "What you used last month, by day and by model, can now be read and downloaded."
        pt "Seu relatório mensal está pronto"
           "O que você usou no mês passado, por dia e por modelo, já pode ser lido e baixado."
    AccountSuspended false
        en "Your account was suspended"
           "New calls are refused until it is resumed. Your tokens stay as they are. Please ask whoever runs this service."
        pt "Sua conta foi suspensa"
           "Novas chamadas são recusadas até que ela seja reativada. Seus tokens ficam como estão. Fale com quem opera este serviço."
    AccountResumed false
        en "Your account works again"
           "The suspension was lifted, and calls go through."
        pt "Sua conta voltou a funcionar"
           "A suspensão foi retirada, e as chamadas passam."
    WebhookDisabled false
        en "A webhook endpoint was disabled"
           "It said that it wants no more webhooks, or it failed for days. Nothing is sent to it until you enable it again; what was missed can be sent again."
        pt "Um endpoint de webhook foi desativado"
           "Ele disse que não quer mais webhooks, ou falhou por dias. Nada é enviado a ele até que você o ative; o que faltou pode ser reenviado."
}

/// Facts that are shown when an event has them: their name in the event, then what they are called.
pub const FACTS: [(&str, [&str; 2]); 15] = [
    ("tokens", ["Tokens", "Tokens"]),
    ("spent", ["Used", "Usado"]),
    ("limit", ["Of in all", "De um total de"]),
    ("remaining", ["Left", "Restante"]),
    ("percent", ["Used, in percent", "Usado, em porcento"]),
    ("threshold", ["Threshold", "Limiar"]),
    ("reason", ["Reason", "Motivo"]),
    ("month", ["Month", "Mês"]),
    ("hour", ["Hour", "Hora"]),
    ("threshold_tokens", ["Unusual above", "Incomum acima de"]),
    ("typical_tokens", ["Usual", "Comum"]),
    ("expires_at", ["To be paid by", "A pagar até"]),
    ("max_renewals", ["Renewals a month", "Renovações por mês"]),
    ("renewals", ["Renewals this month", "Renovações neste mês"]),
    ("webhook_id", ["Endpoint", "Endpoint"]),
];

/// What an e-mail says around its text.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub top_up: &'static str,
    pub happened: &'static str,
    pub why: &'static str,
}

pub fn frame(language: Language) -> Frame {
    match language {
        Language::English => Frame {
            top_up: "Add tokens",
            happened: "When",
            why: "You receive this because of your account's notification settings; there, e-mails can be turned off.",
        },
        Language::Portuguese => Frame {
            top_up: "Adicionar tokens",
            happened: "Quando",
            why: "Você recebe isto por causa das configurações de notificação da sua conta; lá os e-mails podem ser desligados.",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_told_in_both_languages_without_a_template_in_sight() {
        for kind in EventKind::ALL {
            let [english, portuguese] =
                [Language::English, Language::Portuguese].map(|language| text(kind, language));
            assert_ne!(english.subject, portuguese.subject, "{kind:?}");
            assert_ne!(english.body, portuguese.body, "{kind:?}");
            for text in [english, portuguese] {
                assert!(text.subject.len() <= 60 && !text.body.is_empty(), "{kind:?}");
                assert!(!text.subject.chars().any(char::is_control), "{kind:?}");
            }
        }
    }

    #[test]
    fn portuguese_is_for_who_speaks_it() {
        for (locale, language) in [
            (None, Language::English),
            (Some("pt"), Language::Portuguese),
            (Some("PT-br"), Language::Portuguese),
            (Some("pt-PT"), Language::Portuguese),
            (Some("en-US"), Language::English),
            (Some("ptx"), Language::English),
            (Some("de"), Language::English),
        ] {
            assert_eq!(Language::of(locale), language, "{locale:?}");
        }
    }
}
