//! What the strings of a probe mean: addresses, URLs, patterns. Read when the file is, where they are known then; else when the
//! probe begins.
//!
//! Names other than `localhost` are not looked up: a program that is linked statically can't do that the way the machine does it
//! (nsswitch), and a probe that asks another server than its client will would be worth nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What is wrong with such a string, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// In words.
    pub message: String,
    /// The way out.
    pub help: String,
}

fn wrong<T>(message: String, help: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong {
        message,
        help: help.into(),
    })
}

/// A URL of which an answer is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Who is asked: the first that takes a connection.
    pub addresses: Vec<SocketAddr>,
    /// What stands in the `Host` line.
    pub host: String,
    /// What is asked for, from the slash on.
    pub path: String,
}

/// `127.0.0.1:80`, `[::1]:80`; `localhost:80` is both. The first that takes a connection will do.
///
/// # Errors
/// Anything else.
pub fn address(text: &str) -> Result<Vec<SocketAddr>, Wrong> {
    let usual = "write an address and a port, such as \"127.0.0.1:5432\"";
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return wrong(
            format!("{text:?} is a port without an address"),
            format!("did you mean \"127.0.0.1:{text}\"?"),
        );
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return wrong(format!("{text:?} has no port"), usual);
    };
    let port = match port.parse::<u16>() {
        Ok(port) if port > 0 => port,
        _ => return wrong(format!("{port:?} is no port"), usual),
    };
    if let Some(addresses) = hosts(host) {
        return Ok(addresses
            .into_iter()
            .map(|ip| SocketAddr::new(ip, port))
            .collect());
    }
    if host.contains(':') {
        return wrong(
            format!("{text:?} is no address"),
            format!("an IPv6 address stands in brackets: \"[{host}]:{port}\""),
        );
    }
    wrong(
        format!("{host:?} is no IP address, and procflow looks up no names but `localhost`"),
        format!("ask by a command: `command = [\"nc\", \"-z\", {host:?}, \"{port}\"]`"),
    )
}

/// `http://HOST[:PORT][/PATH]`
///
/// # Errors
/// Anything else; `https` among it.
pub fn url(text: &str) -> Result<Url, Wrong> {
    let curl = || format!("ask by a command: `command = [\"curl\", \"-fsS\", {text:?}]`");
    let Some(rest) = text.strip_prefix("http://") else {
        if text.starts_with("https://") {
            return wrong("procflow itself speaks no TLS".to_owned(), curl());
        }
        return wrong(
            format!("{text:?} is no URL that begins with http://"),
            "write one such as \"http://127.0.0.1:8080/health\"",
        );
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let (host, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    // What would end the line of the request, and begin another one.
    if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return wrong(
            "a URL holds no spaces and no control characters".to_owned(),
            "write `%20` for a space",
        );
    }
    let usual = "write one such as \"http://127.0.0.1:8080/health\"";
    if host.is_empty() || host.starts_with(':') {
        return wrong(format!("{text:?} has no host"), usual);
    }
    if host.contains('@') {
        return wrong("procflow itself sends no passwords".to_owned(), curl());
    }
    let has_port = match host.strip_prefix('[') {
        Some(v6) => v6.contains("]:"),
        None => host.contains(':'),
    };
    let with_port = match has_port {
        true => host.to_owned(),
        false => format!("{host}:80"),
    };
    let name = with_port.rsplit_once(':').map_or("", |(name, _)| name);
    if !name.is_empty() && hosts(name).is_none() && !name.contains([':', '[']) {
        return wrong(
            format!("{name:?} is no IP address, and procflow looks up no names but `localhost`"),
            curl(),
        );
    }
    let addresses = address(&with_port).map_err(|e| Wrong {
        help: usual.to_owned(),
        ..e
    })?;
    Ok(Url {
        addresses,
        host: host.to_owned(),
        path: match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/{path}"),
        },
    })
}

