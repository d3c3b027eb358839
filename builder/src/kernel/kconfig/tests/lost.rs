//! Each way to lose a wish.

use super::{kconfig, reason, says};
use crate::kernel::config::{DotConfig, parse};
use crate::kernel::kconfig::{Kconfig, Reason};

/// Like the kernel's, and smaller.
fn tree() -> Kconfig {
    kconfig(
        "config MODULES\n\tbool \"loadable modules\"\n\tmodules\n\
         config EXPERT\n\tbool \"expert\"\n\
         menuconfig NETWORK_FILESYSTEMS\n\tbool \"network file systems\"\n\tdepends on NET\n\
         config NET\n\tbool \"network\"\n\
         config NFS_FS\n\ttristate \"NFS\"\n\tdepends on NETWORK_FILESYSTEMS\n\tselect LOCKD\n\
         config NFS_V3\n\ttristate \"NFS 3\"\n\tdepends on NFS_FS\n\
         config LOCKD\n\ttristate\n\
         config UNWIND\n\tbool \"unwinder\" if EXPERT\n\tdefault y\n\
         config HIDDEN\n\tbool\n\
         config SIZE\n\tint \"size\"\n\trange 4 16\n\
         config BASE\n\thex \"base\" if EXPERT\n\trange 0x10 0xff\n\tdefault 0x20\n\
         config NAME\n\tstring \"name\"\n\
         config USES_HIDDEN\n\tbool \"h\"\n\tselect HIDDEN if EXPERT\n\
         config OLD_NAME\n\tbool\n\ttransitional\n\
         config NEW_NAME\n\tbool \"new\"\n\tdefault OLD_NAME\n\
         choice\n\tprompt \"speed\"\n\
         config FAST\n\tbool \"fast\"\nconfig SLOW\n\tbool \"slow\"\nconfig NEVER\n\tbool \"never\"\n\tdepends on NONE\n\
         endchoice\n\
         config UP\n\tbool \"up\"\n\tdepends on !SMP\nconfig SMP\n\tbool \"smp\"\n\
         config EITHER\n\tbool \"either\"\n\tdepends on NONE || (SMP && EXPERT) || NET\n\
         config ROUND\n\tbool \"round\"\n\tdepends on TRIP\nconfig TRIP\n\tbool \"trip\"\n\tdepends on ROUND\n",
    )
}

#[test]
fn symbols_that_are_not_there() {
    says(
        &tree(),
        "",
        "CONFIG_NFS_V2=y",
        "this kernel version has no such symbol; the nearest names are NFS_V3, NFS_FS",
    );
    says(
        &tree(),
        "",
        "CONFIG_QWERTZ=y",
        "this kernel version has no such symbol",
    );
    let dropped = tree().dropped(
        &DotConfig::parse(""),
        &parse(
            "# a comment\nCONFIG_QWERTZ=y\nCONFIG_NONSENSE=n\n",
            "fragment base",
        )
        .unwrap(),
    );
    let said: Vec<String> = dropped.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "CONFIG_QWERTZ is n, not y (fragment base, line 2): this kernel version has no such symbol"
        ]
    );
    says(
        &tree(),
        "",
        "CONFIG_OLD_NAME=y",
        "it only carries the value of old configurations over to NEW_NAME (Kconfig:37): ask for that",
    );
}

#[test]
fn dependencies_are_followed_to_what_can_be_set() {
    says(
        &tree(),
        "CONFIG_NET=y",
        "CONFIG_NFS_V3=y",
        "NFS_V3 depends on NFS_FS, which is n (Kconfig:17); \
         NFS_FS depends on NETWORK_FILESYSTEMS, which is n (Kconfig:13); \
         ask for CONFIG_NETWORK_FILESYSTEMS=y, CONFIG_NFS_FS=y",
    );
    // What is asked for already is not suggested again.
    let Reason::Dependency { add, chain } =
        reason(&tree(), "", "CONFIG_NFS_V3=y\nCONFIG_NFS_FS=y\n")
    else {
        panic!();
    };
    assert_eq!(add, ["CONFIG_NET=y", "CONFIG_NETWORK_FILESYSTEMS=y"]);
    assert_eq!(chain.len(), 3);
    says(
        &tree(),
        "CONFIG_MODULES=y\nCONFIG_NET=y\nCONFIG_NETWORK_FILESYSTEMS=y\nCONFIG_NFS_FS=m\nCONFIG_NFS_V3=m",
        "CONFIG_NFS_V3=y",
        "NFS_V3 depends on NFS_FS, which is only m (Kconfig:17); ask for CONFIG_NFS_FS=y",
    );
    says(
        &tree(),
        "CONFIG_SMP=y",
        "CONFIG_UP=y",
        "UP depends on !SMP, which does not hold (Kconfig:55); ask for CONFIG_SMP=n",
    );
    says(
        &tree(),
        "CONFIG_SMP=y",
        "CONFIG_UP=y\nCONFIG_SMP=y",
        "UP depends on !SMP, which does not hold (Kconfig:55); ./site.config:2 asks for SMP=y; \
         ask for CONFIG_SMP=n",
    );
    says(
        &tree(),
        "",
        "CONFIG_EITHER=y",
        "EITHER depends on NONE || (SMP && EXPERT) || NET, which does not hold (Kconfig:60); \
         ask for CONFIG_NET=y",
    );
    says(
        &tree(),
        "",
        "CONFIG_NEVER=y",
        "NEVER depends on NONE, which is n (Kconfig:51); no file of this target defines NONE",
    );
    says(
        &tree(),
        "",
        "CONFIG_ROUND=y",
        "ROUND depends on TRIP, which is n (Kconfig:63); TRIP depends on ROUND, which is n (Kconfig:66)",
    );
}

