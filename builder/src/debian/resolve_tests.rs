use super::*;
use crate::debian::packages::PackageList;

fn universe_text(packages: &[(&str, &str, &str)]) -> String {
    let digest = "0".repeat(64);
    let stanza = |(name, version, more): &(&str, &str, &str)| {
        let architecture = if more.contains("Architecture:") {
            ""
        } else {
            "Architecture: amd64\n"
        };
        format!(
            "Package: {name}\nVersion: {version}\n{architecture}Filename: {name}.deb\nSize: 1\n\
             SHA256: {digest}\n{more}\n\n"
        )
    };
    packages.iter().map(stanza).collect()
}

fn list_of(packages: &[(&str, &str, &str)]) -> PackageList {
    PackageList {
        priority: 500,
        suites: Vec::new(),
        key: String::new(),
        only: None,
        mirror: String::new(),
        url: String::new(),
        text: universe_text(packages),
    }
}

fn solve_with(
    packages: &[(&str, &str, &str)],
    wanted: &[&str],
    variant: Variant,
    recommends: bool,
) -> Result<String, String> {
    solve_without(packages, wanted, &[], variant, recommends)
}

fn solve_without(
    packages: &[(&str, &str, &str)],
    wanted: &[&str],
    exclude: &[&str],
    variant: Variant,
    recommends: bool,
) -> Result<String, String> {
    let lists = [list_of(packages)];
    let universe = Universe::new(&lists).unwrap();
    let wanted: Vec<_> = wanted
        .iter()
        .map(|text| relations::parse_one(text).unwrap())
        .collect();
    let request = ResolveRequest {
        targets: &[],
        exclude,
        held: &[],
        architecture: "amd64",
        foreign: &[],
        variant,
        packages: &wanted,
        recommends,
    };
    let ids = resolve(&universe, &request).map_err(|error| error.to_string())?;
    let ids = ids.packages;
    let names: Vec<&str> = ids
        .into_iter()
        .map(|id| universe.package(id).name)
        .collect();
    Ok(names.join(" "))
}

/// A package by name, version and further fields.
type Made<'a> = (&'a str, &'a str, &'a str);

