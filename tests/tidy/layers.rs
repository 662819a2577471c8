//! Who may import whom.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{NamePath, Source, library, paths};
use crate::{finds, finds_among, hold};

/// The layers from the bottom: a file imports modules of its own layer or of a lower one.
///
/// `encode` stands with L0 although its folder is a stage of the data flow: config names its plain
/// type `Algorithm`. In return it imports nothing but `error` and `limits`, so no way leads up through it.
/// `fuzzing` reaches down to the parsers of all layers, and nothing reaches up to it.
const LAYERS: [&[&str]; 6] = [
    &["limits", "error", "time", "sync", "encode", "config"],
    &["buffer"],
    &["backend"],
    &["engine", "writer", "reader", "uri", "store"],
    &["checkpoint"],
    &["cli", "fuzzing"],
];

const ENCODE_IMPORTS: [&str; 3] = ["encode", "error", "limits"];

/// What the checkpoint layer may know of `backend`: plain data, no medium.
const BACKEND_TYPES_FOR_CHECKPOINT: [&str; 4] = ["ObjectMeta", "Orphan", "WriteReport", "IoMode"];

#[test]
fn files_import_their_own_layer_or_a_lower_one() {
    hold(&library(), upward_imports);
}

#[test]
fn files_import_their_own_layer_or_a_lower_one_can_fail() {
    finds(
        upward_imports,
        "src/backend/file.rs",
        "pub(crate) use crate::error::Error;\nuse crate::engine::Q;",
        &[2],
    );
    finds(
        upward_imports,
        "src/buffer/pool.rs",
        "fn f() {\n    crate::config::g();\n    crate::store::h()\n}",
        &[3],
    );
    finds(
        upward_imports,
        "src/encode/crc.rs",
        "use crate::limits::A;\nuse crate::{error::B, time::C};",
        &[2],
    );
    finds(
        upward_imports,
        "src/store.rs",
        "#[cfg(test)]\nmod tests { use crate::checkpoint::X; }",
        &[],
    );
    finds(upward_imports, "src/helpers.rs", "fn f() {}", &[1]);
    finds(upward_imports, "src/uri.rs", "use crate::Store;", &[1]);
    let root = ("src/lib.rs", "mod store;\npub use crate::store::Store;\npub use backend::{Meta};");
    let uri = "use crate::Store;";
    finds_among(upward_imports, &[root, ("src/uri.rs", uri)], "src/uri.rs", &[]);
    finds_among(upward_imports, &[root, ("src/buffer/part.rs", uri)], "src/buffer/part.rs", &[1]);
    finds_among(
        upward_imports,
        &[root, ("src/buffer/x.rs", "use super::super::Meta;")],
        "src/buffer/x.rs",
        &[1],
    );
}

fn upward_imports(sources: &[Source]) -> Vec<String> {
    let exports = exports(sources, "src/lib.rs");
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path != "src/lib.rs") {
        let Some(own) = layer(source.module()) else {
            findings
                .push(source.finding(1, "a file or folder that belongs to no layer; see LAYERS"));
            continue;
        };
        if !source.in_library() {
            continue;
        }
        for path in crate_paths(source) {
            let name = path.segments.join("::");
            let Some(target) = target(&path, &exports) else {
                findings.push(source.finding(path.line, format!("{name} is of no known layer")));
                continue;
            };
            let too_high = layer(&target).is_none_or(|layer| layer > own);
            let leaves_encode = source.module() == "encode" && !ENCODE_IMPORTS.contains(&&*target);
            if too_high || leaves_encode {
                findings
                    .push(source.finding(path.line, format!("imports {name} of a higher layer")));
            }
        }
    }
    findings
}

#[test]
fn files_form_no_circle() {
    hold(&library(), circles);
}

#[test]
fn files_form_no_circle_can_fail() {
    let traits = ("src/store/mod.rs", "mod open;\npub use open::open;\npub trait Writer {}");
    let opener = ("src/store/open.rs", "\nuse crate::writer::W;");
    let engine = ("src/engine/mod.rs", "use crate::store::open;");
    let writer = |text| ("src/writer.rs", text);
    let none = [traits, opener, writer("use crate::store::Writer;")];
    finds_among(circles, &none, "src/writer.rs", &[]);
    let direct = [traits, opener, writer("\n\nuse crate::store::open;")];
    finds_among(circles, &direct, "src/writer.rs", &[3]);
    let by_engine = [traits, opener, engine, writer("use crate::engine::E;")];
    finds_among(circles, &by_engine, "src/writer.rs", &[1]);
}

/// Files of one layer that import each other in a circle. A name that a folder's module file only
/// re-exports counts for the file that defines it. Inside a folder files may know each other.
fn circles(sources: &[Source]) -> Vec<String> {
    let mut arrows: Arrows = BTreeMap::new();
    for source in sources.iter().filter(|source| source.path != "src/lib.rs" && source.in_library())
    {
        for path in crate_paths(source) {
            let Some(target) = definition(&path, sources) else { continue };
            if target.module() != source.module() {
                let from = arrows.entry(source.path.clone()).or_default();
                let finding = source.finding(path.line, "closes the circle");
                from.entry(target.path.clone()).or_insert(finding);
            }
        }
    }
    let mut findings = Vec::new();
    let mut done = BTreeSet::new();
    for file in arrows.keys() {
        follow(file, &arrows, &mut Vec::new(), &mut done, &mut findings);
    }
    findings
}

