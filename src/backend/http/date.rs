//! Times in headers.

use std::time::SystemTime;

use jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};

/// A time as `Date`, `Last-Modified` and `Retry-After` have it: `Sun, 06 Nov 1994 08:49:37 GMT`.
/// `None` where it is none. The two obsolete forms of RFC 9110, section 5.6.7, are not read.
pub(crate) fn parse_http_date(text: &str) -> Option<SystemTime> {
    let time = DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(SystemTime::from(time))
}

/// A time as headers have it; `None` before the year 0 and after 9999.
pub(crate) fn format_http_date(time: SystemTime) -> Option<String> {
    let time = jiff::Timestamp::try_from(time).ok()?;
    DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn the_form_of_the_standard_is_read() {
        let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", " Sun, 06 Nov 1994 08:49:37 +0000 "] {
            assert_eq!(parse_http_date(text), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in ["", "120", "0", "Sun, 06 Nov 1994", "Mon, 06 Nov 1994 08:49:37 GMT", "soon"] {
            assert_eq!(parse_http_date(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0_u64..253_402_300_800) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let text = format_http_date(time).unwrap();
            prop_assert_eq!(text.len(), "Sun, 06 Nov 1994 08:49:37 GMT".len());
            prop_assert!(text.ends_with(" GMT"));
            prop_assert_eq!(parse_http_date(&text), Some(time));
        }

        #[test]
        fn garbage_never_panics(text in "\\PC{0,60}") {
            parse_http_date(&text);
        }
    }
}
