//! Recipes that say what cannot be.

use super::{Place, refused};

const START: &str = "name: a\nrootfs:\n  source:\n    ";
const DEBIAN: &str = "debian: {suite: trixie}\n";

#[test]
fn a_wrong_recipe_builds_nothing() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let list = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    for (recipe, words) in [
        (
            format!("{START}{DEBIAN}  hostnam: b\n"),
            &[
                "unknown key 'hostnam'",
                "r.yaml:5:3",
                "did you mean 'hostname'",
            ][..],
        ),
        (
            format!("{START}{DEBIAN}devices: {{cpus: many}}\n"),
            &["cpus", "r.yaml:5:"],
        ),
        (
            format!("{START}{DEBIAN}devices: [memory]\n"),
            &["devices", "r.yaml:5:"],
        ),
        (bomb, &["too many", "r.yaml:"]),
        (
            format!("{START}{DEBIAN}devices: {{cofs: []}}\n"),
            &["devices.cofs is not supported yet", "r.yaml:5:11"],
        ),
    ] {
        let place = Place::new();
        let done = refused(&mut place.build(&recipe, &[]), 2, words);
        assert!(done.stdout.is_empty());
        place.expect_nothing_left();
    }
}
