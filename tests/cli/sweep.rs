//! bench: the settings to use (`--sweep`), and servers.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quick_xml::Reader;
use quick_xml::events::Event;
use serde_json::Value;

use crate::run::{Place, Running, until};
use crate::test_servers::{az_base, s3_base};

/// Settings that are measured in a moment: 64 KiB is the smallest part.
const TINY: [&str; 10] = [
    "--sweep",
    "--size",
    "300KiB",
    "--rounds",
    "2",
    "--threads",
    "4,1,2,2",
    "--parts",
    "128KiB,64KiB,256KiB",
    "--no-progress",
];

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn pair(value: &Value) -> (u64, u64) {
    (number(value, "io_threads"), number(value, "part_bytes"))
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// What a setting is recommended for.
fn sides_of(setting: &Value) -> BTreeSet<&str> {
    list(setting, "for").iter().map(|side| side.as_str().unwrap()).collect()
}

/// That every combination was measured as often as asked, and that what is recommended follows.
fn assert_sweep(result: &Value, threads: &[u64], parts: &[u64], rounds: usize) {
    for name in ["version", "date", "kernel", "filesystem", "mode", "uri"] {
        assert!(result[name].is_string(), "no {name} in {result}");
    }
    let expected: BTreeSet<(u64, u64)> =
        threads.iter().flat_map(|t| parts.iter().map(|p| (*t, *p))).collect();
    let grid = list(result, "grid");
    assert_eq!(grid.iter().map(pair).collect::<BTreeSet<_>>(), expected);
    assert_eq!(grid.len(), expected.len());
    let depths = list(result, "queue_depths");
    for measured in grid.iter().chain(depths) {
        assert_eq!(number(measured, "pass_bytes") % number(measured, "part_bytes"), 0);
        assert!(number(measured, "pass_bytes") >= number(result, "size_bytes"));
        for side in ["write", "read"] {
            assert_eq!(list(&measured[side], "samples").len(), rounds);
            assert!(measured[side]["mib_per_s"].as_f64().unwrap() > 0.0);
            assert!(measured[side]["cpu_s_per_gb"].as_f64().unwrap() >= 0.0);
        }
    }
    let settings = list(result, "settings");
    for setting in settings {
        let of_pair = |list: &'_ [Value]| -> Vec<Value> {
            list.iter().filter(|m| pair(m) == pair(setting)).cloned().collect()
        };
        // A pair that serves both may have found two queue depths.
        let of_same = of_pair(settings);
        let sides: BTreeSet<&str> = of_same.iter().flat_map(sides_of).collect();
        assert_cheapest_near_best(grid, &of_pair(grid)[0], &sides);
        let depths = of_pair(depths);
        let depth = |m: &&Value| m["queue_depth_parts"] == setting["queue_depth_parts"];
        let chosen = depths.iter().find(depth).expect("what is recommended was not measured");
        assert_cheapest_near_best(&depths, chosen, &sides_of(setting));
        let environment = setting["environment"].as_str().unwrap();
        let threads = format!("SYNCLINE_IO_THREADS={} ", number(setting, "io_threads"));
        assert!(environment.contains(&threads), "{environment}");
    }
    let sides: BTreeSet<&str> = settings.iter().flat_map(sides_of).collect();
    assert_eq!(sides, BTreeSet::from(["read", "write"]));
}

/// That the chosen one is within 5 % of the best for each of these sides, and that nothing cheaper is.
fn assert_cheapest_near_best(all: &[Value], chosen: &Value, sides: &BTreeSet<&str>) {
    let share = |m: &Value, side: &str| {
        let rate = |m: &Value| m[side]["mib_per_s"].as_f64().unwrap();
        rate(m) / all.iter().map(rate).fold(0.0, f64::max)
    };
    let cost = |m: &Value| (number(m, "io_threads"), number(m, "memory_bytes"));
    for m in all {
        let worst = sides.iter().map(|side| share(m, side)).fold(f64::INFINITY, f64::min);
        // Of numbers that were printed and read again.
        let is_near = |slack: f64| worst >= 0.95 * (1.0 + slack);
        assert!(m != chosen || is_near(-1e-9), "{worst} of the best: {chosen}");
        assert!(cost(m) >= cost(chosen) || !is_near(1e-9), "{m} is cheaper than {chosen}");
    }
}

