//! Being known to a registry, and asking again what may work the next time.

use reqwest::blocking::{Body, Response};
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};

use super::challenge::{self, Challenge};
use super::credentials::{Credential, Credentials};
use super::error::RegistryError;
use super::reference::Reference;
use super::token::Asker;
use super::transport::{self, Ask, Transport, is_loopback_host, is_same_origin};
use super::{Options, Registry, lock};

/// What somebody wants of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read.
    Pull,
    /// To read and write.
    Push,
}

impl Access {
    fn actions(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Pull => "pull from",
            Self::Push => "push to",
        }
    }
}

impl Registry {
    /// Looks up what somebody is known by to a registry. Nobody is asked but a registry on this
    /// machine, whether it speaks TLS; any other one does, unless the options say otherwise.
    ///
    /// # Errors
    /// Credentials that are there cannot be read, or a registry on this machine shows a certificate
    /// that is not trusted.
    pub fn new(
        reference: &Reference,
        access: Access,
        credentials: &Credentials,
        options: Options,
    ) -> Result<Self, RegistryError> {
        let is_loopback = is_loopback_host(reference.host());
        let transport = Transport::new(options.silence, options.plain_http, is_loopback)?;
        let credential = credentials.find(&reference.authority, &reference.repository)?;
        let address = |scheme: &str| {
            let text = format!("{scheme}://{}/v2/", reference.authority);
            text.parse::<Url>().map_err(|error| RegistryError::Network {
                url: text,
                reason: error.to_string(),
            })
        };
        let base = match (options.plain_http, is_loopback) {
            (true, _) => address("http")?,
            (false, false) => address("https")?,
            (false, true) if speaks_tls(&transport, &address("https")?)? => address("https")?,
            (false, true) => address("http")?,
        };
        Ok(Self {
            transport,
            base,
            reference: reference.clone(),
            access,
            credential,
            authorization: None.into(),
            becoming: ().into(),
            options,
        })
    }

    /// What is pushed to or pulled from.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// An address below the repository.
    pub(super) fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let relative = format!("{}/{path}", self.reference.repository);
        self.base
            .join(&relative)
            .map_err(|error| RegistryError::Network {
                url: relative,
                reason: error.to_string(),
            })
    }

    /// Sends a request, and becomes known where the registry asks for it.
    pub(super) fn call(&self, ask: &Ask<'_>) -> Result<Response, RegistryError> {
        let known = self.authorization(&ask.url);
        let first = self.transport.send(ask, known.as_ref())?;
        if !self.is_unknown(&first) {
            return self.allowed(first);
        }
        let value = {
            let _one = lock(&self.becoming);
            match self.authorization(&ask.url) {
                // Somebody else asked meanwhile.
                Some(value) if Some(&value) != known.as_ref() => value,
                _ => self.become_known(first)?,
            }
        };
        let second = self.transport.send(ask, Some(&value))?;
        self.allowed(second)
    }

    /// As [`Registry::call`] with a body that is there once only; whoever calls is known already.
    pub(super) fn call_stream(&self, ask: &Ask<'_>, body: Body) -> Result<Response, RegistryError> {
        let known = self.authorization(&ask.url);
        let response = self.transport.send_stream(ask, known.as_ref(), body)?;
        self.allowed(response)
    }

    /// Repeats what failed for a reason that may go away.
    pub(super) fn again<T>(
        &self,
        mut work: impl FnMut() -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut pause = self.options.backoff;
        for _ in 1..self.options.attempts {
            match work() {
                Err(error) if error.is_temporary() => {
                    std::thread::sleep(pause);
                    pause = pause.saturating_mul(2);
                }
                result => return result,
            }
        }
        work()
    }

    /// What is shown to the registry, if the address is its own.
    fn authorization(&self, url: &Url) -> Option<HeaderValue> {
        let known = lock(&self.authorization).clone();
        known.filter(|_| is_same_origin(url, &self.base))
    }

    fn is_unknown(&self, response: &Response) -> bool {
        response.status() == StatusCode::UNAUTHORIZED && is_same_origin(response.url(), &self.base)
    }

    fn become_known(&self, refusal: Response) -> Result<HeaderValue, RegistryError> {
        let headers = refusal.headers().get_all(WWW_AUTHENTICATE).iter();
        let texts = headers.filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge> = texts.flat_map(challenge::parse).collect();
        let asker = Asker {
            transport: &self.transport,
            base: &self.base,
            authority: &self.reference.authority,
            scope: format!(
                "repository:{}:{}",
                self.reference.repository,
                self.access.actions()
            ),
            credential: self.credential.as_ref(),
        };
        let value = match challenges.is_empty() {
            true => None,
            false => asker.authorization(&challenges)?,
        };
        let Some(value) = value else {
            return Err(self.denied(refusal));
        };
        *lock(&self.authorization) = Some(value.clone());
        Ok(value)
    }

    fn allowed(&self, response: Response) -> Result<Response, RegistryError> {
        let is_denied = matches!(
            response.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        );
        if is_denied && is_same_origin(response.url(), &self.base) {
            return Err(self.denied(response));
        }
        Ok(response)
    }

    fn denied(&self, response: Response) -> RegistryError {
        let whom = match &self.credential {
            None => "whoever has no credentials for it".to_owned(),
            Some(Credential::Password { user, .. }) => format!("'{}'", user.escape_debug()),
            Some(_) => "the token that is known for it".to_owned(),
        };
        RegistryError::Denied {
            authority: self.reference.authority.clone(),
            whom,
            work: self.access.words(),
            repository: self.reference.repository.clone(),
            detail: transport::detail(response),
        }
    }
}

/// Whether a registry on this machine speaks TLS. One that does and is not trusted must not be taken
/// for one that does not.
fn speaks_tls(transport: &Transport, url: &Url) -> Result<bool, RegistryError> {
    match transport.send_unfollowed(&Ask::new(Method::GET, url.clone())) {
        Ok(_) => Ok(true),
        // The TLS library's words for a certificate that it does not take.
        Err(RegistryError::Network { url, reason }) if reason.contains("certificate") => {
            Err(RegistryError::Network { url, reason })
        }
        Err(_) => Ok(false),
    }
}
