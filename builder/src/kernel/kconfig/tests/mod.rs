//! A small tree with each construct and each way to lose a wish, and real trees.

mod language;
mod lost;
mod real;

use std::path::Path;

use fs_err as fs;

use super::{Kconfig, KconfigError, Reason};
use crate::kernel::Target;
use crate::kernel::config::{DotConfig, parse};

/// A tree of files.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Tree {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Tree(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read(&self) -> Result<Kconfig, KconfigError> {
        Kconfig::read(self.path(), Target::Um)
    }
}

/// A tree of one file.
fn kconfig(text: &str) -> Kconfig {
    Tree::new(&[("Kconfig", text)]).read().unwrap()
}

/// Why the first of the wishes did not hold.
fn reason(kconfig: &Kconfig, config: &str, wishes: &str) -> Reason {
    let wishes = parse(wishes, "./site.config").unwrap();
    let mut dropped = kconfig.dropped(&DotConfig::parse(config), &wishes);
    assert!(!dropped.is_empty(), "{wishes:?}");
    dropped.remove(0).reason
}

fn says(kconfig: &Kconfig, config: &str, wishes: &str, sentence: &str) {
    assert_eq!(reason(kconfig, config, wishes).to_string(), sentence);
}