fn hosts(host: &str) -> Option<Vec<IpAddr>> {
    if host == "localhost" {
        return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match v6 {
        Some(v6) => v6.parse().ok().map(|ip: Ipv6Addr| vec![ip.into()]),
        None => host.parse().ok().map(|ip: Ipv4Addr| vec![ip.into()]),
    }
}

/// A pattern for lines of output, which are bytes.
///
/// # Errors
/// It is none, or would be too large.
pub fn pattern(text: &str) -> Result<regex::bytes::Regex, Wrong> {
    regex::bytes::RegexBuilder::new(text)
        .size_limit(1 << 20)
        .build()
        .map_err(|e| Wrong {
            // The last line says what; those before draw the place, for which a label has no room.
            message: format!(
                "not a regular expression: {}",
                e.to_string()
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim_start_matches("error: ")
            ),
            help: "a backslash before a character takes it as it stands; in '...' TOML leaves it there".to_owned(),
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn told<T: std::fmt::Debug>(result: Result<T, Wrong>) -> String {
        let wrong = result.unwrap_err();
        format!("{} | {}", wrong.message, wrong.help)
    }

    #[test]
    fn addresses() {
        let shown = |text| {
            let all = address(text).unwrap();
            let all: Vec<String> = all.iter().map(SocketAddr::to_string).collect();
            all.join(" ")
        };
        assert_eq!(shown("127.0.0.1:5432"), "127.0.0.1:5432");
        assert_eq!(shown("[::1]:80"), "[::1]:80");
        assert_eq!(shown("localhost:80"), "127.0.0.1:80 [::1]:80");
    }

    #[test]
    fn what_is_no_address_is_told_with_the_way_out() {
        let usual = "write an address and a port, such as \"127.0.0.1:5432\"";
        for (text, message) in [
            (
                "5432",
                "\"5432\" is a port without an address | did you mean \"127.0.0.1:5432\"?".to_owned(),
            ),
            ("127.0.0.1", format!("\"127.0.0.1\" has no port | {usual}")),
            ("127.0.0.1:0", format!("\"0\" is no port | {usual}")),
            ("127.0.0.1:99999", format!("\"99999\" is no port | {usual}")),
            ("", format!("\"\" has no port | {usual}")),
            (
                "::1:80",
                "\"::1:80\" is no address | an IPv6 address stands in brackets: \"[::1]:80\"".to_owned(),
            ),
            (
                "db.local:5432",
                "\"db.local\" is no IP address, and procflow looks up no names but `localhost` | ask by a command: `command = [\"nc\", \"-z\", \"db.local\", \"5432\"]`".to_owned(),
            ),
        ] {
            assert_eq!(told(address(text)), message, "{text}");
        }
    }

    #[test]
    fn urls() {
        let shown = |text| {
            let url = url(text).unwrap();
            format!("{} {} {}", url.addresses[0], url.host, url.path)
        };
        assert_eq!(shown("http://127.0.0.1"), "127.0.0.1:80 127.0.0.1 /");
        assert_eq!(
            shown("http://localhost:8080/a?b#c"),
            "127.0.0.1:8080 localhost:8080 /a?b"
        );
        assert_eq!(shown("http://[::1]/x"), "[::1]:80 [::1] /x");
        assert_eq!(shown("http://127.0.0.1?x"), "127.0.0.1:80 127.0.0.1 /?x");
    }

    #[test]
    fn what_is_no_url_is_told_with_the_way_out() {
        let usual = "write one such as \"http://127.0.0.1:8080/health\"";
        for (text, message) in [
            (
                "https://127.0.0.1/",
                "procflow itself speaks no TLS | ask by a command: `command = [\"curl\", \"-fsS\", \"https://127.0.0.1/\"]`".to_owned(),
            ),
            (
                "127.0.0.1",
                format!("\"127.0.0.1\" is no URL that begins with http:// | {usual}"),
            ),
            (
                "http://web/",
                "\"web\" is no IP address, and procflow looks up no names but `localhost` | ask by a command: `command = [\"curl\", \"-fsS\", \"http://web/\"]`".to_owned(),
            ),
            (
                "http://u:p@127.0.0.1/",
                "procflow itself sends no passwords | ask by a command: `command = [\"curl\", \"-fsS\", \"http://u:p@127.0.0.1/\"]`".to_owned(),
            ),
            (
                "http://127.0.0.1/a b",
                "a URL holds no spaces and no control characters | write `%20` for a space".to_owned(),
            ),
            ("http://127.0.0.1:x/", format!("\"x\" is no port | {usual}")),
            ("http:///x", format!("\"http:///x\" has no host | {usual}")),
        ] {
            assert_eq!(told(url(text)), message, "{text}");
        }
    }

    #[test]
    fn patterns() {
        assert!(
            pattern("(?i)READY on \\d+$")
                .unwrap()
                .is_match(b"\xff ready on 80")
        );
        assert_eq!(
            told(pattern("a(b")),
            "not a regular expression: unclosed group | a backslash before a character takes it as it stands; in '...' TOML leaves it there"
        );
    }
}