/// From a file to the files it imports, each with the finding for the case that it closes a circle.
type Arrows = BTreeMap<String, BTreeMap<String, String>>;

fn follow(
    file: &str,
    arrows: &Arrows,
    way: &mut Vec<String>,
    done: &mut BTreeSet<String>,
    findings: &mut Vec<String>,
) {
    way.push(file.to_owned());
    for (target, finding) in arrows.get(file).into_iter().flatten() {
        if let Some(start) = way.iter().position(|step| step == target) {
            findings.push(format!("{finding} {} -> {target}", way[start..].join(" -> ")));
        } else if !done.contains(target) {
            follow(target, arrows, way, done, findings);
        }
    }
    way.pop();
    done.insert(file.to_owned());
}

/// The file that defines what a `crate::...` path names.
fn definition<'a>(path: &NamePath, sources: &'a [Source]) -> Option<&'a Source> {
    let file = |stem: &str| {
        sources
            .iter()
            .find(|source| [format!("{stem}.rs"), format!("{stem}/mod.rs")].contains(&source.path))
    };
    let module = target(path, &exports(sources, "src/lib.rs"))?;
    let root = file(&format!("src/{module}"))?;
    let name = path.segments.last()?;
    let through = exports(sources, &root.path);
    let inner = path.segments.iter().skip(2).chain(through.get(name));
    Some(
        inner
            .filter_map(|child| file(&format!("src/{module}/{child}")))
            .next_back()
            .unwrap_or(root),
    )
}

#[test]
fn checkpoint_knows_no_scheme_and_no_backend() {
    hold(&library(), media_in_checkpoint);
}

#[test]
fn checkpoint_knows_no_scheme_and_no_backend_can_fail() {
    let path = "src/checkpoint/save.rs";
    finds(
        media_in_checkpoint,
        path,
        "// file://\nlet a = \"x file:///y\";\nlet b = \"a: //\";",
        &[2],
    );
    finds(media_in_checkpoint, path, "use crate::backend::{ObjectMeta,\n    open_file};", &[2]);
    finds(media_in_checkpoint, path, "use crate::{IoMode,\nstore::FileSystemWriter};", &[2]);
    finds(
        media_in_checkpoint,
        path,
        "#[cfg(test)]\nmod tests { const A: &str = \"mem://a\"; }",
        &[],
    );
    finds(media_in_checkpoint, "src/uri.rs", "let a = \"file://\";", &[]);
}

fn media_in_checkpoint(sources: &[Source]) -> Vec<String> {
    const WRITERS: [&str; 3] = ["FileSystemWriter", "DirectIOWriter", "BufferedObjectWriter"];
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.module() == "checkpoint") {
        for token in &source.shipped {
            if token.kind == crate::lexer::Kind::Literal && names_scheme(&token.text) {
                findings
                    .push(source.finding(token.line, format!("names a scheme: {:?}", token.text)));
            }
        }
        for path in source.paths() {
            let last = &**path.segments.last().unwrap();
            let medium = path.starts_with(&["crate", "backend"])
                && !BACKEND_TYPES_FOR_CHECKPOINT.contains(&last);
            if medium || WRITERS.contains(&last) {
                findings.push(source.finding(path.line, format!("knows the medium {last}")));
            }
        }
    }
    findings
}

fn names_scheme(text: &str) -> bool {
    text.match_indices("://")
        .any(|(at, _)| text[..at].ends_with(|c: char| c.is_ascii_alphanumeric()))
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// Paths below the crate's root; the lone `crate` of `pub(crate)` is none.
fn crate_paths(source: &Source) -> Vec<NamePath> {
    let mut paths = source.paths();
    paths.retain(|path| path.starts_with(&["crate"]) && path.segments.len() > 1);
    paths
}

/// The module that a `crate::...` path leads into, seen through the root's re-exports.
fn target(path: &NamePath, exports: &BTreeMap<String, String>) -> Option<String> {
    let first = path.segments.get(1)?;
    if layer(first).is_some() { Some(first.clone()) } else { exports.get(first).cloned() }
}

/// What a module file re-exports: the name and the module it comes from.
fn exports(sources: &[Source], file: &str) -> BTreeMap<String, String> {
    let file = sources.iter().filter(|source| source.path == file);
    file.flat_map(|source| paths(&source.shipped))
        .filter(|path| !path.starts_with(&["super"]))
        .filter_map(|path| {
            let outer = usize::from(["crate", "self"].contains(&&*path.segments[0]));
            let names = &path.segments[outer..];
            (names.len() > 1).then(|| (names[names.len() - 1].clone(), names[0].clone()))
        })
        .collect()
}
