//! What must hold of anything that a server sends; see `crate::fuzzing`.

use std::time::{Duration, SystemTime};

use super::http::{
    content_range, format_http_date, one_line, parse_http_date, quote, reason, retry_after,
    secrets_in,
};

pub use super::azure::fuzzing::{azure_credentials, azure_xml};
pub use super::s3::fuzzing::{aws_credentials, s3_xml};

/// Values of headers, and the words of an error.
pub fn headers(data: &[u8]) {
    let secrets = secrets_in(data);
    if let Some(words) = reason(data) {
        quote(&words, &secrets.iter().collect::<Vec<_>>());
    }
    let Ok(text) = str::from_utf8(data) else { return };
    let line = one_line(text);
    assert!(!line.contains(char::is_control) && line.chars().count() <= text.chars().count());
    if let Some(time) = parse_http_date(text)
        && let Some(printed) = format_http_date(time)
    {
        assert_eq!(parse_http_date(&printed), Some(time), "{printed}");
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_338_088);
    if let Some(wait) = retry_after(text, now)
        && parse_http_date(text).is_some()
    {
        // Times end with the year 9999.
        assert!(wait < Duration::from_secs(8_000 * 366 * 86_400), "{wait:?}");
    }
    if let Some((first, last, size)) = content_range(text) {
        let printed = format!("bytes {first}-{last}/{size}");
        assert_eq!(content_range(&printed), Some((first, last, size)));
    }
}

/// That texts read from a document could stand in it, each in an element of its own: nothing is expanded.
pub(super) fn assert_held<'a>(document: &[u8], texts: impl IntoIterator<Item = &'a str>) {
    let needed: usize = texts.into_iter().map(|text| "<a/>".len() + text.len()).sum();
    assert!(needed <= document.len(), "{needed} bytes of {}", document.len());
}
