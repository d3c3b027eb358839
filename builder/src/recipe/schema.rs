//! The recipe's grammar as a JSON schema (draft 2020-12), for editors.
//!
//! The schema is what an editor can use: names of keys, kinds of values, words to choose from. What
//! needs more than one key or the file system is the parser's to tell, and so are the grammars of
//! names. A test holds it against the keys that the parser knows.

use serde_json::{Map, Value, json};

/// The schema's own dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of a recipe.
#[must_use]
pub fn schema() -> Value {
    let mut schema = object(
        &["name", "rootfs"],
        [
            (
                "name",
                text("The appliance's name: lowercase letters, digits and hyphens"),
            ),
            ("description", text("One sentence for people")),
            (
                "architecture",
                words(&["amd64"], "The guest's; default: the host's"),
            ),
            ("variables", variables()),
            ("rootfs", rootfs()),
            ("kernel", kernel()),
            ("devices", devices()),
            (
                "test",
                list(test_step(), "What coop test runs in the guest, in order"),
            ),
        ],
    );
    if let Some(map) = schema.as_object_mut() {
        map.insert("$schema".to_owned(), DIALECT.into());
        map.insert("title".to_owned(), "coop recipe, version 1".into());
    }
    schema
}

/// A map of these keys and no others. What need not be there may be null.
fn object<const N: usize>(required: &[&str], properties: [(&str, Value); N]) -> Value {
    let properties: Map<String, Value> = properties
        .into_iter()
        .map(|(key, value)| {
            let value = match required.contains(&key) {
                true => value,
                false => json!({ "anyOf": [value, { "type": "null" }] }),
            };
            (key.to_owned(), value)
        })
        .collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    })
}

