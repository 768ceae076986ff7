//! The Dockerfile and what it is given.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::{
    files::{path, read},
    support::TempFolder,
};

/// What `COPY` takes out of the checkout.
fn copied() -> Vec<String> {
    let dockerfile = read("Dockerfile");
    let copies = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    let copies = copies.filter(|copy| !copy.starts_with("--from"));
    copies
        .flat_map(|copy| copy.split(' ').collect::<Vec<_>>().split_last().unwrap().1.to_vec())
        .map(str::to_owned)
        .collect()
}

/// The build gets what it copies, and nothing else: no data, no secrets, no leftovers.
#[test]
fn the_build_sees_what_it_copies_and_nothing_else() {
    let ignored = read(".dockerignore");
    let lines: Vec<&str> = ignored.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines[0], "*");
    let mut seen: Vec<&str> = lines[1..].iter().map(|line| line.strip_prefix('!').unwrap()).collect();
    let mut copied = copied();
    seen.sort_unstable();
    copied.sort_unstable();
    assert_eq!(seen, copied);
    assert!(copied.iter().all(|name| path(name).exists()));
}

/// The layer of the dependencies is built from an empty crate: everything that Cargo.toml names is there.
#[test]
fn the_empty_crate_has_all_that_cargo_looks_for() {
    let folder = TempFolder::new();
    for name in ["Cargo.toml", "Cargo.lock"] {
        fs::copy(path(name), folder.join(name)).unwrap();
    }
    let dockerfile = read("Dockerfile");
    let (_, run) = dockerfile.split_once("RUN mkdir").unwrap();
    let (made, _) = run.split_once("&& cargo build").unwrap();
    let script = format!("mkdir{}true", made.replace("\\\n", " ") + "&& ");
    assert!(Command::new("sh").args(["-ec", &script]).current_dir(&*folder).status().unwrap().success());
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--locked"])
        .current_dir(&*folder);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let targets = metadata["packages"][0]["targets"].as_array().unwrap();
    assert!(targets.len() >= 5, "the crate, the program, the benches");
    for target in targets {
        let file = Path::new(target["src_path"].as_str().unwrap());
        assert!(file.is_file(), "the Dockerfile does not make {}", file.display());
    }
}

/// The toolchain is that of the checkout, the images are named by exact versions, and the program runs without root.
#[test]
fn it_is_pinned_and_runs_without_root() {
    let dockerfile = read("Dockerfile");
    let line = |start: &str| dockerfile.lines().find_map(|line| line.strip_prefix(start)).unwrap().to_owned();
    let toolchain = read("rust-toolchain.toml");
    let version =
        toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert_eq!(line("ARG RUST="), format!("rust:{version}-bookworm"));
    assert!(line("ARG DEBIAN=debian:bookworm-").ends_with("-slim"));
    let user = line("USER ");
    assert!(user.split(':').all(|id| id.parse::<u32>().unwrap() > 999), "{user}");
}

/// The words of the health check, for a service at this address.
pub fn health_check(address: &str) -> Vec<String> {
    let dockerfile = read("Dockerfile");
    let (_, check) = dockerfile.split_once("    CMD [").unwrap();
    let (check, _) = check.split_once("]\n").unwrap();
    let words: Vec<String> = serde_json::from_str(&format!("[{check}]")).unwrap();
    words.iter().map(|word| word.replace("/127.0.0.1/", &format!("/{address}/"))).collect()
}

/// Against nobody it says no; the tests of the stack wait until it says yes of a replica.
#[test]
fn the_health_check_fails_where_nobody_listens() {
    let words = health_check("127.255.255.254");
    assert!(words[2].contains("/readyz"));
    let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("refused"), "{output:?}");
}
