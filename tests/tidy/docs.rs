//! What is promised stands once, and names tests that are there.

use std::fs;
use std::path::Path;

const GUARANTEES: &str = "src/guarantees.md";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The crate doc includes the table; GitHub shows no includes, so README has it a second time.
#[test]
fn the_readme_promises_what_the_crate_doc_does() {
    assert!(read("src/lib.rs").contains("#![doc = include_str!(\"guarantees.md\")]"));
    assert!(read("README.md").contains(&read(GUARANTEES)), "README.md does not have {GUARANTEES}");
}

#[test]
fn each_promise_names_tests_that_are_there() {
    let findings = unfounded(&read(GUARANTEES));
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn each_promise_names_tests_can_fail() {
    let table = |cell: &str| format!("| after | shown by |\n|---|---|\n| a promise | {cell} |\n");
    for founded in ["`tests/tidy.rs`", "`tests/tidy.rs: hold`, `tests/tidy/`"] {
        assert!(unfounded(&table(founded)).is_empty(), "{founded}");
    }
    for lie in ["", "`tests/nowhere.rs`", "`tests/tidy.rs: no_such_test`", "`tests/tidy/`, `src/x`"]
    {
        assert_eq!(unfounded(&table(lie)).len(), 1, "{lie}");
    }
}

/// What the last column names that is not there, and rows that name nothing.
fn unfounded(table: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for row in table.lines().skip(2) {
        let shown_by = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap_or_default();
        let names: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            findings.push(format!("no test is named: {row}"));
        }
        findings.extend(names.into_iter().filter(|name| !is_there(name)).map(str::to_owned));
    }
    findings
}

/// `folder/`, `file`, or `file: function`.
fn is_there(name: &str) -> bool {
    let (path, function) = match name.split_once(": ") {
        Some((path, function)) => (path, Some(function)),
        None => (name, None),
    };
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    match function {
        Some(function) => {
            fs::read_to_string(whole).is_ok_and(|text| text.contains(&format!("fn {function}(")))
        }
        None => whole.exists(),
    }
}
