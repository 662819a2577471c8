//! The model of S3, seen from a bare socket.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use crate::s3_model::{
    Checksums, CompleteChecksum, Fault, Operation, S3Model, error, key_of, operation,
};
use crate::scripted::{Answer, Step};

/// An answer; status 0 where there was none.
struct Got {
    status: u16,
    head: String,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &'_ str| Some(line.split_once(": ")?.0.eq_ignore_ascii_case(name));
        let line = self.head.lines().find(|line| named(line) == Some(true))?;
        line.split_once(": ").map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.body.split_once(&format!("<{name}>"))?.1.split("</").next()
    }

    fn texts(&self, name: &str) -> Vec<&str> {
        let pieces = self.body.split(&*format!("<{name}>")).skip(1).collect::<Vec<_>>();
        pieces.into_iter().filter_map(|piece| piece.split("</").next()).collect()
    }
}

fn ask(s3: &S3Model, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Got {
    let mut stream = TcpStream::connect(("127.0.0.1", s3.server().port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut head =
        format!("{line} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    // The server may have ended the connection already: what it said is read all the same.
    let _ = stream.write_all(&[head.as_bytes(), b"\r\n", body].concat());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
    Got { status, head: head.to_owned(), body: body.to_owned() }
}

/// CRC32C of `123456789`, as published.
const NINE: (&[u8], &str) = (b"123456789", "4waSgw==");
const CRC32C: &str = "x-amz-checksum-crc32c";

#[test]
fn objects_are_put_read_and_deleted() {
    let s3 = S3Model::start("b");
    let put = ask(&s3, "PUT /b/a%20b", &[(CRC32C, NINE.1), ("X-Amz-Meta-Nonce", "n")], NINE.0);
    assert_eq!((put.status, put.header(CRC32C)), (200, Some(NINE.1)));
    let object = s3.object("a b").unwrap();
    assert_eq!((&**object.bytes, object.metadata[0].1.as_str()), (NINE.0, "n"));
    let etag = put.header("etag").unwrap();

    let get = ask(&s3, "GET /b/a%20b", &[("x-amz-checksum-mode", "ENABLED")], b"");
    assert_eq!((get.status, &*get.body), (200, "123456789"));
    assert_eq!((get.header(CRC32C), get.header("x-amz-meta-nonce")), (Some(NINE.1), Some("n")));
    let head = ask(&s3, "HEAD /b/a%20b", &[], b"");
    assert_eq!((head.header("content-length"), &*head.body), (Some("9"), ""));
    for (range, status, body) in [
        ("bytes=2-4", 206, "345"),
        ("bytes=7-99", 206, "89"),
        ("bytes=8-", 206, "9"),
        ("bytes=-2", 206, "89"),
    ] {
        let part = ask(&s3, "GET /b/a%20b", &[("range", range), ("if-match", etag)], b"");
        assert_eq!((part.status, &*part.body), (status, body), "{range}");
        assert!(part.header("content-range").unwrap().ends_with("/9"));
    }
    assert_eq!(ask(&s3, "GET /b/a%20b", &[("range", "bytes=9-")], b"").status, 416);
    s3.put("a b", b"other");
    assert_eq!(ask(&s3, "GET /b/a%20b", &[("if-match", etag)], b"").status, 412);
    assert_eq!(ask(&s3, "PUT /b/a%20b", &[("if-none-match", "*")], b"").status, 412);
    s3.behave(|behavior| behavior.condition_on_put = false);
    assert_eq!(ask(&s3, "PUT /b/a%20b", &[("if-none-match", "*")], b"x").status, 200);
    assert_eq!(ask(&s3, "DELETE /b/a%20b", &[], b"").status, 204);
    assert_eq!(ask(&s3, "GET /b/a%20b", &[], b"").text("Code"), Some("NoSuchKey"));
    assert_eq!(ask(&s3, "GET /other/a", &[], b"").text("Code"), Some("NoSuchBucket"));
    assert_eq!(s3.requests(Operation::Put).len(), 3);
}

#[test]
fn checksums_are_treated_as_told() {
    let s3 = S3Model::start("b");
    let wrong = [(CRC32C, "AAAAAA==")];
    let code = |headers: &[(&str, &str)]| {
        let got = ask(&s3, "PUT /b/k", headers, NINE.0);
        (got.status, got.text("Code").map(str::to_owned), got.header(CRC32C).map(str::to_owned))
    };
    let refused = |status, code: &str| (status, Some(code.to_owned()), None);
    assert_eq!(code(&wrong), refused(400, "BadDigest"));
    for (name, sum) in [
        ("x-amz-checksum-crc32", "y/Q5Jg=="),
        ("x-amz-checksum-crc64nvme", "rosUhgp5mIg="),
        ("x-amz-checksum-sha256", "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="),
    ] {
        assert_eq!(code(&[(name, sum)]), (200, None, None), "{name}");
    }
    let hash = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
    assert_eq!(code(&[("x-amz-content-sha256", hash)]), (200, None, None));
    assert_eq!(code(&[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")]), (200, None, None));
    let other = format!("0{}", &hash[1..]);
    assert_eq!(
        code(&[("x-amz-content-sha256", &other)]),
        refused(400, "XAmzContentSHA256Mismatch")
    );
    s3.behave(|behavior| behavior.checksums = Checksums::Ignore);
    assert_eq!(code(&wrong), (200, None, None));
    s3.behave(|behavior| behavior.checksums = Checksums::Refuse(501));
    assert_eq!(code(&[(CRC32C, NINE.1)]), refused(501, "NotImplemented"));
    assert_eq!(code(&[]), (200, None, None));
}

#[test]
fn listings_have_pages_and_prefixes() {
    let s3 = S3Model::start("b");
    s3.behave(|behavior| behavior.page_entries = 2);
    for key in ["a", "d/1", "d/2", "d/e/3", "d f+", "z"] {
        s3.put(key, key.as_bytes());
    }
    let pages = |query: &str| {
        let (mut keys, mut prefixes, mut pages) = (Vec::new(), Vec::new(), 0);
        let mut token = String::new();
        loop {
            let got = ask(&s3, &format!("GET /b?list-type=2&{query}{token}"), &[], b"");
            pages += 1;
            keys.extend(got.texts("Key").into_iter().map(str::to_owned));
            let common = got.body.split("<CommonPrefixes>").skip(1);
            prefixes.extend(
                common.map(|c| c["<Prefix>".len()..].split('<').next().unwrap().to_owned()),
            );
            let Some(next) = got.text("NextContinuationToken") else { break };
            assert_eq!(got.text("IsTruncated"), Some("true"));
            token = format!("&continuation-token={}", next.replace(' ', "%20"));
        }
        (keys, prefixes, pages)
    };
    let (keys, prefixes, count) = pages("prefix=");
    assert_eq!(keys, ["a", "d f+", "d/1", "d/2", "d/e/3", "z"]);
    assert_eq!((prefixes.len(), count), (0, 3));
    let (keys, prefixes, _) = pages("delimiter=%2F&encoding-type=url");
    assert_eq!(
        (keys, prefixes),
        (vec!["a".into(), "d+f%2B".into(), "z".into()], vec!["d/".to_owned()])
    );
    let (keys, prefixes, _) = pages("prefix=d/&delimiter=/");
    assert_eq!((keys, prefixes), (vec!["d/1".into(), "d/2".into()], vec!["d/e/".to_owned()]));
}

#[test]
fn many_are_deleted_and_some_refused() {
    let s3 = S3Model::start("b");
    s3.put("a<&>", b"1");
    s3.put("kept", b"2");
    s3.behave(|behavior| behavior.undeletable = vec!["kept".to_owned()]);
    let body = "<Delete><Object><Key>a&lt;&amp;&#62;</Key></Object><Object><Key>kept</Key></Object>\
                <Object><Key>absent</Key></Object></Delete>";
    assert_eq!(
        ask(&s3, "POST /b?delete", &[], body.as_bytes()).text("Code"),
        Some("InvalidRequest")
    );
    let got = ask(&s3, "POST /b/?delete=", &[("content-md5", "x")], body.as_bytes());
    assert_eq!(
        (got.status, got.texts("Deleted").len(), got.text("Code")),
        (200, 2, Some("AccessDenied"))
    );
    assert_eq!(s3.keys(), ["kept"]);
}

/// Opens an upload of `k` and sends two parts; the upload's id as it stands in a query.
fn two_parts(s3: &S3Model) -> (String, Vec<String>) {
    s3.behave(|behavior| behavior.part_bytes_min = 4);
    let create = [
        ("x-amz-checksum-algorithm", "CRC32C"),
        ("x-amz-checksum-type", "FULL_OBJECT"),
        ("x-amz-meta-nonce", "n"),
    ];
    let created = ask(s3, "POST /b/k?uploads", &create, b"");
    let id = created.text("UploadId").unwrap().replace('+', "%2B").replace('=', "%3D");
    let tags = [&NINE.0[..5], &NINE.0[5..]].into_iter().enumerate().map(|(index, bytes)| {
        let line = format!("PUT /b/k?partNumber={}&uploadId={id}", index + 1);
        ask(s3, &line, &[], bytes).header("etag").unwrap().to_owned()
    });
    let tags = tags.collect();
    (id, tags)
}

fn complete(s3: &S3Model, id: &str, tags: &[(u32, &str)], headers: &[(&str, &str)]) -> Got {
    let part = |(number, tag): &(u32, &str)| {
        let tag = tag.replace('"', "&quot;");
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>")
    };
    let parts: String = tags.iter().map(part).collect();
    let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    ask(s3, &format!("POST /b/k?uploadId={id}"), headers, body.as_bytes())
}

#[test]
fn an_upload_is_completed_only_as_it_was_sent() {
    let s3 = S3Model::start("b");
    let (id, tags) = two_parts(&s3);
    let right = [(1, &*tags[0]), (2, &*tags[1])];
    let code = |parts: &[(u32, &str)], headers: &[(&str, &str)]| {
        let got = complete(&s3, &id, parts, headers);
        assert!(got.status >= 400, "{}", got.body);
        got.text("Code").unwrap().to_owned()
    };
    assert_eq!(code(&[right[1], right[0]], &[]), "InvalidPartOrder");
    assert_eq!(code(&[(1, &tags[1])], &[]), "InvalidPart");
    assert_eq!(code(&[(3, &tags[1])], &[]), "InvalidPart");
    assert_eq!(code(&[], &[]), "MalformedXML");
    assert_eq!(code(&right, &[(CRC32C, "AAAAAA==")]), "BadDigest");
    assert_eq!(code(&right, &[("x-amz-mp-object-size", "8")]), "InvalidRequest");
    s3.behave(|behavior| behavior.part_bytes_min = 6);
    assert_eq!(code(&right, &[]), "EntityTooSmall");
    s3.behave(|behavior| behavior.part_bytes_min = 4);
    s3.put("k", b"before");
    assert_eq!(code(&right, &[("if-none-match", "*")]), "PreconditionFailed");
    s3.behave(|behavior| behavior.condition_on_complete = false);
    let headers = [("if-none-match", "*"), (CRC32C, NINE.1), ("x-amz-mp-object-size", "9")];
    let done = complete(&s3, &id, &right, &headers);
    assert_eq!((done.status, done.text("ChecksumCRC32C")), (200, Some(NINE.1)));
    let object = s3.object("k").unwrap();
    assert_eq!((&**object.bytes, &*object.metadata[0].0), (NINE.0, "nonce"));
    assert!(object.etag.ends_with("-2\"") && s3.uploads().is_empty());
    assert_eq!(code(&right, &[]), "NoSuchUpload");
}

#[test]
fn the_checksum_of_a_completion_can_be_wrong_or_absent() {
    for (kind, shown) in [(CompleteChecksum::Wrong, true), (CompleteChecksum::Absent, false)] {
        let s3 = S3Model::start("b");
        s3.behave(|behavior| behavior.complete_checksum = kind);
        let (id, tags) = two_parts(&s3);
        let done = complete(&s3, &id, &[(1, &tags[0]), (2, &tags[1])], &[]);
        assert_eq!((done.status, done.text("ChecksumCRC32C").is_some()), (200, shown));
        assert_ne!(done.text("ChecksumCRC32C"), Some(NINE.1));
    }
}

#[test]
fn uploads_and_parts_are_listed_and_aborted() {
    let s3 = S3Model::start("b");
    s3.behave(|behavior| behavior.page_entries = 1);
    let (id, _) = two_parts(&s3);
    let parts = ask(&s3, &format!("GET /b/k?uploadId={id}"), &[], b"");
    assert_eq!(
        (parts.text("IsTruncated"), parts.text("NextPartNumberMarker")),
        (Some("true"), Some("1"))
    );
    let parts = ask(&s3, &format!("GET /b/k?uploadId={id}&part-number-marker=1"), &[], b"");
    assert_eq!((parts.text("IsTruncated"), parts.texts("Size")), (Some("false"), vec!["4"]));

    let old = s3.open_upload("k/2", SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    let page = ask(&s3, "GET /b?uploads&prefix=k", &[], b"");
    assert_eq!((page.texts("Key"), page.text("NextKeyMarker")), (vec!["k"], Some("k")));
    let page = ask(&s3, &format!("GET /b?uploads&key-marker=k&upload-id-marker={id}"), &[], b"");
    assert_eq!(page.text("UploadId"), Some(&*old));
    assert_eq!(page.text("Initiated"), Some("1970-01-01T00:00:01.000Z"));

    s3.behave(|behavior| behavior.aborts_in_vain = 1);
    let abort = || ask(&s3, &format!("DELETE /b/k?uploadId={id}"), &[], b"").status;
    assert_eq!((abort(), s3.uploads().len()), (204, 2));
    assert_eq!((abort(), s3.uploads().len(), abort()), (204, 1, 404));
    assert!(s3.drop_upload(&old).is_some() && s3.uploads().is_empty());
}

#[test]
fn faults_come_before_instead_of_and_after_the_effect() {
    let s3 = S3Model::start("b");
    let put = || ask(&s3, "PUT /b/k", &[], b"bytes").status;
    s3.fault(Operation::Put, 1, Fault::Early(error(503, "SlowDown").into()));
    ask(&s3, "GET /b/k", &[], b"");
    assert_eq!((put(), put()), (200, 503));
    s3.remove("k");
    s3.fault(Operation::Put, 0, Fault::Instead(Step::Reset));
    assert_eq!((put(), s3.keys().len()), (0, 0));
    s3.fault(Operation::Put, 0, Fault::After(Step::Reset));
    assert_eq!((put(), s3.keys().len()), (0, 1));
    s3.fault(Operation::Put, 0, Fault::Changed(|answer| answer.header("etag", "\"x\"")));
    assert_eq!(ask(&s3, "PUT /b/k", &[], b"1").header("etag"), Some("\"x\""));

    let count = AtomicUsize::new(0);
    s3.on_request(move |_, request| match key_of(request).as_deref() {
        Some("k") if operation(request) == Operation::Get => {
            let first = count.fetch_add(1, Ordering::Relaxed) == 0;
            first.then(|| Fault::Instead(Answer::new(500).into()))
        }
        _ => None,
    });
    let get = || ask(&s3, "GET /b/k", &[], b"").status;
    assert_eq!((put(), get(), get()), (200, 500, 200));
}
