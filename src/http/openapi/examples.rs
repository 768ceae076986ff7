//! Examples of requests and answers. Tests send every request to the handler it is an example of, and compare what
//! comes back.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use serde::Deserialize;
use serde_json::Value;
use utoipa::openapi::{Content, RefOr, example::ExampleBuilder, path::Operation};

/// The examples of one operation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Examples {
    #[serde(default)]
    requests: BTreeMap<String, Request>,
    /// Bodies of answers by status; a 200 that is missing beside a 201 is its repeat.
    #[serde(default)]
    answers: BTreeMap<String, Value>,
}

impl Examples {
    fn answer(&self, status: &str) -> Option<&Value> {
        self.answers.get(status).or_else(|| self.answers.get("201").filter(|_| status == "200"))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    summary: String,
    value: Value,
}

/// By operation id. A test reads the file, and sees to it that no operation is forgotten.
pub static EXAMPLES: LazyLock<HashMap<String, Examples>> =
    LazyLock::new(|| serde_json::from_str(include_str!("examples.json")).unwrap_or_default());

/// Adds the examples of the operation to it.
pub fn add(id: &str, operation: &mut Operation) {
    let Some(examples) = EXAMPLES.get(id) else { return };
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        for content in contents(body.content.values_mut()) {
            for (name, request) in &examples.requests {
                let example =
                    ExampleBuilder::new().summary(&request.summary).value(Some(request.value.clone()));
                content.examples.insert(name.clone(), example.into());
            }
        }
    }
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if let Some(answer) = examples.answer(status) {
            // Other forms of the answer are not JSON.
            let json = response.content.iter_mut().filter(|(name, _)| *name == "application/json");
            for content in contents(json.map(|(_, content)| content)) {
                content.example = Some(answer.clone());
            }
        }
    }
}

fn contents<'a>(
    contents: impl Iterator<Item = &'a mut RefOr<Content>>,
) -> impl Iterator<Item = &'a mut Content> {
    contents.filter_map(|content| match content {
        RefOr::T(content) => Some(content),
        RefOr::Ref(_) => None,
    })
}
