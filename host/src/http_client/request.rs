//! What a guest asks for, checked: its url, its method, and headers that are its own to set.

use crate::config::{HttpUrl, is_reserved_header};
use crate::foreign_text;
use crate::plugin::{HttpError, HttpRequest};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};

/// More headers than this are refused by most servers.
const MAX_HEADERS: usize = 100;
/// All their names and values together; servers take 8 to 64 KiB.
const MAX_HEADER_BYTES: usize = 32 << 10;
/// No method is longer by far.
const MAX_METHOD_BYTES: usize = 32;

/// Headers that say who asks: they are not for another origin.
pub(super) const PROOFS: [HeaderName; 2] = [header::AUTHORIZATION, header::COOKIE];

/// A request whose parts are what HTTP takes. Whether it is granted, the client looks at.
#[derive(Debug)]
pub(super) struct CheckedRequest {
    pub(super) method: Method,
    pub(super) url: HttpUrl,
    pub(super) headers: HeaderMap,
    body: Bytes,
}

impl CheckedRequest {
    /// # Errors
    /// What of the request is none.
    pub(super) fn of(request: HttpRequest) -> Result<Self, HttpError> {
        let url = HttpUrl::parse(&request.url);
        let url = url.map_err(|why| HttpError::Invalid(format!("the url {why}")))?;
        let method = method(&request.method)?;
        let headers = headers(&request.headers)?;
        Ok(Self { method, url, headers, body: request.body.into() })
    }

    /// The request as it is sent.
    pub(super) fn to_http(&self) -> Result<Request<Full<Bytes>>, HttpError> {
        let mut request = Request::builder().method(&self.method).uri(self.url.path_and_query());
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.headers);
            let host = HeaderValue::try_from(self.url.authority());
            let host = host.map_err(|error| HttpError::Invalid(error.to_string()))?;
            headers.insert(header::HOST, host);
            // Each request has a connection of its own.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            let agent = concat!("tidemill/", env!("CARGO_PKG_VERSION"));
            headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(agent));
        }
        let request = request.body(Full::new(self.body.clone()));
        request.map_err(|error| HttpError::Invalid(error.to_string()))
    }

    /// Makes it the request that follows a redirect: what browsers send again stays (RFC 9110, section 15.4).
    pub(super) fn redirect(&mut self, status: StatusCode, url: HttpUrl) {
        let becomes_get = match status {
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            _ => false,
        };
        if becomes_get {
            self.method = Method::GET;
            self.body = Bytes::new();
            for name in [
                header::CONTENT_TYPE,
                header::CONTENT_ENCODING,
                header::CONTENT_LANGUAGE,
                header::CONTENT_LOCATION,
            ] {
                self.headers.remove(name);
            }
        }
        self.url = url;
    }
}

fn method(name: &str) -> Result<Method, HttpError> {
    let shown = || foreign_text::shown(name);
    if name.eq_ignore_ascii_case("CONNECT") || name.eq_ignore_ascii_case("TRACE") {
        // The one opens a tunnel; the other is answered with all that was sent, the host's headers among it.
        return Err(HttpError::Invalid(format!("the method {} is not for plugins", shown())));
    }
    let method = Method::from_bytes(name.as_bytes()).ok().filter(|_| name.len() <= MAX_METHOD_BYTES);
    method.ok_or_else(|| HttpError::Invalid(format!("\"{}\" is not a method", shown())))
}

fn headers(given: &[(String, String)]) -> Result<HeaderMap, HttpError> {
    let bytes: usize = given.iter().map(|(name, value)| name.len() + value.len()).sum();
    if given.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        let most = MAX_HEADER_BYTES >> 10;
        let why = format!("there are more than {MAX_HEADERS} headers, or more than {most} KiB of them");
        return Err(HttpError::Invalid(why));
    }
    let mut headers = HeaderMap::with_capacity(given.len());
    for (name, value) in given {
        let shown = || foreign_text::shown(name);
        if is_reserved_header(name) {
            return Err(HttpError::Invalid(format!("the header {} is set by the host alone", shown())));
        }
        let header_name = HeaderName::from_bytes(name.as_bytes());
        let header_name = header_name
            .map_err(|_| HttpError::Invalid(format!("\"{}\" is not the name of a header", shown())))?;
        let value = HeaderValue::from_str(value).or_else(|_| HeaderValue::from_bytes(value.as_bytes()));
        let value = value.map_err(|_| {
            HttpError::Invalid(format!("the value of the header {} is not one line of text", shown()))
        })?;
        headers.append(header_name, value);
    }
    Ok(headers)
}