#[test]
fn symbols_that_cannot_be_seen() {
    says(
        &tree(),
        "",
        "CONFIG_HIDDEN=y",
        "it has no prompt (Kconfig:23), so that it cannot be set by hand: USES_HIDDEN selects it (Kconfig:36); \
         USES_HIDDEN selects it only if EXPERT, which is n (Kconfig:36); \
         ask for CONFIG_EXPERT=y, CONFIG_USES_HIDDEN=y",
    );
    says(
        &tree(),
        "CONFIG_UNWIND=y",
        "CONFIG_UNWIND=n",
        "UNWIND can be set only if EXPERT, which is n (Kconfig:21); its default is y (Kconfig:22); \
         ask for CONFIG_EXPERT=y",
    );
    says(
        &tree(),
        "CONFIG_BASE=0x20",
        "CONFIG_BASE=0x30",
        "BASE can be set only if EXPERT, which is n (Kconfig:29); ask for CONFIG_EXPERT=y",
    );
}

#[test]
fn symbols_that_others_force() {
    says(
        &tree(),
        "CONFIG_EXPERT=y\nCONFIG_USES_HIDDEN=y\nCONFIG_HIDDEN=y",
        "CONFIG_HIDDEN=n",
        "it is selected by USES_HIDDEN=y (Kconfig:36); ask for CONFIG_USES_HIDDEN=n",
    );
}

#[test]
fn choices_have_one_winner() {
    let asked = "CONFIG_FAST=y\nCONFIG_SLOW=y\n";
    says(
        &tree(),
        "CONFIG_SLOW=y",
        asked,
        "of the choice at Kconfig:43 only one can be y, and SLOW is, for which ./site.config:2 asks",
    );
    says(
        &tree(),
        "CONFIG_FAST=y",
        "CONFIG_SLOW=y",
        "of the choice at Kconfig:43 only one can be y, and FAST is, for which nobody asks",
    );
    says(
        &tree(),
        "CONFIG_FAST=y",
        "CONFIG_FAST=n",
        "one of the choice at Kconfig:43 must be y; ask for another: SLOW",
    );
}

#[test]
fn values_that_a_symbol_cannot_have() {
    let says = |wish: &str, sentence: &str| says(&tree(), "CONFIG_SIZE=4", wish, sentence);
    says("CONFIG_SIZE=17", "it must be from 4 to 16 (Kconfig:27)");
    says(
        "CONFIG_SIZE=y",
        "it is of type int (Kconfig:25) and takes a decimal number, not y",
    );
    says(
        "CONFIG_SIZE=0x5",
        "it is of type int (Kconfig:25) and takes a decimal number, not 0x5",
    );
    says(
        "CONFIG_NET=m",
        "it is of type bool (Kconfig:9) and cannot be a module: it takes y or n",
    );
    says(
        "CONFIG_NET=12",
        "it is of type bool (Kconfig:9) and takes y or n, not 12",
    );
    says(
        "CONFIG_NAME=y",
        "it is of type string (Kconfig:32) and takes text in quotes, as \"y\"",
    );
    says(
        "CONFIG_NFS_FS=m",
        "there are no modules as MODULES is n (Kconfig:1); ask for CONFIG_MODULES=y, or for y instead of m",
    );
    says(
        "CONFIG_SIZE=5",
        "nothing in the tree's Kconfig is in its way (Kconfig:25); \
         a later line of another fragment or a patch may be",
    );
}

#[test]
fn values_are_compared_as_what_they_are() {
    let tree = tree();
    let held = |config: &str, wish: &str| {
        let wanted = parse(wish, "x").unwrap();
        tree.dropped(&DotConfig::parse(config), &wanted).is_empty()
    };
    assert!(held("CONFIG_BASE=0x1F", "CONFIG_BASE=0x1f"));
    assert!(held("CONFIG_NAME=\"a\\\"b\"", "CONFIG_NAME=\"a\\\"b\""));
    assert!(held("", "CONFIG_NAME=\"\""));
    assert!(held("", "CONFIG_NET=n") && held("", "CONFIG_UNHEARD_OF=n"));
    assert!(!held("CONFIG_NAME=\"b\"", "CONFIG_NAME=\"a\""));
    assert!(!held("CONFIG_SIZE=12", "CONFIG_SIZE=13"));
    let wanted = parse("CONFIG_NET=y", "x").unwrap();
    let config = DotConfig::parse("CONFIG_NET=y");
    assert_eq!(tree.explain(&config, &wanted[0]).reason, Reason::Held);
}
