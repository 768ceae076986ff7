//! Files of the checkout, read as those read them whom they are for.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use jsonschema::Draft;
use serde::Deserialize;
use serde_json::Value;

/// A path of the checkout.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The documents of a YAML file, with `<<` merged. A key that stands twice is an error.
pub fn documents(name: &str) -> Vec<Value> {
    yaml_serde::Deserializer::from_str(&read(name))
        .map(|document| {
            let mut value =
                yaml_serde::Value::deserialize(document).unwrap_or_else(|e| panic!("{name}: {e}"));
            // What is merged may itself have something to merge: once for each level there is.
            for _ in 0..3 {
                value.apply_merge().unwrap();
            }
            serde_json::to_value(value).unwrap()
        })
        .collect()
}

/// The only document of a YAML file.
pub fn document(name: &str) -> Value {
    let mut all = documents(name);
    assert_eq!(all.len(), 1, "{name}");
    all.remove(0)
}

/// What a JSON schema says against a value; empty when it takes it.
pub fn objections(schema: &Value, value: &Value) -> Vec<String> {
    let validator = jsonschema::options().with_draft(Draft::Draft7).build(schema).unwrap();
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// Words of a list of texts.
pub fn words(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// What `deploy/make-secrets` made in a copy of `deploy/`, by name.
pub fn make_secrets(deploy: &Path) -> BTreeMap<String, String> {
    let made = Command::new(deploy.join("make-secrets")).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let text = fs::read_to_string(deploy.join(".env")).unwrap();
    let pairs = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A copy of `deploy/` without what was made in it.
pub fn copy_of_deploy(to: &Path) -> PathBuf {
    let copy = to.join("deploy");
    assert!(Command::new("cp").arg("-r").arg(path("deploy")).arg(&copy).status().unwrap().success());
    let _ = fs::remove_file(copy.join(".env"));
    let _ = fs::remove_dir_all(copy.join("secrets"));
    copy
}

/// A text of compose.yaml with its `${NAME…}` replaced. A variable that is not among `variables` has to have a default.
pub fn filled_in(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (inside, tail) = after.split_once('}').unwrap();
        let end = inside.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inside.len());
        let value = variables.get(&inside[..end]).map(String::as_str);
        let default = inside[end..].strip_prefix(":-");
        filled.push_str(before);
        filled.push_str(value.or(default).unwrap_or_else(|| panic!("{text}: nobody sets {inside}")));
        rest = tail;
    }
    filled + &rest.replace("$$", "$")
}
