//! Configurations of other programs.

use coop_builder::import::import_texts;
use coop_builder::recipe::{self, Problem};

/// Imports a configuration and, behind a zero byte, a file that it may include. Whatever it says, its
/// recipe is wrong at most in that its files are not there.
pub fn import(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // Files with zero bytes are refused before.
    let mut texts = text.split('\0');
    let (text, more) = (texts.next().unwrap_or(""), texts.next().unwrap_or(""));
    let Ok(imported) = import_texts(&[("a.conf", text), ("more.conf", more)]) else {
        return;
    };
    let again = import_texts(&[("a.conf", text), ("more.conf", more)]);
    assert_eq!(again.ok().as_ref(), Some(&imported));
    for note in &imported.notes {
        assert!(!note.to_string().contains('\n'), "{note:?}");
    }
    let file = std::path::Path::new("nowhere/a.yaml");
    let Err(wrong) = recipe::parse(&imported.recipe, file, &Default::default()) else {
        return;
    };
    for diagnostic in wrong {
        let is_known = matches!(
            diagnostic.problem,
            Problem::File { .. } | Problem::NotSupported(_)
        );
        assert!(is_known, "{diagnostic}\n{}", imported.recipe);
    }
}
