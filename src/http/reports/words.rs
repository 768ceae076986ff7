//! The words of printed reports.

use jiff::{Timestamp, tz::TimeZone};

use crate::{http::language::Language, quota::period::Month};

/// Every text of a report, in one language.
pub struct Words {
    pub report: &'static str,
    pub all_users: &'static str,
    pub user: &'static str,
    pub period: &'static str,
    pub until: &'static str,
    pub provisional: &'static str,
    pub provisional_note: &'static str,
    pub used: &'static str,
    pub requests: &'static str,
    pub granted: &'static str,
    pub late: &'static str,
    pub late_note: &'static str,
    pub remaining: &'static str,
    pub overages: &'static str,
    pub input: &'static str,
    pub output: &'static str,
    pub cached: &'static str,
    pub by_day: &'static str,
    pub by_model: &'static str,
    pub by_user: &'static str,
    pub grants: &'static str,
    pub model: &'static str,
    pub no_model: &'static str,
    pub tokens: &'static str,
    pub kind: &'static str,
    pub count: &'static str,
    pub users: &'static str,
    pub untold: &'static str,
    pub nothing: &'static str,
    pub closing: &'static str,
    pub total: &'static str,
    pub produced: &'static str,
    months: [&'static str; 12],
    kinds: [(&'static str, &'static str); 4],
    /// What stands between month and year.
    of_year: &'static str,
}

static ENGLISH: Words = Words {
    report: "Usage report",
    all_users: "All users",
    user: "User",
    period: "Period",
    until: "to",
    provisional: "provisional",
    provisional_note: "The month runs, or its last transactions may still arrive: numbers may change.",
    used: "Tokens used",
    requests: "Requests",
    granted: "Tokens granted",
    late: "Late from earlier months",
    late_note: "Tokens used in earlier months that had not arrived when their reports were written.",
    remaining: "Remaining at the end",
    overages: "Overages",
    input: "Input",
    output: "Output",
    cached: "Cached input",
    by_day: "By day",
    by_model: "By model",
    by_user: "Users with the most tokens",
    grants: "Grants",
    model: "Model",
    no_model: "(none named)",
    tokens: "Tokens",
    kind: "Kind",
    count: "Number",
    users: "Users with use",
    untold: "Users without a final report",
    nothing: "Nothing was used.",
    closing: "Balance at the end",
    total: "Granted in all",
    produced: "Produced",
    months: [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ],
    kinds: [
        ("purchase", "Purchase"),
        ("bonus", "Bonus"),
        ("renewal", "Automatic renewal"),
        ("adjustment", "Adjustment"),
    ],
    of_year: " ",
};

static PORTUGUESE: Words = Words {
    report: "Relatório de uso",
    all_users: "Todos os usuários",
    user: "Usuário",
    period: "Período",
    until: "a",
    provisional: "provisório",
    provisional_note: "O mês está em curso, ou suas últimas transações ainda podem chegar: os números podem mudar.",
    used: "Tokens usados",
    requests: "Requisições",
    granted: "Tokens concedidos",
    late: "Atrasados de meses anteriores",
    late_note: "Tokens usados em meses anteriores que ainda não tinham chegado quando os relatórios foram escritos.",
    remaining: "Saldo no fim",
    overages: "Excessos",
    input: "Entrada",
    output: "Saída",
    cached: "Entrada em cache",
    by_day: "Por dia",
    by_model: "Por modelo",
    by_user: "Usuários com mais tokens",
    grants: "Concessões",
    model: "Modelo",
    no_model: "(não informado)",
    tokens: "Tokens",
    kind: "Tipo",
    count: "Quantidade",
    users: "Usuários com uso",
    untold: "Usuários sem relatório final",
    nothing: "Nada foi usado.",
    closing: "Saldo no fim do período",
    total: "Concedidos ao todo",
    produced: "Gerado",
    months: [
        "janeiro",
        "fevereiro",
        "março",
        "abril",
        "maio",
        "junho",
        "julho",
        "agosto",
        "setembro",
        "outubro",
        "novembro",
        "dezembro",
    ],
    kinds: [
        ("purchase", "Compra"),
        ("bonus", "Bônus"),
        ("renewal", "Renovação automática"),
        ("adjustment", "Ajuste"),
    ],
    of_year: " de ",
};

impl Words {
    pub fn of(language: Language) -> &'static Self {
        match language {
            Language::English => &ENGLISH,
            Language::Portuguese => &PORTUGUESE,
        }
    }

    /// A month with its year.
    pub fn month(&self, month: Month) -> String {
        let first = month.first_day();
        let name = usize::try_from(first.month() - 1).ok().and_then(|place| self.months.get(place));
        format!("{}{}{}", name.unwrap_or(&""), self.of_year, first.year())
    }

    /// The kind of a grant; one that has no words yet by its name.
    pub fn kind<'a>(&self, kind: &'a str) -> &'a str {
        self.kinds.iter().find(|(name, _)| *name == kind).map_or(kind, |(_, word)| *word)
    }
}

/// A time as clocks in the zone show it.
pub fn time(at: Timestamp, zone: &TimeZone, language: Language) -> String {
    let format = match language {
        Language::English => "%Y-%m-%d %H:%M %:z",
        Language::Portuguese => "%d/%m/%Y %H:%M %:z",
    };
    at.to_zoned(zone.clone()).strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::GrantKind;

    #[test]
    fn months_and_times_are_written_as_the_reader_does_it() {
        let month: Month = "2026-03".parse().unwrap();
        assert_eq!(Words::of(Language::English).month(month), "March 2026");
        assert_eq!(Words::of(Language::Portuguese).month(month), "março de 2026");
        let zone = TimeZone::get("America/Sao_Paulo").unwrap();
        let at = "2026-04-01T02:30:00Z".parse().unwrap();
        assert_eq!(time(at, &zone, Language::English), "2026-03-31 23:30 -03:00");
        assert_eq!(time(at, &zone, Language::Portuguese), "31/03/2026 23:30 -03:00");
    }

    #[test]
    fn every_kind_of_grant_has_words_in_both_languages() {
        for kind in GrantKind::ALL.map(GrantKind::as_str) {
            for language in [Language::English, Language::Portuguese] {
                assert_ne!(Words::of(language).kind(kind), kind, "{kind}");
            }
        }
    }
}
