//! Signatures against published and independently made ones.
//!
//! `PUBLISHED` are the examples of the S3 reference's chapter on the header's signature. `INDEPENDENT`
//! were made by botocore 1.44.5 (`S3SigV4Auth`, `SigV4Auth`), its clock set to the same moment, with
//! paths quoted as it quotes keys (`urllib.parse.quote`, `/` and `~` kept).

use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::sign::{Payload, Signer, ToSign, sha256_hex};
use crate::backend::http::{encode_path, encode_query};
use crate::config::Secret;

const ACCESS_KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const HOST: &str = "examplebucket.s3.amazonaws.com";

/// 2013-05-24T00:00:00Z.
fn moment() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600)
}

fn signer(token: Option<&str>) -> Signer {
    Signer::new(ACCESS_KEY_ID, Secret::new(SECRET), token.map(Secret::new))
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let header = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(header).collect()
}

fn get<'a>(path: &'a str, query: &'a str) -> ToSign<'a> {
    ToSign {
        method: &Method::GET,
        host: HOST,
        path,
        query,
        payload: Payload::Unsigned,
        region: "us-east-1",
        service: "s3",
        time: moment(),
    }
}

/// Signed headers and signature.
fn signed(signer: &Signer, request: &ToSign<'_>, headers: &mut HeaderMap) -> (String, String) {
    signer.sign(request, headers).unwrap();
    let text = headers["authorization"].to_str().unwrap();
    let (credential, rest) = text.split_once(",SignedHeaders=").unwrap();
    let scope = format!("20130524/{}/{}/aws4_request", request.region, request.service);
    assert_eq!(credential, format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY_ID}/{scope}"));
    let (names, signature) = rest.split_once(",Signature=").unwrap();
    (names.to_owned(), signature.to_owned())
}

