//! Documents of servers, well-meant and not.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::xml::*;
use crate::backend::http::ListedObject;

const NAMESPACE: &str = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";

type Reader = fn(&[u8]) -> bool;

/// Every reader, and whether it took the document.
const READERS: [Reader; 7] = [
    |xml| parse_error(xml).is_some(),
    |xml| parse_initiated(xml).is_ok(),
    |xml| parse_completed(xml).is_ok(),
    |xml| parse_listing(xml).is_ok(),
    |xml| parse_uploads(xml).is_ok(),
    |xml| parse_parts(xml).is_ok(),
    |xml| parse_deletion(xml).is_ok(),
];

#[test]
fn a_listing_is_read_with_all_its_fields_and_with_the_needed_ones() {
    let full = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult {NAMESPACE}>\
         <Name>b</Name><Prefix>a/</Prefix><KeyCount>3</KeyCount><MaxKeys>3</MaxKeys>\
         <Contents><Key>a/1&amp;2</Key><LastModified>2009-10-12T17:50:30.250Z</LastModified>\
         <ETag>&quot;fba9&quot;</ETag><Size>434234</Size><StorageClass>STANDARD</StorageClass>\
         <Owner><ID>1</ID></Owner><ChecksumAlgorithm>CRC32C</ChecksumAlgorithm></Contents>\n\
         <CommonPrefixes><Prefix>a/b/</Prefix></CommonPrefixes>\
         <Contents><Size> 0 </Size><Key>a/c</Key></Contents>\
         <CommonPrefixes><Prefix>a/d/</Prefix></CommonPrefixes>\
         <IsTruncated>true</IsTruncated><NextContinuationToken>1+/%=</NextContinuationToken>\
         </ListBucketResult>"
    );
    let listing = parse_listing(full.as_bytes()).unwrap();
    assert_eq!(listing.common_prefixes, ["a/b/", "a/d/"]);
    assert_eq!(listing.objects.next.as_deref(), Some("1+/%="));
    let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(1_255_369_830_250);
    let expected = [
        ListedObject {
            key: "a/1&2".to_owned(),
            size_bytes: 434_234,
            etag: Some("\"fba9\"".to_owned()),
            modified: Some(modified),
        },
        ListedObject { key: "a/c".to_owned(), size_bytes: 0, etag: None, modified: None },
    ];
    assert_eq!(listing.objects.items, expected);

    let bare = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    let listing = parse_listing(bare.as_bytes()).unwrap();
    assert!(listing.objects.items.is_empty() && listing.objects.next.is_none());
}

#[test]
fn what_a_listing_needs_is_demanded() {
    let list = |inner: &str| {
        parse_listing(format!("<ListBucketResult>{inner}</ListBucketResult>").as_bytes())
    };
    let ends = "<IsTruncated>false</IsTruncated>";
    assert!(list(ends).is_ok());
    for broken in [
        "",
        "<IsTruncated>maybe</IsTruncated>",
        "<IsTruncated>true</IsTruncated>",
        "<IsTruncated>true</IsTruncated><NextContinuationToken/>",
        &format!("{ends}<Contents><Key>a</Key></Contents>"),
        &format!("{ends}<Contents><Key/><Size>1</Size></Contents>"),
        &format!("{ends}<Contents><Size>1</Size></Contents>"),
        &format!("{ends}<Contents><Key>a</Key><Size>-1</Size></Contents>"),
        &format!("{ends}<Contents><Key>a</Key><Size>1</Size>"),
        &format!("{ends}<Contents><Key>&unknown;</Key><Size>1</Size></Contents>"),
        &format!(
            "{ends}<EncodingType>url</EncodingType><Contents><Key>%F</Key><Size>1</Size></Contents>"
        ),
        &format!(
            "{ends}<EncodingType>url</EncodingType><Contents><Key>%FF</Key><Size>1</Size></Contents>"
        ),
    ] {
        assert!(list(broken).is_err(), "{broken}");
    }
    assert!(parse_listing(b"<html><body>Welcome to this network</body></html>").is_err());
    assert!(parse_listing(b"").is_err());
}

