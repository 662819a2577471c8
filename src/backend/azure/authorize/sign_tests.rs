//! Signatures against independently made ones.
//!
//! They were made by the Python package azure-storage-blob 12.31.1 (`SharedKeyCredentialPolicy` over
//! azure-core 1.41.0's `HttpRequest`), with `x-ms-date` and `x-ms-version` set to the same values, keys
//! quoted as it quotes them (`urllib.parse.quote`, `/` and `~` kept), and the values of queries quoted whole.
//! The order of headers is that of its `compare`. It signs no `Range` header and joins no values: for these
//! stand the rules and the examples of the REST reference.

use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::sign::{AccountKey, place};
use super::{DATE, ToAuthorize, VERSION, date};
use crate::config::Secret;

const KEY: &str = "bm90IGEgcmVhbCBrZXksIGJ1dCAzMiBieXRlcyBsb25n";

/// 2013-05-24T00:00:00Z.
fn moment() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600)
}

fn key(account: &str) -> AccountKey {
    AccountKey::new("a test", account, &Secret::new(KEY)).unwrap()
}

fn call<'a>(
    method: &'a Method,
    path: &'a str,
    query: &'a [(&'a str, &'a str)],
    content_length_bytes: u64,
) -> ToAuthorize<'a> {
    ToAuthorize { method, path, query, content_length_bytes, time: moment() }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let header = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    let mut headers: HeaderMap = pairs.iter().map(header).collect();
    headers.insert(DATE, date(moment()).unwrap());
    headers.insert(VERSION, HeaderValue::from_static("2021-12-02"));
    headers
}

fn signed(account: &str, call: &ToAuthorize<'_>, pairs: &[(&'static str, &str)]) -> String {
    let value = key(account).sign(call, &headers(pairs)).unwrap();
    assert!(value.is_sensitive());
    let text = value.to_str().unwrap();
    text.strip_prefix(&format!("SharedKey {account}:")).unwrap().to_owned()
}

#[test]
fn requests_of_all_kinds_are_signed_as_others_sign_them() {
    const PATH: &str = "/c/key";
    for (method, signature) in [
        (Method::GET, "ZQbmCKZgKKPC66WAVxns6Avpc+Ftx2ch+AcLZNVtUaU="),
        (Method::HEAD, "TqDOBzYS2//0W5PcNsM1VIx396gcrZP4YMRezld7LHo="),
        (Method::DELETE, "05yIt4aT4msf6JjDDI35fHMp/YD0iLSO2hBQdJqUBA0="),
    ] {
        assert_eq!(signed("acct", &call(&method, PATH, &[], 0), &[]), signature, "{method}");
    }
    let put_headers = [
        ("x-ms-blob-type", "BlockBlob"),
        ("x-ms-content-crc64", "AAAAAAAAAAA="),
        ("if-none-match", "*"),
        ("x-ms-meta-syncline_crc32c", "00000000"),
        ("x-ms-meta-syncline_nonce", "n"),
        ("content-type", "application/octet-stream"),
        ("x-ms-client-request-id", "id"),
    ];
    let put = call(&Method::PUT, PATH, &[], 8_388_608);
    let signature = "iY3jSozR4kAcXHGGHjJAmhEag2ChTOqo1IwQkaTeJNs=";
    assert_eq!(signed("acct", &put, &put_headers), signature);

    let block = call(&Method::PUT, PATH, &[("comp", "block"), ("blockid", "+/A=")], 11);
    let md5 = [("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==")];
    let signature = "o/vjdZoPeVla/FhIlpgv4e1HdVZI41v6pmH8WWnpUl0=";
    assert_eq!(signed("acct", &block, &md5), signature);

    let commit = call(&Method::PUT, PATH, &[("comp", "blocklist"), ("timeout", "30")], 300);
    let conditions = [("if-match", "\"0x8D\""), ("x-ms-lease-id", "l")];
    let signature = "l2C8I4G3/dD2fvfMzEqjnmuapw53CqFl0pFE64oH/PA=";
    assert_eq!(signed("acct", &commit, &conditions), signature);

    let query = [
        ("restype", "container"),
        ("comp", "list"),
        ("prefix", "a b/\u{e9}&=+%"),
        ("delimiter", "/"),
        ("marker", "2!92!x"),
    ];
    let signature = "y1qeZNUvseIlK5ZRM7kFw3GqxmIv08kSFeJ6i8Q6Pno=";
    assert_eq!(signed("acct", &call(&Method::GET, "/c", &query, 0), &[]), signature);

    let all_slots = [
        ("x-ms-range", "bytes=0-9"),
        ("x-ms-range-get-content-crc64", "true"),
        ("if-modified-since", "Fri, 24 May 2013 00:00:00 GMT"),
        ("if-unmodified-since", "Fri, 24 May 2013 00:00:00 GMT"),
        ("content-encoding", "gzip"),
        ("content-language", "en"),
    ];
    let signature = "+ZzAEKz0O8ZIh665apXrXbI1TVmcqNxqSwnMszN7sX0=";
    assert_eq!(signed("acct", &call(&Method::GET, PATH, &[], 0), &all_slots), signature);
}

#[test]
fn an_account_in_the_path_is_signed_twice() {
    let account = "devstoreaccount1";
    let get = call(&Method::GET, "/devstoreaccount1/c/key", &[], 0);
    let signature = "bENZqfuDPSBOmyofYnF14j3GTH/MBsZ/yGP3xk+STcc=";
    assert_eq!(signed(account, &get, &[]), signature);
    let query = [("restype", "container"), ("comp", "list")];
    let list = call(&Method::GET, "/devstoreaccount1/c", &query, 0);
    let signature = "MOuv/YoVPxGf6oeo9IDgut9EkMVbIByNcDhxEWFKtnU=";
    assert_eq!(signed(account, &list, &[]), signature);
}

