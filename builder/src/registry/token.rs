//! How a registry comes to know who asks: Basic, or a token that it has somebody else give out
//! (the distribution project's "Token Authentication Specification").

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::challenge::Challenge;
use super::credentials::Credential;
use super::error::RegistryError;
use super::transport::{Ask, Transport, is_loopback, is_same_origin, shown};
use crate::percent;

/// The largest answer with a token, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// The longest token, in bytes: it becomes a header.
const TOKEN_BYTES_MAX: usize = 64 << 10;
/// What coop calls itself to who gives out tokens.
const CLIENT: &str = "coop";

/// Who asks, and for what.
pub(super) struct Asker<'a> {
    pub(super) transport: &'a Transport,
    /// The registry's address.
    pub(super) base: &'a Url,
    /// `HOST[:PORT]` for people.
    pub(super) authority: &'a str,
    /// `repository:NAME:pull,push`.
    pub(super) scope: String,
    pub(super) credential: Option<&'a Credential>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

impl Asker<'_> {
    /// What goes into the header `Authorization`; nothing where the registry asks for a user and
    /// nobody is known.
    pub(super) fn authorization(
        &self,
        challenges: &[Challenge],
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let find = |scheme: &str| challenges.iter().find(|one| one.scheme == scheme);
        if let Some(Credential::Token(token)) = self.credential {
            return self.header(&format!("Bearer {token}")).map(Some);
        }
        if let Some(challenge) = find("bearer") {
            let token = self.token(challenge)?;
            return self.header(&format!("Bearer {token}")).map(Some);
        }
        match (find("basic"), self.credential) {
            (Some(_), Some(Credential::Password { user, password })) => {
                self.header(&basic(user, password)).map(Some)
            }
            (Some(_), _) => Ok(None),
            (None, _) => {
                let schemes = challenges.iter().map(|one| one.scheme.as_str());
                Err(RegistryError::Challenge {
                    authority: self.authority.to_owned(),
                    scheme: schemes.collect::<Vec<_>>().join("', '"),
                })
            }
        }
    }

    /// A secret header's value.
    fn header(&self, text: &str) -> Result<HeaderValue, RegistryError> {
        let mut value = HeaderValue::from_str(text).map_err(|_| RegistryError::Token {
            realm: self.authority.to_owned(),
            problem: "what it is to be shown has characters that no header may have".to_owned(),
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn token(&self, challenge: &Challenge) -> Result<String, RegistryError> {
        let realm = self.realm(challenge)?;
        let service = challenge.parameters.get("service").map(String::as_str);
        let response = match self.credential {
            Some(Credential::Identity(token)) => self.refresh(&realm, service, token)?,
            _ => self.ask(&realm, service)?,
        };
        let failed = |problem: String| RegistryError::Token {
            realm: shown(&realm),
            problem,
        };
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let problem = match self.credential {
                Some(_) => "it does not take the credentials",
                None => "it wants credentials, and there are none",
            };
            return Err(failed(problem.to_owned()));
        }
        if status != StatusCode::OK {
            return Err(failed(format!("it answered {status}")));
        }
        let mut text = Vec::new();
        response
            .take(ANSWER_BYTES_MAX + 1)
            .read_to_end(&mut text)
            .map_err(|error| failed(error.to_string()))?;
        if u64::try_from(text.len()).is_ok_and(|length| length > ANSWER_BYTES_MAX) {
            return Err(failed(format!(
                "its answer is longer than {ANSWER_BYTES_MAX} bytes"
            )));
        }
        token_of(&text).map_err(|problem| failed(problem.to_owned()))
    }

    /// Where tokens are given out: secrets go there, so it is encrypted, or on this machine, or it is
    /// the registry itself, which was to be spoken to without encryption.
    fn realm(&self, challenge: &Challenge) -> Result<Url, RegistryError> {
        let text = challenge.parameters.get("realm");
        let text = text.map(String::as_str).unwrap_or_default();
        let refuse = |problem| {
            Err(RegistryError::Realm {
                authority: self.authority.to_owned(),
                realm: text
                    .split('?')
                    .next()
                    .unwrap_or_default()
                    .escape_debug()
                    .to_string(),
                problem,
            })
        };
        let Ok(realm) = text.parse::<Url>() else {
            return refuse("which is no address");
        };
        if !realm.username().is_empty() || realm.password().is_some() {
            return Err(RegistryError::Realm {
                authority: self.authority.to_owned(),
                realm: shown(&realm),
                problem: "with a user or password in it",
            });
        }
        match realm.scheme() {
            "https" => Ok(realm),
            "http" if self.base.scheme() == "https" => {
                refuse("which is not encrypted, and the registry is")
            }
            "http" if is_loopback(&realm) || is_same_origin(&realm, self.base) => Ok(realm),
            "http" => refuse("which is neither encrypted nor on this machine"),
            _ => refuse("which is not an http: or https: URL"),
        }
    }

    /// With a password or as anybody.
    fn ask(
        &self,
        realm: &Url,
        service: Option<&str>,
    ) -> Result<reqwest::blocking::Response, RegistryError> {
        let mut url = realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", &self.scope);
        }
        let mut ask = Ask::new(Method::GET, url).header(ACCEPT, "application/json");
        if let Some(Credential::Password { user, password }) = self.credential {
            ask.url.query_pairs_mut().append_pair("account", user);
            ask = ask.header(AUTHORIZATION, basic(user, password));
        }
        // A redirect would carry the header along: it is an answer like any other here.
        self.transport.send_unfollowed(&ask)
    }

    /// With a token that gets tokens (RFC 6749, section 6).
    fn refresh(
        &self,
        realm: &Url,
        service: Option<&str>,
        token: &str,
    ) -> Result<reqwest::blocking::Response, RegistryError> {
        let fields = [
            ("grant_type", "refresh_token"),
            ("service", service.unwrap_or_default()),
            ("client_id", CLIENT),
            ("scope", &self.scope),
            ("refresh_token", token),
        ];
        let encode = |text: &str| percent::encode(text.as_bytes(), b"-._~");
        let pairs = fields.map(|(name, value)| format!("{name}={}", encode(value)));
        let body = pairs.join("&");
        let ask = Ask::new(Method::POST, realm.clone())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body.as_bytes());
        self.transport.send_unfollowed(&ask)
    }
}

/// The token in an answer.
///
/// # Errors
/// A sentence that says why there is none, without what the answer has.
pub fn token_of(answer: &[u8]) -> Result<String, &'static str> {
    let answer: Answer =
        serde_json::from_slice(answer).map_err(|_| "its answer is not the JSON of a token")?;
    let token = answer.token.or(answer.access_token);
    let token = token.filter(|token| !token.is_empty() && token.len() <= TOKEN_BYTES_MAX);
    token.ok_or("its answer has none of a possible length")
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