#[test]
fn encoded_keys_are_decoded_and_tokens_are_not() {
    let xml = "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
               <NextContinuationToken>a%2Bb+</NextContinuationToken>\
               <Contents><Key>a+b%20c%2Bd%25/%C3%A9%0A</Key><Size>1</Size></Contents>\
               <CommonPrefixes><Prefix>p%2f+</Prefix></CommonPrefixes></ListBucketResult>";
    let listing = parse_listing(xml.as_bytes()).unwrap();
    assert_eq!(listing.objects.items[0].key, "a b c+d%/\u{e9}\n");
    assert_eq!(listing.common_prefixes, ["p/ "]);
    assert_eq!(listing.objects.next.as_deref(), Some("a%2Bb+"));
}

#[test]
fn uploads_and_parts_are_read_page_by_page() {
    let xml = format!(
        "<ListMultipartUploadsResult {NAMESPACE}><Bucket>b</Bucket><KeyMarker/>\
         <NextKeyMarker>k%2F2</NextKeyMarker><NextUploadIdMarker>u2</NextUploadIdMarker>\
         <EncodingType>url</EncodingType><MaxUploads>2</MaxUploads><IsTruncated>true</IsTruncated>\
         <Upload><Key>k%2F1</Key><UploadId>u1</UploadId><Initiator><ID>i</ID></Initiator>\
         <Initiated>1970-01-01T00:00:01.000Z</Initiated></Upload>\
         <Upload><Key>k%2F2</Key><UploadId>u2</UploadId></Upload></ListMultipartUploadsResult>"
    );
    let page = parse_uploads(xml.as_bytes()).unwrap();
    let initiated = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let upload = |key: &str, upload_id: &str, initiated| ListedUpload {
        key: key.to_owned(),
        upload_id: upload_id.to_owned(),
        initiated,
    };
    assert_eq!(page.items, [upload("k/1", "u1", Some(initiated)), upload("k/2", "u2", None)]);
    let next = UploadMarker { key: "k/2".to_owned(), upload_id: Some("u2".to_owned()) };
    assert_eq!(page.next, Some(next));

    let xml = format!(
        "<ListPartsResult {NAMESPACE}><UploadId>u</UploadId><PartNumberMarker>0</PartNumberMarker>\
         <NextPartNumberMarker>7</NextPartNumberMarker><IsTruncated>true</IsTruncated>\
         <Part><PartNumber>7</PartNumber><ETag>\"e\"</ETag><Size>5242880</Size></Part></ListPartsResult>"
    );
    let page = parse_parts(xml.as_bytes()).unwrap();
    let part = ListedPart { number: 7, size_bytes: 5_242_880, etag: Some("\"e\"".to_owned()) };
    assert_eq!((page.items, page.next), (vec![part], Some(7)));
    let unnamed = "<Upload><Key/><UploadId>u</UploadId></Upload><IsTruncated>false</IsTruncated>";
    let unnamed = format!("<ListMultipartUploadsResult>{unnamed}</ListMultipartUploadsResult>");
    assert!(parse_uploads(unnamed.as_bytes()).is_err());
    let last = xml.replace(">true<", ">false<");
    assert_eq!(parse_parts(last.as_bytes()).unwrap().next, None);
}

#[test]
fn a_deletion_tells_what_failed() {
    let xml = format!(
        "<DeleteResult {NAMESPACE}><Deleted><Key>a&lt;b</Key></Deleted>\
         <Error><Key>c</Key><Code>AccessDenied</Code><Message>no</Message></Error>\
         <Deleted><Key>d</Key><DeleteMarker>true</DeleteMarker></Deleted>\
         <Error><Key>e</Key><Code>InternalError</Code></Error></DeleteResult>"
    );
    let deletion = parse_deletion(xml.as_bytes()).unwrap();
    assert_eq!(deletion.deleted, ["a<b", "d"]);
    let failed: Vec<_> = deletion.failed.iter().map(|f| (&*f.key, &*f.code, &*f.message)).collect();
    assert_eq!(failed, [("c", "AccessDenied", "no"), ("e", "InternalError", "")]);
    assert_eq!(parse_deletion(b"<DeleteResult/>").unwrap(), Deletion::default());
    assert!(parse_deletion(b"<DeleteResult><Error><Key>a</Key></Error></DeleteResult>").is_err());
}

