//! What the program is built from, and under which licences.

use std::{env, process::Command};

use serde_json::Value;

use super::{root, text};

/// Licences that ask for no more than their notice.
const PERMISSIVE: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// TLS is rustls with ring: one provider, and no C library to keep up to date.
const BANNED: &[&str] = &["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls"];

/// Whether an SPDX expression can be satisfied with permissive licences alone.
///
/// `/` is an old spelling of `OR`.
fn is_permissive(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let tokens = expression.replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = tokens.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    either(&mut rest) && rest.is_empty()
}

fn either(rest: &mut &[&str]) -> bool {
    let mut is_good = both(rest);
    while let ["OR", after @ ..] = *rest {
        *rest = after;
        is_good |= both(rest);
    }
    is_good
}

fn both(rest: &mut &[&str]) -> bool {
    let mut is_good = one(rest);
    while let ["AND", after @ ..] = *rest {
        *rest = after;
        is_good &= one(rest);
    }
    is_good
}

fn one(rest: &mut &[&str]) -> bool {
    match *rest {
        ["(", after @ ..] => {
            *rest = after;
            let is_good = either(rest);
            if let [")", after @ ..] = *rest {
                *rest = after;
            }
            is_good
        }
        [name, "WITH", exception, after @ ..] => {
            *rest = after;
            PERMISSIVE.contains(&format!("{name} WITH {exception}").as_str())
        }
        [name, after @ ..] => {
            *rest = after;
            PERMISSIVE.contains(name)
        }
        [] => false,
    }
}

#[test]
fn the_licence_check_reads_expressions() {
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR X) AND Unicode-3.0",
    ] {
        assert!(is_permissive(good), "{good}");
    }
    for bad in [
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "MPL-2.0",
        "(MIT OR ISC) AND LGPL-2.1",
        "",
    ] {
        assert!(!is_permissive(bad), "{bad}");
    }
}

/// The host, as the compiler calls it: packages for other systems need not be here.
fn host() -> String {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(rustc).arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.unwrap().to_owned()
}

#[test]
fn every_dependency_has_a_permissive_licence() {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
        ])
        .arg(host())
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let is_used = |package: &&Value| nodes.iter().any(|node| node["id"] == package["id"]);
    let packages: Vec<&Value> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(is_used)
        .collect();
    assert!(
        packages.len() > 100,
        "only {} packages were listed",
        packages.len()
    );
    for package in packages {
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(
            is_permissive(licence),
            "{} is under `{licence}`",
            package["name"]
        );
    }
}

#[test]
fn one_tls_provider_is_built_in() {
    let lock: toml::Table = text("Cargo.lock").parse().unwrap();
    for package in lock["package"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        assert!(!BANNED.contains(&name), "{name} is in the tree");
    }
}