/// A map of exactly one of these keys.
fn variant<const N: usize>(properties: [(&str, Value); N]) -> Value {
    let mut variant = object(&[], properties);
    if let Some(map) = variant.as_object_mut() {
        map.insert("minProperties".to_owned(), 1.into());
        map.insert("maxProperties".to_owned(), 1.into());
    }
    variant
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn words(words: &[&str], description: &str) -> Value {
    json!({ "anyOf": [{ "enum": words }, filled()], "description": description })
}

fn boolean(description: &str) -> Value {
    json!({ "anyOf": [{ "type": "boolean" }, filled()], "description": description })
}

fn integer(description: &str) -> Value {
    json!({ "anyOf": [{ "type": "integer" }, filled()], "description": description })
}

/// A text that a variable makes something else.
fn filled() -> Value {
    json!({ "type": "string", "pattern": "\\$\\{" })
}

fn list(items: Value, description: &str) -> Value {
    json!({ "type": "array", "items": items, "description": description })
}

fn texts(description: &str) -> Value {
    list(json!({ "type": "string" }), description)
}

fn texts_by_name(description: &str) -> Value {
    json!({
        "type": "object",
        "additionalProperties": { "type": "string" },
        "description": description,
    })
}

fn any(of: &[Value]) -> Value {
    json!({ "anyOf": of })
}

fn variables() -> Value {
    json!({
        "type": "object",
        "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
        "additionalProperties": { "type": ["string", "number", "boolean", "null"] },
        "description": "Values for ${NAME}; null: --set must give one",
    })
}

fn rootfs() -> Value {
    object(
        &["source"],
        [
            ("source", source()),
            (
                "hostname",
                text("The guest's host name; default: the recipe's name"),
            ),
            ("files", list(file(), "Files to put in")),
            ("users", list(user(), "Users to make or change")),
            (
                "services",
                object(
                    &[],
                    [
                        ("enable", texts("systemd units to switch on")),
                        ("disable", texts("systemd units to switch off")),
                    ],
                ),
            ),
            (
                "run",
                list(run_step(), "What runs in the guest while it is built"),
            ),
            ("readonly", readonly()),
        ],
    )
}

fn readonly() -> Value {
    let start = words(&["empty", "copy"], "What the folder starts with");
    object(
        &[],
        [
            (
                "writable",
                json!({
                    "type": "object",
                    "additionalProperties": start,
                    "description": "Folders of a read-only root that lie in memory",
                }),
            ),
            ("etc", texts("Files of /etc that are made at boot")),
        ],
    )
}

/// Where an archive, a package or a disk is.
fn location<const N: usize>(more: [(&str, Value); N]) -> Value {
    let mut location = object(
        &[],
        [
            ("path", text("A file of the host")),
            ("url", text("http://… or https://…")),
            (
                "sha256",
                text("Its digest in hexadecimal; a lock can have it instead"),
            ),
        ],
    );
    let added = object(&[], more);
    if let (Some(properties), Some(added)) = (
        location["properties"].as_object_mut(),
        added["properties"].as_object(),
    ) {
        properties.extend(added.clone());
    }
    location
}

fn source() -> Value {
    variant([
        ("debian", debian()),
        (
            "tarball",
            location([(
                "strip_components",
                integer("Leading components to take off names"),
            )]),
        ),
        (
            "disk",
            location([
                (
                    "partition",
                    json!({ "type": ["string", "integer"], "description": "root, a number or a label" }),
                ),
                (
                    "keep_state",
                    boolean("Whether logs, keys and identity stay; default: false"),
                ),
                (
                    "chain",
                    texts(
                        "Files that the disk names as parts of itself, in the order of their use",
                    ),
                ),
            ]),
        ),
    ])
}

fn debian() -> Value {
    let repository = object(
        &["suite"],
        [
            ("suite", text("As trixie-security")),
            ("components", texts("Default: the main suite's")),
            ("mirror", text("Its address")),
            ("keyring", text("A file of keys")),
            ("priority", integer("apt's; default: 500")),
        ],
    );
    let answer = object(
        &["package", "question", "type", "value"],
        [
            ("package", text("A package")),
            ("question", text("A question")),
            ("type", text("Its type")),
            ("value", json!({ "type": ["string", "number", "boolean"] })),
        ],
    );
    let answers = json!({ "type": "array", "items": any(&[json!({ "type": "string" }), answer]) });
    let snapshot = object(
        &["at"],
        [
            ("at", text("As 20260801T000000Z")),
            ("url", text("The snapshot archive")),
        ],
    );
    object(
        &["suite"],
        [
            ("suite", text("The suite or code name, as trixie")),
            ("packages", texts("name, name:architecture or name/suite")),
            ("components", texts("Default: main")),
            (
                "variant",
                words(&["essential", "minimal"], "Packages without being named"),
            ),
            ("mirror", text("Default: the environment's or the host's")),
            ("snapshot", any(&[json!({ "type": "string" }), snapshot])),
            ("keyring", text("A file of keys; default: Debian's")),
            (
                "recommends",
                boolean("Recommended packages too; default: no"),
            ),
            ("repositories", list(repository, "Further suites")),
            ("debs", list(location([]), "Packages by their files")),
            (
                "exclude",
                object(
                    &[],
                    [
                        ("packages", texts("Packages that are never chosen")),
                        (
                            "paths",
                            texts("dpkg's path-exclude, or documentation, locales"),
                        ),
                        ("keep", texts("dpkg's path-include")),
                    ],
                ),
            ),
            ("debconf", any(&[json!({ "type": "string" }), answers])),
            (
                "unpack_only",
                text("An architecture whose machine configures the packages"),
            ),
        ],
    )
}

fn file() -> Value {
    let id = json!({ "type": ["string", "integer"] });
    object(
        &["path"],
        [
            ("path", text("Absolute path in the guest")),
            ("content", text("What is in it")),
            ("source", text("A file of the host")),
            (
                "mode",
                json!({ "type": ["string", "integer"], "description": "Octal, as 0o755" }),
            ),
            ("owner", id.clone()),
            ("group", id),
        ],
    )
}

fn user() -> Value {
    let password = any(&[
        json!({ "type": "string" }),
        variant([
            ("hash", text("As openssl passwd -6 makes it")),
            ("plain", text("For everyone who has the recipe to read")),
        ]),
    ]);
    object(
        &["name"],
        [
            ("name", text("The login name")),
            ("password", password),
            ("ssh_keys", texts("Lines for authorized_keys")),
            ("uid", integer("The user's number")),
            ("shell", text("The login shell")),
            ("home", text("The home folder")),
            ("groups", texts("Groups beyond the user's own")),
        ],
    )
}

fn run_step() -> Value {
    let mount = object(
        &["source", "target"],
        [
            ("source", text("A file or folder of the recipe's")),
            ("target", text("Where it is")),
        ],
    );
    let network = json!({ "anyOf": [{ "type": "boolean" }, { "type": "string" }] });
    any(&[
        json!({ "type": "string" }),
        object(
            &[],
            [
                ("run", text("A line for /bin/sh")),
                ("script", text("A program of the host")),
                ("environment", texts_by_name("Variables")),
                ("user", text("name, name:group or numbers; default: root")),
                ("workdir", text("The folder that it starts in")),
                ("network", network),
                ("mounts", list(mount, "What it sees of the recipe's folder")),
                ("secrets", texts("Names of secrets")),
            ],
        ),
    ])
}

fn kernel() -> Value {
    let package = object(
        &[],
        [
            ("name", text("user-mode-linux or linux-image-…")),
            ("suite", text("Default: sid")),
        ],
    );
    let from = object(
        &["package"],
        [
            ("package", text("linux-source-…")),
            ("suite", text("Default: sid")),
        ],
    );
    let source = object(
        &[],
        [
            ("debian", any(&[json!({ "type": "string" }), from])),
            ("suite", text("Default: sid")),
            ("tarball", location([])),
            ("patches", texts("Patches, or a series of them")),
            ("target", words(&["um", "x86_64"], "Default: um")),
            ("in", words(&["host", "guest"], "Where it is compiled")),
        ],
    );
    let symbol = json!({
        "type": "object",
        "additionalProperties": { "type": ["string", "number", "boolean"] },
    });
    let config = any(&[json!({ "type": "string" }), symbol]);
    object(
        &[],
        [
            ("package", package),
            ("source", source),
            (
                "config",
                list(
                    config,
                    "Fragments by name or path, and symbols; later ones win",
                ),
            ),
            ("modules", boolean("Whether it may have modules")),
            ("cmdline", texts("Words for its command line")),
        ],
    )
}

fn devices() -> Value {
    let nfs = object(
        &[],
        [
            (
                "server",
                text("Its address or name; default: coop serves the root itself"),
            ),
            ("path", text("What the server exports")),
            ("options", texts("Words for the guest's NFS client")),
        ],
    );
    let root = any(&[json!({ "type": "string" }), variant([("nfs", nfs)])]);
    let cobd = object(
        &[],
        [
            ("filesystem", words(&["ext4", "swap"], "What is made")),
            ("size", text("As 1GiB; auto for the root")),
            ("free", text("The root's free share, as 20%")),
            ("mount", text("Where the guest mounts it")),
            ("file", text("A file of the host, byte for byte")),
            ("readonly", boolean("Whether the guest may not write")),
        ],
    );
    let cobd = json!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": any(&[cobd, json!({ "type": "null" })]),
    });
    let forwards = texts("tcp|udp:HOST:GUEST[:COUNT]");
    let user = object(
        &[],
        [
            ("forward", forwards),
            ("allow_host", boolean("Whether the guest reaches the host")),
        ],
    );
    let conet = any(&[json!({ "enum": ["user"] }), variant([("user", user)])]);
    object(
        &[],
        [
            ("memory", text("As 256MiB")),
            ("cpus", integer("Processors")),
            ("root", root),
            ("cobd", list(cobd, "Block devices, the first named root")),
            ("conet", list(conet, "Network devices; [] for none")),
            (
                "cocon",
                object(
                    &[],
                    [
                        ("columns", integer("Characters")),
                        ("rows", integer("Lines")),
                    ],
                ),
            ),
        ],
    )
}