#[test]
fn an_answer_to_complete_is_an_object_or_an_error() {
    let done = format!(
        "<?xml version=\"1.0\"?><CompleteMultipartUploadResult {NAMESPACE}><Location>l</Location>\
         <ETag>&#34;e-2&#x22;</ETag><ChecksumCRC32C>yZRlqg==</ChecksumCRC32C>\
         <ChecksumType>FULL_OBJECT</ChecksumType></CompleteMultipartUploadResult>"
    );
    let error =
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>InternalError</Code></Error>";
    for spaces in ["", "   \n", &" \r\n".repeat(5000)] {
        let completed = parse_completed(format!("{spaces}{done}").as_bytes()).unwrap().unwrap();
        assert_eq!(completed.etag.as_deref(), Some("\"e-2\""));
        assert_eq!(completed.crc32c.as_deref(), Some("yZRlqg=="));
        assert_eq!(completed.checksum_type.as_deref(), Some("FULL_OBJECT"));
        assert_eq!((completed.crc32, completed.crc64nvme), (None, None));
        let refused = parse_completed(format!("{spaces}{error}").as_bytes()).unwrap().unwrap_err();
        assert_eq!(refused.code, "InternalError");
    }
    for neither in ["", "    ", "<Other/>", "ok", &done[..done.len() - 5]] {
        assert!(parse_completed(neither.as_bytes()).is_err(), "{neither:?}");
    }
}

#[test]
fn errors_and_upload_ids_are_read() {
    let xml = "\u{feff}<Error><Code>PermanentRedirect</Code><Message>a &lt; b</Message>\
               <Endpoint>b.s3.eu-central-1.amazonaws.com</Endpoint><Bucket>ignored</Bucket>\
               <Region>eu-central-1</Region><BucketName>b</BucketName>\
               <RequestId>r</RequestId><HostId>h</HostId></Error>";
    let error = parse_error(xml.as_bytes()).unwrap();
    assert_eq!((&*error.code, &*error.message), ("PermanentRedirect", "a < b"));
    assert_eq!(error.region.as_deref(), Some("eu-central-1"));
    assert_eq!(error.endpoint.as_deref(), Some("b.s3.eu-central-1.amazonaws.com"));
    assert_eq!(error.bucket_name.as_deref(), Some("b"));
    assert_eq!((error.request_id.as_deref(), error.host_id.as_deref()), (Some("r"), Some("h")));
    assert_eq!(parse_error(b"<Error><Message>x</Message></Error>"), None);
    assert_eq!(parse_error(b"<html/>"), None);

    let initiated = |inner| {
        format!(
            "<s3:InitiateMultipartUploadResult xmlns:s3=\"x\">{inner}</s3:InitiateMultipartUploadResult>"
        )
    };
    let id = parse_initiated(initiated("<s3:UploadId>VXBsb2Fk</s3:UploadId>").as_bytes());
    assert_eq!(id.unwrap(), "VXBsb2Fk");
    assert!(parse_initiated(initiated("<UploadId/>").as_bytes()).is_err());
    assert!(parse_initiated(initiated("").as_bytes()).is_err());
}

