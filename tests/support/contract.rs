//! Holds every answer that a test gets against the description of the API: its status, its media type, its headers, and
//! its body, which may have no member that is not described.
//!
//! The service under test describes itself, at `/openapi.json`. Answers of what the description does not know (the pages,
//! the metrics) are left alone, but for those that say that there is no such route or method.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
};

use jsonschema::{Draft, Validator};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::service::Answer;

static DESCRIPTION: OnceLock<Value> = OnceLock::new();

/// What a service says of itself; all services of a test binary say the same.
pub fn adopt(mut description: Value) {
    assert_eq!(description["openapi"], "3.1.0");
    close(&mut description["components"]["schemas"]);
    DESCRIPTION.get_or_init(|| description);
}

/// Forbids members that are not described. Readers must expect more to come, but here they would be mistakes.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.contains_key("properties") {
                members.entry("additionalProperties").or_insert(false.into());
            }
            // Parts of a whole know only their own members.
            members.iter_mut().filter(|(name, _)| *name != "allOf").for_each(|(_, member)| close(member));
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// The operation of a path, and whether the path is described at all.
fn operation<'a>(description: &'a Value, method: &Method, path: &str) -> (Option<&'a Value>, bool) {
    let path = path.strip_prefix("/api/").map_or_else(|| path.to_owned(), |rest| format!("/v1/{rest}"));
    let fits = |template: &str| {
        let (mut template, mut path) = (template.split('/'), path.split('/'));
        loop {
            match (template.next(), path.next()) {
                (None, None) => return true,
                // An id may be empty: that is one of the wrong form.
                (Some(part), Some(other)) if part == other || part.starts_with('{') => {}
                _ => return false,
            }
        }
    };
    let paths = description["paths"].as_object().unwrap();
    let found = paths.iter().find(|(template, _)| fits(template)).map(|(_, item)| item);
    (found.and_then(|item| item.get(method.as_str().to_lowercase())), found.is_some())
}

/// Follows a reference, if it is one.
fn resolved<'a>(description: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => description.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// A validator of a schema that refers to others of the description.
pub fn validator(description: &Value, schema: &Value) -> Validator {
    let mut schema: Map<String, Value> = schema.as_object().unwrap().clone();
    schema.insert("components".into(), description["components"].clone());
    let options = jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true);
    options.build(&schema.into()).unwrap()
}

/// By the address of their schema in [`DESCRIPTION`], which never changes: to make one takes longer than most calls.
static VALIDATORS: Mutex<BTreeMap<usize, Arc<Validator>>> = Mutex::new(BTreeMap::new());

/// As [`validator`], made once for each schema of the description.
fn known_validator(description: &'static Value, schema: &'static Value) -> Arc<Validator> {
    let mut known = VALIDATORS.lock().unwrap();
    let made = known.entry(std::ptr::from_ref(schema).addr());
    Arc::clone(made.or_insert_with(|| Arc::new(validator(description, schema))))
}

/// Headers that mean something to callers; where one is sent it is described.
const HEADERS: [&str; 7] = [
    "etag",
    "idempotent-replayed",
    "retry-after",
    "www-authenticate",
    "allow",
    "location",
    "content-language",
];

/// Holds the answer to this call against the description, if a service has given one.
#[track_caller]
pub fn check(method: &Method, path: &str, answer: &Answer) {
    let Some(description) = DESCRIPTION.get() else { return };
    // The answer to HEAD is that to GET without its body.
    if method == Method::HEAD {
        return;
    }
    let response = match operation(description, method, path) {
        (Some(operation), _) => &operation["responses"][answer.status.to_string()],
        (None, true) => &description["components"]["responses"]["method_not_allowed"],
        (None, false) if answer.body["code"].is_string() => {
            &description["components"]["responses"]["route_not_found"]
        }
        (None, false) => return,
    };
    let about = format!("{method} {path}: {} {}", answer.status, answer.text);
    assert!(response.is_object(), "{about}: not described");
    match (&response["content"], answer.header("content-type")) {
        (Value::Null, None) => assert_eq!(answer.text, "", "{about}"),
        (content, media_type) => {
            let content = &content[media_type.unwrap_or_default()];
            assert!(content.is_object(), "{about}: {media_type:?} is not described");
            let is_json = media_type.is_some_and(|name| name.ends_with("json"));
            let body = if is_json { answer.body.clone() } else { answer.text.clone().into() };
            let faults: Vec<String> = known_validator(description, &content["schema"])
                .iter_errors(&body)
                .map(|fault| format!("{}: {fault}", fault.instance_path()))
                .collect();
            assert!(faults.is_empty(), "{about}: {faults:#?}");
        }
    }
    let described = response["headers"].as_object().cloned().unwrap_or_default();
    for name in HEADERS.iter().filter(|name| answer.header(name).is_some()) {
        assert!(described.keys().any(|other| other.eq_ignore_ascii_case(name)), "{about}: {name}");
    }
}

/// The example requests of an operation, and the example answers by status.
pub fn examples(operation: &Value) -> (Vec<Value>, Vec<(u16, Value)>) {
    let requests = operation["requestBody"]["content"]["application/json"]["examples"].as_object();
    let requests =
        requests.into_iter().flat_map(Map::values).map(|example| example["value"].clone()).collect();
    let responses = operation["responses"].as_object().unwrap().iter();
    let answers = responses.filter_map(|(status, response)| {
        let example = response["content"]["application/json"].get("example")?;
        Some((status.parse().unwrap(), example.clone()))
    });
    (requests, answers.collect())
}

/// An example whose lists and objects may be empty, and whose values null, where what was found has none.
pub fn relaxed(expected: &Value, found: &Value) -> Value {
    match (expected, found) {
        (Value::Object(_), Value::Object(members)) if members.is_empty() => found.clone(),
        (Value::Object(expected), Value::Object(found)) => {
            let member = |(name, value): (&String, &Value)| {
                (name.clone(), relaxed(value, found.get(name).unwrap_or(&Value::Null)))
            };
            expected.iter().map(member).collect()
        }
        (Value::Array(_), Value::String(word)) if word == "list" => found.clone(),
        (Value::String(word), Value::Array(_)) if word == "list" => found.clone(),
        (Value::Array(expected), Value::Array(found)) if let [one] = expected.as_slice() => {
            found.iter().map(|item| relaxed(one, item)).collect()
        }
        (_, Value::String(word)) if word == "text or null" => found.clone(),
        _ => expected.clone(),
    }
}

/// The keys and types of a value. What is null in one answer may be a text in another, a list of words may be empty, and
/// what is alike in a list is one.
pub fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            members.iter().map(|(name, member)| (name.clone(), shape(member))).collect()
        }
        Value::Array(items) if items.first().is_some_and(Value::is_object) => {
            let mut shapes: Vec<Value> = items.iter().map(shape).collect();
            shapes.dedup();
            shapes.into()
        }
        Value::Array(_) => json!("list"),
        Value::String(_) | Value::Null => json!("text or null"),
        Value::Number(_) => json!("number"),
        Value::Bool(_) => json!("true or false"),
    }
}