/// Which versions are chosen of what several suites have, each with its priority.
fn versions(
    suites: &[(&str, u16, &[Made<'_>])],
    wanted: &[&str],
    targets: &[(&str, &str)],
) -> Result<String, String> {
    let lists: Vec<PackageList> = suites
        .iter()
        .map(|(suite, priority, packages)| PackageList {
            priority: *priority,
            suites: vec![(*suite).to_owned()],
            key: String::new(),
            only: None,
            mirror: String::new(),
            url: String::new(),
            text: universe_text(packages),
        })
        .collect();
    let universe = Universe::new(&lists).unwrap();
    let wanted = wanted
        .iter()
        .map(|text| relations::parse_one(text).unwrap());
    let request = ResolveRequest {
        targets,
        exclude: &[],
        held: &[],
        architecture: "amd64",
        foreign: &[],
        variant: Variant::Nothing,
        packages: &wanted.collect::<Vec<_>>(),
        recommends: false,
    };
    let ids = resolve(&universe, &request).map_err(|error| error.to_string())?;
    let ids = ids.packages;
    let shown = ids.into_iter().map(|id| {
        let package = universe.package(id);
        format!("{} {}", package.name, package.version.as_str())
    });
    Ok(shown.collect::<Vec<_>>().join(", "))
}

#[test]
fn suites_are_preferred_as_apt_prefers_them() {
    let suites = |backports| {
        [
            (
                "main",
                500,
                &[("aa", "1.0", "Depends: bb\n"), ("bb", "1.0", "")][..],
            ),
            ("security", 500, &[("bb", "1.1", "")]),
            (
                "backports",
                backports,
                &[("aa", "2.0", ""), ("bb", "2.0", "")],
            ),
        ]
    };
    // The newest of equal priority; backports only where nobody else has it, or it is asked for.
    assert_eq!(versions(&suites(100), &["aa"], &[]), ok("bb 1.1, aa 1.0"));
    assert_eq!(versions(&suites(990), &["aa"], &[]), ok("aa 2.0"));
    let aimed = |name, suite| versions(&suites(100), &["aa"], &[(name, suite)]);
    assert_eq!(aimed("aa", "backports"), ok("aa 2.0"));
    assert_eq!(aimed("bb", "backports"), ok("bb 2.0, aa 1.0"));
    assert_eq!(aimed("bb", "main"), ok("bb 1.0, aa 1.0"));
    let error = aimed("aa", "security").unwrap_err();
    assert!(
        error.contains("'security'") && error.contains("backports, main"),
        "{error}"
    );
    let error = aimed("cc", "main").unwrap_err();
    assert!(error.contains("'cc'") && error.contains("none"), "{error}");
}

#[test]
fn what_the_recipe_leaves_out_is_never_taken() {
    let packages = [
        ("init", "1", "Essential: yes\nDepends: tool | other\n"),
        ("tool", "1", "Priority: required\nRecommends: docs\n"),
        ("other", "1", "Recommends: docs\n"),
        ("docs", "1", ""),
        ("tzdata", "1", "Priority: required\n"),
        ("needy", "1", "Depends: docs\n"),
    ];
    let solve = |wanted: &[&str], exclude: &[&str]| {
        solve_without(&packages, wanted, exclude, Variant::Minimal, true)
    };
    assert_eq!(solve(&[], &[]), ok("docs tool init tzdata"));
    assert_eq!(solve(&[], &["tzdata", "docs"]), ok("tool init"));
    assert_eq!(solve(&[], &["tool", "tzdata"]), ok("docs other init"));
    let error = solve(&["needy"], &["docs"]).unwrap_err();
    let expected = "needy is asked for, needy needs docs, but the recipe leaves out docs";
    assert!(error.contains(expected), "{error}");
    let error = solve(&[], &["init"]).unwrap_err();
    assert!(
        error.contains("'init' cannot be left out: it is essential"),
        "{error}"
    );
    let error = solve(&[], &["tzdat"]).unwrap_err();
    assert!(
        error.contains("no package 'tzdat'; did you mean 'tzdata'"),
        "{error}"
    );
}

#[test]
fn other_architectures_are_taken_where_they_are_asked_for() {
    let i386 = |more: &str| format!("Architecture: i386\n{more}");
    let (same, libxx) = ("Multi-Arch: same\n", i386("Multi-Arch: same\n"));
    let wine = i386("Depends: libxx, sh, tool:any\n");
    let (lost, old) = (i386("Depends: plain\n"), i386("Multi-Arch: same\n"));
    let packages = [
        ("libxx", "1", same),
        ("libxx", "1", &libxx),
        ("sh", "1", "Multi-Arch: foreign\nDepends: libxx\n"),
        ("tool", "1", "Multi-Arch: allowed\n"),
        ("plain", "1", "Architecture: all\n"),
        ("wine", "1", &wine),
        ("lost", "1", &lost),
        ("libold", "2", same),
        ("libold", "1", &old),
    ];
    let solve = |wanted: &[&str]| {
        let lists = [list_of(&packages)];
        let universe = Universe::new(&lists).unwrap();
        let wanted = wanted
            .iter()
            .map(|text| relations::parse_one(text).unwrap());
        let request = ResolveRequest {
            architecture: "amd64",
            foreign: &["i386"],
            variant: Variant::Nothing,
            packages: &wanted.collect::<Vec<_>>(),
            targets: &[],
            recommends: false,
            exclude: &[],
            held: &[],
        };
        let chosen = resolve(&universe, &request).map_err(|error| error.to_string())?;
        let shown = chosen.packages.into_iter().map(|id| {
            let package = universe.package(id);
            format!("{}:{}", package.name, package.architecture)
        });
        Ok(shown.collect::<Vec<_>>().join(" "))
    };
    assert_eq!(solve(&["libxx:i386"]), ok("libxx:i386"));
    assert_eq!(solve(&["libxx"]), ok("libxx:amd64"));
    let both = solve(&["wine:i386"]);
    assert_eq!(
        both,
        ok("libxx:amd64 libxx:i386 sh:amd64 tool:amd64 wine:i386")
    );
    // What is for all is the system's own, and no other's without saying so.
    let error = solve(&["lost:i386"]).unwrap_err();
    assert!(
        error.contains("lost needs plain, but the archive has plain 1"),
        "{error}"
    );
    let error = solve(&["libold", "libold:i386"]).unwrap_err();
    assert!(error.contains("conflicts with"), "{error}");
    let error = solve(&["sh:i386"]).unwrap_err();
    assert!(
        error.contains("sh:i386 is asked for, but the archive has sh 1"),
        "{error}"
    );
}

fn solve(packages: &[(&str, &str, &str)], wanted: &[&str]) -> Result<String, String> {
    solve_with(packages, wanted, Variant::Nothing, false)
}

fn ok(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

#[test]
fn dependencies_come_first() {
    let packages = [
        ("aa", "1", "Depends: bb, cc"),
        ("bb", "1", "Depends: dd"),
        ("cc", "1", "Pre-Depends: bb"),
        ("dd", "1", ""),
        ("ee", "1", ""),
    ];
    assert_eq!(solve(&packages, &["aa"]), ok("dd bb cc aa"));
    let circle = [("aa", "1", "Depends: bb"), ("bb", "1", "Depends: aa")];
    assert_eq!(solve(&circle, &["bb"]), ok("bb aa"));
}

#[test]
fn the_base_is_essential_required_and_apt() {
    let packages = [
        ("base", "1", "Essential: yes\nDepends: lib"),
        ("lib", "1", ""),
        ("req", "1", "Priority: required"),
        ("apt", "1", ""),
        ("foreign", "1", "Essential: yes\nArchitecture: i386"),
        ("opt", "1", "Priority: optional"),
    ];
    let base = |variant| solve_with(&packages, &[], variant, false);
    assert_eq!(base(Variant::Minimal), ok("apt lib base req"));
    assert_eq!(base(Variant::Essential), ok("lib base"));
    assert_eq!(base(Variant::Nothing), ok(""));
}

#[test]
fn the_newest_version_is_the_candidate() {
    let packages = [
        ("aa", "1.9", ""),
        ("aa", "1.10", "Depends: bb"),
        ("bb", "1", ""),
    ];
    assert_eq!(solve(&packages, &["aa"]), ok("bb aa"));
    let error = solve(&packages, &["aa (= 1.9)"]).unwrap_err();
    assert!(
        error.ends_with("aa (= 1.9) is asked for, but the archive has aa 1.10"),
        "{error}"
    );
}

#[test]
fn alternatives_prefer_what_is_there_then_the_first() {
    let packages = [
        ("aa", "1", "Depends: xx | yy"),
        ("bb", "1", "Depends: yy"),
        ("xx", "1", ""),
        ("yy", "1", ""),
        ("cc", "1", "Depends: none | yy"),
        ("dd", "1", "Depends: yy (>= 2) | xx"),
    ];
    assert_eq!(solve(&packages, &["aa"]), ok("xx aa"));
    assert_eq!(solve(&packages, &["aa", "bb"]), ok("yy aa bb"));
    assert_eq!(solve(&packages, &["cc"]), ok("yy cc"));
    assert_eq!(solve(&packages, &["dd"]), ok("xx dd"));
}

#[test]
fn virtual_packages_and_versioned_provides() {
    let packages = [
        ("aa", "1", "Depends: awk"),
        ("gawk", "1", "Provides: awk"),
        ("mawk", "1", "Provides: awk\nPriority: required"),
        ("bb", "1", "Depends: api (>= 2)"),
        ("old", "9", "Provides: api (= 1), plain"),
        ("new", "1", "Provides: api (= 3)"),
        ("cc", "1", "Depends: plain (>= 1)"),
    ];
    assert_eq!(solve(&packages, &["aa"]), ok("mawk aa"));
    assert_eq!(solve(&packages, &["aa", "gawk"]), ok("gawk aa"));
    assert_eq!(solve(&packages, &["bb"]), ok("new bb"));
    assert_eq!(solve(&packages, &["awk"]), ok("mawk"));
    assert!(
        solve(&packages, &["cc"]).is_err(),
        "an unversioned Provides has no version"
    );
}

#[test]
fn architecture_qualifiers() {
    let packages = [
        ("aa", "1", "Depends: python:any"),
        ("bb", "1", "Depends: lib:any"),
        ("cc", "1", "Depends: lib:native, lib:amd64"),
        ("dd", "1", "Depends: lib:i386"),
        ("python", "1", "Multi-Arch: allowed"),
        ("lib", "1", "Architecture: all"),
    ];
    assert_eq!(solve(&packages, &["aa"]), ok("python aa"));
    assert!(solve(&packages, &["bb"]).is_err());
    assert_eq!(solve(&packages, &["cc"]), ok("lib cc"));
    assert!(solve(&packages, &["dd"]).is_err());
}

#[test]
fn conflicts_lead_to_the_next_alternative() {
    let packages = [
        ("aa", "1", "Depends: xx | yy, zz | ww"),
        ("xx", "1", ""),
        ("yy", "1", ""),
        ("zz", "1", "Conflicts: xx"),
        ("ww", "1", "Breaks: xx (<< 2)"),
        ("mta1", "1", "Provides: mta\nConflicts: mta"),
        ("mta2", "1", "Provides: mta\nConflicts: mta"),
    ];
    assert_eq!(solve(&packages, &["aa"]), ok("yy zz aa"));
    assert_eq!(solve(&packages, &["mta1"]), ok("mta1"));
    let error = solve(&packages, &["mta1", "mta2"]).unwrap_err();
    assert!(error.contains("conflicts with"), "{error}");
}

#[test]
fn deep_choices_are_taken_back() {
    let packages = [
        ("aa", "1", "Depends: p1 | p2, q1 | q2, r1 | r2"),
        ("p1", "1", ""),
        ("p2", "1", ""),
        ("q1", "1", "Depends: deep"),
        ("q2", "1", ""),
        ("deep", "1", "Conflicts: p1, p2"),
        ("r1", "1", "Conflicts: q2"),
        ("r2", "1", ""),
    ];
    assert_eq!(solve(&packages, &["aa"]), ok("p1 q2 r2 aa"));
}

#[test]
fn a_contradiction_names_the_chain() {
    let packages = [
        ("web", "1", "Depends: lib"),
        ("lib", "2", "Depends: core (>= 3)"),
        ("core", "2.5", ""),
        ("one", "1", "Depends: two"),
        ("two", "1", "Conflicts: core"),
    ];
    assert_eq!(
        solve(&packages, &["web"]).unwrap_err(),
        "the packages cannot be installed together: web is asked for, web needs lib, \
         lib needs core (>= 3), but the archive has core 2.5"
    );
    assert_eq!(
        solve(&packages, &["core", "one"]).unwrap_err(),
        "the packages cannot be installed together: one is asked for, one needs two, \
         but two 1 conflicts with core, core is asked for"
    );
    let unknown = solve(&packages, &["wbe"]).unwrap_err();
    assert_eq!(unknown, "there is no package 'wbe'; did you mean 'web'?");
    assert_eq!(
        solve(&packages, &["zzzzzz"]).unwrap_err(),
        "there is no package 'zzzzzz'"
    );
}

#[test]
fn hopeless_requests_end() {
    let mut packages = vec![("top".to_owned(), String::from("Depends: end"))];
    let mut needs = Vec::new();
    for index in 0..24 {
        needs.push(format!("a{index} | b{index}"));
        packages.push((format!("a{index}"), String::new()));
        packages.push((format!("b{index}"), String::new()));
    }
    packages.push((
        "end".to_owned(),
        format!("Depends: {}, e1 | e2", needs.join(", ")),
    ));
    packages.push(("e1".to_owned(), "Depends: none".to_owned()));
    packages.push(("e2".to_owned(), "Depends: none".to_owned()));
    let packages: Vec<(&str, &str, &str)> = packages
        .iter()
        .map(|(name, more)| (name.as_str(), "1", more.as_str()))
        .collect();
    let error = solve(&packages, &["top"]).unwrap_err();
    assert!(error.contains("the archive has no none"), "{error}");
}

#[test]
fn recommends_are_taken_where_they_fit() {
    let packages = [
        ("aa", "1", "Recommends: bb | cc, dd, none"),
        ("bb", "1", "Depends: none"),
        ("cc", "1", "Recommends: ee"),
        ("dd", "1", "Conflicts: aa"),
        ("ee", "1", ""),
    ];
    assert_eq!(solve(&packages, &["aa"]), ok("aa"));
    assert_eq!(
        solve_with(&packages, &["aa"], Variant::Nothing, true),
        ok("aa cc ee")
    );
}
