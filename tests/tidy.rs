//! The architecture, held by a test: what must not be in `src/` is looked for here.
//!
//! Each rule is a function from the sources to its findings, a test that the tree has none, and a
//! test that the rule finds a violation in a made-up file: a rule that cannot fail holds nothing.

#[path = "tidy/lexer.rs"]
mod lexer;
#[path = "tidy/tree.rs"]
mod tree;

#[path = "tidy/docs.rs"]
mod docs;
#[path = "tidy/doors.rs"]
mod doors;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/shape.rs"]
mod shape;

use tree::{Source, link};

type Rule = fn(&[Source]) -> Vec<String>;

/// Fails with every finding of `rule`, one a line.
fn hold(sources: &[Source], rule: Rule) {
    assert!(sources.len() >= 10, "only {} files were read", sources.len());
    let findings = rule(sources);
    assert!(findings.is_empty(), "{} findings\n{}\n", findings.len(), findings.join("\n"));
}

/// Fails unless `rule` finds something on exactly these lines of a made-up file.
fn finds(rule: Rule, path: &str, text: &str, lines: &[usize]) {
    finds_among(rule, &[(path, text)], path, lines);
}

/// Fails unless the findings of `rule` among made-up files are on exactly these lines of `path`.
fn finds_among(rule: Rule, files: &[(&str, &str)], path: &str, lines: &[usize]) {
    let sources = link(files.iter().map(|(path, text)| Source::new(path, text)).collect());
    let findings = rule(&sources);
    let expected: Vec<String> = lines.iter().map(|line| format!("{path}:{line}:")).collect();
    let as_expected = findings.len() == expected.len()
        && expected.iter().all(|place| findings.iter().any(|finding| finding.starts_with(place)));
    assert!(as_expected, "expected findings at {expected:?}, found {findings:#?}");
}
