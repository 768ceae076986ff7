//! The description against the router, the codes, and itself.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use axum::http::{Method, header};
use serde_json::{Value, json};

use super::{Description, examples::EXAMPLES};
use crate::{
    config::HttpConfig,
    http::{code::Code, jwt::Role, testing::Harness},
    quota::UserId,
};
use utoipa::OpenApi;

fn description() -> Value {
    serde_json::to_value(Description::openapi()).unwrap()
}

/// Method, path and what is said of it.
fn operations(description: &Value) -> Vec<(Method, &str, &Value)> {
    let paths = description["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            let operations = item.as_object().unwrap().iter();
            operations
                .map(|(method, operation)| (method.to_uppercase().parse().unwrap(), path.as_str(), operation))
        })
        .collect()
}

/// All paths of a router. axum tells them only in the text for debugging; were they to vanish from it, this would find
/// none.
fn paths(router: &axum::Router) -> BTreeSet<String> {
    let text = format!("{router:?}");
    // What follows answers where there is no route.
    let routes = text.split("fallback_router").next().unwrap();
    let quoted = routes.split('"').filter(|word| word.starts_with('/'));
    quoted.map(str::to_owned).collect()
}

/// The pages are for people, and need no description.
const UNDESCRIBED: [&str; 3] = ["/docs", "/docs/", "/docs/{asset}"];

#[tokio::test]
async fn the_description_and_the_router_have_the_same_routes() {
    let harness = Harness::new(HttpConfig::default());
    let description = description();
    let mut described = BTreeMap::<&str, BTreeSet<String>>::new();
    for (method, path, _) in operations(&description) {
        described.entry(path).or_default().insert(method.to_string());
    }
    let mut routed = BTreeSet::new();
    for path in paths(&harness.router) {
        if UNDESCRIBED.contains(&path.as_str()) {
            continue;
        }
        // The same router once more.
        let path = path.strip_prefix("/api/").map_or(path.clone(), |rest| format!("/v1/{rest}"));
        // No route takes this method; the answer lists those that it takes.
        let answer = harness.call(&Method::TRACE, &path, None, "").await;
        assert_eq!(answer.code(), "method_not_allowed", "{path}");
        let allowed = answer.headers[header::ALLOW].to_str().unwrap().split(',');
        let allowed: BTreeSet<String> =
            allowed.filter(|method| *method != "HEAD").map(str::to_owned).collect();
        assert_eq!(described.get(path.as_str()), Some(&allowed), "{path}");
        routed.insert(path);
    }
    assert_eq!(routed.iter().map(String::as_str).collect::<BTreeSet<_>>(), described.into_keys().collect());
    assert!(routed.len() > 10, "{routed:?}");
}

#[test]
fn every_code_is_described_at_its_status() {
    let description = description();
    let mut responses: Vec<(String, &Value)> = Vec::new();
    for (_, _, operation) in operations(&description) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            responses.push((status.clone(), response));
        }
    }
    for (code, response) in description["components"]["responses"].as_object().unwrap() {
        let code = Code::ALL.into_iter().find(|known| known.as_str() == code).unwrap();
        responses.push((code.status().as_u16().to_string(), response));
    }
    // What an operation of a batch is refused with is no status of the batch.
    let of_an_operation = &description["components"]["schemas"]["OperationProblem"]["allOf"][1];
    let words = of_an_operation["properties"]["code"]["enum"].as_array().unwrap();
    let mut found: HashSet<Code> =
        Code::ALL.into_iter().filter(|code| words.contains(&code.as_str().into())).collect();
    for (status, response) in responses {
        let content = &response["content"]["application/problem+json"];
        let codes = &content["schema"]["allOf"][1]["properties"]["code"]["enum"];
        for code in codes.as_array().into_iter().flatten().map(|code| code.as_str().unwrap()) {
            let known = Code::ALL.into_iter().find(|known| known.as_str() == code).unwrap();
            assert_eq!(known.status().as_u16().to_string(), status, "{code}");
            assert!(content["examples"][code].is_object(), "{code}");
            found.insert(known);
        }
    }
    let missing: Vec<&Code> = Code::ALL.iter().filter(|code| !found.contains(code)).collect();
    assert!(missing.is_empty(), "no operation has these in `problems.rs`: {missing:?}");
}

