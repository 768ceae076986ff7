//! The stable codes of problems: the same word in body, log, metric and `docs/ERRORS.md`.

use axum::http::StatusCode;

use super::language::Language;

/// Title and detail in one language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    pub title: &'static str,
    pub detail: &'static str,
}

/// One line per code: variant, word, status, then title and detail in English and in Portuguese.
macro_rules! codes {
    ($($variant:ident $word:literal $status:ident
        en $title:literal $detail:literal
        pt $title_pt:literal $detail_pt:literal)*) => {
        /// Why a call was not done. Stable: callers decide by it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($variant,)*
        }

        impl Code {
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$variant),*];

            /// The word in bodies, logs, metrics and docs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            pub fn text(self, language: Language) -> Text {
                match (self, language) {
                    $(
                        (Self::$variant, Language::English) => Text { title: $title, detail: $detail },
                        (Self::$variant, Language::Portuguese) => Text { title: $title_pt, detail: $detail_pt },
                    )*
                }
            }
        }
    };
}

codes! {
    MalformedJson "malformed_json" BAD_REQUEST
        en "Malformed JSON" "The body is not a complete JSON text."
        pt "JSON malformado" "O corpo não é um texto JSON completo."
    IncompleteBody "incomplete_body" BAD_REQUEST
        en "Incomplete body" "The body ended before it was complete."
        pt "Corpo incompleto" "O corpo terminou antes de estar completo."
    Unauthenticated "unauthenticated" UNAUTHORIZED
        en "Not authenticated" "Send a valid JWT in the Authorization header."
        pt "Não autenticado" "Envie um JWT válido no cabeçalho Authorization."
    InsufficientTokens "insufficient_tokens" PAYMENT_REQUIRED
        en "Not enough tokens" "The reservation asks for more tokens than are available. Only a credit helps."
        pt "Tokens insuficientes" "A reserva pede mais tokens do que há disponíveis. Só um crédito resolve."
    Forbidden "forbidden" FORBIDDEN
        en "Access denied" "These credentials do not give access to this resource."
        pt "Acesso negado" "Estas credenciais não dão acesso a este recurso."
    UserSuspended "user_suspended" FORBIDDEN
        en "User suspended" "The account is suspended and cannot reserve tokens."
        pt "Usuário suspenso" "A conta está suspensa e não pode reservar tokens."
    RouteNotFound "route_not_found" NOT_FOUND
        en "No such route" "There is nothing at this path."
        pt "Rota inexistente" "Não há nada neste caminho."
    UserNotFound "user_not_found" NOT_FOUND
        en "User not found" "There is no user with this id."
        pt "Usuário não encontrado" "Não há usuário com este id."
    ReportNotFound "report_not_found" NOT_FOUND
        en "Report not found" "The month is to come, or ended before there was the user."
        pt "Relatório não encontrado" "O mês ainda não chegou, ou terminou antes de o usuário existir."
    ReservationNotFound "reservation_not_found" NOT_FOUND
        en "Reservation not found" "This user has no reservation with this id."
        pt "Reserva não encontrada" "Este usuário não tem reserva com este id."
    WebhookNotFound "webhook_not_found" NOT_FOUND
        en "Webhook not found" "This user has no webhook endpoint with this id."
        pt "Webhook não encontrado" "Este usuário não tem endpoint de webhook com este id."
    DeliveryNotFound "delivery_not_found" NOT_FOUND
        en "Delivery not found" "This webhook endpoint has no delivery with this id, or it is too old."
        pt "Entrega não encontrada" "Este endpoint de webhook não tem entrega com este id, ou ela é antiga demais."
    TransactionNotFound "transaction_not_found" NOT_FOUND
        en "Transaction not found" "The ledger has no transaction of this user with this id."
        pt "Transação não encontrada" "O registro não tem transação deste usuário com este id."
    RenewalNotFound "renewal_not_found" NOT_FOUND
        en "Renewal not found" "This user has no renewal with this id."
        pt "Renovação não encontrada" "Este usuário não tem renovação com este id."
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED
        en "Method not allowed" "This path does not take this method; the Allow header lists those it takes."
        pt "Método não permitido" "Este caminho não aceita este método; o cabeçalho Allow lista os aceitos."
    BodyTimeout "body_timeout" REQUEST_TIMEOUT
        en "Body too slow" "The body did not arrive in time."
        pt "Corpo lento demais" "O corpo não chegou a tempo."
    IdempotencyMismatch "idempotency_mismatch" CONFLICT
        en "Id used with other numbers" "This id was used before with other contents. Nothing was changed."
        pt "Id usado com outros números" "Este id já foi usado com outro conteúdo. Nada foi alterado."
    ReservationFinished "reservation_finished" CONFLICT
        en "Reservation finished" "The reservation has reached its end state and holds nothing."
        pt "Reserva encerrada" "A reserva chegou ao seu estado final e não retém nada."
    PaymentUsed "payment_used" CONFLICT
        en "Payment credited before" "This payment was credited before, with other facts or elsewhere. Nothing was changed."
        pt "Pagamento já creditado" "Este pagamento já foi creditado, com outros fatos ou em outro lugar. Nada foi alterado."
    RenewalFinished "renewal_finished" CONFLICT
        en "Renewal finished" "The renewal was cancelled or has expired. A payment that came after all is a purchase."
        pt "Renovação encerrada" "A renovação foi cancelada ou expirou. Um pagamento que ainda assim chegou é uma compra."
    EmailTaken "email_taken" CONFLICT
        en "E-mail address taken" "Another user has this e-mail address."
        pt "E-mail já em uso" "Outro usuário tem este endereço de e-mail."
    ExternalIdTaken "external_id_taken" CONFLICT
        en "External id taken" "Another user has this external id."
        pt "Id externo já em uso" "Outro usuário tem este id externo."
    UserIdTaken "user_id_taken" CONFLICT
        en "User id taken" "Another user has this id."
        pt "Id de usuário já em uso" "Outro usuário tem este id."
    WebhookUrlTaken "webhook_url_taken" CONFLICT
        en "Webhook URL taken" "This user has a webhook endpoint with this URL."
        pt "URL de webhook já em uso" "Este usuário já tem um endpoint de webhook com esta URL."
    TooManyWebhooks "too_many_webhooks" CONFLICT
        en "Too many webhooks" "This user has as many webhook endpoints as it may. Delete one first."
        pt "Webhooks demais" "Este usuário tem todos os endpoints de webhook que pode ter. Exclua um antes."
    WebhookDisabled "webhook_disabled" CONFLICT
        en "Webhook disabled" "Nothing is sent to this webhook endpoint. Enable it first."
        pt "Webhook desativado" "Nada é enviado a este endpoint de webhook. Ative-o antes."
    PreconditionFailed "precondition_failed" PRECONDITION_FAILED
        en "Changed meanwhile" "The resource has changed since it was read. Nothing was changed; read it again."
        pt "Alterado nesse meio-tempo" "O recurso mudou desde que foi lido. Nada foi alterado; leia-o de novo."
    BodyTooLarge "body_too_large" PAYLOAD_TOO_LARGE
        en "Body too large" "The body has more bytes than the limit."
        pt "Corpo grande demais" "O corpo tem mais bytes do que o limite."
    UnsupportedMediaType "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE
        en "Unsupported media type" "Send the body as application/json."
        pt "Tipo de mídia não suportado" "Envie o corpo como application/json."
    InvalidBody "invalid_body" UNPROCESSABLE_ENTITY
        en "Invalid body" "A member of the body has the wrong type, or the body is not an object."
        pt "Corpo inválido" "Um membro do corpo tem o tipo errado, ou o corpo não é um objeto."
    UnknownField "unknown_field" UNPROCESSABLE_ENTITY
        en "Unknown field" "The body has a member that this call does not know."
        pt "Campo desconhecido" "O corpo tem um membro que esta chamada não conhece."
    DuplicateField "duplicate_field" UNPROCESSABLE_ENTITY
        en "Duplicate field" "A member stands twice in the body."
        pt "Campo duplicado" "Um membro aparece duas vezes no corpo."
    MissingField "missing_field" UNPROCESSABLE_ENTITY
        en "Missing field" "A required member is missing."
        pt "Campo ausente" "Falta um membro obrigatório."
    ConflictingFields "conflicting_fields" UNPROCESSABLE_ENTITY
        en "Conflicting fields" "Members that exclude each other were sent, or the same fact twice and differently."
        pt "Campos em conflito" "Foram enviados membros que se excluem, ou o mesmo fato duas vezes e diferente."
    InvalidBatch "invalid_batch" UNPROCESSABLE_ENTITY
        en "Invalid batch" "A batch has 1 to 256 operations."
        pt "Lote inválido" "Um lote tem de 1 a 256 operações."
    UnknownOperation "unknown_operation" UNPROCESSABLE_ENTITY
        en "Unknown operation" "op is reserve, settle, release, extend or debit."
        pt "Operação desconhecida" "op é reserve, settle, release, extend ou debit."
    InvalidAmount "invalid_amount" UNPROCESSABLE_ENTITY
        en "Invalid amount" "An amount is a whole number, written in digits alone; a credit is at least 1."
        pt "Quantidade inválida" "Uma quantidade é um número inteiro, só com dígitos; um crédito é de pelo menos 1."
    AmountOutOfRange "amount_out_of_range" UNPROCESSABLE_ENTITY
        en "Amount out of range" "An operation carries at most 10^12 tokens, and a total stays below 2^53."
        pt "Quantidade fora do limite" "Uma operação leva no máximo 10^12 tokens, e um total fica abaixo de 2^53."
    InvalidUserId "invalid_user_id" UNPROCESSABLE_ENTITY
        en "Invalid user id" "A user id is a UUID in its hyphenated form, and not nil."
        pt "Id de usuário inválido" "Um id de usuário é um UUID na forma com hifens, e não nulo."
    InvalidReservationId "invalid_reservation_id" UNPROCESSABLE_ENTITY
        en "Invalid reservation id" "A reservation id is 1 to 128 characters of A-Z a-z 0-9 . _ -"
        pt "Id de reserva inválido" "Um id de reserva tem 1 a 128 caracteres de A-Z a-z 0-9 . _ -"
    InvalidTtl "invalid_ttl" UNPROCESSABLE_ENTITY
        en "Invalid time to live" "ttl_seconds is a whole number from 1 to 86400."
        pt "Tempo de vida inválido" "ttl_seconds é um número inteiro de 1 a 86400."
    InvalidModel "invalid_model" UNPROCESSABLE_ENTITY
        en "Invalid model" "A model name is 1 to 100 bytes without control characters."
        pt "Modelo inválido" "Um nome de modelo tem 1 a 100 bytes sem caracteres de controle."
    InvalidRequestId "invalid_request_id" UNPROCESSABLE_ENTITY
        en "Invalid request id" "A request id is 1 to 255 bytes without control characters."
        pt "Id de requisição inválido" "Um id de requisição tem 1 a 255 bytes sem caracteres de controle."
    InvalidMetadata "invalid_metadata" UNPROCESSABLE_ENTITY
        en "Invalid metadata" "metadata is a JSON object of at most 1024 bytes."
        pt "Metadados inválidos" "metadata é um objeto JSON de no máximo 1024 bytes."
    InvalidMonth "invalid_month" UNPROCESSABLE_ENTITY
        en "Invalid month" "A month is written YYYY-MM."
        pt "Mês inválido" "Um mês se escreve AAAA-MM."
    InvalidEmail "invalid_email" UNPROCESSABLE_ENTITY
        en "Invalid e-mail address" "An e-mail address has a local part, an @ and a domain, and at most 254 bytes."
        pt "E-mail inválido" "Um e-mail tem parte local, @ e domínio, e no máximo 254 bytes."
    InvalidExternalId "invalid_external_id" UNPROCESSABLE_ENTITY
        en "Invalid external id" "An external id is 1 to 255 bytes without NUL."
        pt "Id externo inválido" "Um id externo tem 1 a 255 bytes sem NUL."
    InvalidLocale "invalid_locale" UNPROCESSABLE_ENTITY
        en "Invalid locale" "A locale is a language tag such as en or pt-BR."
        pt "Localidade inválida" "Uma localidade é uma etiqueta de idioma, como en ou pt-BR."
    InvalidTimeZone "invalid_time_zone" UNPROCESSABLE_ENTITY
        en "Invalid time zone" "A time zone is an IANA name such as America/Sao_Paulo."
        pt "Fuso horário inválido" "Um fuso horário é um nome IANA, como America/Sao_Paulo."
    InvalidAlertThreshold "invalid_alert_threshold" UNPROCESSABLE_ENTITY
        en "Invalid alert threshold" "An alert threshold is a number above 0 and at most 1, with up to 4 decimals; the warning comes no later than the critical one."
        pt "Limiar de alerta inválido" "Um limiar de alerta é um número acima de 0 e até 1, com no máximo 4 casas decimais; o aviso não vem depois do crítico."
    InvalidEntityTag "invalid_entity_tag" UNPROCESSABLE_ENTITY
        en "Invalid entity tag" "If-Match is * or a list of quoted tags, as they came in ETag."
        pt "Etiqueta de entidade inválida" "If-Match é * ou uma lista de etiquetas entre aspas, como vieram em ETag."
    InvalidKind "invalid_kind" UNPROCESSABLE_ENTITY
        en "Invalid kind" "The kind of a credit is purchase or bonus."
        pt "Tipo inválido" "O tipo de um crédito é purchase ou bonus."
    InvalidPayment "invalid_payment" UNPROCESSABLE_ENTITY
        en "Invalid payment" "An amount is a text of up to 9 digits and 9 decimals, a currency three capital letters; names are printable."
        pt "Pagamento inválido" "Um valor é um texto com até 9 dígitos e 9 decimais, uma moeda três maiúsculas; nomes são imprimíveis."
    InvalidRenewal "invalid_renewal" UNPROCESSABLE_ENTITY
        en "Invalid renewal" "A renewal has a threshold below 1, at most 100 renewals a month, and the mode immediate or on_payment."
        pt "Renovação inválida" "Uma renovação tem limiar abaixo de 1, no máximo 100 renovações por mês e o modo immediate ou on_payment."
    InvalidRenewalId "invalid_renewal_id" UNPROCESSABLE_ENTITY
        en "Invalid renewal id" "A renewal id is a UUID in its hyphenated form."
        pt "Id de renovação inválido" "Um id de renovação é um UUID na forma com hifens."
    InvalidDirection "invalid_direction" UNPROCESSABLE_ENTITY
        en "Invalid direction" "The direction of an adjustment is up or down."
        pt "Direção inválida" "A direção de um ajuste é up ou down."
    InvalidTransactionId "invalid_transaction_id" UNPROCESSABLE_ENTITY
        en "Invalid transaction id" "A transaction id is a UUID."
        pt "Id de transação inválido" "Um id de transação é um UUID."
    AdjustmentTooLarge "adjustment_too_large" UNPROCESSABLE_ENTITY
        en "Adjustment too large" "An adjustment takes no more than was granted, and gives back no more than its transaction charged."
        pt "Ajuste grande demais" "Um ajuste não tira mais do que foi concedido, nem devolve mais do que a transação cobrou."
    InvalidReason "invalid_reason" UNPROCESSABLE_ENTITY
        en "Invalid reason" "A reason is 1 to 1000 bytes without NUL."
        pt "Motivo inválido" "Um motivo tem 1 a 1000 bytes sem NUL."
    MissingIdempotencyKey "missing_idempotency_key" UNPROCESSABLE_ENTITY
        en "Missing idempotency key" "Send an Idempotency-Key header, so that a repeat cannot count twice."
        pt "Chave de idempotência ausente" "Envie um cabeçalho Idempotency-Key, para que uma repetição não conte duas vezes."
    InvalidIdempotencyKey "invalid_idempotency_key" UNPROCESSABLE_ENTITY
        en "Invalid idempotency key" "An Idempotency-Key is 1 to 255 printable ASCII characters, sent once."
        pt "Chave de idempotência inválida" "Uma Idempotency-Key tem 1 a 255 caracteres ASCII imprimíveis, enviada uma vez."
    InvalidWebhookUrl "invalid_webhook_url" UNPROCESSABLE_ENTITY
        en "Invalid webhook URL" "A webhook URL begins with https://, leads to the public internet and has no user name or fragment."
        pt "URL de webhook inválida" "Uma URL de webhook começa com https://, leva à internet pública e não tem usuário nem fragmento."
    InvalidEvents "invalid_events" UNPROCESSABLE_ENTITY
        en "Invalid events" "events is a list of at least one known kind of event."
        pt "Eventos inválidos" "events é uma lista de ao menos um tipo de evento conhecido."
    InvalidOverlap "invalid_overlap" UNPROCESSABLE_ENTITY
        en "Invalid overlap" "overlap_seconds is a whole number from 0 to 604800."
        pt "Sobreposição inválida" "overlap_seconds é um número inteiro de 0 a 604800."
    InvalidQuery "invalid_query" UNPROCESSABLE_ENTITY
        en "Invalid query" "A query parameter is unknown, stands twice or has a wrong value."
        pt "Consulta inválida" "Um parâmetro da consulta é desconhecido, repetido ou tem valor errado."
    PreconditionRequired "precondition_required" PRECONDITION_REQUIRED
        en "Precondition required" "Send If-Match with the ETag of what you have read, so that nobody's change is lost."
        pt "Precondição necessária" "Envie If-Match com o ETag do que você leu, para que nenhuma alteração se perca."
    TooManyRequests "too_many_requests" TOO_MANY_REQUESTS
        en "Too many failed authentications" "This network sent too many JWTs that are not valid. Wait, then send a valid one."
        pt "Autenticações falhas demais" "Esta rede enviou JWTs inválidos demais. Espere e envie um válido."
    RateLimited "rate_limited" TOO_MANY_REQUESTS
        en "Too many calls" "This caller makes more calls per second than it may. Nothing was done; wait, then go on."
        pt "Chamadas demais" "Este cliente faz mais chamadas por segundo do que pode. Nada foi feito; espere e continue."
    TooManyStreams "too_many_streams" TOO_MANY_REQUESTS
        en "Too many streams" "This user has as many live streams as it may. Close one first."
        pt "Fluxos demais" "Este usuário tem todos os fluxos ao vivo que pode ter. Feche um antes."
    Internal "internal_error" INTERNAL_SERVER_ERROR
        en "Internal error" "Something is wrong on our side; the operators can see it."
        pt "Erro interno" "Algo está errado do nosso lado; os operadores podem ver."
    Starting "starting" SERVICE_UNAVAILABLE
        en "Starting" "The service waits for its database and serves nothing yet. Nothing was done; try again."
        pt "Iniciando" "O serviço espera pelo banco de dados e ainda não atende. Nada foi feito; tente de novo."
    Overloaded "overloaded" SERVICE_UNAVAILABLE
        en "Too busy" "Too many calls are waiting. Nothing was done; try again."
        pt "Ocupado demais" "Há chamadas demais esperando. Nada foi feito; tente de novo."
    LedgerUnavailable "ledger_unavailable" SERVICE_UNAVAILABLE
        en "Ledger not available" "The ledger gave no definite answer. Try again with the same id."
        pt "Registro indisponível" "O registro não deu resposta definitiva. Tente de novo com o mesmo id."
    StoreUnavailable "store_unavailable" SERVICE_UNAVAILABLE
        en "Store not available" "The database gave no definite answer. Try again; with the same key, where there is one."
        pt "Banco indisponível" "O banco de dados não deu resposta definitiva. Tente de novo; com a mesma chave, se houver."
}

/// Counts a problem. The one place where problems meet the metrics.
pub fn count(code: Code) {
    crate::metrics::problem(code.as_str());
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn words_are_unique_and_snake_case() {
        let words: HashSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        for word in words {
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{word}");
        }
    }

    #[test]
    fn every_code_is_an_error_and_speaks_both_languages() {
        for code in Code::ALL {
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{code:?}");
            let (english, portuguese) = (code.text(Language::English), code.text(Language::Portuguese));
            assert_ne!(english.title, portuguese.title, "{code:?}");
            assert_ne!(english.detail, portuguese.detail, "{code:?}");
        }
    }

    /// Callers are told what to do about each; a code that nobody can look up is no help.
    #[test]
    fn every_code_has_its_line_in_the_docs() {
        let docs = include_str!("../../docs/ERRORS.md");
        for code in Code::ALL {
            let start = format!("| `{}` | {} |", code.as_str(), code.status().as_u16());
            assert!(docs.lines().any(|line| line.starts_with(&start)), "no line starts with {start}");
        }
        let listed = docs.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(listed, Code::ALL.len(), "docs/ERRORS.md lists a code that does not exist, or one twice");
    }
}
