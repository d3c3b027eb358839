//! Names of modules and aliases as kmod compares them.

/// What a module's file may end with, as kmod knows it.
const ENDINGS: [&str; 4] = [".ko", ".ko.gz", ".ko.xz", ".ko.zst"];

/// The longest alias or module name in bytes: kmod's `PATH_MAX` without the end.
pub(super) const NAME_BYTES_MAX: usize = 4095;

/// Says whether a file's name is that of a module, compressed or not.
pub(super) fn is_module(file: &str) -> bool {
    ENDINGS
        .iter()
        .any(|ending| file.len() > ending.len() && file.ends_with(ending))
}

/// The path without the ending of a compression: what `modules.order` has.
pub(super) fn plain_path(path: &str) -> &str {
    match path.rsplit_once(".ko") {
        Some((start, _)) => &path[..start.len() + ".ko".len()],
        None => path,
    }
}

/// The module's name as the kernel says it: no folder, nothing from the first dot on, `_` for `-`.
pub(super) fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split('.').next().unwrap_or(file);
    stem.replace('-', "_")
}

/// An alias as it is looked up: `_` for `-`, but not inside of `[…]`; `None` where a bracket has
/// no partner, for such an alias matches nothing.
pub(super) fn normalised_alias(alias: &str) -> Option<String> {
    let mut text = String::with_capacity(alias.len());
    let mut in_brackets = false;
    for character in alias.chars() {
        match (character, in_brackets) {
            (']', false) => return None,
            (']', true) => in_brackets = false,
            ('[', _) => in_brackets = true,
            _ => {}
        }
        let is_dash = character == '-' && !in_brackets;
        text.push(if is_dash { '_' } else { character });
    }
    (!in_brackets).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_modules_by_their_ending() {
        for file in ["a.ko", "a-b.ko.xz", "x.ko.zst", "x.y.ko.gz"] {
            assert!(is_module(file), "{file}");
        }
        for file in [".ko", "a.ko.bz2", "a.o", "ko", "modules.order"] {
            assert!(!is_module(file), "{file}");
        }
        assert_eq!(
            plain_path("kernel/a/snd-a.ko.xz"),
            "kernel/a/snd-a.ko".to_owned()
        );
        assert_eq!(module_name("kernel/a/snd-a.b.ko.xz"), "snd_a");
    }

    #[test]
    fn dashes_in_brackets_stay() {
        let normalised = |alias| normalised_alias(alias);
        assert_eq!(
            normalised("usb:v0a-d[0-9]dc*-"),
            Some("usb:v0a_d[0-9]dc*_".into())
        );
        assert_eq!(normalised("a[b"), None);
        assert_eq!(normalised("a]b"), None);
        assert_eq!(normalised("[[-]"), Some("[[-]".into()));
        assert_eq!(normalised(""), Some(String::new()));
    }
}