#[test]
fn every_operation_is_told_in_full() {
    let description = description();
    let tags: Vec<&str> =
        description["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let mut ids = HashSet::new();
    for (method, path, operation) in operations(&description) {
        let about = format!("{method} {path}");
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{about}: {id} is another operation's id");
        assert!(super::problems::is_entered(id), "{about}: enter {id} in `problems.rs`");
        assert!(EXAMPLES.contains_key(id), "{about}: give {id} examples in `examples.json`");
        for text in ["summary", "description"] {
            assert!(operation[text].as_str().is_some_and(|text| !text.is_empty()), "{about}: {text}");
        }
        let [tag] = operation["tags"].as_array().unwrap().as_slice() else { panic!("{about}: one tag") };
        assert!(tags.contains(&tag.as_str().unwrap()), "{about}: describe its tag");
        for (status, response) in operation["responses"].as_object().unwrap() {
            let json = &response["content"]["application/json"];
            assert!(json.is_null() || id == "describe" || !json["example"].is_null(), "{about}: {status}");
        }
        let named = |place: &str| {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            parameters.filter(|p| p["in"] == place).map(|p| p["name"].as_str().unwrap()).collect::<Vec<_>>()
        };
        let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        assert_eq!(named("path"), in_path.collect::<Vec<_>>(), "{about}");
    }
    let forgotten: Vec<&String> = EXAMPLES.keys().filter(|id| !ids.contains(id.as_str())).collect();
    assert!(forgotten.is_empty(), "`examples.json` has examples of no operation: {forgotten:?}");
}

/// The path with ids that nobody has.
fn with_ids(template: &str) -> String {
    let path = template.replace("{id}", &UserId::generate().to_string()).replace("{rid}", "r");
    path.replace("{wid}", &uuid::Uuid::now_v7().to_string())
        .replace("{did}", "17")
        .replace("{month}", "2026-01")
        .replace("{renewal}", &uuid::Uuid::now_v7().to_string())
}

/// Every parameter of a query is known to its handler, and no handler waits for a header that is not described.
#[tokio::test]
async fn parameters_are_those_that_the_handlers_read() {
    let harness = Harness::new(HttpConfig { request_deadline_ms: 50, ..HttpConfig::default() });
    let description = description();
    let admin = harness.admin();
    let mut asked = 0;
    for (method, template, operation) in operations(&description) {
        let path = with_ids(template);
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        for parameter in parameters.filter(|parameter| parameter["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            let mut schema = &parameter["schema"];
            if let Some(reference) = schema["$ref"].as_str() {
                schema = description.pointer(reference.trim_start_matches('#')).unwrap();
            }
            let example = match (&schema["examples"][0], &schema["enum"][0]) {
                (Value::Null, Value::Null) if schema["type"] == "integer" => json!(7),
                (Value::Null, Value::Null) => json!(UserId::generate().to_string()),
                (Value::Null, word) => word.clone(),
                (example, _) => example.clone(),
            };
            let text = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
            let answer = harness.call(&method, &format!("{path}?{name}={text}"), Some(&admin), "").await;
            assert_eq!(answer.status, 503, "{template} {name}={text}: {:?}", answer.body);
            asked += 1;
        }
        if method == Method::GET && template.starts_with("/v1") {
            let answer = harness.call(&method, &format!("{path}?other=1"), Some(&admin), "").await;
            assert_eq!(answer.code(), "invalid_query", "{template}");
        }
    }
    assert!(asked > 5, "{asked}");
}

/// What counts for the rate of its caller says so, and nothing else does.
#[tokio::test]
async fn what_has_a_rate_describes_its_refusal() {
    let rate = HttpConfig {
        admin_calls_per_second: 1,
        admin_burst: 1,
        request_deadline_ms: 50,
        ..HttpConfig::default()
    };
    let harness = Harness::limited(rate);
    let description = description();
    let mut limited = 0;
    for (method, template, operation) in operations(&description) {
        let path = with_ids(template);
        let admin = harness.jwt(Role::Admin, template);
        let call = async || harness.call(&method, &path, Some(&admin), "").await.code() == "rate_limited";
        // Methods of one path share a caller, and its budget.
        call().await;
        let refused = call().await;
        let says_so = &operation["responses"]["429"];
        assert_eq!(refused, !says_so.is_null(), "{method} {template}");
        if refused {
            assert_eq!(says_so["headers"]["Retry-After"]["$ref"], "#/components/headers/Retry-After");
            limited += 1;
        }
    }
    assert!(limited > 8, "{limited}");
}

/// Every `$ref`, wherever it stands.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// The official schema of the document itself is held against it by `script/fuzz-api`.
#[test]
fn the_description_holds_together() {
    let description = description();
    assert_eq!(description["openapi"], "3.1.0");
    let mut found = Vec::new();
    references(&description, &mut found);
    assert!(found.len() > 100);
    let referred: HashSet<&str> = found.into_iter().collect();
    for reference in &referred {
        assert!(description.pointer(reference.trim_start_matches('#')).is_some(), "{reference} is nowhere");
    }
    for (kind, components) in description["components"].as_object().unwrap() {
        for (name, component) in components.as_object().unwrap() {
            let reference = format!("#/components/{kind}/{name}");
            let is_used = referred.contains(reference.as_str())
                || ["responses", "securitySchemes"].contains(&kind.as_str());
            // Codes of the router stand in its responses alone.
            assert!(is_used, "nobody refers to {reference}");
            if kind == "schemas" {
                jsonschema::draft202012::meta::validate(component)
                    .unwrap_or_else(|fault| panic!("{name}: {fault}"));
            }
        }
    }
    let again: utoipa::openapi::OpenApi = serde_json::from_value(description.clone()).unwrap();
    assert_eq!(again.paths.paths.len(), description["paths"].as_object().unwrap().len());
}
