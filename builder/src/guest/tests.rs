use std::sync::Arc;

use coop_image::tree::Metadata;
use coop_runtime::event::Silent;

use super::*;

/// What a step comes to that no guest is booted for: there is no kernel.
fn refused(change: impl FnOnce(&mut Step)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("cache")).unwrap();
    let nowhere = folder.path().join("nowhere");
    let context = GuestContext {
        kernel: KernelSpec {
            vmlinux: nowhere.clone(),
            config: nowhere.clone(),
            libraries: None,
            modules: None,
            cmdline: Vec::new(),
        },
        host: Host {
            memory: Vec::new(),
            scratch: nowhere.clone(),
            instances: nowhere,
            resolvers: Vec::new(),
        },
        store: &store,
        observer: Arc::new(Silent),
        seed: [0; 16],
        epoch: Timestamp::default(),
        means: StepMeans::default(),
        packages: None,
    };
    let mut tree = Tree::new(Metadata::default());
    let content = tree.add_bytes(b"root:x:0:0::/root:/bin/sh\n".to_vec());
    put_file(
        &mut tree,
        b"/etc/passwd",
        content.unwrap(),
        Metadata::default(),
    )
    .unwrap();
    let mut step = Step::new("a step", b"#!/bin/sh\n".to_vec());
    let source = folder.path().join("shown");
    fs_err::create_dir(&source).unwrap();
    step.mounts = vec![Mount {
        digest: digest_of_source(&source).unwrap(),
        source,
        target: "/mnt/host".to_owned(),
    }];
    change(&mut step);
    run(tree, &[step], &context).unwrap_err().to_string()
}

#[test]
fn what_a_step_cannot_have_is_told_before_a_guest_boots() {
    let user = refused(|step| step.user = "nobody-here".to_owned());
    assert!(user.contains("user 'nobody-here' does not exist"), "{user}");
    let folder = refused(|step| step.workdir = "/none".to_owned());
    assert_eq!(
        folder,
        "a step: there is no folder /none in the root file system"
    );
    let place = refused(|step| step.mounts[0].target = "/etc/passwd".to_owned());
    assert_eq!(
        place,
        "/etc/passwd in the root file system is no folder, and the step's mount there is one"
    );
    let changed = refused(|step| {
        fs_err::write(step.mounts[0].source.join("new"), "").unwrap();
    });
    assert!(
        changed.ends_with("shown changed while the build ran"),
        "{changed}"
    );
    let secret = refused(|step| step.secrets = vec!["token".to_owned()]);
    assert!(secret.contains("the secret 'token'"), "{secret}");
    for workdir in ["/mnt/host/below", "/tmp/x", "/etc"] {
        let kernel = refused(|step| step.workdir = workdir.to_owned());
        assert!(kernel.contains("nowhere"), "{workdir}: {kernel}");
    }
}
