//! Where a request goes: the place it names, and whether by way of the proxy.

use ::http::Uri;

/// Whether a host is reached without the proxy.
pub(super) fn bypasses(no_proxy: &[String], host: &str) -> bool {
    let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let host = bare(&host.to_ascii_lowercase());
    no_proxy.iter().filter(|entry| !entry.is_empty()).any(|entry| {
        let suffix = entry.strip_prefix('*').unwrap_or(entry);
        match suffix.is_empty() || suffix.starts_with('.') {
            true => host.ends_with(suffix),
            false => host == bare(entry),
        }
    })
}

/// `host:port`, which is all of a URI that messages show.
pub(super) fn place(uri: &Uri) -> String {
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    format!("{}:{port}", uri.host().unwrap_or("no host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_go_past_the_proxy_as_documented() {
        for (list, host, past) in [
            ("a.example", "a.example", true),
            ("a.example", "A.Example", true),
            ("a.example", "b.a.example", false),
            ("a.example", "aa.example", false),
            (".example", "a.example", true),
            ("*.example", "a.b.example", true),
            ("*.example", "example", false),
            (".a.example", "aa.example", false),
            ("*", "anything", true),
            ("", "anything", false),
            ("::1", "[::1]", true),
            ("127.0.0.1", "127.0.0.10", false),
        ] {
            let list = [String::new(), list.to_owned()];
            assert_eq!(bypasses(&list, host), past, "{list:?} {host}");
        }
    }

    #[test]
    fn a_place_is_host_and_port_alone() {
        for (uri, named) in [
            ("http://h/a?secret=1", "h:80"),
            ("https://h/a", "h:443"),
            ("https://u:secret@h:9/a", "h:9"),
            ("http://[::1]:9/", "[::1]:9"),
        ] {
            assert_eq!(place(&Uri::from_static(uri)), named);
        }
    }
}
