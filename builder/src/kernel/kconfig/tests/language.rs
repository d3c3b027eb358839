//! Each construct of the language.

use super::{Tree, kconfig, reason, says};
use crate::kernel::kconfig::{Kconfig, KconfigError, Reason, SymbolType};

#[test]
fn symbols_know_their_types_prompts_and_places() {
    let kconfig = kconfig(
        "mainmenu \"Linux/$(ARCH) $(KERNELVERSION)\"\n\
         config A\n\tbool \"first\"\n\
         menuconfig B\n\ttristate\n\tprompt 'second' if A\n\
         config C\n\tdef_bool y\n\
         config D\n\tdef_tristate m if A\n\
         config E\n\tstring \"a \\\"quoted\\\" one\"\n\tdefault \"x\"\n\
         config F\n\tint \"six\"\n\trange 1 A\n\
         config G\n\thex\n\tdefault 0x10\n\
         config A\n\tbool \"again\"\n\
         config H\n",
    );
    assert_eq!(kconfig.puzzles(), [""; 0]);
    let all: Vec<_> = kconfig.symbols();
    let short: Vec<_> = all
        .iter()
        .map(|one| (one.name, one.kind, one.prompt))
        .collect();
    use SymbolType::{Bool, Hex, Int, String, Tristate};
    assert_eq!(
        short,
        [
            ("A", Some(Bool), Some("first")),
            ("B", Some(Tristate), Some("second")),
            ("C", Some(Bool), None),
            ("D", Some(Tristate), None),
            ("E", Some(String), Some("a \"quoted\" one")),
            ("F", Some(Int), Some("six")),
            ("G", Some(Hex), None),
            ("H", None, None),
        ]
    );
    assert_eq!(
        kconfig.symbol("CONFIG_A").unwrap().places,
        ["Kconfig:2", "Kconfig:20"]
    );
    assert_eq!(kconfig.symbol("y"), None);
}

#[test]
fn help_is_text_whatever_it_says() {
    let kconfig = kconfig(
        "config A\n\tbool \"a\"\n\thelp\n\t  config X\n\n\t    deeper\n\t  depends on Y\n\tdepends on N\n\
         config B\n\tbool\n\thelp\n\n\n\t  text\n  \n\t  more\n\n\
         config C\n    bool\n    help\n\tconfig Y\n    default y\n\
         config D\n\tbool\n\thelp\n\
         config E\n\tbool\n\thelp",
    );
    assert_eq!(kconfig.puzzles(), [""; 0]);
    let names: Vec<_> = kconfig.symbols().iter().map(|one| one.name).collect();
    // What follows an empty help at once is its text, as conf has it.
    assert_eq!(names, ["A", "B", "C", "D"]);
    says(
        &kconfig,
        "",
        "CONFIG_A=y",
        "A depends on N, which is n (Kconfig:8); no file of this target defines N",
    );
}

#[test]
fn lines_go_on_and_comments_end() {
    let kconfig = kconfig(
        "config A # the first\n\tbool \"a\" # \"not\"\n\tdepends on B && \\\n\t\tC # && D\n\
         config B\n\tbool \"b\"\nconfig C\n\tbool \"c\"\n",
    );
    assert_eq!(kconfig.puzzles(), [""; 0]);
    says(
        &kconfig,
        "CONFIG_B=y",
        "CONFIG_A=y",
        "A depends on C, which is n (Kconfig:3); ask for CONFIG_C=y",
    );
}

#[test]
fn menus_ifs_and_choices_hand_their_conditions_down() {
    let kconfig = kconfig(
        "config P\n\tbool \"p\"\nconfig Q\n\tbool \"q\"\nconfig R\n\tbool \"r\"\n\
         menu \"m\"\n\tdepends on P\n\tvisible if R\n\
         if Q\nconfig A\n\tbool \"a\"\nendif\n\
         comment \"nothing\"\n\tdepends on P\n\
         choice\n\tprompt \"one of\"\n\tdefault Y\n\tdepends on Q\n\toptional\n\
         config X\n\tbool \"x\"\nconfig Y\n\tbool \"y\"\nendchoice\n\
         endmenu\n",
    );
    assert_eq!(kconfig.puzzles(), [""; 0]);
    says(
        &kconfig,
        "",
        "CONFIG_A=y",
        "A depends on P, which is n (Kconfig:8); A depends on Q, which is n (Kconfig:10); \
         A can be set only if R, which is n (Kconfig:9); \
         ask for CONFIG_P=y, CONFIG_Q=y, CONFIG_R=y",
    );
    says(
        &kconfig,
        "CONFIG_P=y\nCONFIG_R=y\n",
        "CONFIG_X=y\nCONFIG_Q=y",
        "X depends on Q, which is n (Kconfig:19)",
    );
}

