//! Documents of servers, well-meant and not.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::xml::*;
use crate::backend::http::ListedObject;

type Reader = fn(&[u8]) -> bool;

/// Every reader, and whether it took the document.
const READERS: [Reader; 3] = [
    |xml| parse_error(xml).is_some(),
    |xml| parse_listing(xml).is_ok(),
    |xml| parse_uncommitted(xml).is_ok(),
];

const LISTING: &str = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\
    <EnumerationResults ServiceEndpoint=\"https://a.blob.core.windows.net/\" ContainerName=\"c\">\
    <Prefix>a/</Prefix><MaxResults>3</MaxResults><Delimiter>/</Delimiter><Blobs>\
    <Blob><Name>a/1&amp;2</Name><Properties><Creation-Time>Mon, 12 Oct 2009 17:50:00 GMT</Creation-Time>\
    <Last-Modified>Mon, 12 Oct 2009 17:50:30 GMT</Last-Modified><Etag>0x8CBFF45D8A29A19</Etag>\
    <Content-Length>434234</Content-Length><Content-MD5 /><BlobType>BlockBlob</BlobType></Properties>\
    <OrMetadata /></Blob>\
    <BlobPrefix><Name>a/b/</Name></BlobPrefix>\
    <Blob><Name Encoded=\"true\">a/%EF%BF%BE%25</Name><Properties>\
    <Content-Length>0</Content-Length></Properties></Blob>\
    <Blob><Name>a/folder</Name><Properties><Content-Length>0</Content-Length>\
    <ResourceType>directory</ResourceType></Properties></Blob>\
    <BlobPrefix><Name>a/d/</Name></BlobPrefix>\
    </Blobs><NextMarker>2!8!MDAw--</NextMarker></EnumerationResults>";

#[test]
fn a_listing_is_read_with_all_its_fields_and_with_the_needed_ones() {
    let listing = parse_listing(LISTING.as_bytes()).unwrap();
    assert_eq!(listing.prefixes, ["a/b/", "a/d/"]);
    assert_eq!(listing.objects.next.as_deref(), Some("2!8!MDAw--"));
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_255_369_830);
    assert_eq!(
        listing.objects.items,
        [
            ListedObject {
                key: "a/1&2".to_owned(),
                size_bytes: 434_234,
                etag: Some("\"0x8CBFF45D8A29A19\"".to_owned()),
                modified: Some(time),
            },
            ListedObject {
                key: "a/\u{fffe}%".to_owned(),
                size_bytes: 0,
                etag: None,
                modified: None
            },
        ]
    );
    let empty = "<EnumerationResults><Blobs /><NextMarker /></EnumerationResults>";
    let empty = parse_listing(empty.as_bytes()).unwrap();
    assert!(empty.objects.items.is_empty() && empty.objects.next.is_none());
}

#[test]
fn a_broken_listing_is_not_an_empty_one() {
    for (cut, why) in [
        ("<NextMarker>2!8!MDAw--</NextMarker>", "does not say whether it goes on"),
        ("<Content-Length>434234</Content-Length>", "a blob without a size"),
        ("<Name>a/1&amp;2</Name>", "a blob without a name"),
        ("a/1&amp;2", "a blob with an empty name"),
        ("</Blobs>", "no XML"),
    ] {
        assert!(LISTING.contains(cut));
        assert!(parse_listing(LISTING.replace(cut, "").as_bytes()).is_err(), "{why}");
    }
    for other in ["", "<html/>", "<EnumerationResults/>", "<!DOCTYPE x><EnumerationResults/>"] {
        assert!(parse_listing(other.as_bytes()).is_err(), "{other}");
    }
    for bad in ["%", "%2", "%zz", "%ff"] {
        assert!(parse_listing(LISTING.replace("%EF%BF%BE%25", bad).as_bytes()).is_err(), "{bad}");
    }
    for end in 0..LISTING.len() {
        let bytes = &LISTING.as_bytes()[..end];
        assert!(parse_listing(bytes).is_err(), "cut at {end}");
    }
}

#[test]
fn blocks_that_are_not_committed_are_counted() {
    let list = "<?xml version=\"1.0\"?><BlockList><CommittedBlocks><Block><Name>YQ==</Name>\
        <Size>5</Size></Block></CommittedBlocks><UncommittedBlocks><Block><Name>YQ==</Name>\
        <Size>7</Size></Block><Block><Name>Yg==</Name><Size>8</Size></Block></UncommittedBlocks>\
        </BlockList>";
    let found = parse_uncommitted(list.as_bytes()).unwrap();
    assert_eq!(found, Uncommitted { blocks: 2, bytes: 15 });
    for none in ["<BlockList/>", "<BlockList><UncommittedBlocks /></BlockList>"] {
        assert_eq!(parse_uncommitted(none.as_bytes()).unwrap(), Uncommitted::default());
    }
    assert!(parse_uncommitted(list.replace('7', "x").as_bytes()).is_err());
    let forged = list.replace('7', &i64::MAX.to_string());
    assert_eq!(parse_uncommitted(forged.as_bytes()).unwrap().bytes, i64::MAX as u64 + 8);
    assert!(parse_uncommitted(list.replace('7', &u64::MAX.to_string()).as_bytes()).is_err());
}

#[test]
fn errors_are_read() {
    let error = "<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code><Message>Server failed.\n\
        RequestId:1\nTime:2</Message><AuthenticationErrorDetail>secret</AuthenticationErrorDetail>\
        </Error>";
    let error = parse_error(error.as_bytes()).unwrap();
    assert_eq!((error.code.as_str(), error.detail.as_str()), ("AuthenticationFailed", "secret"));
    assert!(error.message.starts_with("Server failed.\n"));
    for other in ["", "{}", "<html>", "<Error></Error>"] {
        assert!(parse_error(other.as_bytes()).is_none(), "{other}");
    }
}

#[test]
fn a_list_of_blocks_keeps_their_order() {
    assert_eq!(
        write_block_list(["YQ==", "Yg=="]),
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList><Uncommitted>YQ==</Uncommitted>\
         <Uncommitted>Yg==</Uncommitted></BlockList>"
    );
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        READERS.iter().for_each(|read| _ = read(&bytes));
    }

    #[test]
    fn nearly_right_documents_never_panic(at in 0usize..LISTING.len(), byte: u8) {
        let mut bytes = LISTING.as_bytes().to_vec();
        bytes[at] = byte;
        READERS.iter().for_each(|read| _ = read(&bytes));
    }

    /// Names as they are, but for what XML cannot carry.
    #[test]
    fn names_survive_a_listing(name in "[ <&%]?[a-z][a-z <>&\"'%+]{0,20}") {
        let mut text = String::new();
        crate::backend::http::document::push_element(&mut text, "Name", &name);
        let listing = LISTING.replace("<Name>a/1&amp;2</Name>", &text);
        let listing = parse_listing(listing.as_bytes()).unwrap();
        prop_assert_eq!(&listing.objects.items[0].key, &name);
    }
}
