//! What files and functions look like.

use crate::lexer::{Kind, Token};
use crate::tree::{Source, everything, group_length, library};
use crate::{Rule, finds, finds_among, hold};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Files that are longer, with their lines. The list may only shrink.
const LONG_FILES: [(&str, usize); 0] = [];

/// Functions that are longer, as `file: name`, with their lines. The list may only shrink.
const LONG_FUNCTIONS: [(&str, usize); 0] = [];

/// The files that may say `unsafe`.
const UNSAFE_FILES: [&str; 2] = ["src/backend/posix/writeback.rs", "src/buffer/loan.rs"];

/// Of these, the files whose unsafe blocks are each one call of this foreign function, which Miri cannot make.
/// It hands over no memory. Miri runs all others.
const UNSAFE_CALLS: [(&str, &str); 1] = [("src/backend/posix/writeback.rs", "sync_file_range")];

#[test]
fn files_are_short() {
    hold(&library(), |sources| long_files(sources, &LONG_FILES));
}

#[test]
fn files_are_short_can_fail() {
    let long = "\n".repeat(FILE_LINES_MAX + 1);
    finds(|s| long_files(s, &[]), "src/a.rs", &long, &[FILE_LINES_MAX + 1]);
    finds(|s| long_files(s, &[]), "src/a.rs", &long[1..], &[]);
    finds(|s| long_files(s, &[("src/a.rs", FILE_LINES_MAX + 1)]), "src/a.rs", &long, &[]);
    finds(|s| long_files(s, &[("src/a.rs", FILE_LINES_MAX + 2)]), "src/a.rs", &long, &[0]);
    finds(|s| long_files(s, &[("src/b.rs", 600)]), "src/b.rs", "", &[0]);
}

fn long_files(sources: &[Source], exceptions: &[(&str, usize)]) -> Vec<String> {
    let lengths = sources.iter().map(|source| {
        let lines = source.text.lines().count();
        (source.path.clone(), lines, source.finding(lines, format!("the file has {lines} lines")))
    });
    too_long(lengths.collect(), FILE_LINES_MAX, exceptions)
}

#[test]
fn functions_are_short() {
    hold(&library(), |sources| long_functions(sources, &LONG_FUNCTIONS));
}

#[test]
fn functions_are_short_can_fail() {
    let long = format!(
        "fn short() {{}}\nfn f(a: [u8; 2]) {{\n{}}}\n",
        "g();\n".repeat(FUNCTION_LINES_MAX - 1)
    );
    finds(|s| long_functions(s, &[]), "src/a.rs", &long, &[2]);
    finds(|s| long_functions(s, &[]), "src/a.rs", &long.replacen("g();\n", "", 1), &[]);
    finds(
        |s| long_functions(s, &[("src/a.rs: f", FUNCTION_LINES_MAX + 1)]),
        "src/a.rs",
        &long,
        &[],
    );
    let stale: Rule = |s| long_functions(s, &[("src/a.rs: f", 99)]);
    finds_among(stale, &[("src/a.rs", "trait T { fn f(); }")], "src/a.rs: f", &[0]);
}

fn long_functions(sources: &[Source], exceptions: &[(&str, usize)]) -> Vec<String> {
    let mut lengths = Vec::new();
    for source in sources {
        for (at, token) in source.code.iter().enumerate() {
            let Some(name) = source.code.get(at + 1).filter(|_| token.is("fn")) else { continue };
            let Some(last) = body_end(&source.code[at..]) else { continue };
            let lines = last - token.line + 1;
            let what = format!("fn {} has {lines} lines", name.text);
            let id = format!("{}: {}", source.path, name.text);
            lengths.push((id, lines, source.finding(token.line, what)));
        }
    }
    too_long(lengths, FUNCTION_LINES_MAX, exceptions)
}

/// The line of the closing brace; `None` for a declaration or a function pointer type.
fn body_end(code: &[Token]) -> Option<usize> {
    let mut at = 0;
    while at < code.len() {
        if code[at].is("{") {
            return Some(code[at + group_length(&code[at..]) - 1].line);
        }
        if [";", ",", ")", "=", "}"].iter().any(|end| code[at].is(end))
            && !code[..at].iter().any(|t| t.is("where"))
        {
            return None;
        }
        at += if code[at].is("(") || code[at].is("[") { group_length(&code[at..]) } else { 1 };
    }
    None
}

