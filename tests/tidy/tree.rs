//! The source files as the rules see them: tokens without comments and, where asked, without tests.

use std::fs;
use std::path::Path;

use crate::lexer::{Kind, Token, lex};

/// One file.
pub struct Source {
    /// From the repository's root, with `/`: `src/backend/file.rs`.
    pub path: String,
    pub text: String,
    /// All tokens but comments.
    pub code: Vec<Token>,
    /// `code` without items under `#[cfg(test)]`; empty in a file that is a test module as a whole.
    pub shipped: Vec<Token>,
    pub comments: Vec<Token>,
}

/// A path such as `crate::backend::ObjectMeta`, one for each leaf of a `use` tree.
pub struct NamePath {
    pub segments: Vec<String>,
    pub line: usize,
}

impl NamePath {
    pub fn starts_with(&self, prefix: &[&str]) -> bool {
        self.segments.len() >= prefix.len()
            && prefix.iter().zip(&self.segments).all(|(a, b)| a == b)
    }
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let (comments, code): (Vec<_>, Vec<_>) =
            lex(text).into_iter().partition(|token| token.kind == Kind::Comment);
        let shipped = without_tests(&code);
        Source { path: path.to_owned(), text: text.to_owned(), code, shipped, comments }
    }

    /// The file or folder right below `src/`: `backend` for `src/backend/file.rs`, `error` for `src/error.rs`.
    pub fn module(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        below.split_once('/').map_or_else(|| below.trim_end_matches(".rs"), |(folder, _)| folder)
    }

    /// Whether the file belongs to the library: all of `src/` but the command line.
    pub fn in_library(&self) -> bool {
        self.path.starts_with("src/") && self.module() != "cli"
    }

    /// `src/x.rs:7: what`
    pub fn finding(&self, line: usize, what: impl AsRef<str>) -> String {
        format!("{}:{line}: {}", self.path, what.as_ref())
    }

    /// All paths in shipped code, `self` and `super` resolved to `crate`.
    pub fn paths(&self) -> Vec<NamePath> {
        let mut paths = paths(&self.shipped);
        for path in &mut paths {
            self.resolve(&mut path.segments);
        }
        paths
    }

    fn resolve(&self, segments: &mut Vec<String>) {
        let ups = segments.iter().take_while(|s| *s == "super").count();
        if ups == 0 && segments[0] != "self" {
            return;
        }
        let below = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut module: Vec<&str> =
            below.split('/').filter(|s| !matches!(*s, "mod" | "lib")).collect();
        module.truncate(module.len().saturating_sub(ups));
        let rest = segments.split_off(ups.max(1));
        *segments = std::iter::once("crate").chain(module).map(str::to_owned).collect();
        segments.extend(rest);
    }
}

/// Reads `src/**/*.rs` of this package.
pub fn library() -> Vec<Source> {
    read(&["src"])
}

/// Reads every Rust file of this package.
pub fn everything() -> Vec<Source> {
    read(&["src", "tests", "examples", "benches", "fuzz/fuzz_targets"])
}

fn read(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in folders {
        walk(root, &root.join(folder), &mut files);
    }
    files.sort();
    let sources = files
        .iter()
        .map(|path| Source::new(path, &fs::read_to_string(root.join(path)).unwrap()))
        .collect();
    link(sources)
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            walk(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}

/// Marks the files that a `#[cfg(test)] mod name;` makes tests.
pub fn link(mut sources: Vec<Source>) -> Vec<Source> {
    let tests: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let stem = source.path.trim_end_matches(".rs");
        if tests.iter().any(|test| stem == test || stem.starts_with(&format!("{test}/"))) {
            source.shipped.clear();
        }
    }
    sources
}

fn test_modules(source: &Source) -> Vec<String> {
    let stem = source.path.trim_end_matches(".rs");
    let folder =
        ["/mod", "/lib", "/main"].iter().find_map(|end| stem.strip_suffix(end)).unwrap_or(stem);
    let starts =
        (0..source.code.len()).filter_map(|at| Some(at + test_attribute(&source.code[at..])?));
    let modules = starts.filter_map(|start| {
        let item = &source.code[start..start + item_length(&source.code[start..])];
        match item {
            [.., keyword, name, semicolon] if keyword.is("mod") && semicolon.is(";") => Some(name),
            _ => None,
        }
    });
    modules.map(|name| format!("{folder}/{}", name.text)).collect()
}

fn without_tests(code: &[Token]) -> Vec<Token> {
    if code.len() > 2 && code[0].is("#") && code[1].is("!") && is_test_condition(&code[2..]) {
        return Vec::new();
    }
    let mut shipped = Vec::new();
    let mut at = 0;
    while at < code.len() {
        match test_attribute(&code[at..]) {
            Some(end) => at += end + item_length(&code[at + end..]),
            None => {
                shipped.push(code[at].clone());
                at += 1;
            }
        }
    }
    shipped
}

/// The length of a leading `#[cfg(test)]` or `#[cfg(all(test, ...))]`.
fn test_attribute(code: &[Token]) -> Option<usize> {
    let attribute = code.len() > 2 && code[0].is("#") && is_test_condition(&code[1..]);
    attribute.then(|| 1 + group_length(&code[1..]))
}

/// Whether `[cfg(test)]` or `[cfg(all(test, ...))]` comes first.
fn is_test_condition(code: &[Token]) -> bool {
    let starts =
        |words: &[&str]| code.len() > words.len() && words.iter().zip(code).all(|(w, t)| t.is(w));
    starts(&["[", "cfg", "(", "test", ")"]) || starts(&["[", "cfg", "(", "all", "(", "test"])
}

