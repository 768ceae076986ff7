//! House rules as tests: which way imports go, how long files are, and that documents keep up with the code.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use cota::http::code::Code;

#[path = "tidy/named.rs"]
mod named;
#[path = "tidy/watch.rs"]
mod watch;

/// Imports go from right to left only: a module may use those on lower ranks, and itself. Modules on one rank do not
/// know each other.
const RANKS: [&[&str]; 8] = [
    &["quota", "config", "metrics", "telemetry", "traces", "clock", "crypto", "devstack"],
    &["store"],
    &["ledger"],
    &["flusher", "accounts", "notify", "backup"],
    &["http"],
    &["app"],
    &["cli"],
    &["main"],
];

/// What leaves may use of other leaves: logging, tracing and the keyring read their part of the configuration, and spans
/// are counted.
const LEAF_USES: [(&str, &str); 4] =
    [("telemetry", "config"), ("traces", "config"), ("traces", "metrics"), ("crypto", "config")];

const MAX_LINES: usize = 400;

/// Files that may be longer, and why.
const LONG_FILES: [(&str, &str); 1] = [(
    "tests/property.rs",
    "one state machine: its operations, its faults and what it checks belong together",
)];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files below `folder` with this extension: path from the root, and text.
fn files(folder: &str, extension: &str) -> BTreeMap<String, String> {
    fn collect(folder: &Path, extension: &str, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, extension, found);
            } else if path.extension().is_some_and(|e| e == extension) {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(&root().join(folder), extension, &mut found);
    assert!(!found.is_empty(), "no .{extension} below {folder}");
    found
}

/// The module that a file below `src/` belongs to.
fn module_of(path: &str) -> &str {
    let rest = path.strip_prefix("src/").unwrap();
    rest.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Modules named as `crate::a` or within `crate::{a, b::{c, d}}`; comments aside.
fn uses(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` and `my_crate::` are others.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$')) {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(first_names(group)),
            None => found.push(name(rest)),
        }
    }
    found.retain(|module| !module.is_empty());
    found
}

/// The first name of each member of a group of imports, whose opening brace has been taken.
fn first_names(group: &str) -> Vec<String> {
    let mut depth = 1;
    let mut names = vec![name(group.trim_start())];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(name(group[at + 1..].trim_start())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|rank| rank.contains(&module))
}

fn is_allowed(from: &str, to: &str) -> bool {
    from == to
        || LEAF_USES.contains(&(from, to))
        || matches!((rank(from), rank(to)), (Some(from), Some(to)) if to < from)
}

#[test]
fn imports_are_found_and_judged() {
    let text = "use crate::{\n    quota::{Tokens, UserId},\n    store,\n};\nuse crate::ledger::Ledger;\n\
                // use crate::http;\nfn f() { crate::metrics::shed(\"a\") } $crate::x! other_crate::y";
    assert_eq!(uses(text), ["quota", "store", "ledger", "metrics"]);
    assert!(is_allowed("ledger", "store") && is_allowed("cli", "devstack") && is_allowed("http", "http"));
    assert!(
        !is_allowed("store", "ledger")
            && !is_allowed("flusher", "accounts")
            && !is_allowed("quota", "config")
    );
}

#[test]
fn imports_go_one_way() {
    let mut wrong = Vec::new();
    for (path, text) in files("src", "rs") {
        let from = module_of(&path);
        if from == "lib" {
            continue;
        }
        assert!(rank(from).is_some(), "{path}: give the module {from} its rank");
        for to in uses(&text) {
            // A capital letter is an item of the crate's root; there is none.
            if !is_allowed(from, &to) {
                wrong.push(format!("{path} uses {to}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_is_short_or_says_why() {
    let all = ["src", "tests", "examples"].into_iter().flat_map(|folder| files(folder, "rs"));
    let all: BTreeMap<String, String> = all.chain(files("lua", "lua")).collect();
    for (path, text) in &all {
        let lines = text.lines().count();
        let excused = LONG_FILES.iter().any(|(long, _)| long == path);
        assert!(excused || lines <= MAX_LINES, "{path} has {lines} lines");
        assert!(!excused || lines > MAX_LINES, "{path} is short again: take it off the list");
    }
    for (path, why) in LONG_FILES {
        assert!(all.contains_key(path) && !why.is_empty(), "{path}: gone, or no reason given");
    }
}

/// Scripts, and the first file of one that is put together, open with their contract; files that are put in open with
/// what they do.
#[test]
fn every_script_opens_with_its_contract() {
    for (path, text) in files("lua", "lua") {
        let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("--")).collect();
        assert!(!header.is_empty(), "{path} opens without a comment");
        let is_script = Path::new(&path).parent() == Some(Path::new("lua")) || path == "lua/apply/begin.lua";
        for word in ["KEYS", "ARGV", "Returns"] {
            let said = header.iter().any(|line| line.contains(word));
            assert!(said || !is_script, "{path}: its header does not say {word}");
        }
    }
}

#[test]
fn scripts_build_no_key_and_trim_no_stream_and_hide_no_failed_write() {
    for (path, text) in files("lua", "lua") {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("--")) {
            let forbidden = ["cjson", "redis.pcall", "pcall(redis", "'{' ..", "'XTRIM'", "MAXLEN", "MINID"];
            let found = forbidden.iter().find(|word| line.contains(**word));
            assert!(found.is_none(), "{path}: {found:?} in {line}");
        }
    }
}

#[test]
fn every_problem_code_is_documented() {
    let document = read("docs/ERRORS.md");
    for code in Code::ALL {
        let (word, status) = (code.as_str(), code.status().as_u16().to_string());
        let row = document.lines().find(|line| line.starts_with('|') && line.contains(&format!("`{word}`")));
        let row = row.unwrap_or_else(|| panic!("docs/ERRORS.md lacks {word}"));
        assert!(row.contains(&status), "docs/ERRORS.md: {word} is {status}");
    }
}
