//! Which web pages may connect to a server endpoint, told by the `Origin` that browsers send.
//!
//! Any page can dial any address that its reader's machine reaches, so what is not allowed is
//! refused. Whoever sends no `Origin` is no browser and is not this list's affair.
//! Pages of the web come from a scheme, a name and a port. What else sends an origin (files, opened apps,
//! extensions of a browser) has a form of its own, and is compared as it is written.

use super::Redacted;

/// The origins of web pages that are let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedOrigins {
    /// `None`: a page is let in by the host it came from itself.
    listed: Option<Vec<Pattern>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    /// As [`normal`] has it.
    Exact(String),
    /// `scheme` and what the rest must end with: a dot, a name, a port.
    Below {
        scheme: String,
        end: String,
    },
}

impl AllowedOrigins {
    /// These, and no others: `https://example.com`, `https://*.example.com`, `app://local`, `null`, `*`.
    ///
    /// # Errors
    /// The first that is no origin, by its place.
    pub fn listed(origins: &[Redacted]) -> Result<Self, usize> {
        let mut listed = Vec::with_capacity(origins.len());
        for (index, origin) in origins.iter().enumerate() {
            listed.push(Pattern::parse(origin.expose()).ok_or(index)?);
        }
        Ok(Self { listed: Some(listed) })
    }

    /// Whether any were listed.
    pub fn are_listed(&self) -> bool {
        self.listed.is_some()
    }

    /// Whether a page of this origin may connect; `host` is the `Host` that it asked for.
    pub fn allow(&self, origin: &str, host: Option<&str>) -> bool {
        let origin = normal(origin);
        let Some(listed) = &self.listed else {
            let page = origin.split_once("://").filter(|(scheme, _)| is_of_the_web(scheme));
            let Some(((scheme, page), host)) = page.zip(host) else { return false };
            return page == without_port(scheme, &host.to_ascii_lowercase());
        };
        listed.iter().any(|pattern| pattern.matches(&origin))
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "*" => return Some(Self::Any),
            "null" => return Some(Self::Exact(text.to_owned())),
            _ => {}
        }
        let (scheme, authority) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme))?;
        let name = authority.strip_prefix("*.").unwrap_or(authority);
        let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        let is_name = !name.is_empty() && !name.starts_with('.') && name.chars().all(is_of_a_name);
        if authority.starts_with('*') {
            let (scheme, name) = (scheme.to_ascii_lowercase(), name.to_ascii_lowercase());
            let end = format!(".{}", without_port(&scheme, &name));
            return is_name.then_some(Self::Below { scheme, end });
        }
        // Origins of other schemes are taken as they are sent; what programs make up has no form.
        let is_origin = if is_of_the_web(scheme) {
            is_name
        } else {
            !authority.contains(|c: char| c == '*' || c.is_whitespace() || c.is_control())
        };
        is_origin.then(|| Self::Exact(normal(text)))
    }

    /// Whether an origin, as [`normal`] has it, is one of these.
    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == origin,
            Self::Below { scheme: wanted, end } => {
                let is_of_a_label = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
                origin.split_once("://").is_some_and(|(scheme, authority)| {
                    wanted == scheme
                        && authority.strip_suffix(end.as_str()).is_some_and(|name| {
                            !name.is_empty() && !name.starts_with('.') && name.chars().all(is_of_a_label)
                        })
                })
            }
        }
    }
}

/// Whether pages of a scheme are of the web, whose origins are a scheme, a host and a port.
fn is_of_the_web(scheme: &str) -> bool {
    ["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

/// Whether this is a scheme (RFC 3986, section 3.1).
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// An origin of the web in lower case and without the port that its scheme has anyway; any other as it is.
fn normal(origin: &str) -> String {
    match origin.split_once("://") {
        Some((scheme, authority)) if is_of_the_web(scheme) => {
            let (scheme, authority) = (scheme.to_ascii_lowercase(), authority.to_ascii_lowercase());
            format!("{scheme}://{}", without_port(&scheme, &authority))
        }
        _ => origin.to_owned(),
    }
}

/// An authority without the port that its scheme has anyway.
fn without_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let port = match scheme {
        "http" | "ws" => ":80",
        "https" | "wss" => ":443",
        _ => return authority,
    };
    authority.strip_suffix(port).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn let_in(origins: &[&str], origin: &str) -> bool {
        let origins: Vec<_> = origins.iter().map(|text| Redacted::plain(*text)).collect();
        AllowedOrigins::listed(&origins).expect("origins").allow(origin, Some("api.example.com"))
    }

    #[test]
    fn without_a_list_only_pages_of_the_same_host_and_port_are_let_in() {
        let allow = |origin: &str, host: &str| AllowedOrigins::default().allow(origin, Some(host));
        assert!(allow("http://127.0.0.1:10081", "127.0.0.1:10081"));
        assert!(allow("https://Example.com", "example.com"));
        assert!(allow("https://example.com", "example.com:443"));
        assert!(allow("http://[::1]:81", "[::1]:81"));
        assert!(!allow("http://127.0.0.1:8000", "127.0.0.1:10081"));
        assert!(!allow("https://evil.example", "example.com"));
        assert!(!allow("https://example.com.evil.example", "example.com"));
        assert!(!allow("null", "example.com"));
        assert!(!AllowedOrigins::default().allow("https://example.com", None));
    }

    #[test]
    fn a_list_lets_in_what_it_names() {
        assert!(let_in(&["https://a.example"], "https://A.example:443"));
        assert!(!let_in(&["https://a.example"], "http://a.example"));
        assert!(!let_in(&["https://a.example"], "https://a.example:8443"));
        assert!(let_in(&["http://b.example", "https://a.example:8443"], "https://a.example:8443"));
        assert!(!let_in(&["https://a.example"], "https://api.example.com"), "the same host is not on it");
        assert!(let_in(&["*"], "null") && let_in(&["*"], "app://local"));
        assert!(!let_in(&[], "https://a.example"));
    }

    #[test]
    fn a_star_stands_for_names_below_and_not_for_the_name_itself() {
        let below = &["https://*.example.com"];
        assert!(let_in(below, "https://a.example.com") && let_in(below, "https://b.a.example.com"));
        for other in [
            "https://example.com",
            "https://.example.com",
            "https://evilexample.com",
            "http://a.example.com",
            "https://a.example.com:8443",
            "https://evil.example/.example.com",
        ] {
            assert!(!let_in(below, other), "{other}");
        }
        assert!(let_in(&["https://*.example.com:8443"], "https://a.example.com:8443"));
    }

    #[test]
    fn opaque_origins_and_those_of_other_schemes_are_taken_as_they_are_sent() {
        let listed = &["null", "file://", "app://local", "vscode-webview://0aB/x"];
        for origin in listed {
            assert!(let_in(listed, origin), "{origin}");
            assert!(!AllowedOrigins::default().allow(origin, Some("local")), "{origin} without a list");
        }
        for other in ["NULL", "app://local.evil", "app://Local", "app://", "file:///", "http://local"] {
            assert!(!let_in(listed, other), "{other}");
        }
        assert!(let_in(&["tauri://*.localhost"], "tauri://a.localhost"));
    }

    #[test]
    fn what_is_no_origin_is_told_by_its_place() {
        for text in [
            "example.com",
            "https://",
            "https://a.example/",
            "https://*",
            "https://a.*.example",
            "",
            "app://*",
            "app://a b",
            "://a",
            "app:local",
        ] {
            let origins = [Redacted::plain("*"), Redacted::plain(text)];
            assert_eq!(AllowedOrigins::listed(&origins), Err(1), "{text}");
        }
    }
}