/// The length of an item: to its body's end, its semicolon or, for a field or a variant, its comma.
fn item_length(code: &[Token]) -> usize {
    const ITEMS: [&str; 11] =
        ["pub", "fn", "mod", "use", "impl", "struct", "enum", "const", "static", "type", "trait"];
    let mut at = 0;
    while at + 1 < code.len() && code[at].is("#") {
        at += 1 + group_length(&code[at + 1..]);
    }
    let is_item = at < code.len() && ITEMS.iter().any(|word| code[at].is(word));
    while at < code.len() {
        let token = &code[at];
        if token.is("{") {
            return at + group_length(&code[at..]);
        }
        if token.is(";") || (token.is(",") && !is_item) {
            return at + 1;
        }
        if token.is("}") {
            return at;
        }
        at += if token.is("(") || token.is("[") { group_length(&code[at..]) } else { 1 };
    }
    at
}

/// The length of a bracketed group, brackets included.
pub fn group_length(code: &[Token]) -> usize {
    let mut depth = 0;
    for (at, token) in code.iter().enumerate() {
        if ["(", "[", "{"].iter().any(|open| token.is(open)) {
            depth += 1;
        } else if [")", "]", "}"].iter().any(|close| token.is(close)) {
            depth -= 1;
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// All paths in `code`; a `use` tree yields one for each leaf.
pub fn paths(code: &[Token]) -> Vec<NamePath> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let is_field = at > 0 && (code[at - 1].is(".") || code[at - 1].is("::"));
        let leading = at > 0 && code[at].is("::") && code[at - 1].kind != Kind::Word;
        if leading {
            at += 1;
        }
        if at < code.len() && code[at].kind == Kind::Word && (leading || !is_field) {
            at += use_tree(&code[at..], &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads `a::b::{c, d::e}` and returns its length in tokens.
fn use_tree(code: &[Token], prefix: &[String], found: &mut Vec<NamePath>) -> usize {
    let mut segments = prefix.to_vec();
    let mut at = 0;
    let line = code[0].line;
    while at < code.len() {
        if code[at].is("{") {
            return at + use_group(&code[at..], &segments, found);
        }
        segments.push(code[at].text.clone());
        at += 1;
        let goes_on = at + 1 < code.len()
            && code[at].is("::")
            && (code[at + 1].kind == Kind::Word || code[at + 1].is("{") || code[at + 1].is("*"));
        if !goes_on {
            break;
        }
        at += 1;
    }
    found.push(NamePath { segments, line });
    at
}

fn use_group(code: &[Token], prefix: &[String], found: &mut Vec<NamePath>) -> usize {
    let end = group_length(code) - 1;
    let mut at = 1;
    while at < end {
        let is_leaf = code[at].kind == Kind::Word || code[at].is("*") || code[at].is("{");
        at += if is_leaf { use_tree(&code[at..end], prefix, found) } else { 1 };
        if at < end && code[at].is("as") {
            at += 2;
        }
    }
    end + 1
}

#[test]
fn use_trees_yield_a_path_for_each_leaf() {
    let code =
        lex("use crate::{a::{B, c::D as E}, f::*};\nlet x = ::std::env::var(y.z::<crate::G>());");
    let paths: Vec<String> = paths(&code).iter().map(|path| path.segments.join("::")).collect();
    for expected in ["crate::a::B", "crate::a::c::D", "crate::f::*", "std::env::var", "crate::G"] {
        assert!(paths.iter().any(|path| path == expected), "{expected} is not in {paths:?}");
    }
    assert!(!paths.iter().any(|path| path == "E" || path == "z"), "{paths:?}");
}

#[test]
fn relative_paths_are_resolved() {
    let source = Source::new(
        "src/backend/file.rs",
        "use super::X; use super::super::engine::Y; use self::Z;",
    );
    let paths: Vec<String> = source.paths().iter().map(|path| path.segments.join("::")).collect();
    for expected in ["crate::backend::X", "crate::engine::Y", "crate::backend::file::Z"] {
        assert!(paths.iter().any(|path| path == expected), "{expected} is not in {paths:?}");
    }
}

#[test]
fn tests_are_not_shipped() {
    let source = Source::new(
        "src/a.rs",
        "#[cfg(test)] use a::{b}; fn kept() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests { fn gone() { x } }\n\
         struct S { #[cfg(test)] hook: Gone<[u8; 2]>, field: Kept }\n#[cfg(not(test))] fn also_kept() {}\n\
         #[cfg(all(test, unix))] fn gone_too(a: A) -> B where A: C, B: D { y }\n#[cfg(test)] pub(crate) mod sub;",
    );
    let words: Vec<&str> = source.shipped.iter().map(|token| token.text.as_str()).collect();
    for kept in ["kept", "Kept", "also_kept", "field"] {
        assert!(words.contains(&kept), "{kept} is not in {words:?}");
    }
    for gone in ["gone", "hook", "Gone", "gone_too", "y", "sub"] {
        assert!(!words.contains(&gone), "{gone} is in {words:?}");
    }
    let linked = link(vec![
        source,
        Source::new("src/a/sub.rs", "fn f() {}"),
        Source::new("src/b.rs", "fn f() {}"),
    ]);
    let shipped: Vec<bool> = linked.iter().map(|source| !source.shipped.is_empty()).collect();
    assert_eq!(shipped, [true, false, true]);
}