fn test_step() -> Value {
    object(
        &["run"],
        [
            ("run", text("A line for the guest's shell; it must exit 0")),
            ("expect", text("What its output must contain")),
            ("timeout", text("As 30s; default: 60s")),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::written;
    use std::path::Path;

    /// As much of a validator as the schema needs.
    fn check(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
        let known = [
            "$schema",
            "title",
            "description",
            "type",
            "properties",
            "required",
            "items",
            "enum",
            "additionalProperties",
            "propertyNames",
            "minProperties",
            "maxProperties",
            "pattern",
            "anyOf",
        ];
        let map = schema.as_object().unwrap();
        assert!(
            map.keys().all(|key| known.contains(&&**key)),
            "{path}: {map:?}"
        );
        let wrong = |what: &str| Err(format!("{path}: {what}"));
        if let Some(of) = map.get("anyOf") {
            let of = of.as_array().unwrap();
            let each: Vec<_> = of.iter().map(|one| check(one, value, path)).collect();
            if each.iter().all(Result::is_err) {
                return each[0].clone();
            }
        }
        if let Some(kinds) = map.get("type") {
            let kind = match value {
                Value::Null => "null",
                Value::Bool(_) => "boolean",
                Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
                Value::Number(_) => "number",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            };
            let is = |wanted: &Value| *wanted == kind || *wanted == "number" && kind == "integer";
            let fits = match kinds {
                Value::Array(kinds) => kinds.iter().any(is),
                one => is(one),
            };
            if !fits {
                return wrong(&format!("is {kind}, not {kinds}"));
            }
        }
        if let Some(of) = map.get("enum")
            && !of.as_array().unwrap().contains(value)
        {
            return wrong(&format!("{value} is none of {of}"));
        }
        // Of patterns the tests need one only: that of variables.
        if let (Some(pattern), Some(text)) = (map.get("pattern"), value.as_str())
            && *pattern == "\\$\\{"
            && !text.contains("${")
        {
            return wrong("no variable");
        }
        if let (Some(items), Some(list)) = (map.get("items"), value.as_array()) {
            for (index, item) in list.iter().enumerate() {
                check(items, item, &format!("{path}[{index}]"))?;
            }
        }
        let Some(object) = value.as_object() else {
            return Ok(());
        };
        let count = u64::try_from(object.len()).unwrap();
        let bound = |key: &str| map.get(key).and_then(Value::as_u64);
        if bound("minProperties").is_some_and(|least| count < least)
            || bound("maxProperties").is_some_and(|most| count > most)
        {
            return wrong("another number of keys");
        }
        for key in map
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if !object.contains_key(key.as_str().unwrap()) {
                return wrong(&format!("needs {key}"));
            }
        }
        for (key, value) in object {
            let path = format!("{path}.{key}");
            match (
                schema["properties"].get(key),
                map.get("additionalProperties"),
            ) {
                (Some(schema), _) => check(schema, value, &path)?,
                (None, Some(Value::Bool(false))) => return Err(format!("{path}: unknown key")),
                (None, Some(schema)) => check(schema, value, &path)?,
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn verdict(recipe: &str) -> Result<(), String> {
        let value: Value = serde_saphyr::from_str(recipe).unwrap();
        check(&schema(), &value, "")
    }

    #[test]
    fn shipped_recipes_validate() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
        let mut count = 0;
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            for entry in fs_err::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path
                    .extension()
                    .is_some_and(|extension| extension == "yaml")
                {
                    let text = fs_err::read_to_string(&path).unwrap();
                    verdict(&text)
                        .map_err(|why| format!("{}{why}", path.display()))
                        .unwrap();
                    count += 1;
                }
            }
        }
        assert!(count >= 6, "{count}");
    }

    #[test]
    fn wrong_recipes_do_not() {
        let rootfs = "rootfs: {source: {debian: {suite: trixie}}}";
        for (recipe, part) in [
            (format!("name: a\n{rootfs}\n"), None),
            (format!("{rootfs}\n"), Some("needs \"name\"")),
            (
                format!("name: a\n{rootfs}\nhostname: b\n"),
                Some(".hostname: unknown key"),
            ),
            (
                format!("name: a\n{rootfs}\ndevices: {{cpus: two}}\n"),
                Some(".devices.cpus"),
            ),
            (
                format!("name: a\n{rootfs}\ndevices: {{cpus: \"${{n}}\"}}\n"),
                None,
            ),
            (
                "name: a\nrootfs: {source: {}}\n".to_owned(),
                Some("number of keys"),
            ),
        ] {
            match (verdict(&recipe), part) {
                (Ok(()), None) => {}
                (Err(why), Some(part)) => assert!(why.contains(part), "{why}"),
                (verdict, _) => panic!("{recipe}: {verdict:?}"),
            }
        }
    }

    /// The schema has every key that the parser knows.
    #[test]
    fn the_parsers_keys_are_there() {
        let schema = schema();
        let optional = "/anyOf/0";
        let rootfs = "/properties/rootfs";
        let devices = format!("/properties/devices{optional}");
        for (keys, pointer) in [
            (written::RECIPE, String::new()),
            (written::ROOTFS, rootfs.to_owned()),
            (written::SOURCE, format!("{rootfs}/properties/source")),
            (written::DEVICES, devices),
        ] {
            let properties = &schema.pointer(&pointer).unwrap()["properties"];
            for key in keys.known {
                assert!(properties.get(key).is_some(), "{pointer}: {key}");
            }
        }
    }
}
