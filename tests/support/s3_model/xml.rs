//! XML, no more of it than the model needs.

use std::time::SystemTime;

use super::Answer;

/// A document, as an answer.
pub fn answer(root: &str, inner: &str) -> Answer {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <{root} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inner}</{root}>"
    );
    Answer::new(200).header("content-type", "application/xml").body(body)
}

/// One element with text.
pub fn element(name: &str, text: impl ToString) -> String {
    format!("<{name}>{}</{name}>", escape(&text.to_string()))
}

fn escape(text: &str) -> String {
    let escaped = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        c if c.is_control() => format!("&#{};", u32::from(c)),
        c => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// What stands inside each element of this name, as it stands.
pub fn inner<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let pieces = xml.split(&open).skip(1);
    pieces.filter_map(|piece| piece.split_once(&close)).map(|(inner, _)| inner).collect()
}

/// The text of the first element of this name.
pub fn text(xml: &str, name: &str) -> Option<String> {
    inner(xml, name).first().map(|text| unescape(text))
}

fn unescape(text: &str) -> String {
    let mut pieces = text.split('&');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once(';').expect("an entity ends with a semicolon");
        let code = |digits: &str, base| {
            u32::from_str_radix(digits, base).ok().and_then(char::from_u32).expect("a character")
        };
        out.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            name => match name.strip_prefix("#x") {
                Some(digits) => code(digits, 16),
                None => code(name.trim_start_matches('#'), 10),
            },
        });
        out.push_str(rest);
    }
    out
}

/// As listings have it.
pub fn iso_time(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap();
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// A key as a listing with `encoding-type=url` has it: like a form.
pub fn encode_key(key: &str) -> String {
    let encoded = |byte: u8| match byte {
        b' ' => "+".to_owned(),
        b'/' | b'-' | b'_' | b'.' | b'*' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    key.bytes().map(encoded).collect()
}
