//! Files of servers.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::blocking::{Client, ClientBuilder, Response};
use reqwest::header::{CONTENT_RANGE, LOCATION, RANGE};

use super::FetchError;
use super::body::Body;
use super::error::causes;

const REDIRECTS_MAX: usize = 10;

/// Clients, made when they are first needed.
pub(super) struct Http {
    silence: Duration,
    with_tls: OnceLock<Client>,
    without_tls: OnceLock<Client>,
}

impl Http {
    pub(super) fn new(silence: Duration) -> Self {
        Self {
            silence,
            with_tls: OnceLock::new(),
            without_tls: OnceLock::new(),
        }
    }

    /// Asks for a file from an offset on; a server may begin at its start all the same.
    pub(super) fn open(&self, url: &str, offset: u64) -> Result<Body, FetchError> {
        let mut request = self.client(url)?.get(url);
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        let response = request.send().map_err(|error| request_error(url, error))?;
        let status = response.status();
        let offset = match status {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if content_range_start(&response) == Some(offset) => offset,
            _ if status.is_redirection() && response.headers().contains_key(LOCATION) => {
                let target = response.headers().get(LOCATION);
                let target = target.and_then(|target| target.to_str().ok());
                return Err(FetchError::Redirect {
                    url: url.to_owned(),
                    target: target.unwrap_or_default().escape_debug().to_string(),
                });
            }
            _ => {
                let temporary = status.is_server_error()
                    || status == StatusCode::TOO_MANY_REQUESTS
                    || status == StatusCode::REQUEST_TIMEOUT;
                return Err(FetchError::Status {
                    url: url.to_owned(),
                    status: status.to_string(),
                    temporary,
                });
            }
        };
        Ok(Body {
            reader: Box::new(response),
            offset,
        })
    }

    /// A host without certificates can still use a mirror that is reached without TLS: what comes
    /// from there is verified all the same.
    fn client(&self, url: &str) -> Result<&Client, FetchError> {
        if let Some(client) = self.with_tls.get() {
            return Ok(client);
        }
        let client = match client_builder(self.silence).build() {
            Err(_) if url.starts_with("http:") => {
                if let Some(client) = self.without_tls.get() {
                    return Ok(client);
                }
                let client = client_builder(self.silence).tls_certs_only([]).build();
                let client = client.map_err(|error| FetchError::Client(causes(&error)))?;
                return Ok(self.without_tls.get_or_init(|| client));
            }
            client => client.map_err(|error| FetchError::Client(causes(&error)))?,
        };
        Ok(self.with_tls.get_or_init(|| client))
    }
}

fn client_builder(silence: Duration) -> ClientBuilder {
    let redirects = reqwest::redirect::Policy::custom(|attempt| {
        if !matches!(attempt.url().scheme(), "http" | "https") {
            let target = attempt.url().to_string();
            attempt.error(FetchError::Redirect {
                url: String::new(),
                target,
            })
        } else if attempt.previous().len() > REDIRECTS_MAX {
            attempt.error(FetchError::Client("too many redirects".to_owned()))
        } else {
            attempt.follow()
        }
    });
    Client::builder()
        .user_agent(concat!("coop/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(silence)
        // For a blocking client this bounds each read, not the whole download.
        .timeout(silence)
        .redirect(redirects)
}

fn content_range_start(response: &Response) -> Option<u64> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?
        .split_once('-')?
        .0
        .trim()
        .parse()
        .ok()
}

fn request_error(url: &str, error: reqwest::Error) -> FetchError {
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        if let Some(FetchError::Redirect { target, .. }) = cause.downcast_ref() {
            return FetchError::Redirect {
                url: url.to_owned(),
                target: target.clone(),
            };
        }
        source = cause.source();
    }
    FetchError::Network {
        url: url.to_owned(),
        reason: causes(&error.without_url()),
    }
}
