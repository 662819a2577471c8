//! What only one file may do: read the environment, start threads, keep state of the process, speak HTTP.

use crate::lexer::Kind;
use crate::tree::{Source, library};
use crate::{Rule, finds, hold};

/// Items of the process as a whole, as (file, name). The list may only shrink.
///
/// The free `store_for_uri` shares stores by a map of weak references.
const STATICS: [(&str, &str); 1] = [("src/store/open.rs", "SHARED")];

/// The files that may name rayon. Each runs it in a pool of its own, made by sync.rs, that ends with its
/// owner: the process-wide pool would be shared by engines of different settings.
///
/// A checkpoint store's pool waits on many small objects at once; parts are the engine's threads' work.
const POOL_FILES: [&str; 1] = ["src/checkpoint/base.rs"];

#[test]
fn only_config_reads_the_environment() {
    hold(&library(), environment_readers);
}

#[test]
fn only_config_reads_the_environment_can_fail() {
    let text = "use std::env;\nuse std::{env::var, fs};\nfn f() { ::std::env::var_os(x.env()) }\nenv!(\"CARGO\")";
    finds(environment_readers, "src/store.rs", text, &[1, 2, 3]);
    finds(environment_readers, "src/config/env.rs", text, &[]);
    finds(
        environment_readers,
        "src/cli/main.rs",
        "fn f() { std::env::args_os() }\nstd::env::var(x)",
        &[2],
    );
}

/// The command line may ask for its arguments, and for nothing else.
fn environment_readers(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path != "src/config/env.rs") {
        for path in source.paths().iter().filter(|path| path.starts_with(&["std", "env"])) {
            let arguments =
                ["args", "args_os"].iter().any(|name| path.starts_with(&["std", "env", name]));
            if source.in_library() || !arguments {
                findings.push(
                    source.finding(path.line, "reads the environment; only config/env.rs does"),
                );
            }
        }
    }
    findings
}

#[test]
fn only_sync_touches_threads_locks_and_channels() {
    hold(&library(), thread_users);
}

#[test]
fn only_sync_touches_threads_locks_and_channels_can_fail() {
    let text = "use std::sync::Arc;\nuse std::{fs, thread};\nuse crossbeam_channel::bounded;\nuse std::time::Instant;";
    finds(thread_users, "src/engine/mod.rs", text, &[1, 2, 3]);
    finds(thread_users, "src/sync.rs", text, &[]);
    finds(thread_users, "src/error.rs", text, &[2, 3]);
    finds(thread_users, "src/engine/mod.rs", "#[cfg(test)]\nmod tests { use std::thread; }", &[]);
    finds(thread_users, "src/buffer/pool.rs", "fn f() { rayon::spawn(g) }", &[1]);
    finds(thread_users, POOL_FILES[0], "use rayon::ThreadPoolBuilder;", &[]);
}

/// The command line is a program of its own, and free to. `error` may name `Arc`, because sync.rs, which hands it to all others, itself imports `error`.
fn thread_users(sources: &[Source]) -> Vec<String> {
    const DOORS: [&[&str]; 6] = [
        &["std", "sync"],
        &["std", "thread"],
        &["core", "sync"],
        &["crossbeam_channel"],
        &["shuttle", "sync"],
        &["shuttle", "thread"],
    ];
    let mut findings = Vec::new();
    let users = sources.iter().filter(|source| source.in_library() && source.path != "src/sync.rs");
    for source in users {
        for path in source.paths() {
            let name = path.segments.join("::");
            let arc_of_error = source.module() == "error" && name == "std::sync::Arc";
            if DOORS.iter().any(|door| path.starts_with(door)) && !arc_of_error {
                findings
                    .push(source.finding(path.line, format!("{name}: only sync.rs touches it")));
            }
            if path.starts_with(&["rayon"]) && !POOL_FILES.contains(&&*source.path) {
                findings.push(
                    source.finding(path.line, format!("{name}: not a file that runs a pool")),
                );
            }
        }
    }
    findings
}

#[test]
fn rayon_runs_in_pools_of_its_own_only() {
    hold(&library(), |sources| global_pool_users(sources, &POOL_FILES));
}

#[test]
fn rayon_runs_in_pools_of_its_own_only_can_fail() {
    let own =
        "fn f() {\n    let pool = sync::ThreadPool::new(n);\n    pool.install(|| x.par_iter());\n";
    let check: Rule = |sources| global_pool_users(sources, &["src/a.rs"]);
    finds(check, "src/a.rs", &format!("{own}}}"), &[]);
    finds(check, "src/a.rs", &format!("{own}    rayon::join(a, b);\n}}"), &[4]);
    finds(
        check,
        "src/a.rs",
        &format!("{own}    ThreadPoolBuilder::new().build_global();\n}}"),
        &[4],
    );
    finds(check, "src/a.rs", "fn f() { x.par_iter() }", &[0]);
    finds(check, "src/b.rs", own, &[]);
}

