//! Images of mke2fs with one combination of options after the other.

use super::*;

const BLOCK_SIZES: [u32; 7] = [1024, 2048, 4096, 8192, 16384, 32768, 65536];
const INODE_SIZES: [u32; 4] = [128, 256, 512, 1024];
/// Features and further options.
const FEATURES: [&str; 15] = [
    "-t ext4",
    "-t ext4 -O ^metadata_csum,uninit_bg",
    "-t ext4 -O ^metadata_csum,^64bit,^flex_bg,^extent",
    "-t ext4 -O metadata_csum_seed,large_dir,ea_inode",
    "-t ext4 -O inline_data",
    "-t ext4 -O inline_data,^metadata_csum,^dir_index,^extent,^64bit",
    "-t ext4 -O bigalloc -C CLUSTER",
    "-t ext4 -O bigalloc,inline_data,meta_bg,^resize_inode,^flex_bg -C CLUSTER",
    "-t ext4 -O meta_bg,^resize_inode -g 1024",
    "-t ext4 -O sparse_super2,^resize_inode -E num_backup_sb=2 -g 1024",
    "-t ext4 -O quota,project,mmp,orphan_file,stable_inodes,encrypt,verity",
    "-t ext4 -O ^sparse_super,^filetype,^flex_bg,^resize_inode -g 2048",
    "-t ext4 -O fast_commit,casefold -E encoding=utf8",
    "-t ext3",
    "-t ext2 -O ^ext_attr,^dir_index",
];

/// Every combination that mke2fs makes.
fn combinations() -> Vec<String> {
    let mut found = Vec::new();
    for features in FEATURES {
        for block_size in BLOCK_SIZES {
            for inode_size in INODE_SIZES {
                let needs_room = features.contains("inline_data") || features.contains("project");
                if inode_size > block_size || (inode_size == 128 && needs_room) {
                    continue;
                }
                // The smallest journal has 1024 blocks.
                let journal = if block_size > 4096 {
                    "-O ^has_journal,^fast_commit,^orphan_file"
                } else {
                    "-J size=4"
                };
                let journal = if features.contains("ext2") {
                    ""
                } else {
                    journal
                };
                let cluster = (4 * block_size).to_string();
                let features = features.replace("CLUSTER", &cluster);
                let size = if block_size > 8192 { "160M" } else { "40M" };
                found.push(format!(
                    "{features} -N 900 -b {block_size} -I {inode_size} {journal} -d src a.img {size}"
                ));
            }
        }
    }
    found
}

/// The mke2fs programs to try: how to call each.
fn programs() -> Vec<String> {
    let mut found = vec!["mke2fs".to_string()];
    if let Some(folder) = std::env::var_os("COOP_TEST_E2FSPROGS") {
        let folder = PathBuf::from(folder);
        let folder = folder.to_str().unwrap();
        found.push(format!(
            "LD_LIBRARY_PATH={folder}/lib/x86_64-linux-gnu {folder}/sbin/mke2fs"
        ));
    }
    found
}

