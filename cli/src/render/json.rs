//! Data for programs: one JSON value on stdout.

use coop_builder::recipe::{Diagnostic, Place, Warning};
use serde_json::{Value, json};

/// Writes one value, indented.
pub(crate) fn value(value: &Value) {
    super::data(&format!("{value:#}\n"));
}

/// An error in a recipe.
pub(crate) fn diagnostic(diagnostic: &Diagnostic) -> Value {
    json!({
        "file": diagnostic.file.display().to_string(),
        "place": place(diagnostic.place.as_ref()),
        "message": diagnostic.problem.to_string(),
        "hint": diagnostic.hint,
    })
}

/// A warning about a recipe.
pub(crate) fn warning(warning: &Warning) -> Value {
    json!({
        "file": warning.file.display().to_string(),
        "place": place(warning.place.as_ref()),
        "message": warning.message,
    })
}

fn place(place: Option<&Place>) -> Value {
    place.map_or(Value::Null, |place| {
        json!({
            "line": place.line,
            "column": place.column,
            "width": place.width,
            "text": place.text,
        })
    })
}