/// The lines of data in a plot, in the order of their colours, and all its text. Fails unless it is
/// well-formed.
fn lines_and_text(svg: &str) -> (Vec<String>, String) {
    let mut reader = Reader::from_str(svg);
    let (mut lines, mut text) = (Vec::new(), String::new());
    loop {
        match reader.read_event().unwrap() {
            Event::Empty(tag) | Event::Start(tag) if tag.name().as_ref() == b"polyline" => {
                let attribute = |name: &str| {
                    let found = tag.try_get_attribute(name).unwrap().unwrap();
                    String::from_utf8(found.value.into_owned()).unwrap()
                };
                if attribute("stroke-width") == "2" {
                    lines.push(attribute("stroke"));
                }
            }
            Event::Text(piece) => text.push_str(&piece.decode().unwrap()),
            Event::Eof => return (lines, text),
            _ => {}
        }
    }
}

#[test]
fn a_sweep_measures_every_combination_and_leaves_nothing() {
    let place = Place::new();
    let direct = format!("direct://{}", place.text("disk"));
    for uri in ["disk", &direct, "mem://bench"] {
        let args = [&["bench", uri], &TINY[..], &["--plot", "plot & <all>.svg"]].concat();
        let result = place.json(&args);
        assert_sweep(&result, &[1, 2, 4], &[64 << 10, 128 << 10, 256 << 10], 2);
        let plot = String::from_utf8(place.read("plot & <all>.svg")).unwrap();
        let (lines, text) = lines_and_text(&plot);
        // One for each part size on the left, the same on the right.
        let (left, right) = lines.split_at(lines.len() / 2);
        assert_eq!((left.len(), left), (3, right));
        assert_eq!(left.iter().collect::<BTreeSet<_>>().len(), 3, "{left:?}");
        for needle in ["64 KiB", "128 KiB", "256 KiB", "MiB/s", "I/O threads", "Linux", "20"] {
            assert!(text.contains(needle), "no {needle} in {text}");
        }
    }
    assert!(!place.path("disk").exists(), "{:?}", place.files("disk"));
    place.assert_no_temporaries();
}

#[test]
fn a_sweep_tells_what_it_will_move_and_what_to_set() {
    let place = Place::new();
    let done = place.ok(&[&["bench", "disk"], &TINY[..]].concat());
    for needle in ["runs", "written", "read"] {
        assert!(done.err.contains(needle), "no {needle} in {}", done.err);
    }
    for needle in [
        "WRITE MiB/s",
        "READ MiB/s",
        "1 thread",
        "4 threads",
        "128 KiB",
        "CPU s/GB",
        "*",
        "+",
        "export SYNCLINE_IO_THREADS=",
        "SYNCLINE_PART_SIZE=",
        "queue_depth_parts(",
        "QUEUE DEPTH",
    ] {
        assert!(done.text().contains(needle), "no {needle} in {}", done.text());
    }
    // What is told to be set can be set.
    let line = done.text().lines().find_map(|line| line.trim().strip_prefix("export ")).unwrap();
    let variables: Vec<(&str, &str)> =
        line.split(' ').map(|variable| variable.split_once('=').unwrap()).collect();
    place.write("a", b"x");
    assert_eq!(place.run_with(&variables, &["put", "a", "b"]).status, Some(0));
}

#[test]
fn a_bound_on_memory_leaves_settings_out() {
    let place = Place::new();
    let args = [&["bench", "mem://bench"], &TINY[..], &["--memory", "1MiB"]].concat();
    let result = place.json(&args);
    let left_out: BTreeSet<_> = list(&result, "left_out").iter().map(pair).collect();
    let measured: BTreeSet<_> = list(&result, "grid").iter().map(pair).collect();
    assert!(left_out.contains(&(4, 256 << 10)) && measured.contains(&(1, 64 << 10)), "{result}");
    assert!(left_out.is_disjoint(&measured));
    assert_eq!(left_out.len() + measured.len(), 9);
    let none = [&["bench", "mem://bench"], &TINY[..], &["--memory", "4KiB"]].concat();
    place.fails(&none, 2, &["memory_bytes_max"]);
}