#[test]
fn entities_are_never_expanded() {
    let bomb = "<?xml version=\"1.0\"?><!DOCTYPE Error [<!ENTITY a \"aaaaaaaaaa\">\
                <!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\"><!ENTITY x SYSTEM \"file:///etc/passwd\">]>";
    for inner in ["&b;", "&x;", "plain"] {
        let xml = format!("{bomb}<Error><Code>{inner}</Code></Error>");
        assert_eq!(parse_error(xml.as_bytes()), None, "{inner}");
    }
    for bad in ["&a;", "&#0;", "&#x110000;", "&", "&lt", "&#xD800;"] {
        let xml = format!("<Error><Code>{bad}</Code></Error>");
        assert_eq!(parse_error(xml.as_bytes()), None, "{bad}");
    }
}

#[test]
fn no_depth_overflows_the_stack() {
    const DEPTH: usize = 100_000;
    for tag in ["a", "Contents", "Code", "Key", "Error", "Part"] {
        let open = format!("<{tag}>").repeat(DEPTH);
        let close = format!("</{tag}>").repeat(DEPTH);
        for root in ["Error", "ListBucketResult", "DeleteResult", "ListPartsResult"] {
            for xml in [format!("<{root}>{open}{close}</{root}>"), format!("<{root}>{open}")] {
                READERS.iter().for_each(|reader| {
                    reader(xml.as_bytes());
                });
            }
        }
    }
    let deep = format!(
        "<Error><x>{}{}</x><Code>c</Code></Error>",
        "<a>".repeat(DEPTH),
        "</a>".repeat(DEPTH)
    );
    assert_eq!(parse_error(deep.as_bytes()).unwrap().code, "c", "unknown elements are skipped");
}

#[test]
fn a_completion_lists_parts_with_their_checksums() {
    let part = |number, etag, checksum| CompletedPart { number, etag, checksum };
    let xml = write_complete([
        part(1, "\"a\"", Some(("ChecksumCRC32C", "AAAAAA=="))),
        part(2, "b&", None),
    ]);
    assert_eq!(
        xml,
        format!(
            "<CompleteMultipartUpload {NAMESPACE}><Part><PartNumber>1</PartNumber>\
             <ETag>&quot;a&quot;</ETag><ChecksumCRC32C>AAAAAA==</ChecksumCRC32C></Part>\
             <Part><PartNumber>2</PartNumber><ETag>b&amp;</ETag></Part></CompleteMultipartUpload>"
        )
    );
}

/// The keys of a Delete as a server would read them: its shape is that of a DeleteResult.
fn keys_of_delete(xml: &str) -> Vec<String> {
    let as_result = xml
        .replace("<Delete xmlns", "<DeleteResult xmlns")
        .replace("</Delete>", "</DeleteResult>")
        .replace("Object>", "Deleted>");
    parse_deletion(as_result.as_bytes()).unwrap().deleted
}

#[test]
fn a_delete_answers_in_full() {
    assert!(write_delete(&["a"]).ends_with("<Quiet>false</Quiet></Delete>"));
}

proptest! {
    #[test]
    fn keys_survive_a_delete(keys in prop::collection::vec("[ -~\\n\\t\\r\u{e9}\u{1f600}]{1,20}", 0..5)) {
        prop_assert_eq!(keys_of_delete(&write_delete(&keys)), keys);
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        READERS.iter().for_each(|reader| { reader(&bytes); });
    }

    #[test]
    fn nearly_right_documents_never_panic(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "<Error>", "</Error>", "<ListBucketResult>", "</ListBucketResult>", "<Contents>", "</Contents>",
            "<Key>", "</Key>", "<Code/>", "<Size>1</Size>", "<IsTruncated>true</IsTruncated>", "&lt;", "&x;",
            "<![CDATA[", "]]>", "<!--", "-->", "<?xml?>", "<!DOCTYPE a>", "a", " ", "<Deleted>", "</Deleted>",
            "<DeleteResult>", "</DeleteResult>", "<Part a='1'>", "</Part>", "<ListPartsResult>", "\u{e9}",
        ]), 0..30)
    ) {
        let xml = pieces.concat();
        READERS.iter().for_each(|reader| { reader(xml.as_bytes()); });
    }
}