#[test]
fn the_published_examples_come_out() {
    let signer = signer(None);
    let empty = |path, query| ToSign { payload: Payload::Empty, ..get(path, query) };
    let mut range = headers(&[("range", "bytes=0-9")]);
    let (names, signature) = signed(&signer, &empty("/test.txt", ""), &mut range);
    assert_eq!(names, "host;range;x-amz-content-sha256;x-amz-date");
    assert_eq!(signature, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");

    let body = sha256_hex([b"Welcome to ".as_slice(), b"Amazon S3."]);
    let path = format!("/{}", encode_path("test$file.text"));
    let mut put_headers = headers(&[
        ("date", "Fri, 24 May 2013 00:00:00 GMT"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
    ]);
    let put = ToSign { method: &Method::PUT, payload: Payload::Sha256(&body), ..get(&path, "") };
    assert_eq!(
        signed(&signer, &put, &mut put_headers).1,
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
    );
    let lifecycle = encode_query(&[("lifecycle", "")]);
    assert_eq!(
        signed(&signer, &empty("/", &lifecycle), &mut HeaderMap::new()).1,
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
    );
    let list = encode_query(&[("prefix", "J"), ("max-keys", "2")]);
    assert_eq!(
        signed(&signer, &empty("/", &list), &mut HeaderMap::new()).1,
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    );
}

#[test]
fn odd_keys_are_signed_as_others_sign_them() {
    let signer = signer(None);
    let long = "x".repeat(1024);
    let accents = "\u{e9}".repeat(512);
    for (key, signature) in [
        ("with space", "714a38b6b1f35f1696a15d04e2998ffae3b983f26903a77a0a8fd0b742e31462"),
        ("a+b", "7b74004d5b8b2c086d33f36188de25ed72c556248274ff1df440948a04aa0eda"),
        ("100%", "a17c399d02072235990fc4530d1dbdb3e4061942145726a43d8f411b98ebb949"),
        ("~tilde", "1ea60c93c5d8544ed4dcdd674086f60d007f48e711cc6a965457a0b087c7a52f"),
        (
            "gr\u{fc}\u{df}e/\u{65e5}\u{672c}\u{8a9e}/\u{1f600}",
            "e36330ee5ca0c2db4cb9b8247ff9584b40eb72a668ac104e108309cad9bf1928",
        ),
        ("a//b///c", "0c1abe9a565cc34fd830c6321789a4bc0affb56caeb856e0f772d4ce27a97490"),
        ("/leading", "2b92bce4ff287d23aaa47907fdf52b082c7ea2117ebe3d83b81a74830eb2ab6f"),
        ("..leading/.dots/...", "93f1b39276029aeae7c39394a5256dfba4ffd112e4904fd3b63b323438fb9186"),
        ("q?x=1&y#z", "a9b7d0dbbf32dc3954542a47dfd8c786a0fc403b28a6cc24caa3a3b2469108ce"),
        (
            "!$'()*,;:=@[]\"<>{}|\\^`",
            "3b7da3ffea0935406584936c9e5c0ba88a4f9fe9dc9fd28c0471ed21b1240b78",
        ),
        ("a%2Fb%20c", "26ec4cdab741c1139954bfa6d9ad8efcf5a62e7b127df6dadf034649b3c4a97d"),
        ("tab\tnl\n\u{7f}", "5302960e3540c2def20ed99bc54ce89e5b697f8cd6e85dcfd24c5a7f9859b5cc"),
        (&long, "5200e1e1e9624a2e8af4cab2df607e1c5e7e0fbcf7bd4cf18dad7fa369b28e37"),
        (&accents, "0ae59f429940d84e64c2ca7deed8feb71ba924e0d041dca546e8ae64848e0a99"),
    ] {
        let path = format!("/{}", encode_path(key));
        let mut headers = HeaderMap::new();
        assert_eq!(signed(&signer, &get(&path, ""), &mut headers).1, signature, "{key:?}");
    }
}

#[test]
fn odd_queries_are_signed_as_others_sign_them() {
    let query = encode_query(&[
        ("list-type", "2"),
        ("prefix", "a b/+%~\u{e9}"),
        ("delimiter", "/"),
        ("a-b", "1"),
        ("a", "2"),
        ("A", "3"),
        ("continuation-token", "1/x=="),
    ]);
    assert_eq!(
        signed(&signer(None), &get("/", &query), &mut HeaderMap::new()).1,
        "736c1f9b41a3b8ae9dcadc2723b14386db475ecac126d66d84002ac6612e6a9e"
    );
}

#[test]
fn names_that_begin_with_each_other_are_in_the_order_of_names() {
    let mut part_headers = headers(&[
        ("x-amz-checksum-crc32c", "AAAAAA=="),
        ("x-amz-checksum", "b"),
        ("x-amz-checksum-crc32", "c"),
        ("content-type", "application/octet-stream"),
        ("range", "bytes=0-9"),
    ]);
    let query = encode_query(&[("partNumber", "10"), ("uploadId", "a+b/c==")]);
    let put = ToSign { method: &Method::PUT, ..get("/k", &query) };
    let with_token = signer(Some("the/session+token=="));
    let (names, signature) = signed(&with_token, &put, &mut part_headers);
    assert_eq!(
        names,
        "content-type;host;range;x-amz-checksum;x-amz-checksum-crc32;x-amz-checksum-crc32c;\
         x-amz-content-sha256;x-amz-date;x-amz-security-token"
    );
    assert_eq!(signature, "4830c0ebf6bc5b3ac2bff4094b96f12b5cf1a44bc5720900b0229c6ea4cdb45b");

    let mut meta = headers(&[
        ("x-amz-meta-a", "  two   spaces  "),
        ("x-amz-meta", "1"),
        ("x-amz-meta-ab", "2"),
        ("x-amz-meta-a-b", "3"),
    ]);
    assert_eq!(
        signed(&signer(None), &get("/k", ""), &mut meta).1,
        "0dfa3eb90e8b826fe30f561fcc124321f8099c4cbfdfc866b925b99660916973"
    );
}

#[test]
fn other_services_are_signed_for_their_own_scope() {
    let body = sha256_hex([b"Action=AssumeRole&Version=2011-06-15".as_slice()]);
    let post = ToSign {
        method: &Method::POST,
        host: "sts.amazonaws.com",
        payload: Payload::Sha256(&body),
        service: "sts",
        ..get("/", "")
    };
    let mut form = headers(&[("content-type", "application/x-www-form-urlencoded")]);
    let (names, signature) = signed(&signer(Some("t")), &post, &mut form);
    assert_eq!(names, "content-type;host;x-amz-date;x-amz-security-token");
    assert_eq!(signature, "666e21b9158365e5e12b72a9e245ef6ac3d01cd59076e3d9736ea629d2f07aac");
}

#[test]
fn a_signature_takes_the_place_of_the_one_before() {
    let later = ToSign { time: moment() + Duration::from_secs(86_400), ..get("/k", "") };
    let elsewhere = ToSign { region: "eu-central-1", ..later };
    let base = [("x-amz-meta-a", "1"), ("user-agent", "a proxy adds to it")];
    let mut again = headers(&base);
    let signer_again = signer(None);
    signer(Some("old")).sign(&get("/k", ""), &mut again).unwrap();
    for request in [get("/k", ""), later, elsewhere, later] {
        signer_again.sign(&request, &mut again).unwrap();
        let mut fresh = headers(&base);
        signer(None).sign(&request, &mut fresh).unwrap();
        assert_eq!(again, fresh, "a key of another scope, or a header left over");
    }
    assert!(!again["authorization"].to_str().unwrap().contains("user-agent"));
}

#[test]
fn secrets_stay_unseen() {
    let token = "the-session-token";
    let signer = signer(Some(token));
    let mut headers = HeaderMap::new();
    let (_, signature) = signed(&signer, &get("/k", ""), &mut headers);
    let shown = format!("{signer:?} {headers:?}");
    for secret in [SECRET, token, &*signature] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let broken = Signer::new("id", Secret::new("s"), Some(Secret::new("line\nbreak")));
    let error = broken.sign(&get("/k", ""), &mut headers).unwrap_err().to_string();
    assert!(error.contains("session token") && !error.contains("break"), "{error}");
}

#[test]
fn what_cannot_be_signed_is_an_error() {
    let signer = signer(None);
    let before = ToSign { time: SystemTime::UNIX_EPOCH - Duration::from_secs(1), ..get("/", "") };
    assert!(signer.sign(&before, &mut HeaderMap::new()).is_err());
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
    let never = ToSign { time: far, ..before };
    assert!(signer.sign(&never, &mut HeaderMap::new()).is_err());
    let mut odd = HeaderMap::new();
    odd.insert("x-amz-meta-a", HeaderValue::from_bytes(b"\xff").unwrap());
    assert!(signer.sign(&get("/", ""), &mut odd).is_err());
}