#[test]
fn what_cannot_be_swept_is_told_before_anything_is_measured() {
    let place = Place::new();
    place.write("file", b"mine");
    for (args, needle) in [
        (&["--threads", "1,,2"][..], "--threads"),
        (&["--threads", "1,x"], "--threads"),
        (&["--threads", "0"], "io_threads 0"),
        (&["--threads", "5000"], "io_threads 5000"),
        (&["--parts", "5000"], "part_bytes 5000"),
        (&["--parts", "4MiB,apples"], "apples"),
        (&["--parts", "1MiB,4MiB", "--size", "2MiB"], "--size"),
        (&["--size", "1KiB"], "--size"),
        (&["--size", "7000TiB"], "6.8 PiB"),
        (&["--io-threads", "2"], "--threads"),
        (&["--part-size", "1MiB"], "--parts"),
        (&["--plot"], "--plot"),
    ] {
        place.fails(&[&["bench", "disk", "--sweep"], args].concat(), 2, &[needle]);
    }
    for args in [["--plot", "p.svg"], ["--threads", "2"], ["--parts", "1MiB"]] {
        place.fails(&[&["bench", "disk"][..], &args].concat(), 2, &["--sweep"]);
    }
    // No round of a thousand ends within the patience of this test.
    for plot in ["no/such/directory/p.svg", "/sys/p.svg", "file/p.svg", "."] {
        let args = ["bench", "disk", "--sweep", "--rounds", "1000", "--plot", plot];
        place.fails(&args, 3, &["write the plot", plot]);
    }
    assert!(!place.path("disk").exists());
    assert_eq!(place.files(""), ["file"]);
}

/// A file that is there may be replaced, but only by a plot.
#[test]
fn a_sweep_that_fails_leaves_the_earlier_plot() {
    let place = Place::new();
    place.write("plot.svg", b"earlier");
    place.fails(
        &["bench", "/sys/syncline", "--sweep", "--size", "1MiB", "--plot", "plot.svg"],
        3,
        &["/sys/syncline"],
    );
    assert_eq!(place.read("plot.svg"), b"earlier");
    place.fails(
        &["bench", "/sys/syncline", "--sweep", "--size", "1MiB", "--plot", "new.svg"],
        3,
        &["/sys/syncline"],
    );
    assert!(!fs::exists(place.path("new.svg")).unwrap());
    // A link that leads to nothing yet stays, and leads to nothing.
    std::os::unix::fs::symlink("later.svg", place.path("link.svg")).unwrap();
    place.fails(
        &["bench", "/sys/syncline", "--sweep", "--size", "1MiB", "--plot", "link.svg"],
        3,
        &["/sys/syncline"],
    );
    assert!(fs::symlink_metadata(place.path("link.svg")).unwrap().is_symlink());
    assert!(!fs::exists(place.path("later.svg")).unwrap());
}

#[test]
fn s3_is_swept_and_left_as_it_was() {
    a_server_is_measured(s3_base(), "5MiB");
}

#[test]
fn azure_is_swept_and_left_as_it_was() {
    a_server_is_measured(az_base(), "4MiB");
}