#[test]
fn files_include_files() {
    let tree = Tree::new(&[
        (
            "Kconfig",
            "source \"arch/$(SRCARCH)/Kconfig\"\nosource \"none/Kconfig\"\nsource \"drivers/*/Kconfig\"\n\
             orsource \"nothing*\"\nsource \"$(shell,ls)\"\n",
        ),
        (
            "arch/um/Kconfig",
            "rsource \"../common\"\nsource \"arch/$(HEADER_ARCH)/um/Kconfig\"\n",
        ),
        ("arch/common", "config COMMON\n\tbool\n"),
        ("arch/x86/um/Kconfig", "config X86\n\tbool\n"),
        ("arch/x86/Kconfig", "config PC\n\tbool\n"),
        ("drivers/b/Kconfig", "config B\n\tbool\n"),
        ("drivers/a/Kconfig", "config A\n\tbool\n"),
        ("drivers/c/Makefile", "obj-y += c.o\n"),
    ]);
    let kconfig = tree.read().unwrap();
    let names: Vec<_> = kconfig.symbols().iter().map(|one| one.name).collect();
    assert_eq!(names, ["A", "B", "COMMON", "X86"]);
    assert_eq!(kconfig.puzzles(), ["Kconfig:5: source $(shell,ls)"]);
    says(
        &kconfig,
        "",
        "CONFIG_PC=y",
        "this target has no such symbol; another architecture has it (arch/x86/Kconfig:1)",
    );
}

#[test]
fn macros_are_expanded_and_nothing_is_run() {
    let mark = tempfile::NamedTempFile::new().unwrap();
    let mark = mark.path().with_extension("mark");
    let text = format!(
        "hit := $(shell,touch {mark})\nsuccess = $(shell,$(1) && touch {mark})\n\
         yes := y\nname = WORD_$(1)\n$(warning-if,$(yes),$(hit))\n$(error-if,$(hit),no)\n\
         config $(name,A)\n\tbool \"a $(yes)\"\n\tdepends on \"$(SRCARCH)\" = \"um\"\n\
         config B\n\tbool \"b\"\n\tdepends on $(success,cc -m64)\n\
         config C\n\tbool \"c\" if \"$(CC)\" = \"gcc\" && WORD_A\n\
         config D\n\tbool \"d\"\n\tdepends on \"$(ARCH)\" = \"x86_64\"\n",
        mark = mark.display()
    );
    let kconfig = kconfig(&text);
    assert_eq!(kconfig.puzzles(), [""; 0]);
    assert_eq!(kconfig.symbol("WORD_A").unwrap().prompt, Some("a y"));
    says(
        &kconfig,
        "",
        "CONFIG_B=y",
        "it depends on what the compiler or another tool can: $(success,cc -m64) (Kconfig:12)",
    );
    says(
        &kconfig,
        "CONFIG_WORD_A=y",
        "CONFIG_C=y",
        "it depends on what the compiler or another tool can: $(CC) = \"gcc\" (Kconfig:14)",
    );
    says(
        &kconfig,
        "",
        "CONFIG_D=y",
        "D depends on \"um\" = \"x86_64\", which does not hold (Kconfig:17)",
    );
    assert!(!mark.exists());
}

#[test]
fn conditions_are_evaluated_as_conf_does() {
    let kconfig = kconfig(
        "config MODULES\n\tbool \"m\"\n\tmodules\nconfig N\n\tint \"n\"\nconfig H\n\thex \"h\"\n\
         config S\n\tstring \"s\"\nconfig T\n\ttristate \"t\"\nconfig Y\n\tbool \"y\"\n",
    );
    let config =
        "CONFIG_MODULES=y\nCONFIG_N=12\nCONFIG_H=0x1f\nCONFIG_S=\"10\"\nCONFIG_T=m\nCONFIG_Y=y\n";
    let holds = |condition: &str| {
        let text = format!(
            "{}config Z\n\ttristate \"z\"\n\tdepends on {condition}\n",
            ""
        );
        let whole = [
            "config MODULES\n\tbool \"m\"\n\tmodules\nconfig N\n\tint \"n\"\nconfig H\n\thex \"h\"\n",
            "config S\n\tstring \"s\"\nconfig T\n\ttristate \"t\"\nconfig Y\n\tbool \"y\"\n",
            &text,
        ];
        let kconfig = super::kconfig(&whole.concat());
        assert_eq!(kconfig.puzzles(), [""; 0]);
        !matches!(
            reason(&kconfig, config, "CONFIG_Z=y"),
            Reason::Dependency { .. }
        )
    };
    assert_eq!(kconfig.symbols().len(), 6);
    for condition in [
        "Y",
        "y",
        "!NONE",
        "N = 12",
        "N > 9",
        "N<=12",
        "N >= H || N < H",
        "H = 0x1F",
        "H = 31",
        "S = \"10\"",
        "S = 10",
        "S != \"\"",
        "T = m",
        "T != n",
        "T < y",
        "!T = n",
        "NONE = n || Y",
        "Y && (T = m || NONE) && !(NONE && Y)",
        "\"a\" < \"b\"",
        "N = \"12\"",
        "NONE = NONE",
        "T if NONE",
        "Y if T",
        "Y = \"y\"",
        "NONE = \"NONE\"",
    ] {
        assert!(holds(condition), "{condition}");
    }
    for condition in [
        "T",
        "m",
        "n",
        "NONE",
        "!Y",
        "N = 13",
        "N > 12",
        "H < 0x1f",
        "S = \"11\"",
        "T = y",
        "T if Y",
        "NONE && Y",
        "Y = n",
        "\"b\" < \"a\"",
        "N",
        "NONE = n",
    ] {
        assert!(!holds(condition), "{condition}");
    }
}

