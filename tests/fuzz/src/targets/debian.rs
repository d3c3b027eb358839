//! What a distribution's servers and packages say, and what a guest asks of them.

use coop_builder::debian::mirror::AptSources;
use coop_builder::debian::packages::{PackageList, Universe};
use coop_builder::debian::relations::Relation;
use coop_builder::debian::release::Release;
use coop_builder::debian::resolve::{ResolveRequest, Variant, resolve};
use coop_builder::evidence::licence_expression;
use coop_builder::guest::{ParsedRequest, parse_request};

/// Takes a text for each file of an archive; what was resolved has what was asked for.
pub fn debian_index(data: &[u8]) {
    let _ = Release::parse(data);
    let text = String::from_utf8_lossy(data).into_owned();
    let mut apt = AptSources::default();
    apt.add_list(&text);
    apt.add_deb822(&text);
    apt.add_configuration(&text);
    let lists = [PackageList {
        priority: 500,
        suites: Vec::new(),
        key: String::new(),
        mirror: "http://nowhere.invalid".to_owned(),
        url: String::new(),
        text,
        only: None,
    }];
    let Ok(universe) = Universe::new(&lists) else {
        return;
    };
    for (id, package) in universe.packages().take(10) {
        let _ = universe.download(id);
        let wanted = [Relation {
            name: package.name,
            qualifier: None,
            constraint: None,
        }];
        let request = ResolveRequest {
            targets: &[],
            architecture: "amd64",
            foreign: &["i386"],
            variant: Variant::Minimal,
            packages: &wanted,
            recommends: true,
            exclude: &[],
            held: &[],
        };
        if let Ok(chosen) = resolve(&universe, &request) {
            let mut names = chosen.packages.iter().map(|id| universe.package(*id).name);
            let provided = universe
                .providing(package.name)
                .iter()
                .any(|(id, _)| chosen.packages.contains(id));
            assert!(provided || names.any(|name| name == package.name));
        }
    }
}

/// A package's copyright file becomes one licence expression: balanced, of one line, and the same
/// each time.
pub fn copyright(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some(expression) = licence_expression(&text) else {
        return;
    };
    assert_eq!(licence_expression(&text).as_ref(), Some(&expression));
    let allowed = |c: char| c.is_ascii_alphanumeric() || " ().-+".contains(c);
    assert!(expression.chars().all(allowed), "{expression}");
    let count = |wanted: char| expression.chars().filter(|c| *c == wanted).count();
    assert_eq!(count('('), count(')'), "{expression}");
}

/// Reads what a guest asks of the proxy; a request is the same without what follows it.
pub fn proxy_request(data: &[u8]) {
    let ParsedRequest::Whole(request) = parse_request(data) else {
        return;
    };
    assert!(request.length > 0 && request.length <= data.len());
    let alone = parse_request(&data[..request.length]);
    assert_eq!(alone, ParsedRequest::Whole(request.clone()));
    let (host, path) = request.address.split_once('/').unwrap();
    assert!(!host.is_empty() && !host.contains('@'));
    let mut parts = path.split('/');
    assert!(parts.all(|part| !matches!(part, "" | "." | "..")));
}
