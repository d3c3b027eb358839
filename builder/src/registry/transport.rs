//! Requests to a registry, and to where it sends on to.
//!
//! The client follows no redirect by itself: what is known of somebody goes to the registry's own
//! origin and nowhere else, and from TLS nothing leads to a place without it.

use std::io::Read;
use std::time::Duration;

use reqwest::blocking::{Body, Client, Response};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, Url};

use super::error::RegistryError;
use crate::fetch::causes;

/// How often one request is sent on.
const REDIRECTS_MAX: usize = 5;
/// How much of an answer that is an error is read, in bytes.
const ERROR_BYTES_MAX: u64 = 16 << 10;
/// How much of what a registry says of an error is shown, in characters.
const DETAIL_CHARACTERS_MAX: usize = 300;

/// One request.
#[derive(Clone)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: &'a [u8],
    /// Whether another host may answer in the registry's place: only where the answer is checked
    /// against a digest that is known before.
    pub(super) may_leave: bool,
    /// How long the answer may take, where that is not the usual time: large bodies.
    pub(super) patience: Option<Duration>,
}

impl<'a> Ask<'a> {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: Vec::new(),
            body: &[],
            may_leave: false,
            patience: None,
        }
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, body: &'a [u8]) -> Self {
        self.body = body;
        self
    }
}

/// A client that knows which places may be spoken to without TLS.
#[derive(Debug)]
pub(super) struct Transport {
    client: Client,
    plain_http: bool,
}

impl Transport {
    /// A client for a registry on this host, which no proxy has to do with, or elsewhere.
    pub(super) fn new(
        silence: Duration,
        plain_http: bool,
        is_loopback: bool,
    ) -> Result<Self, RegistryError> {
        let builder = Client::builder()
            .user_agent(concat!("coop/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(silence)
            // For a blocking client this bounds each read, not the whole answer.
            .timeout(silence)
            .referer(false)
            .redirect(reqwest::redirect::Policy::none());
        let builder = if is_loopback {
            builder.no_proxy()
        } else {
            builder
        };
        let client = builder
            .build()
            .map_err(|error| RegistryError::Client(causes(&error)))?;
        Ok(Self { client, plain_http })
    }

    /// Sends a request, and goes where it is sent on to as far as that is allowed. `authorization`
    /// goes to the request's own origin only.
    pub(super) fn send(
        &self,
        ask: &Ask<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let mut url = ask.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let authorization = authorization.filter(|_| is_same_origin(&url, &ask.url));
            let response = self.send_once(ask, &url, authorization, None)?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            url = self.next(ask, &url, &response)?;
        }
        Err(RegistryError::Redirect {
            url: shown(&ask.url),
            target: shown(&url),
            problem: "and so on, too often",
        })
    }

    /// Sends a request that carries its secrets itself: a redirect is an answer like any other.
    pub(super) fn send_unfollowed(&self, ask: &Ask<'_>) -> Result<Response, RegistryError> {
        self.send_once(ask, &ask.url, None, None)
    }

    /// Sends a body of known length as it comes; a redirect is not followed, for the body is gone.
    pub(super) fn send_stream(
        &self,
        ask: &Ask<'_>,
        authorization: Option<&HeaderValue>,
        body: Body,
    ) -> Result<Response, RegistryError> {
        self.send_once(ask, &ask.url, authorization, Some(body))
    }

    fn send_once(
        &self,
        ask: &Ask<'_>,
        url: &Url,
        authorization: Option<&HeaderValue>,
        stream: Option<Body>,
    ) -> Result<Response, RegistryError> {
        let mut request = self.client.request(ask.method.clone(), url.clone());
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(patience) = ask.patience {
            request = request.timeout(patience);
        }
        let is_upload = matches!(ask.method, Method::POST | Method::PUT | Method::PATCH);
        if let Some(stream) = stream {
            request = request.body(stream);
        } else if is_upload {
            request = request.body(ask.body.to_vec());
        }
        request.send().map_err(|error| RegistryError::Network {
            url: shown(url),
            reason: causes(&error.without_url()),
        })
    }

    fn next(&self, ask: &Ask<'_>, from: &Url, response: &Response) -> Result<Url, RegistryError> {
        let target = location(response).unwrap_or_default();
        let refuse = |problem| {
            let url = shown(from);
            let target = target.split(['?', '#']).next().unwrap_or_default();
            let target = without_user(target).escape_debug().to_string();
            Err(RegistryError::Redirect {
                url,
                target,
                problem,
            })
        };
        let Ok(next) = from.join(&target) else {
            return refuse("which is no address");
        };
        if !matches!(ask.method, Method::GET | Method::HEAD) {
            return refuse("though only what is read may be sent on");
        }
        if let Err(problem) = self.may_go(from, &next) {
            return refuse(problem);
        }
        if !ask.may_leave && !is_same_origin(&next, &ask.url) {
            return refuse("which is another host; only blobs may come from one");
        }
        Ok(next)
    }

    /// Whether an address that a registry names may be gone to from another one of its.
    pub(super) fn may_go(&self, from: &Url, to: &Url) -> Result<(), &'static str> {
        if !to.username().is_empty() || to.password().is_some() {
            return Err("with a user or password in it");
        }
        match to.scheme() {
            "https" => Ok(()),
            "http" if from.scheme() == "https" => Err("which is not encrypted, and this one is"),
            "http" if is_loopback(to) || self.plain_http => Ok(()),
            "http" => Err("which is not encrypted"),
            _ => Err("which is not an http: or https: URL"),
        }
    }
}

