//! A kernel's sources and modules.

use coop_builder::kernel::Target as KernelTarget;
use coop_builder::kernel::config::{self, DotConfig};
use coop_builder::kernel::kconfig::Kconfig;
use coop_builder::kernel::modules;
use coop_builder::kernel::source;
use coop_image::tree::{Inode, Kind, Metadata, Tree};

/// Reads a tree's Kconfig; what is wished of it and does not hold has one line that says why. Zero
/// bytes are between the parts: a .config, the wishes, and the files.
pub fn kconfig(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\0');
    let config = DotConfig::parse(parts.next().unwrap_or_default());
    let wishes = parts.next().unwrap_or_default();
    let names = ["Kconfig", "arch/um/Kconfig", "a/Kconfig", "a/b"];
    let texts: Vec<(&str, &str)> = names.into_iter().zip(parts).collect();
    let Ok(kconfig) = Kconfig::read_texts(&texts, KernelTarget::Um) else {
        return;
    };
    for symbol in kconfig.symbols() {
        assert_eq!(kconfig.symbol(symbol.name).as_ref(), Some(&symbol));
    }
    let mut wanted = config::parse(wishes, "fuzz").unwrap_or_default();
    wanted.truncate(20);
    for dropped in kconfig.dropped(&config, &wanted) {
        let said = dropped.to_string();
        assert!(!said.contains(char::is_control), "{said}");
    }
}

/// Takes bytes for a kernel module and for the lists beside it. Without its debugging information a
/// module says the same, and depmod's files are the same.
pub fn module_elf(data: &[u8]) {
    let mut tree = Tree::new(Metadata::default());
    for (parent, name) in [
        ("kernel", "virtio-blk.ko"),
        ("", "modules.builtin"),
        ("", "modules.builtin.modinfo"),
    ] {
        let content = tree.add_bytes(data.to_vec()).expect("room");
        let folder = Metadata::default();
        let parent = tree
            .make_directories(parent.as_bytes(), &folder)
            .expect("a folder");
        let inode = Inode {
            metadata: Metadata::default(),
            kind: Kind::File(content),
        };
        let id = tree.add_inode(inode).expect("room");
        tree.link(parent, name.as_bytes(), id).expect("a free name");
    }
    let before = modules::depmod_files(&tree);
    modules::strip(&mut tree).expect("bytes in memory");
    let after = modules::depmod_files(&tree);
    match (before, after) {
        (Ok(before), Ok(after)) => assert_eq!(before, after),
        (Err(before), Err(after)) => assert_eq!(before.to_string(), after.to_string()),
        (before, after) => panic!("{} before, {} after", before.is_ok(), after.is_ok()),
    }
    if modules::depmod(&mut tree).is_ok() {
        let set =
            modules::boot(&tree, KernelTarget::Um, &Default::default()).expect("a readable module");
        assert_eq!(set.len(), 1);
    }
}

/// A patch and, behind a zero byte, what it is applied to. What changes nothing is as it was, and
/// nothing comes from elsewhere than from the two.
pub fn patch(data: &[u8]) {
    let zero = data.iter().position(|byte| *byte == 0);
    let (text, content) = data.split_at(zero.unwrap_or(data.len()));
    let content = content.get(1..).unwrap_or_default();
    match source::patched(text, content) {
        Ok(files) => {
            for patched in files.into_iter().flatten() {
                assert!(patched.len() <= text.len() + 1 + content.len());
            }
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.contains(char::is_control), "{said}");
        }
    }
}