fn global_pool_users(sources: &[Source], pool_files: &[&str]) -> Vec<String> {
    const GLOBAL: [&str; 5] = ["spawn", "join", "scope", "broadcast", "in_place_scope"];
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| pool_files.contains(&&*source.path)) {
        for path in source.paths() {
            if path.starts_with(&["rayon"]) && GLOBAL.contains(&&*path.segments[1]) {
                findings.push(source.finding(path.line, "calls rayon outside a pool"));
            }
        }
        let says = |word: &str| source.shipped.iter().find(|token| token.is(word));
        if let Some(token) = says("build_global") {
            findings.push(source.finding(token.line, "changes the process-wide pool"));
        }
        if says("ThreadPool").is_none() || says("install").is_none() {
            findings.push(source.finding(0, "runs no pool of its own"));
        }
    }
    findings
}

#[test]
fn backends_spawn_no_threads_and_own_no_channels() {
    hold(&library(), busy_backends);
}

#[test]
fn backends_spawn_no_threads_and_own_no_channels_can_fail() {
    let text = "use crate::sync::{Arc, bounded,\n    Sender};\nfn f() {\n    sync::spawn(g);\n}";
    finds(busy_backends, "src/backend/s3/mod.rs", text, &[1, 2, 4]);
    finds(busy_backends, "src/engine/mod.rs", text, &[]);
}

fn busy_backends(sources: &[Source]) -> Vec<String> {
    const WORDS: [&str; 9] = [
        "spawn",
        "thread",
        "rayon",
        "JoinHandle",
        "bounded",
        "unbounded",
        "Sender",
        "Receiver",
        "crossbeam_channel",
    ];
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.module() == "backend") {
        for token in source.shipped.iter().filter(|token| WORDS.iter().any(|word| token.is(word))) {
            findings.push(source.finding(token.line, format!("{} in a backend", token.text)));
        }
    }
    findings
}

#[test]
fn the_process_has_no_state() {
    hold(&library(), |sources| statics(sources, &STATICS));
}

#[test]
fn the_process_has_no_state_can_fail() {
    let text = "fn f(a: &'static str) {}\nstatic A: AtomicU64 = X;\npub static mut B: u8 = 0;\nthread_local! {\n}";
    finds(|s| statics(s, &[]), "src/a.rs", text, &[2, 3, 4]);
    finds(|s| statics(s, &[("src/a.rs", "A")]), "src/a.rs", text, &[3, 4]);
    finds(|s| statics(s, &[("src/a.rs", "A")]), "src/a.rs", "const A: u8 = 0;", &[0]);
}

/// No `static` in the library, of whatever type: what is constant is a `const`.
fn statics(sources: &[Source], exceptions: &[(&str, &str)]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut unused: Vec<_> = exceptions.to_vec();
    for source in sources.iter().filter(|source| source.in_library()) {
        for (at, token) in source.shipped.iter().enumerate() {
            let lazy = ["thread_local", "lazy_static"].iter().any(|name| token.is(name));
            if !token.is("static") && !lazy {
                continue;
            }
            let name =
                source.shipped[at + 1..].iter().find(|t| t.kind == Kind::Word && !t.is("mut"));
            let name = name.map_or("", |token| &token.text);
            match unused.iter().position(|exception| *exception == (&*source.path, name)) {
                Some(index) => drop(unused.remove(index)),
                None => {
                    findings.push(source.finding(token.line, format!("process-wide state: {name}")))
                }
            }
        }
    }
    let stale =
        |(path, name): &(&str, &str)| format!("{path}:0: {name} is gone: take it off the list");
    findings.extend(unused.iter().map(stale));
    findings
}

/// The files that may name the HTTP crate.
const HTTP_DOORS: [&str; 2] = ["src/backend/http/agent.rs", "src/backend/http/wire.rs"];

#[test]
fn one_room_names_the_http_crate() {
    hold(&library(), http_users);
}

#[test]
fn one_room_names_the_http_crate_can_fail() {
    finds(http_users, "src/backend/s3/mod.rs", "use crate::error::Error;\nuse ureq::Agent;", &[2]);
    finds(http_users, "src/backend/http/agent.rs", "use ureq::Agent;", &[]);
}

fn http_users(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| !HTTP_DOORS.contains(&&*source.path)) {
        for path in source.paths().iter().filter(|path| path.starts_with(&["ureq"])) {
            findings.push(
                source.finding(
                    path.line,
                    "names the HTTP crate; only agent.rs and wire.rs of http do",
                ),
            );
        }
    }
    findings
}