#[test]
fn odd_keys_are_signed_as_others_sign_them() {
    for (path, signature) in [
        ("/c/with%20space", "L8CoCvM7L2VyfCiGpPoMHgXyOYxOcF4FcMf49PcfCOQ="),
        ("/c/a%2Bb", "D5fiD6YrwCTFyKhRN+YrwISrhhW0cAkZ9v5JSSWSTYg="),
        ("/c/100%25", "6DBRmEr2cKNNlhBfGKAOPh1/BNgBRlh3uNVfcElMDxw="),
        ("/c/~tilde", "hw7/mviEhFoXdHhvxrpUxg3kS2OhebmdClJFwi1dPww="),
        (
            "/c/gr%C3%BC%C3%9Fe/%E6%97%A5%E6%9C%AC%E8%AA%9E/%F0%9F%98%80",
            "Cw0yBdsMqZ/tgcVnVMakdNJ9T6TIANurJS/RgLDH1b0=",
        ),
        ("/c/a//b///c", "NukHleO9A5Z3YeY3dT2mMPigw4Af10ghJmHQVYWOTTk="),
        ("/c/..leading/.dots/...", "P+msI89QA+olqNtTt6TcusdyVsUN2ZOebJ0Hpy8zDYs="),
        ("/c/q%3Fx%3D1%26y%23z", "KUoLB3Bo0FWiPEiBZS0WT2fmVUvR7Hsg2IyGWBFcB5s="),
        (
            "/c/%21%24%27%28%29%2A%2C%3B%3A%3D%40%5B%5D%22%3C%3E%7B%7D%7C%5C%5E%60",
            "XfHcNbyv47gVFe+ejWXWvKvFc9hDxVWSPRqoKxVxstU=",
        ),
        ("/c/a%252Fb%2520c", "7WMe850j0SePZshIKRSRmaAIPRydOoqSk92QLUVNifQ="),
    ] {
        assert_eq!(signed("acct", &call(&Method::GET, path, &[], 0), &[]), signature, "{path}");
    }
}

#[test]
fn the_text_of_the_references_examples_comes_out() {
    let mut own = HeaderMap::new();
    own.insert(DATE, HeaderValue::from_static("Fri, 26 Jun 2015 23:39:12 GMT"));
    own.insert(VERSION, HeaderValue::from_static("2015-02-21"));
    let text = |path, query: &[(&str, &str)]| {
        key("myaccount").string_to_sign(&call(&Method::GET, path, query, 0), &own).unwrap()
    };
    let head = "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\n\
                x-ms-version:2015-02-21\n";
    let query = [("restype", "container"), ("comp", "metadata"), ("timeout", "20")];
    assert_eq!(
        text("/mycontainer", &query),
        format!("{head}/myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20")
    );
    let query = [
        ("restype", "container"),
        ("comp", "list"),
        ("include", "snapshots"),
        ("include", "metadata"),
        ("include", "uncommittedblobs"),
    ];
    assert_eq!(
        text("/mycontainer", &query),
        format!(
            "{head}/myaccount/mycontainer\ncomp:list\n\
             include:metadata,snapshots,uncommittedblobs\nrestype:container"
        )
    );
    assert_eq!(text("/mycontainer/myblob", &[]), format!("{head}/myaccount/mycontainer/myblob"));
}

#[test]
fn a_range_is_signed_in_its_place_and_values_without_spaces_around_them() {
    let mut own = headers(&[("range", " bytes=0-9 "), ("x-ms-meta-a", "  b c\t")]);
    own.append("x-ms-meta-a", HeaderValue::from_static("d"));
    let get = call(&Method::GET, "/c/key", &[], 0);
    let text = key("acct").string_to_sign(&get, &own).unwrap();
    assert_eq!(
        text,
        "GET\n\n\n\n\n\n\n\n\n\n\nbytes=0-9\nx-ms-date:Fri, 24 May 2013 00:00:00 GMT\n\
         x-ms-meta-a:b c,d\nx-ms-version:2021-12-02\n/acct/c/key"
    );
}

#[test]
fn headers_are_sorted_as_the_server_sorts_them() {
    let sorted = [
        "x-ms-a",
        "x-ms-a-",
        "x-ms-a_",
        "x-ms-a_b",
        "x-ms-a1",
        "x-ms-a-1",
        "x-ms-a1b",
        "x-ms-aa",
        "x-ms-ab",
        "x-ms-a-b",
        "x-ms-abc",
        "x-ms-ab-c",
        "x-ms-a-bc",
        "x-ms-ac",
        "x-ms-meta",
        "x-ms-meta-a_b",
        "x-ms-meta-a0",
        "x-ms-meta-ab",
        "x-ms-metab",
    ];
    let mut names = sorted;
    names.sort_unstable();
    assert_ne!(names, sorted);
    names.sort_by_cached_key(|name| place(name));
    assert_eq!(names, sorted);
}

#[test]
fn what_is_no_key_is_refused_without_showing_it() {
    for bad in ["", " ", "hunter2", "hunter2!", "aHVudGVyMg=", "a HVudGVyMg=="] {
        let error = AccountKey::new("AZURE_STORAGE_KEY", "a", &Secret::new(bad)).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput, "{bad:?}");
        assert!(error.to_string().contains("AZURE_STORAGE_KEY"), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    assert!(AccountKey::new("a test", "a", &Secret::new("aHVudGVyMg==\n")).is_ok());
    let shown = format!("{:?}", key("acct"));
    assert!(shown.contains("acct") && !shown.contains(KEY), "{shown}");
}