/// Where a response leads to.
pub(super) fn location(response: &Response) -> Option<String> {
    let target = response.headers().get(LOCATION)?;
    target.to_str().ok().map(str::to_owned)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

pub(super) fn is_same_origin(left: &Url, right: &Url) -> bool {
    left.scheme() == right.scheme()
        && left.host_str() == right.host_str()
        && left.port_or_known_default() == right.port_or_known_default()
}

/// Whether an address is this machine's own, whatever its resolver says.
pub(super) fn is_loopback(url: &Url) -> bool {
    is_loopback_host(url.host_str().unwrap_or_default())
}

/// As [`is_loopback`], of a host with an IPv6 address in brackets.
pub(super) fn is_loopback_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// An address without what may be secret in it.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Only addresses without a host cannot have one.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

fn without_user(target: &str) -> String {
    match (target.split_once("://"), target.rfind('@')) {
        (Some((scheme, _)), Some(at)) => {
            format!("{scheme}://…{}", target.get(at..).unwrap_or_default())
        }
        _ => target.to_owned(),
    }
}

/// The error of an answer that is none of those that are wanted.
pub(super) fn status_error(url: &Url, response: Response) -> RegistryError {
    let status = response.status();
    let temporary = status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT;
    if status == StatusCode::NOT_FOUND {
        return RegistryError::Missing(shown(url));
    }
    RegistryError::Status {
        url: shown(url),
        status: status.to_string(),
        detail: detail(response),
        temporary,
    }
}

/// What a registry says of an error, as [`problem`] has it.
pub(super) fn detail(response: Response) -> String {
    let mut text = Vec::new();
    // An error in reading an error is not worth a word.
    let _ = response.take(ERROR_BYTES_MAX).read_to_end(&mut text);
    problem(&text)
}

/// What a registry says of an error, begun with `: ` and printable, or nothing (distribution
/// specification, "Error codes").
#[must_use]
pub fn problem(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(Errors { errors }) = serde_json::from_slice(body) else {
        return String::new();
    };
    let Some(first) = errors.first() else {
        return String::new();
    };
    let said = match (first.code.as_str(), first.message.as_str()) {
        ("", message) => message.to_owned(),
        (code, "") => code.to_owned(),
        (code, message) => format!("{code}, {message}"),
    };
    let said: String = said.chars().take(DETAIL_CHARACTERS_MAX).collect();
    format!(": {}", said.escape_debug())
}

/// A header's text.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn only_this_machine_is_this_machine() {
        for (text, expected) in [
            ("http://localhost:5000/", true),
            ("http://127.9.9.9/", true),
            ("http://[::1]:80/", true),
            ("http://LOCALHOST/", true),
            ("http://2130706433/", true),
            ("http://localhost.example/", false),
            ("http://127.0.0.1.example/", false),
            ("http://10.0.0.1/", false),
            ("http://[::2]/", false),
        ] {
            assert_eq!(is_loopback(&url(text)), expected, "{text}");
        }
    }

    #[test]
    fn nothing_leads_out_of_tls_or_carries_a_user() {
        let strict = Transport::new(Duration::from_secs(1), false, true).unwrap();
        let open = Transport::new(Duration::from_secs(1), true, true).unwrap();
        for (from, to, strictly, openly) in [
            ("https://a/", "https://b/", true, true),
            ("https://a/", "http://a/", false, false),
            ("https://a/", "http://localhost/", false, false),
            ("http://localhost/", "http://127.0.0.1:1/", true, true),
            ("http://localhost/", "http://b/", false, true),
            ("http://localhost/", "file:///etc/passwd", false, false),
            ("http://localhost/", "https://u:p@b/", false, false),
            ("http://localhost/", "https://u@b/", false, false),
        ] {
            let (from, to) = (url(from), url(to));
            assert_eq!(strict.may_go(&from, &to).is_ok(), strictly, "{from} {to}");
            assert_eq!(open.may_go(&from, &to).is_ok(), openly, "{from} {to}");
        }
    }

    #[test]
    fn origins_have_scheme_host_and_port() {
        let base = url("https://a/x");
        assert!(is_same_origin(&base, &url("https://a:443/y")));
        for other in ["http://a/", "https://a:444/", "https://b/"] {
            assert!(!is_same_origin(&base, &url(other)), "{other}");
        }
    }

    #[test]
    fn addresses_are_shown_without_secrets() {
        assert_eq!(shown(&url("https://u:p@a/b?token=x#y")), "https://a/b");
        assert_eq!(without_user("https://u:p@a/b"), "https://…@a/b");
        assert_eq!(without_user("/v2/a@b"), "/v2/a@b");
    }
}