fn a_server_is_measured(base: String, part: &str) {
    let place = Place::new();
    place.write("mine", b"mine");
    place.ok(&["put", "mine", &format!("{base}/mine")]);
    let args = ["--size", "6MiB", "--rounds", "1", "--threads", "1,2", "--parts", part];
    let result = place.json(&[&["bench", &base, "--sweep"], &args[..]].concat());
    let part_bytes = syncline::parse_bytes(part).unwrap();
    assert_sweep(&result, &[1, 2], &[part_bytes], 1);
    assert_eq!((&result["mode"], &result["filesystem"]), (&"network".into(), &"server".into()));
    let plain = ["bench", &base, "--size", "6MiB", "--rounds", "1", "--part-size", part];
    let done = place.ok(&[&plain[..], &["--json"]].concat());
    assert!(done.err.contains("written"), "{}", done.err);
    let result = done.json();
    for (side, ways) in [("write", 8), ("read", 4)] {
        let results = list(&result, side);
        assert_eq!(results.len(), ways, "{side}");
        assert!(results.iter().all(|way| way["ceiling"] == false && way["ratio"].is_null()));
    }
    assert_only_mine(&place, &base);
    a_server_is_left_as_it_was_when_stopped(&place, &base);
    place.ok(&["rm", "-r", &base]);
}

fn assert_only_mine(place: &Place, base: &str) {
    let left = place.json(&["ls", "-r", base]);
    let names: Vec<_> = left.as_array().unwrap().iter().map(|entry| &entry["name"]).collect();
    assert_eq!(names, ["mine"]);
    // Unfinished uploads, too. On Azure their blocks stay for a week, whatever anyone does.
    if base.starts_with("s3://") {
        let garbage = place.json(&["gc", base, "--older-than", "0"]);
        assert_eq!(list(&garbage, "garbage").len(), 0, "{garbage}");
    }
}

fn a_server_is_left_as_it_was_when_stopped(place: &Place, base: &str) {
    for sweep in [&["--sweep"][..], &[]] {
        let args = [&["bench", base, "--size", "32MiB", "--rounds", "1000"], sweep].concat();
        let mut child = place.spawn(&args);
        until("the first object", || {
            let listed = place.json(&["ls", "-r", base]);
            listed.as_array().unwrap().len() > 1
        });
        kill(Pid::from_raw(child.get().id().try_into().unwrap()), Signal::SIGINT).unwrap();
        let done = child.finish();
        assert_eq!(done.status, Some(130), "{}", done.err);
        assert_only_mine(place, base);
    }
}

/// A way to a server that can be cut.
struct Way {
    origin: String,
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Way {
    fn to(server: &str) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let server = server.strip_prefix("http://").unwrap().to_owned();
        let open = Arc::new(Mutex::new(Some(Vec::new())));
        let ends = Arc::clone(&open);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut ends = ends.lock().unwrap();
                let Some(ends) = ends.as_mut() else { return };
                let server = TcpStream::connect(&server).unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                ends.extend([client, server]);
            }
        });
        Way { origin, open }
    }

    fn cut(&self) {
        for end in self.open.lock().unwrap().take().into_iter().flatten() {
            // The other side may have closed it.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn what_cannot_be_removed_is_named_with_the_way_to_remove_it() {
    let (place, base) = (Place::new(), s3_base());
    let way = Way::to(&std::env::var("SYNCLINE_TEST_S3_ENDPOINT").unwrap());
    let args = ["bench", &base, "--sweep", "--size", "8MiB", "--rounds", "1000", "--timeout", "5"];
    let mut command = place.command(&args);
    command.env("AWS_ENDPOINT_URL", &way.origin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Running(Some(command.spawn().unwrap()));
    until("the first object", || {
        child.get().try_wait().unwrap().is_none()
            && !place.json(&["ls", "-r", &base]).as_array().unwrap().is_empty()
    });
    way.cut();
    let done = child.finish();
    assert_eq!(done.status, Some(3), "{}", done.err);
    let advice = done.err.split('`').find(|word| word.starts_with("syncline rm -r ")).unwrap();
    let uri = advice.rsplit(' ').next().unwrap();
    assert!(uri.starts_with(&format!("{base}/syncline-bench-")), "{uri}");
    // It may have been between two objects.
    let left = !place.json(&["ls", "-r", uri]).as_array().unwrap().is_empty();
    assert_eq!(place.run(&["rm", "-r", uri]).status, Some(if left { 0 } else { 3 }));
    place.ok(&["gc", &base, "--older-than", "0", "--delete"]);
}
