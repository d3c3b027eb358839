//! Why a command did not do what was asked, and the exit code that says so.

use coop_builder::recipe::Diagnostic;

/// The work failed.
pub(crate) const FAILED: u8 = 1;
/// Wrong usage or a wrong recipe.
pub(crate) const USAGE: u8 = 2;
/// `run -- CMD`: the time was over.
pub(crate) const TIMED_OUT: u8 = 124;
/// `run -- CMD`: coop itself failed; other codes are the command's.
pub(crate) const COOP_FAILED: u8 = 125;

/// An end that is not success.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// What to say.
    pub(crate) reason: Reason,
}

/// What to say about a failure.
#[derive(Debug)]
pub(crate) enum Reason {
    /// Errors in a recipe's text.
    Recipe(Vec<Diagnostic>),
    /// One sentence, the sentences behind it, and a hint.
    Sentence {
        message: String,
        causes: Vec<String>,
        hint: Option<String>,
    },
}

impl Failure {
    /// A wrong recipe.
    pub(crate) fn recipe(diagnostics: Vec<Diagnostic>) -> Self {
        Self {
            code: USAGE,
            reason: Reason::Recipe(diagnostics),
        }
    }

    /// Wrong usage.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::sentence(USAGE, message)
    }

    /// Work that failed, with an error's chain of causes.
    pub(crate) fn work(error: &dyn std::error::Error) -> Self {
        let message = error.to_string();
        let mut causes = Vec::new();
        let mut last = message.clone();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many errors already end with their cause's sentence.
            if !last.contains(&text) {
                causes.push(text.clone());
                last = text;
            }
            next = cause.source();
        }
        Self {
            code: FAILED,
            reason: Reason::Sentence {
                message,
                causes,
                hint: None,
            },
        }
    }

    /// One sentence with its code.
    pub(crate) fn sentence(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: Reason::Sentence {
                message: message.into(),
                causes: Vec::new(),
                hint: None,
            },
        }
    }

    /// Names the file that a sentence is about.
    pub(crate) fn about(mut self, path: &std::path::Path) -> Self {
        if let Reason::Sentence { message, .. } = &mut self.reason {
            *message = format!("{}: {message}", path.display());
        }
        self
    }

    /// Names the one of several machines that it is about.
    pub(crate) fn of(mut self, name: &str) -> Self {
        if let Reason::Sentence { message, .. } = &mut self.reason {
            *message = format!("{name}: {message}");
        }
        self
    }

    /// Adds how to go on.
    pub(crate) fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Reason::Sentence { hint, .. } = &mut self.reason {
            *hint = Some(text.into());
        }
        self
    }

    /// Changes the code for failed work; wrong usage stays wrong usage.
    pub(crate) fn with_work_code(mut self, code: u8) -> Self {
        if self.code == FAILED {
            self.code = code;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let inner = std::io::Error::other("disk on fire");
        let outer = std::io::Error::other(inner);
        let Reason::Sentence {
            message, causes, ..
        } = Failure::work(&outer).reason
        else {
            panic!("not a sentence")
        };
        assert_eq!((message.as_str(), causes.len()), ("disk on fire", 0));
    }
}
