//! Errors and warnings for people.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use coop_builder::recipe::{Diagnostic, Place, Warning};

use super::{Output, line, plain};
use crate::failure::{Failure, Reason};

/// Says why a command failed.
pub(crate) fn failure(output: &Output, failure: &Failure) {
    match &failure.reason {
        Reason::Recipe(diagnostics) => {
            for diagnostic in diagnostics {
                line(&render_diagnostic(output, diagnostic));
            }
        }
        Reason::Sentence {
            message,
            causes,
            hint,
        } => line(&render_sentence(output, message, causes, hint.as_deref())),
    }
}

/// Shows a recipe's warnings.
pub(crate) fn warnings(output: &Output, warnings: &[Warning]) {
    for warning in warnings {
        let file = plain(&warning.file.display().to_string());
        let title = Level::WARNING.primary_title(plain(&warning.message));
        let group = with_place(Group::with_title(title), &file, warning.place.as_ref());
        line(&renderer(output).render(&[group]));
    }
}

fn renderer(output: &Output) -> Renderer {
    if output.colour {
        Renderer::styled()
    } else {
        Renderer::plain()
    }
}

fn render_diagnostic(output: &Output, diagnostic: &Diagnostic) -> String {
    let Some(place) = &diagnostic.place else {
        return render_sentence(
            output,
            &diagnostic.to_string(),
            &[],
            diagnostic.hint.as_deref(),
        );
    };
    let file = plain(&diagnostic.file.display().to_string());
    let title = Level::ERROR.primary_title(plain(&diagnostic.problem.to_string()));
    let group = with_place(Group::with_title(title), &file, Some(place));
    let group = match &diagnostic.hint {
        Some(hint) => group.element(Level::HELP.with_name("hint").message(plain(hint))),
        None => group,
    };
    renderer(output).render(&[group])
}

fn with_place<'a>(group: Group<'a>, file: &'a str, place: Option<&'a Place>) -> Group<'a> {
    let Some(place) = place else {
        return group;
    };
    let start = byte_of(&place.text, place.column - 1);
    let end = byte_of(&place.text, place.column - 1 + place.width);
    group.element(
        Snippet::source(place.text.as_str())
            .line_start(place.line)
            .path(file)
            .annotation(AnnotationKind::Primary.span(start..end)),
    )
}

fn byte_of(text: &str, character: usize) -> usize {
    text.char_indices()
        .nth(character)
        .map_or(text.len(), |(byte, _)| byte)
}

fn render_sentence(
    output: &Output,
    message: &str,
    causes: &[String],
    hint: Option<&str>,
) -> String {
    // A guest's last words or a chain of dependencies may be several lines.
    let mut lines = message.lines().map(plain);
    let first = lines.next().unwrap_or_default();
    let mut text = format!("{}: {first}", label(output, "error", RED));
    for more in lines {
        text.push_str("\n  ");
        text.push_str(&more);
    }
    for cause in causes {
        text.push_str("\n  because: ");
        text.push_str(&plain(cause));
    }
    if let Some(hint) = hint {
        let label = label(output, "hint", CYAN);
        text.push_str(&format!("\n{label}: {}", plain(hint)));
    }
    text
}

const RED: &str = "\x1b[1;91m";
const CYAN: &str = "\x1b[1;96m";

fn label(output: &Output, word: &str, colour: &str) -> String {
    if output.colour {
        format!("{colour}{word}\x1b[0m")
    } else {
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coop_builder::recipe::Problem;
    use std::path::PathBuf;

    const PLAIN: Output = Output {
        colour: false,
        redraw: false,
    };

    #[test]
    fn a_diagnostic_shows_its_line() {
        let diagnostic = Diagnostic {
            file: PathBuf::from("r.yaml"),
            place: Some(Place {
                line: 4,
                column: 3,
                width: 7,
                text: "  hostnam: wéb".to_owned(),
            }),
            problem: Problem::UnknownKey {
                key: "hostnam".to_owned(),
                within: "rootfs".to_owned(),
            },
            hint: Some("did you mean 'hostname'?".to_owned()),
        };
        assert_eq!(
            render_diagnostic(&PLAIN, &diagnostic),
            "error: unknown key 'hostnam' in rootfs\n \
             --> r.yaml:4:3\n  \
               |\n\
             4 |   hostnam: wéb\n  \
               |   ^^^^^^^\n  \
               |\n  \
               = hint: did you mean 'hostname'?"
        );
    }

    #[test]
    fn a_place_beyond_its_line_does_no_harm() {
        let diagnostic = Diagnostic {
            file: PathBuf::from("r.yaml"),
            place: Some(Place {
                line: 1,
                column: 1,
                width: 1,
                text: String::new(),
            }),
            problem: Problem::Syntax("the recipe is empty".to_owned()),
            hint: None,
        };
        let text = render_diagnostic(&PLAIN, &diagnostic);
        assert!(text.contains("r.yaml:1:1"), "{text}");
    }

    #[test]
    fn a_sentence_has_causes_and_a_hint() {
        let causes = ["connection refused".to_owned()];
        let text = render_sentence(&PLAIN, "cannot fetch x", &causes, Some("try again"));
        assert_eq!(
            text,
            "error: cannot fetch x\n  because: connection refused\nhint: try again"
        );
    }
}
