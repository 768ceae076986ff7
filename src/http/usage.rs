//! What a call is charged: `tokens`, or the `usage` the provider reported, or that it is unknown.

use super::{bodies, code::Code, json::Object, problem::Problem};
use crate::quota::{Charge, Model, Usage};

/// The charge and the model of a settle or debit, from the members `tokens`, `usage` and `model`.
///
/// # Errors
/// `missing_field` without a charge, `conflicting_fields` with two or with two models.
pub fn charge<const N: usize>(body: &Object<'_, N>) -> Result<(Charge, Option<Model>), Problem> {
    let tokens = body.tokens("tokens")?;
    let model = body.model("model")?;
    let charge = match (tokens, body.raw("usage")) {
        (Some(_), Some(_)) => return Err(Problem::new(Code::ConflictingFields).field("usage")),
        (None, None) => return Err(Problem::new(Code::MissingField).field("tokens")),
        (Some(tokens), None) => Charge::Tokens(tokens),
        (None, Some(raw)) if raw.starts_with('"') => {
            // The one word that may stand in the place of numbers.
            if body.text("usage")?.as_deref() != Some("unknown") {
                return Err(Problem::new(Code::InvalidBody).field("usage"));
            }
            Charge::Unknown
        }
        (None, Some(_)) => return reported(body, model),
    };
    Ok((charge, model))
}

fn reported<const N: usize>(
    body: &Object<'_, N>,
    model: Option<Model>,
) -> Result<(Charge, Option<Model>), Problem> {
    let Some(fields) = body.object("usage", &bodies::Usage::MEMBERS)? else {
        return Err(Problem::new(Code::MissingField).field("usage"));
    };
    let usage = Usage {
        input_tokens: fields.required_tokens("input_tokens")?,
        output_tokens: fields.required_tokens("output_tokens")?,
        cached_input_tokens: fields.tokens("cached_input_tokens")?,
    };
    if usage.cached_input_tokens.is_some_and(|cached| cached > usage.input_tokens) {
        return Err(Problem::new(Code::InvalidAmount).field("cached_input_tokens"));
    }
    usage.total().map_err(|error| Problem::from(error).field("usage"))?;
    Ok((Charge::Usage(usage), one_model(model, fields.model("model")?)?))
}

/// The model named outside and inside; twice the same is fine.
pub fn one_model(outer: Option<Model>, inner: Option<Model>) -> Result<Option<Model>, Problem> {
    match (outer, inner) {
        (Some(outer), Some(inner)) if outer != inner => {
            Err(Problem::new(Code::ConflictingFields).field("model"))
        }
        (outer, inner) => Ok(outer.or(inner)),
    }
}
