//! Tests and sections that documents name are there.

use std::{collections::BTreeSet, path::Path};

use super::{files, read, root};

/// Documents that name tests as `file::test`, as `file::the_beginning_of_one_…`, or as `file::*` for all of a file.
const NAME_TESTS: [&str; 2] = ["docs/SEED.md", "docs/TESTING.md"];

/// What stands in backquotes.
fn quoted(document: &str) -> impl Iterator<Item = &str> {
    document.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Module and beginning of the name, if this names a test; whether the name is whole.
fn named(word: &str) -> Option<(&str, &str, bool)> {
    let (module, name) = word.split_once("::")?;
    let is_word = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let beginning = name.strip_suffix('…').or(name.strip_suffix('*')).unwrap_or(name);
    (is_word(module) && is_word(beginning)).then_some((module, beginning, beginning == name))
}

/// Whether a file belongs to the module: it is called so, or its folder is.
fn is_of(path: &str, module: &str) -> bool {
    let path = Path::new(path);
    let folder = path.parent().and_then(Path::file_name);
    path.file_stem().is_some_and(|stem| stem == module) || folder.is_some_and(|name| name == module)
}

#[test]
fn names_of_tests_are_told_from_other_words() {
    assert_eq!(named("races::one_user"), Some(("races", "one_user", true)));
    assert_eq!(named("races::one_…"), Some(("races", "one_", false)));
    assert_eq!(named("memory::*"), Some(("memory", "", false)));
    assert_eq!(named("Store::run"), None);
    assert_eq!(named("cota dev"), None);
    assert!(is_of("tests/http/walk.rs", "walk") && is_of("tests/http/watch/mod.rs", "watch"));
    assert!(!is_of("tests/http/walk.rs", "tests"));
}

#[test]
fn tests_that_documents_name_are_there() {
    let mut code = files("tests", "rs");
    code.extend(files("src", "rs"));
    for document in NAME_TESTS {
        let text = read(document);
        let names: BTreeSet<_> = quoted(&text).filter_map(named).collect();
        assert!(names.len() > 20, "{document}: {}", names.len());
        for (module, name, is_whole) in names {
            let wanted = if is_whole { format!("fn {name}(") } else { format!("fn {name}") };
            let found = code.iter().any(|(path, text)| is_of(path, module) && text.contains(&wanted));
            assert!(found, "{document}: there is no test {module}::{name}");
        }
    }
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn documents_link_to_files_and_sections_there_are() {
    let mut documents = files("docs", "md");
    for name in ["README.md", "deploy/README.md", "loadtest/README.md"] {
        documents.insert(name.into(), read(name));
    }
    for (document, text) in &documents {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.contains("://") {
                continue;
            }
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(document).parent().unwrap();
            let path = if file.is_empty() { root().join(document) } else { root().join(folder).join(file) };
            assert!(path.exists(), "{document}: {link} leads nowhere");
            let has = |text: &str| text.lines().any(|line| line.starts_with('#') && anchor(line) == section);
            let found = section.is_empty() || has(&std::fs::read_to_string(&path).unwrap());
            assert!(found, "{document}: {link}: no such section");
        }
    }
}