#[test]
fn newer_words_are_left_out_and_told() {
    let kconfig = kconfig(
        "config A\n\tbool \"a\"\n\tenchanted by B\n\tdepends on\n\tdepends on A &&\n\tselect\n\
         config B C\n\tbool\nspell \"x\"\n= y\nconfig D\n\tbool \"d\" when A\n",
    );
    let names: Vec<_> = kconfig.symbols().iter().map(|one| one.name).collect();
    assert_eq!(names, ["A", "D"]);
    assert_eq!(
        kconfig.puzzles(),
        [
            "Kconfig:3: enchanted by B",
            "Kconfig:4: depends on",
            "Kconfig:5: depends on A &&",
            "Kconfig:6: select",
            "Kconfig:7: config B C",
            "Kconfig:8: bool",
            "Kconfig:9: spell \"x\"",
            "Kconfig:10: = y",
            "Kconfig:12: bool \"d\" when A",
        ]
    );
}

fn refuses(tree: &Tree, sentence: &str) {
    let error = tree.read().unwrap_err().to_string();
    assert!(error.contains(sentence), "{error}");
}

#[test]
fn trees_that_lead_nowhere_are_refused() {
    let one = |text: &str| Tree::new(&[("Kconfig", text)]);
    refuses(&Tree::new(&[("Makefile", "")]), "does not have");
    refuses(&one("menu \"m\"\n"), "Kconfig:1: is not closed");
    refuses(&one("if A\nendmenu\n"), "Kconfig:2: closes what");
    refuses(&one("endif\n"), "Kconfig:1: closes what");
    refuses(&one("source \"Kconfig\"\n"), "includes it again");
    refuses(
        &one("source \"fs/Kconfig\"\n"),
        "Kconfig includes fs/Kconfig, which",
    );
    refuses(&one("source \"../Kconfig\"\n"), "not inside");
    refuses(&one("source \"/etc/passwd\"\n"), "not inside");
    refuses(&one("a = $(b\nconfig $(a)\n"), "lacks its");
    refuses(&one(&"if y\n".repeat(1000)), "menus, choices and ifs");
    refuses(&one(&"x\n".repeat(2000)), "not understood");
    refuses(
        &one(&format!("config A\n#{}", "x".repeat(5 << 20))),
        "bytes in one file",
    );
    let deep = format!(
        "config A\n\tdepends on {}A{}\n",
        "(".repeat(1000),
        ")".repeat(1000)
    );
    assert_eq!(one(&deep).read().unwrap().puzzles().len(), 1);
    let many = format!("config A\n\tdepends on A{}\n", " && A".repeat(100_000));
    assert_eq!(one(&many).read().unwrap().puzzles(), [""; 0]);
    // Files that include one another twice would be read for ever.
    let names: Vec<String> = (0..40).map(|number| format!("f{number}")).collect();
    let mut files: Vec<(String, String)> =
        vec![("Kconfig".to_owned(), "source \"f0\"\n".to_owned())];
    for (number, name) in names.iter().enumerate() {
        let next = names.get(number + 1).map_or(String::new(), |next| {
            format!("source \"{next}\"\nsource \"{next}\"\n")
        });
        files.push((name.clone(), next));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (&**a, &**b)).collect();
    refuses(&Tree::new(&files), "files or");
}

#[test]
fn links_out_of_the_tree_are_not_followed() {
    let outside = Tree::new(&[("secret", "config SECRET\n\tbool\n")]);
    let tree = Tree::new(&[("Kconfig", "source \"sub/secret\"\n")]);
    std::os::unix::fs::symlink(outside.path(), tree.path().join("sub")).unwrap();
    let error = tree.read().unwrap_err();
    assert!(matches!(error, KconfigError::Outside(_)), "{error}");
    let pipe = Tree::new(&[("Kconfig", "source \"/dev/zero\"\n")]);
    assert!(pipe.read().is_err());
    let pipe = Tree::new(&[]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        pipe.path().join("Kconfig"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(
        pipe.read()
            .unwrap_err()
            .to_string()
            .contains("is not a file")
    );
    let missing = Kconfig::read("/nonexistent".as_ref(), crate::kernel::Target::Um);
    assert!(missing.unwrap_err().to_string().contains("/nonexistent"));
}