/// Findings for what is longer than `max` and no exception of exactly that length, and for
/// exceptions that nothing needs any more.
fn too_long(
    lengths: Vec<(String, usize, String)>,
    max: usize,
    exceptions: &[(&str, usize)],
) -> Vec<String> {
    let excused =
        |id: &str, lines| exceptions.iter().any(|(name, most)| *name == id && lines <= *most);
    let needed = |exception: &(&str, usize)| {
        lengths
            .iter()
            .any(|(id, lines, _)| id == exception.0 && *lines == exception.1 && *lines > max)
    };
    let unneeded = exceptions.iter().filter(|exception| !needed(exception)).map(|(id, lines)| {
        format!("{id}:0: the exception of {lines} lines is no longer exact: lower or remove it")
    });
    let long = lengths.iter().filter(|(id, lines, _)| *lines > max && !excused(id, *lines));
    long.map(|(_, _, finding)| format!("{finding}, more than {max}")).chain(unneeded).collect()
}

#[test]
fn sources_are_ascii() {
    hold(&everything(), not_ascii);
}

#[test]
fn sources_are_ascii_can_fail() {
    finds(not_ascii, "src/a.rs", "// plain\n// caf\u{e9}\n", &[2]);
}

fn not_ascii(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let lines = source.text.lines().enumerate().filter(|(_, line)| !line.is_ascii());
        findings.extend(lines.map(|(index, _)| source.finding(index + 1, "is not ASCII")));
    }
    findings
}

#[test]
fn nothing_is_left_undone_or_printed() {
    hold(&library(), forbidden_macros);
}

#[test]
fn nothing_is_left_undone_or_printed_can_fail() {
    let text = "fn f() {\n    todo!();\n    println!(\"todo!()\");\n    let dbg = 1 != 2;\n    std::dbg!(dbg)\n}";
    finds(forbidden_macros, "src/a.rs", text, &[2, 3, 5]);
    finds(forbidden_macros, "src/cli/main.rs", text, &[2, 5]);
    finds(
        forbidden_macros,
        "src/a.rs",
        "/// println!()\n#[cfg(test)]\nfn f() { eprintln!() }",
        &[],
    );
}

/// Unfinished work nowhere; printing in the command line only.
fn forbidden_macros(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let mut look = |code: &[Token], names: &[&str]| {
            for pair in code.windows(3) {
                let called = pair[1].is("!") && !pair[2].is("=");
                if called && names.iter().any(|name| pair[0].is(name)) {
                    findings.push(source.finding(pair[0].line, format!("{}!", pair[0].text)));
                }
            }
        };
        look(&source.code, &["todo", "dbg", "unimplemented"]);
        if source.in_library() {
            look(&source.shipped, &["println", "eprintln", "print", "eprint"]);
        }
    }
    findings
}

#[test]
fn no_test_is_ignored() {
    hold(&everything(), ignored_tests);
}

#[test]
fn no_test_is_ignored_can_fail() {
    finds(ignored_tests, "tests/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}", &[2]);
    finds(
        ignored_tests,
        "src/a.rs",
        "/// ```\n/// a\n/// ```\n/// ```rust,ignore\n/// b\n/// ```",
        &[4],
    );
    finds(ignored_tests, "src/a.rs", "/// ignore ``` it\nlet s = \"#[ignore]\";", &[]);
}

fn ignored_tests(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        for pair in source.code.windows(3) {
            if pair[0].is("#") && pair[1].is("[") && pair[2].is("ignore") {
                findings.push(source.finding(pair[2].line, "an ignored test"));
            }
        }
        for comment in &source.comments {
            let text = comment.text.trim_start_matches(['/', '!', ' ']);
            if text
                .strip_prefix("```")
                .is_some_and(|tags| tags.split(',').any(|tag| tag == "ignore"))
            {
                findings.push(source.finding(comment.line, "an ignored doc test"));
            }
        }
    }
    findings
}

#[test]
fn unsafe_is_in_named_files_only() {
    hold(&library(), |sources| stray_unsafe(sources, &UNSAFE_FILES));
}

#[test]
fn unsafe_is_in_named_files_only_can_fail() {
    let text = "#![deny(unsafe_op_in_unsafe_fn)]\n// unsafe\nfn f() { unsafe { g(\"unsafe\") } }";
    finds(|s| stray_unsafe(s, &[]), "src/a.rs", text, &[3]);
    finds(|s| stray_unsafe(s, &["src/a.rs"]), "src/a.rs", text, &[]);
    finds(|s| stray_unsafe(s, &["src/a.rs"]), "src/a.rs", "fn f() {}", &[0]);
}

