//! The same commands on a server's objects, and what a user sees when the server cannot be used.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::run::Place;
use crate::test_servers::{az_base, s3_base};

fn bytes(count: usize) -> Vec<u8> {
    (0..count as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

#[test]
fn objects_go_to_s3_and_back() {
    objects_go_there_and_back(s3_base());
}

#[test]
fn objects_go_to_azure_and_back() {
    objects_go_there_and_back(az_base());
}

fn objects_go_there_and_back(base: String) {
    let place = Place::new();
    let (large, small) = (bytes(20_000_003), bytes(1000));
    place.write("large", &large);
    place.write("small", &small);
    let uri = |name: &str| format!("{base}/{name}");
    place.ok(&["put", "large", &uri("a/large")]);
    place.ok(&["put", "small", &uri("a b+%~")]);
    place.ok(&["get", &uri("a/large"), "back"]);
    assert!(place.read("back") == large, "another object came back");
    assert!(place.ok(&["cat", &uri("a b+%~")]).out == small, "another object came out");
    let stat = place.json(&["stat", &uri("a/large")]);
    assert_eq!(stat["size_bytes"], large.len());
    let checksum = stat["checksum"].as_str().unwrap().to_owned();
    assert!(checksum.starts_with("crc32c:"), "{checksum}");
    let sums = place.ok(&["sum", &uri("a/large")]);
    assert!(sums.out.starts_with(checksum.as_bytes()), "{checksum}");
    place.ok(&["rm", &uri("a/large")]);
    place.fails(&["stat", &uri("a/large")], 3, &["no such object"]);
    place.fails(&["rm", &uri("a/large")], 3, &["no such object"]);
    place.ok(&["rm", "-r", &base]);
    assert_eq!(place.json(&["ls", &base]).as_array().unwrap().len(), 0);
}

/// The variables, the object, what is found and what can be done.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str, &'a str);

#[test]
fn an_s3_server_that_cannot_be_used_is_one_clear_message() {
    let base = s3_base();
    let object = format!("{base}/object");
    let nowhere = "s3://there-is-no-such-bucket/object".to_owned();
    one_clear_message(
        &base,
        &[
            (
                &[("AWS_SECRET_ACCESS_KEY", "not-the-secret")],
                &object,
                "403",
                "check the access key",
            ),
            (&[("AWS_ACCESS_KEY_ID", "nobody")], &object, "403", "check the access key"),
            (
                &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")],
                &object,
                "connection refused",
                "check the endpoint",
            ),
            (
                &[("AWS_ENDPOINT_URL", "http://nowhere.invalid")],
                &object,
                "nowhere.invalid",
                "check the endpoint",
            ),
            (
                &[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")],
                &object,
                "no credentials",
                "AWS_PROFILE",
            ),
            (&[("AWS_CA_BUNDLE", "/nonexistent.pem")], &object, "/nonexistent.pem", ""),
            (&[], &nowhere, "NoSuchBucket", "create the bucket"),
        ],
    );
}

#[test]
fn an_azure_server_that_cannot_be_used_is_one_clear_message() {
    let base = az_base();
    let object = format!("{base}/object");
    let account = base["az://".len()..].split('/').next().unwrap();
    let nowhere = format!("az://{account}/there-is-no-such-container/object");
    one_clear_message(
        &base,
        &[
            (&[("AZURE_STORAGE_KEY", "bm90LXRoZS1zZWNyZXQ=")], &object, "403", "check the"),
            (
                &[("AZURE_STORAGE_BLOB_ENDPOINT", "http://127.0.0.1:1/tests")],
                &object,
                "connection refused",
                "check the endpoint",
            ),
            (&[("AWS_CA_BUNDLE", "/nonexistent.pem")], &object, "/nonexistent.pem", ""),
            (&[], &nowhere, "ContainerNotFound", "create the container"),
        ],
    );
}

fn one_clear_message(base: &str, cases: &[Case<'_>]) {
    let place = Place::new();
    place.write("data", &bytes(1000));
    for (variables, uri, found, remedy) in cases.iter().copied() {
        let checkpoint = uri.rsplit_once('/').unwrap().0;
        for args in [
            &["put", "data", uri][..],
            &["get", uri, "back"],
            &["ls", uri],
            &["stat", uri],
            &["save", "data", checkpoint, "--step", "1"],
            &["restore", checkpoint, "out"],
        ] {
            let done = place.run_with(variables, args);
            // An unusable file is a matter of usage; the rest is the server's.
            let expected = if found.starts_with('/') { 2 } else { 3 };
            assert_eq!(done.status, Some(expected), "{variables:?} {args:?}: {}", done.err);
            let bare = args[0] == "stat" || found == "403";
            assert!(bare || done.err.contains(found), "{args:?}: no {found:?} in {}", done.err);
            assert!(bare || done.err.contains(remedy), "{args:?}: no {remedy:?} in {}", done.err);
            assert_eq!(done.err.lines().count(), 1, "{args:?}: {}", done.err);
            assert!(
                !done.err.contains("not-the-secret") && !done.err.contains("bm90LX"),
                "{}",
                done.err
            );
        }
    }
    assert_eq!(place.json(&["ls", base]).as_array().unwrap().len(), 0);
    assert!(!place.path("back").exists() && !place.path("out").exists());
    let gc = place.json(&["gc", base, "--older-than", "0s"]);
    assert_eq!(gc["garbage"].as_array().map(Vec::len), Some(0), "{gc}");
}

/// A bound on memory leaves room for fewer writers than there are I/O threads: fewer shards move at a time.
#[test]
fn a_save_to_s3_keeps_to_little_memory() {
    let (place, base) = (Place::new(), s3_base());
    let names = ["a", "b", "c"];
    for name in names {
        place.write(name, &bytes(6_000_000));
    }
    place.ok(&["save", "a", "b", "c", &base, "--step", "1", "--memory", "16MiB"]);
    place.ok(&["restore", &base, "out", "--memory", "16MiB"]);
    for name in names {
        assert!(place.read(&format!("out/{name}")) == bytes(6_000_000), "another {name} came back");
    }
    place.ok(&["rm", "-r", &base]);
}

/// A portal answers everything with a page and 200: nothing is stored, and no command says so.
#[test]
fn what_is_no_server_stores_nothing() {
    let portal = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", portal.local_addr().unwrap());
    std::thread::spawn(move || portal.incoming().flatten().for_each(show_page));
    let place = Place::new();
    place.write("small", &bytes(1000));
    place.write("large", &bytes(20_000_003));
    for (variable, url, base) in [
        ("AWS_ENDPOINT_URL", origin.clone(), s3_base()),
        ("AZURE_STORAGE_BLOB_ENDPOINT", format!("{origin}/tests"), az_base()),
    ] {
        for file in ["small", "large"] {
            let uri = format!("{base}/{file}");
            let done = place.run_with(&[(variable, &url)], &["put", file, &uri]);
            assert_eq!(done.status, Some(3), "{uri}: {}", done.err);
            assert!(done.err.contains("check the endpoint"), "{}", done.err);
        }
        let uri = format!("{base}/small");
        for args in [&["get", &uri, "back"][..], &["stat", &uri], &["rm", &uri], &["ls", &base]] {
            let done = place.run_with(&[(variable, &url)], args);
            assert_eq!(done.status, Some(3), "{args:?}: {}", done.err);
        }
        assert!(!place.path("back").exists());
    }
}

/// One request, one page.
fn show_page(mut client: TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match client.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |text| text.trim().parse().unwrap());
    let _ = io::copy(&mut (&client).take(length), &mut io::sink());
    let _ = client
        .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\n<html>");
}