#[test]
fn images_of_mke2fs_read_as_their_source() {
    if !have("mke2fs") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    make_source(temp.path());
    let src = temp.path().join("src");
    sh(
        &src,
        "mkdir many; cd many; for i in $(seq 250); do echo $i > name-$i; done
         for i in $(seq 30 170); do ln -s $(printf 'z%.0s' $(seq $i)) link-$i; done
         for i in $(seq 20 20 200); do head -c $i /dev/zero | tr '\\0' a > short-$i; done
         mkdir one; : > one/a-name",
    );
    set_xattr(&src.join("usr/bin/hello"), "user.a=b%", b"\0value\n");
    set_xattr(&src.join("usr/lib"), "user.long", &[7; 400]);
    if is_root() {
        let blob = src.join("usr/lib/blob");
        set_xattr(&blob, "security.capability", &CAPABILITY);
        set_xattr(&src.join("empty"), "system.posix_acl_default", &ACL);
    }
    let expected = |look| {
        let mut expected = describe_folder(&src, look);
        // mke2fs keeps 32 bits of seconds.
        expected.remove("/before-epoch");
        expected.remove("/after-2038");
        whole_seconds(expected)
    };
    let [bare, full] = [false, true].map(|xattrs| expected(Look { xattrs, ..look() }));
    let all = whole_matrix();
    let mut combinations = combinations();
    combinations.push("-r 0 -d src a.img 40M".into());
    let step = if all { 1 } else { 19 };
    let choice: Vec<_> = combinations.iter().rev().step_by(step).collect();
    for program in programs() {
        for options in &choice {
            // Newer ones call it otherwise.
            let is_installed = program == "mke2fs";
            let options = if is_installed {
                (*options).clone()
            } else {
                options.replace("-r 0", "-E revision=0")
            };
            sh(
                temp.path(),
                &format!(": > a.img; {program} -q -F {options} 2> log || {{ cat log; exit 1; }}"),
            );
            let tree = read_path(&temp.path().join("a.img"));
            let tree = tree.unwrap_or_else(|error| panic!("{program} {options}: {error}"));
            // mke2fs writes no attributes into a file system without feature bits.
            let xattrs = !["-r 0", "revision=0", "^ext_attr"]
                .iter()
                .any(|option| options.contains(option));
            let mut found = describe_tree(&tree, Look { xattrs, ..look() });
            found.remove("/before-epoch");
            found.remove("/after-2038");
            let expected = if xattrs { &full } else { &bare };
            assert_same(&whole_seconds(found), expected, &options);
        }
    }
}

/// Feature by feature what mke2fs cannot fill: with debugfs.
#[test]
fn values_in_inodes_are_read_and_verified() {
    if !have("mke2fs") || !have("debugfs") {
        return;
    }
    for (options, block_size) in [
        ("-t ext4 -b 1024 -O ea_inode,^has_journal", 1024),
        ("-t ext4 -b 4096 -O ea_inode,^metadata_csum -I 128", 4096),
        ("-t ext4 -b 65536 -O ea_inode,^has_journal", 65536),
    ] {
        let temp = tempfile::tempdir().unwrap();
        sh(
            temp.path(),
            &format!(
                "mkdir src; echo x > src/f; echo y > src/g
                 ln -s $(printf 't%.0s' $(seq 40)) src/link
                 : > a.img; mke2fs -q -F {options} -d src a.img 16M 2>/dev/null
                 for i in 1 2 3; do head -c ${{i}}0000 /dev/zero | tr '\\0' $i > value-$i; done
                 head -c 65536 /dev/zero > value-4
                 for i in 1 2 3 4; do echo ea_set -f value-$i f user.v$i; done > commands
                 echo ea_set -f value-1 g user.v1 >> commands
                 echo ea_set link trusted.x y >> commands
                 debugfs -w -f commands a.img > log 2>&1"
            ),
        );
        let path = temp.path().join("a.img");
        let tree = read_path(&path).unwrap();
        let id = tree.lookup(b"/f").unwrap();
        let lengths: Vec<usize> = tree
            .inode(id)
            .metadata
            .xattrs
            .values()
            .map(|v| v.len())
            .collect();
        // debugfs takes no more than a block of a file.
        let expected = [10_000, 20_000, 30_000, 65_536].map(|length: usize| length.min(block_size));
        assert_eq!(lengths, expected, "{options}");
        for (index, value) in tree.inode(id).metadata.xattrs.values().take(3).enumerate() {
            assert!(
                value
                    .iter()
                    .all(|byte| usize::from(*byte) == usize::from(b'1') + index)
            );
        }
        let link = tree.lookup(b"/link").unwrap();
        assert_eq!(tree.inode(link).kind, Kind::Symlink([b't'; 40].into()));
        if block_size > 4096 {
            continue;
        }
        // One bit of a value.
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes
            .windows(9)
            .position(|bytes| bytes == b"222222222")
            .unwrap();
        bytes[at] ^= 1;
        let error = read(Arc::new(bytes)).unwrap_err().to_string();
        assert!(
            error.contains("the value of an attribute of inode"),
            "{error}"
        );
        assert!(error.ends_with("invalid checksum"), "{error}");
    }
}