fn stray_unsafe(sources: &[Source], named: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    let says_unsafe = |source: &Source| source.code.iter().any(|token| token.is("unsafe"));
    for source in sources.iter().filter(|source| !named.contains(&&*source.path)) {
        let stray = source.code.iter().filter(|token| token.is("unsafe"));
        findings.extend(
            stray.map(|token| source.finding(token.line, "unsafe in a file not named for it")),
        );
    }
    for name in named {
        if !sources.iter().any(|source| source.path == *name && says_unsafe(source)) {
            findings.push(format!("{name}:0: has no unsafe (any more): take it off the list"));
        }
    }
    findings
}

#[test]
fn miri_runs_every_unsafe_block_that_it_can() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/run");
    let continuous = std::fs::read_to_string(path).unwrap();
    let findings = unsafe_without_miri(&library(), &continuous, &UNSAFE_CALLS);
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn miri_runs_every_unsafe_block_that_it_can_can_fail() {
    const CI: &str = "x\nmiri_tests=(buffer:: encode::)\n";
    let call =
        "fn f() {\n    unsafe { libc::sync(1) };\n    unsafe { *p };\n}\nunsafe impl Send for X {}";
    let none: Rule = |s| unsafe_without_miri(s, CI, &[]);
    finds(none, "src/buffer/a.rs", call, &[]);
    finds(none, "src/engine/a.rs", call, &[2, 3, 5]);
    let sync: Rule = |s| unsafe_without_miri(s, CI, &[("src/engine/a.rs", "sync")]);
    finds(sync, "src/engine/a.rs", call, &[3, 5]);
    let unnamed: Rule = |s| unsafe_without_miri(s, "miri_tests=(encode::)", &[]);
    finds(unnamed, "src/buffer/a.rs", call, &[2, 3, 5]);
}

/// Unsafe code of modules whose tests `.ci/run` does not name for Miri, but for blocks that are one call of a
/// foreign function and nothing else.
fn unsafe_without_miri(
    sources: &[Source],
    continuous: &str,
    calls: &[(&str, &str)],
) -> Vec<String> {
    let named = continuous.lines().find_map(|line| line.strip_prefix("miri_tests=("));
    let named: Vec<&str> =
        named.unwrap_or_default().trim_end_matches(')').split_whitespace().collect();
    let mut findings = Vec::new();
    for source in sources {
        if named.contains(&&*format!("{}::", source.module())) {
            continue;
        }
        for (at, token) in source.shipped.iter().enumerate().filter(|(_, t)| t.is("unsafe")) {
            let block = &source.shipped[at + 1..];
            let is_call = |(path, function): &(&str, &str)| {
                let start = ["{", "libc", "::", function, "("];
                *path == source.path
                    && block.len() > start.len()
                    && start.iter().zip(block).all(|(word, token)| token.is(word))
                    && 4 + group_length(&block[4..]) + 1 == group_length(block)
            };
            if !calls.iter().any(is_call) {
                findings.push(source.finding(token.line, "unsafe code that Miri does not run"));
            }
        }
    }
    findings
}

#[test]
fn the_crate_states_its_invariants() {
    hold(&library(), missing_invariants);
}

#[test]
fn the_crate_states_its_invariants_can_fail() {
    finds(missing_invariants, "src/lib.rs", "//! An Invariant: none.\n//! Invariant: one.\n", &[1]);
    finds(missing_invariants, "src/lib.rs", &"//! Invariant: no x.\n".repeat(INVARIANTS_MIN), &[]);
}

/// There are at least as many absences to state as rules of imports and doors.
const INVARIANTS_MIN: usize = 6;

fn missing_invariants(sources: &[Source]) -> Vec<String> {
    let roots = sources.iter().filter(|source| source.path == "src/lib.rs");
    roots
        .filter_map(|root| {
            let docs = root.comments.iter().filter(|token| token.kind == Kind::Comment);
            let stated = docs.filter(|token| token.text.starts_with("//! Invariant: ")).count();
            let what = format!(
                "states {stated} invariants (`//! Invariant: ...`), fewer than {INVARIANTS_MIN}"
            );
            (stated < INVARIANTS_MIN).then(|| root.finding(1, what))
        })
        .collect()
}
